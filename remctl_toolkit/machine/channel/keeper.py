"""The client's side of a keeper: its session, its frames and its state."""

from __future__ import annotations

import contextlib
import functools
import marshal
import math
import os
import re
import shlex
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..base.errors import MachineError, WorkingFolderError, describe_folder
from ..base.outputs import Tail
from ..base.program import (
    PYTHON_LOADER,
    SHELL_LOADER,
    Command,
    Program,
    python_arguments,
    python_payload,
    source,
)
from ..wire.both_frames import FrameError, Frames
from .engine import Engine, Errand, Target

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

GRACE = 2.0  # seconds between SIGTERM and SIGKILL
CLOSE_LIMIT = 8.0  # seconds that closing may take

_PIPE = 1 << 18  # octets in each pipe of a command; a user has 64 MiB for all (pipe(7))
_PROMPT = 0.2  # seconds for a keeper to end after its command
_FRAME_LIMIT = 1 << 20  # octets
_WORTH_KEEPING = 2000  # characters of a program; a shorter one is compiled each time
_KEPT = 16  # programs for each connection

_KEEPER = ("wire/both_frames", "base/far_execute", "base/far_supervise", "channel/far_keeper")
_HELLO = re.compile(rb"(/[^\n]{1,4095})\n(\d{1,10})\n(\d{1,10})")
_STATUS = re.compile(rb"-?\d{1,3}")

_EXEC_SHELL = """\
import posix,_signal
_signal.signal(_signal.SIGPIPE,_signal.SIG_DFL)
posix.execv('/bin/sh',%a)
"""

# The shell starts the command at once; Python, which takes ten times as long, then becomes its
# keeper.  If this fails, Python starts the command itself, or sends the reason.  The shell must not
# reap the command, which dash does after each builtin, so another process sends the hello.
# Descriptors: 3 is control; 4 and 5, 6 and 7, 8 and 9 are the ends of input, output, error.
_START_IN_SHELL = (
    b"set -- \"$1\" %b '\\0\\0\\0\\0\\0\\0\\0';cd -- %b 2>/dev/null&&%b&&"
    b'printf "S$3\\0"&&mkdir -m 700 $2 2>/dev/null&&{ '
    b"mkfifo -m 600 $2/data $2/control $2/out $2/err&&exec 3<>$2/data 4<$2/data 5>$2/data "
    b"3<>$2/out 6<$2/out 7>$2/out 3<>$2/err 8<$2/err 9>$2/err 3<>$2/control||"
    b"{ rm -r $2;false;};}&&{ "
    b"(%b)<&4 >%b 2>%b 3>&- 4<&- 5>&- 6<&- 7>&- 8<&- 9>&-&for p in $!;do "
    b'(printf "H$3\\%03o%%s\\n%%010d\\n%%010d" $2 $p $$)&'
    b'exec %b -IS -c "$1" "$0" $p $! $2 4<&- 7>&- 9>&-;done;};exec %b -IS -c "$1" "$0"\n%b'
)

# If the client leaves before its program has arrived, the command is killed.
_KEEPER_LOADER = PYTHON_LOADER.replace(
    "  d=posix.read(0,n-len(s))\n",
    "  try:d=posix.read(0,n-len(s))\n"
    "  except OSError:d=b''\n"
    "  if not d and sys.argv[2:]:\n"
    "   p,f=int(sys.argv[2]),sys.argv[4]\n"
    "   posix.kill(p,9)\n"
    "   for n in 'data','control','out','err':posix.unlink(f+'/'+n)\n"
    "   posix.rmdir(f)\n"
    "   try:posix.killpg(p,9)\n"
    "   except OSError:pass\n",
)


class ChannelError(MachineError):
    """A channel was lost: the network, the server or the keeper has failed.

    The host ends the command if it still runs.  It is not known what the command did before.
    """


@functools.cache
def _compressed(text: str) -> bytes:
    return zlib.compress(text.encode())


