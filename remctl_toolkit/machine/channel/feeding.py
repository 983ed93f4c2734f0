"""Upwards: what is written to a command, and words to its keeper, each by a command of its own."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Generator, Iterable

import remctl

from ..base.connection import Connection
from ..base.program import PYTHON_LOADER, python_payload, source

# remctld logs each of these as it stands: the folder is among the input, which it does not log.
# Opening a FIFO waits for a reader, unless it is opened for both; as soon as it is open for writing
# alone, and the command reads no more, writing ends with SIGPIPE.
_OPEN = b'exec 3<>"$d/data" 4>"$d/data" 3>&-;'
_END = b'echo e 1<>"$d/control"'
_FEED_MUCH = b"IFS= read -r d;" + _OPEN + b"exec cat >&4"
_FEED_LAST = b"IFS= read -r d;" + _OPEN + b"cat >&4;s=$?;" + _END + b";exit $s"

# Up to here, printf in the shell itself takes less time than starting cat.
SMALL = 1024
_PLAIN = b" +,./:=@_" + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))
_PRINTF = tuple(bytes([n]) if n in _PLAIN else b"\\%03o" % n for n in range(256))

_FED = 0
_GONE = (2, 3)  # From sh, that it cannot open the FIFO; from feeder.py.
_UNREAD = (141, 255, 4)  # From sh, about cat; from remctld, about either; from feeder.py.


def _quoted(folder: bytes) -> bytes:
    return shlex.quote(folder.decode("latin-1")).encode("latin-1")


def _feed_command(
    connection: Connection, folder: bytes, data: bytes, end: bool
) -> tuple[str | bytes, ...]:
    if connection.shell is None:
        program = f"{source('channel/far_feeder')}\nfeed({folder!r}, {end})\n"
        payload = python_payload(program, data)
        return connection.python, "-IS", "-c", PYTHON_LOADER, "feed", payload
    if len(data) > SMALL:
        script = _FEED_LAST if end else _FEED_MUCH
        return connection.shell, "-c", script, "feed", b"%b\n%b" % (folder, data)
    text = b"d=%b;" % _quoted(folder)
    if data:
        printed = b"".join([_PRINTF[octet] for octet in data])
        text += _OPEN + b"printf '%b' >&4;" % printed
    if end:
        text += _END
    return connection.shell, "-s", "feed", text


def tell(connection: Connection, folders: Iterable[bytes], words: bytes, timeout: float) -> None:
    """Say something to keepers; one that has ended does not hear it.

    Raises:
        ClosedError: the connection was closed.
        RemctlError: the server cannot be reached, or not within the timeout (seconds).
    """
    if connection.shell is None:
        program = f"{source('channel/far_feeder')}\ntell({list(folders)!r}, {words!r})\n"
        payload = python_payload(program)
        command: tuple[str | bytes, ...] = (
            connection.python,
            "-IS",
            "-c",
            PYTHON_LOADER,
            "control",
            payload,
        )
    else:
        listed = b" ".join(map(_quoted, folders))
        text = b'for d in %b;do echo %b 1<>"$d/control";done 2>/dev/null' % (listed, words)
        command = (connection.shell, "-s", "control", text)
    with connection.session() as session:
        session.set_timeout(timeout)
        session.run(command)


class Feeds:
    """Feeds a command, one piece after the other, until it is told to stop."""

    def __init__(self, connection: Connection, folder: bytes) -> None:
        self._connection = connection
        self._folder = folder
        self._lock = threading.Lock()
        self._session: remctl.Remctl | None = None
        self._stopped = False

    def feed(self, data: bytes, end: bool) -> bool:
        """Write to the command's standard input; wait as long as it does not read.

        Args:
            data: what to write.
            end: whether that was all.

        Returns:
            False if the command does not read any more.

        Raises:
            ClosedError: the connection was closed.
            RemctlError: some of it may have been written.
        """
        command = _feed_command(self._connection, self._folder, data, end)
        with self._connection.session() as session, self._stoppable(session):
            session.set_timeout(0)  # That the far side is still there, others see to.
            result = session.run(command)
        if result.status == _FED:
            return True
        text = result.stderr_text(errors="replace").strip()
        if result.status in _GONE or (result.status in _UNREAD and not text):
            return False
        raise remctl.RemctlError(f"cannot write to the command: {text or result.status}")

    @contextlib.contextmanager
    def _stoppable(self, session: remctl.Remctl) -> Generator[None]:
        with self._lock:
            self._session = session
            if self._stopped:
                session.close()
        try:
            yield
        finally:
            with self._lock:
                self._session = None

    def stop(self) -> None:
        """End a feed that waits, and let no other begin."""
        with self._lock:
            self._stopped = True
            if self._session is not None:
                self._session.close()
