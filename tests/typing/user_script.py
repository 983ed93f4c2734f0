"""A user's script with every public name and its type.

tests/test_type_checkers.py checks it with mypy and pyright. tests/test_typing.py runs it with an
assert_type() that looks at the values.
"""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, assert_type

import _remctl

import remctl


def constants() -> None:
    assert_type(remctl.VERSION, str)
    assert_type(remctl.__version__, str)
    assert_type(_remctl.VERSION, str)
    assert_type(remctl.PORT, int)
    assert_type(remctl.LEGACY_PORT, int)
    assert_type(remctl.RemctlStream(1), remctl.RemctlStream)
    assert_type(remctl.RemctlErrorCode(5), remctl.RemctlErrorCode)


def simple_interface(host: str, port: int) -> None:
    result = remctl.remctl(host, port, None, ("test", "streams"))
    assert_type(result, remctl.RemctlSimpleResult)
    assert_type(result.stdout, bytes | None)
    assert_type(result.stderr, bytes | None)
    assert_type(result.status, int | None)
    assert_type(result.check(), remctl.RemctlSimpleResult)
    assert_type(result.stdout_text(), str)
    assert_type(result.stderr_text("ascii", errors="replace"), str)
    assert_type(result.ok, bool)
    assert_type(result == remctl.RemctlSimpleResult(b"", None, 0), bool)

    kept = io.BytesIO()
    remctl.remctl(
        host=host,
        port=str(port),
        principal=f"host/{host}",
        command=["test", b"cat"],
        input=memoryview(b"data"),
        stdout=kept,
        stderr=sys.stderr.buffer,
        timeout=20.5,
        ccache=None,
        source_ip="127.0.0.1",
        deadline=60,
    )
    assert_type(kept.getvalue(), bytes)

    command = ["test", "streams"]
    remctl.remctl(host, port, command=command, stdout=subprocess.DEVNULL)
    remctl.remctl(host, port, command=command, stdout=kept, stderr=subprocess.STDOUT)
    remctl.remctl(host, port, command=["test", "cat"], input=io.BytesIO(b"data"))


class DefaultCache:
    """Credentials need not derive from anything."""

    def ccache(self) -> str:
        return os.environ["KRB5CCNAME"]


class DerivedCache(remctl.RemctlCredentials):
    """Credentials may derive from RemctlCredentials, and then have to have its method."""

    def ccache(self) -> str:
        return os.environ["KRB5CCNAME"]


def credentials_or_none(value: object) -> remctl.RemctlCredentials | None:
    return value if isinstance(value, remctl.RemctlCredentials) else None


def credentials(host: str, port: int) -> None:
    assert_type(credentials_or_none(DerivedCache()), remctl.RemctlCredentials | None)
    chosen: remctl.RemctlCredentials = DefaultCache()
    with remctl.Remctl(host, port, credentials=chosen) as connection:
        assert_type(connection.run(["test", "echo"]).status, int | None)


def command_parts(connection: remctl.Remctl) -> None:
    """Use all types of commands and of their items."""
    words = ["test", "echo"]
    connection.run(words)
    connection.run(tuple(words))
    connection.run(word for word in words)
    connection.run(["test", "echo", b"bytes", bytearray(b"more"), 7, 1.5, Path("/tmp")])
    connection.run({"test": 1, "echo": 2})


def full_interface(host: str, port: int) -> None:
    with remctl.Remctl(host, port, timeout=20) as connection:
        assert_type(connection, remctl.Remctl)
        assert_type(connection.opened, bool)
        assert_type(connection.fileno(), int)
        assert_type(connection.error(), str)
        assert_type(connection.noop(), bool)
        assert_type(connection.missing(), int)
        assert_type(connection.run(["test", "echo"]), remctl.RemctlSimpleResult)
        command_parts(connection)
        old_words(connection)
        as_it_arrives(connection)

    with remctl.Remctl(host, port, connect=False, keepalive=30) as connection:
        assert_type(connection.run(["test", "echo"], deadline=60).ok, bool)

    connection = remctl.Remctl()
    connection.set_timeout(20)
    connection.set_source_ip("127.0.0.1")
    connection.open(host, str(port), f"host/{host}")
    connection.set_ccache(Path("/nonexistent"))
    connection.set_ccache("MEMORY:nothing")
    connection.close()
    assert_type(connection.opened, bool)


def old_words(connection: remctl.Remctl) -> None:
    """Token by token, unpacked as in a program for the existing binding."""
    connection.command(["test", "streams"])
    token = connection.output()
    assert_type(token, remctl.RemctlToken)
    assert_type(token.type, Literal["output", "status", "error", "done"])
    assert_type(token.output, bytes | None)
    assert_type(token.stream, remctl.RemctlStream | None)
    assert_type(token.status, int | None)
    assert_type(token.error, remctl.RemctlErrorCode | int | None)
    while token.type == "output":
        token = connection.output()
    kind, output, stream, status, error = connection.output()
    assert_type(kind, Literal["output", "status", "error", "done"])
    assert_type((output, stream), tuple[bytes | None, remctl.RemctlStream | None])
    assert_type((status, error), tuple[int | None, remctl.RemctlErrorCode | int | None])


def as_it_arrives(connection: remctl.Remctl) -> None:
    tokens = connection.stream(["test", "cat"], input="text", deadline=60)
    assert_type(tokens, remctl.RemctlTokens)
    for token in tokens:
        if token.type == "output":
            assert_type(token.output, bytes)
            assert_type(token.stream, remctl.RemctlStream)
        else:
            assert_type(token.status, int)

    connection.command(["test", "echo"], input=b"octets")
    tokens = connection.tokens()
    assert_type(next(tokens).type, Literal["output", "status"])
    tokens.close()

    with connection.stream(["test", "echo"]) as tokens:
        show(next(tokens))
    with contextlib.closing(connection.stream(["test", "echo"])) as tokens:
        show(next(tokens))


