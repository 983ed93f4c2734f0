"""Count a contestant's instructions with valgrind's callgrind, by object file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

__all__ = ["COMMAND", "self_cost"]

COMMAND = ("valgrind", "-q", "--tool=callgrind")

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


def self_cost(profile: Path) -> Counter[str]:
    """Add up the instructions of each object file, without those of its callees.

    See "Callgrind Format Specification" in valgrind's manual: "ob=" names the object file of the
    cost lines that follow, by number from the second time on; the line after "calls=" is the cost
    of the callee, which has lines of its own.
    """
    names: dict[str, str] = {}
    costs: Counter[str] = Counter()
    current = "unknown"
    callee = False
    for line in profile.read_text().splitlines():
        if line.startswith(("ob=", "cob=")):
            kind, _, text = line.partition("=")
            name = _full_name(text, names)
            current = name if kind == "ob" else current
        elif line.startswith("calls="):
            callee = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not callee:
                costs[current] += int(line.split()[1])
            callee = False
    return costs


def _full_name(text: str, names: dict[str, str]) -> str:
    found = _NAME.fullmatch(text)
    if found is None:
        return Path(text).name
    number, name = found.groups()
    if name is not None:
        names[number] = Path(name).name
    return names[number]
