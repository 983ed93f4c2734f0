"""Many machines at once."""

from .group import Group, Queue
from .result import AsyncResult, ErrorResult, GroupError, GroupResult, NotCompletedError

__all__ = [
    "AsyncResult",
    "ErrorResult",
    "Group",
    "GroupError",
    "GroupResult",
    "NotCompletedError",
    "Queue",
]
