"""Read, write, append to and open files of the remote host."""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import paths

pytestmark = pytest.mark.once

OCTETS = bytes(range(256)) * 100


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "a b'\n").mkdir()
    return tmp_path / "a b'\n" / "file"


def left(place: Path) -> list[str]:
    return sorted(os.listdir(place.parent))


# -- Whole files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", b"\0\xff\n", OCTETS, b"x" * 9_000_000], ids=len)
def test_write_and_read(connection: Connection, place: Path, octets: bytes) -> None:
    paths.write(connection, place, octets)
    assert place.read_bytes() == octets
    assert paths.read(connection, place) == octets
    assert left(place) == ["file"]


def test_write_replaces_and_keeps_the_mode(connection: Connection, place: Path) -> None:
    place.write_text("old")
    place.chmod(0o604)
    with place.open() as old:
        paths.write(connection, place, b"new")
        assert old.read() == "old"
    assert place.stat().st_mode & 0o777 == 0o604
    paths.write(connection, place, b"newer", mode=0o640)
    assert place.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own what is somebody else's")
def test_write_keeps_the_owner(connection: Connection, place: Path) -> None:
    place.write_text("old")
    os.chown(place, 12345, 54321)
    paths.write(connection, place, b"new")
    assert (place.stat().st_uid, place.stat().st_gid) == (12345, 54321)


def test_write_through_a_link_and_to_all_names(connection: Connection, place: Path) -> None:
    place.write_text("old")
    place.with_name("link").symlink_to("file")
    paths.write(connection, place.with_name("link"), b"new")
    assert place.with_name("link").is_symlink()
    assert place.read_text() == "new"
    place.with_name("other").hardlink_to(place)
    paths.write(connection, place, b"newer")
    assert place.with_name("other").read_text() == "newer"


def test_devices_and_proc(connection: Connection) -> None:
    paths.write(connection, "/dev/null", b"x")
    assert paths.read(connection, "/dev/null") == b""
    assert b"Pid:" in paths.read(connection, "/proc/self/status")
    with paths.open(connection, "/dev/null", "w") as file:
        file.write("x")
    # No file can be created in its directory.
    paths.write(connection, "/proc/self/comm", b"changed")


def test_append(connection: Connection, place: Path) -> None:
    paths.append(connection, place, b"a")
    paths.append(connection, place, b"")
    paths.append(connection, place, b"b" * 9_000_000)
    assert place.read_bytes() == b"a" + b"b" * 9_000_000


def test_what_cannot_be_read(connection: Connection, place: Path) -> None:
    for action in (paths.read, paths.open):
        with pytest.raises(FileNotFoundError, match=f"on {connection.host}") as caught:
            action(connection, place)
        assert caught.value.filename == str(place)
        with pytest.raises(IsADirectoryError):
            action(connection, place.parent)


@pytest.mark.parametrize("size", [1, 9_000_000])
def test_what_cannot_be_written(connection: Connection, place: Path, size: int) -> None:
    with pytest.raises(FileNotFoundError, match="make it first"):
        paths.write(connection, place / "x", b"x" * size)
    with pytest.raises(IsADirectoryError):
        paths.write(connection, place.parent, b"x" * size)
    with pytest.raises(OSError, match="No space left") as caught:
        paths.write(connection, "/dev/full", b"x" * size)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == "/dev/full"


# -- Open files -----------------------------------------------------------------------------------


def test_the_modes_of_open_as_those_of_the_builtin(connection: Connection, tmp_path: Path) -> None:
    def use(opened: Callable[..., Any], path: Path, mode: str) -> object:
        path.unlink(missing_ok=True)
        if "x" not in mode:
            path.write_bytes(b"0123456789")
        try:
            with opened(path, mode) as file:
                done = [file.readable(), file.writable(), file.tell()]
                if file.writable():
                    file.write(b"ab")
                    file.seek(4)
                    file.write(b"cd")
                    done.append(file.tell())
                if file.readable():
                    file.seek(-3, os.SEEK_END)
                    done += [file.read(), file.tell(), file.seek(1), file.read(2)]
                if file.writable() and "a" not in mode:
                    done.append(file.truncate(5))
        except OSError as error:
            return type(error), error.errno
        return done, path.read_bytes()

    for kind in "rwax":
        for plus in ("", "+"):
            mode = f"{kind}{plus}b"
            expected = use(open, tmp_path / "here", mode)
            found = use(lambda *how: paths.open(connection, *how), tmp_path / "there", mode)
            assert (mode, found) == (mode, expected)


def test_random_reads_and_writes(connection: Connection, place: Path) -> None:
    place.write_bytes(OCTETS)
    chance = random.Random(1)
    with paths.open(connection, place, "r+b", 4096) as far, io.BytesIO(OCTETS) as here:
        for _ in range(40):
            at = chance.randrange(len(OCTETS))
            assert far.seek(at) == here.seek(at)
            if chance.random() < 0.4:
                octets = chance.randbytes(chance.randrange(3000))
                assert far.write(octets) == here.write(octets)
            else:
                size = chance.randrange(3000)
                assert far.read(size) == here.read(size)
        far.flush()
        assert place.read_bytes() == here.getvalue()


