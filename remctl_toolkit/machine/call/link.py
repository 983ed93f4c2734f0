"""The link to an interpreter of the far side: frames both ways, and a thread that reads them."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from _remctl_text import printable
from remctl import RemctlError, RemctlStream

from ..base.program import source
from ..wire.values import DecodeError, decode
from .errors import InterpreterEndedError
from .output import Lines

WINDOW = (256, 1 << 20)  # items and octets of a generator that may be on their way

_AGENT = ("values", "imports", "functions", "agent")
_HEAD = struct.Struct(">cII")
_GRANT = struct.Struct(">II")
_MESSAGE_LIMIT = 1 << 31
_QUESTION_LIMIT = 4096
_OVERHEAD = 4 << 20  # octets that what tells of an error may have, whatever the limit for results
_READ_SIZE = 1 << 18
_END_WAIT = 8.0  # seconds that an interpreter is given to end by itself: it takes five at most
_STATUS_WAIT = 10.0  # seconds until a process has ended that has closed its output
_WHOLE = 1 << 19  # octets that a channel takes all of, or none, whatever comes in between
_START_WAIT = 30.0


class Stream(Protocol):
    """What a link needs of a channel."""

    def write(self, data: bytes, /) -> None: ...
    def read(self, n: int = -1, /) -> bytes: ...
    def read_stderr(self, n: int = -1, /) -> bytes: ...
    def wait(self, timeout: float | None = None, /) -> int: ...
    def close(self) -> None: ...
    def drop(self) -> None: ...


class Frame(NamedTuple):
    """What came for a call: a letter and octets, or an error instead if the link has ended."""

    letter: bytes
    octets: bytes
    error: InterpreterEndedError | None = None


class Pending:
    """A call that is under way: what comes for it waits here."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self.number = number
        self.frames: SimpleQueue[Frame] = SimpleQueue()
        self._lock = threading.Lock()
        self._streams = False  # Its result is a generator.
        self.items = 0  # of that, on their way
        self.octets = 0

    def begin_stream(self, octets: int) -> None:
        """Take note that the result is a generator.

        Raises:
            DecodeError: it is one already, or something came with that.
        """
        if self._streams or octets:
            raise DecodeError("the beginning of a generator where there can be none")
        self._streams = True

    def arrived(self, octets: int) -> None:
        """Count an item of a generator.

        Raises:
            DecodeError: there is no generator, or was no room for it.
        """
        with self._lock:
            if not self._streams:
                raise DecodeError("an item of no generator")
            if self.items >= WINDOW[0] or self.octets >= WINDOW[1]:
                raise DecodeError("more of a generator's items than it was asked for")
            self.items += 1
            self.octets += octets

    def next(self, timeout: float | None) -> Frame:
        """Return what comes next.

        Raises:
            TimeoutError: nothing came in that time.
            InterpreterEndedError: nothing comes any more.
        """
        if threading.current_thread() is self._link.thread:
            raise RuntimeError("no call can be made where a line of output is handed on")
        try:
            frame = self.frames.get(timeout=timeout)
        except Empty:
            raise TimeoutError from None
        if frame.error is not None:
            self.frames.put(frame)  # For whoever asks again.
            raise frame.error
        return frame

    def grant(self, items: int, octets: int) -> None:
        """Let the far side send as many more items of a generator, with so many octets."""
        with self._lock:
            self.items -= items
            self.octets -= octets
        self._link.send(b"M", self.number, _GRANT.pack(items, octets))

    def abandon(self) -> None:
        """Have the far side end the call, unless it has; whatever comes for it is dropped."""
        if self._link.drop(self.number):
            with contextlib.suppress(InterpreterEndedError):  # Then it has ended, too.
                self._link.cancel(self.number)

    def abandon_later(self) -> None:
        """Do that in another thread: whoever finds garbage may hold any lock."""
        with contextlib.suppress(RuntimeError):  # At the end of a process, no thread starts.
            threading.Thread(target=self.abandon, name="remctl-leave", daemon=True).start()

    def cancel(self) -> None:
        """Have the far side end the call; that it has ended still comes."""
        self._link.cancel(self.number)


