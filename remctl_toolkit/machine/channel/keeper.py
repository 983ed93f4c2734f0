"""The client's end of a keeper: its session, the thread that reads it, and what it has told."""

from __future__ import annotations

import contextlib
import marshal
import re
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..base.errors import MachineError, WorkingFolderError, describe_folder
from ..base.outputs import Tail
from ..base.program import (
    Command,
    Environment,
    Program,
    Word,
    check_label,
    python_arguments,
    python_payload,
    source,
)
from ..wire.both_frames import FrameError, Frames
from .feeds import Errand, Feeder, Pulse, tell

GRACE = 2.0  # seconds between asking a command to end and ending it
CLOSE_LIMIT = 8.0  # seconds that closing may take
LIMIT = 1 << 22  # octets of a stream that wait at most; then the command has to

_PIPE = 1 << 18  # octets in each pipe of a command; a user has 64 MiB for all (pipe(7))
_PROMPT = 0.2  # seconds in which a keeper ends after its command, and whatever holds its output
_LOOK = 1.0  # seconds between two looks whether a stream is still wanted that nobody reads
_FRAME_LIMIT = 1 << 20  # octets; none is larger by far
_WORTH_KEEPING = 2000  # characters of a program; a shorter one is compiled each time
_KEPT = 16  # programs for each connection

_KEEPER = ("wire/both_frames", "base/far_execute", "base/far_supervise", "channel/far_keeper")
_HELLO = re.compile(rb"(/[^\n]{1,4095})\n(\d{1,10})\n(\d{1,10})")
_STATUS = re.compile(rb"-?\d{1,3}")


class ChannelError(MachineError):
    """A channel was lost: the network, the server, or what keeps the command there has ended.

    What the command has done until then is not known; over there it is ended, if it still ran.
    """


def describe(
    connection: Connection,
    argv: Iterable[Word] | None,
    program: str | Program | None,
    payload: bytes,
    cwd: Word | None,
    env: Mapping[str, Word] | None,
    extend_env: Environment | None,
    label: str | None,
    beat: float,
    patience: float,
) -> dict[str, Any]:
    """Return what the keeper wants to know of the command.

    Raises:
        TypeError, ValueError: something cannot be right.
    """
    if (argv is None) == (program is None):
        raise ValueError("a channel needs either argv, a program, or source, Python text")
    if isinstance(program, str):
        program = Program(program)
    if program is not None and not isinstance(program, Program):
        raise TypeError(f"source must be text, not {type(program).__name__}")
    if argv is not None and payload:
        raise ValueError("payload is for source: write() gives a program its input")
    command = connection.command_of(["python"] if argv is None else argv, cwd, env, extend_env)
    if program is None:
        return describe_command(command, label, beat, patience)
    found = describe_command(command, "channel" if label is None else label, beat, patience)
    programs = program.parts(found["label"])
    return {**found, "argv": None, "programs": programs, "payload": bytes(payload)}


def describe_command(
    command: Command, label: str | None, beat: float, patience: float
) -> dict[str, Any]:
    """Return what the keeper wants to know of a command; see `describe()`."""
    if not 0 < 2 * beat <= patience:  # A late beat is not yet one that was missed.
        raise ValueError(f"patience must be twice the beat at least: {patience!r}, {beat!r}")
    return {
        **vars(command),
        "programs": [],
        "payload": b"",
        "label": command.label if label is None else check_label(label),
        "mark": b"",
        "merge": False,
        "stdin": True,
        "nulls": [],
        "grace": GRACE,
        "pipe": _PIPE,
        "beat": beat,
        "patience": patience,
    }


class Target(Protocol):
    """Where a stream of the command's output goes."""

    def put(self, octets: bytes) -> None:
        """Take the next octets; may wait until there is room for them."""

    def finish(self, failure: BaseException | None) -> None:
        """Nothing more will come, because of a failure or because that was all."""

    def discard(self) -> None:
        """Keep nothing from now on; this takes no lock."""


