"""Interleaved rounds: A B C, A B C, and so on, so that other load affects all contestants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .figures import Sample, Spread, ratios

__all__ = ["Race", "Runner", "count_for", "run"]

Progress = Callable[[str], None]


class Runner(Protocol):
    """A contestant that repeats its action on request."""

    def go(self, count: int) -> Sample:
        """Repeat the action COUNT times, and return the times it took."""
        ...


@dataclass
class Race:
    """Results: a sample of each round, by the contestant's key."""

    counts: dict[str, int]
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def rates(self, key: str) -> list[float]:
        """Return actions per second, for each round."""
        return [self.counts[key] / sample.seconds for sample in self.samples[key]]

    def times(self, key: str) -> list[float]:
        """Return seconds per action, for each round."""
        return [sample.seconds / self.counts[key] for sample in self.samples[key]]

    def cpu(self, key: str) -> list[float]:
        """Return CPU seconds per action, for each round."""
        return [sample.cpu / self.counts[key] for sample in self.samples[key]]

    def rate(self, key: str) -> Spread:
        """Return actions per second."""
        return Spread.of(self.rates(key))

    def ratio(self, ours: str, theirs: str) -> Spread:
        """Return the ratio of two contestants' rates, for each round."""
        return ratios(self.rates(ours), self.rates(theirs))

    def cpu_ratio(self, ours: str, theirs: str) -> Spread:
        """Return the ratio of two contestants' CPU times, for each round."""
        return ratios(self.cpu(ours), self.cpu(theirs))


def count_for(runner: Runner, seconds: float, least: int = 1) -> int:
    """Return the number of actions that fit into a time; this also warms the contestant up.

    Args:
        runner: the contestant.
        seconds: the time.
        least: minimum number, even if it takes longer.
    """
    count = 1
    took = runner.go(count).seconds
    while took < seconds / 4:
        count *= 4
        took = runner.go(count).seconds
    return max(least, round(count * seconds / took))


def run(
    runners: Mapping[str, Runner], counts: Mapping[str, int], rounds: int, progress: Progress
) -> Race:
    """Run all contestants in turns.

    Args:
        runners: the contestants by key, in the order of their turns.
        counts: number of actions in a round, by key.
        rounds: number of rounds.
        progress: called with the current round and contestant.
    """
    race = Race(dict(counts), {key: [] for key in runners})
    for number in range(1, rounds + 1):
        for key, runner in runners.items():
            progress(f"round {number} of {rounds}: {key}")
            race.samples[key].append(runner.go(counts[key]))
    return race
