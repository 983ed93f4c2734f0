"""Find the remote processes and directories of channels, which are on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.channel.channel import Channel, ChannelError


def parents() -> dict[int, int]:
    """Return the parent of each process that runs, by its number; zombies have ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # It ended meanwhile.
            continue
        if state != "Z":
            found[int(entry.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    """Return what a process has started, and what those have."""
    parent_of = parents()
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parent_of.items() if parent in new}
        found |= new
    return found


@dataclass(frozen=True)
class Traces:
    """The processes and the directory of one channel."""

    folder: str
    command: int
    keeper: int
    session: int | None
    """What the keeper runs in; None if it has just ended."""
    processes: frozenset[int]
    """The keeper, and all below it."""

    @classmethod
    def of(cls, folder: bytes, command: int, keeper: int) -> Traces:
        """Look for them now."""
        below = frozenset({keeper, *descendants(keeper)})
        return cls(os.fsdecode(folder), command, keeper, parents().get(keeper), below)

    def left(self) -> list[str]:
        """Return what is still there."""
        there = [str(pid) for pid in self.processes & set(parents())]
        paths = (self.folder, self.folder + ".gone")
        return there + [path for path in paths if os.path.exists(path)]

    def gone(self) -> bool:
        """Return whether all of it is gone."""
        return not self.left()


def traces(channel: Channel) -> Traces:
    """Look for those of an open channel."""
    keeper = channel._keeper
    assert keeper is not None
    return Traces.of(keeper.folder, keeper.pid, keeper.own_pid)


BEAT = 0.2  # seconds between heartbeats of these channels


def opened(
    connection: Connection, script: str, *, patience: float = 60.0, beat: float = BEAT
) -> Channel:
    """Open a channel to a script that prints when it is ready.

    Retry if a short patience is exceeded before, as on a busy machine.
    """
    for attempts_left in reversed(range(5)):
        channel = None
        try:
            channel = Channel(connection, ["sh", "-c", script], beat=beat, patience=patience)
            assert channel.read(6) == b"ready\n"
            return channel
        except ChannelError:
            if channel is not None:
                channel.close()
            if not attempts_left:
                raise
    raise AssertionError("the last attempt either returns or raises")


def read_all(channel: Channel) -> bytes:
    """Read standard output to its end."""
    return b"".join(iter(channel.read, b""))
