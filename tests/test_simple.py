"""`remctl.remctl()`: the simple interface of the contract, its keyword arguments and its result."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import pickle
import re
import socket
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer
from support.preload import preloaded
from support.proxy import refused_port
from support.subprocesses import in_child
from support.waiting import eventually, open_descriptors, resident_kib

import remctl
from remctl_toolkit.testing import Command

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer
    from remctl_toolkit.testing.plugin import ServerFactory

Run = Callable[..., remctl.RemctlSimpleResult]


@pytest.fixture
def run(remctl_server: RemctldServer) -> Run:
    """Call remctl() for the session's server."""

    def call(*command: Any, **keywords: Any) -> remctl.RemctlSimpleResult:
        return run_on(remctl_server, *command, **keywords)

    return call


def run_on(
    server: RemctldServer | FakeServer, *command: Any, **keywords: Any
) -> remctl.RemctlSimpleResult:
    return remctl.remctl("localhost", server.port, command=command, timeout=20, **keywords)


# The contract


def test_the_arguments_have_the_contracts_names_and_order(remctl_server: RemctldServer) -> None:
    names = list(inspect.signature(remctl.remctl).parameters)
    assert names[:4] == ["host", "port", "principal", "command"]
    place = (remctl_server.host, remctl_server.port, remctl_server.principal)
    command = ["test", "status", "3"]
    by_position = remctl.remctl(*place, command)
    by_name = remctl.remctl(command=command, principal=place[2], port=str(place[1]), host=place[0])
    assert by_position == by_name == remctl.RemctlSimpleResult(None, None, 3)


def test_each_stream_is_bytes_and_the_status_an_int(run: Run) -> None:
    result = run("test", "streams")
    assert type(result) is remctl.RemctlSimpleResult
    assert result.stdout == b"this is stdout\n"
    assert result.stderr == b"this is stderr\n"
    assert result.status == 0


def test_a_stream_that_produced_nothing_is_none_not_empty(run: Run) -> None:
    assert vars(run("test", "status", "0")) == {"stdout": None, "stderr": None, "status": 0}
    assert run("test", "echo").stdout == b"\n"
    assert run("test", "cat", "").stdout is None


def test_an_empty_output_token_is_nothing(remctl_realm: Realm) -> None:
    def say_nothing(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"", 1)
        peer.send_output(b"", 2)
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, say_nothing) as server:
        assert run_on(server, "test") == remctl.RemctlSimpleResult(None, None, 0)


@pytest.mark.parametrize("status", [0, 1, 64, 127, 128, 255])
def test_the_status_is_the_commands(run: Run, status: int) -> None:
    assert run("test", "status", status).status == status


def test_the_principal_is_the_hosts_unless_another_is_named(
    remctl_realm: Realm, remctld: ServerFactory
) -> None:
    server = remctld(
        [Command("test", script="echo ok")], principal=remctl_realm.add_host("alias.example")
    )
    with pytest.raises(remctl.RemctlAuthenticationError):
        run_on(server, "test")
    assert run_on(server, "test", principal="host/alias.example").stdout == b"ok\n"
    assert run_on(server, "test", principal=server.principal).stdout == b"ok\n"


def echo_without_a_port(port: int | str | None) -> bytes | None:
    return remctl.remctl("localhost", port, command=["test", "echo", "hello"], timeout=20).stdout


@pytest.mark.parametrize("no_port", [None, 0, "0"])
def test_without_a_port_the_registered_one_is_tried_first(
    remctl_server: RemctldServer, tmp_path: Path, no_port: int | str | None
) -> None:
    assert (remctl.PORT, remctl.LEGACY_PORT) == (4373, 4444)
    with preloaded("ports", tmp_path, FAKE_PORTS=f"4373={remctl_server.port} 4444=0"):
        assert in_child(echo_without_a_port, no_port) == b"hello\n"


def test_without_a_port_the_old_one_is_tried_next(
    remctl_server: RemctldServer, tmp_path: Path
) -> None:
    with preloaded("ports", tmp_path, FAKE_PORTS=f"4373=0 4444={remctl_server.port}"):
        assert in_child(echo_without_a_port, None) == b"hello\n"


