"""The helpers that wait and measure."""

from __future__ import annotations

import mmap
import re
import socket
import threading
import time

import pytest

from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually, open_descriptors, resident_kib, thread_count

pytestmark = pytest.mark.once


def test_eventually_returns_what_the_condition_gave() -> None:
    answers = iter([0, None, "", "yes"])
    assert eventually(lambda: next(answers), interval=0) == "yes"


def test_eventually_gives_up() -> None:
    told = re.escape(f"not within {0.02 * PATIENCE} seconds: pigs to fly")
    with pytest.raises(AssertionError, match=told):
        eventually(lambda: False, 0.02, what="pigs to fly")


def test_eventually_looks_once_more_when_it_was_held_up() -> None:
    moments = iter([False, True])

    def held_up() -> bool:
        time.sleep(0.02 * PATIENCE)
        return next(moments)

    assert eventually(held_up, 0.01)


def count_descriptors() -> list[int]:
    before = open_descriptors()
    with socket.socket(), socket.socket():
        during = open_descriptors()
    return [during - before, open_descriptors() - before]


def test_open_descriptors() -> None:
    # In a process of its own: in this one, what an earlier test left to end may end meanwhile.
    assert in_child(count_descriptors) == [2, 0]


def test_thread_count() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(10,))
    thread.start()
    with_thread = thread_count()
    end.set()
    thread.join()
    eventually(lambda: thread_count() < with_thread)


def test_resident_kib() -> None:
    before = resident_kib()
    with mmap.mmap(-1, 32 * 1024 * 1024) as fresh:  # Not memory that Python had before.
        fresh.write(b"\x01" * len(fresh))
        assert resident_kib() > before + 30 * 1024
