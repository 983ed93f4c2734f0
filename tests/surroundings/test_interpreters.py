"""Subinterpreters: legacy ones run commands; isolated ones do, or raise a clear ImportError."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer
from support.subprocesses import in_child

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

DOCS = Path(__file__).resolve().parents[2] / "docs"
LIMIT = 20.0  # seconds after which a wait has failed

CALL = """
import remctl
result = remctl.remctl("localhost", {port}, command=["simple"], timeout={limit})
assert result.stdout == b"simple\\n", result
with remctl.Remctl("localhost", {port}, timeout={limit}) as session:
    assert session.run(["session"]).stdout == b"session\\n"
    assert session.noop()
try:
    remctl.remctl("127.0.0.1", 1, command=["refused"], timeout={limit})
except remctl.RemctlConnectError:
    pass
else:
    raise AssertionError("port 1 answers")
"""

CALL_ASYNC = """
import asyncio
from remctl_toolkit.aio import aremctl
result = asyncio.run(aremctl("localhost", {port}, command=["async"], timeout={limit}))
assert result.stdout == b"async\\n", result
"""

# Reports the error of a failed import; other failures raise.
TRY_CALL = """
import os
try:
    import remctl
except ImportError as error:
    os.write({answer}, b"ImportError: " + str(error).encode())
else:
    call = remctl.remctl("localhost", {port}, command=["simple"], timeout={limit})
    os.write({answer}, call.stdout)
"""


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


def run_in_interpreter(program: str, isolated: bool) -> None:
    """Run a program in a new subinterpreter, which is destroyed afterwards."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    interpreters: Any = importlib.import_module(name)
    if sys.version_info >= (3, 13):
        number = interpreters.create("isolated" if isolated else "legacy")
        failure = interpreters.exec(number, program)
        assert failure is None, failure.formatted
    else:
        number = interpreters.create(isolated=isolated)
        # Python 3.12 raises what the program raised; 3.11 raises RunFailedError.
        interpreters.run_string(number, program)
    interpreters.destroy(number)


def call_in_interpreters(program: str, times: int, remctl_first: bool) -> None:
    if remctl_first:
        importlib.import_module("remctl")
    for _ in range(times):
        run_in_interpreter(program, isolated=False)


@pytest.mark.parametrize("remctl_first", [False, True], ids=["alone", "after the main one"])
def test_legacy_subinterpreters_run_commands(server: FakeServer, remctl_first: bool) -> None:
    program = CALL.format(port=server.port, limit=LIMIT)
    in_child(call_in_interpreters, program, 2, remctl_first)
    assert server.commands == [[b"simple"], [b"session"]] * 2


def test_legacy_subinterpreters_run_commands_with_asyncio(server: FakeServer) -> None:
    in_child(call_in_interpreters, CALL_ASYNC.format(port=server.port, limit=LIMIT), 2, False)
    assert server.commands == [[b"async"]] * 2


def leave_session_in_interpreter(port: int) -> None:
    """Destroy an interpreter with an open session, and go on in the main one."""
    remctl = importlib.import_module("remctl")
    program = f"""
import remctl, warnings
warnings.simplefilter("ignore", ResourceWarning)
kept = remctl.Remctl("localhost", {port}, timeout={LIMIT})
"""
    with remctl.Remctl("localhost", port, timeout=LIMIT) as session:
        run_in_interpreter(program, isolated=False)
        assert session.run(["main"]).stdout == b"main\n"


def test_an_interpreter_that_is_destroyed_takes_its_sessions_along(server: FakeServer) -> None:
    in_child(leave_session_in_interpreter, server.port)
    assert server.commands == [[b"main"]]


def call_isolated(port: int, remctl_first: bool) -> bytes:
    if remctl_first:
        importlib.import_module("remctl")
    reader, writer = os.pipe()
    run_in_interpreter(TRY_CALL.format(port=port, limit=LIMIT, answer=writer), isolated=True)
    return os.read(reader, 1000)


@pytest.mark.parametrize("remctl_first", [False, True], ids=["alone", "after the main one"])
def test_isolated_subinterpreters_work_or_say_why_not(
    server: FakeServer, remctl_first: bool
) -> None:
    answer = in_child(call_isolated, server.port, remctl_first)
    if answer != b"simple\n":
        assert b"_remctl" in answer
        assert b"subinterpreters" in answer
        assert any("isolated subinterpreter" in page.read_text() for page in DOCS.glob("*.md"))
