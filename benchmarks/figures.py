"""Numbers as they are measured, compared and printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Sample", "Spread", "Target", "compact", "ratios"]


class Sample(NamedTuple):
    """Times of one contestant in one round."""

    seconds: float
    cpu: float
    """CPU seconds of the contestant's own process."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of several measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one or more measurements."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.low == self.high:
            return compact(self.median)
        return f"{compact(self.median)} ({compact(self.low)} to {compact(self.high)})"


@dataclass(frozen=True, slots=True)
class Target:
    """Limit that a measurement should reach."""

    limit: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Return whether a measurement is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {compact(self.limit)}"


def compact(value: float) -> str:
    """Format a number with three significant digits.

    >>> [compact(value) for value in (1234567.0, 894.2, 22.68, 0.9512, 0.0)]
    ['1,234,567', '894', '22.7', '0.951', '0']
    """
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Divide round by round, so that other load on the machine affects both."""
    return Spread.of([our / their for our, their in zip(ours, theirs, strict=True)])
