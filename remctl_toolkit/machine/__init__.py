"""A whole machine over remctl: commands, pipes, paths, Python functions, files, tunnels.

See docs/machines.md.
"""

from __future__ import annotations

from .connection import Connection, FarSide
from .errors import (
    ClosedError,
    CommandTimeoutError,
    MachineError,
    NoPythonError,
    WorkingFolderError,
)

__all__ = [
    "ClosedError",
    "CommandTimeoutError",
    "Connection",
    "FarSide",
    "MachineError",
    "NoPythonError",
    "WorkingFolderError",
]
