"""Generate the tables of docs/hostile-peers.md from the cases.

PYTHONPATH=tests python -m hostile.page
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from .expected import STATES, WHEN, Left, State, left_out, outcome_of
from .faults import FAULTS, Fault

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hostile-peers.md"
START = "<!-- The rest of this page is made by tests/hostile/page.py. -->\n"

MARKS = {reason: chr(ord("a") + number) for number, reason in enumerate(Left)}
TITLES = {(2, 3): "Protocol 2 and 3", (1,): "Protocol 1"}


def cell(version: int, state: State, fault: Fault) -> str:
    """Return the table cell of a fault in a state."""
    reason = left_out(version, state, fault)
    return f"({MARKS[reason]})" if reason else outcome_of(version, state, fault).word


def words(version: int, state: State) -> set[str]:
    """Return all outcomes in a state."""
    return {
        outcome_of(version, state, fault).word
        for fault in FAULTS
        if left_out(version, state, fault) is None
    }


def columns(version: int) -> list[State]:
    """Return the states with more than one outcome."""
    return [state for state in STATES[version] if len(words(version, state)) > 1]


def table(versions: tuple[int, ...]) -> Iterator[str]:
    """Yield the tables of versions that behave alike."""
    states = columns(versions[0])
    for group, faults in itertools.groupby(FAULTS, lambda fault: fault.group):
        rows = [fault for fault in faults if set(versions) <= set(fault.versions)]
        if not rows:
            continue
        yield f"\n### {TITLES[versions]}: {group[0].lower()}{group[1:]}\n"
        yield "| The server sends, or does | " + " | ".join(s.value for s in states) + " |"
        yield "|---" * (len(states) + 1) + "|"
        for fault in rows:
            cells = [row_cell(versions, state, fault) for state in states]
            yield f"| {fault.name} | " + " | ".join(cells) + " |"


def row_cell(versions: tuple[int, ...], state: State, fault: Fault) -> str:
    cells = {cell(version, state, fault) for version in versions}
    if len(cells) != 1:
        raise AssertionError(f"{state}, {fault.name}: versions {versions} differ: {cells}")
    return cells.pop()


def render() -> str:
    """Return the generated part of the page."""
    lines = ["\n## The states\n", "| State | Meaning |", "|---|---|"]
    lines += [f"| {state.value} | {WHEN[state]} |" for state in State]
    lines += ["\n## The combinations that do not exist\n", "| Mark | Why |", "|---|---|"]
    lines += [f"| ({mark}) | {reason.value} |" for reason, mark in MARKS.items()]
    for versions, title in TITLES.items():
        lines.append(f"\n## {title}")
        lines += table(versions)
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the current text of that part."""
    return PAGE.read_text().partition(START)[2]


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(PAGE.read_text().partition(START)[0] + START + render())


if __name__ == "__main__":
    main()
