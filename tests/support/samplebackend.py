"""A backend with a command for each kind of input and output; remctld runs it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from remctl_toolkit.backend import Backend, CommandError, Context, Matches

backend = Backend("sample", "What the tests ask for.", acl="ANYUSER")


@backend.command()
def octets(*parts: bytes) -> str:
    """Show arguments as they came."""
    return repr(list(parts))


@backend.command()
def echo(text: str) -> str:
    """Write text back."""
    return text


@backend.command()
def name(who: Annotated[str, Matches("[a-z]+", "a name")], size: int = 0) -> str:
    """Take a name and a number."""
    return f"{who} {size}"


@backend.command()
def option(word: str = "", *, force: bool = False, unit: str = "GB") -> str:
    """Take options."""
    return f"{word} {force} {unit}"


@backend.command(stdin="data")
def save(where: str, data: bytes) -> str:
    """Take data."""
    return f"{where} {len(data)} {data[:8]!r}"


@backend.command(stdin="data")
def swap(data: str, where: str) -> str:
    """Take data in the middle."""
    return f"{where} {len(data)}"


@backend.command(stdin="data")
def last(data: bytes, *, force: bool = False) -> str:
    """Take data after options."""
    return f"{len(data)} {force}"


@backend.command(stdin="number")
def count(number: int) -> str:
    """Take a number on standard input."""
    return str(number)


@backend.command(logmask=["password"])
def login(user: str, password: str) -> int:
    """Fail, with a secret."""
    raise RuntimeError(f"no way in for {user} with {password}")


@backend.command()
def who(context: Context) -> Iterator[str]:
    """Tell who calls."""
    yield f"{context.user} {context.address} {context.command} {' '.join(context.path)}"
    yield str(context.expires)


@backend.command()
def admin(context: Context) -> str:
    """Let administrators in only."""
    context.require(realm="REMCTL.TEST", instance="admin")
    return "welcome"


@backend.command()
def status(number: int) -> int:
    """End with a status."""
    return number


@backend.command()
def fail(text: str) -> None:
    """Fail with a message."""
    raise CommandError(text, status=3)


@backend.command()
def ticks(fifo: Path) -> Iterator[str]:
    """Write a line, and the next one when told to."""
    yield "first"
    fifo.read_bytes()
    yield "second"


@backend.command()
def printed(fifo: Path) -> None:
    """Print a line, and the next one when told to."""
    print("first")
    fifo.read_bytes()
    print("second")


@backend.command()
def mixed() -> Iterator[str | bytes]:
    """Write in all ways."""
    print("one", end=" ")
    yield b"two "
    print("three", end=" ")
    sys.stdout.buffer.write(b"four ")
    yield "five"
    print("six", end="")


@backend.command()
def flood(pieces: int, progress: Path) -> Iterator[bytes]:
    """Write that many pieces of 64 KiB, and say how far it is."""
    with progress.open("wb", buffering=0) as file:
        for _ in range(pieces):
            yield bytes(65536)
            file.write(b".")


@backend.command()
def endless(marker: Path, *, by_print: bool = False) -> Iterator[bytes]:
    """Write until nobody reads, then leave the process number."""
    try:
        while True:
            if by_print:
                print("x" * 4000)
                continue
            yield b"x" * 4000
    finally:
        marker.write_text(f"{os.getpid()}\n")


@backend.command()
def closed() -> str:
    """Find standard output closed."""
    os.close(1)
    return "nobody will read this"


@backend.command()
def killed() -> None:
    """Die."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@backend.command()
def silent() -> None:
    """Say nothing."""


group = backend.group("note", "Notes.")


@group.command("put", stdin="text")
def put(title: str, text: str) -> str:
    """Write a note."""
    return f"put {title} {len(text)}"


@group.command("list")
def list_notes(*titles: str) -> str:
    """List notes."""
    return f"list {' '.join(titles)}"
