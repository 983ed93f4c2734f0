"""Commands that end, or are ended when their time is over, on a machine that may be busy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def pids_in(path: Path) -> list[int]:
    """Return the numbers that a command has written there, none if it had not come to that."""
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def with_more_time(attempt: Callable[[float], object]) -> None:
    """Try with a time limit, and with longer ones where what is to happen within it has not.

    Args:
        attempt: is called with seconds, and returns whether it has.
    """
    if not any(attempt(limit) for limit in (0.3, 3.0, 12.0)):
        raise AssertionError("not within 12 seconds")
