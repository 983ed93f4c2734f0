"""Run commands to their end, as remoto's `process.run()` and `process.check()` do."""

from .process import CommandFailedError, check, run
from .target import Target

__all__ = [
    "CommandFailedError",
    "Target",
    "check",
    "run",
]
