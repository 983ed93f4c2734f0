"""The pytest plugin: a realm and remctld servers as fixtures.

Fixtures: ``remctl_realm``, ``remctl_server`` and ``remctld``. If Kerberos or remctl programs are
missing, tests that use the fixtures are skipped, and the reason names the packages to install. With
the environment variable CI, the option ``--remctl-required`` or the setting ``remctl_required =
true`` in pytest's configuration file, they fail instead.

Every pytest run in an environment with this package imports this module. So, until a fixture is
used, it imports only what pytest has already loaded.
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
    """Type of the fixture ``remctld``: a function that starts a server."""

    def __call__(
        self, commands: Iterable[Command | BackendLike] | BackendLike = (), **settings: Any
    ) -> RemctldServer:
        """Start a server and return it.

        Args:
            commands: its commands and backends (`remctl_toolkit.backend.Backend`), or a single
                backend. See `remctl_toolkit.testing.backend_commands()`.
            settings: the keyword arguments of ``RemctldServer``.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--remctl-required`` and the setting ``remctl_required``."""
    text = "fail, instead of skipping, tests whose Kerberos or remctl programs are not installed"
    group = parser.getgroup("remctl", "a Kerberos realm and remctl servers for tests")
    group.addoption("--remctl-required", action="store_true", default=False, help=text)
    parser.addini("remctl_required", text, type="bool", default=False)


def _is_required(config: pytest.Config) -> bool:
    """Return whether missing programs are a failure."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false", "no")
    return in_ci or bool(config.getoption("remctl_required") or config.getini("remctl_required"))


def _check_programs(config: pytest.Config) -> None:
    """Skip or fail the current test if programs are missing."""
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

    Its KRB5_* variables are in os.environ until the session ends. A test that changes the realm
    (for example, stops its KDC) must undo that, or create its own Realm.
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
    - ``test sleep N`` sleeps for N seconds.
    - ``help`` lists them.
    """
    from .commands import SAMPLE_COMMANDS
    from .server import RemctldServer

    with RemctldServer(remctl_realm, SAMPLE_COMMANDS) as server:
        yield server


@pytest.fixture
def remctld(remctl_realm: Realm) -> Iterator[ServerFactory]:
    """A function that starts a remctld, which is stopped after the test.

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
    """Return a list of commands, with each backend replaced by its commands."""
    from .backends import backend_commands
    from .commands import Command

    if not isinstance(commands, Iterable):
        return backend_commands(commands)
    found: list[Command] = []
    for command in commands:
        found += [command] if isinstance(command, Command) else backend_commands(command)
    return found
