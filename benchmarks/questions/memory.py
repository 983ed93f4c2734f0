"""Memory of remctl() for large output: the peak above the memory before."""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Missing, Place
from ..report import Answer, Bar, Row
from ._contests import EXISTING, OURS

_MB = 1e6
_FILE = f"{OURS}, to a file"


def ask(place: Place) -> Answer:
    """Measure."""
    octets = place.effort.bulk
    small = octets // 10
    kept = _peaks(place, "ours", "simple-keep", octets)
    saved = _peaks(place, "ours", "simple-save", octets)
    saved_small = _peaks(place, "ours", "simple-save", small)
    what = f"peak memory of remctl() / its {octets / _MB:.0f} MB of output"
    row = Row(what, "the payload", kept, None, kept, target=Target(1.1, at_least=False))
    rows = [row]
    bars = [Bar(OURS, kept, True), Bar(_FILE, saved, True)]
    try:
        theirs = _peaks(place, "existing", "simple-keep", octets)
    except Missing as reason:
        rows.append(Row(what, EXISTING, kept, note=str(reason)))
    else:
        compared = Spread.of([kept.median / theirs.median])
        rows.append(Row(what, EXISTING, kept, theirs, compared))
        bars.insert(0, Bar(EXISTING, theirs))
    rows.append(_growth_row(saved, octets, saved_small, small))
    return Answer(rows, bars, "peak memory, as a multiple of the output (less is better)")


def _peaks(place: Place, who: str, action: str, octets: int) -> Spread:
    """Return the peak divided by the payload; every round runs in a new process."""
    found = []
    for number in range(1, min(3, place.effort.rounds) + 1):
        place.progress(f"round {number}: {who}, {action}, {octets} octets")
        worker = place.start(who, action)
        try:
            worker.prepare()
            before = worker.memory()
            worker.go(octets)
            found.append((worker.peak() - before) / octets)
        finally:
            worker.end()
    return Spread.of(found)


def _growth_row(large: Spread, octets: int, small: Spread, few: int) -> Row:
    """Compare the memory for output written to a file, and for a tenth of it."""
    ours, theirs = large.median * octets / _MB, small.median * few / _MB
    return Row(
        f"peak memory of remctl() to a file, {octets / _MB:.0f} MB, in MB",
        f"{few / _MB:.0f} MB",
        Spread.of([ours]),
        Spread.of([theirs]),
        Spread.of([ours - theirs]),
        unit="MB more",
        target=Target(1, at_least=False),
    )
