"""Channels to hosts that send malformed data, hang, or lack the necessary programs."""

from __future__ import annotations

import compileall
import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.remote_traces import traces
from support.subprocesses import LIMIT
from support.waiting import eventually, runs

import remctl
import remctl_toolkit
from remctl_toolkit.machine import Channel, ChannelError, Connection, Machine, MachineError
from remctl_toolkit.machine.channel import channel as channels
from remctl_toolkit.machine.channel import keeper as keepers
from remctl_toolkit.machine.files import sending, transfer
from remctl_toolkit.machine.wire.both_frames import frame
from remctl_toolkit.testing import Command, RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

EVER = 1e6  # seconds
HELLO = frame(b"H", 0, b"/tmp/.remctl-0\n4000000\n4000001")


# -- Malformed data -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def liar(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A connection whose host is honest until a test sets its reply."""
    said = tmp_path_factory.mktemp("liar") / "said"
    script = f"#!/bin/sh\n[ ! -e {said} ] || {{ cat {said}; exit; }}\n"
    script += 'exec /usr/bin/python3 "$@"\n'
    line = Command("python", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal, shell=None) as connection,
    ):
        yield connection, said


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", "keeper process ended: status 0"),
        (b"Traceback (most recent call last):", "does not begin a frame"),
        (HELLO[:9], "keeper process ended: status 0"),
        (HELLO, "keeper process ended: status 0"),
        (HELLO + HELLO, "a malformed greeting"),
        (frame(b"H", 0, b"/tmp/x\n1"), "a malformed greeting"),
        (frame(b"H", 0, b"tmp\n1\n1"), "a malformed greeting"),
        (frame(b"H", 0, b"/tmp/x\n1\n" + b"9" * 5000), "a malformed greeting"),
        (HELLO + frame(b"X", 0, b"one"), "a malformed status"),
        (HELLO + frame(b"X", 0, b"1" * 5000), "a malformed status"),
        (HELLO + frame(b"X", 0, b"256"), "a malformed status"),
        (frame(b"X", 0, b"0"), "a malformed status"),
        (HELLO + frame(b"C", 4_000_000_000, b"x"), "a program that was not sent"),
        (HELLO + b"O" + bytes(4) + b"\xff" * 4, "does not begin a frame"),
        (HELLO + frame(b"\x1b"), "does not begin a frame"),
        (frame(b"F", 0, b"\x1b[31m\n"), r"cannot start a command .*\\x1b\[31m"),
        (frame(b"D", 0, b"\x1b[31m"), r"cannot change .*\\x1b\[31m"),
    ],
    ids=range(17),
)
def test_what_it_must_not_send_is_one_error(liar: Any, octets: bytes, text: str) -> None:
    connection, said = liar
    said.write_bytes(octets)
    try:
        with (
            pytest.raises(MachineError, match=text) as caught,
            Channel(connection, ["cat"]) as channel,
        ):
            channel.wait()
        assert str(caught.value).isprintable()
        assert caught.value.host == connection.host
    finally:
        said.unlink()


def test_signs_of_life_are_no_start(liar: Any) -> None:
    connection, said = liar
    os.mkfifo(said)

    def beat() -> None:
        with open(said, "wb", 0) as file, contextlib.suppress(BrokenPipeError):
            while True:
                file.write(frame(b"B"))
                time.sleep(0.02)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        with pytest.raises(ChannelError, match=r"it did not start within 0\.3 seconds"):
            Channel(connection, ["cat"], beat=0.1, patience=0.3)
        thread.join(LIMIT)
        assert not thread.is_alive()
    finally:
        said.unlink()


