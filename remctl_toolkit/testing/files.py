"""Write the files of a realm so that only their owner can read them, regardless of the umask."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PRIVATE_UMASK", "private", "write_private"]

PRIVATE_UMASK = 0o077
"""The umask of programs that write files with keys."""

_OWNER_ONLY = 0o600


def private(path: str, flags: int) -> int:
    """Open a file as open() does; a new one has mode 0600. For open(..., opener=private)."""
    return os.open(path, flags, _OWNER_ONLY)


def write_private(path: Path, text: str, mode: int = _OWNER_ONLY) -> None:
    """Write a file atomically: readers see the old text or the new one.

    Args:
        path: the file, in a private directory.
        text: its new content.
        mode: its permissions.
    """
    fresh = path.with_name(f"{path.name}.new")
    with open(fresh, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
    fresh.chmod(mode)
    fresh.replace(path)
