"""Find the calls in the C sources, and compare them with the tables in `calls.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .calls import FALLIBLE, NEVER_FAIL, UNREACHED

ROOT = Path(__file__).resolve().parent.parent.parent

NOT_CODE = re.compile(r"""/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*$", re.MULTILINE)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\(", re.MULTILINE)
# In the sources' layout, the line of a function's definition begins with its name.
DEFINITION = re.compile(r"^(\w+)\([^;]*?\)\s*\{", re.MULTILINE)
POINTER = re.compile(r"\(\*(\w+)\)\s*\(")  # the name of a pointer to a function
CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\((?!\*\w+\)\s*\()")
KEYWORDS = {"for", "if", "return", "sizeof", "switch", "void", "while"}


def sources(root: Path) -> list[Path]:
    """List the C sources of the extension."""
    return [root / "_remctl.c", *sorted((root / "src").glob("*.c"))]


def calls(texts: Iterable[str]) -> set[str]:
    """List the functions that these sources call and do not define."""
    called: set[str] = set()
    own = set(KEYWORDS)
    for text in texts:
        own.update(MACRO.findall(text))
        code = NOT_CODE.sub('""', DIRECTIVE.sub("", text))
        own.update(DEFINITION.findall(code))
        own.update(POINTER.findall(code))
        called.update(CALL.findall(code))
    return called - own


class Site(NamedTuple):
    """A call that can fail: its file and lines."""

    function: str
    file: str
    first: int
    last: int
    caller: str

    def __str__(self) -> str:
        return f"{self.function} {self.file}:{self.first}"

    def is_named(self, name: str) -> bool:
        """Return whether `faults.c` means this call; compilers may use any of its lines."""
        function, _, place = name.partition(" ")
        file, _, line = place.partition(":")
        same = (function, file) == self[:2]
        return same and self.first <= int(line) <= self.last


def sites(path: Path) -> Iterator[Site]:
    """List the calls in a source that can fail."""
    code = DIRECTIVE.sub(blank, NOT_CODE.sub(blank, path.read_text(encoding="utf-8")))
    definitions = list(DEFINITION.finditer(code))
    for call in CALL.finditer(code):
        if call[1] in FALLIBLE:
            caller = [each[1] for each in definitions if each.start() < call.start()][-1]
            end = call.end()
            depth = 1
            while depth:
                depth += {"(": 1, ")": -1}.get(code[end], 0)
                end += 1
            first, last = (code.count("\n", 0, place) + 1 for place in (call.start(), end))
            yield Site(call[1], path.name, first, last, caller)


def blank(match: re.Match[str]) -> str:
    """Remove a match, but keep its line breaks."""
    return "\n" * match[0].count("\n")


def spared(failed: set[str]) -> list[Site]:
    """List the calls that no scenario made fail."""
    all_sites = [site for path in sources(ROOT) for site in sites(path)]
    return [
        site
        for site in all_sites
        if (site.function, site.caller) not in UNREACHED
        and not any(site.is_named(name) for name in failed)
    ]


def complaints(called: set[str]) -> list[str]:
    """Return problems of the tables, given all functions that the sources call."""
    harmless = [name for names in NEVER_FAIL.values() for name in names.split()]
    known = {*FALLIBLE, *harmless}
    return [
        *(f"{name}() is in neither table of calls.py" for name in sorted(called - known)),
        *(f"{name}() is in both tables" for name in sorted(set(harmless) & set(FALLIBLE))),
        *(f"{name}() is in a table, but not called" for name in sorted(known - called)),
    ]
