"""The identity of a host, the same for all spellings of its name."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import Any

import _remctl_core as _core
import remctl

_MAX_NAME = 255  # characters, in DNS
_IPV4 = re.compile(r"[0-9][0-9a-fx.]*")  # also the short and the octal forms: inet_aton(3)


@dataclass(frozen=True, order=True, slots=True)
class Host:
    """A host, with a port or a principal of its own if it needs one.

    Hosts are compared and sorted by their identity, which does not depend on the case of the name,
    a final dot, the spelling of an international name or of an IP address, or whether the default
    port is named.  But hosts with different principals differ.

    Attributes:
        name: its name, as it was written; used for connecting and in messages.
        port: its port; None is the fleet's.
        principal: its Kerberos principal; None is the fleet's.
        identity: the canonical name, the port (0 is the default one), and the principal ("" is the
            fleet's).

    Raises:
        TypeError, ValueError: one of them is invalid.
    """

    name: str = field(compare=False)
    port: int | None = field(default=None, compare=False)
    principal: str | None = field(default=None, compare=False)
    identity: tuple[str, int, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        port: Any = self.port
        if port is not None:
            if isinstance(port, bool) or not isinstance(port, int):
                raise TypeError(f"port must be a whole number, not {port!r}")
            if port < 1:
                raise ValueError(f"port must be 1 or more, not {port}")
        number = _core.check_port(self.port)
        principal = _core.check_principal(self.principal) or ""
        default = number == remctl.PORT
        identity = (canonical_name(self.name), 0 if default else number, principal)
        object.__setattr__(self, "identity", identity)

    def __str__(self) -> str:
        if self.port is None:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def canonical_name(name: str) -> str:
    """Return the spelling of a name that is used for comparing, but not for connecting.

    Args:
        name: a host name, or an IP address, which may have a scope.

    Raises:
        TypeError, ValueError: it is neither.
    """
    written, name = name, _core.check_host(name)
    if len(written) > _MAX_NAME or not written.isprintable():
        # Python's IDNA accepts characters that change the direction of text or are invisible.
        text = f"host name is too long, or has characters that cannot be seen: {written!a}"
        raise ValueError(text)
    if ":" in name:
        try:
            address = ipaddress.IPv6Address(name)
        except ValueError:
            return name.lower()
        return str(address.ipv4_mapped or address)
    name = name.lower()
    name = name.removesuffix(".") or name
    if _IPV4.fullmatch(name):
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(name))
    return name
