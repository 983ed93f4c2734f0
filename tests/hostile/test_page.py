"""The page about hostile peers agrees with the cases."""

from __future__ import annotations

import pytest

from hostile import page
from hostile.expected import CASES, UNASKED, State
from hostile.faults import FAULTS

pytestmark = [pytest.mark.once, pytest.mark.nightly]


def test_page_agrees_with_the_cases() -> None:
    assert page.written() == page.render(), "run PYTHONPATH=tests python -m hostile.page"


def test_every_fault_is_told_and_tried() -> None:
    text = page.written()
    tried = {case.fault.name for case in CASES}
    for fault in FAULTS:
        assert f"\n| {fault.name} |" in text
        assert fault.name in tried
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_nobody_asked_for_never_matters(version: int) -> None:
    """The page says so in its text; its tables have no columns for these states."""
    for state in UNASKED:
        word = "closed" if state is State.CLOSE else "reopened"
        assert page.words(version, state) == {word}