def fail_without_a_port(host: str) -> remctl.RemctlError:
    with pytest.raises(remctl.RemctlError) as caught:
        remctl.remctl(host, command=["test"], timeout=20)
    return caught.value


def test_where_no_port_answers_the_registered_one_is_named(tmp_path: Path) -> None:
    with preloaded("ports", tmp_path, FAKE_PORTS="4373=0 4444=0"):
        error = in_child(fail_without_a_port, "127.0.0.1")
    assert type(error) is remctl.RemctlConnectError
    assert str(error) == "cannot connect to 127.0.0.1 (port 4373): Connection refused"


# Where from, as whom, for how long


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_families_of_addresses_work(remctld: ServerFactory, address: str) -> None:
    try:
        socket.create_server((address, 0), family=socket.getaddrinfo(address, 0)[0][0]).close()
    except OSError as error:
        pytest.skip(f"this machine has no {address}: {error}")
    server = remctld([Command("test", script="echo $REMOTE_ADDR")], address=address)
    result = remctl.remctl(address, server.port, server.principal, ["test"], source_ip=address)
    assert result.stdout_text().strip() == address


def test_the_source_address_is_where_the_connection_comes_from(remctld: ServerFactory) -> None:
    server = remctld([Command("test", script="echo $REMOTE_ADDR")])
    assert run_on(server, "test", source_ip="127.0.0.9").stdout == b"127.0.0.9\n"


def test_a_source_address_of_another_family_reaches_nobody(remctl_server: RemctldServer) -> None:
    reason = r"^cannot connect to 127\.0\.0\.1 \(port \d+\): Cannot assign requested address$"
    with pytest.raises(remctl.RemctlConnectError, match=reason):
        remctl.remctl("127.0.0.1", remctl_server.port, command=["test"], source_ip="::1")


def test_the_credential_cache_is_the_one_that_was_named(
    remctl_realm: Realm, remctld: ServerFactory
) -> None:
    server = remctld([Command("test", script="echo $REMOTE_USER")], default_acl="ANYUSER")
    somebody = remctl_realm.add_principal("somebody", "secret")
    cache = remctl_realm.kinit(somebody, ccache=remctl_realm.new_ccache())
    path = cache.removeprefix("FILE:")
    for named in (cache, path, Path(path)):
        assert run_on(server, "test", ccache=named).stdout_text().strip() == somebody
    assert run_on(server, "test").stdout_text().strip() == remctl_realm.user


def test_a_credential_cache_that_is_not_there_is_not_replaced_by_the_default(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(remctl.RemctlAuthenticationError):
        run("test", "echo", ccache=tmp_path / "none")


def test_a_silent_server_is_given_up_after_the_timeout(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, lambda peer: peer.stall()) as server,
        pytest.raises(remctl.RemctlTimeoutError),
    ):
        remctl.remctl("localhost", server.port, command=["test"], timeout=0.1)


# Standard input and files


def test_input_is_the_last_argument(run: Run) -> None:
    assert run("test", "cat", input=b"to be read").stdout == b"to be read"
    assert run("test", "echo", "one", input="two").stdout == b"one two\n"


def test_several_megabytes_with_nuls_arrive_whole(run: Run) -> None:
    data = bytes(range(256)) * 16 * 1024
    assert len(data) == 4 * 1024 * 1024
    result = run("test", "cat", input=data)
    assert result.stdout is not None
    assert len(result.stdout) == len(data)
    assert result.stdout == data


@pytest.fixture
def big_output(remctld: ServerFactory) -> RemctldServer:
    return remctld([Command("big", script='head -c "$1" /dev/zero; echo done >&2')])


