"""Commands that the server refuses, by asyncio and by the synchronous interface.

The server starts no process for them, so this measures only the round trip: asyncio's event loop
against a wait in C.
"""

from __future__ import annotations

from ..figures import Spread, Target
from ..place import Place
from ..race import Race
from ..report import Answer, Row
from ._contests import OURS, race, race_bars

_ASYNC = f"{OURS}, asyncio"


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {OURS: ("ours", "refused"), _ASYNC: ("async", "refused")}
    found, _ = race(place, contestants)
    rows = [
        Row(
            "refused commands/s, asyncio",
            OURS,
            found.rate(_ASYNC),
            found.rate(OURS),
            found.ratio(_ASYNC, OURS),
        ),
        Row(
            "client CPU per refused command, asyncio, us",
            OURS,
            _microseconds(found, _ASYNC),
            _microseconds(found, OURS),
            found.cpu_ratio(_ASYNC, OURS),
            target=Target(1.7, at_least=False),
        ),
    ]
    return Answer(rows, race_bars(found), "refused commands per second (more is better)")


def _microseconds(found: Race, key: str) -> Spread:
    return Spread.of([seconds * 1e6 for seconds in found.cpu(key)])
