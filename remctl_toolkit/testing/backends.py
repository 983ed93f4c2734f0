"""Turn a `remctl_toolkit.backend.Backend` into commands of a remctld."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from .commands import Command

__all__ = ["BackendLike", "backend_commands"]

_SCRIPT = """
PYTHONPATH={path} exec {python} -m remctl_toolkit.backend.launch {file} {module} {name} {acl} "$@"
"""


class BackendLike(Protocol):
    """The part of `remctl_toolkit.backend.Backend` that is used here."""

    name: str
    file: str | None

    def rules(self) -> list[dict[str, Any]]:
        """Return the keyword arguments of a Command for each line of remctl.conf."""


def backend_commands(backend: BackendLike, acl: str | Sequence[str] = ()) -> list[Command]:
    """Return the commands of a backend, for RemctldServer.

    remctld runs the backend in a new interpreter with this one's import path. Its reports are in
    the server's ``log``.

    Args:
        backend: a `remctl_toolkit.backend.Backend` at the top level of a file.
        acl: who may run any of them, instead of the declared ACLs.

    Raises:
        ValueError: no variable at the top level of its file holds it.
    """
    entries = (acl,) if isinstance(acl, str) else tuple(acl)
    script = _script(backend, entries)
    override = {"acl": entries} if entries else {}
    return [Command(script=script, **{**rule, **override}) for rule in backend.rules()]


def _script(backend: BackendLike, acl: Sequence[str]) -> str:
    module = _module_of(backend)
    if module is None:
        raise ValueError(
            f"{backend!r} cannot be imported by another process: assign it to a variable at the"
            " top level of its file"
        )
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    words = {
        "path": path,
        "python": sys.executable,
        "file": os.path.abspath(backend.file or ""),
        "module": module,
        "name": backend.name,
        "acl": " ".join(acl),
    }
    return _SCRIPT.format_map({name: shlex.quote(word) for name, word in words.items()})


def _module_of(backend: BackendLike) -> str | None:
    """Return the name of the module that has the backend in a variable at its top level."""
    for name, module in list(sys.modules.items()):
        has_file = backend.file is not None and getattr(module, "__file__", None) == backend.file
        if has_file and any(value is backend for value in list(vars(module).values())):
            return name
    return None
