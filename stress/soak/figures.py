"""What a storm found, and whether it is good enough.

Memory is judged by a rule that sees a leak of 100 octets in each step: growth may be 50 octets a
step, and the slack.  The slack is for what is not repeated: caches that fill, tables that double,
the free lists of the interpreter.  It counts what malloc() has handed out, not the pages in RAM:
that is exact to the octet, knows no fragmentation, and does not depend on what else the machine
does.  Before it is first looked at, the same steps have been done many times (the warm-up).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .held import Held

__all__ = ["Outcome"]

_OCTETS_A_STEP = 50
_SLACK = 16 * 1024  # octets
_PAGES_SLACK = 4 * 1024 * 1024  # where only the pages in RAM are known


@dataclass
class Outcome:
    """What one storm found."""

    name: str
    steps: int
    """How many of its steps were judged, without the warm-up."""
    seconds: float
    before: Held
    after: Held
    replies: int
    """Commands that gave the reply they should have."""
    lost: int
    """Commands that ended in a way they should not have: no reply, or an error of a wrong kind."""
    swapped: int
    """Commands that got the reply of another one."""
    notes: dict[str, int] = field(default_factory=dict)
    """What else happened, and how often."""
    failures: list[str] = field(default_factory=list)
    """The first few texts that say what went wrong."""

    @property
    def growth(self) -> int:
        """How many octets of memory were added."""
        if self.before.heap is not None and self.after.heap is not None:
            return self.after.heap - self.before.heap
        return self.after.resident - self.before.resident

    @property
    def allowed(self) -> int:
        """How many octets may be added; twice that is a leak of 100 octets a step."""
        slack = _SLACK if self.before.heap is not None else _PAGES_SLACK
        return slack + _OCTETS_A_STEP * self.steps

    def faults(self) -> list[str]:
        """Return what is not as it must be; nothing if all is."""
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
