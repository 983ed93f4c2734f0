"""Wait for a condition, without sleeping longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

_INTERVAL = 0.002  # seconds between two looks


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until a condition is true.

    Args:
        condition: called again and again, every few milliseconds.
        timeout: seconds to wait at most.

    Returns:
        Whether it became true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline  # The last look is after it, however long one takes.
        if condition():
            return True
        if late:
            return False
        time.sleep(_INTERVAL)
