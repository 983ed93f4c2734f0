"""Functions that the tests call on the far side, by their names in this module."""

from __future__ import annotations

import os
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
    """Sleep, and write down how that ended."""
    Path(note).write_text("begun")
    try:
        time.sleep(seconds)
    except BaseException as error:
        Path(note).write_text(type(error).__name__)
        raise


def spin_noted(note: str) -> None:
    """The same for a loop that never waits."""
    Path(note).write_text("begun")
    try:
        while True:
            pass
    except BaseException as error:
        Path(note).write_text(type(error).__name__)
        raise


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
