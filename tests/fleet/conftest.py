"""Fixtures for the tests of fleets: hosts, and a check that no fleet outlives its test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.farm import Farm, fleet_threads
from support.waiting import eventually

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm


@pytest.fixture
def farm(remctl_realm: Realm) -> Iterator[Farm]:
    """Many hosts, of each kind as many as asked for."""
    with Farm(remctl_realm) as farm:
        yield farm


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """The test ends with the fleet's threads gone."""
    yield
    eventually(lambda: fleet_threads() == [], what="no threads of fleets")
