"""A command run to its end, as remoto's `process.run()` and `process.check()` do."""

from .process import CommandFailedError, Target, check, run

__all__ = [
    "CommandFailedError",
    "Target",
    "check",
    "run",
]
