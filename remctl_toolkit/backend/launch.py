"""Run a backend of some file: python -m remctl_toolkit.backend.launch FILE NAME ACL ...

So that remctld can run one that a test has made, whether or not its file is a program. The entries
ACL, if there are any, take the place of those that its commands declare; what it logs is where the
environment says, whatever log= says.
"""

from __future__ import annotations

import importlib.util
import sys

from .program import Backend

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
    file, name, acl, *args = sys.argv[1:]
    sys.argv = [file, *args]
    backend = find(file, name)
    if acl:
        for command in backend.commands():
            command.acl = tuple(acl.split())
    backend.log = None
    return backend.run()


if __name__ == "__main__":
    raise SystemExit(main())
