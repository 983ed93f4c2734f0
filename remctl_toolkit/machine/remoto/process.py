"""remoto's `process.run()` and `process.check()`."""

from ..process.process import check, run

__all__ = ["check", "run"]
