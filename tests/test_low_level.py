"""`_remctl`, the extension: what each function takes, gives and refuses, and who owns what."""

from __future__ import annotations

import array
import importlib.util
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import _remctl
import pytest
from support.fakeserver import FakeServer, Peer, serve
from support.preload import preloaded
from support.subprocesses import in_child
from support.waiting import eventually

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

Target = tuple[str, int, str]

# Every function, with arguments that are right once the handle is.
OF_A_HANDLE: dict[str, tuple[Any, ...]] = {
    "remctl_open": ("localhost", 1, None),
    "remctl_command": ([b"test"],),
    "remctl_commandv": ([b"test"],),
    "remctl_output": (),
    "remctl_missing": (),
    "remctl_noop": (),
    "remctl_error": (),
    "remctl_set_ccache": ("FILE:/nowhere",),
    "remctl_set_source_ip": ("127.0.0.1",),
    "remctl_set_timeout": (1,),
}


def function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(_remctl, name)
    return found


@pytest.fixture
def target(remctl_server: RemctldServer) -> Target:
    return remctl_server.host, remctl_server.port, remctl_server.principal


@pytest.fixture
def handle(target: Target) -> _remctl.Handle:
    """A handle that is open."""
    handle = _remctl.remctl_new()
    assert _remctl.remctl_set_timeout(handle, 20)
    assert _remctl.remctl_open(handle, *target), _remctl.remctl_error(handle)
    return handle


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def tokens(handle: _remctl.Handle) -> list[tuple[Any, ...]]:
    """Read to the end of the command."""
    found: list[Any] = [_remctl.remctl_output(handle)]
    while found[-1][0] == "output":
        found.append(_remctl.remctl_output(handle))
    return found


# Shapes of results


def test_the_simple_call_returns_error_stdout_stderr_and_status(target: Target) -> None:
    assert _remctl.remctl(*target, [b"test", b"streams"]) == (
        None,
        b"this is stdout\n",
        b"this is stderr\n",
        0,
    )
    assert _remctl.remctl(*target, [b"test", b"status", b"3"]) == (None, None, None, 3)
    assert _remctl.remctl(*target, [b"none"]) == ("Unknown command", None, None, 0)
    assert _remctl.remctl(*target, []) == ("cannot send empty command", None, None, 0)


def test_a_simple_call_that_cannot_connect_returns_the_reason() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        error, *rest = _remctl.remctl("127.0.0.1", port, None, [b"test"])
    assert error == f"cannot connect to 127.0.0.1 (port {port}): Connection refused"
    assert rest == [None, None, 0]


def test_what_a_token_has_not_is_none(handle: _remctl.Handle) -> None:
    assert _remctl.remctl_commandv(handle, [b"test", b"streams"]) is True
    assert sorted(tokens(handle)) == [
        ("output", b"this is stderr\n", 2, None, None),
        ("output", b"this is stdout\n", 1, None, None),
        ("status", None, None, 0, None),
    ]
    assert _remctl.remctl_output(handle) == ("done", None, None, None, None)
    assert _remctl.remctl_commandv(handle, [b"none"]) is True
    assert tokens(handle) == [("error", b"Unknown command", None, None, 5)]
    assert _remctl.remctl_output(handle) == ("done", None, None, None, None)


@pytest.mark.parametrize("status", [0, 1, 127, 128, 200, 255])
def test_a_status_is_not_negative(handle: _remctl.Handle, status: int) -> None:
    assert _remctl.remctl_commandv(handle, [b"test", b"status", str(status).encode()])
    assert _remctl.remctl_output(handle) == ("status", None, None, status, None)


def test_success_is_true_and_failure_is_false(handle: _remctl.Handle) -> None:
    assert _remctl.remctl_noop(handle) is True
    assert _remctl.remctl_set_ccache(handle, "FILE:/nowhere") is True
    assert _remctl.remctl_set_source_ip(handle, "127.0.0.1") is True
    assert _remctl.remctl_set_timeout(handle, 0) is True
    assert _remctl.remctl_set_timeout(handle, 0.25) is True
    assert _remctl.remctl_set_timeout(handle, -5) is False
    assert _remctl.remctl_error(handle) == "invalid timeout -5"
    assert _remctl.remctl_command(handle, []) is False
    assert _remctl.remctl_error(handle) == "cannot send empty command"


