"""The link to a remote interpreter: frames in both directions, with a thread for each.

Only the writing thread waits for the host to read.  The reading thread never waits for the
writing thread: it queues the host's questions, up to a limit.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from _remctl_text import printable
from remctl import RemctlError, RemctlStream

from ..base.program import Program, source
from ..channel.channel import Channel
from ..wire.both_frames import FrameError, Frames, frame
from ..wire.values import DecodeError, decode
from .errors import CallTimeoutError, InterpreterEndedError, at
from .output import Lines

WINDOW = 1 << 20  # octets of a generator's items that may be on their way
ITEM_COST = 4096  # octets that each item counts in addition to its own
CLOSE_TIME = 10.0  # seconds that closing takes at most

_AGENT = (
    "wire/both_frames",
    "base/far_probe",
    "call/far_values",
    "call/far_imports",
    "call/far_shipping",
    "call/far_agent",
)
_MESSAGE_LIMIT = 1 << 31
_QUESTION_LIMIT = 4096
_QUESTIONS = 256  # unanswered questions at most: each remote thread asks one at a time
_OVERHEAD = 4 << 20  # octets allowed for errors, whatever the limit for results
_READ_SIZE = 1 << 18
_END_WAIT = 5.0  # seconds for an interpreter to end by itself, which takes at most four
_STATUS_WAIT = 10.0  # seconds for a process to end after closing its output
_START_WAIT = 30.0


class Reply:
    """A call in progress, and its incoming frames.

    Args:
        timeout: seconds for each wait; None: no limit.
    """

    def __init__(self, link: Link, timeout: float | None) -> None:
        self._link = link
        self.host = link.host
        self.timeout = timeout
        self.number = next(link.numbers)
        self.frames: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
        self.on_success: Callable[[], object] = lambda: None  # called if the host loaded the call
        self._streams = False  # whether its result is a generator
        self._came = self._taken = self._granted = 0  # costs of its items

    def put(self, letter: bytes, octets: bytes) -> None:
        """Queue a frame, in the reading thread.

        Raises:
            DecodeError: it is not allowed now.
        """
        if letter == b"G":
            if self._streams or octets:
                raise DecodeError("unexpected start of a generator")
            self._streams = True
        elif letter == b"I":
            if not self._streams:
                raise DecodeError("item without a generator")
            if self._came - self._granted >= WINDOW:
                raise DecodeError("more items of a generator than requested")
            self._came += len(octets) + ITEM_COST
        self.frames.put((letter, octets))

    def next(self) -> tuple[bytes, bytes]:
        """Wait for the next frame; return its letter and octets.

        Raises:
            CallTimeoutError: no frame arrived in time, and the call was cancelled.
            InterpreterEndedError: the interpreter has ended.
        """
        if threading.current_thread() is self._link.thread:
            raise RuntimeError("output= functions cannot call functions on the host")
        try:
            letter, octets = self.frames.get(timeout=self.timeout)
        except Empty:
            self.abandon()
            raise self.too_late(f"took longer than {self.timeout:g} s") from None
        except BaseException:
            self.abandon()
            raise
        if not letter:
            self.frames.put((b"", b""))  # for the next call of this method
            self._link.check()
        if letter in b"V!G":
            self.on_success()
        return letter, octets

    def too_late(self, how: str) -> CallTimeoutError:
        """Return the error for a cancelled call."""
        return at(self.host, CallTimeoutError(f"call {how} on {self.host} and was cancelled"))

    def took(self, octets: int) -> None:
        """Count an item that the caller has taken, and grant the host more."""
        self._taken += octets + ITEM_COST
        more = self._taken - self._granted
        if 2 * more >= WINDOW:
            self._granted = self._taken
            self._link.send(b"M", self.number, more.to_bytes(8, "big"))

    def abandon(self) -> None:
        """Cancel the call unless it has ended, and drop its frames.  This never waits."""
        if self._link.drop(self.number):
            self.cancel()

    def cancel(self) -> None:
        """Cancel the remote call; its last frame still arrives."""
        self._link.send(b"X", self.number)


def agent_program(settings: dict[str, Any]) -> Program:
    """Return the interpreter's program, which leaves ``__main__`` empty for callers."""
    modules = {f"remctl_toolkit.machine.{n.replace('/', '.')}": source(n) for n in _AGENT}
    *_, agent = modules
    return Program(f"import sys\nsys.modules[{agent!r}].start({settings!a})\n", modules)