def show(token: remctl.RemctlToken) -> None:
    """Use the attributes of each type of token."""
    match token.type:
        case "output":
            assert_type((token.output, token.stream), tuple[bytes, remctl.RemctlStream])
            assert_type((token.status, token.error), tuple[None, None])
        case "status":
            assert_type(token.status, int)
            assert_type((token.output, token.stream, token.error), tuple[None, None, None])
        case "error":
            assert_type(token.error, remctl.RemctlErrorCode | int)
            assert_type(token.output, bytes)
            assert_type((token.stream, token.status), tuple[None, None])
        case "done":
            assert_type((token.output, token.stream), tuple[None, None])
            assert_type((token.status, token.error), tuple[None, None])


def tokens_of_ones_own() -> None:
    """For tests: the constructor knows the types of tokens, too."""
    output = remctl.RemctlOutput("output", b"text", remctl.RemctlStream.STDOUT, None, None)
    assert_type(output.output, bytes)
    tokens: list[remctl.RemctlToken] = [
        output,
        remctl.RemctlOutput("status", None, None, 0, None),
        remctl.RemctlOutput("error", b"Access denied", None, None, remctl.RemctlErrorCode.ACCESS),
        remctl.RemctlOutput("done", None, None, None, None),
    ]
    for token in tokens:
        show(token)
    values: list[object] = [*tokens, 7]
    found = [value for value in values if isinstance(value, remctl.RemctlOutput)]
    assert_type(found, list[remctl.RemctlOutput])
    assert_type(len(found[0]), int)


def errors(host: str, port: int) -> None:
    try:
        remctl.remctl(host, port, command=["nonsense"])
    except remctl.RemctlServerError as error:
        assert_type(error.code, remctl.RemctlErrorCode | int)
        assert_type(error.errno, int | None)
        assert_type(error.value, str)
        assert_type(error.host, str | None)
        assert_type(error.port, int | None)
        assert_type(error.partial, remctl.RemctlSimpleResult | None)
        assert_type(error.may_have_run, bool)
        assert_type(error.advice, str)

    try:
        remctl.remctl(host, port, command=["test", "status", "3"]).check()
    except remctl.RemctlStatusError as error:
        assert_type(error.result, remctl.RemctlSimpleResult)
        assert_type(error.last_line, str)
        assert_type(error.result.last_line, str)

    try:
        remctl.remctl(host, port, command=["test", "sleep", 5], timeout=0.05)
    except TimeoutError as error:
        assert_type(error, TimeoutError)

    kinds: list[type[remctl.RemctlError]] = [
        remctl.RemctlAnswerError,
        remctl.RemctlAuthenticationError,
        remctl.RemctlBusyError,
        remctl.RemctlConnectError,
        remctl.RemctlDisconnectedError,
        remctl.RemctlNotOpenedError,
        remctl.RemctlProtocolError,
        remctl.RemctlTimeoutError,
    ]
    assert_type([kind("why").value for kind in kinds], list[str])


def read_to_the_end(handle: _remctl.Handle) -> None:
    while token := _remctl.remctl_output(handle):
        if token[0] == "output":
            assert_type(token[1], bytes | Any | None)
        elif token[0] == "status":
            assert_type(token[3], int | Any | None)
        elif token[0] == "error":
            assert_type(token[4], int | Any | None)
        else:
            break


def low_level_interface(host: str, port: int) -> None:
    error, stdout, stderr, status = _remctl.remctl(host, port, None, [b"test", b"streams"])
    assert_type(error, str | None)
    assert_type((stdout, stderr), tuple[bytes | None, bytes | None])
    assert_type(status, int)

    handle = _remctl.remctl_new()
    assert_type(handle, _remctl.Handle)
    assert_type(_remctl.remctl_set_timeout(handle, 20), bool)
    assert_type(_remctl.remctl_set_source_ip(handle, "127.0.0.1"), bool)
    assert_type(_remctl.remctl_open(handle, host, port), bool | Any)
    assert_type(handle.fd, int)
    assert_type(handle.errno, int)
    assert_type(handle.protocol, int)
    assert_type(handle.expecting, bool)
    assert_type((handle.connected, handle.blocking), tuple[bool, bool])
    assert_type(handle.failure, str)
    assert_type((handle.deadline, handle.keepalive), tuple[float, int])
    assert_type(handle.wants, tuple[int, float | None])
    assert_type(_remctl.fork_count(), int)
    assert_type(_remctl.remctl_commandv(handle, (b"test", bytearray(b"echo"))), bool | Any)
    read_to_the_end(handle)
    assert_type(_remctl.remctl_missing(handle), int)
    assert_type(_remctl.remctl_command(handle, [b"nonsense"]), bool | Any)
    read_to_the_end(handle)
    _remctl.remctl_close(handle)
    assert_type(handle.closed, bool)
    try:
        _remctl.remctl_noop(handle)
    except (_remctl.BusyError, _remctl.ClosedError) as error:
        assert_type(str(error), str)

    handle = _remctl.remctl_new()
    assert_type(_remctl.remctl_set_ccache(handle, "MEMORY:nothing"), bool)
    assert_type(_remctl.remctl_error(handle), str)
    more: list[Callable[..., Any]] = [
        _remctl.remctl_noop,
        _remctl.remctl_poll,
        _remctl.remctl_cancel,
    ]
    assert_type(len(more), int)


def main(host: str, port: int) -> None:
    constants()
    simple_interface(host, port)
    credentials(host, port)
    full_interface(host, port)
    tokens_of_ones_own()
    errors(host, port)
    low_level_interface(host, port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
