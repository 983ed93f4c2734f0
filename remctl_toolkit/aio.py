"""asyncio: the words of ``remctl``, to await.

::

    async with AsyncRemctl("server.example.org") as connection:
        result = await connection.run(["account", "show", "anna"])

A connection that waits for the network costs no thread: the event loop watches its descriptor.
Only what may block runs in threads, of two small pools that all connections of the process share:
one for what waits in the libraries (looking up, connecting, authenticating, sending, noop), and one
for decoding what has arrived, so that servers that do not answer never hold up those that do.

Cancelling, ``asyncio.timeout()`` included, closes the connection at once and ends what a thread was
doing for it; the next command opens it again.  A command that was sent is never sent again, and may
have run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

import remctl

# Not public, but ours: what is a command, and what is a result, is said once.
from remctl import RemctlOutput, RemctlSimpleResult, _Collector, _Command

from ._watch import Watch

__all__ = ["AsyncRemctl", "aremctl"]

P = ParamSpec("P")
T = TypeVar("T")

_WAITING_THREADS = 32
_DECODING_THREADS = 4

# Tokens decoded in one go: a few milliseconds at most, so that pool and loop are shared fairly.
_BATCH = 64

_Input = str | bytes | bytearray | memoryview
_Target = tuple[str, int | str | None, str | None]


class _BinaryFile(Protocol):
    def write(self, octets: bytes, /) -> int | None: ...


@functools.cache
def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=name)


os.register_at_fork(after_in_child=_pool.cache_clear)  # Its threads are the parent's.


def _waiting() -> ThreadPoolExecutor:
    return _pool("remctl-wait", _WAITING_THREADS)


def _decoding() -> ThreadPoolExecutor:
    return _pool("remctl-decode", _DECODING_THREADS)


class _Session(remctl.Remctl):
    """A session that, once dropped, never opens again: a thread may be just about to open it."""

    _dropped = False

    def drop(self) -> None:
        """Close it for good."""
        self._dropped = True  # An open() that has not seen this is ended by close().
        self.close()

    def _open(self, target: Any) -> Any:
        if self._dropped:
            raise remctl.RemctlNotOpenedError("connection closed by another task")
        return super()._open(target)


class AsyncRemctl:
    """A connection to a remctl server, for any number of commands one after the other.

    It is `remctl.Remctl` with the same methods, arguments, results and exceptions, but for two
    things: the methods that talk to the network are coroutines; and with a host, the connection is
    opened by ``async with``, or by the first command.

    Tasks may share a connection: each call waits until the one before has ended, and `run()` until
    another `run()` has.  Commands that are read piecemeal do not mix: starting one while another is
    unread raises RemctlBusyError.  `close()` from another task ends a call at once.  All of it
    belongs to the event loop it was first used in.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials: see `remctl.Remctl`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
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
    ) -> None:
        self._settings: dict[str, Any] = {
            "timeout": timeout,
            "ccache": ccache,
            "source_ip": source_ip,
            "credentials": credentials,
        }
        self._target: _Target | None = (host, port, principal) if host else None
        # Each is used until it is dropped; a thread may be at work in it a moment longer.
        self._session = _Session(**self._settings)
        self._turn = asyncio.Lock()
        self._watch: Watch | None = None
        self._error = "no error"

    # Settings.

    def set_ccache(self, ccache: str | os.PathLike[str]) -> None:
        """Use a credential cache in every later `open()`; see `remctl.Remctl.set_ccache()`."""
        self._session.set_ccache(ccache)
        self._settings["ccache"] = ccache
        self._settings["credentials"] = None

    def set_source_ip(self, source: str) -> None:
        """Connect from an address in every later `open()`; see `remctl.Remctl.set_source_ip()`."""
        self._session.set_source_ip(source)
        self._settings["source_ip"] = source

    def set_timeout(self, timeout: float) -> None:
        """Limit how long the network may be silent; see `remctl.Remctl.set_timeout()`."""
        self._session.set_timeout(timeout)
        self._settings["timeout"] = timeout

    # Opening and closing.

    async def open(
        self, host: str, port: int | str | None = None, principal: str | None = None
    ) -> None:
        """Connect to a server and authenticate; see `remctl.Remctl.open()`."""
        async with self._turn:
            self._drop()
            self._target = (host, port, principal)
            try:
                await self._in_thread(_waiting(), self._session.open, *self._target)
            except BaseException:
                self._target = None
                raise
            self._error = "no error"

    async def close(self) -> None:
        """Close the connection; a call in another task ends with RemctlNotOpenedError."""
        self._target = None
        self._drop()

    def _drop(self) -> None:
        """Close the connection as it is, and have a new one for the next command."""
        dropped, self._session = self._session, _Session(**self._settings)
        if self._watch is not None:  # The loop must not watch a descriptor that is closed.
            text = "connection closed by another task"
            self._watch.end(remctl.RemctlNotOpenedError(text))
        dropped.drop()

    def _failed(self, error: remctl.RemctlError) -> remctl.RemctlError:
        """Note a failure for error(), and in the exception what it was about."""
        self._error = str(error)
        if self._target is not None:
            error.host = self._target[0]
            error.port = int(self._target[1]) if self._target[1] else None
        return error

    async def _in_thread(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[P, T],
        *args: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """Call a function that works on the session; cancelling closes that."""
        session = self._session
        call = functools.partial(function, *args, **keywords)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, call)
        except asyncio.CancelledError:
            if session is self._session:
                self._drop()
            raise
        except remctl.RemctlError as error:
            self._error = str(error)
            raise

    # Commands.

    async def command(self, command: Iterable[Any], *, input: _Input | None = None) -> None:
        """Send a command, whose tokens are read next; see `remctl.Remctl.command()`."""
        checked = _Command(command, input)
        async with self._turn:
            await self._send(checked)

    async def _send(self, command: _Command) -> None:
        target = self._target
        if target is None:
            raise self._failed(remctl.RemctlNotOpenedError("no currently open connection"))
        session = self._session

        def send() -> None:
            if not session.opened:
                session.open(*target)
            session._start(command)

        await self._in_thread(_waiting(), send)

    async def output(self) -> RemctlOutput:
        """Return the next token of the running command; see `remctl.Remctl.output()`."""
        async with self._turn:
            session = self._connected()
            await self._arrival(session)
            return await self._in_thread(_decoding(), session.output)

    def tokens(self) -> AsyncIterator[RemctlOutput]:
        """Iterate over the tokens of the running command; see `remctl.Remctl.tokens()`."""
        return _Tokens(self, self._connected().tokens())

    def stream(
        self, command: Iterable[Any], *, input: _Input | None = None
    ) -> AsyncIterator[RemctlOutput]:
        """Send a command and iterate over its tokens; it is sent when the first is asked for.

        Leaving the loop before the end closes the connection; see `remctl.Remctl.tokens()`.
        """
        return _Tokens(self, None, _Command(command, input))

    async def run(
        self,
        command: Iterable[Any],
        *,
        input: _Input | None = None,
        stdout: _BinaryFile | None = None,
        stderr: _BinaryFile | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end; see `remctl.Remctl.run()`.

        Files are written to in a thread.
        """
        collector = _Collector(stdout, stderr)
        checked = _Command(command, input)
        status = None

        def take(token: RemctlOutput) -> None:
            nonlocal status
            if token.stream is not None:
                collector.write[token.stream](token.output)
            status = token.status

        async with self._turn:
            await self._send(checked)
            session = self._session
            try:
                tokens = session.tokens()
                while status is None:
                    await self._receive(session, tokens, take)
            except BaseException as error:
                if isinstance(error, remctl.RemctlError):
                    error.partial = collector.result()
                if session is self._session and not isinstance(error, remctl.RemctlServerError):
                    self._drop()
                raise
        result: RemctlSimpleResult = collector.result(status)
        return result

    async def noop(self) -> bool:
        """Ask the server for a sign of life; see `remctl.Remctl.noop()`."""
        async with self._turn:
            return await self._in_thread(_waiting(), self._connected().noop)

    def _connected(self) -> remctl.Remctl:
        if self._target is None:
            raise self._failed(remctl.RemctlNotOpenedError("no currently open connection"))
        if not self._session.opened:
            raise self._failed(remctl.RemctlDisconnectedError("no connection open"))
        return self._session

    # Waiting.

    async def _receive(
        self,
        session: remctl.Remctl,
        tokens: Generator[RemctlOutput],
        take: Callable[[RemctlOutput], None],
    ) -> None:
        """Wait for tokens, and hand over all that have arrived."""
        await self._arrival(session)
        await self._in_thread(_decoding(), _take_arrived, session, tokens, take)

    async def _arrival(self, session: remctl.Remctl) -> None:
        """Wait until a token can be read without waiting."""
        loop = asyncio.get_running_loop()
        timeout = self._settings["timeout"]
        quiet_since = loop.time()
        missing = session.missing()
        while missing:
            self._watch = Watch(session.fileno(), timeout / 4 if timeout else None)
            try:
                await self._watch.wait()
            except asyncio.CancelledError:
                if session is self._session:
                    self._drop()
                raise
            finally:
                self._watch = None
            before, missing = missing, session.missing()
            if missing != before:
                quiet_since = loop.time()
            elif timeout and loop.time() - quiet_since >= timeout:
                self._drop()
                raise self._failed(remctl.RemctlTimeoutError("error receiving token: timed out"))

    # Looking.

    @property
    def opened(self) -> bool:
        """Whether there is a host to send commands to: see `remctl.Remctl.opened`."""
        return self._target is not None

    def error(self) -> str:
        """Return the reason of the last failure; see `remctl.Remctl.error()`."""
        return self._error

    def fileno(self) -> int:
        """Return the connection's descriptor; see `remctl.Remctl.fileno()`."""
        return self._connected().fileno()

    def missing(self) -> int:
        """Return how many octets `output()` has to wait for; see `remctl.Remctl.missing()`."""
        if self._target is None:
            self._connected()
        return self._session.missing() if self._session.opened else 0

    async def __aenter__(self) -> Self:
        if self._target is not None and not self._session.opened:
            await self.open(*self._target)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        if self._target is not None and not self._session.opened:
            return f"<AsyncRemctl {self._target[0]}, lost>"
        return f"<Async{repr(self._session)[1:]}"


def _take_arrived(
    session: remctl.Remctl,
    tokens: Generator[RemctlOutput],
    take: Callable[[RemctlOutput], None],
) -> None:
    """Hand over the tokens that have arrived; the first may be waited for, no other is."""
    for _, token in zip(range(_BATCH), tokens, strict=False):
        take(token)
        if token.type == "status" or session.missing():
            return


class _Tokens(AsyncIterator[RemctlOutput]):
    """The tokens of one command; leaving it before the end closes the connection."""

    def __init__(
        self,
        connection: AsyncRemctl,
        tokens: Generator[RemctlOutput] | None,
        command: _Command | None = None,
    ) -> None:
        self._connection = connection
        self._tokens = tokens
        self._session = connection._session
        self._command = command
        self._arrived: deque[RemctlOutput] = deque()
        self._failure: Exception | None = None
        self._ended = False
        self._loop = _running_loop()

    async def __anext__(self) -> RemctlOutput:
        while not self._arrived:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._ended:
                raise StopAsyncIteration
            await self._receive()
        token = self._arrived.popleft()
        self._ended = self._ended or token.type == "status"
        return token

    async def _receive(self) -> None:
        connection = self._connection
        self._loop = asyncio.get_running_loop()
        async with connection._turn:
            if self._command is not None:
                command, self._command = self._command, None
                await connection._send(command)
                self._session = connection._session
                self._tokens = self._session.tokens()
            if self._tokens is None or self._session is not connection._session:
                self._ended = True
                text = "connection closed meanwhile"
                raise connection._failed(remctl.RemctlNotOpenedError(text))
            try:
                await connection._receive(self._session, self._tokens, self._arrived.append)
            except Exception as error:  # Tokens that came before it go first.
                self._failure = error
                self._ended = True

    async def aclose(self) -> None:
        """Leave it: unless the last token was read, the connection is closed."""
        self._leave()

    def _leave(self) -> None:
        if self._tokens is None or self._ended:
            return
        self._ended = True
        if self._session is self._connection._session:
            self._connection._drop()

    def __del__(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed() or loop is _running_loop():
            self._leave()
            return
        # Another thread has found this garbage, and what is to be done is the loop's.
        with contextlib.suppress(RuntimeError):  # It was closed just now: nobody waits any more.
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
    stdout: _BinaryFile | None = None,
    stderr: _BinaryFile | None = None,
    timeout: float | None = None,  # noqa: ASYNC109  # how long the network may be silent
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: remctl.RemctlCredentials | None = None,
) -> RemctlSimpleResult:
    """Connect to a host, run one command and close; see `remctl.remctl()`."""
    settings: dict[str, Any] = {
        "timeout": timeout,
        "ccache": ccache,
        "source_ip": source_ip,
        "credentials": credentials,
    }
    connection = AsyncRemctl(host, port, principal, **settings)
    try:
        return await connection.run(command, input=input, stdout=stdout, stderr=stderr)
    finally:
        await connection.close()
