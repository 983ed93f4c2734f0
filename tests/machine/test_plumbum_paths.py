"""Plumbum's remote paths, on a machine over remctl."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plumbum import local
from plumbum.commands.processes import ProcessExecutionError
from plumbum.path.utils import copy, delete, move

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.plumbum.machine import Machine

pytestmark = pytest.mark.once

BINARY = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def machine(connection: Connection) -> Iterator[Machine]:
    with Machine.over(connection) as machine:
        yield machine


@pytest.fixture(scope="module")
def slow(python_only: Connection) -> Iterator[Machine]:
    with Machine.over(python_only) as machine:
        yield machine


@pytest.fixture
def folder(machine: Machine, tmp_path: Path) -> Any:
    return machine.path(str(tmp_path))


def test_joining(machine: Machine) -> None:
    path = machine.path("/usr", "lib")
    for same in (
        machine.path("/usr") / "lib",
        machine.path("/usr")["lib"],
        machine.path("/usr").join("lib"),
        machine.path("/usr").joinpath("lib"),
        machine.path("/usr/lib/x").up(),
        machine.path("/usr/x/../lib/."),
        machine.path("/usr") + machine.path("/x/lib").relative_to("/x"),
    ):
        assert same == path
    with machine.cwd("/usr"):
        assert machine.path("lib") == path
    with pytest.raises(TypeError):
        machine.path(local.path("/usr"))


def test_parts(machine: Machine) -> None:
    path = machine.path("/usr/lib/a.tar.gz")
    assert (path.name, path.stem, path.suffix) == ("a.tar.gz", "a.tar", ".gz")
    assert path.suffixes == [".tar", ".gz"]
    assert path.dirname == path.parent == "/usr/lib"
    assert path.parts == ("/", "usr", "lib", "a.tar.gz")
    assert [str(parent) for parent in path.parents] == ["/usr/lib", "/usr", "/"]
    assert (path.root, path.drive, path.anchor) == ("/", "", "/")
    assert path.with_name("b") == "/usr/lib/b"
    assert path.with_stem("b") == "/usr/lib/b.tar.gz"
    assert path.with_suffix(".x") == "/usr/lib/a.tar.x"
    assert path.with_suffix(".x", depth=2) == "/usr/lib/a.x"
    assert path.preferred_suffix(".x") == path
    assert str(path.relative_to("/usr")) == str(path - "/usr") == "lib/a.tar.gz"
    assert path.as_posix() == "/usr/lib/a.tar.gz"
    assert path.is_absolute()
    assert path.is_relative_to("/usr")
    assert path.match("*.gz")
    assert path.split() == ["usr", "lib", "a.tar.gz"]
    assert path.absolute() == path
    assert path.as_uri("sftp").startswith("sftp://")


def test_what_a_path_is(machine: Machine, folder: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").chmod(0o640)
    file = folder / "file"
    assert (file.exists(), file.is_file(), file.is_dir()) == (True, True, False)
    assert (folder.exists(), folder.is_file(), folder.is_dir()) == (True, False, True)
    assert (folder / "link").is_symlink()
    assert not (folder / "none").exists()
    found, own = file.stat(), (tmp_path / "file").stat()
    assert (found.st_mode, found.st_size, found.st_ino) == (own.st_mode, own.st_size, own.st_ino)
    assert (found.st_mtime, found.text_mode) == (int(own.st_mtime), "regular file")
    assert stat.S_ISLNK((folder / "link").lstat().st_mode)
    assert (file.uid, file.uid.name) == (own.st_uid, machine.far.user)
    assert file.gid == own.st_gid
    assert file.access("r")
    assert not file.access("x")
    assert "file" in folder
    assert folder.samefile(folder)
    with pytest.raises(FileNotFoundError):
        (folder / "none").stat()


def test_listing(machine: Machine, folder: Any, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", ".hidden", "sub/c.txt", "sub/deep/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("sub")

    def names(paths: Any) -> list[str]:
        return sorted(str(path - folder) for path in paths)

    everything = [".hidden", "a.txt", "b.txt", "link", "sub"]
    assert names(folder) == names(folder.list()) == names(folder.iterdir()) == everything
    assert names(folder / "link") == []  # To plumbum, a link is nothing but a link.
    assert (folder / "a.txt").list() == []
    assert names(folder // "*.txt") == names(folder.glob("*.txt")) == ["a.txt", "b.txt"]
    assert names(folder // "*/*.txt") == ["sub/c.txt"]
    assert names(folder.glob("**/*.txt")) == ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"]
    assert names(folder.rglob("d.*")) == ["sub/deep/d.txt"]
    assert names(folder.glob(["a*", "b*"])) == ["a.txt", "b.txt"]
    assert names((folder / "link") // "c*") == ["link/c.txt"]
    walked = names(folder.walk(filter=lambda path: path.suffix == ".txt"))
    assert "sub/deep/d.txt" in walked
    assert folder.glob("[") == []


def test_changing(folder: Any, tmp_path: Path) -> None:
    file = folder / "file"
    file.touch()
    assert file.read() == b""
    file.chmod(0o600)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    file.chown(os.getuid(), os.getgid())
    moved = file.rename("moved")
    assert [moved] == folder.list()
    assert moved.move(folder / "file") == file
    copied = file.copy(folder / "copy")
    assert copied.exists()
    with pytest.raises(TypeError):
        file.copy(copied)
    file.copy(copied, override=True)
    (folder / "a/b").mkdir()
    (folder / "a/b").mkdir()
    with pytest.raises(FileExistsError):
        (folder / "a/b").mkdir(exist_ok=False)
    with pytest.raises(ProcessExecutionError):
        (folder / "no/parent").mkdir(parents=False)
    with pytest.raises(OSError, match="directory"):
        (folder / "a").unlink()
    (folder / "a/b").rmdir()
    copied.unlink()
    copied.unlink()
    (folder / "a").delete()
    (folder / "a").delete()
    assert folder.list() == [file]


def test_links(folder: Any, tmp_path: Path) -> None:
    (folder / "file").write(b"x")
    (folder / "file").link(folder / "hard")
    (folder / "file").symlink(folder / "soft")
    (folder / "soft 2").symlink_to(folder / "file")
    (folder / "hard 2").hardlink_to(folder / "file")
    assert (tmp_path / "file").stat().st_nlink == 3
    assert (
        os.readlink(tmp_path / "soft") == os.readlink(tmp_path / "soft 2") == str(folder / "file")
    )


def test_contents(machine: Machine, slow: Machine, tmp_path: Path) -> None:
    for folder in (machine.path(str(tmp_path)), slow.path(str(tmp_path))):
        file = folder / "file"
        file.write(BINARY)
        assert file.read() == file.read_bytes() == BINARY == (tmp_path / "file").read_bytes()
        file.write("é", encoding="latin-1")
        assert file.read(encoding="latin-1") == "é"
        file.write("é")
        assert file.read_text() == "é"
        file.write_text("ä")
        file.write_bytes(b"\0")
        assert file.read_bytes() == b"\0"
        with pytest.raises(OSError, match="none"):
            (folder / "none").read()


def test_opening(folder: Any, tmp_path: Path) -> None:
    with (folder / "file").open("wb") as file:
        file.write(BINARY)
    assert (tmp_path / "file").read_bytes() == BINARY
    with (folder / "file").open("rb") as file:
        assert file.read() == BINARY
    with (folder / "file").open("w") as file:
        file.write("é\n")
    with (folder / "file").open() as file:
        assert list(file) == ["é\n"]


def test_files_between_here_and_there(machine: Machine, folder: Any, tmp_path: Path) -> None:
    near, far = local.path(str(tmp_path / "near")), folder / "far"
    near.mkdir()
    (near / "sub").mkdir()
    (near / "sub" / "file").write(BINARY)
    far.mkdir()
    machine.upload(near / "sub" / "file", far / "file")
    machine.upload(tmp_path / "near" / "sub" / "file", str(far / "again"))
    with machine.cwd(far):
        machine.upload(str(near), "tree")
    assert (far / "file").read() == (far / "again").read() == BINARY
    assert (far / "tree/sub/file").read() == BINARY
    machine.download(far / "tree", near / "back")
    machine.download(str(far / "file"), tmp_path / "one")
    assert (near / "back" / "sub" / "file").read("latin-1").encode("latin-1") == BINARY
    assert (tmp_path / "one").read_bytes() == BINARY
    with pytest.raises(TypeError):
        machine.upload(far / "file", far / "other")
    with pytest.raises(TypeError):
        machine.upload("x", local.path("/tmp/x"))
    with pytest.raises(TypeError):
        machine.download(far / "file", far / "other")
    with pytest.raises(TypeError):
        machine.download(local.path("/tmp/x"), "x")


def test_copying_with_plumbums_utilities(
    machine: Machine, slow: Machine, folder: Any, tmp_path: Path
) -> None:
    near = local.path(str(tmp_path / "near"))
    near.write(b"x")
    copy(near, folder / "far")
    copy(folder / "far", folder / "far 2")
    copy(folder / "far", slow.path(str(tmp_path)) / "other machine's")
    copy(folder / "far", local.path(str(tmp_path)) / "near 2")
    move(folder / "far 2", local.path(str(tmp_path)) / "near 3")
    move(near, folder / "far 3")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "far", "far 3", "near 2", "near 3", "other machine's",
    ]  # fmt: skip
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"x"}
    delete(folder / "far", [folder / "far 3"])
    assert not (folder / "far").exists()


def test_paths_of_another_machine(machine: Machine, slow: Machine) -> None:
    other = slow.path("/tmp")
    with pytest.raises(TypeError):
        machine[other]
    with pytest.raises(TypeError):
        machine.upload("x", other)
    with pytest.raises(TypeError):
        machine.path("/tmp/x").move(other)


def test_paths_may_be_used_by_many_threads(machine: Machine, folder: Any) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            path = folder / str(number)
            path.write(b"%d" % number)
            assert path.read() == b"%d" % number
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
