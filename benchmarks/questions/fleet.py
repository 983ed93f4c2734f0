"""64 hosts at once: connect, run /bin/echo, close.

All hosts are this machine: we use 64 addresses of one remctld, asyncssh one address of one sshd
64 times.
"""

from __future__ import annotations

from ..figures import Target
from ..place import Place
from ..race import run
from ..report import Answer
from ._contests import OURS, race_bars, race_rows

_HOSTS = 64
_ASYNCSSH = "asyncssh, gather()"


def ask(place: Place) -> Answer:
    """Measure."""
    contestants = {OURS: ("fleet", "hosts"), _ASYNCSSH: ("asyncssh", "gather")}
    with place.workers(contestants) as (workers, missing):
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            worker.go(_HOSTS)
        counts = dict.fromkeys(workers, _HOSTS)
        found = run(workers, counts, place.effort.rounds, place.progress)
    what = f"{_HOSTS} hosts at once: connect + command + close, hosts/s"
    targets: dict[str, Target | None] = {_ASYNCSSH: Target(2)}  # under half of its time
    return Answer(
        race_rows(what, found, missing, targets),
        race_bars(found),
        f"{_HOSTS} hosts at once, hosts per second (more is better)",
    )
