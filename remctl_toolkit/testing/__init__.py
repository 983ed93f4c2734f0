"""A temporary Kerberos realm with a real KDC and a real remctld, for tests.

    from remctl_toolkit.testing import Command, Realm, RemctldServer

    with Realm() as realm, RemctldServer(realm, [Command("test", "echo", "/bin/echo")]) as server:
        with realm.environ():
            ...  # connect to server.host, server.port and server.principal

Names are imported on first access, so that the pytest plugin of this package costs nothing in a
test run that does not use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backends import backend_commands
    from .commands import Command, machine_commands
    from .errors import RealmError, ServerError
    from .plugin import ServerFactory
    from .programs import MissingPrograms
    from .realm import Realm
    from .server import RemctldServer

__all__ = [
    "Command",
    "MissingPrograms",
    "Realm",
    "RealmError",
    "RemctldServer",
    "ServerError",
    "ServerFactory",
    "backend_commands",
    "machine_commands",
]

_HOMES = {
    "Command": "commands",
    "MissingPrograms": "programs",
    "Realm": "realm",
    "RealmError": "errors",
    "RemctldServer": "server",
    "ServerError": "errors",
    "ServerFactory": "plugin",
    "backend_commands": "backends",
    "machine_commands": "commands",
}


def __getattr__(name: str) -> object:
    """Import a public name from its file the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
