"""Many machines at once."""

from .group import Group
from .member import Member
from .queue import AsyncResult, NotCompletedError, Queue
from .result import ErrorResult, GroupError, GroupResult

__all__ = [
    "AsyncResult",
    "ErrorResult",
    "Group",
    "GroupError",
    "GroupResult",
    "Member",
    "NotCompletedError",
    "Queue",
]