def test_text(connection: Connection, place: Path) -> None:
    with paths.open(connection, place, "w") as file:
        file.write("één\nzwei\n")
        print("three", file=file)
    assert place.read_text("utf-8") == "één\nzwei\nthree\n"
    with paths.open(connection, place) as file:
        assert list(file) == ["één\n", "zwei\n", "three\n"]
    with paths.open(connection, place, "a", encoding="latin-1", newline="\r\n") as file:
        file.write("ö\n")
    assert place.read_bytes().endswith(b"three\n\xf6\r\n")
    with paths.open(connection, place, errors="replace") as file:
        assert file.read().endswith("\ufffd\n")


def test_what_is_written_is_seen_when_it_is_closed(connection: Connection, place: Path) -> None:
    place.write_text("old")
    with paths.open(connection, place, "w") as file:
        file.write("new" * 1_000_000)
        file.flush()
        assert place.read_text() == "old"
        assert left(place) == ["file"]
    assert place.read_text() == "new" * 1_000_000
    assert left(place) == ["file"]


@pytest.mark.parametrize("mode", ["w", "wb", "w+", "w+b", "x"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_the_old_file(
    connection: Connection, place: Path, mode: str, error: type[BaseException]
) -> None:
    if mode != "x":
        place.write_text("old")
    before = left(place)
    file = paths.open(connection, place, mode)

    def fail() -> None:
        with file:
            file.write(b"new" if "b" in mode else "new")
            raise error

    with pytest.raises(error):
        fail()
    assert file.closed
    assert left(place) == before
    assert mode == "x" or place.read_text() == "old"


def test_an_error_when_it_is_written_leaves_the_old_file(
    connection: Connection, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_text("old")
    really = connection.python_stream

    def failing(program: str, payload: bytes = b"", *, label: str, **how: Any) -> Any:
        if label == "upload":
            raise OSError(errno.EIO, "lost")
        return really(program, payload, label=label, **how)

    monkeypatch.setattr(connection, "python_stream", failing)
    file = paths.open(connection, place, "wb")
    file.write(b"new")
    with pytest.raises(OSError, match="lost"):
        file.close()
    assert place.read_text() == "old"
    assert left(place) == ["file"]


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_that_nobody_closes_is_not_sent(
    connection: Connection, place: Path, monkeypatch: pytest.MonkeyPatch, buffering: int
) -> None:
    place.write_text("old")
    file = paths.open(connection, place, "wb", buffering)
    file.write(b"new")
    monkeypatch.setattr(connection, "python_stream", lambda *_, **how: pytest.fail("sent"))
    with pytest.warns(ResourceWarning, match="nothing was written"):
        del file
    assert place.read_text() == "old"


def test_exclusive(connection: Connection, place: Path) -> None:
    file = paths.open(connection, place, "x")
    file.write("mine")
    place.write_text("theirs")
    with pytest.raises(FileExistsError):
        file.close()
    with pytest.raises(FileExistsError):
        paths.open(connection, place, "x")
    assert place.read_text() == "theirs"
    assert left(place) == ["file"]


def test_a_file_that_is_replaced_while_it_is_read(connection: Connection, place: Path) -> None:
    place.write_bytes(b"a" * 100)
    with paths.open(connection, place, "rb", 10) as file:
        assert file.read(10) == b"a" * 10
        place.with_name("new").write_bytes(b"b" * 100)
        place.with_name("new").rename(place)
        with pytest.raises(OSError, match="replaced by another") as caught:
            file.read(10)
    assert caught.value.errno == errno.ESTALE


def test_without_a_buffer(connection: Connection, place: Path) -> None:
    with paths.open(connection, place, "wb", 0) as file:
        assert file.write(b"x" * 8_388_609) == 8_388_609
        with pytest.raises(io.UnsupportedOperation, match="not open for reading"):
            file.read(1)
    with paths.open(connection, place, "rb", 0) as file:
        assert len(file.read(9_000_000)) == 8 << 20
        assert file.read(10) == b"x"
        assert file.seek(-2, os.SEEK_CUR) == (8 << 20) - 1
        assert file.read() == b"xx"
        with pytest.raises(io.UnsupportedOperation, match="not open for writing"):
            file.write(b"x")
        with pytest.raises(ValueError, match="cannot be negative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="was closed"):
        file.read(1)
    file.close()


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("", {}),
        ("rw", {}),
        ("rr", {}),
        ("bt", {}),
        ("rbt", {}),
        ("q", {}),
        ("rb", {"encoding": "utf-8"}),
        ("rb", {"errors": "strict"}),
        ("rb", {"newline": "\n"}),
        ("r", {"buffering": 0}),
    ],
)
def test_modes_that_are_none(connection: Connection, mode: str, how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mode must|binary file takes neither|must be buffered"):
        paths.open(connection, "/etc/passwd", mode, **how)
