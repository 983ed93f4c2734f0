"""The client's end of a keeper: its session, the thread that reads it, and what it has told."""

from __future__ import annotations

import marshal
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..base.errors import MachineError, WorkingFolderError, describe_folder
from ..base.program import PYTHON_LOADER, python_payload, source
from ..wire.frames import Frames
from .errors import lost
from .feeding import tell
from .request import GRACE

# Compiling the keeper takes as long as starting Python: the far side tells what came of it.
_compiled: weakref.WeakKeyDictionary[Connection, bytes] = weakref.WeakKeyDictionary()

_PROMPT = 0.2  # seconds in which a keeper ends after its command, and whatever holds its output
_COMPLAINT = 4096  # octets of the keeper's own last words


class Target(Protocol):
    """Where a stream of the command's output goes."""

    def put(self, pieces: list[bytes]) -> None:
        """Take the next octets; may wait until there is room for them."""

    def finish(self, failure: BaseException | None) -> None:
        """Nothing more will come, because of a failure or because that was all."""

    def discard(self) -> None:
        """Take what comes from now on, and keep none of it."""


class _Complaint:
    """What the keeper says on standard error, where nothing is to be said: the end of it."""

    def __init__(self) -> None:
        self._text = b""

    def write(self, octets: bytes) -> int:
        self._text = (self._text + octets)[-_COMPLAINT:]
        return len(octets)

    def __str__(self) -> str:
        lines = self._text.strip().splitlines()
        return printable(lines[-1]) if lines else ""


