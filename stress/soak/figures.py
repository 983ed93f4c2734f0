"""Outcome of a storm, and its limits.

Memory may grow by 50 octets a step plus a slack, so that a leak of 100 octets a step is found.  The
slack is for unrepeated growth: caches that fill, tables that double, free lists of the interpreter.
The memory is that allocated with malloc(), not the pages in RAM: this is exact to the octet, and
does not depend on fragmentation or other load.  Many of the same steps run before the first
measurement (the warm-up).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .held import Held

__all__ = ["Outcome"]

_OCTETS_A_STEP = 50
_SLACK = 16 * 1024  # octets
_PAGES_SLACK = 4 * 1024 * 1024  # octets, if only the pages in RAM are known


@dataclass
class Outcome:
    """Outcome of one storm."""

    name: str
    steps: int
    """Number of its steps, without the warm-up."""
    seconds: float
    before: Held
    after: Held
    replies: int
    """Commands with the right reply."""
    lost: int
    """Commands with no reply, or with an undocumented error."""
    swapped: int
    """Commands with the reply of another one."""
    notes: dict[str, int] = field(default_factory=dict)
    """Other events, and their numbers."""
    failures: list[str] = field(default_factory=list)
    """The first few texts about failures."""

    @property
    def growth(self) -> int:
        """Growth of memory in octets."""
        if self.before.heap is not None and self.after.heap is not None:
            return self.after.heap - self.before.heap
        return self.after.resident - self.before.resident

    @property
    def allowed(self) -> int:
        """Allowed growth in octets; a leak of 100 octets a step is twice as much."""
        slack = _SLACK if self.before.heap is not None else _PAGES_SLACK
        return slack + _OCTETS_A_STEP * self.steps

    def faults(self) -> list[str]:
        """Return failed checks; nothing if all passed."""
        found = []
        if self.growth > self.allowed:
            found.append(f"memory grew by {self.growth:,} octets; {self.allowed:,} are allowed")
        for name in ("descriptors", "threads"):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before:
                found.append(f"{name} grew from {before} to {after}")
        if not self.replies:
            found.append("no command got its reply")
        if self.lost:
            found.append(f"{self.lost} commands were lost")
        if self.swapped:
            found.append(f"{self.swapped} commands got the reply of another")
        return found + self.failures
