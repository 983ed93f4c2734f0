"""Exceptions of signal handlers at every line of remctl.py: the session is in step afterwards.

Python calls a signal handler between any two steps of a program, so what it raises may come out of
any line.  Here a trace function stands in for the handler: it raises at the line of the test case.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

import _remctl
import pytest
from support.fakeserver import FakeServer

import _remctl_core
import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 20.0  # seconds after which a wait has failed


class Interruption(BaseException):
    """The exception of the handler."""


TRACED = {remctl.__file__, _remctl_core.__file__}


class Interrupter:
    """Raise at the line of the core that is the so-manieth to be reached; a context manager."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __enter__(self) -> Interrupter:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in TRACED else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                raise Interruption
        return self._line


class CallInterrupter(Interrupter):
    """Raise after the so-manieth call of a C function by the core: where handlers really run."""

    def __enter__(self) -> CallInterrupter:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_return" and frame.f_code.co_filename in TRACED:
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise Interruption


def run(session: remctl.Remctl) -> None:
    session.run(["interrupted"])


def stream(session: remctl.Remctl) -> None:
    for _ in session.stream(["interrupted"]):
        pass


def piece_by_piece(session: remctl.Remctl) -> None:
    """Go on after an interruption where the connection is kept: no token may be missing."""
    tokens: list[str] = []

    def read() -> None:
        while (token := session.output()).type != "done":
            tokens.append(token.type)

    try:
        session.command(["interrupted"])
        read()
    except Interruption:
        if "lost" not in repr(session):
            read()
            assert tokens in ([], ["output", "status"])
        raise


def noop(session: remctl.Remctl) -> None:
    session.noop()


def lose(session: remctl.Remctl) -> None:
    _remctl.remctl_close(session._session.handle)


@pytest.fixture
def session(remctl_realm: Realm) -> Iterator[remctl.Remctl]:
    with (
        FakeServer(remctl_realm.keytab) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        yield session


# Python's own socket warns where it is dropped between two lines; it is closed all the same.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("use", "lost"),
    [
        (run, False),
        (run, True),
        (stream, False),
        (stream, True),
        (piece_by_piece, False),
        (piece_by_piece, True),
        (noop, False),
    ],
)
def test_next_command_gets_its_reply_wherever_the_last_was_interrupted(
    session: remctl.Remctl, use: Callable[[remctl.Remctl], None], lost: bool
) -> None:
    for line in itertools.count():
        if lost:
            lose(session)
        interrupter = Interrupter(line)
        try:
            with interrupter:
                use(session)
        except Interruption:
            reply = session.run(["line", str(line)]).stdout
            assert reply == b"line %d\n" % line
        else:
            break
    assert line > 10, "every line was interrupted"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("use", [run, stream, noop])
def test_no_interruption_keeps_the_other_threads_out(
    session: remctl.Remctl, use: Callable[[remctl.Remctl], None]
) -> None:
    with ThreadPoolExecutor(1) as other:
        for call in itertools.count():
            try:
                with CallInterrupter(call):
                    use(session)
            except Interruption:
                answer = other.submit(session.run, ["call", str(call)]).result(LIMIT)
                assert answer.stdout == b"call %d\n" % call
            else:
                break
    assert call > 2, "every call was interrupted"
