"""Noop round trips a second: the smallest thing that a session can do."""

from __future__ import annotations

from ..figures import Target
from ..place import Place
from ..report import Answer
from ._contests import C_OWN, OURS, race, race_bars, race_rows


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {OURS: ("ours", "noops"), C_OWN: ("c-own", "noops")}
    found, missing = race(place, contestants)
    targets: dict[str, Target | None] = {C_OWN: Target(0.95)}
    return Answer(
        race_rows("noop round trips/s", found, missing, targets),
        race_bars(found),
        "noop round trips per second (more is better)",
    )
