"""Files and trees that do not arrive: what is said, and what is left of them."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

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
    """An account of the far side that may not do everything, and a folder for it."""

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
    # Over there it was put in order already.
    asked: list[bytes] = []
    really = sending._Upload._ask
    monkeypatch.setattr(
        sending._Upload,
        "_ask",
        lambda self, payload: asked.append(payload) or really(self, payload),
    )
    top = Path(tempfile.mkdtemp(dir=account.folder))
    top.chmod(0o555)
    with pytest.raises(PermissionError, match="Permission denied") as caught:
        upload(account.connection, "/etc/passwd", top)
    assert caught.value.filename == str(top / "passwd")
    assert len(asked) == 1


# -- The disk is full -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_disk(remctl_realm: Realm) -> Iterator[Connection]:
    """A far side where no file can have more than a megabyte."""
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


@pytest.mark.parametrize("late", [False, True])
def test_interrupted_when_the_temporary_file_is_made(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    (tmp_path / "folder").mkdir()
    really, threads = connection.python_stream, []

    def run(*arguments: Any, **how: Any) -> None:
        with really(*arguments, **how) as tokens:
            list(tokens)

    def interrupted(program: str, payload: bytes = b"", **how: Any) -> Any:
        if payload[:1] != b"f":
            return really(program, payload, **how)
        delay = threading.Timer(0.3 if late else 0.0, run, (program, payload), how)
        delay.start()
        threads.append(delay)
        if not late:
            delay.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "python_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upload(connection, tmp_path / "here", tmp_path / "folder")
    for thread in threads:
        thread.join()
    assert len(threads) == 1
    assert os.listdir(tmp_path / "folder") == []


def test_what_could_not_be_taken_away_is_told(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    really = connection.python_stream

    def cut(program: str, payload: bytes = b"", **how: Any) -> Any:
        if payload[:1] != b"f":
            raise remctl.RemctlDisconnectedError("the network is gone")
        return really(program, payload, **how)

    monkeypatch.setattr(connection, "python_stream", cut)
    with pytest.raises(remctl.RemctlDisconnectedError) as caught:
        upload(connection, tmp_path / "here", tmp_path / "there")
    (left,) = [name for name in os.listdir(tmp_path) if name.startswith(".remctl-")]
    assert f"a temporary file {left} may be left on {connection.host}" in caught.value.__notes__[0]


def test_a_source_that_becomes_shorter(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_BATCH", 1 << 19)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(os.urandom(3_000_000))
    (tmp_path / "tree/b").write_text("b")

    def shorten(done: int, total: int | None, path: str) -> None:
        os.truncate(tmp_path / "tree/a", 1000)

    with pytest.raises(TransferError, match="became shorter"):
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
