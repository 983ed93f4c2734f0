"""Functions that tests call on the remote host, by their names in this module."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT = 10
_count = 0


class CustomError(OSError):
    pass


def count() -> int:
    global _count
    _count += 1
    return _count


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def same(value: Any) -> Any:
    return value


def fail(text: str) -> None:
    raise CustomError(5, text)


def numbers(n: int, note: str = "") -> Iterator[int]:
    try:
        yield from range(n)
    finally:
        if note:
            Path(note).write_text("ended")


def failing_numbers(n: int) -> Iterator[int]:
    yield from range(n)
    raise ValueError("enough")


def ahead(note: str) -> Iterator[int]:
    number = 0
    while True:
        number += 1
        Path(note).write_text(str(number))
        yield number


def blocks(size: int, note: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        Path(note).write_text(str(number))
        yield bytes(size)


def slow_numbers(note: str) -> Iterator[int]:
    try:
        yield 1
        time.sleep(600)
        yield 2
    finally:
        Path(note).write_text("ended")


def sleep_noted(note: str, seconds: float = 600) -> None:
    """Sleep, and write down how that ended, as soon as there is the note."""
    try:
        Path(note).write_text("begun")
        time.sleep(seconds)
    except BaseException as error:
        Path(note).write_text(type(error).__name__)
        raise


def note_at_exit(note: str) -> None:
    atexit.register(Path(note).touch)


def spin_noted(note: str) -> None:
    """The same for a loop that never waits."""
    try:
        Path(note).write_text("begun")
        while True:
            pass
    except BaseException as error:
        Path(note).write_text(type(error).__name__)
        raise


def sleep_deaf_at_first(note: str) -> None:
    """The same where the first signal is missed, as one is that comes just before the sleep."""
    number = signal.SIGRTMAX
    usual = signal.getsignal(number)
    signal.signal(number, lambda *_: signal.signal(number, usual))
    sleep_noted(note)


_barrier = threading.Barrier(3)


def meet() -> int:
    """Wait until three of these run at the same time."""
    return _barrier.wait(20)


def shout() -> str:
    print("one")
    print("no end of line", end="")
    sys.stdout.flush()
    os.system("echo; echo from the system; echo to stderr >&2")
    sys.stdout.write("é\x1b[2J\n")
    os.write(1, b"\xff\n")
    return "quiet"


def noisy(n: int) -> Iterator[int]:
    for number in range(n):
        print(number)
        yield number


def read_input() -> tuple[str, bytes]:
    return sys.stdin.read(), os.read(0, 10)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def main_names() -> list[str]:
    return [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")]


def forked() -> int:
    pid = os.fork()
    if pid == 0:
        return 99
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked_while_output_is_sent() -> int:
    """Fork while another thread holds the lock, which is never released in the child."""
    frame = sys._getframe()
    while "self" not in frame.f_locals:
        frame = frame.f_back  # type: ignore[assignment]
    lock = frame.f_locals["self"].agent.line.draining
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        return 99
    lock.release()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
