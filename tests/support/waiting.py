"""Wait for a condition, and measure this process's resources."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0 if os.environ.get("REMCTL_SANITIZED") else 1.0
"""Factor for timeouts that only end a hanging test: everything is slower under a sanitizer."""

LIMIT = 30.0 * PATIENCE
"""Timeout in seconds for everything that is immediate on an idle machine."""

TRIES = (1.0 * PATIENCE,) * 30
"""Seconds for what has to come to pass within a time limit, again and again.

A busy machine misses the limit sometimes; what is always late misses it each time.
"""


def eventually(
    condition: Callable[[], T], timeout: float = 30.0, *, interval: float = 0.01, what: str = ""
) -> T:
    """Ask again every `interval` seconds until the condition is true, and return what it gave.

    Raises AssertionError after `timeout` seconds, times PATIENCE; `what` says what was waited for.
    """
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= end  # The last look is after the end, however long one takes.
        if value := condition():
            return value
        if late:
            raise AssertionError(f"not within {timeout} seconds: {what or condition}")
        time.sleep(interval)


def runs(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or before it was read
        return False
    return state not in "ZX"


def open_descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them


def thread_count() -> int:
    """Return the number of threads of this process, including those of C code.

    A thread that has been joined may be counted for a moment longer: compare with eventually().
    """
    return len(os.listdir("/proc/self/task"))


def unread_octets(port: int) -> int:
    """Return the number of unread octets in the connections of a server on 127.0.0.1."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [line for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"]
    return sum(int(line[4].partition(":")[2], 16) for line in ours)


def all_is_read(port: int) -> bool:
    """Return whether the listener on an IPv4 port has accepted all clients and read all their data.

    Until then, a server that is killed resets the connection, or leaves it to its successor.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [line for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"]
    return all(line[4].endswith(":00000000") and line[9] != "0" for line in established)


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """Check that the block leaves no more descriptors than before.

    Descriptors may take a moment to close, also those of earlier tests.
    """
    before = open_descriptors()
    yield
    eventually(
        lambda: open_descriptors() <= before, interval=0.001, what=f"{before} open descriptors"
    )


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Check that the block leaves no more descriptors and threads; they may take a second."""
    threads = thread_count()
    with nothing_left_open():
        yield
    eventually(lambda: thread_count() <= threads, what=f"{threads} threads")


def resident_kib() -> int:
    """Return this process's resident memory in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS")
