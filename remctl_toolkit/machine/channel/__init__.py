"""A command that stays, whose standard streams are open all the time."""

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
    """Import ChannelProcess, which is made of channels, when it is asked for."""
    if name != "ChannelProcess":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..process.popen import ChannelProcess

    return ChannelProcess