def test_output_goes_to_files_as_it_arrives(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        result = run("test", "streams", stdout=out, stderr=err)
    assert result == remctl.RemctlSimpleResult(None, None, 0)
    assert (tmp_path / "out").read_bytes() == b"this is stdout\n"
    assert (tmp_path / "err").read_bytes() == b"this is stderr\n"
    memory = io.BytesIO()
    assert run("test", "streams", stdout=memory).stderr == b"this is stderr\n"
    assert memory.getvalue() == b"this is stdout\n"


def test_output_to_a_file_takes_no_memory(big_output: RemctldServer) -> None:
    size = 50_000_000

    class Sink(io.RawIOBase):
        written = peak = 0

        def write(self, data: Any) -> int:
            self.written += len(data)
            self.peak = max(self.peak, resident_kib())
            return len(data)

    run_on(big_output, "big", 1_000_000, stdout=Sink())
    sink, before = Sink(), resident_kib()
    result = run_on(big_output, "big", size, stdout=sink)
    assert (sink.written, result.stderr) == (size, b"done\n")
    assert sink.peak - before < size / 1024 / 10


def test_a_file_that_takes_little_at_a_time_loses_nothing(big_output: RemctldServer) -> None:
    class Slow(io.RawIOBase):
        """As a raw file may: a pipe, a disk that fills, a process limited in file size."""

        written = 0

        def write(self, data: Any) -> int:
            self.written += min(len(data), 1000)
            return min(len(data), 1000)

    slow = Slow()
    run_on(big_output, "big", 100_000, stdout=slow)
    assert slow.written == 100_000


def test_a_file_that_fails_ends_the_call(big_output: RemctldServer) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left"),
    ):
        run_on(big_output, "big", 1_000_000, stdout=full)


def test_a_text_file_is_refused_before_connecting() -> None:
    with refused_port() as nobody, tempfile.TemporaryFile("w") as text:
        for stream in ("stdout", "stderr"):
            files: dict[str, Any] = {stream: text}
            with pytest.raises(TypeError, match=f"^{stream} must be a binary file: "):
                remctl.remctl("localhost", nobody, command=["test"], **files)
        with pytest.raises(TypeError, match=r"^stdout must be a binary file, not str$"):
            remctl.remctl("localhost", nobody, command=["test"], stdout="name")  # type: ignore[arg-type]


# Results


def test_check_returns_what_succeeded_and_raises_for_what_did_not(run: Run) -> None:
    result = run("test", "echo", "hello")
    assert result.check() is result
    with pytest.raises(remctl.RemctlStatusError) as caught:
        run("test", "status", 3).check()
    assert str(caught.value) == "command exited with status 3"
    assert caught.value.result.status == 3


def test_the_last_line_of_standard_error_says_why_a_check_failed() -> None:
    result = remctl.RemctlSimpleResult(b"out", b"warning\nno such \xff account\r\n \n", 2)
    with pytest.raises(remctl.RemctlStatusError) as caught:
        result.check()
    assert caught.value.last_line == result.last_line == r"no such \xff account"
    assert caught.value.result is result


@pytest.mark.parametrize("stderr", [None, b"", b"\n", b" \r\n\t\n"])
def test_there_may_be_no_last_line(stderr: bytes | None) -> None:
    assert remctl.RemctlSimpleResult(b"out", stderr, 2).last_line == ""
    assert remctl.RemctlStatusError("by itself").last_line == ""


def test_a_failed_check_shows_no_output() -> None:
    octets = f"{SECRET}\n".encode()
    for status in (2, None):
        result = remctl.RemctlSimpleResult(octets, octets, status)
        with pytest.raises(remctl.RemctlStatusError) as caught:
            result.check()
        assert not any(SECRET in text for text in shown_of(caught.value))


def test_a_token_shows_no_output(remctl_server: RemctldServer) -> None:
    target = ("127.0.0.1", remctl_server.port, remctl_server.principal)
    with remctl.Remctl(*target) as connection:
        tokens = list(connection.stream(["test", "echo", SECRET]))
        connection.command(["none"])
        tokens.append(connection.output())
    assert SECRET not in repr(tokens)
    assert list(map(repr, tokens)) == [
        f"RemctlOutput(type='output', output=<{len(SECRET) + 1} bytes>,"
        " stream=<RemctlStream.STDOUT: 1>, status=None, error=None)",
        "RemctlOutput(type='status', output=None, stream=None, status=0, error=None)",
        "RemctlOutput(type='error', output=<15 bytes>, stream=None, status=None,"
        " error=<RemctlErrorCode.UNKNOWN_COMMAND: 5>)",
    ]


