"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli.fleets import Hosts

from remctl_toolkit.testing import Realm


@pytest.fixture(scope="session")
def hosts(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Hosts for the tests of remctl-fleet."""
    with Hosts(remctl_realm, tmp_path_factory.mktemp("resolver")) as hosts:
        yield hosts
