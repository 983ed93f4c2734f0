"""Round trips of connecting and running a command, measured by adding 20 ms to each.

The protocol's minimum is three: the TCP handshake; the Kerberos exchange, whose two first tokens
leave together; and the command with its answer. A stock remctld writes output and status as two
segments with Nagle's algorithm on, so on a real network the second waits for the acknowledgement of
the first: one round trip more, and with delayed acknowledgements as much as 40 ms besides.

A pool of sessions hides the delay: while one waits for an answer, the others run commands.

Two networks: a relay in this process, whose own TCP connections hide the handshake and the
acknowledgements (two round trips are the minimum there), and one with the delay on the path.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from ..figures import Spread, Target
from ..peers.network import why_not
from ..peers.relay import Relay
from ..place import ROOT, Missing, Place
from ..race import Race, count_for, run
from ..report import Answer, Bar, Row
from ..workers import Worker
from ._contests import C_OWN, C_PLAIN, EXISTING, OURS

_ROUND_TRIP = 0.020  # seconds
_CONTESTANTS = {OURS: "ours", C_OWN: "c-own", C_PLAIN: "c-plain", EXISTING: "existing"}
_RELAY_MINIMUM = 2
_PATH_MINIMUM = 3

_ONE_SESSION = "one session"
_POOLS = {"Pool of 16": "ours", "AsyncPool of 16": "async"}
_POOL_COMMANDS = 320  # in each round, at least: 20 for each session
# For 16 sessions. Through a relay a command takes one round trip less, and the server is the limit.
_POOL_TARGET = Target(14)

# Sets the delay of each direction, in seconds.
Delay = Callable[[float], object]


def ask(place: Place) -> Answer:
    """Measure."""
    with Relay(place.server.host, place.server.port) as relay:
        env = {**place.env, "REMCTL_PORT": str(relay.port)}

        def delay_relay(seconds: float) -> None:
            relay.delay = seconds

        relayed = _measure(place, env, (), delay_relay)
        pooled = _pool_rows("through a relay", _race_pools(place, env, (), delay_relay), None)
    rows = _rows("through a relay", relayed, _RELAY_MINIMUM, "Kerberos, command")
    bars = []
    reason = why_not()
    what = "on the path"
    if reason is not None:
        rows.append(Row(f"20 ms of delay {what}", "the protocol's minimum", note=reason))
    else:
        with _network(place) as (env, under, delay):
            real = _measure(place, env, under, delay)
            pooled += _pool_rows(what, _race_pools(place, env, under, delay), _POOL_TARGET)
        rows += _rows(what, real, _PATH_MINIMUM, "TCP, Kerberos, command")
        bars = [Bar(key, Spread.of([trips]), key == OURS) for key, trips in real.items()]
    axis = "round trips of connect + command, delay on the path (less is better)"
    return Answer(rows + pooled, bars, axis)


@contextmanager
def _network(place: Place) -> Iterator[tuple[dict[str, str], tuple[str, ...], Delay]]:
    """Make the network; yield a client's environment, command prefix, and a delay setter."""
    place.progress("making a network")
    env = {**os.environ, "PYTHONPATH": place.python_path("ours")}
    network = Worker([sys.executable, "-m", "benchmarks.peers.network"], env, ROOT)
    try:
        made = json.loads(network.ask("prepare"))
        under = ("nsenter", f"--net={made['namespace']}")
        yield {**os.environ, **made["env"]}, under, lambda seconds: network.ask(f"delay {seconds}")
    finally:
        network.end()


def _measure(
    place: Place, env: Mapping[str, str], under: tuple[str, ...], delay: Delay
) -> dict[str, float]:
    """Return the round trips of each contestant: the additional time with the delay.

    The shortest of many times counts, because other load on the machine only adds to it.
    """
    rounds = 8 if place.effort.quick else 30
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for key, who in _CONTESTANTS.items():
            try:
                workers[key] = place.start(who, "connects", env, under)
            except Missing:
                continue
            stack.callback(workers[key].end)
            workers[key].prepare()
        delay(0)
        without = _shortest(place, workers, rounds)
        delay(_ROUND_TRIP / 2)
        delayed = _shortest(place, workers, rounds)
    return {key: (delayed[key] - without[key]) / _ROUND_TRIP for key in workers}


def _shortest(place: Place, workers: Mapping[str, Worker], rounds: int) -> dict[str, float]:
    for worker in workers.values():
        worker.go(1)
    found = run(workers, dict.fromkeys(workers, 1), rounds, place.progress)
    return {key: min(found.times(key)) for key in workers}


def _race_pools(place: Place, env: Mapping[str, str], under: tuple[str, ...], delay: Delay) -> Race:
    """Run commands over the delay, with one session and with pools."""
    with ExitStack() as stack:
        delay(0)
        workers = {_ONE_SESSION: place.start("ours", "commands", env, under)}
        for key, who in _POOLS.items():
            workers[key] = place.start(who, "pool", env, under)
        for worker in workers.values():
            stack.callback(worker.end)
            worker.prepare()
        delay(_ROUND_TRIP / 2)
        least = {key: _POOL_COMMANDS if key in _POOLS else 1 for key in workers}
        counts = {
            key: count_for(each, place.effort.seconds, least[key]) for key, each in workers.items()
        }
        return run(workers, counts, place.effort.rounds, place.progress)


def _pool_rows(what: str, found: Race, target: Target | None) -> list[Row]:
    question = f"commands over 20 ms of delay {what}, per second"
    one = found.rate(_ONE_SESSION)
    rows = []
    for key in _POOLS:
        ratio = found.ratio(key, _ONE_SESSION)
        rows.append(
            Row(f"{question}: {key}", _ONE_SESSION, found.rate(key), one, ratio, target=target)
        )
    return rows


def _rows(what: str, trips: dict[str, float], minimum: int, named: str) -> list[Row]:
    question = f"connect + command, 20 ms of delay {what}, round trips"
    ours = Spread.of([trips[OURS]])
    rows = [
        Row(
            question,
            f"the protocol's minimum ({named})",
            ours,
            Spread.of([minimum]),
            Spread.of([trips[OURS] - minimum]),
            "more",
            # A tenth of a round trip is for inaccuracy of the delay.
            Target(1.1, at_least=False),
        )
    ]
    for key, theirs in trips.items():
        if key != OURS:
            compared = Spread.of([trips[OURS] - theirs])
            rows.append(Row(question, key, ours, Spread.of([theirs]), compared, "more"))
    return rows
