"""Connect, run /bin/echo, close: how often a second, by the server's name and by its address."""

from __future__ import annotations

from ..figures import Target
from ..place import SSH_PEERS, Place
from ..report import Answer, Row
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

_WHAT = "connect + command + close, per s"
_OURS_BY_ADDRESS = f"{OURS}, by address"
_C_BY_ADDRESS = f"{C_OWN}, by address"


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {
        OURS: ("ours", "connects"),
        C_OWN: ("c-own", "connects"),
        _OURS_BY_ADDRESS: ("ours", "connects"),
        _C_BY_ADDRESS: ("c-own", "connects"),
        C_PLAIN: ("c-plain", "connects"),
        EXISTING: ("existing", "connects"),
        **ssh_contestants("connects"),
    }
    by_address = {"REMCTL_HOST": place.server.address}
    variables = dict.fromkeys((_OURS_BY_ADDRESS, _C_BY_ADDRESS), by_address)
    found, missing = race(place, contestants, variables=variables)
    targets: dict[str, Target | None] = {
        EXISTING: Target(15),
        C_PLAIN: None,
        C_OWN: Target(0.9),
        **dict.fromkeys(SSH_PEERS, Target(10)),
    }
    rows = race_rows(_WHAT, found, missing, targets)
    rows.append(
        Row(
            f"{_WHAT}, by address",
            C_OWN,
            found.rate(_OURS_BY_ADDRESS),
            found.rate(_C_BY_ADDRESS),
            found.ratio(_OURS_BY_ADDRESS, _C_BY_ADDRESS),
            target=Target(0.9),
        )
    )
    return Answer(
        rows,
        race_bars(found),
        "connect + command + close, per second (more is better)",
    )
