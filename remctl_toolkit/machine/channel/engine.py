"""The common part of all ways to run a command: its thread, its streams and its end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol

import remctl

from ..base.connection import Connection


class Target:
    """A destination for a stream of output: a buffer in memory.

    Attributes:
        octets: the data so far.
    """

    def __init__(self) -> None:
        self.octets = bytearray()

    def write(self, octets: bytes, /) -> int:
        """Append octets; subclasses may wait for room."""
        self.octets += octets
        return len(octets)

    def finish(self, failure: BaseException | None) -> None:
        """Note the end of the stream, and its failure if it did not end normally."""

    def discard(self) -> None:
        """Drop data from now on; this takes no lock."""


class Feeder(Protocol):
    """A writer of the command's standard input."""

    def stop(self, over: bool = True) -> None:
        """Stop writing; if not `over`, the command has ended but its children may read on."""


class Errand:
    """Run remctl commands, one at a time, which another thread may stop.

    Attributes:
        stopped: whether `stop()` was called.
        since: the start of the last command, on the monotonic clock.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: list[remctl.Remctl] = []  # The thread that removes the session owns it.
        self.stopped = False
        self.since = 0.0

    def run(
        self,
        command: Iterable[Any],
        stdout: Any = remctl.DEVNULL,
        stderr: Any = remctl.DEVNULL,
        *,
        timeout: float = 0.0,
        until: float = 0.0,
    ) -> int | None:
        """Run a remctl command, and return its status.

        Args:
            command, stdout, stderr: see `remctl.Remctl.run()`.
            timeout: seconds that the network may be silent; 0 is for ever.
            until: the deadline, on the monotonic clock; 0 means no limit.
        """
        with self._connection.session(until) as session:
            self._held.append(session)
            try:
                if self.stopped:
                    raise remctl.RemctlNotOpenedError("stopped before the command was sent")
                session.set_timeout(timeout)
                self.since = time.monotonic()
                left = max(until - time.monotonic(), 0.0) if until else None
                return session.run(command, stdout=stdout, stderr=stderr, deadline=left).status
            finally:
                if not self._close():  # stop() may use it still: do not return it to the pool.
                    session.close()

    def stop(self) -> None:
        """End a running command, and start no other; this takes no lock."""
        self.stopped = True
        self._close(really=True)

    def _close(self, really: bool = False) -> bool:
        try:
            session = self._held.pop()
        except IndexError:
            return False
        if really:
            session.close()
        return True


class Engine:
    """A command on the remote host.

    Args:
        connection: the connection.
        stdout, stderr: destinations of its output; None discards it.

    Attributes:
        changed: a condition for changes of the other attributes.
        started: whether the host starts it, whatever happens to this program.
        pid: its process id on the remote host; 0 until known.
        returncode: its exit status, or -N for a signal; None until it has ended.
        failure: the reason for a missing exit status.
        ended: whether the command and its output have ended.
    """

    def __init__(
        self, connection: Connection, stdout: Target | None, stderr: Target | None
    ) -> None:
        self.connection = connection
        self.changed = threading.Condition()
        self.started = self.ended = False
        self.pid = 0
        self.returncode: int | None = None
        self.failure: BaseException | None = None
        self._targets = {b"O": stdout, b"E": stderr}
        self._feeder: Feeder | None = None
        self._errand = Errand(connection)

    def start(self) -> None:
        """Run it in another thread; return when it has started, or raise what `lost()` returns."""
        threading.Thread(target=self.run, name="remctl-channel", daemon=True).start()
        try:
            with self.changed:
                self.changed.wait_for(lambda: self.started or self.ended)
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if not self.started:
            raise self.lost(self.failure)

    def run(self) -> None:
        """Run it to its end; `wait()` then returns its status or raises its failure."""
        try:
            failure = self._run()
        except BaseException as error:
            failure = error
        with self.changed:
            failure = self.failure or failure
            if self.returncode is None:
                self.failure = failure
            self.ended = True
            self.changed.notify_all()
        for target in self._targets.values():
            if target is not None:
                target.finish(failure)
        if self._feeder is not None:
            self._feeder.stop()

    def _run(self) -> BaseException | None:
        """Run it, and return the reason if its exit status is unknown."""
        raise NotImplementedError

    def _change(self, **attributes: Any) -> None:
        with self.changed:
            vars(self).update(attributes)
            self.changed.notify_all()

    def _put(self, letter: bytes, octets: bytes) -> None:
        target = self._targets[letter]
        if target is not None:
            try:
                target.write(octets)
            except BrokenPipeError:
                self._targets[letter] = None
                self._on_broken_pipe(letter)

    def _on_broken_pipe(self, letter: bytes) -> None:
        with contextlib.suppress(remctl.RemctlError):
            self.send_signal(signal.SIGPIPE)

    def _discard(self) -> None:
        for target in self._targets.values():
            if target is not None:
                target.discard()

    # For other threads.

    def attach(self, feeder: Feeder) -> None:
        """Stop a feeder when the command ends."""
        with self.changed:
            self._feeder = feeder
            over, ended = self.returncode is not None, self.ended
        if over or ended:
            feeder.stop(over=ended)

    def await_start(self, timeout: float | None = None) -> bool:
        """Wait for the process id; return False if it is not known in time."""
        with self.changed:
            self.changed.wait_for(lambda: self.pid or self.ended, timeout)
        return self.pid != 0

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end, and return its exit status.

        Raises:
            TimeoutError: it did not end within `timeout` seconds.
            BaseException: see `lost()`.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.returncode is not None or self.ended, timeout)
        if self.returncode is not None:
            return self.returncode
        if not self.ended:
            raise TimeoutError(f"the command did not end within {timeout} seconds")
        raise self.lost(self.failure)

    def lost(self, reason: BaseException | None) -> BaseException:
        """Return the exception for a command without an exit status."""
        assert reason is not None
        return reason

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and everything that it started."""
        raise NotImplementedError

    def drop(self) -> None:
        """Abandon a command that must end with this program; this takes no lock."""

    def close(self) -> None:
        """End the command if it still runs."""
        raise NotImplementedError