def test_output_is_decoded_on_request() -> None:
    result = remctl.RemctlSimpleResult("grün\n".encode(), "grün\n".encode("latin-1"), 0)
    assert result.stdout_text() == "grün\n"
    assert result.stderr_text("latin-1") == "grün\n"
    assert result.stderr_text(errors="replace") == "gr\ufffdn\n"
    with pytest.raises(UnicodeDecodeError):
        result.stderr_text()
    assert remctl.RemctlSimpleResult(None, None, 0).stdout_text() == ""
    assert remctl.RemctlSimpleResult(None, None, 0).stderr_text() == ""


def test_results_compare_copy_pickle_and_show_no_output() -> None:
    result = remctl.RemctlSimpleResult(b"secret", None, 1)
    assert result == remctl.RemctlSimpleResult(b"secret", None, 1)
    assert result != remctl.RemctlSimpleResult(b"secret", b"", 1)
    assert result != (b"secret", None, 1)
    assert copy.deepcopy(result) == result == pickle.loads(pickle.dumps(result))
    assert repr(result) == "<RemctlSimpleResult status=1, stdout=6 bytes, stderr=None>"


# What others get to see


def test_the_log_says_what_happened_and_how_long_it_took(
    remctl_server: RemctldServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="remctl")
    remctl.remctl("127.0.0.1", remctl_server.port, remctl_server.principal, ["test", "status", "7"])
    assert {record.name for record in caplog.records} == {"remctl"}
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    opened, sent, ended = caplog.messages
    assert re.fullmatch(r"opened a connection to 127\.0\.0\.1 in \d+\.\d ms", opened)
    assert sent == "sent command test status"
    assert ended.startswith("test status: status 7 in ")
    assert ended.endswith(" ms")


def told(error: BaseException) -> list[bytes]:
    """Everything that an exception gives away without looking at frames."""
    shown = shown_of(error)
    return [pickle.dumps(error), *(text.encode("utf-8", "backslashreplace") for text in shown)]


def shown_of(error: BaseException) -> list[str]:
    return [repr(error), str(error), *traceback.format_exception(error)]


SECRET = "canary-5cf1"


TOLD: dict[str, list[str | None]] = {
    "nothing but input": ["test"],
    "fine": ["test", "echo", SECRET],
    "failing": ["test", "none", SECRET],
    "refused": ["none", "none", SECRET],
    "nul in the subcommand": ["test", "nul\0", SECRET],
    "nul behind it": ["test", "echo", SECRET + "\0"],
    "none": ["test", "echo", SECRET, None],
    "surrogate": ["test", "echo", SECRET + "\ud800"],
    "too many": ["test", *[SECRET] * 5000],
}


@pytest.mark.parametrize("name", TOLD)
def test_no_argument_is_ever_told(run: Run, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.DEBUG)
    secret = SECRET.encode()
    found = []
    for keywords in ({}, {"input": SECRET}, {"input": SECRET.encode() + b"\0"}):
        try:
            found.append(repr(run(*TOLD[name], **keywords)).encode())
        except (remctl.RemctlError, TypeError, ValueError) as error:
            found += told(error)
    found += [repr(vars(record)).encode() for record in caplog.records]
    assert found
    assert [each for each in found if secret in each] == []


@pytest.mark.parametrize("ending", ["close", "nonsense", "stall"])
def test_no_argument_is_told_when_the_connection_fails(
    remctl_realm: Realm, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    def fail(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        if ending == "nonsense":
            peer.send_message(b"\2\x63")
        if ending == "stall":
            peer.stall()

    caplog.set_level(logging.DEBUG)
    with FakeServer(remctl_realm.keytab, fail) as server, pytest.raises(remctl.RemctlError) as got:
        remctl.remctl(
            "localhost", server.port, command=["test", "x", SECRET], input=SECRET, timeout=0.3
        )
    found = told(got.value) + [repr(vars(record)).encode() for record in caplog.records]
    assert [each for each in found if SECRET.encode() in each] == []


def test_a_call_uses_a_connection_once_and_closes_it(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        before = open_descriptors()
        for _ in range(3):
            run_on(server, "test")
        assert (server.connections, len(server.commands)) == (3, 3)
        # What the server still has open is gone as soon as it has seen the end.
        eventually(lambda: open_descriptors() <= before)
    assert server.errors == []
