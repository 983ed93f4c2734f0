"""Thousands of hosts: the cost of each must not depend on their number."""

from __future__ import annotations

from ..figures import Spread, Target, ratios
from ..place import Place
from ..race import run
from ..report import Answer, Bar, Row
from ._contests import OURS

_ROUNDS = 5


def ask(place: Place) -> Answer:
    """Measure."""
    few, many = (100, 400) if place.effort.quick else (250, 2000)
    counts = {f"{count:,} hosts": count for count in (few, many)}
    rounds = min(_ROUNDS, place.effort.rounds)
    with place.workers(dict.fromkeys(counts, ("fleet", "hosts"))) as (workers, _):
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            worker.go(few)
        found = run(workers, counts, rounds, place.progress)
    fewer, more = counts
    milliseconds = {key: [1000 * time for time in found.times(key)] for key in counts}
    row = Row(
        f"{OURS}, ms for each of {more}",
        fewer,
        Spread.of(milliseconds[more]),
        Spread.of(milliseconds[fewer]),
        ratios(milliseconds[more], milliseconds[fewer]),
        target=Target(1.1, at_least=False),
    )
    bars = [Bar(key, Spread.of(milliseconds[key]), ours=True) for key in counts]
    return Answer([row], bars, "milliseconds for each host (less is better)")
