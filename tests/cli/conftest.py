"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli.fleets import Hosts

from remctl_toolkit.testing import Realm


@pytest.fixture(scope="session")
def hosts(remctl_realm: Realm) -> Iterator[Hosts]:
    """The hosts of the tests of remctl-fleet."""
    with Hosts(remctl_realm) as hosts:
        yield hosts
