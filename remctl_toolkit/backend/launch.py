"""Run a backend that stands in some file: python -m remctl_toolkit.backend.launch LOG FILE NAME ...

So that remctld can run one that a test has made, whether or not its file is a program. What it logs
is appended to the file LOG.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from .commands import Backend

__all__ = ["find", "main"]


def find(file: str, name: str) -> Backend:
    """Import a file, and return its backend of that name.

    Raises:
        LookupError: it has none that a variable of the module leads to.
    """
    spec = importlib.util.spec_from_file_location("_remctl_backend", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["_remctl_backend"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for value in vars(module).values():
        if isinstance(value, Backend) and value.name == name:
            return value
    raise LookupError(f"{file} has no backend {name!r} at its top level")


def main() -> int:
    """Be the program; returns the exit status."""
    log, file, name, *args = sys.argv[1:]
    sys.argv = [file, *args]
    backend = find(file, name)

    def append(text: str) -> None:
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as output:
            output.write(f"{os.path.basename(file)}: {text}\n")

    backend.log = append
    return backend.run()


if __name__ == "__main__":
    raise SystemExit(main())
