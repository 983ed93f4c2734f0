"""Links to a heading lead to one: in README.md and docs, on the same page or on another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose_of(page: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchor_of(heading: str) -> str:
    """As GitHub and MyST make it: small letters, dashes for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    return {anchor_of(each) for each in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    dead = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", prose_of(page)):
        other = page.parent / target if target else page
        if "://" not in target and anchor not in anchors_of(other):
            dead.append(f"{target}#{anchor}")
    assert dead == []


def test_an_anchor_is_made_as_the_pages_need_it() -> None:
    assert anchor_of("Who connects: remctl.py") == "who-connects-remctlpy"
    assert anchor_of("A Perl backend and this one") == "a-perl-backend-and-this-one"
    assert len(anchors_of(ROOT / "docs" / "errors.md")) > 10
