"""The page that compares with other libraries: each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.nightly]

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "machine-peers.md"


def test_each_row_is_here_with_a_test_or_not_with_a_reason() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| They have", "|---"))]
    assert len(rows) >= 90
    for row in rows:
        _, feature, here, shown, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", row))
        assert feature
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", shown)
        for file, test in named:
            assert f"def {test}(" in (HERE / file).read_text(), row
        assert named or not here.startswith("yes"), row


def test_all_names_can_be_imported() -> None:
    from remctl_toolkit import machine

    assert {name: getattr(machine, name) for name in machine.__all__}.keys() == set(machine.__all__)
    with pytest.raises(AttributeError):
        _ = machine.nonsense
