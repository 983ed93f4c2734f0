"""Defects of the existing binding (3.18) and of libremctl below it: each is kept out by a test.

Some are tested where their subject is: waits in test_waits.py, descriptors beyond 1023 in
test_timeouts.py, the GIL and closing during a call in test_threads.py, the child's QUIT in
test_fork.py, None in unused fields of tokens in test_low_level.py, limits of a command in
test_arguments.py, what noop() returns in test_protocols.py, contexts left behind by a second open
in test_leaks.py.
"""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _remctl
import pytest
from support.fakeserver import FakeServer
from support.waiting import eventually

import remctl
from remctl_toolkit.testing import Command
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer
    from remctl_toolkit.testing.plugin import ServerFactory

pytestmark = pytest.mark.once


@pytest.fixture
def session(remctl_server: RemctldServer) -> Iterator[remctl.Remctl]:
    with remctl.Remctl("localhost", remctl_server.port, timeout=20) as session:
        yield session


def run_python(program: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that may crash."""
    paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def churn() -> None:
    """Put other text where freed text was."""
    keep = [f"{number:0{length}d}" for number in range(200) for length in range(8, 64)]
    del keep
    gc.collect()


def test_a_reopened_session_connects_to_the_named_host_not_to_freed_memory(
    remctld: ServerFactory,
) -> None:
    server = remctld(SAMPLE_COMMANDS)
    names = [bytearray(b"localhost"), bytearray(server.principal, "ascii")]
    session = remctl.Remctl(timeout=20)
    session.open(names[0].decode(), str(server.port), names[1].decode())
    with session:
        for _ in range(5):
            server.restart()
            select.select([session], [], [], 10)  # Until the end of the stream is there.
            churn()
            assert session.run(["test", "echo", "here"]).stdout == b"here\n"


def test_exit_status_200_is_not_minus_56(remctl_server: RemctldServer) -> None:
    command = ["test", "status", "200"]
    assert remctl.remctl("localhost", remctl_server.port, command=command).status == 200
    result = _remctl.remctl("localhost", remctl_server.port, None, [c.encode() for c in command])
    assert result[3] == 200


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_an_argument_is_not_cut_at_a_nul(remctl_realm: Realm, protocol: int) -> None:
    command: list[str | bytes] = ["test", "x", b"hello\0x", "\0", b"\0\0"]
    with FakeServer(remctl_realm.keytab, protocol=protocol) as server:
        remctl.remctl("localhost", server.port, command=command, timeout=20)
        _remctl.remctl("localhost", server.port, None, [b"test", b"hello\0x"])
        assert server.commands == [
            [b"test", b"x", b"hello\0x", b"\0", b"\0\0"],
            [b"test", b"hello\0x"],
        ]


def test_simple_errors_are_text_not_the_repr_of_bytes(remctl_server: RemctldServer) -> None:
    with pytest.raises(remctl.RemctlProtocolError) as caught:
        remctl.remctl("localhost", remctl_server.port, command=["none"])
    assert str(caught.value) == caught.value.value == "Unknown command"
    assert _remctl.remctl("localhost", remctl_server.port, None, [b"none"])[0] == "Unknown command"


def test_simple_errors_have_their_code(remctl_server: RemctldServer) -> None:
    with pytest.raises(remctl.RemctlServerError) as caught:
        remctl.remctl("localhost", remctl_server.port, command=["none"])
    assert caught.value.code == 5


def test_exceptions_have_the_value_of_the_contract() -> None:
    with pytest.raises(remctl.RemctlError) as caught:
        remctl.Remctl().set_timeout(-1)
    assert caught.value.value == "invalid timeout -1"


def test_things_that_str_converts_are_arguments_as_the_contract_says(
    session: remctl.Remctl,
) -> None:
    words: list[Any] = ["test", "echo", 7, Path("/tmp"), b"octets"]
    assert session.run(words).stdout == b"7 /tmp octets\n"


CLOSE = """
import sys, _remctl
handle = _remctl.remctl_new()
assert _remctl.remctl_open(handle, "localhost", int(sys.argv[1]))
_remctl.remctl_close(handle)
_remctl.remctl_close(handle)
for call in (_remctl.remctl_output, _remctl.remctl_noop, _remctl.remctl_error):
    try:
        call(handle)
    except ValueError:
        print("refused")
del handle
"""


def test_closing_and_then_dropping_a_handle_is_no_double_free(
    remctl_server: RemctldServer, tmp_path: Path
) -> None:
    done = run_python(CLOSE, tmp_path, remctl_server.port)
    assert (done.returncode, done.stdout) == (0, "refused\n" * 3), done.stderr


@pytest.mark.parametrize(
    "command",
    [(b"test", b"status", b"0"), iter([b"test", b"status", b"0"]), None, 3, "text", [None], {1: 2}],
    ids=["tuple", "iterator", "none", "int", "str", "list-of-none", "dict"],
)
def test_a_command_that_is_not_a_list_of_bytes_is_no_system_error(
    remctl_server: RemctldServer, command: object
) -> None:
    call: Callable[..., object] = _remctl.remctl
    try:
        result = call("localhost", remctl_server.port, None, command)
    except TypeError:
        return
    assert result == (None, None, None, 0)


def test_what_is_not_a_handle_is_no_crash_and_no_capsule(remctl_server: RemctldServer) -> None:
    import datetime  # Has a capsule to offer.

    call: Callable[..., object] = _remctl.remctl_output
    with pytest.raises(TypeError, match="handle"):
        call(datetime.datetime_CAPI)


@pytest.mark.parametrize("port", [65536, 70000, 2**31, 2**63 - 1])
def test_a_port_does_not_wrap_round(port: int) -> None:
    with pytest.raises(ValueError, match=f"^invalid port number: {port}$"):
        _remctl.remctl("localhost", port, None, [b"test"])
    with pytest.raises(ValueError, match=f"^invalid port number: {port}$"):
        remctl.remctl("localhost", port, command=["test"])


def test_a_source_that_is_no_address_is_said_at_once_not_at_the_next_open() -> None:
    with pytest.raises(ValueError, match="must be an IP address"):
        remctl.Remctl().set_source_ip("nonsense")


def test_a_session_does_not_wait_for_delayed_acknowledgements(remctld: ServerFactory) -> None:
    server = remctld([Command("test", "echo", program="/bin/echo")])

    def quarter() -> float:
        """The seconds that a quarter of the commands take at most."""
        taken = []
        for _ in range(30):
            start = time.perf_counter()
            assert session.run(["test", "echo"]).status == 0
            taken.append(time.perf_counter() - start)
        return sorted(taken)[len(taken) // 4]

    with remctl.Remctl("localhost", server.port, timeout=20) as session:
        # Each would take 40 ms and more, however often; a busy machine has other reasons.
        eventually(lambda: quarter() < 0.035, interval=0)


UNCLOSED = """
import sys, remctl
session = remctl.Remctl("localhost", int(sys.argv[1]))
other = remctl.Remctl("localhost", int(sys.argv[1]))
other.command(["test", "sleep", "30"])
"""


def test_a_program_that_ends_with_open_sessions_ends_quietly(
    remctl_server: RemctldServer, tmp_path: Path
) -> None:
    """As programs written for the existing binding do, and nothing was said."""
    start = time.monotonic()
    done = run_python(UNCLOSED, tmp_path, remctl_server.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 20
