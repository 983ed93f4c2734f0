"""Commands a second in one open session: /bin/echo, again and again."""

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

_SHELL = "plumbum, one shell"
_WHAT = "commands/s, one session"


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {
        OURS: ("ours", "commands"),
        C_OWN: ("c-own", "commands"),
        C_PLAIN: ("c-plain", "commands"),
        EXISTING: ("existing", "commands"),
        **ssh_contestants("commands"),
        _SHELL: ("plumbum", "shell"),
    }
    # After a pause, Linux acknowledges the first segments at once. So with few commands in a turn,
    # clients that wait for delayed acknowledgements would appear too fast.
    least = 10 if place.effort.quick else 30
    found, missing = race(place, contestants, least)
    targets: dict[str, Target | None] = {
        C_PLAIN: Target(30),
        EXISTING: Target(30),
        C_OWN: Target(0.95),
        **dict.fromkeys((*SSH_PEERS, _SHELL), Target(1.5)),
    }
    return Answer(
        race_rows(_WHAT, found, missing, targets),
        race_bars(found),
        "commands per second in one open session (more is better)",
    )
