"""Connect, run /bin/echo, close: how often a second."""

from __future__ import annotations

from ..figures import Target
from ..place import SSH_PEERS, Place
from ..report import Answer
from ._contests import (
    C_OWN,
    C_PLAIN,
    EXISTING,
    OURS,
    race,
    race_bars,
    race_rows,
    ssh_contestants,
)


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {
        OURS: ("ours", "connects"),
        C_OWN: ("c-own", "connects"),
        C_PLAIN: ("c-plain", "connects"),
        EXISTING: ("existing", "connects"),
        **ssh_contestants("connects"),
    }
    found, missing = race(place, contestants)
    targets: dict[str, Target | None] = {
        EXISTING: Target(15),
        C_PLAIN: None,
        C_OWN: None,
        **dict.fromkeys(SSH_PEERS, Target(10)),
    }
    return Answer(
        race_rows("connect + command + close, per s", found, missing, targets),
        race_bars(found),
        "connect + command + close, per second (more is better)",
    )
