"""Machines for the tests: a remctld with the lines that a machine needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from machine.call_pipes import PipeInterpreter

from remctl_toolkit.machine import Connection, Machine
from remctl_toolkit.testing import RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Set back the levels that remoto's connections set: other tests have the same hosts."""
    yield
    for name in ("localhost", "127.0.0.1", "hostname"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def server(remctl_realm: Realm) -> Iterator[RemctldServer]:
    """A server with the line for Python and the one for sh."""
    with RemctldServer(remctl_realm, machine_commands()) as server:
        yield server


@pytest.fixture(scope="module")
def connection(server: RemctldServer) -> Iterator[Connection]:
    """A connection that may use both lines."""
    with Connection(server.host, server.port, server.principal) as connection:
        yield connection


@pytest.fixture(scope="module")
def python_only(server: RemctldServer) -> Iterator[Connection]:
    """A connection that has the line for Python alone."""
    with Connection(server.host, server.port, server.principal, shell=None) as connection:
        yield connection


@pytest.fixture(scope="module", params=["sh", "python"])
def either(request: pytest.FixtureRequest) -> Connection:
    """One after the other."""
    name = "connection" if request.param == "sh" else "python_only"
    found: Connection = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="module")
def machine(either: Connection) -> Iterator[Machine]:
    """A machine over one connection after the other."""
    with Machine.over(either) as machine:
        yield machine


@pytest.fixture
def far_log(server: RemctldServer) -> Callable[[], str]:
    """Return what remctld has logged so far."""
    return lambda: server.log


@pytest.fixture
def own() -> Iterator[PipeInterpreter]:
    """An interpreter over pipes, for one test."""
    with PipeInterpreter(sys.executable) as interpreter:
        yield interpreter
