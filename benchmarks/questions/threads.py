"""Many threads with a session each, compared with one thread.

Commands that only wait must run in parallel, in any number: this shows that sessions share no lock.
The rate of 64 threads depends on the machine's cores, which client and server share. So it is
compared with a C loop with as many threads.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..figures import Spread, Target, ratios
from ..place import Place
from ..race import run
from ..report import Answer, Bar, Row
from ..workers import Worker
from ._contests import C_OWN, OURS

_THREADS = (1, 4, 16, 64)
_COMMANDS = 640  # of all threads together, in all contestants
_ROUNDS = 5
_WAIT = 500  # milliseconds that a command sleeps


def ask(place: Place) -> Answer:
    """Measure."""
    rounds = min(_ROUNDS, place.effort.rounds)
    contestants = {OURS: ("ours", "threads"), C_OWN: ("c-own", "threads")}
    rates: dict[tuple[str, int], list[float]] = {}
    with place.workers(contestants) as (workers, _):
        for threads in (1, 64) if place.effort.quick else _THREADS:
            found = run(workers, dict.fromkeys(workers, threads), rounds, place.progress)
            for key in workers:
                rates[key, threads] = [_COMMANDS / s.seconds for s in found.samples[key]]
        busy = [_busy_cores(workers[OURS]) for _ in range(rounds)]
    most = Spread.of(rates[OURS, 64])
    what = "commands/s, 64 threads"
    target = Target(0.9 * (os.cpu_count() or 1))
    rows = [
        _row(what, "1 thread", rates[OURS, 64], rates[OURS, 1]),
        _row(what, f"{C_OWN}, 64 threads", rates[OURS, 64], rates[C_OWN, 64]),
        Row(f"{what}", "cores busy, server's too", most, None, Spread.of(busy), "cores", target),
        _waiting_row(place, rounds),
    ]
    bars = [
        Bar(f"{key}, threads: {threads}", Spread.of(values), key == OURS)
        for (key, threads), values in rates.items()
    ]
    return Answer(rows, bars, "commands per second, by threads (more is better)")


def _row(what: str, against: str, ours: list[float], theirs: list[float]) -> Row:
    return Row(what, against, Spread.of(ours), Spread.of(theirs), ratios(ours, theirs))


def _waiting_row(place: Place, rounds: int) -> Row:
    """Run commands that sleep in 64 threads, which should take no longer than one."""
    with place.workers({OURS: ("ours", "waits")}) as (workers, _):
        worker = workers[OURS]
        found = [worker.go(_WAIT).seconds / (_WAIT / 1000) for _ in range(rounds)]
    spread = Spread.of(found)
    what = f"64 threads, each with a command of {_WAIT / 1000} s: time for all"
    target = Target(1.5, at_least=False)
    return Row(what, "one command", compared=spread, target=target)


def _busy_cores(worker: Worker) -> float:
    """Return the number of busy cores while 64 threads run commands."""
    before = _busy_seconds()
    sample = worker.go(64)
    return (_busy_seconds() - before) / sample.seconds


def _busy_seconds() -> float:
    """Return the busy seconds of all cores together, proc(5): stat."""
    user, nice, system, _, _, irq, soft, *_ = Path("/proc/stat").read_text().split()[1:9]
    return sum(int(ticks) for ticks in (user, nice, system, irq, soft)) / os.sysconf("SC_CLK_TCK")
