"""Fixtures that all tests share."""

import gc
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.heimdal_realm import use_chosen_kdc

# A shell ignores it for what it starts in the background, and all that starts here inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

use_chosen_kdc()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs what runs every night."""
    parser.addoption(
        "--everything", action="store_true", help="run the tests that are marked nightly as well"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked nightly, unless its file or folder is named."""
    if config.option.everything or config.args != config.getini("testpaths"):
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if not item.get_closest_marker("nightly")]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip reading a file if none of its tests would run: each worker would spend the time."""
    if config.option.markexpr != "not once" or collection_path.suffix != ".py":
        return None
    marks = re.search(r"^pytestmark = (.*)$", collection_path.read_text(), re.MULTILINE)
    return bool(marks and "pytest.mark.once" in marks[1]) or None


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
