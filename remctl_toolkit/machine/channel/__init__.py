"""A command that stays, whose standard streams are open all the time."""

from .channel import DEVNULL, PIPE, STDOUT, Channel, ChannelError, ChannelProcess

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Channel",
    "ChannelError",
    "ChannelProcess",
]
