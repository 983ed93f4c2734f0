"""Fixtures that all tests share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _what_was_imported_is_not_looked_at_again() -> None:
    """Keep the collections below short."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _unclosed_connections_belong_to_their_test() -> Iterator[None]:
    """Let a connection that a test leaves open warn in that test, not in a later one."""
    yield
    gc.collect()
