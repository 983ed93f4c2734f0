"""The rooms of the house: who imports whom, and the picture of it in docs/how-it-works.md."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "house.svg"
# Files that are parts of a room next to them.
PARTS = {
    "_host_run": "fleet",
    "_settings": "schedule",
    "_watch": "aio",
    "_hosts_errors": "hosts",
    "_hosts_folding": "hosts",
    "_hosts_groups": "hosts",
    "_hosts_identity": "hosts",
    "_hosts_named": "hosts",
    "_hosts_patterns": "hosts",
    "_hosts_table": "hosts",
    "_pool_async": "pool",
    "_pool_base": "pool",
    "_pool_ledger": "pool",
    "_pool_map": "pool",
}


def room_of(module: str) -> str:
    """remctl, _remctl, or a room of remctl_toolkit; anything else is no room, which is ""."""
    first, *rest = module.split(".")
    if first in ("remctl", "_remctl"):
        return first
    room = rest[0] if first == "remctl_toolkit" and rest else ""
    return PARTS.get(room, room)


def imported(file: Path) -> Iterator[str]:
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_the_arrows_are_the_imports() -> None:
    uses = set()
    for file in [ROOT / "remctl.py", *(ROOT / "remctl_toolkit").rglob("*.py")]:
        room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        uses |= {(room, room_of(module)) for module in imported(file)}
    uses = {(room, used) for room, used in uses if used not in ("", room)}
    picture = ET.fromstring(PICTURE.read_text())
    arrows = [
        element.attrib["data-uses"] for element in picture.iter() if "data-uses" in element.attrib
    ]
    assert uses == {tuple(arrow.split()) for arrow in arrows}


def test_arrows_point_down() -> None:
    """Nobody skips a floor, imports a command, or needs the realm."""
    rooms = ROOT / "remctl_toolkit"
    wrong = []
    for path in rooms.rglob("*.py"):
        room = path.relative_to(rooms).parts[0]
        above = ["remctl_toolkit.cli"] if room != "cli" else []
        if room not in ("cli", "testing"):
            above.append("remctl_toolkit.testing")
        for name in imported(path):
            skips = name == "_remctl" or name.startswith("_remctl.")
            if skips or any(f"{name}.".startswith(f"{each}.") for each in above):
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def circles(files: list[Path]) -> set[str]:
    """Return the files that lead back to themselves by what they import, at once or later on."""
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    uses = {
        name: {found for module in imported(file) for found in _files_of(module, names)} - {name}
        for name, file in names.items()
    }
    found = set()
    for start in names:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            new = uses[waiting.pop()] - reached
            reached |= new
            waiting += new
        if start in reached:
            found.add(start)
    return found


def _files_of(module: str, names: Collection[str]) -> set[str]:
    """Return the file that an import is of: `from .a import b` may mean the file b, or a's b."""
    above = module.rpartition(".")[0]
    return {name for name in (module, above) if name in names}


def test_no_import_circles() -> None:
    """Not for types, and not in a function, either."""
    rooms = ROOT / "remctl_toolkit"
    assert circles([file for file in rooms.rglob("*.py") if file.stem != "__init__"]) == set()


def test_the_arrows_of_the_picture_point_down() -> None:
    picture = ET.fromstring(PICTURE.read_text())
    paths = [
        element.attrib["d"] for element in picture.iter() if "arrow" in element.get("class", "")
    ]
    assert len(paths) > 10
    for path in paths:
        begin = path.partition(" ")[2].partition("V")[0]
        levels = [float(begin), *map(float, re.findall(r"V([0-9.]+)", path))]
        assert levels == sorted(set(levels)), path
