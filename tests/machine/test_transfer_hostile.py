"""Downloads from hostile hosts."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import remctl
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import answers, paths, sending
from remctl_toolkit.machine.files.answers import entries_below
from remctl_toolkit.machine.files.transfer import TransferError, download, fetch, put, upload
from remctl_toolkit.machine.plumbum.files import MachineFiles
from remctl_toolkit.machine.wire.both_frames import frame

pytestmark = pytest.mark.once

Frame = tuple[bytes, int, bytes]


def sent_by(stdout: Iterable[bytes], stderr: Iterable[bytes] = (), status: int = 0) -> Connection:
    """Return a connection to a host that always sends this reply."""

    def tokens() -> Iterator[remctl.RemctlOutput]:
        for number, pieces in ((1, stdout), (2, stderr)):
            for piece in pieces:
                yield remctl.RemctlOutput("output", piece, number, None, None)
        yield remctl.RemctlOutput("status", None, None, status, None)

    @contextlib.contextmanager
    def python_stream(
        program: str, payload: bytes = b"", *, label: str, timeout: object
    ) -> Iterator[Iterator[remctl.RemctlOutput]]:
        yield tokens()

    far = SimpleNamespace(home="/")
    fake = SimpleNamespace(host="evil.example.org", far=far, python_stream=python_stream)
    return cast("Connection", fake)


def encoded(*frames: Frame) -> list[bytes]:
    return [frame(*each) for each in frames]


def file(name: bytes, **wrong: int) -> list[Frame]:
    return file_of(name, b"evil", **wrong)


def file_of(name: bytes, octets: bytes, **wrong: int) -> list[Frame]:
    length = wrong.get("length", len(octets))
    crc = wrong.get("crc", zlib.crc32(octets))
    mode = wrong.get("mode", 0o644)
    return [(b"f", 0, name), (b"b", crc, octets), (b"c", mode, b"%d 0 0" % length)]


def folder(name: bytes, mode: int = 0o755) -> Frame:
    return b"d", mode, name


UP = (b"u", 0o755, b"0 0")
END = (b"z", 0, b"")


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
        "link": [(b"l", 0, b"0 0 %b\0/etc" % name)],
    }[kind]
    far = sent_by(encoded(folder(b"."), *entry, UP, END))
    with pytest.raises(
        TransferError, match=r"malformed reply from evil.example.org to a file transfer"
    ):
        download(far, "/tree", inside)


@pytest.mark.parametrize("target", ["outside", "victim"])
def test_links_that_it_sent_are_not_followed(inside: Path, target: str) -> None:
    link = (b"l", 0, b"0 0 way\0" + os.fsencode(inside.parent / target))
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
    with pytest.raises(TransferError, match="second top-level entry"):
        download(far, "/file", inside)


def test_no_set_user_id(inside: Path) -> None:
    download(sent_by(encoded(*file(b".", mode=0o6755), END)), "/file", inside)
    assert (inside / "file").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("wrong", [{"length": 3}, {"crc": 1}, {"length": -1}], ids=str)
def test_what_is_not_what_was_sent(inside: Path, wrong: dict[str, int]) -> None:
    (inside / "file").write_text("old")
    with pytest.raises(TransferError, match="data is corrupt"):
        download(sent_by(encoded(*file(b".", **wrong), END)), "/file", inside)
    assert (inside / "file").read_text() == "old"


@pytest.mark.parametrize(
    "frames",
    [
        [UP],
        [(b"b", 0, b"x")],
        [(b"c", 0o644, b"0 0 0")],
        [(b"a", 0, b"")],
        [(b"h", 0, b"1")],
        [(b"f", 0, b"."), (b"f", 0, b".")],
        [(b"f", 0, b"."), folder(b"x")],
        [(b"f", 0, b"."), END],
        [(b"f", 0, b"."), (b"h", 0, b"-5")],
        [(b"f", 0, b"."), (b"h", 0, b"9" * 30)],
        [(b"f", 0, b"."), (b"c", 0o644, b"0 0 %d" % 10**40)],
        [(b"f", 0, b"."), (b"c", 0, b"nonsense")],
        [(b"f", 0, b"."), (b"c", 0, b"0 0")],
        [(b"f", 0, b"."), (b"c", 0, b"9" * 10_000)],
        [folder(b"."), END],
        [END],
        [folder(b"."), (b"u", 0, b"")],
        [folder(b"."), (b"l", 0, b"0 0 name-without-target")],
        [(b"?", 0, b"")],
        [(b"\0", 0, b"")],
        [(b"t", 0, b"many")],
        [(b"x", 0, b"nonsense")],
        [(b"e", 0, b"nonsense")],
    ],
    ids=repr,
)
def test_frames_out_of_turn(inside: Path, frames: list[Frame]) -> None:
    with pytest.raises(TransferError, match=r"malformed reply from evil.example.org"):
        download(sent_by(encoded(*frames)), "/top", inside)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([*file(b"."), END, (b"x", 0, b"ENOENT text\0/path")], "after the end"),
        ([folder(b"."), *[folder(b"d")] * 300], "folders are nested too deep"),
        ([folder(b"."), UP, UP, END], ""),
    ],
    ids=["more", "deep", "up"],
)
def test_frames_that_do_not_end(inside: Path, frames: list[Frame], reason: str) -> None:
    with pytest.raises(TransferError, match=f"malformed reply from evil.example.org .*{reason}"):
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
    with pytest.raises(TransferError, match=r"status 137, '  Killed\\x1b"):
        download(far, "/top", inside)
    assert not (inside / "top/a").exists() or cut > 75


def test_memory_is_bounded(inside: Path) -> None:
    piece = b"y" * 65536

    def much() -> Iterable[bytes]:
        yield from encoded(folder(b"."), (b"f", 0, b"big"))
        yield from encoded((b"b", zlib.crc32(piece), piece)) * 1000
        yield from encoded((b"a", 0, b""))
        yield from encoded((b"x", 0, b"ENOENT text\0/path" + piece[:1000])) * 5000
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
    far = sent_by([b"l" + bytes(4) + (1 << 30).to_bytes(4, "big"), b"x" * 1000])
    with pytest.raises(TransferError, match="does not begin a frame"):
        download(far, "/top", inside)


def test_errors_are_shown_without_tricks(inside: Path) -> None:
    far = sent_by(encoded((b"e", 0, b"ENOSPC \x1b[2J" + b"x" * 1000 + b"\0/a\x1b")))
    with pytest.raises(
        OSError, match=r"\\x1b\[2Jx{10,200} \(on evil.example.org\): '/a\\x1b'"
    ) as caught:
        download(far, "/top", inside)
    assert len(str(caught.value)) < 400
    with pytest.raises(OSError, match="Errno 5"):
        download(sent_by(encoded((b"e", 0, b"error \0/a"))), "/top", inside)


HOLE = [(b"f", 0, b"."), (b"h", 0, b"1000"), (b"c", 0o644, b"1000 0 0")]


@pytest.mark.parametrize("frames", [[folder(b"."), UP], HOLE], ids=["folder", "hole"])
def test_fetch_takes_a_file_only(inside: Path, frames: list[Frame]) -> None:
    with pytest.raises((TransferError, IsADirectoryError)):
        fetch(sent_by(encoded(*frames, END)), "/file", inside / "file")
    assert os.listdir(inside) == []


# -- Answers --------------------------------------------------------------------------------------

ANSWERS = [
    b"",
    b"nonsense",
    b"\xff" * 100,
    frame(b"z")[:-1],
    frame(b"z"),
    frame(b"z", 1),
    frame(b"e", 0, b"ENOENT"),
    frame(b"m", 0, b"\xff"),
    frame(b"b", 0, b"x"),
    frame(b"z", 0, b"1 2 3") + frame(b"z", 0, b"1 2 3"),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_are_none(inside: Path, answer: bytes) -> None:
    with pytest.raises(TransferError, match=r"malformed reply from evil.example.org"):
        upload(sent_by([answer]), "/etc/passwd", "/x")
    with pytest.raises(TransferError, match=r"malformed reply from evil.example.org"):
        put(sent_by([answer]), "/etc/passwd", "/x")


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_about_files_that_are_none(inside: Path, answer: bytes) -> None:
    for mode in ("r", "a", "r+"):
        with pytest.raises(TransferError, match=r"malformed reply from evil.example.org"):
            paths.open(sent_by([answer]), "/x", mode)
    with pytest.raises(TransferError, match=r"malformed reply from evil.example.org"):
        paths.read(sent_by([answer], [answer], 3), "/x")


@pytest.mark.parametrize("answer", [b"", b"-1 2 3", b"1 2", b"9" * 5000 + b" 2 3", b"1 2 3 4"])
def test_sizes_that_are_none(inside: Path, answer: bytes) -> None:
    with pytest.raises(TransferError, match="unexpected result"):
        paths.open(sent_by(encoded((b"z", 0, answer))), "/x")


def test_answers_are_bounded(inside: Path) -> None:
    with pytest.raises(TransferError, match="does not begin a frame"):
        upload(sent_by([b"x" * 65536] * 100), "/etc/passwd", "/x")
    octets = encoded((b"b", zlib.crc32(b"x" * 11), b"x" * 11), (b"z", 0, b"11 2 3"))
    far = paths._RemoteFile(sent_by(octets), "/x", None)
    with pytest.raises(TransferError, match="more data than requested"):
        far.use("r", read=10)
    wrong = encoded((b"b", 1, b"x"), (b"z", 0, b"1 2 3"))
    with pytest.raises(TransferError, match="data is corrupt"):
        paths.read(sent_by(wrong), "/x")


def test_pieces_of_one_octet_cost_no_more_than_their_number(inside: Path) -> None:
    """The square of it would take minutes."""
    number = 200_000
    octets = [frame(b"b", zlib.crc32(b"x"), b"x") * number, frame(b"z", 0, b"1 2 3")]
    far = paths._RemoteFile(sent_by(octets), "/x", None)
    assert far.use("r", read=number) == (b"x" * number, 1, (2, 3))


def test_who_says_something_for_ever(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STARTS_AND_ENDS", 0.0)
    half = encoded((b"f", 0, b"."))[0][:3]
    for far in (sent_by([half], itertools.repeat(b".")), sent_by(itertools.repeat(b""))):
        with pytest.raises(remctl.RemctlTimeoutError, match=r"evil\.example\.org"):
            download(far, "/file", inside, timeout=0.01)
        with pytest.raises(remctl.RemctlTimeoutError, match=r"evil\.example\.org"):
            upload(far, "/etc/passwd", "/x", timeout=0.01)


# -- Names that plumbum's paths get ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "x/../..", "/x", "x//y", "x/", "a/./b", "/etc/passwd"],
)
def test_names_that_are_found(name: str) -> None:
    far = sent_by([])
    for folder_name in ("/home/a", "/home/a/"):
        with pytest.raises(TransferError, match=r"evil.example.org .* not a valid file name"):
            entries_below(far, folder_name, f"/home/a/ok\0/home/a/{name}\0", deep=True)
    with pytest.raises(TransferError, match=r"evil.example.org .* not a valid file name"):
        entries_below(far, "/", f"/{name}\0", deep=True)


@pytest.mark.parametrize("found", ["/home/ab/x\0", "/home/a\0", "x\0", "/etc/passwd\0", "\0"])
def test_what_is_found_elsewhere(found: str) -> None:
    with pytest.raises(TransferError, match=r"evil.example.org .* is not in /home/a"):
        entries_below(sent_by([]), "/home/a", found, deep=True)


def test_what_is_found_has_an_end() -> None:
    found = "/home/a/x\0/home/a/y/z\0"
    assert entries_below(sent_by([]), "/home/a", "", deep=True) == []
    assert entries_below(sent_by([]), "/home/a", found, deep=True) == ["x", "y/z"]
    with pytest.raises(TransferError, match="incomplete path"):
        entries_below(sent_by([]), "/home/a", found[:-1], deep=True)


@pytest.mark.parametrize("name", ["../../evil", "x/y", "..", "/etc/evil"])
def test_paths_of_a_machine_that_lies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MachineFiles()
    files.connection = sent_by([])
    answer = (0, f"/home/a/{name}\0", "")
    files._session = cast("Any", SimpleNamespace(run=lambda *_, **how: answer))
    with pytest.raises(TransferError, match=r"evil\.example\.org"):
        files._path_listdir("/home/a")
    if name != "x/y":
        with pytest.raises(TransferError, match=r"evil\.example\.org"):
            files._path_glob("/home/a", "**")


# -- The oldest remote Python ---------------------------------------------------------------------


def test_sources_need_nothing_of_the_package(inside: Path) -> None:
    for names in (("both_place", "both_send", "far_answer", "far_send"), sending._PROGRAM):
        source = answers.program_of(names)
        source.encode("ascii")
        done = subprocess.run(
            [sys.executable, "-IS", "-W", "error", "-"], input=source.encode(), capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