def agent_source(settings: dict[str, Any]) -> str:
    """Return the program of the interpreter, which keeps ``__main__`` empty for its callers."""
    programs = {f"_remctl_{name}": source(f"call/far_{name}") for name in _AGENT}
    return (
        "import sys\n"
        f"for name, text in {programs!a}.items():\n"
        "    module = sys.modules[name] = type(sys)(name)\n"
        "    exec(compile(text, '<remctl ' + name + '>', 'exec'), module.__dict__)\n"
        f"module.start({settings!a})\n"
    )


class Link:
    """An interpreter that runs, and the thread that reads what it says.

    Attributes:
        version: the Python over there.
        unprepared: it could not make use of something that came with a call.

    Raises:
        InterpreterEndedError: it did not start.
    """

    def __init__(
        self, stream: Stream, host: str, limit: int, answer: Callable[..., Any], lines: Lines
    ) -> None:
        self._stream = stream
        self._host = host
        self._limit = limit
        self._answer = answer
        self._lines = lines
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._calls: dict[int, Pending] = {}
        self._numbers = itertools.count(1)
        self.pid = os.getpid()
        self.error: InterpreterEndedError | None = None
        self.unprepared = False
        self.version: tuple[int, ...] = ()
        self._hello: SimpleQueue[bool] = SimpleQueue()
        self.thread = threading.Thread(target=self._listen, name=f"remctl-call-{host}", daemon=True)
        try:
            self.thread.start()
            self._await_hello()
        except BaseException:
            self.close()
            raise

    def _await_hello(self) -> None:
        try:
            self._hello.get(timeout=_START_WAIT)
        except Empty:
            self._fail("its interpreter did not start", ended=False)
        self._check()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    # Sending.

    def send(self, letter: bytes, number: int, octets: bytes) -> None:
        """Send a frame: one write.

        Raises:
            ValueError: it is too large; nothing was sent.
            InterpreterEndedError: there is nobody to send it to.
        """
        if len(octets) > _MESSAGE_LIMIT:
            raise ValueError(f"a call takes {len(octets)} octets: {_MESSAGE_LIMIT} are the most")
        self._check()
        try:
            with self._writing:
                self._stream.write(_HEAD.pack(letter, number, len(octets)) + octets)
        except (OSError, RemctlError) as error:
            self._fail(f"the way to its interpreter is lost: {error}")
            self._check()
        except BaseException:  # Ctrl-C: nothing can follow what was sent in part.
            if len(octets) > _WHOLE:
                self._fail("a message to its interpreter was cut short", ended=False)
            raise

    def expect(self) -> Pending:
        """Return a call that is not sent yet: its number, and the place for what comes back."""
        with self._lock:
            pending = Pending(self, next(self._numbers))
            self._calls[pending.number] = pending
        return pending

    def drop(self, number: int) -> bool:
        """Forget a call; False if its end has come."""
        with self._lock:
            return self._calls.pop(number, None) is not None

    def cancel(self, number: int) -> None:
        """Have a call ended over there, if there is a there any more."""
        if self.error is None:
            self.send(b"X", number, b"")

    # Receiving.

    def _listen(self) -> None:
        try:
            for letter, number, octets in self._frames():
                self._take(letter, number, octets)
            self._fail("its interpreter has ended")
        except DecodeError as error:
            self._fail(f"its interpreter sent what it must not: {error}", ended=False)
        except (OSError, RemctlError) as error:
            self._fail(f"the way to its interpreter is lost: {error}")
        except BaseException as error:
            self._fail(f"its output cannot be read: {error!r}", ended=False)
            raise

    def _frames(self) -> Iterator[tuple[bytes, int, bytes]]:
        buffer = bytearray()
        while True:
            while len(buffer) >= _HEAD.size:
                letter, number, size = _HEAD.unpack_from(buffer)
                if size > self._limit + _OVERHEAD:
                    raise DecodeError(f"{size} octets at once")
                if len(buffer) < _HEAD.size + size:
                    break
                octets = bytes(memoryview(buffer)[_HEAD.size : _HEAD.size + size])
                del buffer[: _HEAD.size + size]
                yield letter, number, octets
            octets = self._stream.read(_READ_SIZE)
            if not octets:
                return
            buffer += octets

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter == b"?":
            self._reply(number, octets)
        elif letter in (b"1", b"2"):
            self._lines.take(RemctlStream(int(letter)), octets)
        elif letter == b"H":
            self._greet(octets)
        elif letter in (b"V", b"!", b"P", b"X", b"E", b"G", b"I"):
            self._deliver(letter, number, octets)
        else:
            raise DecodeError(f"a frame of kind {letter!r}")

    def _deliver(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter == b"P":
            self.unprepared = True
        with self._lock:
            pending = self._calls.get(number)
            if letter not in (b"G", b"I"):
                self._calls.pop(number, None)
        if letter not in (b"G", b"I"):
            self._lines.flush()
        if pending is None:
            return
        if letter == b"G":
            pending.begin_stream(len(octets))
        elif letter == b"I":
            pending.arrived(len(octets))
        pending.frames.put(Frame(letter, octets))

    def _greet(self, octets: bytes) -> None:
        if self.version:
            raise DecodeError("a second greeting")
        self.version = _version(decode(octets))
        self._hello.put(True)

    def _reply(self, number: int, octets: bytes) -> None:
        if len(octets) > _QUESTION_LIMIT:
            raise DecodeError("a question that is too long")
        question = decode(octets)
        if not isinstance(question, tuple) or not 2 <= len(question) <= 3:
            raise DecodeError("a question that is none")
        answer = self._answer(*question)
        self.send(b"R", number, pickle.dumps(answer, 4))

    # The end.

    def _fail(self, reason: str, *, ended: bool = True) -> None:
        status = self._status() if ended else None
        text = f"{reason} on {self._host}"
        if status is not None:
            text += f" ({'signal' if status < 0 else 'status'} {abs(status)})"
        said = self._last_words() if status is not None and not self.version else ""
        error = InterpreterEndedError(f"{text}: {said}" if said else text)
        error.host, error.status = self._host, status
        with self._lock:
            if self.error is None:
                self.error = error
            calls = list(self._calls.values())
            self._calls.clear()
        if threading.current_thread() is self.thread:  # Nobody else may: it makes the lines.
            self._lines.flush()
        for pending in calls:
            pending.frames.put(Frame(b"", b"", self.error))
        self._hello.put(False)

    def _status(self) -> int | None:
        try:
            return self._stream.wait(_STATUS_WAIT)
        except (OSError, RemctlError):  # It has not ended, or cannot say so any more.
            return None

    def _last_words(self) -> str:
        try:
            lines = self._stream.read_stderr(4096).split(b"\n")
        except (OSError, RemctlError):
            return ""
        return printable(next((line for line in reversed(lines) if line.strip()), b""))

    def give_up(self) -> None:
        """Give it up; the interpreter ends by itself.  Nothing is waited for, no lock is taken."""
        self._stream.drop()

    def close(self) -> None:
        """End the interpreter: what runs there is interrupted, and has a second for its end."""
        if self.pid != os.getpid():
            return
        try:
            if self.error is None:
                self.send(b"Q", 0, b"")
                self._stream.wait(_END_WAIT)
        except (OSError, RemctlError):  # It does not end, or has: what follows does it.
            pass
        self._stream.close()
        if threading.current_thread() is not self.thread and self.thread.is_alive():
            self.thread.join()


def _version(hello: Any) -> tuple[int, ...]:
    """Return the Python that a greeting tells of.

    Raises:
        DecodeError: it is none.
    """
    version = hello[0] if isinstance(hello, tuple) and hello else ()
    if not isinstance(version, tuple) or not version:
        raise DecodeError("a greeting that is none")
    if not all(isinstance(part, int) for part in version):
        raise DecodeError("a greeting with a version that is none")
    return version