class Keeper:
    """A keeper on the far side, as this side sees it.

    Attributes:
        folder: where its FIFOs are.
        pid, own_pid: the command's process over there, and the keeper's.
        returncode: the command's exit status, or -N for a signal; None until it has ended.
    """

    def __init__(
        self,
        connection: Connection,
        spec: dict[str, Any],
        stdout: Target,
        stderr: Target,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Start a command; return when it was started.

        Args:
            connection: the way there.
            spec: what to start, see `describe()`.
            stdout, stderr: where its output goes.
            on_end: called when the command ended, and when the keeper has.

        Raises:
            WorkingFolderError: the folder cannot be entered; nothing was started.
            ChannelError: the channel was lost at once.
            RemctlError: no session, see `Connection.session()`.
        """
        self.connection = connection
        self.folder = b""
        self.pid = self.own_pid = 0
        self.returncode: int | None = None
        self._cwd: bytes = spec["cwd"]
        self._patience: float = spec["patience"]
        self._on_end = on_end
        self._done = False
        self._callbacks: list[Callable[[Keeper], object]] = []
        self._targets = {b"O": stdout, b"E": stderr}
        self._complaint = _Complaint()
        self._changed = threading.Condition()
        self._session: remctl.Remctl | None = None
        self._abandoned = False
        self._ended = False
        self._failure: BaseException | None = None
        self._refusal: MachineError | None = None
        self._thread = threading.Thread(
            target=self._read, args=(spec,), name="remctl-channel", daemon=True
        )
        self._thread.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self.folder or self._ended)
                if not self.folder:
                    raise self._cannot_start()
        except BaseException:
            self.abandon()
            raise

    # In the thread that reads.

    def _read(self, spec: dict[str, Any]) -> None:
        failure: BaseException | None = None
        try:
            failure = self._run(spec)
        except BaseException as error:
            failure = error
        with self._changed:
            self._ended = True
            failure = self._failure or failure
            if self.returncode is None:
                self._failure = failure
            self._changed.notify_all()
        for target in self._targets.values():
            target.finish(failure)
        self._on_end()
        with self._changed:
            self._done = True
            callbacks = self._callbacks
        for callback in callbacks:
            callback(self)

    def _run(self, spec: dict[str, Any]) -> BaseException | None:
        """Run the keeper to its end; return what is wrong with that end."""
        frames = Frames(
            {
                b"H": self._take_hello,
                b"D": self._take_folder_refusal,
                b"F": self._take_refusal,
                b"C": self._take_compiled,
                b"B": lambda pieces: None,
                b"O": lambda pieces: self._put(b"O", pieces),
                b"E": lambda pieces: self._put(b"E", pieces),
                b"o": lambda pieces: self._targets[b"O"].finish(None),
                b"e": lambda pieces: self._targets[b"E"].finish(None),
                b"X": self._take_status,
            }
        )
        connection = self.connection
        spec["keeper"] = f"{source('base/far_execute')}\n{source('channel/far_keeper')}"
        spec["compiled"] = _compiled.get(connection, b"")
        payload = python_payload(source("channel/far_starter"), marshal.dumps(spec, 2))
        words = (connection.python, "-IS", "-c", PYTHON_LOADER, spec["label"])
        with connection.session() as session:
            with self._changed:
                if self._abandoned:
                    return None
                self._session = session
            session.set_timeout(spec["patience"])
            try:
                result = session.run((*words, payload), stdout=frames, stderr=self._complaint)
            finally:
                with self._changed:  # As soon as it is given back, it may be another's.
                    self._session = None
        if self.returncode is None and self._refusal is None:
            text = str(self._complaint) or f"status {result.status}"
            return remctl.RemctlError(f"what kept the command there has ended: {text}")
        return None

    def _put(self, kind: bytes, pieces: list[bytes]) -> None:
        try:
            self._targets[kind].put(pieces)
        except BrokenPipeError:  # As when the far side writes to a pipe that nobody reads.
            self.say(b"c " + kind)

    def _take_hello(self, pieces: list[bytes]) -> None:
        folder, pid, own_pid = b"".join(pieces).rsplit(b"\n", 2)
        with self._changed:
            self.folder, self.pid, self.own_pid = folder, int(pid), int(own_pid)
            self._changed.notify_all()

    def _take_folder_refusal(self, pieces: list[bytes]) -> None:
        text = describe_folder(self._cwd, b"".join(pieces), self.connection.host)
        self._refusal = WorkingFolderError(text)

    def _take_refusal(self, pieces: list[bytes]) -> None:
        reason = b"".join(pieces).decode("utf-8", "replace")
        self._refusal = MachineError(f"cannot start a command on {self.connection.host}: {reason}")

    def _take_compiled(self, pieces: list[bytes]) -> None:
        _compiled[self.connection] = b"".join(pieces)

    def _take_status(self, pieces: list[bytes]) -> None:
        with self._changed:
            self.returncode = int(b"".join(pieces))
            self._changed.notify_all()
        self._on_end()

    # In any other.

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, and all of its group.

        Raises:
            ValueError: there is no such signal.
            ClosedError, RemctlError: see `tell()`.
        """
        if not 0 <= number < signal.NSIG:
            raise ValueError(f"{number!r} is not the number of a signal")
        self.say(b"k %d" % number)

    def say(self, words: bytes) -> None:
        """Have the keeper do something; nothing if it has ended.

        Raises:
            ClosedError, RemctlError: see `tell()`.
        """
        tell(self.connection, [self.folder], words, self._patience)

    def _cannot_start(self) -> BaseException:
        if self._refusal is not None:
            self._refusal.host = self.connection.host
            return self._refusal
        if isinstance(self._failure, remctl.RemctlProtocolError | MachineError):
            return self._failure
        return lost(self.connection, self._failure or "it was closed")

    @property
    def ended(self) -> bool:
        """Whether the keeper itself is no more."""
        return self._ended

    @property
    def failure(self) -> BaseException | None:
        """What the channel was lost by; None if it is there, or the command has ended."""
        return self._failure

    def when_done(self, callback: Callable[[Keeper], object]) -> None:
        """Have a function called when the keeper has ended; at once if it has."""
        with self._changed:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)

    def wait(self, timeout: float | None) -> int:
        """Wait for the command's end.

        Raises:
            TimeoutError: it did not come in that time (seconds).
            ChannelError: the channel was lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.returncode is not None or self._ended, timeout)
            if self.returncode is not None:
                return self.returncode
            if not self._ended:
                raise TimeoutError(f"the command did not end within {timeout} seconds")
            raise lost(self.connection, self._failure or "it was closed")

    def wait_ended(self, timeout: float) -> bool:
        """Wait for the keeper's own end; False if it did not come in that time (seconds)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout)

    def end(self) -> None:
        """End the command if it still runs, and what it started, and wait for the keeper's end.

        Its output is to be discarded, or read meanwhile.
        """
        for target in self._targets.values():
            target.discard()
        if self.ended or (self.returncode is not None and self.wait_ended(_PROMPT)):
            return
        try:
            self.say(b"q")
        except remctl.RemctlError:
            return  # It is lost, and will notice that, too.
        self.wait_ended(GRACE + self._patience)

    def close(self) -> None:
        """End it, by its own means or by what is left."""
        try:
            self.end()
        finally:
            self.abandon()

    def close_later(self) -> None:
        """Do that in another thread: whoever finds garbage may hold any lock."""
        if self.ended:
            return
        threading.Thread(target=self.close, name="remctl-close", daemon=True).start()

    def fail(self, error: BaseException) -> None:
        """The channel is lost: another part of it has found out."""
        with self._changed:
            if self._failure is None and self.returncode is None:
                self._failure = error
        self.abandon()

    def abandon(self) -> None:
        """Close the session, if the keeper still runs in it, and wait for the thread."""
        with self._changed:
            self._abandoned = True
            if self._session is not None:
                self._session.close()
        for target in self._targets.values():
            target.discard()
        if self._thread is not threading.current_thread():
            self._thread.join()
