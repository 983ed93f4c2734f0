"""Remote hosts over remctl: commands, pipes, paths, Python functions, files, tunnels.

    with Machine("server.example.org") as machine:
        print(machine["ls"]("-l"))

Names are imported on first use, so that a program with a channel does not wait for plumbum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base.account import FarSide as FarSide
    from .base.accounts import UnknownUserError as UnknownUserError
    from .base.connection import Connection as Connection
    from .base.errors import ClosedError as ClosedError
    from .base.errors import CommandTimeoutError as CommandTimeoutError
    from .base.errors import MachineError as MachineError
    from .base.errors import NoPythonError as NoPythonError
    from .base.errors import WorkingFolderError as WorkingFolderError
    from .call import CallTimeoutError as CallTimeoutError
    from .call import Interpreter as Interpreter
    from .call import InterpreterEndedError as InterpreterEndedError
    from .call import RemoteCallError as RemoteCallError
    from .call import ResultError as ResultError
    from .call import SendError as SendError
    from .channel.channel import Channel as Channel
    from .channel.channel import ChannelError as ChannelError
    from .files.transfer import TransferError as TransferError
    from .gateway import GatewayError as GatewayError
    from .gateway import open_gateway as open_gateway
    from .group.group import Group as Group
    from .group.queue import Queue as Queue
    from .group.result import GroupError as GroupError
    from .group.result import GroupResult as GroupResult
    from .plumbum.machine import Machine as Machine
    from .process.popen import ChannelProcess as ChannelProcess
    from .process.process import CommandFailedError as CommandFailedError
    from .tunnel.tunnel import Tunnel as Tunnel
    from .tunnel.tunnel import TunnelError as TunnelError

_HOMES = {
    "base.account": "FarSide",
    "base.accounts": "UnknownUserError",
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


__all__ = [name for names in _HOMES.values() for name in names.split()]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    for home, names in _HOMES.items():
        if name in names.split():
            from importlib import import_module

            value: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
