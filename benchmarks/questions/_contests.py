"""Shared by several questions: names of contestants, races, and rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..figures import Target
from ..place import SSH_PEERS, Place
from ..race import Race, count_for, run
from ..report import Bar, Row

__all__ = [
    "C_OWN",
    "C_PLAIN",
    "EXISTING",
    "OURS",
    "race",
    "race_bars",
    "race_rows",
    "ssh_contestants",
]

# Keys of contestants, which are their names in tables and pictures.
OURS = "this binding"
C_OWN = "C loop, own socket"
C_PLAIN = "C loop, remctl_open"
EXISTING = "existing binding"


def ssh_contestants(action: str) -> dict[str, tuple[str, str]]:
    """Return all SSH libraries with the same action."""
    return {peer: (peer, action) for peer in SSH_PEERS}


def race(
    place: Place,
    contestants: Mapping[str, tuple[str, str]],
    least: int = 1,
    variables: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Race, dict[str, str]]:
    """Run contestants in turns.

    Args:
        place: the servers and contestants.
        contestants: contestant and action, by key.
        least: minimum number of repetitions in a turn.
        variables: additional environment variables, by key.

    Returns:
        The samples, and the reasons why others are missing.
    """
    with place.workers(contestants, variables) as (workers, missing):
        counts = {}
        for key, worker in workers.items():
            place.progress(f"warming up {key}")
            counts[key] = count_for(worker, place.effort.seconds, least)
        return run(workers, counts, place.effort.rounds, place.progress), missing


def race_rows(
    what: str, found: Race, missing: Mapping[str, str], targets: Mapping[str, Target | None]
) -> list[Row]:
    """Compare our rate with others, in the order of the targets."""
    rows = []
    for key, target in targets.items():
        if key in missing:
            rows.append(Row(what, key, found.rate(OURS), target=target, note=missing[key]))
            continue
        ratio = found.ratio(OURS, key)
        rows.append(Row(what, key, found.rate(OURS), found.rate(key), ratio, target=target))
    return rows


def race_bars(found: Race, keys: Sequence[str] = ()) -> list[Bar]:
    """Show the rates, the highest first."""
    bars = [Bar(key, found.rate(key), key == OURS) for key in keys or found.samples]
    return sorted(bars, key=lambda bar: -bar.value.median)
