"""Run Python functions on the remote host, in a persistent interpreter."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any, Self

from _remctl_text import printable

from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Program, check_seconds
from ..channel.channel import Channel
from ..wire.values import DecodeError, decode
from .errors import CallTimeoutError, InterpreterEndedError, RemoteCallError, ResultError, at
from .functions import RemoteModule
from .link import ITEM_COST, WINDOW, Link, Reply, agent_program
from .modules import Allowed, ModuleServer
from .output import Lines, Output, show
from .shipping import Packer

RESULT_LIMIT = 256 << 20  # octets

_CLOSE_WAIT = 10.0  # seconds for a remote generator to end


class Interpreter:
    """A remote Python interpreter that runs functions of this program, for several threads.

    Functions of modules that can be imported are called by name; others are sent as source.
    Modules are imported from the remote standard library, then from this program, then from
    packages installed on the host.  Their state stays until the interpreter ends.

    Results are plain data, see `remctl_toolkit.machine.wire.values.decode()`: a host cannot run
    code in this program.

    Args:
        connection: the connection to the host.
        name: the host's name for lines of output and errors; None: `connection.host`.
        modules: the modules that may be sent: names, which include everything below them, or a
            function that is called with a name; None: those that the calls need, which are the
            modules of the functions and the modules that these import; see `servable`.
        prefer_far: names of packages to prefer from those installed on the host; True: all.
        output: called with the host, the stream and the line for each line that is printed on the
            host, in order; None writes it to sys.stderr, with the host before it.
        timeout: seconds that a call may take; None: no limit.
        result_limit: octets of an encoded result; a hostile host can make it take fifty times as
            much memory.

    Raises:
        TypeError, ValueError: an argument is invalid.
        InterpreterEndedError: it did not start.
        ClosedError, RemctlError: see `Channel`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        name: str | None = None,
        modules: Allowed = None,
        prefer_far: Iterable[str] | bool = (),
        output: Output | None = None,
        timeout: float | None = None,
        result_limit: int = RESULT_LIMIT,
    ) -> None:
        self._link: Link | None = None
        self._connection = connection
        self.name = connection.host if name is None else name
        self._modules = ModuleServer(modules)
        self._output = show if output is None else output
        if timeout is not None:
            check_seconds("timeout", timeout)
        self._timeout = timeout
        if not 1 <= result_limit <= 1 << 31:
            raise ValueError(f"result_limit must be from 1 to {1 << 31} octets, not {result_limit}")
        if isinstance(prefer_far, str):
            raise TypeError("prefer_far must be a list of names, not one string: use [...]")
        self._limit = result_limit
        self._prefer_far = prefer_far if isinstance(prefer_far, bool) else tuple(prefer_far)
        self._opening = threading.Lock()
        self._closed = False
        self._open()

    def _open(self) -> None:
        settings = {
            "limit": self._limit,
            "window": (WINDOW, ITEM_COST),
            "prefer_far": self._prefer_far or (),
        }
        stream = self._start(agent_program(settings))
        lines = Lines(self.name, self._output)
        self._link = Link(stream, self.name, self._limit, self._modules, lines)
        # If the object is dropped, an existing thread ends the interpreter.  When the program
        # ends, the host notices.
        weakref.finalize(self, self._link.hang_up).atexit = False
        self._packer = Packer(self._modules, self._link.version)

    def _start(self, program: Program) -> Channel:
        return Channel(self._connection, source=program, label="call")

    @property
    def python_version(self) -> tuple[int, ...]:
        """The version of the remote Python: (major, minor, micro)."""
        return self._open_link().version

    @property
    def served(self) -> tuple[str, ...]:
        """The modules, and the files of packages, that were sent so far."""
        return self._modules.served

    @property
    def servable(self) -> tuple[str, ...]:
        """The modules that may be sent.

        They are those of `modules`, with everything below them; without that argument, those that
        the calls so far need.
        """
        return self._modules.servable

    # Calls.

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on the remote host, and return its result.

        If it returns an iterator, such as a generator, return a `RemoteIterator`.  If this call is
        interrupted, as with Ctrl-C, the remote call is cancelled.

        Args:
            function: a function that can be imported, is built in, or has source.
            args, kwargs: anything that can be pickled.

        Raises:
            TypeError, ValueError: the function or an argument cannot be sent; nothing was sent.
            RemoteCallError: it raised an exception, or could not be imported on the host.
            ResultError: its result is not plain data.
            CallTimeoutError: it took longer than `timeout`.
            InterpreterEndedError: the interpreter has ended; see `reopen()`.
            ClosedError: the interpreter was closed, or belongs to another process.
        """
        return self.call_within(self._timeout, function, *args, **kwargs)

    def call_within(
        self, timeout: float | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a function with a timeout in seconds; see `call()`."""
        if timeout is not None:
            check_seconds("timeout", timeout)
        reply = self._begin(timeout, function, args, kwargs)
        letter, octets = reply.next()
        if letter == b"G":
            return RemoteIterator(reply)
        return _value(reply.host, letter, octets)

    def _begin(self, timeout: float | None, function: Any, args: Any, kwargs: Any) -> Reply:
        if not callable(function):
            raise TypeError(f"only a function can be called, not {type(function).__name__}")
        link, packer = self._open_link(), self._packer
        module = getattr(function, "__module__", None)
        if isinstance(module, str) and module != "__main__" and self._modules.refuses(module):
            text = f"module {module} may not be sent: add it to modules="
            raise ValueError(text)
        octets, hashes = packer.pack(function, args, kwargs)
        reply = Reply(link, timeout)
        reply.on_success = lambda: packer.learn(hashes)
        try:  # KeyboardInterrupt may be raised at any moment.
            link.call(reply, octets)
        except BaseException:
            reply.abandon()
            raise
        return reply

    def _open_link(self) -> Link:
        if self._closed or self._link is None:
            raise ClosedError(f"the interpreter on {self.name} was closed")
        if self._link.pid != os.getpid():
            text = f"the interpreter on {self.name} belongs to process {self._link.pid}"
            raise ClosedError(f"{text}: open another after a fork")
        return self._link

    def import_module(self, module: ModuleType) -> RemoteModule:
        """Return a module whose functions run on the remote host.

        Raises:
            TypeError: `module` is not a module.

        Its functions raise what `call()` raises.
        """
        if not isinstance(module, ModuleType):
            raise TypeError(f"module must be a module, not {type(module).__name__}")
        return RemoteModule(self.call, self.name, module)

    # The end.

    def reopen(self) -> None:
        """Replace the remote interpreter by a new one; its state is lost.

        Raises:
            See `Interpreter`.
        """
        with self._opening:
            self._end(Link.close)
            self._open()
            self._closed = False

    def close(self) -> None:
        """End the interpreter, and interrupt its calls; calling this again does nothing.

        It takes at most ten seconds, whatever the host does.
        """
        self._end(Link.close)

    def drop(self) -> None:
        """Have an existing thread end the interpreter, without waiting."""
        self._end(Link.hang_up)

    def _end(self, how: Callable[[Link], None]) -> None:
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            how(link)

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        if self._link is not None and self._link.error is not None:
            state = "ended"
        return f"<{type(self).__name__} of {self.name}, {state}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is not None and link.pid == os.getpid() and not sys.is_finalizing():
            text = f"unclosed {self!r}: use it in a with statement, or call close()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)


