"""Large files, which travel in several commands, and who else may write where they are put."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.waiting import eventually

import remctl
from remctl_toolkit.machine import Connection, files
from remctl_toolkit.machine.base import connection as base
from remctl_toolkit.machine.files import both_send, sending
from remctl_toolkit.machine.files.transfer import TransferError, download, fetch, put, upload
from remctl_toolkit.testing import RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

SIZE = 8_000_000  # More than what may be on its way while progress is reported.
OLD = (1_000_000_000_123_456_789, 1_100_000_000_987_654_321)  # ns


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


# -- Whole uploads --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [0, 5_000_000], ids=["octets", "hole"])
def test_pieces_with_holes_between_them(connection: Connection, tmp_path: Path, end: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with here.open("wb") as file:
        for number in range(60):
            file.seek(number * 200_000)
            file.write(os.urandom(50_000 + number))
        file.truncate(file.tell() + end)
    here.chmod(0o640)
    os.utime(here, ns=OLD)
    calls: list[int] = []
    upload(connection, here, there, progress=lambda done, *_: calls.append(done))
    assert there.read_bytes() == here.read_bytes()
    status = there.stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, OLD[1])
    assert status.st_blocks <= here.stat().st_blocks + 8
    assert calls == sorted(calls)
    assert calls[-1] == here.stat().st_size


def test_a_large_file_in_folders_that_cannot_be_listed(
    connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/large").write_bytes(os.urandom(SIZE))
    (tmp_path / "folder/tree/sub").mkdir(parents=True)
    (tmp_path / "folder/tree/sub").chmod(0o300)
    upload(connection, tmp_path / "tree", tmp_path / "folder")
    (tmp_path / "folder/tree/sub").chmod(0o700)
    copy = tmp_path / "folder/tree/sub/large"
    assert copy.read_bytes() == (tmp_path / "tree/sub/large").read_bytes()


def test_sessions_are_given_back(connection: Connection, here: Path, folder: Path) -> None:
    for _ in range(2):
        upload(connection, here, folder)
        eventually(lambda: not connection._pool.stats.in_use)


def test_put_in_pieces(connection: Connection, here: Path, tmp_path: Path) -> None:
    assert put(connection, here, tmp_path / "there", mode=0o751)["size"] == SIZE
    assert (tmp_path / "there").read_bytes() == here.read_bytes()
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o751


def test_an_interrupted_upload_lets_its_sessions_go(
    connection: Connection, here: Path, folder: Path
) -> None:
    def interrupt(octets: int, total: int | None, path: str) -> None:
        if octets:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload(connection, here, folder, progress=interrupt)
    eventually(lambda: not connection._pool.stats.in_use)
    assert os.listdir(folder) == []


def test_a_piece_that_is_changed_on_its_way(
    connection: Connection, here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(both_send, "crc32", lambda octets: 1)
    with pytest.raises(TransferError, match="data is corrupt"):
        upload(connection, here, folder)
    assert os.listdir(folder) == []


# -- Other users of the folder --------------------------------------------------------------------


def link(part: Path, victim: Path) -> None:
    part.unlink()
    part.symlink_to(victim)


def hard_link(part: Path, victim: Path) -> None:
    part.unlink()
    part.hardlink_to(victim)


def other_name(part: Path, victim: Path) -> None:
    part.with_name("kept").hardlink_to(part)


def pipe(part: Path, victim: Path) -> None:
    part.unlink()
    os.mkfifo(part)


def replaced(part: Path, victim: Path) -> None:
    part.with_name("kept").write_bytes(victim.read_bytes())
    part.with_name("kept").replace(part)


Swap = Callable[[Path, Path], None]
SWAPS = [link, hard_link, other_name, replaced, pipe]


def swapped(folder: Path, victim: Path, swap: Swap, limit: int) -> Callable[..., None]:
    """Return a `progress` that swaps the temporary file as soon as so much was written."""
    done: list[Path] = []

    def progress(octets: int, total: int | None, path: str) -> None:
        parts = list(folder.glob(".remctl-*"))
        if octets >= limit and parts and not done:
            done.append(parts[0])
            swap(parts[0], victim)

    return progress


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("way", [upload, download])
@pytest.mark.parametrize("limit", [1, SIZE - (1 << 19)], ids=["first", "last"])
def test_another_file_in_its_place(
    connection: Connection,
    here: Path,
    folder: Path,
    tmp_path: Path,
    swap: Swap,
    way: Callable[..., str],
    limit: int,
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    (folder / "here").write_bytes(b"old")
    with pytest.raises(OSError, match=r"changed by another process|symbolic links|No such device"):
        way(connection, here, folder, progress=swapped(folder, victim, swap, limit))
    assert victim.read_bytes() == b"victim"
    assert (folder / "here").read_bytes() == b"old"
    assert not (folder / "here").is_symlink()
    assert set(os.listdir(folder)) <= {"kept", "here"}


@pytest.mark.parametrize("way", [upload, download])
def test_a_link_that_is_planted_at_the_destination_meanwhile(
    connection: Connection, here: Path, folder: Path, tmp_path: Path, way: Callable[..., str]
) -> None:
    (tmp_path / "victim").write_bytes(b"victim")

    def progress(octets: int, total: int | None, path: str) -> None:
        if list(folder.glob(".remctl-*")) and not (folder / "copy").is_symlink():
            (folder / "copy").symlink_to(tmp_path / "victim")

    way(connection, here, folder / "copy", progress=progress)
    assert not (folder / "copy").is_symlink()
    assert (folder / "copy").read_bytes() == here.read_bytes()
    assert (tmp_path / "victim").read_bytes() == b"victim"


@pytest.mark.parametrize("way", [upload, download])
def test_the_destination_becomes_a_link(
    connection: Connection, here: Path, folder: Path, tmp_path: Path, way: Callable[..., str]
) -> None:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    here.rename(top / "sub/large")
    (top / "sub/other").write_bytes(b"x" * 100)
    elsewhere, moved = tmp_path / "elsewhere", tmp_path / "moved"
    (elsewhere / "tree/sub").mkdir(parents=True)

    def progress(octets: int, total: int | None, path: str) -> None:
        if list((folder / "tree/sub").glob(".remctl-*")) and not moved.exists():
            folder.rename(moved)
            folder.symlink_to(elsewhere)

    way(connection, top, folder, progress=progress)
    assert sorted(os.listdir(moved / "tree/sub")) == ["large", "other"]
    assert os.listdir(elsewhere / "tree/sub") == []


@pytest.mark.parametrize("way", [upload, download])
def test_a_folder_that_becomes_a_link(
    connection: Connection, here: Path, tmp_path: Path, way: Callable[..., str]
) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    here.rename(tmp_path / "tree/sub/large")
    elsewhere = tmp_path / "elsewhere"
    sub = tmp_path / "copy/sub"

    def progress(octets: int, total: int | None, path: str) -> None:
        if list(sub.glob(".remctl-*")) and not elsewhere.exists():
            sub.rename(elsewhere)
            sub.symlink_to(elsewhere)

    way(connection, tmp_path / "tree", tmp_path / "copy", progress=progress)
    assert os.listdir(elsewhere) == ["large"]
    assert sub.is_symlink()


# -- Links in the path that was named -------------------------------------------------------------

OTHER_USER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to plant another user's link")
Write = Callable[[Connection, Path, Path], object]
WAYS: dict[str, Write] = {
    "upload": upload,
    "put": put,
    "download": download,
    "fetch": fetch,
    "write": lambda connection, here, there: files.write(connection, there, here.read_bytes()),
    "append": lambda connection, here, there: files.append(connection, there, b"x"),
    "open": lambda connection, here, there: files.open(connection, there, "w").close(),
    "open a": lambda connection, here, there: files.open(connection, there, "a").close(),
}


@as_root
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("target", ["file", "none", "folder"])
@pytest.mark.parametrize("place", ["", "/x"], ids=["last", "inner"])
def test_links_of_another_user_are_not_followed(
    connection: Connection, tmp_path: Path, folder: Path, way: Write, target: str, place: str
) -> None:
    (tmp_path / "here").write_bytes(b"here")
    (tmp_path / "file").write_bytes(b"victim")
    (folder / "link").symlink_to(tmp_path / target)
    os.lchown(folder / "link", OTHER_USER, OTHER_USER)
    with pytest.raises(OSError, match="of other users are not followed") as caught:
        way(connection, tmp_path / "here", Path(f"{folder}/link{place}"))
    assert caught.value.filename == str(folder / "link")
    assert (tmp_path / "file").read_bytes() == b"victim"
    assert os.listdir(folder) == ["link"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_links_of_ones_own_are_followed(
    connection: Connection, tmp_path: Path, folder: Path, way: Write
) -> None:
    (tmp_path / "here").write_bytes(b"here")
    (tmp_path / "file").write_bytes(b"old")
    (folder / "one").symlink_to("../folder/two")
    (folder / "two").symlink_to(tmp_path / "file")
    (tmp_path / "way").symlink_to("folder/.")
    way(connection, tmp_path / "here", tmp_path / "way/one")
    assert (folder / "one").is_symlink()
    assert (folder / "two").is_symlink()
    (folder / "one").unlink()
    (folder / "one").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links"):
        way(connection, tmp_path / "here", folder / "one")


# -- Modes ----------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.parametrize("sent", [0o666, 0o777, 0o6777, 0o600, 0o700])
def test_the_umask_holds_for_what_comes_from_there(
    connection: Connection, tmp_path: Path, umask: int, sent: int
) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/file").write_bytes(b"")
    for name in ("file", "sub"):
        (tmp_path / "tree" / name).chmod(sent)
    download(connection, tmp_path / "tree", tmp_path / "copy")
    for name in ("file", "sub"):
        assert (tmp_path / "copy" / name).stat().st_mode & 0o7777 == sent & 0o777 & ~umask
    fetch(connection, tmp_path / "tree/file", tmp_path / "one")
    assert (tmp_path / "one").stat().st_mode & 0o7777 == sent & 0o777 & ~umask


@pytest.mark.parametrize("sent", [0o666, 0o4755, 0o200])
def test_a_temporary_file_of_fetch_is_private(
    connection: Connection, tmp_path: Path, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "there").write_bytes(b"x")
    (tmp_path / "there").chmod(sent)
    back = Path(fetch(connection, tmp_path / "there")["local_path"])
    assert back.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize(
    ("mode", "default"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o755, 0o644)]
)
def test_a_private_file_stays_private(
    connection: Connection, here: Path, tmp_path: Path, mode: int, default: int
) -> None:
    here.chmod(mode)
    modes = set()

    def progress(octets: int, total: int | None, path: str) -> None:
        modes.update(path.stat().st_mode & 0o777 for path in tmp_path.glob(".remctl-*"))

    (tmp_path / "copy").write_bytes(b"for all")
    (tmp_path / "copy").chmod(0o666)
    upload(connection, here, tmp_path / "copy", progress=progress)
    assert (modes, (tmp_path / "copy").stat().st_mode & 0o7777) == ({0o600}, mode)
    put(connection, here, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o7777 == default
    put(connection, here, tmp_path / "copy", mode=0o604)
    assert (tmp_path / "copy").stat().st_mode & 0o7777 == 0o604


def test_write_sets_no_user_id(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o6755)
    files.write(connection, tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755
    with pytest.raises(ValueError, match="mode must be"):
        files.write(connection, tmp_path / "file", b"new", mode=0o4755)
    with pytest.raises(ValueError, match="mode must be"):
        files.open(connection, tmp_path / "file", "w", mode_bits=-1)


# -- A host that stands still ---------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1 << 19], ids=["while it is sent", "in between"])
def test_a_time_limit_holds_while_files_are_sent(
    remctl_realm: Realm, here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(base, "STARTS_AND_ENDS", 0.2)
    with (
        RemctldServer(remctl_realm, machine_commands()) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):

        def progress(octets: int, total: int | None, path: str) -> None:
            if octets >= after:
                server.freeze()

        if not after:
            here.write_bytes(os.urandom(30_000_000))
            monkeypatch.setattr(sending, "_BATCH", 16 << 20)
            server.freeze()
        try:
            with pytest.raises(remctl.RemctlTimeoutError) as caught:
                upload(connection, here, folder, progress=progress, timeout=0.3)
        finally:
            server.thaw()
        assert "may be left" in str(caught.value.__notes__)
