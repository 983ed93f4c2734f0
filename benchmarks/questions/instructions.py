"""Instructions per noop and per token of output, counted by callgrind.

The difference between a long and a short run excludes starting, connecting and warming up. The
numbers are exact except for variations of malloc and the interpreter.
"""

from __future__ import annotations

import shutil
from collections import Counter

from ..figures import Spread, Target
from ..peers.callgrind import COMMAND, self_cost
from ..place import Missing, Place
from ..report import Answer, Bar, Row
from ..workers import Worker
from ._contests import C_OWN, OURS

_TOKEN = 4096  # octets that remctld sends at a time
_WHO = {OURS: "ours", C_OWN: "c-own"}

# Description, action, counts of the short and the long run, and unit.
_NOOP = ("noop", "noops", 200, 1200, 1)
_COMMAND = ("command", "commands", 50, 250, 1)
_KEPT = ("4 KiB token, run()", "keep", 500 * _TOKEN, 1500 * _TOKEN, _TOKEN)
_STREAMED = ("4 KiB token, stream()", "stream", 500 * _TOKEN, 1500 * _TOKEN, _TOKEN)


def ask(place: Place) -> Answer:
    """Measure."""
    if shutil.which("valgrind") is None:
        return Answer([Row("instructions", C_OWN, note="valgrind is not installed")])
    rows: list[Row] = []
    details: dict[str, dict[str, dict[str, int]]] = {}
    bars = []
    for measured in (_NOOP, _KEPT) if place.effort.quick else (_NOOP, _COMMAND, _KEPT, _STREAMED):
        costs = {key: _per_piece(place, who, *measured[1:]) for key, who in _WHO.items()}
        details[measured[0]] = {key: dict(cost.most_common()) for key, cost in costs.items()}
        totals = {key: Spread.of([cost.total()]) for key, cost in costs.items()}
        rows += _rows(measured[0], totals, is_token=measured in (_KEPT, _STREAMED))
        bars += [Bar(f"{measured[0]}, {key}", totals[key], key == OURS) for key in _WHO]
    return Answer(rows, bars, "instructions (fewer is better)", _facts(details), details)


def _rows(what: str, totals: dict[str, Spread], *, is_token: bool) -> list[Row]:
    ours, theirs = totals[OURS], totals[C_OWN]
    compared = Spread.of([ours.median / theirs.median])
    rows = [Row(f"instructions per {what}", C_OWN, ours, theirs, compared)]
    if is_token:
        share = Spread.of([100 * (1 - theirs.median / ours.median)])
        target = Target(10, at_least=False)
        name = f"share of Python, {what}"
        rows.append(Row(name, C_OWN, compared=share, unit="%", target=target))
    return rows


def _facts(details: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """Describe our additional instructions, compared with the C loop, by object file."""
    facts = []
    for what, costs in details.items():
        more = Counter(costs[OURS])
        more.subtract(costs[C_OWN])
        parts = [f"{name} {cost:,.0f}" for name, cost in more.most_common(4) if cost >= 1]
        facts.append(f"Instructions per {what} beyond the C loop's: {', '.join(parts)}.")
    return facts


def _per_piece(place: Place, who: str, action: str, few: int, many: int, unit: int) -> Counter[str]:
    """Return the instructions for one, by object file."""
    costs = [_count(place, who, action, count) for count in (few, many)]
    pieces = (many - few) / unit
    names = costs[0].keys() | costs[1].keys()
    return Counter({name: round((costs[1][name] - costs[0][name]) / pieces) for name in names})


def _count(place: Place, who: str, action: str, count: int) -> Counter[str]:
    place.progress(f"counting instructions: {who}, {action}, {count}")
    profile = place.realm.tmpdir / f"callgrind{place.realm.next_number()}"
    # Give sets and dicts of strings the same layout in every run.
    env = {**place.env, "PYTHONHASHSEED": "0"}
    worker: Worker = place.start(who, action, env, (*COMMAND, f"--callgrind-out-file={profile}"))
    try:
        worker.prepare()
        worker.go(count)
    finally:
        worker.end()
    if not profile.exists():
        raise Missing(f"valgrind wrote no profile of {who}")
    return self_cost(profile)