def test_an_upload_does_not_wait_for_the_end_of_its_reply(
    remctl_realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes all, tells a status, and is alive ever after."""
    monkeypatch.setattr(sending, "_BATCH", 1000)
    monkeypatch.setattr(sending, "STARTS_AND_ENDS", 1.0)
    (tmp_path / "status").write_bytes(HELLO + frame(b"X", 0, b"0"))
    (tmp_path / "beat").write_bytes(frame(b"B"))
    (tmp_path / "large").write_bytes(bytes(5000))
    script = (
        "#!/bin/sh\n"
        f"cd {tmp_path}\n"
        '[ -e now ] || exec /usr/bin/python3 "$@"\n'
        '[ "$4" = upload ] || exec cat >/dev/null\n'
        "cat status; while cat beat; do sleep 0.02; done\n"
    )
    line = Command("python", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal, shell=None) as connection,
    ):
        (tmp_path / "now").touch()
        with pytest.raises(remctl.RemctlTimeoutError, match="did not take the upload in time"):
            transfer.upload(connection, tmp_path / "large", "/copy", timeout=0.1)


def test_it_cannot_fill_our_memory_with_programs(liar: Any) -> None:
    connection, said = liar
    said.write_bytes(HELLO + b"".join(frame(b"C", 0, bytes(1 << 20)) for _ in range(100)))
    try:
        with Channel(connection, ["cat"]) as channel, pytest.raises(ChannelError):
            channel.wait()
    finally:
        said.unlink()
    assert sum(map(len, connection.compiled.values())) <= 1 << 20
    connection.compiled.clear()


# -- Hosts that hang ------------------------------------------------------------------------------


@pytest.fixture
def hanging(remctl_realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemctldServer]:
    """A server that is frozen by the test; nothing but the limit for closing ends a wait for it."""
    monkeypatch.setattr(keepers, "CLOSE_LIMIT", 0.3)
    with RemctldServer(remctl_realm, machine_commands()) as server:
        try:
            yield server
        finally:
            server.thaw()


def test_closing_does_not_wait_for_it(hanging: RemctldServer) -> None:
    with Connection(hanging.host, hanging.port, hanging.principal) as connection:
        channels = [Channel(connection, ["cat"], beat=0.2, patience=EVER) for _ in range(3)]
        there = [traces(channel) for channel in channels]
        hanging.freeze()
        for channel in channels:
            channel.close()
        hanging.thaw()
        eventually(lambda: all(each.gone() for each in there))


def test_closing_a_machine_does_not_wait_for_it(
    hanging: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "CLOSE_LIMIT", EVER)
    monkeypatch.setattr("remctl_toolkit.machine.plumbum.machine._CLOSE_LIMIT", 0.3)
    machine = Machine(hanging.host, hanging.port, hanging.principal)
    process: Any = machine["cat"].popen()
    process.stdin.flush()
    waiting = machine["sleep"]["100"].popen(stdin=subprocess.DEVNULL)
    eventually(lambda: waiting.poll() is None and waiting.pid)
    hanging.freeze()
    machine.close()
    assert machine.closed


def test_dropping_a_machine_does_not_wait_for_it(
    hanging: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "CLOSE_LIMIT", EVER)
    machine = Machine(hanging.host, hanging.port, hanging.principal)
    pid = machine.call(os.getpid)
    hanging.freeze()
    del machine
    gc.collect()
    hanging.thaw()
    eventually(lambda: not runs(pid))


@pytest.mark.filterwarnings("error")
def test_dropping_a_session_asks_nothing_of_it(
    hanging: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking: list[int] = []
    send_control = keepers.send_control

    def note(*args: Any) -> None:
        asking.append(threading.get_ident())
        send_control(*args)

    monkeypatch.setattr(keepers, "send_control", note)
    with Machine(hanging.host, hanging.port, hanging.principal) as machine:
        session = machine.session()
        pid = session.proc.pid
        hanging.freeze()
        del session
        gc.collect()
        assert threading.get_ident() not in asking
        hanging.thaw()
        eventually(lambda: not runs(pid))


def test_reading_and_writing_do_not_wait_for_longer_than_they_may(connection: Connection) -> None:
    with Channel(connection, ["sleep", "1000"]) as channel:
        with pytest.raises(TimeoutError, match=r"did not read within 0\.1 seconds"):
            channel.write(bytes(5 << 20), timeout=0.1)
        for read in (channel.read, channel.read_stderr):
            with pytest.raises(TimeoutError, match=r"no data within 0\.1 seconds"):
                read(timeout=0.1)
        assert channel.poll() is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_dropping_waits_for_no_lock(connection: Connection) -> None:
    channel = Channel(connection, ["sh", "-c", "echo ready; exec yes"], beat=0.2)
    there = traces(channel)
    stdout = channel._stdout
    eventually(lambda: len(stdout.octets) >= channels.LIMIT)
    keeper = channel._keeper
    assert keeper is not None
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with keeper.changed, connection._pool._ledger.lock:
            held.set()
            go_on.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LIMIT)
    del channel
    gc.collect()
    assert keeper._errand.stopped
    go_on.set()
    thread.join()
    eventually(there.gone)


# -- Programs that end without close() ------------------------------------------------------------

ENDS = {
    "session": "left = machine.session(); left.run('echo x')",
    "interpreter": "machine.call(os.getpid)",
    "process": "left = machine['cat'].popen(); left.stdin.flush()",
    "writer": """
left = Channel(machine.connection, ["sleep", "1000"])
threading.Thread(target=left.write, args=(bytes(9 << 20),), daemon=True).start()
""",
}


@pytest.mark.parametrize("way", ENDS)
def test_a_program_ends_after_an_exception(server: RemctldServer, way: str) -> None:
    program = f"""
import os, sys, threading
from remctl_toolkit.machine import Channel, Machine
from remctl_toolkit.machine.call import link
from remctl_toolkit.machine.channel import keeper
link._END_WAIT = keeper.CLOSE_LIMIT = 1e6  # Who waits for an end, waits for ever.
machine = Machine(sys.argv[1], int(sys.argv[2]), sys.argv[3])
{ENDS[way]}
raise ValueError("uncaught")
"""
    arguments = server.host, str(server.port), server.principal
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: uncaught")


# -- Installations --------------------------------------------------------------------------------

PROGRAM = """
import sys
import remctl
import remctl_toolkit
from remctl_toolkit.machine import Channel, Connection, MachineError
if not remctl_toolkit.__file__.startswith(sys.argv[4]):
    sys.exit(remctl_toolkit.__file__)
try:
    with Connection(sys.argv[1], int(sys.argv[2]), sys.argv[3]) as connection:
        with Channel(connection, ["cat"]) as channel:
            channel.write(b"works")
            channel.close_write()
            print(channel.read_exactly(5).decode(), connection.run(["true"], timeout=60).status)
except MachineError as error:
    print(error)
"""


def run_installed(folder: Path, server: RemctldServer, *options: str) -> str:
    modules = Path(remctl_toolkit.__file__).parent.parent
    path = os.pathsep.join([str(folder), str(modules)])
    arguments = server.host, str(server.port), server.principal, str(folder)
    done = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    return done.stdout


def copy_toolkit(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    copy = folder / "remctl_toolkit"
    shutil.copytree(Path(remctl_toolkit.__file__).parent, copy, ignore=ignored)
    return copy


def test_it_works_from_a_zip_file_and_optimised(server: RemctldServer, tmp_path: Path) -> None:
    copy = copy_toolkit(tmp_path / "copy")
    with zipfile.ZipFile(tmp_path / "toolkit.zip", "w") as archive:
        for path in copy.rglob("*.py"):
            archive.write(path, path.relative_to(copy.parent))
    shutil.rmtree(copy)
    assert run_installed(tmp_path / "toolkit.zip", server) == "works 0\n"
    assert run_installed(tmp_path / "toolkit.zip", server, "-OO") == "works 0\n"


def test_without_sources_it_says_what_is_missing(server: RemctldServer, tmp_path: Path) -> None:
    copy = copy_toolkit(tmp_path)
    compileall.compile_dir(copy, quiet=2, legacy=True)
    for path in copy.rglob("*.py"):
        path.unlink()
    text = r"machine/base/far_probe\.py, which runs on the server, is not installed: install"
    assert re.search(text, run_installed(tmp_path, server))
