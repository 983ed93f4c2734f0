"""remctl-rsh: tunnels, a connection in place of a command, and the background."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli.rsh import Bridge, bridge, first_line, sha256
from support.waiting import eventually, runs
from testing.processes import TIMEOUT

from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def rsh(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridge(remctl_realm, tmp_path_factory.mktemp("rsh")) as found:
        yield found


@pytest.fixture
def greeter() -> Iterator[int]:
    """A port that sends a greeting to each client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    with near:
                        near.sendall(b"welcome\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)


def greeting(address: tuple[str, int] | str) -> bytes:
    """Return the greeting of a port, as soon as something listens on it."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    end = time.monotonic() + TIMEOUT
    while True:
        with socket.socket(family) as near:
            near.settimeout(TIMEOUT)
            try:
                near.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end
                time.sleep(0.01)
                continue
            with near.makefile("rb") as file:
                return file.read()


def test_tunnel_to_the_other_side(rsh: Bridge, greeter: int, tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    with rsh.popen("-N", "-v", "-L", f"{path}:localhost:{greeter}", rsh.host) as process:
        assert greeting(path) == b"welcome\n"
        process.terminate()
        assert process.wait(TIMEOUT) == -signal.SIGTERM
    assert not os.path.exists(path)


def test_tunnel_from_the_other_side(rsh: Bridge, greeter: int) -> None:
    """Without -N, a command runs at the same time."""
    with rsh.popen(f"-oRemoteForward=0 localhost:{greeter}", rsh.host, "cat") as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        found = re.fullmatch(rf"Allocated port (\d+) for remote forward to .*:{greeter}\n", line)
        assert found
        assert greeting(("127.0.0.1", int(found[1]))) == b"welcome\n"
        out, _ = process.communicate(b"words", timeout=TIMEOUT)
    assert (out, process.returncode) == (b"words", 0)


def test_tunnel_from_a_port_that_is_taken(rsh: Bridge, greeter: int) -> None:
    done = rsh.sh("echo", f"-L127.0.0.1:{greeter}:localhost:1")
    assert done.returncode == 255
    assert done.stdout == b""
    assert b"remctl-rsh: cannot listen on 127.0.0.1" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_tunnels_end_with_the_server(remctl_realm: Realm, tmp_path: Path) -> None:
    with bridge(remctl_realm, tmp_path) as own:
        process = own.popen("-N", "-L", f"{tmp_path}/socket:localhost:1", own.host)
        eventually((tmp_path / "socket").exists, TIMEOUT)
        own.server.kill()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 255
    assert errors.startswith(b"remctl-rsh: ")
    assert errors.count(b"\n") == 1


def test_standard_streams_are_a_connection_with_w(rsh: Bridge, tmp_path: Path) -> None:
    """Each direction ends independently."""
    data = random.Random(2).randbytes(1_000_000)

    def answer(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near, near.makefile("rb") as file:
            near.sendall(sha256(file.read()) + data)

    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, f"{tmp_path}/s")):
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            name = listener.getsockname()
            place = name if isinstance(name, str) else f"[127.0.0.1]:{name[1]}"
            thread = threading.Thread(target=answer, args=[listener])
            thread.start()
            done = rsh.run("-NW", place, rsh.host, input=data)  # -N goes without saying
            thread.join(TIMEOUT)
        assert (done.stdout, done.stderr, done.returncode) == (sha256(data) + data, b"", 0)


def test_connection_that_cannot_be_made_with_w(rsh: Bridge) -> None:
    done = rsh.run("-W", "localhost:1", rsh.host)
    text = b"remctl-rsh: the server cannot connect to localhost:1: Connection refused\n"
    assert (done.stdout, done.stderr, done.returncode) == (b"", text, 255)
    done = rsh.run("-W", "nowhere.invalid:1", rsh.host)
    assert b"the server cannot connect to nowhere.invalid:1: " in done.stderr
    assert done.returncode == 255


# -- In the background ----------------------------------------------------------------------------


def background_pid(word: str) -> int:
    """Return the process that has a word in its command line, and whose parent is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    [pid] = found
    return pid


def test_background_is_entered_when_the_command_has_started(rsh: Bridge, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f"echo $$; cat; read -r line <{go}; echo $line"
    with rsh.popen("-f", rsh.host, script) as process:
        assert process.wait(TIMEOUT) == 0
        pid = int(first_line(process))
        assert runs(pid)
        go.write_text("on\n")
        assert process.stdout is not None
        assert process.stdout.read() == b"on\n"
        assert process.stderr is not None
        assert process.stderr.read() == b""
    eventually(lambda: not runs(pid))


def test_background_is_not_entered_if_the_command_cannot_start(rsh: Bridge, greeter: int) -> None:
    done = rsh.sh("echo", "-f", "--python", "missing")
    assert done.returncode == 255
    assert b"remctl command 'missing': Unknown command" in done.stderr
    done = rsh.run("-f", "-N", f"-L127.0.0.1:{greeter}:localhost:1", rsh.host)
    assert done.returncode == 255
    assert b"cannot listen on 127.0.0.1" in done.stderr


def test_tunnel_in_the_background(rsh: Bridge, greeter: int, tmp_path: Path) -> None:
    """The tunnel is open when the foreground process ends."""
    path = f"{tmp_path}/socket"
    with rsh.popen("-f", "-N", "-L", f"{path}:localhost:{greeter}", rsh.host) as process:
        assert process.wait(TIMEOUT) == 0
        assert os.path.exists(path)
        assert greeting(path) == b"welcome\n"
        os.kill(background_pid(path), signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not os.path.exists(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_it_is_on_the_way_to_the_background(rsh: Bridge, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = str(deaf.getsockname()[1])
        with rsh.popen("-f", "-p", port, "127.0.0.1", "true") as process:
            near, _ = deaf.accept()
            with near:
                near.settimeout(TIMEOUT)
                process.send_signal(number)
                assert process.wait(TIMEOUT) == -number
                while near.recv(4096):  # until nobody is left who would go on
                    pass
