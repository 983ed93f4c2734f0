"""Many sessions in one process: every one must answer; memory of each."""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..report import Answer, Bar, Row
from ._contests import C_OWN, EXISTING, OURS

_WHO = {OURS: "ours", C_OWN: "c-own", EXISTING: "existing"}


def ask(place: Place) -> Answer:
    """Measure."""
    count = place.effort.sessions
    taken: dict[str, float] = {}
    missing: dict[str, str] = {}
    for key, who in _WHO.items():
        # Not at the same time, because each process of remctld takes memory, too.
        with place.workers({key: (who, "sessions")}) as (workers, absent):
            missing |= absent
            for worker in workers.values():
                place.progress(f"{count} sessions: {key}")
                worker.go(20)  # what only the first ones take
                before = worker.memory()
                worker.go(count)  # fails if one does not answer
                taken[key] = (worker.memory() - before) / count / 1000
    what = f"{count:,} sessions, KB of memory each"
    own = Spread.of([taken[OURS]])
    rows = [
        Row(
            what,
            C_OWN,
            own,
            Spread.of([taken[C_OWN]]),
            Spread.of([taken[OURS] - taken[C_OWN]]),
            unit="KB more",
            target=Target(40, at_least=False),
        )
    ]
    if EXISTING in taken:
        compared = Spread.of([taken[OURS] / taken[EXISTING]])
        rows.append(Row(what, EXISTING, own, Spread.of([taken[EXISTING]]), compared))
    else:
        rows.append(Row(what, EXISTING, own, note=missing[EXISTING]))
    bars = [Bar(key, Spread.of([value]), key == OURS) for key, value in taken.items()]
    fact = f"All {count:,} sessions of one process ran a command: {', '.join(taken)}."
    return Answer(rows, bars, f"{what} (less is better)", [fact])
