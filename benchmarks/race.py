"""Interleaved rounds: A B C, A B C, and so on, so that a busy moment hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .figures import Sample, Spread, ratios

__all__ = ["Race", "Runner", "count_for", "run"]

Progress = Callable[[str], None]


class Runner(Protocol):
    """Something that can be asked to do a thing so many times."""

    def go(self, count: int) -> Sample:
        """Do it, and tell how long it took."""
        ...


@dataclass
class Race:
    """What came out: for each contestant, by its key, a sample for each round."""

    counts: dict[str, int]
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def rates(self, key: str) -> list[float]:
        """Return how many a second, round by round."""
        return [self.counts[key] / sample.seconds for sample in self.samples[key]]

    def times(self, key: str) -> list[float]:
        """Return the seconds for one, round by round."""
        return [sample.seconds / self.counts[key] for sample in self.samples[key]]

    def cpu(self, key: str) -> list[float]:
        """Return the CPU seconds for one, round by round."""
        return [sample.cpu / self.counts[key] for sample in self.samples[key]]

    def rate(self, key: str) -> Spread:
        """Return how many a second."""
        return Spread.of(self.rates(key))

    def ratio(self, ours: str, theirs: str) -> Spread:
        """Return how many times as fast one is as another, pair by pair."""
        return ratios(self.rates(ours), self.rates(theirs))

    def cpu_ratio(self, ours: str, theirs: str) -> Spread:
        """Return how many times as much CPU one takes as another, pair by pair."""
        return ratios(self.cpu(ours), self.cpu(theirs))


def count_for(runner: Runner, seconds: float, least: int = 1) -> int:
    """Find how often a contestant does its thing in a time; warms it up on the way.

    Args:
        runner: the contestant.
        seconds: the time.
        least: how often it has to, even if that takes longer.
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
    """Have all contestants take turns.

    Args:
        runners: the contestants by key, in the order of their turns.
        counts: how often each does its thing in a round.
        rounds: how many turns each gets.
        progress: told which contestant of which round is running.
    """
    race = Race(dict(counts), {key: [] for key in runners})
    for number in range(1, rounds + 1):
        for key, runner in runners.items():
            progress(f"round {number} of {rounds}: {key}")
            race.samples[key].append(runner.go(counts[key]))
    return race
