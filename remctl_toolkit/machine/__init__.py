"""A whole machine over remctl: commands, pipes, paths, Python functions, files, tunnels.

    with Machine("server.example.org") as machine:
        print(machine["ls"]("-l"))

Nothing is imported until a name is asked for: a program that needs a channel does not wait for
plumbum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base.account import FarSide
    from .base.connection import Connection
    from .base.errors import (
        ClosedError,
        CommandTimeoutError,
        MachineError,
        NoPythonError,
        WorkingFolderError,
    )
    from .call.interpreter import (
        CallTimeoutError,
        Interpreter,
        InterpreterEndedError,
        RemoteCallError,
        ResultError,
        SendError,
    )
    from .channel.channel import Channel, ChannelError
    from .files.transfer import TransferError
    from .gateway import GatewayError, open_gateway
    from .group.group import Group, Queue
    from .group.result import GroupError, GroupResult
    from .plumbum.machine import Machine
    from .process.popen import ChannelProcess
    from .process.process import CommandFailedError
    from .tunnel.tunnel import Tunnel, TunnelError

__all__ = [
    "CallTimeoutError",
    "Channel",
    "ChannelError",
    "ChannelProcess",
    "ClosedError",
    "CommandFailedError",
    "CommandTimeoutError",
    "Connection",
    "FarSide",
    "GatewayError",
    "Group",
    "GroupError",
    "GroupResult",
    "Interpreter",
    "InterpreterEndedError",
    "Machine",
    "MachineError",
    "NoPythonError",
    "Queue",
    "RemoteCallError",
    "ResultError",
    "SendError",
    "TransferError",
    "Tunnel",
    "TunnelError",
    "WorkingFolderError",
    "open_gateway",
]

_HOMES = {
    "base.account": "FarSide",
    "base.connection": "Connection",
    "base.errors": "ClosedError CommandTimeoutError MachineError NoPythonError WorkingFolderError",
    "call": "CallTimeoutError Interpreter InterpreterEndedError RemoteCallError",
    "call.errors": "ResultError SendError",
    "channel": "Channel ChannelError",
    "files": "TransferError",
    "gateway": "GatewayError open_gateway",
    "group": "Group GroupError GroupResult Queue",
    "plumbum.machine": "Machine",
    "process": "CommandFailedError",
    "process.popen": "ChannelProcess",
    "tunnel": "Tunnel TunnelError",
}


def __getattr__(name: str) -> object:
    """Import a public name from its file the first time it is asked for."""
    for home, names in _HOMES.items():
        if name in names.split():
            from importlib import import_module

            value: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
