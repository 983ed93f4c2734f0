"""Large files, which travel in pieces by two sessions: what guards them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.waiting import eventually

import remctl
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.files import sending
from remctl_toolkit.machine.files.lanes import Lanes
from remctl_toolkit.machine.files.transfer import TransferError, put, upload

pytestmark = pytest.mark.once

SIZE = 3_000_000
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


def test_two_sessions_at_most_and_both_given_back(
    connection: Connection, here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, counts = connection.session, []

    @contextlib.contextmanager
    def counted() -> Iterator[remctl.Remctl]:
        with really() as session:
            counts.append(connection._pool.stats.in_use)
            yield session

    monkeypatch.setattr(connection, "session", counted)
    upload(connection, here, folder)
    assert max(counts) <= 2
    assert not connection._pool.stats.in_use
    before = connection._pool.stats.idle
    upload(connection, here, folder)
    assert connection._pool.stats.idle == before


def test_no_threads_for_small_files(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "Lanes", lambda *_: pytest.fail("not for these"))
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / f"tree/{number}").write_bytes(os.urandom(100_000))
    upload(connection, tmp_path / "tree", tmp_path / "copy")
    assert len(os.listdir(tmp_path / "copy")) == 20


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
    assert not connection._pool.stats.in_use
    assert os.listdir(folder) == []


def test_a_piece_that_is_changed_on_its_way(
    connection: Connection, here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "crc32", lambda octets, crc: 1)
    with pytest.raises(TransferError, match="what arrived is not what was sent"):
        upload(connection, here, folder)
    assert os.listdir(folder) == []


# -- Who may write in the folder too --------------------------------------------------------------


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


LEFT = "not as it was left"
SWAPS = [
    (link, "symbolic links"),
    (hard_link, LEFT),
    (other_name, LEFT),
    (replaced, LEFT),
    (pipe, f"Illegal seek|{LEFT}"),  # It may have got the same inode.
]


@pytest.mark.parametrize(("swap", "error"), SWAPS)
@pytest.mark.parametrize("when", [0, SIZE], ids=["before the pieces", "after them"])
def test_another_file_in_its_place(
    connection: Connection,
    here: Path,
    folder: Path,
    tmp_path: Path,
    swap: Callable[[Path, Path], None],
    error: str,
    when: int,
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"v" * when)
    done: list[int] = []

    def progress(octets: int, total: int | None, path: str) -> None:
        if octets == when and not done:
            (part,) = folder.iterdir()
            swap(part, victim)
            done.append(os.open(part, os.O_RDONLY | os.O_NONBLOCK))

    with pytest.raises((OSError, TransferError), match=error):
        upload(connection, here, folder, progress=progress)
    assert os.fstat(done[0]).st_size in (0, when)
    os.close(done[0])
    assert victim.read_bytes() == b"v" * when
    assert set(os.listdir(folder)) <= {"kept"}


def test_what_somebody_added_is_no_part_of_it(
    connection: Connection, here: Path, folder: Path
) -> None:
    def progress(octets: int, total: int | None, path: str) -> None:
        if octets == SIZE:
            for part in folder.glob(".remctl-*"):
                os.truncate(part, SIZE + 1)

    with pytest.raises(TransferError, match="not as it was left"):
        upload(connection, here, folder, progress=progress)
    assert os.listdir(folder) == []


def test_a_folder_that_becomes_a_link(connection: Connection, here: Path, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    here.rename(tmp_path / "tree/sub/large")
    elsewhere = tmp_path / "elsewhere"
    sub = tmp_path / "copy/sub"

    def progress(octets: int, total: int | None, path: str) -> None:
        if list(sub.glob(".remctl-*")) and not elsewhere.exists():
            sub.rename(elsewhere)
            sub.symlink_to(elsewhere)

    with pytest.raises(OSError, match=r"Not a directory|symbolic link") as caught:
        upload(connection, tmp_path / "tree", tmp_path / "copy", progress=progress)
    assert "large" not in os.listdir(elsewhere)
    (part,) = elsewhere.iterdir()
    assert part.name in str(getattr(caught.value, "__notes__", ""))
    assert part.stat().st_size == 0


# -- The lanes by themselves ----------------------------------------------------------------------


class Session:
    """Does what it is told when it may, or until it is closed."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.may_end.set()


