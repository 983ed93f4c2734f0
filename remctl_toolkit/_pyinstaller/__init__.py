"""What PyInstaller has to include of this package; found by an entry point."""

from __future__ import annotations

import os


def hook_dirs() -> list[str]:
    """Return the folder with the hook."""
    return [os.path.dirname(__file__)]
