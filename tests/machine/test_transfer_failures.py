"""Failed copies: errors, and files that are left."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.waiting import eventually

import remctl
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import paths, sending
from remctl_toolkit.machine.files.transfer import TransferError, download, upload
from remctl_toolkit.testing import Command, RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

PYTHON = machine_commands()[0].program


# -- An account that may not do everything --------------------------------------------------------


class Account:
    """A remote account without root permissions, and a directory for it."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.connection = connection
        self.folder = folder


@pytest.fixture(scope="module")
def account(remctl_realm: Realm) -> Iterator[Account]:
    user = "nobody" if os.geteuid() == 0 else None
    command = Command("python", program=PYTHON, stdin="last", user=user)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    with (
        RemctldServer(remctl_realm, [command]) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        yield Account(connection, folder)
    for path in [*folder.iterdir(), *folder.glob("*/closed")]:
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize("tree", [False, True])
def test_what_may_not_be_read_over_there(account: Account, tmp_path: Path, tree: bool) -> None:
    top = Path(tempfile.mkdtemp(dir=account.folder))
    top.chmod(0o755)
    for name in ("a", "secret", "z"):
        (top / name).write_text(name)
    (top / "secret").chmod(0)
    (top / "closed").mkdir(mode=0)
    if not tree:
        with pytest.raises(PermissionError, match="Permission denied") as caught:
            download(account.connection, top / "secret", tmp_path / "there")
        assert caught.value.filename == str(top / "secret")
        return
    with pytest.raises(TransferError) as incomplete:
        download(account.connection, top, tmp_path / "there")
    assert all(isinstance(error, PermissionError) for error in incomplete.value.left_out)
    assert len(incomplete.value.left_out) == 2
    assert sorted(os.listdir(tmp_path / "there")) == ["a", "z"]


@pytest.mark.parametrize("batch", [100, 8 << 20], ids=["parts", "whole"])
def test_what_may_not_be_written_over_there(
    account: Account, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(sending, "_BATCH", batch)
    top = Path(tempfile.mkdtemp(dir=account.folder))
    top.chmod(0o555)
    with pytest.raises(PermissionError, match="Permission denied") as caught:
        upload(account.connection, "/etc/passwd", top)
    assert caught.value.filename == str(top / "passwd")


# -- The disk is full -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_disk(remctl_realm: Realm) -> Iterator[Connection]:
    """A remote host where files are limited to a megabyte."""
    # Units of 512 octets for some shells, of 1024 for others.
    script = f'ulimit -f 1000; exec {PYTHON} "$@"'
    commands = [Command("python", script=script, stdin="last")]
    with (
        RemctldServer(remctl_realm, commands) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        yield connection


@pytest.mark.parametrize("batch", [1 << 19, 8 << 20], ids=["parts", "whole"])
def test_a_full_disk_over_there(
    small_disk: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(sending, "_BATCH", batch)
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="File too large") as caught:
        upload(small_disk, tmp_path / "here", tmp_path / "folder")
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "folder/here")
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("size", [3_000_000, 9_000_000])
def test_a_full_disk_keeps_the_old_file(small_disk: Connection, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="File too large") as caught:
        paths.write(small_disk, tmp_path / "file", bytes(size))
    assert caught.value.filename == str(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_here(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(os.urandom(30_000_000))
    (tmp_path / "folder").mkdir()
    with limited_files(20_000_000), pytest.raises(OSError, match="File too large") as caught:
        download(connection, tmp_path / "there", tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder/there")
    assert os.listdir(tmp_path / "folder") == []
    assert connection.run(["true"]).status == 0


# -- On the way -----------------------------------------------------------------------------------


def test_a_program_that_is_killed_leaves_nothing(
    remctl_realm: Realm, server: RemctldServer, tmp_path: Path
) -> None:
    (tmp_path / "here").write_bytes(os.urandom(20_000_000))
    (tmp_path / "folder").mkdir()
    program = f"""
import os, sys
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import sending, upload
sending._PATIENCE = 2.0
def progress(done, total, path):
    while not os.listdir("folder"):
        pass
    os.kill(os.getpid(), 9)
connection = Connection({server.host!r}, {server.port!r}, {server.principal!r})
upload(connection, "here", "{tmp_path}/folder", progress=progress)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, **remctl_realm.env},
        timeout=50,
    )
    assert done.returncode == -9
    eventually(lambda: os.listdir(tmp_path / "folder") == [])


def test_what_may_be_left_is_told(
    remctl_realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    monkeypatch.setattr(sending, "_PATIENCE", 1.0)
    (tmp_path / "here").write_bytes(os.urandom(9_000_000))
    (tmp_path / "folder").mkdir()
    with (
        RemctldServer(remctl_realm, machine_commands()) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        left: list[str] = []

        def progress(octets: int, total: int | None, path: str) -> None:
            if not left:
                left.extend(eventually(lambda: os.listdir(tmp_path / "folder")))
                server.freeze()

        try:
            with pytest.raises(remctl.RemctlError) as caught:
                upload(connection, tmp_path / "here", tmp_path / "folder", progress=progress)
        finally:
            server.thaw()
        text = f"a temporary file {left[0]} may be left on {connection.host}"
        assert text in caught.value.__notes__
        eventually(lambda: os.listdir(tmp_path / "folder") == [])


def test_a_source_that_becomes_shorter(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(os.urandom(3_000_000))
    (tmp_path / "tree/b").write_text("b")

    def shorten(done: int, total: int | None, path: str) -> None:
        os.truncate(tmp_path / "tree/a", 1000)

    with pytest.raises(TransferError, match="file shrank"):
        upload(connection, tmp_path / "tree", tmp_path / "copy", progress=shorten)
    assert os.listdir(tmp_path / "copy") == ["b"]


def test_a_source_that_grows(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "log").write_bytes(b"x" * 3_000_000)

    def grow(done: int, total: int | None, path: str) -> None:
        with (tmp_path / "log").open("ab") as file:
            file.write(b"y" * 1_000_000)

    upload(connection, tmp_path / "log", tmp_path / "copy", progress=grow)
    assert (tmp_path / "copy").read_bytes() == b"x" * 3_000_000


@pytest.mark.parametrize("target", ["secret", "secrets"])
def test_a_source_that_becomes_a_link(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/swapped").symlink_to(tmp_path / target)
    really = os.stat

    def before(path: Any, *, follow_symlinks: bool = True, **how: Any) -> os.stat_result:
        return really(path, follow_symlinks=follow_symlinks or path == "swapped", **how)

    monkeypatch.setattr(os, "stat", before)
    with pytest.raises(TransferError, match="swapped"):
        upload(connection, tmp_path / "tree", tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == []
