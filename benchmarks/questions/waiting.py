"""Many sessions that wait for a command: their memory and threads."""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..report import Answer, Bar, Row
from ._contests import OURS

_ASYNC = f"{OURS}, asyncio"
_THREADS = f"{OURS}, a thread each"
_WHO = {_ASYNC: "async", _THREADS: "ours"}


def ask(place: Place) -> Answer:
    """Measure."""
    count = place.effort.sessions
    memory: dict[str, Spread] = {}
    threads: dict[str, Spread] = {}
    for key, who in _WHO.items():
        # Not at the same time, because each process of remctld takes memory, too.
        with place.workers({key: (who, "waiting")}) as (workers, _):
            worker = workers[key]
            place.progress(f"{count} waiting sessions: {key}")
            worker.go(20)  # what only the first ones take
            before = worker.memory()
            worker.go(count)
            memory[key] = Spread.of([(worker.memory() - before) / count / 1000])
            threads[key] = Spread.of([worker.threads()])
    what = f"{count:,} sessions that wait"
    rows = [
        Row(
            f"{what}, KB of memory each",
            _THREADS,
            memory[_ASYNC],
            memory[_THREADS],
            Spread.of([memory[_ASYNC].median / memory[_THREADS].median]),
            target=Target(1, at_least=False),
        ),
        Row(
            f"{what}, threads of the process",
            _THREADS,
            threads[_ASYNC],
            threads[_THREADS],
            threads[_ASYNC],
            unit="threads",
            target=Target(40, at_least=False),
        ),
    ]
    bars = [Bar(key, value, key == _ASYNC) for key, value in memory.items()]
    return Answer(rows, bars, f"{what}, KB of memory each (less is better)")