def quote(word: bytes) -> bytes:
    """Return a word without newlines for a shell."""
    return shlex.quote(word.decode("latin-1")).encode("latin-1")


def shell_command(
    connection: Connection, words: list[str], payload: bytes
) -> tuple[str | bytes, ...]:
    """Return the remctl command that runs sh; its last word, the label, is logged."""
    if connection.shell is not None:
        return (connection.shell, *words, payload)
    program = _EXEC_SHELL % ["sh", *words]
    loader = python_arguments(words[-1])
    return (connection.python, *loader, python_payload(program, payload))


def send_control(
    connection: Connection, folders: Iterable[bytes], words: bytes, until: float
) -> None:
    """Send a control line to keepers (see far_keeper.py) before a deadline.

    Keepers that have ended are ignored.
    """
    # remctld logs commands, but not their input, so the directories are in the input.
    listed = b" ".join(map(quote, folders))
    text = b'for d in %b;do echo %b 1<>"$d/control";done 2>/dev/null' % (listed, words)
    command = shell_command(connection, ["-s", "control"], text)
    Errand(connection).run(command, until=until)


class _Timed:
    """A file that checks the time after each write."""

    def __init__(self, file: SupportsWrite[bytes], check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def write(self, octets: bytes) -> int:
        """Write octets, and check the time."""
        self._file.write(octets)
        self._check()
        return len(octets)


class Relay(Engine):
    """A command under far_keeper.py, which sends its output in frames.

    Args:
        connection, stdout, stderr: see `Engine`.
        command: the command.
        spec: "label", "beat" and "patience", see `Channel`, and other settings of far_keeper.py.
        program: Python text to run in place of the command.

    Raises:
        ValueError: the patience is too short for the beat.
    """

    _feeds = b""  # the command's standard input, which follows the spec

    def __init__(
        self,
        connection: Connection,
        stdout: Target | None,
        stderr: Target | None,
        command: Command,
        spec: dict[str, Any],
        program: Program | None = None,
    ) -> None:
        super().__init__(connection, stdout, stderr)
        self.beat: float = spec["beat"]
        self.patience: float = spec["patience"]
        if not 0 < 2 * self.beat <= self.patience:  # This tolerates a late beat.
            text = f"patience must be at least twice beat, not {self.patience!r} and {self.beat!r}"
            raise ValueError(text)
        parts = [] if program is None else program.parts(spec["label"])
        self._programs = [("<remctl keeper>", source(*_KEEPER)), *(part[1:] for part in parts)]
        self._command = command
        self._silence = self.patience  # seconds without a frame until this gives up
        self._stderr: SupportsWrite[bytes] = Tail()  # the keeper's own standard error
        self._spec: dict[str, Any] = {
            **vars(command),
            "argv": None if parts else command.argv,
            "mark": b"",
            "modules": [part[0] for part in parts],
            "payload": b"",
            "merge": False,
            "stdin": True,
            "nulls": [],
            "grace": GRACE,
            "pipe": _PIPE,
            "control": True,
            "silence": math.inf,
            "limit": math.inf,
            **spec,
        }

    def _payload(self) -> bytes:
        programs: list[tuple[str, str | bytes, bytes | None]] = []
        for name, text in self._programs:
            worth = len(text) >= _WORTH_KEEPING
            kept = self.connection.compiled.get((name, text), b"") if worth else None
            programs.append((name, _compressed(text) if kept else text, kept))
        octets = marshal.dumps({**self._spec, "programs": programs}, 2)
        data = b"%08x%b%b" % (len(octets), octets, self._feeds)
        return python_payload(source("base/far_loader"), data)

    def _remctl_command(self) -> tuple[str | bytes, ...]:
        return (self.connection.python, *python_arguments(self._spec["label"]), self._payload())

    def _run(self) -> BaseException | None:
        frames = Frames(self._take, b"SHDFCBOEoeXT", _FRAME_LIMIT)
        words = self._remctl_command()
        stdout, stderr = _Timed(frames, self._check_time), _Timed(self._stderr, self._check_time)
        status = self._errand.run(words, stdout, stderr, timeout=self._silence)
        return self._unexplained(status or 0) if self.returncode is None else None

    def _unexplained(self, status: int) -> BaseException | None:
        """Return the error for a keeper that ended without the command's status."""
        raise NotImplementedError

    def _check_time(self) -> None:
        """Raise TimeoutError if a time limit is exceeded although the host sends data."""

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter in b"OE":
            self._put(letter, octets)
        elif letter in b"oe":
            target = self._targets[letter.upper()]
            if target is not None:
                target.finish(None)
        elif letter == b"X":
            self._take_status(octets)
        elif letter == b"C":
            if number >= len(self._programs):
                raise FrameError("a program that was not sent")
            kept, program = self.connection.compiled, self._programs[number]
            if program in kept or len(kept) < _KEPT:
                kept[program] = octets

    def _take_status(self, octets: bytes) -> None:
        status = int(octets) if _STATUS.fullmatch(octets) else 1000
        if not -signal.NSIG < status < 256 or self.returncode is not None:
            raise FrameError("a malformed status")
        self._change(returncode=status)
        if self._feeder is not None:
            self._feeder.stop(over=False)


class Keeper(Relay):
    """The client's view of a keeper on the remote host.

    Attributes:
        folder: the directory of its FIFOs.
        own_pid: its own process id.
    """

    folder = b""
    own_pid = 0

    # In the reading thread.

    def _remctl_command(self) -> tuple[str | bytes, ...]:
        spec, connection = self._spec, self.connection
        whole_path = spec["cwd"].startswith(b"/")  # Python may have to enter it once more.
        if connection.quick_start and spec["stdin"] and spec["argv"] and whole_path:
            script = self._command.shell_script(b"env --default-signal=INT,QUIT setsid -- ")
            if script is not None and b"PATH" not in self._command.extend_env:
                name = os.urandom(16).hex().encode()
                spec["folder"] = b"%b/.remctl-%b" % (connection.quick_start, name)
                out, err = (
                    b"/dev/null" if letter in spec["nulls"] else to
                    for letter, to in ((b"O", b"&7"), (b"E", b"&1" if spec["merge"] else b"&9"))
                )
                python = quote(os.fsencode(connection.far.python))
                script = _START_IN_SHELL % (
                    *(spec["folder"], self._command.shell_folder, self._command.shell_test),
                    *(script, out, err, len(spec["folder"]) + 22),
                    *(python, python, self._payload()),
                )
                shell = connection.shell or ""
                return (shell, "-c", SHELL_LOADER, spec["label"], _KEEPER_LOADER, script)
        return super()._remctl_command()

    def _unexplained(self, status: int) -> BaseException | None:
        if self.failure is None:
            text = str(self._stderr) or f"status {status}"
            return remctl.RemctlError(f"the keeper process ended: {text}")
        return None

    def _check_time(self) -> None:
        if not self.folder and time.monotonic() - self._errand.since > self.patience:
            raise TimeoutError(f"it did not start within {self.patience:g} seconds")

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter == b"S":
            self._change(started=True)
        elif letter == b"H":
            hello = _HELLO.fullmatch(octets)
            if hello is None or self.folder:
                raise FrameError("a malformed greeting")
            pid, own_pid = int(hello[2]), int(hello[3])
            self._change(folder=hello[1], pid=pid, own_pid=own_pid, started=True)
            Pulse.join(self)
        elif letter == b"D":
            text = describe_folder(self._command.cwd, octets, self.connection.host)
            self.failure = WorkingFolderError(text)
        elif letter == b"F":
            text = f"cannot start a command on {self.connection.host}: cannot make a folder in /tmp"
            self.failure = MachineError(f"{text}: {printable(octets)}")
        elif letter == b"X" and not self.folder:
            raise FrameError("a malformed status")
        else:
            super()._take(letter, number, octets)

    def _on_broken_pipe(self, letter: bytes) -> None:
        words = b"c " + letter, time.monotonic() + self.patience
        threading.Thread(
            target=self._try_control, args=words, name="remctl-control", daemon=True
        ).start()

    # In other threads.

    def lost(self, reason: BaseException | None) -> BaseException:
        """Return the exception for a lost channel, or a command that was not started."""
        text = f"channel to {self.connection.host} was lost: {reason or 'it was closed'}"
        refused = not self.folder and isinstance(reason, remctl.RemctlProtocolError | MachineError)
        error = reason if refused and reason is not None else ChannelError(text)
        if isinstance(error, MachineError):
            error.host = self.connection.host
        if error is not reason:
            error.__cause__ = reason
        return error

    def check(self) -> None:
        """Raise ChannelError if the channel was lost."""
        if self.failure is not None:
            raise self.lost(self.failure)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and everything that it started; see `Channel`."""
        if not 0 <= number < signal.NSIG:
            raise ValueError(f"{number!r} is not a signal number")
        if self.await_start(self.patience):
            until = time.monotonic() + self.patience
            send_control(self.connection, [self.folder], b"k %d" % number, until)

    def _try_control(self, words: bytes, until: float) -> bool:
        with contextlib.suppress(remctl.RemctlError):  # A lost keeper ends by itself.
            send_control(self.connection, [self.folder], words, until)
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """Abandon the channel because of an error in another part of it."""
        with self.changed:
            if self.failure is None and self.returncode is None and not self.ended:
                self.failure = error
        self.drop()

    def drop(self) -> None:
        """Abandon the channel: the host notices, and ends the command.

        This takes no lock and does not wait, so finalizers may call it.
        """
        self._errand.stop()
        self._discard()

    def close(self) -> None:
        """End the command and everything that it started, and wait for the keeper's end."""
        self._discard()
        until = self.connection.time_to_end(CLOSE_LIMIT)
        with self.changed:
            self.changed.notify_all()
        started = self.await_start((until - time.monotonic()) / 2)
        prompt = self.returncode is not None and self._wait_ended(_PROMPT)
        if (
            started
            and not prompt
            and self._try_control(b"q", until - (until - time.monotonic()) / 2)
        ):
            self._wait_ended(until - time.monotonic())
        self.drop()

    def _wait_ended(self, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.ended, max(seconds, 0.0))


class Pulse:
    """A thread that sends heartbeats to the keepers of a connection, as long as there are any.

    A beat is a remctl command.  The first is sent after one period: short channels need none.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._keepers: set[Keeper] = set()
        self._runs = False

    @classmethod
    def join(cls, keeper: Keeper) -> None:
        """Beat for a keeper until it has ended."""
        self: Pulse = keeper.connection.parts.setdefault(("pulse", os.getpid()), cls())
        with self._changed:
            self._keepers.add(keeper)
            self._changed.notify_all()
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="remctl-pulse", daemon=True).start()

    def _run(self) -> None:
        arrived = time.monotonic()  # when the last successful beat was sent
        while keepers := self._next():
            sent = time.monotonic()
            patience = min(keeper.patience for keeper in keepers)
            try:
                folders = [keeper.folder for keeper in keepers]
                send_control(keepers[0].connection, folders, b"b", sent + patience)
                arrived = sent
            except remctl.RemctlError as error:
                silence = time.monotonic() - arrived
                for keeper in keepers:
                    if keeper.connection.closed or silence > keeper.patience:
                        keeper.fail(error)
            del keepers

    def _next(self) -> list[Keeper]:
        """Wait until a beat is due, and return its keepers; an empty list ends the thread."""
        start = time.monotonic()
        with self._changed:
            while True:
                self._keepers = {keeper for keeper in self._keepers if not keeper.ended}
                left = start - time.monotonic()
                left += min((keeper.beat for keeper in self._keepers), default=0.0)
                if left <= 0:
                    self._runs = bool(self._keepers)
                    return list(self._keepers)
                self._changed.wait(left)