class Sessions:
    """As many as there are; then they are refused."""

    def __init__(self, count: int) -> None:
        self.free = [Session() for _ in range(count)]
        self.all = list(self.free)
        self.refused = threading.Event()
        self.error: Exception = remctl.RemctlConnectError("refused")
        self.given_back: list[Session] = []
        self.slow_after = threading.Event()  # Not set: who gives one back is slow to notice it.
        self.slow_after.set()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        if not self.free:
            self.refused.set()
            raise self.error
        session = self.free.pop(0)
        yield session
        self.given_back.append(session)
        self.slow_after.wait(10)


def lanes_over(sessions: Sessions, do: Callable[[Session, Any], object]) -> Lanes[Any]:
    return Lanes(cast("Connection", sessions), cast("Callable[[remctl.Remctl, Any], object]", do))


def wait(session: Session, item: object) -> None:
    assert session.may_end.wait(10)
    if session.closed:
        raise remctl.RemctlNotOpenedError("it was closed")


def test_what_is_handed_over_is_done(connection: Connection) -> None:
    sessions = Sessions(2)
    lanes = lanes_over(sessions, wait)
    lanes.hand("a")
    lanes.hand("b")  # by the other: the first waits
    assert not sessions.free
    for session in sessions.all:
        session.may_end.set()
    lanes.end()
    assert sorted(lanes.done()) == ["a", "b"]
    assert lanes.done() == []
    assert len(sessions.given_back) == 2


def test_one_session_does_all_if_there_is_no_other() -> None:
    sessions = Sessions(1)
    lanes = lanes_over(sessions, wait)
    lanes.hand(0)
    handed = threading.Thread(target=lambda: [lanes.hand(number) for number in range(1, 5)])
    handed.start()
    assert sessions.refused.wait(10)
    sessions.all[0].may_end.set()
    handed.join(10)
    lanes.end()
    assert sorted(lanes.done()) == list(range(5))
    assert sessions.given_back == sessions.all


@pytest.mark.parametrize("error", [remctl.RemctlConnectError("refused"), RuntimeError("bug")])
def test_no_session_at_all(error: Exception) -> None:
    sessions = Sessions(0)
    sessions.error = error
    with pytest.raises(type(error), match=str(error)):
        lanes_over(sessions, wait).hand("a")


def test_what_is_no_refusal_is_told() -> None:
    sessions = Sessions(1)
    sessions.error = RuntimeError("bug")
    lanes = lanes_over(sessions, wait)
    lanes.hand("a")
    with pytest.raises(RuntimeError, match="bug"):
        lanes.hand("b")
    lanes.stop()


def test_the_first_error_is_the_one_that_is_told() -> None:
    sessions = Sessions(2)

    def fail(session: Session, item: str) -> None:
        if item == "bad":
            raise OSError("disk full")
        wait(session, item)

    lanes = lanes_over(sessions, fail)

    def use() -> None:
        lanes.hand("good")
        lanes.hand("bad")
        lanes.end()

    with pytest.raises(OSError, match="disk full"):
        use()
    lanes.stop()
    with pytest.raises(OSError, match="disk full"):
        lanes.end()
    assert sessions.given_back == []


def test_to_stop_ends_what_is_under_way() -> None:
    sessions = Sessions(2)
    lanes = lanes_over(sessions, wait)
    lanes.hand("a")
    lanes.hand("b")
    lanes.stop()
    assert all(session.closed for session in sessions.all)
    assert lanes.done() == []
    lanes.stop()


def test_a_session_that_was_given_back_is_not_closed() -> None:
    sessions = Sessions(1)
    sessions.slow_after.clear()
    lanes = lanes_over(sessions, lambda *_: None)
    lanes.hand("a")
    with lanes._changed:  # As in end(), which was interrupted then.
        lanes._ending = True
        lanes._changed.notify_all()
    eventually(lambda: sessions.given_back)
    timer = threading.Timer(0.1, sessions.slow_after.set)
    timer.start()
    lanes.stop()
    timer.join()
    assert not sessions.all[0].closed  # It may be another's by now.
