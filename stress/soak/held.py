"""Measure this process's memory, descriptors and threads."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path
from typing import NamedTuple

from remctl_toolkit.testing.waiting import wait_until

__all__ = ["Held", "held"]

_SETTLE_TIMEOUT = 10.0  # seconds for threads to end; the extension keeps one for a second


class Held(NamedTuple):
    """Resources of a process."""

    heap: int | None
    """Octets allocated with malloc(); None if the C library cannot report them."""
    resident: int
    """Octets in RAM."""
    descriptors: int
    threads: int


class _Heap(ctypes.Structure):
    """struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _heap() -> int | None:
    """Return the C library's count; with PYTHONMALLOC=malloc it includes all Python objects."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    ask.restype = _Heap
    found = ask()
    return int(found.uordblks + found.hblkhd)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def held() -> Held:
    """Measure, after threads that are ending have ended."""
    gc.collect()
    wait_until(lambda: _threads() <= threading.active_count(), _SETTLE_TIMEOUT)
    descriptors = len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
    return Held(_heap(), _resident(), descriptors, _threads())
