"""remoto's `process.run()` and `process.check()`."""

from ..process import check, run

__all__ = ["check", "run"]
