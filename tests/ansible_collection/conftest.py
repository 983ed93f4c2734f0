"""Fixtures of the tests of the Ansible collection."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from ansible_collection.controller import Controller

from remctl_toolkit.testing import Realm, RemctldServer, machine_commands
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS


@pytest.fixture(scope="session")
def ansible_core() -> str:
    """The version of ansible-core; tests are skipped where it is not for this Python."""
    try:
        return metadata.version("ansible-core")
    except metadata.PackageNotFoundError:
        pytest.skip("ansible-core is not installed: it has no version for this Python")


@pytest.fixture(scope="session")
def server(ansible_core: str, remctl_realm: Realm) -> Iterator[RemctldServer]:
    """A server with the lines for Python and sh, and some commands."""
    with RemctldServer(remctl_realm, [*machine_commands(), *SAMPLE_COMMANDS]) as server:
        yield server


@pytest.fixture
def controller(server: RemctldServer, tmp_path: Path) -> Controller:
    """Ansible, with a host that is the server."""
    return Controller(server, tmp_path)
