"""200 hosts, some of them silent: all silent hosts together must take as long as one."""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..report import Answer, Bar, Row
from ._contests import OURS

# As in peers/our_fleet.py.
_HOSTS = 200
_LIMIT = 2.0  # seconds

_SILENT = (0, 10, 40)


def ask(place: Place) -> Answer:
    """Measure."""
    rounds = min(3, place.effort.rounds)
    seconds: dict[int, list[float]] = {count: [] for count in _SILENT}
    with place.workers({OURS: ("fleet", "silent")}) as (workers, _):
        for number in range(1, rounds + 1):
            for count in _SILENT:
                place.progress(f"round {number} of {rounds}: {count} silent hosts")
                seconds[count].append(workers[OURS].go(count).seconds)
    rows = [_row(count, seconds[count], seconds[0]) for count in _SILENT if count]
    bars = [Bar(f"{count} silent", Spread.of(seconds[count]), ours=True) for count in _SILENT]
    return Answer(rows, bars, f"seconds for {_HOSTS} hosts (less is better)")


def _row(count: int, silent: list[float], none: list[float]) -> Row:
    """Return the additional time with silent hosts, in multiples of the limit."""
    more = [(mine - other) / _LIMIT for mine, other in zip(silent, none, strict=True)]
    return Row(
        f"{_HOSTS} hosts, {count} of them silent, limit {_LIMIT:.0f} s: seconds for all",
        "none silent",
        Spread.of(silent),
        Spread.of(none),
        Spread.of(more),
        unit="limits more",
        target=Target(1.1, at_least=False),
    )
