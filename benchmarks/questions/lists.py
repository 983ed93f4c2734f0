"""A list of thousands of hosts: the time and memory to read, exclude and fold it."""

from __future__ import annotations

from ..figures import Spread, Target, ratios
from ..place import Place
from ..race import run
from ..report import Answer, Bar, Row
from ._contests import OURS

_ROUNDS = 5
_MB = 1e6
_MAX_MB = 30  # of memory, for the longer list


def ask(place: Place) -> Answer:
    """Measure."""
    few, many = 2_000, 20_000
    counts = {f"{count:,} hosts": count for count in (few, many)}
    fewer, more = counts
    with place.workers(dict.fromkeys(counts, ("fleet", "lists"))) as (workers, _):
        worker = workers[more]
        before = worker.memory()
        worker.forget_peak()
        worker.go(many)
        memory = Spread.of([(worker.peak() - before) / _MB])
        found = run(workers, counts, min(_ROUNDS, place.effort.rounds), place.progress)
    microseconds = {key: [1e6 * time for time in found.times(key)] for key in counts}
    spreads = {key: Spread.of(times) for key, times in microseconds.items()}
    rows = [
        Row(
            f"{OURS}, µs to read, exclude and fold each of {more}",
            fewer,
            spreads[more],
            spreads[fewer],
            ratios(microseconds[more], microseconds[fewer]),
            target=Target(2, at_least=False),
        ),
        Row(
            f"{OURS}, peak memory of a list of {more}, in MB",
            "nothing",
            memory,
            None,
            memory,
            unit="MB more",
            target=Target(_MAX_MB, at_least=False),
        ),
    ]
    bars = [Bar(key, spread, ours=True) for key, spread in spreads.items()]
    return Answer(rows, bars, "microseconds for each host of a list (less is better)")
