"""A command with large input: octets a second, and memory besides the input."""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..race import run
from ..report import Answer, Bar, Row
from ._contests import C_OWN, OURS

_OCTETS = 90_000_000  # a server takes less than 100 MiB


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {OURS: ("ours", "upload"), C_OWN: ("c-own", "upload")}
    with place.workers(contestants) as (workers, _):
        extra = {}
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            worker.go(_OCTETS)  # makes the payload
            before = worker.memory()
            worker.forget_peak()
            worker.go(_OCTETS)
            extra[key] = Spread.of([(worker.peak() - before) / 1e6])
        counts = dict.fromkeys(workers, _OCTETS)
        found = run(workers, counts, place.effort.bulk_rounds, place.progress)
    size = f"{_OCTETS / 1e6:.0f} MB of input"
    rates = {key: Spread.of([rate / 1e6 for rate in found.rates(key)]) for key in workers}
    ratio = found.ratio(OURS, C_OWN)
    rows = [
        Row(f"{size}, MB/s", C_OWN, rates[OURS], rates[C_OWN], ratio, target=Target(0.97)),
        Row(
            f"{size}, peak memory besides the payload, in MB",
            C_OWN,
            extra[OURS],
            extra[C_OWN],
            extra[OURS],
            unit="MB",
            target=Target(9, at_least=False),  # a tenth of it: there is no copy
        ),
    ]
    bars = [Bar(key, rates[key], key == OURS) for key in workers]
    return Answer(rows, bars, f"{size}: MB per second (more is better)")
