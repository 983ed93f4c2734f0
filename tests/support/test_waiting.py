"""The helpers that wait and measure."""

from __future__ import annotations

import mmap
import re
import socket
import threading

import pytest

from support.waiting import PATIENCE, eventually, open_descriptors, resident_kib, thread_count

pytestmark = pytest.mark.once


def test_eventually_returns_what_the_condition_gave() -> None:
    answers = iter([0, None, "", "yes"])
    assert eventually(lambda: next(answers), interval=0) == "yes"


def test_eventually_gives_up() -> None:
    told = re.escape(f"not within {0.02 * PATIENCE} seconds: pigs to fly")
    with pytest.raises(AssertionError, match=told):
        eventually(lambda: False, 0.02, what="pigs to fly")


def test_open_descriptors() -> None:
    before = open_descriptors()
    with socket.socket(), socket.socket():
        assert open_descriptors() == before + 2
    assert open_descriptors() == before


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
