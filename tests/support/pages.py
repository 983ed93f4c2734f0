"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A block of code.

    Attributes:
        line: the line of the page on which the block is opened.
        language: the word after the backticks.
        text: the code.
        follows: whether nothing stands between this block and the previous one.
    """

    line: int
    language: str
    text: str
    follows: bool


def blocks_of(page: Path) -> list[Block]:
    found = []
    text = page.read_text()
    end = 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, *match.groups(), not text[end : match.start()].strip()))
        end = match.end()
    return found


def is_test_file(block: Block) -> bool:
    """Return whether a block is a file of tests: its first line is the comment # test_NAME.py."""
    return block.language == "python" and block.text.startswith("# test_")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
