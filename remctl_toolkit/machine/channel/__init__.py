"""Commands on the remote host whose standard streams stay open."""

from __future__ import annotations

from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING

from .channel import Channel, ChannelError

if TYPE_CHECKING:
    from ..process.popen import ChannelProcess

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Channel",
    "ChannelError",
    "ChannelProcess",
]


def __getattr__(name: str) -> object:
    """Import ChannelProcess on first use, because its module imports this one."""
    if name != "ChannelProcess":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..process.popen import ChannelProcess

    return ChannelProcess