class Link:
    """A running interpreter, and the threads that exchange frames with it.

    Attributes:
        version: the version of the remote Python.

    Raises:
        InterpreterEndedError: it did not start.
    """

    def __init__(
        self, stream: Channel, host: str, limit: int, answer: Callable[..., Any], lines: Lines
    ) -> None:
        self._stream = stream
        self.host = host
        self._limit = limit
        self._answer = answer
        self._lines = lines
        self._calls: dict[int, Reply] = {}  # This needs no lock: each operation on it is atomic.
        self.numbers = itertools.count(1)
        self._outgoing: SimpleQueue[tuple[bytes, int, bytes]] = SimpleQueue()
        self._asked = self._answered = 0
        self.pid = os.getpid()
        self.error: InterpreterEndedError | None = None
        self.version: tuple[int, ...] = ()
        self._hello: SimpleQueue[bool] = SimpleQueue()
        self.thread = threading.Thread(target=self._read, name=f"remctl-call-{host}", daemon=True)
        self._writer = threading.Thread(
            target=self._write, name=f"remctl-call-out-{host}", daemon=True
        )
        try:
            self.thread.start()
            self._writer.start()
            with contextlib.suppress(Empty):
                self._hello.get(timeout=_START_WAIT)
            if not self.version:
                self._fail("did not start", ended=False)
            self.check()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise a copy of the error that has ended the link."""
        if self.error is not None:
            raise copy.copy(self.error)

    # Sending.

    def call(self, reply: Reply, octets: bytes) -> None:
        """Send a call; its frames arrive in `reply`.

        Raises:
            ValueError: it is too large; nothing was sent.
            InterpreterEndedError: the interpreter has ended.
        """
        if len(octets) > _MESSAGE_LIMIT:
            raise ValueError(f"call is too large: {len(octets)} octets, limit {_MESSAGE_LIMIT}")
        self._calls[reply.number] = reply
        self.check()  # A later failure finds the call in the dictionary.
        self._outgoing.put((b"C", reply.number, octets))

    def send(self, letter: bytes, number: int, octets: bytes = b"") -> None:
        """Queue a frame for the writing thread; finalizers may call this, as it never waits."""
        self._outgoing.put((letter, number, octets))

    def drop(self, number: int) -> bool:
        """Forget a call; return False if it has ended."""
        return self._calls.pop(number, None) is not None

    def _write(self) -> None:
        """Write queued frames, in the writing thread, up to the frame "Q"."""
        letter = b""
        while letter != b"Q":
            letter, number, octets = self._outgoing.get()
            if self.error is not None or (letter == b"C" and number not in self._calls):
                continue
            try:
                if letter == b"?":
                    letter, octets = b"R", self._reply(octets)
                    self._answered += 1
                self._stream.write(frame(letter, number, octets))
            except DecodeError as error:
                self._fail(f"sent invalid data: {error}", ended=False)
            except Exception as error:
                self._fail(f"was lost: {error}")
        with contextlib.suppress(OSError, RemctlError):
            if self.error is None:
                self._stream.wait(_END_WAIT)
        with contextlib.suppress(OSError, RemctlError):
            self._stream.close()

    def _reply(self, octets: bytes) -> bytes:
        question = decode(octets)
        if not isinstance(question, tuple) or not 2 <= len(question) <= 3:
            raise DecodeError("malformed question")
        return pickle.dumps(self._answer(*question), 4)

    # Receiving.

    def _read(self) -> None:
        frames = Frames(self._take, b"?12HV!PXEGI", self._limit + _OVERHEAD)
        try:
            while frames.write(self._stream.read(_READ_SIZE)):
                pass
            self._fail("ended")
        except (DecodeError, FrameError) as error:
            self._fail(f"sent invalid data: {error}", ended=False)
        except (OSError, RemctlError) as error:
            self._fail(f"was lost: {error}")
        except BaseException as error:
            self._fail(f"could not be read: {error!r}", ended=False)
            raise

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter in b"12":
            self._lines.take(RemctlStream(int(letter)), octets)
        elif letter in b"?H":
            if len(octets) > _QUESTION_LIMIT:
                raise DecodeError("question or greeting is too long")
            if letter == b"H":
                self._greet(octets)
                return
            self._asked += 1
            if self._asked - self._answered > _QUESTIONS:
                raise DecodeError("too many unanswered questions")
            self.send(letter, number, octets)
        else:
            last = letter not in b"GI"
            reply = self._calls.pop(number, None) if last else self._calls.get(number)
            if last:
                self._lines.flush()
            if reply is not None:
                reply.put(letter, octets)

    def _greet(self, octets: bytes) -> None:
        hello = decode(octets)
        version = hello[0] if isinstance(hello, tuple) and hello else ()
        if not isinstance(version, tuple) or not version or self.version:
            raise DecodeError("malformed or repeated greeting")
        if not all(isinstance(part, int) and 0 <= part < 1000 for part in version):
            raise DecodeError("malformed version in greeting")
        self.version = version
        self._hello.put(True)

    # The end.

    def _fail(self, reason: str, *, ended: bool = True) -> None:
        text, status, said = f"the interpreter on {self.host} {reason}", None, b""
        with contextlib.suppress(OSError, RemctlError):
            if ended:
                status = self._stream.wait(_STATUS_WAIT)
                text += f" ({'signal' if status < 0 else 'status'} {abs(status)})"
                said = b"" if self.version else self._stream.read_stderr(4096).strip()
        if said:
            text += f": {printable(said.splitlines()[-1])}"
        if self.error is None:
            error = at(self.host, InterpreterEndedError(text))
            error.status = status
            self.error = error
        if threading.current_thread() is self.thread:  # Only the reading thread uses the lines.
            self._lines.flush()
        for number in list(self._calls):
            reply = self._calls.pop(number, None)
            if reply is not None:
                reply.frames.put((b"", b""))
        self._hello.put(False)

    def hang_up(self) -> None:
        """Have the writing thread end the interpreter; finalizers may call this."""
        self.send(b"Q", 0)

    def close(self) -> None:
        """End the interpreter; interrupted calls get a second to end.

        This takes at most ten seconds, whatever the host does.
        """
        if self.pid != os.getpid():
            return
        until = time.monotonic() + CLOSE_TIME
        self.hang_up()
        _join(self._writer, _END_WAIT)
        if self._writer.is_alive():  # It cannot write, or the interpreter does not end.
            closer = threading.Thread(target=self._stream.close, name="remctl-close", daemon=True)
            closer.start()
            for thread in (closer, self._writer):
                _join(thread, until - time.monotonic())
        _join(self.thread, until - time.monotonic())
        if self.error is None:
            self._fail("was closed", ended=False)


def _join(thread: threading.Thread, seconds: float) -> None:
    if thread is not threading.current_thread() and thread.ident is not None:
        thread.join(max(0, seconds))
