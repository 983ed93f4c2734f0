"""Downloads from a far side that wants more than to be downloaded from."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import remctl
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import paths
from remctl_toolkit.machine.files.both_send import header
from remctl_toolkit.machine.files.transfer import TransferError, download, fetch, put, upload

pytestmark = pytest.mark.once

Frame = tuple[bytes, bytes]


def sent_by(stdout: Iterable[bytes], stderr: Iterable[bytes] = (), status: int = 0) -> Connection:
    """Return a connection to a far side that sends just this, whatever it is asked."""

    def python_run(
        program: str, payload: bytes = b"", *, label: str, timeout: object, **files: Any
    ) -> remctl.RemctlSimpleResult:
        for piece in stdout:
            files["stdout"].write(piece)
        for piece in stderr:
            files["stderr"].write(piece)
        return remctl.RemctlSimpleResult(status=status)

    far = SimpleNamespace(home="/")
    fake = SimpleNamespace(host="evil.example.org", far=far, python_run=python_run)
    return cast("Connection", fake)


def encoded(*frames: Frame) -> list[bytes]:
    return [header(kind, len(body)) + body for kind, body in frames]


def file(name: bytes, **wrong: int) -> list[Frame]:
    return file_of(name, b"evil", **wrong)


def file_of(name: bytes, octets: bytes, **wrong: int) -> list[Frame]:
    length = wrong.get("length", len(octets))
    crc = wrong.get("crc", zlib.crc32(octets))
    mode = wrong.get("mode", 0o644)
    return [(b"f", name), (b"b", octets), (b"c", b"%d %d %o 0 0" % (length, crc, mode))]


def folder(name: bytes) -> Frame:
    return b"d", b"755 " + name


UP = (b"u", b"755 0 0")
END = (b"z", b"")


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The destination; around it nothing may change."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "victim").write_text("intact")
    (tmp_path / "outside").mkdir()
    return tmp_path / "inside"


@pytest.fixture(autouse=True)
def around(inside: Path) -> Any:
    yield
    assert sorted(os.listdir(inside.parent)) == ["inside", "outside", "victim"]
    assert (inside.parent / "victim").read_text() == "intact"
    assert os.listdir(inside.parent / "outside") == []
    for _, _, names in os.walk(inside):
        assert not [name for name in names if name.startswith(".remctl-")]


BAD_NAMES = [b"../victim", b"..", b".", b"", b"/etc/evil", b"a/b", b"../outside/x", b"a\0b", b"x/"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_names_that_lead_elsewhere(inside: Path, name: bytes, kind: str) -> None:
    entry = {
        "file": file(name),
        "folder": [folder(name), UP],
        "link": [(b"l", b"0 0 %b\0/etc" % name)],
    }[kind]
    far = sent_by(encoded(folder(b"."), *entry, UP, END))
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer .* as it must"):
        download(far, "/tree", inside)


@pytest.mark.parametrize("target", ["outside", "victim"])
def test_links_that_it_sent_are_not_followed(inside: Path, target: str) -> None:
    link = (b"l", b"0 0 way\0" + os.fsencode(inside.parent / target))
    into = [folder(b"way"), *file(b"x"), UP]
    with pytest.raises(NotADirectoryError, match="is not followed"):
        download(sent_by(encoded(folder(b"."), link, *into, UP, END)), "/tree", inside)
    # Nor those that it sent the time before; as the top, too.
    with pytest.raises(NotADirectoryError, match="is not followed"):
        download(sent_by(encoded(folder(b"."), *into, UP, END)), "/tree", inside)
    with pytest.raises(NotADirectoryError, match="is not followed"):
        download(sent_by(encoded(*into, END)), "/way", inside / "tree")
    download(sent_by(encoded(folder(b"."), *file(b"way"), UP, END)), "/tree", inside)
    assert (inside / "tree/way").read_bytes() == b"evil"
    assert not (inside / "tree/way").is_symlink()


def test_the_top_is_called_what_we_call_it(inside: Path) -> None:
    download(sent_by(encoded(*file(b"../victim"), END)), "/file", inside)
    assert os.listdir(inside) == ["file"]


def test_no_more_than_one_top(inside: Path) -> None:
    far = sent_by(encoded(*file(b"a"), *file(b"b"), END))
    with pytest.raises(TransferError, match="second top"):
        download(far, "/file", inside)


def test_no_set_user_id(inside: Path) -> None:
    download(sent_by(encoded(*file(b".", mode=0o6755), END)), "/file", inside)
    assert (inside / "file").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "wrong", [{"length": 3}, {"crc": 1}, {"length": -1}, {"crc": 1 << 40}], ids=str
)
def test_what_is_not_what_was_sent(inside: Path, wrong: dict[str, int]) -> None:
    (inside / "file").write_text("old")
    with pytest.raises(TransferError, match="is not what was sent"):
        download(sent_by(encoded(*file(b".", **wrong), END)), "/file", inside)
    assert (inside / "file").read_text() == "old"


@pytest.mark.parametrize(
    "frames",
    [
        [UP],
        [(b"b", b"x")],
        [(b"c", b"0 0 644 0 0")],
        [(b"a", b"")],
        [(b"h", b"1")],
        [(b"f", b"."), (b"f", b".")],
        [(b"f", b"."), folder(b"x")],
        [(b"f", b"."), END],
        [(b"f", b"."), (b"h", b"-5")],
        [(b"f", b"."), (b"h", b"9" * 30)],
        [(b"f", b"."), (b"c", b"0 0 644 0 %d" % 10**40)],
        [(b"f", b"."), (b"c", b"nonsense")],
        [(b"f", b"."), (b"c", b"9" * 10_000)],
        [folder(b"."), END],
        [(b"d", b"x")],
        [(b"d", b"\xff\xfe .")],
        [folder(b"."), (b"l", b"0 0 name-without-target")],
        [(b"?", b"")],
        [(b"\0", b"")],
        [(b"t", b"many")],
        [(b"x", b"nonsense")],
        [(b"e", b"nonsense")],
    ],
    ids=repr,
)
def test_frames_out_of_turn(inside: Path, frames: list[Frame]) -> None:
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
        download(sent_by(encoded(*frames)), "/top", inside)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([*file(b"."), END, (b"x", b"ENOENT text\0/path")], "after the end"),
        ([folder(b"."), *[folder(b"d")] * 300], "too many folders"),
        ([folder(b"."), UP, UP, END], ""),
    ],
    ids=["more", "deep", "up"],
)
def test_frames_that_do_not_end(inside: Path, frames: list[Frame], reason: str) -> None:
    with pytest.raises(TransferError, match=f"evil.example.org does not transfer .*{reason}"):
        download(sent_by(encoded(*frames)), "/top", inside)


def test_every_way_of_cutting_is_the_same(inside: Path) -> None:
    whole = b"".join(
        encoded(folder(b"."), *file_of(b"a", b"x" * 300), *file_of(b"b", b""), UP, END)
    )
    for size in (1, 2, 3, 4, 5, 6, 7, 100, len(whole)):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        download(sent_by(pieces), "/top", inside)
        assert (inside / "top/a").read_bytes() == b"x" * 300


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_an_end_before_the_end(inside: Path, cut: int) -> None:
    whole = b"".join(encoded(folder(b"."), *file_of(b"a", b"x" * 40), UP, END))
    far = sent_by([whole[:cut]], [b"Traceback:\n", b"  Killed\x1b[2J\n"], 137)
    with pytest.raises(TransferError, match=r"status 137, and '  Killed\\x1b"):
        download(far, "/top", inside)
    assert not (inside / "top/a").exists() or cut > 75


def test_memory_is_bounded(inside: Path) -> None:
    piece = b"y" * 65536

    def much() -> Iterable[bytes]:
        yield from encoded(folder(b"."), (b"f", b"big"))
        yield header(b"b", 1000 * len(piece))
        yield from [piece] * 1000
        yield from encoded((b"a", b""))
        yield from encoded((b"x", b"ENOENT text\0/path" + piece[:1000])) * 5000
        yield from encoded(UP, END)

    far = sent_by(much(), [piece] * 500)
    tracemalloc.start()
    try:
        with pytest.raises(TransferError, match="and 4999 more") as caught:
            download(far, "/top", inside)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(caught.value.left_out) == 100
    assert peak < 4_000_000


def test_a_frame_that_would_fill_memory(inside: Path) -> None:
    far = sent_by([header(b"l", 1 << 30), b"x" * 1000])
    with pytest.raises(TransferError, match="too long"):
        download(far, "/top", inside)


def test_errors_are_shown_without_tricks(inside: Path) -> None:
    far = sent_by(encoded((b"e", b"ENOSPC \x1b[2J" + b"x" * 1000 + b"\0/a\x1b")))
    with pytest.raises(
        OSError, match=r"\\x1b\[2Jx{10,200} \(on evil.example.org\): '/a\\x1b'"
    ) as caught:
        download(far, "/top", inside)
    assert len(str(caught.value)) < 400
    with pytest.raises(OSError, match="Errno 5"):
        download(sent_by(encoded((b"e", b"error \0/a"))), "/top", inside)


HOLE = [(b"f", b"."), (b"h", b"1000"), (b"c", b"1000 0 644 0 0")]


@pytest.mark.parametrize("frames", [[folder(b"."), UP], HOLE], ids=["folder", "hole"])
def test_fetch_takes_a_file_only(inside: Path, frames: list[Frame]) -> None:
    with pytest.raises((TransferError, IsADirectoryError)):
        fetch(sent_by(encoded(*frames, END)), "/file", inside / "file")
    assert os.listdir(inside) == []


# -- Answers --------------------------------------------------------------------------------------

ANSWERS = [
    b"",
    b"nonsense",
    b"\xff",
    b"[]",
    b"{}",
    b"(" * 5000,
    b"{[]: 1}",
    b"__import__('os').mkdir('evil')",
    b"{'state': None, 'parent': 1, 'name': b''}",
    b"{'error': 1}",
    b"{'error': ('ENOENT', 'x', 3)}",
    b"{'malformed': 'x'}",
    b"{'size': 'x', 'file': 'x', 'path': 'x', 'final': 3}",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_are_none(inside: Path, answer: bytes) -> None:
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
        upload(sent_by([answer]), "/etc/passwd", "/x")
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
        put(sent_by([answer]), "/etc/passwd", "/x")


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_about_files_that_are_none(inside: Path, answer: bytes) -> None:
    for mode in ("r", "w", "a"):
        with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
            paths.open(sent_by([answer]), "/x", mode)
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
        paths.read(sent_by([answer], [answer], 3), "/x")
    with pytest.raises(TransferError, match=r"evil.example.org does not transfer"):
        paths.read(sent_by([answer]), "/x")


def test_answers_are_bounded(inside: Path) -> None:
    with pytest.raises(TransferError, match="more than was asked for"):
        upload(sent_by([b"x" * 65536] * 100), "/etc/passwd", "/x")


# -- The oldest Python of a far side --------------------------------------------------------------


def test_sources_need_nothing_of_the_package(inside: Path) -> None:
    folder = Path(paths.__file__).parent
    for name in ("far_files", "far_piece", "both_send", "both_receive"):
        source = (folder / f"{name}.py").read_text("ascii")
        done = subprocess.run(
            [sys.executable, "-IS", "-W", "error", "-"], input=source.encode(), capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
