"""A command with much output: octets a second, and the client's CPU for them.

Each way of reading the output is compared with a C loop that does the same: read every token and
discard it, keep all of it in memory until the end, or write it to a file.
"""

from __future__ import annotations

from ..figures import Spread, Target, ratios
from ..place import Place
from ..race import Race, run
from ..report import Answer, Bar, Row
from ._contests import OURS

_STREAM = f"{OURS}, stream()"
_KEEP = f"{OURS}, run()"
_SAVE = f"{OURS}, run() to a file"
_C_STREAM = "C loop"
_C_KEEP = "C loop, keeping all"
_C_SAVE = "C loop, to a file"

CONTESTANTS = {
    _STREAM: ("ours", "stream"),
    _C_STREAM: ("c-own", "stream"),
    _KEEP: ("ours", "keep"),
    _C_KEEP: ("c-own", "keep"),
    _SAVE: ("ours", "save"),
    _C_SAVE: ("c-own", "save"),
}
_PAIRS = ((_STREAM, _C_STREAM), (_KEEP, _C_KEEP), (_SAVE, _C_SAVE))


def ask(place: Place) -> Answer:
    """Measure."""
    octets = place.effort.bulk
    with place.workers(CONTESTANTS) as (workers, _):
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            worker.go(octets // 20)
        found = run(
            workers, dict.fromkeys(workers, octets), place.effort.bulk_rounds, place.progress
        )
    size = f"{octets / 1e6:.0f} MB of output"
    rows = []
    for ours, theirs in _PAIRS:
        way = ours.removeprefix(f"{OURS}, ")
        rows += [
            _speed_row(f"{size}, {way}, MB/s", found, ours, theirs),
            _cpu_row(f"{size}, {way}, client CPU s/GB", found, ours, theirs),
        ]
    bars = [Bar(key, _scaled(found.rates(key), 1e-6), key.startswith(OURS)) for key in workers]
    return Answer(rows, bars, f"{size}: MB per second (more is better)")


def _scaled(values: list[float], factor: float) -> Spread:
    return Spread.of([value * factor for value in values])


def _speed_row(what: str, found: Race, ours: str, theirs: str) -> Row:
    return Row(
        what,
        theirs,
        _scaled(found.rates(ours), 1e-6),
        _scaled(found.rates(theirs), 1e-6),
        found.ratio(ours, theirs),
        target=Target(0.97),
    )


def _cpu_row(what: str, found: Race, ours: str, theirs: str) -> Row:
    return Row(
        what,
        theirs,
        _scaled(found.cpu(ours), 1e9),
        _scaled(found.cpu(theirs), 1e9),
        ratios(found.cpu(ours), found.cpu(theirs)),
        target=Target(1.05, at_least=False),
    )
