"""Commands that end, or are ended when their time is over, on a machine that may be busy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.waiting import TRIES


def pids_in(path: Path) -> list[int]:
    """Return the numbers that a command has written there, none if it had not come to that."""
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def attempt_within_limit(attempt: Callable[[float], object]) -> None:
    """Try with a time limit, again where what is to happen within it has not.

    Args:
        attempt: is called with seconds, and returns whether it has.
    """
    if not any(map(attempt, TRIES)):
        raise AssertionError(f"never within {TRIES[0]} seconds")
