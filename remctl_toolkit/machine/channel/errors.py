"""What can go wrong with a channel."""

from __future__ import annotations

from ..base.connection import Connection
from ..base.errors import MachineError


class ChannelError(MachineError):
    """A channel was lost: the network, the server, or what keeps the command there has ended.

    What the command has done until then is not known; over there it is ended, if it still ran.
    """


def lost(connection: Connection, reason: BaseException | str) -> ChannelError:
    """Return the exception for a channel of that connection; a reason becomes its cause."""
    error = ChannelError(f"channel to {connection.host} was lost: {reason}")
    error.host = connection.host
    if isinstance(reason, BaseException):
        error.__cause__ = reason
    return error
