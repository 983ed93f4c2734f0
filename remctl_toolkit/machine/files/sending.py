"""Send the frames of an upload: as one command, or through a channel if they are many."""

from __future__ import annotations

import contextlib
import itertools
import marshal
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeAlias

import remctl
from _remctl_text import printable

from ..base.connection import STARTS_AND_ENDS, Connection
from ..channel.channel import Channel, ChannelError
from ..wire.both_frames import frame
from .answers import Reply, ask, malformed, program_of

__all__ = ["Frame", "send"]

Frame: TypeAlias = tuple[bytes, int, bytes]

_BATCH = 8 << 20  # octets sent by one command; the server needs three times the memory
_PIECE = 1 << 20
_PATIENCE = 60.0  # seconds without a heartbeat, if there is no timeout

_PROGRAM = ("both_place", "both_receive", "far_answer", "far_receive")


def _pieces(frames: Iterable[Frame], size: int) -> Iterator[tuple[bytes, int]]:
    """Join frames to pieces; yield each with the octets of files in it, holes included."""
    waiting, contents = bytearray(), 0
    for letter, number, octets in frames:
        waiting += frame(letter, number, octets)
        contents += len(octets) if letter == b"b" else int(octets) if letter == b"h" else 0
        if len(waiting) >= size:
            yield bytes(waiting), contents
            waiting, contents = bytearray(), 0
    yield bytes(waiting) + frame(b"z"), contents


@contextlib.contextmanager
def _noting_rest(host: str, part: str) -> Generator[None]:
    """Add a note about the temporary file to errors of a host that does not answer."""
    try:
        yield
    except (ChannelError, TimeoutError) as error:
        failure: Exception = error
        if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
            failure = late = remctl.RemctlTimeoutError(f"{host} did not take the upload in time")
            late.host = host
        failure.add_note(printable(f"a temporary file {part} may be left on {host}"))
        raise failure from error


def _stream(
    connection: Connection,
    spec: tuple[Any, ...],
    pieces: Iterable[tuple[bytes, int]],
    timeout: float | None,
    done: Callable[[int], object],
    part: str,
) -> tuple[int, bytes]:
    """Send pieces through a channel; return the reply."""
    limit = None if timeout is None else timeout + STARTS_AND_ENDS
    patience = limit or _PATIENCE
    program = f"{program_of(_PROGRAM)}import marshal\nreceive(*marshal.loads(payload))\n"
    with _noting_rest(connection.host, part):
        channel = Channel(
            connection,
            source=program,
            payload=marshal.dumps(spec),
            label="upload",
            beat=min(2.0, patience / 2),
            patience=patience,
        )
    with channel:
        for octets, contents in pieces:
            try:
                with _noting_rest(connection.host, part):
                    channel.write(octets, limit)
            except BrokenPipeError:  # The reply has the reason.
                break
            except (ChannelError, TimeoutError):
                channel.drop()  # Closing would wait for the silent host.
                raise
            done(contents)
        reply = Reply(connection)
        with _noting_rest(connection.host, part):
            status = channel.wait(limit)
            while octets := channel.read(timeout=limit):
                reply.write(octets)
            reply.errors.write(channel.read_stderr(timeout=limit))
    return reply.result(status)


def send(
    connection: Connection,
    destination: bytes,
    name: str,
    frames: Iterable[Frame],
    *,
    timeout: float | None,
    done: Callable[[int], object] = lambda octets: None,
    replaces: tuple[bool, int | None] | None = None,
) -> str:
    """Send frames; return the path of the copy.

    Args:
        destination: a folder, or the path of the copy.
        name: the name of the copy in a folder.
        timeout: see `ask()`.
        done: called with octets of files that were sent, holes included; in the end, with 0.
        replaces: for a file that keeps the owner of an existing one: whether it must not exist, and
            its mode, or None to keep the mode.

    Raises:
        OSError, TransferError, RemctlError: see `ask()`; and what `frames` and `done` raise.
    """
    token = secrets.token_hex(8)
    spec = (destination, os.fsencode(name), token, replaces)
    size = min(_BATCH, _PIECE)
    pieces = _pieces(frames, size)
    first = list(itertools.islice(pieces, _BATCH // size))
    following = next(pieces, None)
    if following is None:
        payload = b"".join(octets for octets, _ in first)
        call = f"receive{spec!a}"
        into, said = ask(connection, _PROGRAM, call, payload, label="upload", timeout=timeout)
        done(sum(contents for _, contents in first))
    else:
        rest = itertools.chain(first, [following], pieces)
        into, said = _stream(connection, spec, rest, timeout, done, f".remctl-{token}.part")
        done(0)
    if said != b"complete":
        raise malformed(connection, "unexpected result")
    path = os.fsdecode(destination)
    return os.path.normpath(os.path.join(path, name) if into else path)
