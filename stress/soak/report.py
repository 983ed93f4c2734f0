"""The soak's figures as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..report import markdown_table, text_table
from .figures import Outcome

__all__ = ["as_json", "as_markdown", "as_text"]

_HEADINGS = (
    "storm",
    "steps",
    "replies",
    "lost",
    "swapped",
    "seconds",
    "memory, KiB",
    "grown by",
    "allowed",
    "in RAM, KiB",
    "descriptors",
    "threads",
)


def _kib(octets: int | None) -> str:
    return "?" if octets is None else f"{octets / 1024:,.0f}"


def _cells(outcome: Outcome) -> list[str]:
    before, after = outcome.before, outcome.after
    return [
        outcome.name,
        f"{outcome.steps:,}",
        f"{outcome.replies:,}",
        f"{outcome.lost:,}",
        f"{outcome.swapped:,}",
        f"{outcome.seconds:.1f}",
        f"{_kib(before.heap)} → {_kib(after.heap)}",
        f"{outcome.growth / 1024:,.1f}",
        f"{outcome.allowed / 1024:,.1f}",
        f"{_kib(before.resident)} → {_kib(after.resident)}",
        f"{before.descriptors} → {after.descriptors}",
        f"{before.threads} → {after.threads}",
    ]


def _remarks(outcomes: Sequence[Outcome], failures: Mapping[str, str]) -> list[str]:
    remarks = [
        f"{outcome.name}: " + ", ".join(f"{what} {n:,}" for what, n in outcome.notes.items())
        for outcome in outcomes
        if outcome.notes
    ]
    for outcome in outcomes:
        remarks += [f"{outcome.name} FAILED: {fault}" for fault in outcome.faults()]
    return remarks + [f"{name} FAILED: {reason}" for name, reason in failures.items()]


def as_text(outcomes: Sequence[Outcome], failures: Mapping[str, str]) -> str:
    """Format the table for a terminal, with remarks below."""
    lines = [text_table([_HEADINGS, *map(_cells, outcomes)])] if outcomes else []
    return "\n".join([*lines, *_remarks(outcomes, failures)])


def as_markdown(
    outcomes: Sequence[Outcome], failures: Mapping[str, str], environment: Mapping[str, str]
) -> str:
    """Format the table for a page, with remarks and the environment."""
    lines = [markdown_table(_HEADINGS, map(_cells, outcomes)), ""]
    lines += [f"- {remark}" for remark in _remarks(outcomes, failures)]
    lines += ["", "Measured with:", ""]
    lines += [f"- {key}: {value}" for key, value in environment.items()]
    return "\n".join(lines)


def as_json(
    outcomes: Sequence[Outcome], failures: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return all results, in types that JSON supports."""
    return {
        "environment": dict(environment),
        "failures": dict(failures),
        "storms": [
            asdict(outcome)
            | {"before": outcome.before._asdict(), "after": outcome.after._asdict()}
            | {"growth": outcome.growth, "allowed": outcome.allowed, "faults": outcome.faults()}
            for outcome in outcomes
        ],
    }
