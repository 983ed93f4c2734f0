"""Play one input: call the extension, with a hostile peer at the other end of a socket pair.

Each call must end in time with a result of the documented type, and leak nothing.  Otherwise an
AssertionError is raised; memory errors are for the sanitizers to find.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import _remctl

from remctl_toolkit.testing.waiting import wait_until

from .inputs import BY_PRINCIPAL, PIECES, SMALL_BUFFERS, Call, take_apart

__all__ = ["play"]

TIMEOUT = 0.002  # seconds of silence
LIMIT = 30.0  # seconds after which something hangs
MOST_TOKENS = 50

LARGE = b"x" * 70_000  # A command of more than one token.

_fake = ctypes.CDLL(None)
_fake.fake_begin.argtypes = [
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.c_size_t,
]
_fake.fake_begin.restype = None
_fake.fake_pump.argtypes = [ctypes.c_size_t]


class Game:
    """One input, and the two ends of the socket pair."""

    def __init__(self, octets: bytes) -> None:
        self.mode, self.piece, self.calls, self.moments = take_apart(octets)
        self.here, self.there = socket.socketpair()
        self.handle = _remctl.remctl_new()
        _remctl.remctl_set_timeout(self.handle, TIMEOUT)

    def begin(self) -> None:
        """Start the peer."""
        if self.mode & SMALL_BUFFERS:
            self.there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            self.here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        lengths = (ctypes.c_size_t * len(self.moments))(*map(len, self.moments))
        octets = b"".join(self.moments)
        ends = self.there.fileno(), self.here.fileno()
        _fake.fake_begin(*ends, self.mode & 15, octets, lengths, len(self.moments))

    def end(self) -> None:
        """Close both ends."""
        _remctl.remctl_close(self.handle)
        self.here.close()
        self.there.close()


def play(octets: bytes) -> list[Any]:
    """Play an input, and return the result of each call."""
    before = _descriptors()
    game = Game(octets)
    try:
        with _pumping(game):
            game.begin()
            results = [_checked(game, _open)]
            results += [_checked(game, CALLS[call]) for call in game.calls]
    finally:
        game.end()
    handle = game.handle
    assert (handle.fd, handle.expecting, handle.closed) == (-1, False, True)
    del game, handle
    # An open that timed out may continue for a moment.
    assert wait_until(lambda: _fake.fake_end() == 0, LIMIT), "the GSS-API's objects are leaked"
    assert wait_until(lambda: _descriptors() == before, LIMIT), "a descriptor is leaked"
    return results


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def _pumping(game: Game) -> Iterator[None]:
    """Write the peer's data piece by piece in a thread, if the mode says so."""
    if not game.mode & PIECES:
        yield
        return
    ended = threading.Event()

    def pump() -> None:
        while not ended.is_set():
            _fake.fake_pump(game.piece)
            time.sleep(0.0002)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# The calls


def _open(game: Game) -> bool:
    principal = "p" if game.mode & BY_PRINCIPAL else None
    return _remctl.remctl_open(game.handle, "127.0.0.1", 1, principal)


def _command(game: Game) -> bool:
    return _remctl.remctl_commandv(game.handle, [b"a", b"\0"])


def _large_command(game: Game) -> bool:
    return _remctl.remctl_commandv(game.handle, [b"a", LARGE])


def _output(game: Game) -> tuple[Any, ...]:
    token = _remctl.remctl_output(game.handle)
    _check_token(token)
    return token


def _run(game: Game) -> list[Any]:
    if not _command(game):
        return []
    tokens = [_output(game)]
    while tokens[-1] and tokens[-1][0] == "output" and len(tokens) < MOST_TOKENS:
        tokens.append(_output(game))
    return tokens


def _noop(game: Game) -> bool:
    return _remctl.remctl_noop(game.handle)


def _error(game: Game) -> str:
    return _remctl.remctl_error(game.handle)


def _close(game: Game) -> None:
    _remctl.remctl_close(game.handle)
    game.handle = _remctl.remctl_new()
    _remctl.remctl_set_timeout(game.handle, TIMEOUT)


CALLS: dict[Call, Callable[[Game], Any]] = {
    Call.RUN: _run,
    Call.COMMAND: _command,
    Call.OUTPUT: _output,
    Call.NOOP: _noop,
    Call.LARGE_COMMAND: _large_command,
    Call.OPEN: _open,
    Call.ERROR: _error,
    Call.CLOSE: _close,
}


# Checks after each call


def _checked(game: Game, call: Callable[[Game], Any]) -> Any:
    start = time.monotonic()
    result = call(game)
    seconds = time.monotonic() - start
    handle = game.handle
    assert seconds < LIMIT, f"{call.__name__} took {seconds:.1f} seconds"
    assert handle.protocol in (0, 1, 2)
    assert handle.fd >= 0 or not handle.expecting or handle.protocol == 1
    if result is False or result == ():
        text = _remctl.remctl_error(handle)
        assert text, "a failure without a reason"
        assert text != "no error"
        kept = handle.errno in (errno.EBUSY, errno.EOPNOTSUPP)
        assert handle.fd < 0 or kept, f"a failure that keeps the connection: {text}"
    return result


def _check_token(token: tuple[Any, ...]) -> None:
    if not token:
        return
    kind, output, stream, status, code = token
    expected = {
        "output": isinstance(output, bytes) and stream in (1, 2),
        "status": output is None and isinstance(status, int) and 0 <= status <= 255,
        "error": isinstance(output, bytes) and isinstance(code, int) and 0 <= code < 2**32,
        "done": output is None,
    }
    assert expected[kind], token
    assert (stream is None) == (kind != "output"), token
    assert (status is None) == (kind != "status"), token
    assert (code is None) == (kind != "error"), token
