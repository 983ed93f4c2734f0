"""Wait for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

_INTERVAL = 0.002  # seconds between two checks


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until a condition is true.

    Args:
        condition: called every few milliseconds.
        timeout: seconds to wait at most.

    Returns:
        Whether it became true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline  # Check once more after the deadline.
        if condition():
            return True
        if late:
            return False
        time.sleep(_INTERVAL)
