"""The settings of the sandbox's shell, which the start-up files apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NAMES", "PROMPT", "Settings"]

PROMPT = "(sandbox) "

NAMES = (
    *("remctl", "remctl-fleet", "remctl-rsh", "remctl-sandbox"),
    *("kinit", "klist", "kdestroy", "python", "python3"),
)
"""Commands that no alias or function of the user's configuration may hide."""


@dataclass(frozen=True)
class Settings:
    """What a shell has after the user's own configuration was read."""

    variables: Mapping[str, str | None]
    """What is exported, without PATH; None means that the variable is not set."""
    first: tuple[str, ...]
    """Folders at the beginning of PATH."""
    rest: str
    """The end of PATH, after the folders that the user's configuration adds."""
    hooks: Mapping[str, tuple[str, str | None]]
    """Variables by which shells find the start-up files: their values, and those before."""
    own: bool
    """Whether the user's own configuration is read."""
    ready: Path
    """The file that a shell makes when it has all this."""
