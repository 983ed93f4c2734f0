"""Report the principal and the expiry of tickets, to find out why authentication failed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from gssapi.raw.misc import GSSError

import _remctl_core as _core
import remctl
from _remctl_hints import describe_tickets, find_tickets

from ._renewal import minor_text

__all__ = ["Identity", "whoami"]


@dataclass(frozen=True)
class Identity:
    """The principal of some tickets; ``str()`` makes a line to show to people.

    Attributes:
        principal: the principal; None if there are no tickets.
        ccache: the name of the credential cache; None if unknown.
        ends: expiry of the tickets, in seconds since the epoch; None if unknown.
        reason: why there are no tickets; None if there are some.
    """

    principal: str | None = None
    ccache: str | None = None
    ends: float | None = None
    reason: str | None = None

    @property
    def left(self) -> float:
        """Seconds until the tickets expire; 0 if there are none."""
        return 0.0 if self.ends is None else max(self.ends - time.time(), 0.0)

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no tickets: {self.reason}"
        text = describe_tickets(self.principal, self.ccache, self.ends)
        if self.ends is None:
            return text
        return f"{text} ({_duration(self.left)} left)" if self.left else f"{text}: run kinit"


def whoami(
    ccache: str | os.PathLike[str] | remctl.RemctlCredentials | None = None,
) -> Identity:
    """Return the principal and the expiry of tickets.

    Only credentials may ask a KDC.

    Args:
        ccache: name or path of a credential cache; or credentials, to look at their tickets; None
            means the default cache.

    Returns:
        An `Identity`, even if there are no tickets or they have expired.

    Raises:
        TypeError, ValueError: the name of the cache is invalid.
    """
    name = None
    try:
        if isinstance(ccache, str | os.PathLike):
            name = _core.check_ccache(ccache)
        elif ccache is not None:
            _core.check_credentials(ccache, None)
            name = ccache.ccache()
        return Identity(*find_tickets(name))
    except remctl.RemctlAuthenticationError as error:
        return Identity(ccache=name, reason=str(error))
    except GSSError as error:
        reason = minor_text(error)
        if name is not None and name.partition(":")[2] not in reason:
            reason = f"{name}: {reason}"
        return Identity(ccache=name, reason=reason)


def _duration(seconds: float) -> str:
    """Format a duration for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days"