class Inbox:
    """A stream in memory: put into by the thread of the keeper, read by any; see `Target`.

    Attributes:
        octets: those that wait.
        failure: why it ended, unless that was all.
    """

    def __init__(self, changed: threading.Condition) -> None:
        """Share a condition."""
        self._changed = changed
        self.octets = bytearray()
        self.failure: BaseException | None = None
        self._finished = self._discarding = False

    def put(self, octets: bytes) -> None:  # noqa: D102
        with self._changed:
            while len(self.octets) >= LIMIT and not self._discarding:
                self._changed.wait(_LOOK)
            if not self._discarding:
                self.octets += octets
                self._changed.notify_all()

    def finish(self, failure: BaseException | None) -> None:  # noqa: D102
        with self._changed:
            if not self._finished:
                self._finished, self.failure = True, failure
                self._changed.notify_all()

    def discard(self) -> None:  # noqa: D102
        self._discarding = True

    def read(self, size: int) -> bytes:
        """Return up to so many octets (-1: all) as soon as there are any, b"" at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.octets or self._finished)
            taken = bytes(memoryview(self.octets)[: size if size >= 0 else None])
            del self.octets[: len(taken)]
            self._changed.notify_all()
        return taken


class Keeper:
    """A keeper on the far side, as this side sees it.

    Args:
        connection: the way there.
        spec: what to start, see `describe()`.
        changed: a condition for all that may change.
        stdout, stderr: where its output goes; None is nowhere.

    Attributes:
        changed: see above.
        folder: where its FIFOs are.
        pid, own_pid: the command's process over there, and the keeper's.
        returncode: the command's exit status, or -N for a signal; None until it has ended.
        ended: whether the keeper itself has.

    Raises:
        MachineError, RemctlError: see `Channel`.
    """

    def __init__(
        self,
        connection: Connection,
        spec: dict[str, Any],
        changed: threading.Condition,
        stdout: Target | None,
        stderr: Target | None,
    ) -> None:
        self.connection = connection
        self.changed = changed
        self.beat: float = spec["beat"]
        self.patience: float = spec["patience"]
        self.folder = b""
        self.pid = self.own_pid = 0
        self.returncode: int | None = None
        self.ended = False
        self._cwd: bytes = spec["cwd"]
        self._feeder: Feeder | None = None
        self._targets = {b"O": stdout, b"E": stderr}
        self._programs: list[tuple[str, str]] = []
        self._complaint = Tail()
        self._errand = Errand(connection)
        self._failure: BaseException | None = None
        self._refusal: MachineError | None = None
        thread = threading.Thread(
            target=self._read, args=(spec,), name="remctl-channel", daemon=True
        )
        thread.start()
        try:
            with self.changed:
                self.changed.wait_for(lambda: self.folder or self.ended)
                if not self.folder:
                    raise self._cannot_start()
            Pulse.join(self)
        except BaseException:
            self.drop()
            raise

    # In the thread that reads.

    def _read(self, spec: dict[str, Any]) -> None:
        failure: BaseException | None = None
        try:
            failure = self._run(spec)
        except BaseException as error:
            failure = error
        with self.changed:
            failure = self._failure or failure
            if self.returncode is None:
                self._failure = failure
            self.ended = True
            self.changed.notify_all()
        for target in self._targets.values():
            if target is not None:
                target.finish(failure)
        if self._feeder is not None:
            self._feeder.stop()

    def _run(self, spec: dict[str, Any]) -> BaseException | None:
        """Run the keeper to its end; return what is wrong with that end."""
        frames = Frames(self._take, b"HDFCBOEoeX", _FRAME_LIMIT)
        parts = [("keeper", "<remctl keeper>", source(*_KEEPER)), *spec["programs"]]
        self._programs = [(file, text) for _, file, text in parts]
        spec["modules"] = [name for name, _, _ in parts[1:]]
        spec["programs"] = [(*program, self._kept(program)) for program in self._programs]
        payload = python_payload(source("base/far_loader"), marshal.dumps(spec, 2))
        words = (self.connection.python, *python_arguments(spec["label"]), payload)
        result = self._errand.run(
            words, timeout=self.patience, stdout=frames, stderr=self._complaint
        )
        if self.returncode is None and self._refusal is None:
            text = str(self._complaint) or f"status {result.status}"
            return remctl.RemctlError(f"what kept the command there has ended: {text}")
        return None

    def _kept(self, program: tuple[str, str]) -> bytes | None:
        if len(program[1]) < _WORTH_KEEPING:
            return None
        return self.connection.compiled.get(program, b"")

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter in (b"O", b"E"):
            self._put(letter, octets)
        elif letter == b"X":
            self._take_status(octets)
        elif letter == b"H":
            self._take_hello(octets)
        elif letter == b"C":
            if number >= len(self._programs):
                raise FrameError("a program that was not sent")
            kept, program = self.connection.compiled, self._programs[number]
            if program in kept or len(kept) < _KEPT:
                kept[program] = octets
        elif letter == b"D":
            text = describe_folder(self._cwd, octets, self.connection.host)
            self._refusal = WorkingFolderError(text)
        elif letter == b"F":
            text = f"cannot start a command on {self.connection.host}: cannot make a folder in /tmp"
            self._refusal = MachineError(f"{text}: {printable(octets)}")
        elif letter in (b"o", b"e"):
            target = self._targets[letter.upper()]
            if target is not None:
                target.finish(None)

    def _put(self, letter: bytes, octets: bytes) -> None:
        target = self._targets[letter]
        if target is None:
            return
        try:
            target.put(octets)
        except BrokenPipeError:  # As when the far side writes to a pipe that nobody reads.
            self._targets[letter] = None
            words = b"c " + letter, time.monotonic() + self.patience
            threading.Thread(target=self._say, args=words, name="remctl-say", daemon=True).start()

    def _take_hello(self, octets: bytes) -> None:
        hello = _HELLO.fullmatch(octets)
        if hello is None or self.folder:
            raise FrameError("a malformed greeting")
        with self.changed:
            self.folder, self.pid, self.own_pid = hello[1], int(hello[2]), int(hello[3])
            self.changed.notify_all()

    def _take_status(self, octets: bytes) -> None:
        status = int(octets) if _STATUS.fullmatch(octets) else 1000
        if not -signal.NSIG < status < 256 or not self.folder or self.returncode is not None:
            raise FrameError("a malformed status")
        with self.changed:
            self.returncode = status
            self.changed.notify_all()
        if self._feeder is not None:
            self._feeder.command_ended()

    # In any other.

    def attach(self, feeder: Feeder) -> None:
        """Have a feeder stopped when this ends."""
        with self.changed:
            self._feeder = feeder
            over, ended = self.returncode is not None, self.ended
        if over:
            feeder.command_ended()
        if ended:
            feeder.stop()

    def _cannot_start(self) -> BaseException:
        if self._refusal is not None:
            self._refusal.host = self.connection.host
            return self._refusal
        if isinstance(self._failure, remctl.RemctlProtocolError | MachineError):
            return self._failure
        return self.lost(self._failure)

    def lost(self, reason: BaseException | None) -> ChannelError:
        """Return the exception for a channel that is lost."""
        text = f"channel to {self.connection.host} was lost: {reason or 'it was closed'}"
        error = ChannelError(text)
        error.host = self.connection.host
        error.__cause__ = reason
        return error

    def check(self) -> None:
        """Raise ChannelError if the channel was lost."""
        if self._failure is not None:
            raise self.lost(self._failure)

    def wait(self, timeout: float | None) -> int:
        """Wait for the command's end; see `Channel.wait()`."""
        with self.changed:
            self.changed.wait_for(lambda: self.returncode is not None or self.ended, timeout)
            if self.returncode is not None:
                return self.returncode
            if not self.ended:
                raise TimeoutError(f"the command did not end within {timeout} seconds")
            raise self.lost(self._failure)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, and all that it has started; see `Channel`."""
        if not 0 <= number < signal.NSIG:
            raise ValueError(f"{number!r} is not the number of a signal")
        until = time.monotonic() + self.patience
        tell(self.connection, [self.folder], b"k %d" % number, until)

    def _say(self, words: bytes, until: float) -> bool:
        with contextlib.suppress(remctl.RemctlError):  # What is lost ends by itself.
            tell(self.connection, [self.folder], words, until)
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """Give the channel up: another part of it has found out that it is lost."""
        with self.changed:
            if self._failure is None and self.returncode is None and not self.ended:
                self._failure = error
        self.drop()

    def drop(self) -> None:
        """Give the channel up; the far side notices, and ends the command.

        This takes no lock and does not wait: it may be called where garbage is collected.
        """
        self._errand.stop()
        for target in self._targets.values():
            if target is not None:
                target.discard()

    def close(self) -> None:
        """End the command if it still runs, and what it started, and wait for the keeper's end."""
        for target in self._targets.values():
            if target is not None:
                target.discard()
        until = self.connection.time_to_end(CLOSE_LIMIT)
        with self.changed:
            self.changed.notify_all()
        prompt = self.returncode is not None and self._wait_ended(_PROMPT)
        if not prompt and self._say(b"q", until - (until - time.monotonic()) / 2):
            self._wait_ended(until - time.monotonic())
        self.drop()

    def _wait_ended(self, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.ended, max(seconds, 0.0))
