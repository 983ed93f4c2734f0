"""A realm and a server for each test of credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from credentials.places import Place

from remctl_toolkit.testing import Realm, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS


@pytest.fixture
def place() -> Iterator[Place]:
    """A place that the test may break; its clock skew is longer than a user ticket's life."""
    with (
        Realm() as realm,
        realm.environ(),
        RemctldServer(realm, SAMPLE_COMMANDS, default_acl="anyuser:auth") as server,
    ):
        yield Place(realm, server)