def _value(host: str, letter: bytes, octets: bytes) -> Any:
    """Return the result in a reply, or raise its exception."""
    if letter in (b"V", b"I"):
        return decode(octets)
    if letter in (b"!", b"P"):
        raise _remote_error(host, octets)
    if letter == b"X":
        raise at(host, InterpreterEndedError(f"the interpreter on {host} ended during the call"))
    raise DecodeError(f"unexpected reply to a call: {letter!r}")


def _remote_error(host: str, octets: bytes) -> RemoteCallError | ResultError:
    description = decode(octets)
    try:
        stage, names, message, traceback, values = description
        texts = [stage, message, traceback, *names]
        valid = all(isinstance(text, str) for text in texts) and isinstance(names, tuple)
        if not valid or not names or not isinstance(values, tuple | None):
            raise ValueError
    except (TypeError, ValueError):
        raise DecodeError("malformed error") from None
    if stage == "result":
        return at(host, ResultError(f"{message} (on {host})"))
    text = f"{names[0]} on {host}"
    error = at(host, RemoteCallError(f"{text}: {message}" if message else text))
    error.type_name, error.type_names, error.message = names[0], names, message
    error.remote_args, error.remote_traceback = values, traceback
    error.add_note(printable(f"On {host}:\n{traceback.rstrip()}", lines=True))
    return error


class RemoteIterator(Iterator[Any]):
    """An iterator over the items of a remote iterator, which are sent a little ahead.

    At most 256 items, or 1 MiB, are on their way.  If you stop early, use `close()` or ``with``:
    this closes the remote generator, whose ``finally`` blocks run.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply: Reply | None = reply
        # This only queues a message, so it is safe in any thread that collects garbage.
        weakref.finalize(self, reply.abandon).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Return the next item; see `Interpreter.call()` for other exceptions."""
        reply = self._reply
        if reply is None:
            raise StopIteration
        try:
            letter, octets = reply.next()
            if letter == b"I":
                reply.took(len(octets))
            elif letter == b"E":
                raise StopIteration
            else:
                self._reply = None
            return _value(reply.host, letter, octets)
        except BaseException:
            self._reply = None
            reply.abandon()
            raise

    def close(self) -> None:
        """Close the remote generator and wait for its end; calling this again does nothing.

        Raises:
            RemoteCallError: it raised an exception while it was closed.
            CallTimeoutError: it did not end within 10 seconds.
            InterpreterEndedError: the interpreter has ended.
        """
        reply, self._reply = self._reply, None
        if reply is None:
            return
        reply.cancel()
        until = time.monotonic() + _CLOSE_WAIT
        while (left := until - time.monotonic()) > 0:
            reply.timeout = left
            try:
                letter, octets = reply.next()
            except CallTimeoutError:
                break
            if letter == b"I":
                continue
            if letter not in (b"E", b"X"):
                _value(reply.host, letter, octets)
            return
        reply.abandon()
        raise reply.too_late(f"did not end within {_CLOSE_WAIT:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
