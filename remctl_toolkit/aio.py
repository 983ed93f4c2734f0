"""The asyncio version of ``remctl``.

::

    async with AsyncRemctl("server.example.org") as connection:
        result = await connection.run(["account", "show", "anna"])

The event loop watches the descriptors of connections, and runs the same operations as
`remctl.Remctl`.  Calls of the libraries that may block (looking up, authenticating, sending much,
noop) run in the extension's own threads, without Python.  The program's own code (credentials,
files) runs in a new Python thread for each call.

Cancelling a call, also by ``asyncio.timeout()``, closes the connection at once and ends the call in
the thread; the next command opens it again.  A command that was sent is never sent again, and may
have run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import _remctl_core as _core
import remctl
from remctl import RemctlSimpleResult

__all__ = ["AsyncRemctl", "AsyncRemctlTokens", "aremctl"]

T = TypeVar("T")
if TYPE_CHECKING:
    from _remctl_arguments import Readable
    from _remctl_core import Steps
    from remctl import _Input, _OutputFile  # these are in the stubs only


class AsyncRemctl:
    """A connection to a remctl server, for any number of commands one after the other.

    It has the same methods, arguments, results and exceptions as `remctl.Remctl`, with two
    differences: methods that use the network are coroutines; and with a host, ``async with`` or the
    first command opens the connection.

    Tasks may share a connection: each call waits until the one before has ended, and `run()` until
    another `run()` has.  But starting a command while the output of another is unread raises
    RemctlBusyError.  `close()` from another task ends a call at once.  A connection belongs to the
    event loop that it was first used in.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials, keepalive: see
            `remctl.Remctl`.
        connect: whether ``async with`` connects; otherwise the first command does.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: remctl.RemctlCredentials | None = None,
        keepalive: float | None = None,
        connect: bool = True,
    ) -> None:
        self._connect = connect
        self._session = _core.Session(
            blocking=False,
            peers="task",
            timeout=timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
            keepalive=keepalive,
        )
        if host:
            self._session.stay_closed(_core.check_target(host, port, principal))
        self._lock = asyncio.Lock()

    # Settings.

    def set_ccache(self, ccache: str | os.PathLike[str]) -> None:
        """Use a credential cache in every later `open()`; see `remctl.Remctl.set_ccache()`."""
        self._session.set_ccache(ccache)

    def set_source_ip(self, source: str) -> None:
        """Connect from an address in every later `open()`; see `remctl.Remctl.set_source_ip()`."""
        self._session.source_ip = _core.check_source_ip(source)

    def set_timeout(self, timeout: float) -> None:
        """Limit how long the network may be silent; see `remctl.Remctl.set_timeout()`."""
        self._session.set_timeout(timeout)

    # Opening and closing.

    async def open(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        deadline: float | None = None,
    ) -> None:
        """Connect to a server and authenticate; see `remctl.Remctl.open()`."""
        until = _core.deadline_in(deadline)
        target = _core.check_target(host, port, principal)
        await self._do(self._session.start, target, until=until)

    async def close(self) -> None:
        """Close the connection; a call in another task ends with RemctlNotOpenedError."""
        self._session.close()

    async def _do(
        self, operation: Callable[..., Steps[T]], *arguments: Any, until: float = 0.0
    ) -> T:
        """Run an operation of the session, once those of other tasks have ended."""
        session = self._session
        if session.is_inherited():
            session.leave_to_parent()
            self._lock = asyncio.Lock()
        if self._lock.locked():
            await self._await_turn(until)
        else:
            await self._lock.acquire()
        try:
            session.deadline = until
            session.error = "no error"
            return await finish(operation(*arguments))
        except remctl.RemctlError:
            raise
        except BaseException:
            session.drop()
            raise
        finally:
            session.deadline = 0.0
            self._lock.release()

    async def _await_turn(self, until: float) -> None:
        """Wait for another task's command, as long as the timeout and the deadline allow."""
        seconds, reason = self._session.patience(until)
        try:
            async with asyncio.timeout(seconds):
                await self._lock.acquire()
        except TimeoutError:
            text = f"{reason} waiting for another task's command"
            raise self._session.failed(remctl.RemctlTimeoutError(text)) from None

    # Commands.

    async def command(self, comm: Iterable[Any], *, input: _Input | None = None) -> None:
        """Send a command; see `remctl.Remctl.command()`."""
        checked = await self._check(comm, input)
        await self._do(self._session.send, checked)

    async def _check(
        self, command: Iterable[Any], input: _Input | None, until: float = 0.0
    ) -> _core.Command:
        """Check a command; if its input is a file, read that in a thread."""
        reads = _core.is_file(input)
        checked = _core.Command(command, None if reads else input)
        self._session.check_opened()
        if reads:
            checked.append_input(
                await finish(self._session.read_file(cast("Readable", input), until))
            )
        return checked

    async def output(self) -> remctl.RemctlToken:
        """Return the next token of the running command; see `remctl.Remctl.output()`."""
        return await self._do(self._session.output)

    def tokens(self) -> AsyncRemctlTokens:
        """Iterate over the tokens of the running command; see `remctl.Remctl.tokens()`."""
        return AsyncRemctlTokens(self, self._session.connected())

    def stream(
        self,
        command: Iterable[Any],
        *,
        input: _Input | None = None,
        deadline: float | None = None,
    ) -> AsyncRemctlTokens:
        """Send a command and iterate over its tokens; it is sent when the first is requested.

        Leaving the loop before the end closes the connection; see `remctl.Remctl.stream()`.
        """
        until = _core.deadline_in(deadline)
        if _core.is_file(input):
            return AsyncRemctlTokens(self, None, _core.Command(command), input, until)
        return AsyncRemctlTokens(self, None, _core.Command(command, input), None, until)

    async def run(
        self,
        command: Iterable[Any],
        *,
        input: _Input | None = None,
        stdout: _OutputFile | None = None,
        stderr: _OutputFile | None = None,
        deadline: float | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end; see `remctl.Remctl.run()`.

        Files are written to in a thread.
        """
        until = _core.deadline_in(deadline)
        collector = _core.Collector(stdout, stderr, buffered=True)
        checked = await self._check(command, input, until)
        return await self._do(self._session.run, checked, collector, until=until)

    async def noop(self, *, deadline: float | None = None) -> bool:
        """Ask the server for a sign of life; see `remctl.Remctl.noop()`."""
        return await self._do(self._session.ping, until=_core.deadline_in(deadline))

    # Looking.

    @property
    def opened(self) -> bool:
        """True if there is a host to send commands to; see `remctl.Remctl.opened`."""
        return self._session.opened

    def error(self) -> str:
        """Return the reason of the last failure; see `remctl.Remctl.error()`."""
        return self._session.error

    def fileno(self) -> int:
        """Return the connection's descriptor; see `remctl.Remctl.fileno()`."""
        return self._session.fileno()

    def missing(self) -> int:
        """Return how many octets `output()` has to wait for; see `remctl.Remctl.missing()`."""
        self._session.check_opened()
        return self._session.missing()

    async def __aenter__(self) -> Self:
        session = self._session
        if self._connect and session.opened and not session.is_connected():
            await self._do(session.start, session.check_opened())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncRemctl{self._session}>"

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None:
            session.warn_unclosed(self)


async def _wait(wants: tuple[int, float | None]) -> bool:
    """Wait until a descriptor is readable; return whether it is."""
    descriptor, seconds = wants
    if descriptor < 0:
        await asyncio.sleep(0)
        return False
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[bool] = loop.create_future()
    loop.add_reader(descriptor, _set, readable, True)
    timer = None if seconds is None else loop.call_later(seconds, _set, readable, False)
    try:
        return await readable
    finally:
        loop.remove_reader(descriptor)
        if timer is not None:
            timer.cancel()


async def finish(steps: Generator[Any, Any, T], wait: Callable[[Any], Awaitable[Any]] = _wait) -> T:
    """Run the steps of an operation to their end, waiting as a task does.

    Args:
        steps: the operation.
        wait: waits for what a step yields, and returns what to send to the operation.
    """
    try:
        wants = next(steps)
        while True:
            try:
                answer = await wait(wants)
            except BaseException as error:
                wants = steps.throw(error)
            else:
                wants = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def _set(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)


class AsyncRemctlTokens:
    """The tokens of one command, to iterate over; see `AsyncRemctl.stream()`.

    Leaving it before the last token closes the connection.
    """

    def __init__(
        self,
        connection: AsyncRemctl,
        handle: Any,
        command: _core.Command | None = None,
        file: Any = None,
        until: float = 0.0,
    ) -> None:
        self._connection = connection
        self._handle = handle
        self._command = command
        self._file = file
        self._until = until
        self._ended = False
        self._loop = _running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> remctl._StreamToken:
        if self._ended:
            raise StopAsyncIteration
        connection = self._connection
        session = connection._session
        self._loop = asyncio.get_running_loop()
        try:
            if self._command is not None:
                command, self._command = self._command, None
                if self._file is not None:
                    command.append_input(await finish(session.read_file(self._file, self._until)))
                self._handle = await connection._do(session.send, command, until=self._until)
            token = await connection._do(session.next_token, self._handle, until=self._until)
        except BaseException:
            self._leave()
            raise
        if token[0] != "output":
            self._ended = True
            if token[0] != "status":
                raise StopAsyncIteration
        return token

    async def aclose(self) -> None:
        """End the iteration; close the connection, unless the last token was read."""
        self._leave()

    def _leave(self) -> None:
        if not self._ended:
            self._connection._session.abandon(self._handle)
            self._ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        loop = self._loop
        if self._ended or loop is None or loop.is_closed() or loop is _running_loop():
            self._leave()
            return
        # The garbage collector runs in another thread, but only the loop may close the connection.
        with contextlib.suppress(RuntimeError):  # The loop was closed just now.
            loop.call_soon_threadsafe(self._leave)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def aremctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[Any] = (),
    *,
    input: _Input | None = None,
    stdout: _OutputFile | None = None,
    stderr: _OutputFile | None = None,
    timeout: float | None = None,  # noqa: ASYNC109  # how long the network may be silent
    deadline: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: remctl.RemctlCredentials | None = None,
) -> RemctlSimpleResult:
    """Connect to a host, run one command and close; see `remctl.remctl()`."""
    connection = AsyncRemctl(
        host,
        _core.check_named_port(port),
        principal,
        timeout=timeout,
        ccache=ccache,
        source_ip=source_ip,
        credentials=credentials,
    )
    try:
        return await connection.run(
            command, input=input, stdout=stdout, stderr=stderr, deadline=deadline
        )
    finally:
        await connection.close()
