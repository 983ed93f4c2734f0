"""Base of the fake servers: a listening loopback socket and one thread per connection.

A `LoopbackServer` owns every socket and thread that it makes.  Leaving its `with` block shuts the
sockets down, which wakes whatever blocks on them, and waits for the threads.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self

STOP_LIMIT = 10.0  # seconds that stop() gives each thread to end
LINGER_FOR_NO_TIME = struct.pack("ii", 1, 0)  # with this SO_LINGER, close() sends RST


class LoopbackServer:
    """Accept connections on a free loopback port; a subclass says what `handle` does with one.

    `host` is the loopback address to listen on (IPv4 or IPv6); `timeout` bounds each single wait
    on a connection, in seconds.  `connections` counts the connections accepted so far.
    """

    backlog = 128

    def __init__(self, host: str = "127.0.0.1", *, timeout: float = 30.0) -> None:
        self.host = host
        self.timeout = timeout
        self.port = 0
        self.connections = 0
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._live: dict[threading.Thread, socket.socket] = {}
        self._acceptor: threading.Thread | None = None
        self._waker: socket.socket | None = None

    def handle(self, connection: socket.socket, number: int) -> None:
        """Serve one connection, the `number`th (from 1); it is closed when this returns."""
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        """Address of the listening socket."""
        return self.host, self.port

    @property
    def errors(self) -> list[BaseException]:
        """Errors of the connections' threads, except those of clients that went away."""
        with self._lock:
            return list(self._errors)

    def start(self) -> Self:
        """Listen, and accept in a thread of its own."""
        if self._acceptor is not None:
            raise RuntimeError(f"{type(self).__name__} is already started")
        listener = self._listen()
        self.port = listener.getsockname()[1]
        woken, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept_until_woken,
            args=(listener, woken),
            name=f"{type(self).__name__}-accept",
            daemon=True,
        )
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close everything and wait for the threads; a second call does nothing.

        Raises RuntimeError when a thread has not ended after STOP_LIMIT seconds.
        """
        self.stopping.set()
        if self._acceptor is None or self._waker is None:
            return
        self._waker.close()
        self._acceptor.join(STOP_LIMIT)
        threads = [self._acceptor, *self._shut_down_connections()]
        self._acceptor = self._waker = None
        for thread in threads:
            thread.join(STOP_LIMIT)
        stuck = [thread.name for thread in threads if thread.is_alive()]
        if stuck:
            raise RuntimeError(f"threads did not end: {', '.join(stuck)}")

    def drop(self, connection: socket.socket, *, reset: bool = False) -> None:
        """Close a connection with FIN or RST; the one way to do it that does not race with stop().

        FIN goes out even while a forked child holds a copy of the descriptor, RST does not.
        """
        with self._lock, connection, contextlib.suppress(OSError):  # it may be closed already
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_FOR_NO_TIME)
            else:
                connection.shutdown(socket.SHUT_RDWR)

    def record_error(self, error: BaseException) -> None:
        """Add to `errors`."""
        with self._lock:
            self._errors.append(error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except RuntimeError:
            if error is None:  # never hide the failure of the body
                raise

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, 0), family=family, backlog=self.backlog)

    def _accept_until_woken(self, listener: socket.socket, woken: socket.socket) -> None:
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        poller.register(woken, select.POLLIN)
        with listener, woken:
            while all(fd != woken.fileno() for fd, _ in poller.poll()):
                try:
                    connection, _ = listener.accept()
                except ConnectionError:  # it went away while it was queued
                    continue
                except OSError as error:  # out of descriptors, say: accepting is over
                    self.record_error(error)
                    return
                self._serve_in_thread(connection)

    def _serve_in_thread(self, connection: socket.socket) -> None:
        connection.settimeout(self.timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.connections += 1
            number = self.connections
            thread = threading.Thread(
                target=self._serve,
                args=(connection, number),
                name=f"{type(self).__name__}-{number}",
                daemon=True,
            )
            self._live[thread] = connection
        thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            self.handle(connection, number)
        except ConnectionError:
            pass
        except BaseException as error:  # pytest's own failures derive from BaseException
            if not (self.stopping.is_set() and isinstance(error, OSError)):
                self.record_error(error)
        finally:
            self.drop(connection)
            with self._lock:
                self._live.pop(threading.current_thread(), None)

    def _shut_down_connections(self) -> list[threading.Thread]:
        with self._lock:
            for connection in self._live.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return list(self._live)
