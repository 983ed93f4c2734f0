"""Additional start-up time of an interpreter that imports remctl."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from ..figures import Spread, Target
from ..place import Place
from ..report import Answer, Bar, Row
from ._contests import OURS

_BARE = "bare interpreter"
_CODE = {_BARE: "pass", OURS: "import remctl"}


def ask(place: Place) -> Answer:
    """Measure."""
    rounds = 20 if place.effort.quick else 100
    env = {key: value for key, value in place.env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = place.python_path("ours")
    for code in _CODE.values():  # writes the .pyc files
        _start(code, env)
    times: dict[str, list[float]] = {key: [] for key in _CODE}
    for number in range(rounds):
        place.progress(f"round {number + 1} of {rounds}")
        for key, code in _CODE.items():
            times[key].append(_start(code, env) * 1000)
    spreads = {key: Spread.of(values) for key, values in times.items()}
    more = [ours - bare for ours, bare in zip(times[OURS], times[_BARE], strict=True)]
    row = Row(
        "import remctl, ms",
        _BARE,
        spreads[OURS],
        spreads[_BARE],
        Spread.of(more),
        unit="ms more",
        target=Target(10, at_least=False),
    )
    bars = [Bar(key, spread, key == OURS) for key, spread in spreads.items()]
    return Answer([row], bars, "milliseconds to start, and end (less is better)")


def _start(code: str, env: dict[str, str]) -> float:
    """Run an interpreter, and return the seconds it took."""
    start = time.perf_counter()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], env)
    _, status = os.waitpid(child, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), code)
    return time.perf_counter() - start
