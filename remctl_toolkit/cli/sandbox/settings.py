"""Settings that the start-up files apply to the sandbox's shell."""

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
"""Commands whose aliases and functions are removed."""


@dataclass(frozen=True)
class Settings:
    """The settings of a shell after it has read the user's configuration."""

    variables: Mapping[str, str | None]
    """Exported variables, without PATH; None means unset."""
    first: tuple[str, ...]
    """Directories at the beginning of PATH."""
    rest: str
    """The end of PATH, after the directories that the user's configuration adds."""
    hooks: Mapping[str, tuple[str, str | None]]
    """Variables that lead shells to the start-up files: their values, and the previous ones."""
    user_config: bool
    """True if the shell reads the user's configuration."""
    ready: Path
    """The file that a shell creates when it has these settings."""
