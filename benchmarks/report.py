"""Answers of the questions, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .figures import Spread, Target

__all__ = [
    "Answer",
    "Bar",
    "Row",
    "as_json",
    "as_markdown",
    "between_markers",
    "excerpt",
    "put_between_markers",
]

BEGIN = "<!-- figures -->"
END = "<!-- end of figures -->"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    """Measured quantity, with its unit."""
    against: str
    """Contestant to compare with."""
    ours: Spread | None = None
    theirs: Spread | None = None
    compared: Spread | None = None
    """Value that the target applies to; None if it could not be measured."""
    unit: str = "x"
    """Unit of `compared`; x means a ratio."""
    target: Target | None = None
    note: str = ""
    """Reason why it could not be measured."""

    @property
    def reached(self) -> bool | None:
        """Report whether the target was reached; None without a target or a measurement."""
        if self.target is None or self.compared is None:
            return None
        return self.target.reached(self.compared.median)

    def verdict(self) -> str:
        """Return the last cell of the line."""
        if self.compared is None:
            return self.note or "not measured"
        return {True: "reached", False: "**not reached**", None: "reported"}[self.reached]

    def cells(self) -> list[str]:
        """Return the line, cell by cell."""
        target = "" if self.target is None else f"{self.target} {self.unit}"
        compared = "" if self.compared is None else f"{self.compared} {self.unit}"
        both = ["" if value is None else str(value) for value in (self.ours, self.theirs)]
        return [self.what, both[0], self.against, both[1], compared, target, self.verdict()]


@dataclass(frozen=True)
class Bar:
    """One bar of a picture."""

    label: str
    value: Spread
    ours: bool = False


@dataclass
class Answer:
    """Results of one question."""

    rows: list[Row]
    bars: list[Bar] = field(default_factory=list)
    axis: str = ""
    """Meaning of the bars, with the unit and the better direction."""
    facts: list[str] = field(default_factory=list)
    """Sentences to print below the table."""
    details: dict[str, Any] = field(default_factory=dict)
    """More numbers, for the JSON only."""


_HEADINGS = ["question", "ours", "against", "theirs", "compared", "to reach", ""]


def as_markdown(
    answers: Mapping[str, Answer], failures: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """Format the table, the facts and failures, and the environment."""
    lines = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
    lines += [_line(row.cells()) for answer in answers.values() for row in answer.rows]
    facts = [fact for answer in answers.values() for fact in answer.facts]
    facts += [f"{name} failed: {reason}" for name, reason in failures.items()]
    lines += ["", *(f"- {fact}" for fact in facts)]
    lines += [
        "",
        "Measured with:",
        "",
        *(f"- {key}: {value}" for key, value in environment.items()),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


_EXCERPT_FACTS = ("date", "processor", "effort")


def excerpt(report: str, against: str) -> str:
    """Return the rows of a report by as_markdown() that compare with one contestant.

    Raises:
        ValueError: the report does not compare with it.
    """
    lines = report.splitlines()
    rows = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    picked = [[row[0], row[3], row[1], row[4]] for row in rows if row[2] == against]
    if not picked:
        raise ValueError(f"the report has no line against {against!r}")
    headings = ["measured", against, "this binding", "compared"]
    table = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *picked)]
    wanted = tuple(f"- {name}: " for name in (*_EXCERPT_FACTS, against))
    facts = [line.removeprefix("- ") for line in lines if line.startswith(wanted)]
    return "\n".join([*table, "", f"Measured with {'; '.join(facts)}."]) + "\n"


def as_json(
    answers: Mapping[str, Answer], failures: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return all results, in types that JSON supports."""
    return {
        "environment": dict(environment),
        "failures": dict(failures),
        "answers": {
            name: asdict(answer)
            | {"rows": [asdict(row) | {"reached": row.reached} for row in answer.rows]}
            for name, answer in answers.items()
        },
    }


def between_markers(path: Path) -> str:
    """Return the text that put_between_markers() put into a page.

    Raises:
        ValueError: the page does not have both markers, in order.
    """
    return _split(path)[1].strip("\n") + "\n"


def put_between_markers(path: Path, text: str) -> None:
    """Replace the text between the markers in a page.

    Raises:
        ValueError: the page does not have both markers, in order.
    """
    before, _, after = _split(path)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _split(path: Path) -> tuple[str, str, str]:
    """Return the text before, between and after the markers."""
    before, begin, rest = path.read_text().partition(BEGIN)
    between, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks {BEGIN} or {END}")
    return before, between, after
