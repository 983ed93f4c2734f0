"""A whole machine over remctl: commands, pipes, paths, Python functions, files, tunnels.

    with Machine("server.example.org") as machine:
        print(machine["ls"]("-l"))

Nothing is imported until a name is asked for: a program that needs a channel does not wait for
plumbum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import Channel, ChannelError
    from .connection import Connection, FarSide
    from .errors import (
        ClosedError,
        CommandTimeoutError,
        MachineError,
        NoPythonError,
        WorkingFolderError,
    )

__all__ = [
    "Channel",
    "ChannelError",
    "ClosedError",
    "CommandTimeoutError",
    "Connection",
    "FarSide",
    "MachineError",
    "NoPythonError",
    "WorkingFolderError",
]

_HOMES = {
    "Channel": "channel",
    "ChannelError": "channel",
    "Connection": "connection",
    "FarSide": "connection",
    "Machine": "machine",
}


def __getattr__(name: str) -> object:
    """Import a public name from its file the first time it is asked for."""
    from importlib import import_module

    if name in _HOMES:
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in __all__:
        value = getattr(import_module(f"{__name__}.errors"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
