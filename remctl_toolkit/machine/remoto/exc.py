"""What remoto's exceptions are called here."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from remctl import RemctlError

from ..base.errors import CommandTimeoutError as TimeoutError
from ..call import RemoteCallError as RemoteError
from ..call import ResultError as DataFormatError

__all__ = ["DataFormatError", "HostNotFound", "RemoteError", "TimeoutError"]


HostNotFound: type[Exception] = type("HostNotFound", (Exception,), {})
with contextlib.suppress(ImportError):
    from execnet import gateway_bootstrap

    HostNotFound = gateway_bootstrap.HostNotFound


def as_host_not_found(error: RemctlError) -> RemctlError:
    """Make an error of connecting, whatever kind it is, a `HostNotFound` as well, and return it."""
    kind: Any = type(error)
    error.__class__ = _both(kind)
    return error


@functools.cache
def _both(kind: Any) -> type[RemctlError]:
    def reduce(error: RemctlError) -> tuple[Any, ...]:
        plain = kind(*error.args)
        vars(plain).update(vars(error))
        return as_host_not_found, (plain,)

    names = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    return type(kind.__name__, (kind, HostNotFound), names)
