"""Fixtures that all tests share."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.heimdal_realm import use_chosen_kdc

# A shell ignores it for what it starts in the background, and all that starts here inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

use_chosen_kdc()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where nothing of a file would run, do not spend the time to read it, in each worker."""
    if config.option.markexpr != "not once" or collection_path.suffix != ".py":
        return None
    return "\npytestmark = pytest.mark.once\n" in collection_path.read_text() or None


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