def test_a_handle_that_is_not_open_says_so_and_does_not_raise() -> None:
    handle = _remctl.remctl_new()
    assert _remctl.remctl_error(handle) == "no error"
    assert _remctl.remctl_output(handle) == ()
    assert _remctl.remctl_commandv(handle, [b"test"]) is False
    assert _remctl.remctl_noop(handle) is False
    assert _remctl.remctl_error(handle) == "no connection open"
    assert _remctl.remctl_open(handle, "no-such-host.invalid", 1) is False
    assert _remctl.remctl_error(handle).startswith("unknown host no-such-host.invalid: ")


def test_the_version_is_the_modules() -> None:
    assert _remctl.VERSION == remctl.VERSION == remctl.__version__


# What is refused


@pytest.mark.parametrize("name", sorted(OF_A_HANDLE))
@pytest.mark.parametrize("wrong", [None, 3, "handle"], ids=repr)
def test_what_is_not_a_handle_is_a_type_error(name: str, wrong: object) -> None:
    with pytest.raises(TypeError):
        function(name)(wrong, *OF_A_HANDLE[name])


@pytest.mark.parametrize("name", sorted(OF_A_HANDLE))
def test_a_closed_handle_is_a_value_error(name: str) -> None:
    handle = _remctl.remctl_new()
    _remctl.remctl_close(handle)
    with pytest.raises(ValueError, match="closed"):
        function(name)(handle, *OF_A_HANDLE[name])
    assert handle.closed
    assert repr(handle) == "<_remctl.Handle closed>"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("remctl_open", (b"localhost", 1, None)),
        ("remctl_open", ("localhost", "1", None)),
        ("remctl_open", ("localhost", 1, b"host/localhost")),
        ("remctl_open", ()),
        ("remctl_commandv", (None,)),
        ("remctl_commandv", ([b"test", "text"],)),
        ("remctl_commandv", ([b"test", None],)),
        ("remctl_command", (["text"],)),
        ("remctl_command", ()),
        ("remctl_set_ccache", (None,)),
        ("remctl_set_source_ip", (1,)),
        ("remctl_set_timeout", ("soon",)),
        ("remctl_output", (1,)),
    ],
)
def test_a_wrong_type_is_a_type_error(
    handle: _remctl.Handle, name: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(TypeError):
        function(name)(handle, *arguments)
    assert _remctl.remctl_noop(handle), "the connection is still usable"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("remctl_open", ("localhost", -1, None)),
        ("remctl_open", ("localhost", 65536, None)),
        ("remctl_open", ("local\0host", 1, None)),
        ("remctl_set_ccache", ("FILE:\0",)),
    ],
)
def test_a_value_that_cannot_be_right_is_a_value_error(
    name: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        function(name)(_remctl.remctl_new(), *arguments)


def test_remctl_command_refuses_what_c_would_cut_short(handle: _remctl.Handle) -> None:
    with pytest.raises(ValueError, match=r"^argument 2 .* NUL"):
        _remctl.remctl_command(handle, [b"test", b"echo", b"hello\0world"])
    assert not handle.expecting, "nothing was sent"
    assert _remctl.remctl_command(handle, (b"test", b"echo", b"hello"))
    assert tokens(handle)[0][:2] == ("output", b"hello\n")


def test_handles_come_from_remctl_new_alone() -> None:
    with pytest.raises(TypeError):
        type(_remctl.remctl_new())()
    with pytest.raises((AttributeError, TypeError)):
        setattr(type(_remctl.remctl_new()), "fd", 3)  # noqa: B010  (mypy knows better)


# Buffers


@pytest.mark.parametrize(
    "argument",
    [
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh"),
        memoryview(b"..abcdefgh")[2:],
        memoryview(b"abcdefgh").cast("B", (2, 4)),
        array.array("B", b"abcdefgh"),
        memoryview(b"abcdefgh").cast("I"),
    ],
    ids=["bytearray", "memoryview", "slice", "matrix", "array", "words"],
)
def test_any_contiguous_buffer_is_an_argument(handle: _remctl.Handle, argument: object) -> None:
    assert function("remctl_commandv")(handle, [b"test", b"echo", argument])
    assert tokens(handle)[0][:2] == ("output", b"abcdefgh\n")


def test_a_buffer_with_gaps_is_a_buffer_error(handle: _remctl.Handle) -> None:
    with pytest.raises(BufferError):
        _remctl.remctl_commandv(handle, [b"test", b"echo", memoryview(b"abcdefgh")[::2]])
    assert _remctl.remctl_noop(handle)


def test_a_command_cannot_change_while_it_is_sent(remctl_realm: Realm) -> None:
    go_on = threading.Event()

    def late(peer: Peer) -> None:
        assert go_on.wait(20)
        serve()(peer)

    changing = bytearray(b"argument")
    command: list[bytes | bytearray] = [b"test", b"echo", changing]
    answers: list[Any] = []
    with FakeServer(remctl_realm.keytab, late) as server:
        caller = threading.Thread(
            target=lambda: answers.append(_remctl.remctl("localhost", server.port, None, command))
        )
        caller.start()
        while server.connections == 0:  # From then on the arguments are borrowed.
            caller.join(0.01)
        with pytest.raises(BufferError):
            changing.append(0)
        command.clear()
        go_on.set()
        caller.join(20)
        assert server.commands == [[b"test", b"echo", b"argument"]]
    assert answers == [(None, b"test echo argument\n", None, 0)]
    changing.append(0)


def test_a_failed_command_gives_its_buffers_back(handle: _remctl.Handle) -> None:
    lent = bytearray(b"lent")
    with pytest.raises(TypeError):
        function("remctl_commandv")(handle, [lent, None])
    with pytest.raises(ValueError, match="NUL"):
        _remctl.remctl_command(handle, [lent, b"\0"])
    assert not _remctl.remctl_commandv(_remctl.remctl_new(), [lent])
    lent.append(0)


def is_given_back(lent: bytearray) -> bool:
    """Return whether the buffer is free.  Dropping a handle releases the buffers of threads."""
    _remctl.remctl_new()
    try:
        lent.append(0)
    except BufferError:
        return False
    return True


@pytest.mark.parametrize(
    "end", [_remctl.remctl_cancel, _remctl.remctl_close], ids=["cancel", "close"]
)
def test_a_large_command_is_not_copied_but_lent_until_its_thread_has_ended(
    remctl_server: RemctldServer, handle: _remctl.Handle, end: Callable[[_remctl.Handle], None]
) -> None:
    much = bytearray(16 * 1024 * 1024)
    handle.blocking = False
    remctl_server.freeze()
    try:
        assert _remctl.remctl_commandv(handle, [b"test", b"cat", much]) is None
        assert not is_given_back(much)
        end(handle)
        if end is _remctl.remctl_close:
            assert _remctl.remctl_poll(handle, True) is False
            assert handle.failure == "closed"
    finally:
        remctl_server.thaw()
    eventually(lambda: is_given_back(much))


def test_a_large_command_is_given_back_when_it_was_sent(handle: _remctl.Handle) -> None:
    much = bytearray(4 * 1024 * 1024)
    assert _remctl.remctl_commandv(handle, [b"test", b"cat", much])
    much.append(0)
    assert sum(len(token[1]) for token in tokens(handle) if token[0] == "output") == 4 * 1024 * 1024


# Handles and descriptors


def test_a_handle_shows_its_state(handle: _remctl.Handle) -> None:
    assert repr(handle) == f"<_remctl.Handle fd={handle.fd}>"
    assert (handle.protocol, handle.expecting, handle.closed) == (2, False, False)
    assert _remctl.remctl_commandv(handle, [b"test", b"status", b"0"])
    assert repr(handle.expecting) == "True"
    assert _remctl.remctl_commandv(handle, [b"test"]) is False
    assert "still running" in _remctl.remctl_error(handle)
    tokens(handle)
    assert not handle.expecting
    with pytest.raises(AttributeError):
        setattr(handle, "fd", 1)  # noqa: B010  (mypy knows better)


def test_closing_twice_is_harmless(handle: _remctl.Handle) -> None:
    descriptor = handle.fd
    _remctl.remctl_close(handle)
    assert not is_open(descriptor)
    with socket.socket() as other:  # It may get the number: closing again must leave it alone.
        _remctl.remctl_close(handle)
        assert is_open(other.fileno())
    assert (handle.fd, handle.closed) == (-1, True)


def test_a_handle_that_is_dropped_closes_its_descriptor(target: Target) -> None:
    handle = _remctl.remctl_new()
    assert _remctl.remctl_open(handle, *target)
    descriptor = handle.fd
    assert not os.get_inheritable(descriptor)
    del handle
    assert not is_open(descriptor)


def test_an_operation_that_does_not_block_names_what_it_waits_for(
    remctl_server: RemctldServer, handle: _remctl.Handle
) -> None:
    handle.blocking = False
    remctl_server.freeze()
    try:
        assert _remctl.remctl_noop(handle) is None
        with pytest.raises(_remctl.BusyError):
            _remctl.remctl_noop(handle)
    finally:
        remctl_server.thaw()
    answer = None
    while answer is None:
        descriptor, seconds = handle.wants
        answer = _remctl.remctl_poll(handle, bool(select.select([descriptor], [], [], seconds)[0]))
    assert answer is True
    with pytest.raises(ValueError, match="no operation has been begun"):
        _remctl.remctl_poll(handle, True)


def test_an_operation_that_is_cancelled_ends_the_connection(handle: _remctl.Handle) -> None:
    handle.blocking = False
    assert _remctl.remctl_commandv(handle, [b"test", b"sleep", b"30"]) is True
    assert _remctl.remctl_output(handle) is None
    descriptor = handle.fd
    _remctl.remctl_cancel(handle)
    assert not is_open(descriptor)
    assert not handle.connected
    assert _remctl.remctl_output(handle) == ()
    assert handle.failure == "disconnected"


def open_without_a_port(host: str, principal: str) -> str:
    """Open a handle; return the reason where that fails."""
    handle = _remctl.remctl_new()
    return "" if _remctl.remctl_open(handle, host, 0, principal) else _remctl.remctl_error(handle)


def test_without_a_port_both_are_tried(target: Target, tmp_path: Path) -> None:
    host, port, principal = target
    with preloaded("ports", tmp_path, FAKE_PORTS=f"4373=0 4444={port}"):
        assert in_child(open_without_a_port, host, principal) == ""


def test_where_no_port_answers_the_first_reason_counts(target: Target, tmp_path: Path) -> None:
    host, _, principal = target
    with preloaded("ports", tmp_path, FAKE_PORTS="4373=0 4444=0"):
        reason = in_child(open_without_a_port, host, principal)
    assert reason == f"cannot connect to {host} (port 4373): Connection refused"


# More than one module


def load_again() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_remctl", _remctl.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_loads_of_the_module_share_nothing(target: Target) -> None:
    first, second = load_again(), load_again()
    assert first is not second
    assert first.Handle is not second.Handle
    handle = first.remctl_new()
    with pytest.raises(TypeError):
        second.remctl_error(handle)
    assert first.remctl_open(handle, *target)
    del first.Handle, first
    assert second.remctl(*target, [b"test", b"status", b"3"]) == (None, None, None, 3)
    assert not hasattr(second, "remctl_unknown")


SUBINTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
    new = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    new = lambda: interpreters.create(isolated=False)
import _remctl
mine = _remctl.remctl_new()
target = (sys.argv[1], int(sys.argv[2]), sys.argv[3])
code = "import sys; sys.path[:] = %r; import _remctl; print(_remctl.remctl(*%r), flush=True)"
for _ in range(2):
    number = new()
    call = (*target, [b"test", b"echo", b"x"])
    failed = interpreters.run_string(number, code % (sys.path, call))
    assert failed is None, failed
    interpreters.destroy(number)
assert _remctl.remctl_open(mine, *target)
"""


def test_each_subinterpreter_has_a_module_of_its_own(target: Target, tmp_path: Path) -> None:
    paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SUBINTERPRETERS, *map(str, target)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(None, b'x\\n', None, 0)\n" * 2
