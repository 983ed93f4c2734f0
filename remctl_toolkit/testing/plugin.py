"""The pytest plugin: a realm and remctld servers as fixtures.

Fixtures: ``remctl_realm``, ``remctl_server`` and ``remctld``. On a machine without the Kerberos or
remctl programs, tests that use them are skipped, with the names of the packages to install; they
fail instead when the environment variable CI is set, or with ``--remctl-required``, or with
``remctl_required = true`` in pytest's configuration file: a skip that nobody reads is no test.

This module is imported by every pytest run of an environment it is installed in, so it imports
nothing that pytest has not loaded already until a fixture is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from .backends import BackendLike
    from .commands import Command
    from .realm import Realm
    from .server import RemctldServer

__all__ = ["ServerFactory", "remctl_realm", "remctl_server", "remctld"]


class ServerFactory(Protocol):
    """What the fixture ``remctld`` is: call it to have a server."""

    def __call__(
        self, commands: Iterable[Command | BackendLike] | BackendLike = (), **settings: Any
    ) -> RemctldServer:
        """Start a server and return it.

        Args:
            commands: what it can run: commands and backends (`remctl_toolkit.backend.Backend`), or
                a single backend. See `remctl_toolkit.testing.backend_commands()`.
            settings: the keyword arguments of ``RemctldServer``.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--remctl-required`` and the setting ``remctl_required``."""
    text = "fail, not skip, tests that need Kerberos or remctl programs which are not installed"
    group = parser.getgroup("remctl", "a Kerberos realm and remctl servers for tests")
    group.addoption("--remctl-required", action="store_true", default=False, help=text)
    parser.addini("remctl_required", text, type="bool", default=False)


def _is_required(config: pytest.Config) -> bool:
    """Whether missing programs are a failure."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false", "no")
    return in_ci or bool(config.getoption("remctl_required") or config.getini("remctl_required"))


def _check_programs(config: pytest.Config) -> None:
    """Skip or fail the test that asked for a fixture when programs are missing."""
    from .programs import REALM_PROGRAMS, SERVER_PROGRAMS, MissingPrograms, find

    try:
        find(*REALM_PROGRAMS, *SERVER_PROGRAMS)
    except MissingPrograms as missing:
        if _is_required(config):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def remctl_realm(request: pytest.FixtureRequest) -> Iterator[Realm]:
    """A Kerberos realm (Realm) with a ticket for its user, for the whole session.

    The KRB5_* variables that lead to it are in os.environ until the session ends. A test that
    changes the realm (stops its KDC, say) must put it right, or make a Realm of its own.
    """
    _check_programs(request.config)
    from .realm import Realm

    with Realm() as realm, realm.environ():
        yield realm


@pytest.fixture(scope="session")
def remctl_server(remctl_realm: Realm) -> Iterator[RemctldServer]:
    """A running remctld (RemctldServer) with a few commands, for the whole session.

    - ``test echo WORDS...`` prints the words.
    - ``test cat DATA`` prints its last argument, which it gets on standard input.
    - ``test env`` prints the environment of the command (REMOTE_USER and so on).
    - ``test status N`` ends with exit status N.
    - ``test streams`` prints a line to each of stdout and stderr.
    - ``test sleep N`` takes N seconds.
    - ``help`` lists them.
    """
    from .commands import SAMPLE_COMMANDS
    from .server import RemctldServer

    with RemctldServer(remctl_realm, SAMPLE_COMMANDS) as server:
        yield server


@pytest.fixture
def remctld(remctl_realm: Realm) -> Iterator[ServerFactory]:
    """A function that starts a remctld of the test's own; it is stopped after the test.

    ``server = remctld([Command("test", "echo", "/bin/echo")])``, or ``remctld(backend)`` for a
    `remctl_toolkit.backend.Backend`; keyword arguments are those of RemctldServer. It can be called
    more than once.
    """
    from .server import RemctldServer

    with ExitStack() as stack:

        def start(
            commands: Iterable[Command | BackendLike] | BackendLike = (), **settings: Any
        ) -> RemctldServer:
            server = RemctldServer(remctl_realm, _commands(commands), **settings)
            return stack.enter_context(server)

        yield start


def _commands(commands: Iterable[Command | BackendLike] | BackendLike) -> list[Command]:
    """Return commands, those of backends in their place."""
    from .backends import backend_commands
    from .commands import Command

    if not isinstance(commands, Iterable):
        return backend_commands(commands)
    found: list[Command] = []
    for command in commands:
        found += [command] if isinstance(command, Command) else backend_commands(command)
    return found
