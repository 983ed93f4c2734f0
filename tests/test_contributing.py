"""The pages for contributors name files and tests that are there; the changelog has its form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "contributing.md"

pytestmark = [pytest.mark.once, pytest.mark.nightly]


@pytest.mark.skipif(not (ROOT / "stress").exists(), reason="an sdist lacks some of them")
@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_tests_that_are_named_are_there(page: Path) -> None:
    text = page.read_text()
    files = re.findall(r"(?<![\w/.])(?:\w[\w-]*/)+[\w./-]*\w", text)
    for name in {name.rstrip(".") for name in files if "NAME" not in name}:
        assert (ROOT / name).exists(), f"{page.name}: {name}"
    for name, test in re.findall(r"`([\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / name).read_text(), f"{page.name}: {test}"


# -- CHANGELOG.md ---------------------------------------------------------------------------------

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_changelog_has_its_form() -> None:
    """Kinds in order, one line for each change, nothing twice."""
    text = (ROOT / "CHANGELOG.md").read_text()
    _, *versions = re.split(r"^## ", text, flags=re.MULTILINE)
    for version in versions:
        title = version.partition("\n")[0]
        assert re.fullmatch(r"Unreleased|\d+\.\d+\.\d+((a|b|rc)\d+)? \(\d{4}-\d\d-\d\d\)", title)
        kinds = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        changes = [line for line in version.splitlines()[1:] if line and line[0] != "#"]
        changes = [line for line in changes if not re.fullmatch(r"\w[\w ]+:", line)]
        assert [line for line in changes if not re.fullmatch(r"- .{,127}\.", line)] == []
        assert len(set(changes)) == len(changes)
