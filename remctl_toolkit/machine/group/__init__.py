"""Many machines at once."""

from .group import (
    AsyncResult,
    ErrorResult,
    Group,
    GroupError,
    GroupResult,
    NotCompletedError,
    Queue,
)

__all__ = [
    "AsyncResult",
    "ErrorResult",
    "Group",
    "GroupError",
    "GroupResult",
    "NotCompletedError",
    "Queue",
]
