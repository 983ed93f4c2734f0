"""The picture of remctl-fleet at work: it shows what the page says that is printed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import groupby
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.nightly]

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURE = DOCS / "pictures" / "remctl-fleet.svg"


def lines_of(picture: Path) -> list[str]:
    """The lines of the terminal: each is one or more texts at the same height."""
    matrix = next(
        element
        for element in ET.fromstring(picture.read_text()).iter()
        if (element.get("class") or "").endswith("-matrix")
    )
    cell = 12.2  # how wide a character is drawn
    texts = list(matrix.iter("{http://www.w3.org/2000/svg}text"))
    found = []
    for _, line in groupby(texts, key=lambda text: text.attrib["y"]):
        drawn = ""
        for text in line:
            column = round(float(text.attrib["x"]) / cell)
            drawn = drawn.ljust(column) + (text.text or "").replace("\xa0", " ")
        found.append(drawn.rstrip())
    return found


def test_the_picture_shows_what_the_page_says() -> None:
    page = (DOCS / "remctl-fleet.md").read_text()
    said = re.search(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert said is not None
    typed, *shown, ask, status = lines_of(PICTURE)
    assert typed.startswith("$ remctl-fleet ")
    assert shown == said[1].splitlines()
    assert (ask, status) == ("$ echo $?", "1")


def test_it_asks_nobody_for_fonts() -> None:
    text = PICTURE.read_text()
    assert "url(http" not in text
    assert "@import" not in text
