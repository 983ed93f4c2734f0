"""Wait until a thread waits, so that a signal or a call from another thread hits it there."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import remctl

from .waiting import LIMIT, eventually

if TYPE_CHECKING:
    from types import CodeType, FrameType


def _spot(thread: threading.Thread) -> list[tuple[CodeType, int]]:
    """Return the position of a thread in the program."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    stack = []
    while frame is not None:
        stack.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return stack


def _sleeps(thread: threading.Thread) -> bool:
    """Return whether a thread waits for something else than a processor."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(") ")[2].startswith("S")


def await_standstill(thread: threading.Thread, within: str = remctl.__file__) -> None:
    """Wait until a thread waits within a call of a file: at the same spot, for a while.

    On a busy machine a thread may be at the same spot for long that does not wait at all.  And
    Python handles a signal that arrives just before a lock's system call only after that call.
    """

    def stands_still() -> bool:
        before = _spot(thread)
        if all(code.co_filename != within for code, _ in before):
            return False
        for _ in range(6):
            time.sleep(0.01)
            if _spot(thread) != before or not _sleeps(thread):
                return False
        return True

    eventually(stands_still, LIMIT, what="a thread that waits")
