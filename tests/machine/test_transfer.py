"""Copies of files and trees in both directions, and their errors."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plumbum import local
from plumbum.path.utils import copy as plumbum_copy
from plumbum.path.utils import move

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import sending
from remctl_toolkit.machine.files.answers import far_path
from remctl_toolkit.machine.files.transfer import TransferError, download, fetch, put, upload
from remctl_toolkit.machine.plumbum.machine import Machine

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.once

Copy = Callable[..., str]

ODD_NAMES = [
    b"a b",
    b"'",
    b'"',
    b"\n",
    b"\xff\xfe",
    b"-n",
    b"$HOME",
    b"*",
    "é".encode(),
    b"x" * 255,
]
OLD = (1_000_000_000_123_456_789, 1_100_000_000_987_654_321)  # ns


@pytest.fixture(params=["upload", "download"])
def copy(request: pytest.FixtureRequest, connection: Connection) -> Copy:
    """Copy in either direction: the remote host is this machine."""
    way = {"upload": upload, "download": download}[request.param]
    return lambda *arguments, **how: way(connection, *arguments, **how)


def described(top: Path) -> dict[bytes, object]:
    """Return all that a copy has to keep."""
    found: dict[bytes, object] = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for path in [folder, *(os.path.join(folder, name) for name in (*folders, *files))]:
            status = os.lstat(path)
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
            name = os.path.relpath(path, os.fsencode(top))
            mode = 0 if os.path.islink(path) else status.st_mode
            found[name] = (mode, status.st_mtime_ns, content)
    return found


def no_parts(folder: Path) -> bool:
    return not [name for _, _, names in os.walk(folder) for name in names if ".remctl-" in name]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "empty").mkdir(parents=True)
    (top / "deep/er").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        path = os.path.join(os.fsencode(top), b"deep", name)
        with open(path, "wb") as file:
            file.write(os.urandom(number * 1000))
        os.chmod(path, (0o600, 0o755, 0o444)[number % 3])
        os.utime(path, ns=OLD)
    (top / "link").symlink_to("deep/er")
    (top / "dangling").symlink_to("/no/such\nthing")
    os.utime(top / "link", ns=OLD, follow_symlinks=False)
    os.chmod(top / "empty", 0o500)
    for folder in ("empty", "deep/er", "deep", "."):
        os.utime(top / folder, ns=OLD)
    return top


# -- Contents -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 1 << 18, (1 << 18) + 1])
def test_a_file_arrives_with_mode_and_times(copy: Copy, tmp_path: Path, size: int) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(os.urandom(size))
    here.chmod(0o640)
    os.utime(here, ns=OLD)
    assert copy(here, there) == str(there)
    status = there.stat()
    assert there.read_bytes() == here.read_bytes()
    assert (status.st_mode & 0o7777, status.st_atime_ns, status.st_mtime_ns) == (0o640, *OLD)
    assert no_parts(tmp_path)


def test_a_large_file_arrives(copy: Copy, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(os.urandom(20_000_000))
    copy(here, there)
    assert there.read_bytes() == here.read_bytes()
    assert no_parts(tmp_path)


def test_a_tree_arrives(copy: Copy, tree: Path, tmp_path: Path) -> None:
    before = described(tree)
    assert copy(tree, tmp_path / "copy") == str(tmp_path / "copy")
    assert described(tmp_path / "copy") == before
    os.chmod(tmp_path / "copy/empty", 0o700)
    os.chmod(tree / "empty", 0o700)


def test_large_and_small_files_of_a_tree(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    for folder in ("a", "b/c", "b/d"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        for number, size in enumerate((0, 1_300_000, 10, 200_000, 400_000, 600_000, 1 << 19)):
            (tmp_path / "tree" / folder / str(number)).write_bytes(os.urandom(size))
    copy(tmp_path / "tree", tmp_path / "copy")
    assert described(tmp_path / "copy") == described(tmp_path / "tree")


def test_a_thousand_small_files_are_one_command(
    connection: Connection, far_log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(1000):
        (tmp_path / f"tree/{number}").write_bytes(b"x" * 100)
    before = far_log().count(" upload ")
    upload(connection, tmp_path / "tree", tmp_path / "copy")
    assert far_log().count(" upload ") - before == 1
    download(connection, tmp_path / "tree", tmp_path / "back")
    assert described(tmp_path / "copy") == described(tmp_path / "back")


def test_set_user_id_is_not_for_another_machine(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"")
    (tmp_path / "here").chmod(0o6755)
    copy(tmp_path / "here", tmp_path / "there")
    assert (tmp_path / "there").stat().st_mode & 0o7777 == 0o755


def test_holes_stay_holes(copy: Copy, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with here.open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 33)
        file.write(b"middle")
        file.truncate(1 << 34)
    copy(here, there)
    with there.open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek((1 << 33) - 1)
        assert file.read(8) == b"\0middle\0"
    status = there.stat()
    assert status.st_size == 1 << 34
    assert status.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    "name", ["/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
def test_files_that_do_not_know_their_size(copy: Copy, tmp_path: Path, name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"no {name}")
    copy(name, tmp_path / "there")
    assert (tmp_path / "there").read_text()


# -- Destinations ---------------------------------------------------------------------------------


def test_into_a_folder_that_is_there(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "way").symlink_to("folder")
    assert copy(tmp_path / "file", tmp_path / "way") == str(tmp_path / "way/file")
    assert copy(f"{tmp_path}/tree/", f"{tmp_path}/way/") == str(tmp_path / "way/tree")
    assert sorted(os.listdir(tmp_path / "folder")) == ["file", "tree"]


def test_only_the_contents(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/new").write_text("new")
    (tmp_path / "folder").mkdir(mode=0o711)
    (tmp_path / "folder/old").write_text("old")
    os.utime(tmp_path / "tree", ns=OLD)
    copy(f"{tmp_path}/tree/.", tmp_path / "folder")
    assert sorted(os.listdir(tmp_path / "folder")) == ["new", "old"]
    # A folder that was there is its owner's: only what is made gets modes and times.
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "folder").stat().st_mtime_ns != OLD[1]


def test_what_is_called_dot_dot(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    copy(f"{tmp_path}/a/b/..", tmp_path / "folder")
    assert (tmp_path / "folder/a/b").is_dir()


def test_the_same_again_replaces(copy: Copy, tree: Path, tmp_path: Path) -> None:
    os.chmod(tree / "empty", 0o755)
    copy(tree, tmp_path / "copy")
    (tree / "deep/-n").write_text("changed")
    os.unlink(tree / "link")
    (tree / "link").symlink_to("elsewhere")
    (tmp_path / "copy/more").write_text("stays")
    copy(f"{tree}/.", tmp_path / "copy")
    assert (tmp_path / "copy/deep/-n").read_text() == "changed"
    assert os.readlink(tmp_path / "copy/link") == "elsewhere"
    assert (tmp_path / "copy/more").read_text() == "stays"


def test_links_that_are_named_are_followed(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "source").symlink_to("file")
    (tmp_path / "target").write_text("old")
    (tmp_path / "destination").symlink_to("target")
    copy(tmp_path / "source", tmp_path / "destination")
    assert (tmp_path / "destination").is_symlink()
    assert (tmp_path / "target").read_text() == "x"


def test_links_in_a_folder_are_not_followed(copy: Copy, tmp_path: Path) -> None:
    for name in ("tree/sub", "folder", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder/tree").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder/file").symlink_to(tmp_path / "target")
    with pytest.raises(NotADirectoryError, match="It is a symbolic link, which is not followed"):
        copy(tmp_path / "tree", tmp_path / "folder")
    copy(tmp_path / "file", tmp_path / "folder")
    assert not (tmp_path / "folder/file").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_paths_over_there_begin_at_home(connection: Connection, tmp_path: Path) -> None:
    far = connection.far
    assert far_path(connection, "a/b") == os.fsencode(os.path.join(far.home, "a/b"))
    assert far_path(connection, "~/a") == os.fsencode(os.path.join(far.home, "a"))
    assert far_path(connection, "./~") == os.fsencode(os.path.join(far.home, "./~"))
    assert far_path(connection, b"/\xff") == b"/\xff"


# -- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error"), [("", ValueError), ("a\0b", ValueError), (3, TypeError), (None, TypeError)]
)
def test_paths_that_are_none(connection: Connection, path: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="path"):
        upload(connection, "/etc/passwd", path)
    with pytest.raises(error, match="path"):
        download(connection, path, "/tmp")


def test_a_source_that_is_not_there(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory") as caught:
        copy(tmp_path / "none", tmp_path / "there")
    assert caught.value.filename == str(tmp_path / "none")
    assert caught.value.errno == errno.ENOENT


def test_a_destination_without_its_folder(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="make it first") as caught:
        copy(tmp_path / "file", tmp_path / "no/there")
    assert caught.value.filename == str(tmp_path / "no")


def test_errors_of_the_far_side_name_it(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"on {connection.host}") as caught:
        download(connection, tmp_path / "none", tmp_path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(FileNotFoundError, match=f"on {connection.host}"):
        upload(connection, "/etc/passwd", tmp_path / "no/passwd")


def test_a_file_is_not_for_a_folder_that_is_not_there(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    with pytest.raises(FileNotFoundError, match="No such folder"):
        copy(tmp_path / "file", f"{tmp_path}/new/")
    copy(tmp_path / "tree", f"{tmp_path}/new/")
    assert (tmp_path / "new").is_dir()


def test_files_and_folders_do_not_replace_each_other(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "a/x").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("file")
    with pytest.raises(NotADirectoryError):
        copy(tmp_path / "a/x", tmp_path / "b/x")
    with pytest.raises(IsADirectoryError):
        copy(tmp_path / "b/x", tmp_path / "a")
    assert no_parts(tmp_path)


def test_special_files_are_left_out_and_told(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/z").write_text("x")
    os.mkfifo(tmp_path / "tree/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tree/socket"))
    with pytest.raises(
        TransferError, match=r"some files were not transferred: .*pipe', and 1 more"
    ) as caught:
        copy(tmp_path / "tree", tmp_path / "copy")
    names = [str(error.filename) for error in caught.value.left_out]
    assert names == [str(tmp_path / "tree/pipe"), str(tmp_path / "tree/socket")]
    assert os.listdir(tmp_path / "copy") == ["z"]
    with pytest.raises(OSError, match="Neither a file nor a folder"):
        copy(tmp_path / "tree/pipe", tmp_path / "there")
    with pytest.raises(OSError, match="Neither a file nor a folder"):
        copy("/dev/null", tmp_path / "there")


@pytest.mark.parametrize(("what", "to"), [("tree", "to"), ("tree/pipe", "to/tree/pipe")])
def test_special_files_are_not_replaced(copy: Copy, tmp_path: Path, what: str, to: str) -> None:
    """Root might lose /dev/null to a copy that nobody wanted to keep."""
    (tmp_path / "from/tree").mkdir(parents=True)
    (tmp_path / "from/tree/pipe").write_text("x")
    (tmp_path / "to/tree").mkdir(parents=True)
    os.mkfifo(tmp_path / "to/tree/pipe")
    with pytest.raises(OSError, match="is a device, pipe or socket, which is not replaced"):
        copy(tmp_path / "from" / what, tmp_path / to)
    assert (tmp_path / "to/tree/pipe").is_fifo()
    assert os.listdir(tmp_path / "to/tree") == ["pipe"]


def test_too_many_folders_in_each_other(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "tree" / "/".join("d" * 300)).mkdir(parents=True)
    with pytest.raises(TransferError, match="More than 256 folders deep") as caught:
        copy(tmp_path / "tree", tmp_path / "copy")
    assert len(caught.value.left_out) == 1


# -- Interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, BrokenPipeError])
def test_nothing_stays_of_what_was_interrupted(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "here").write_bytes(os.urandom(6_000_000))
    (tmp_path / "folder").mkdir()
    seen = []

    def progress(done: int, total: int | None, path: str) -> None:
        seen.append(os.listdir(tmp_path / "folder"))
        if done > 4_000_000:
            raise error("enough")

    with pytest.raises(error) as caught:
        copy(tmp_path / "here", tmp_path / "folder", progress=progress)
    assert caught.value.args == ("enough",)
    assert seen[-1][0].startswith(".remctl-")
    assert os.listdir(tmp_path / "folder") == []
    copy(tmp_path / "here", tmp_path / "folder")
    assert (tmp_path / "folder/here").stat().st_size == 6_000_000


def test_the_temporary_file_is_nobody_elses(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(os.urandom(20_000_000))
    (tmp_path / "here").chmod(0o644)
    (tmp_path / "folder").mkdir()
    modes = set()

    def progress(done: int, total: int | None, path: str) -> None:
        for name in os.listdir(tmp_path / "folder"):
            if name.startswith("."):
                modes.add((tmp_path / "folder" / name).stat().st_mode & 0o777)

    copy(tmp_path / "here", tmp_path / "folder", progress=progress)
    assert modes == {0o600}


# -- Progress, digests ----------------------------------------------------------------------------


def test_progress(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "tree/sub").mkdir(parents=True)
    for name, size in (("a", 1_300_000), ("sub/b", 100)):
        (tmp_path / "tree" / name).write_bytes(os.urandom(size))
    calls: list[tuple[int, int | None, str]] = []
    copy(tmp_path / "tree", tmp_path / "copy", progress=lambda *said: calls.append(said))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert done[-1] == 1_300_100
    assert {call[1] for call in calls} == {1_300_100}
    assert [os.path.basename(call[2]) for call in calls][-1] == "b"
    assert len(calls) >= 4


def test_put_and_fetch(connection: Connection, tmp_path: Path) -> None:
    octets = os.urandom(300_000)
    digest = hashlib.sha1(octets).hexdigest()
    (tmp_path / "here").write_bytes(octets)
    there = put(connection, tmp_path / "here", tmp_path / "there", mode=0o751)
    assert there == {
        "local_path": str(tmp_path / "here"),
        "remote_path": str(tmp_path / "there"),
        "size": 300_000,
        "sha1sum": digest,
    }
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o751
    back = fetch(connection, tmp_path / "there", tmp_path / "back")
    assert (back["size"], back["sha1sum"]) == (300_000, digest)
    assert back["local_path"] == str(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == octets


def test_put_and_fetch_choose_names(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"x")
    there = put(connection, tmp_path / "here")["remote_path"]
    back = fetch(connection, there)["local_path"]
    try:
        assert Path(there).read_bytes() == Path(back).read_bytes() == b"x"
    finally:
        os.unlink(there)
        os.unlink(back)


def test_put_and_fetch_are_for_files(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(IsADirectoryError):
        put(connection, tmp_path, "/nonexistent/x")
    with pytest.raises(IsADirectoryError):
        fetch(connection, tmp_path)
    with pytest.raises(ValueError, match="mode must be"):
        put(connection, tmp_path / "here", tmp_path / "there", mode=0o10644)
    assert os.listdir(tmp_path / "tmp") == []


def test_the_digest_counts_holes_as_zeros(connection: Connection, tmp_path: Path) -> None:
    with (tmp_path / "here").open("wb") as file:
        file.truncate(1_000_000)
    digest = hashlib.sha1(bytes(1_000_000)).hexdigest()
    assert put(connection, tmp_path / "here", tmp_path / "there")["sha1sum"] == digest
    assert fetch(connection, tmp_path / "here", tmp_path / "back")["sha1sum"] == digest
    assert fetch(connection, tmp_path / "here", tmp_path / "back")["size"] == 1_000_000


def test_names_are_not_in_the_log(
    connection: Connection, far_log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "private-name").write_text("x")
    upload(connection, tmp_path / "private-name", tmp_path / "private-copy")
    download(connection, tmp_path / "private-name", tmp_path / "private-back")
    assert " upload " in far_log()
    assert "private" not in far_log()


# -- plumbum --------------------------------------------------------------------------------------


@pytest.fixture
def machine(connection: Connection) -> Iterator[Machine]:
    with Machine.over(connection) as machine:
        yield machine


def test_plumbums_copy_and_move(machine: Machine, tree: Path, tmp_path: Path) -> None:
    os.chmod(tree / "empty", 0o755)
    before = described(tree)
    far, near = machine.path(tmp_path / "far"), local.path(tmp_path / "near")
    plumbum_copy(local.path(tree), far)
    assert described(tmp_path / "far") == before
    move(far, near)
    assert described(tmp_path / "near") == before
    assert not (tmp_path / "far").exists()


def test_paths_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    path = machine.path(tmp_path / "a 'b")
    path.write(b"\xff\0")
    assert path.read() == b"\xff\0"
    assert (tmp_path / "a 'b").read_bytes() == b"\xff\0"
