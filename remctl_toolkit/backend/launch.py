"""Run a backend of some file: python -m remctl_toolkit.backend.launch FILE MODULE NAME ACL ...

So that remctld can run one that a test has made, whether or not its file is a program. The entries
ACL, if there are any, take the place of those that its commands declare; what it logs is where the
environment says, whatever log= says.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType

from .program import Backend

__all__ = ["find", "main"]


def _imported(file: str, name: str) -> ModuleType:
    """Import a file: as a module of its package if it has one, for what it imports from there."""
    try:
        found = find_spec(name) if "." in name else None
    except ModuleNotFoundError:  # pytest makes up packages for test files.
        found = None
    if found is not None and found.origin == file:
        return importlib.import_module(name)
    # A program need not have a name that ends with .py.
    loader = SourceFileLoader("_remctl_backend", file)
    spec = spec_from_file_location("_remctl_backend", file, loader=loader)
    assert spec is not None
    module = sys.modules["_remctl_backend"] = module_from_spec(spec)
    loader.exec_module(module)
    return module


def find(file: str, module: str, name: str) -> Backend:
    """Import a file, and return its backend of that name.

    Args:
        file: its full path.
        module: the name that it was imported by where the backend is declared.
        name: the backend's name.

    Raises:
        LookupError: it has none that a variable of the module leads to.
    """
    for value in vars(_imported(file, module)).values():
        if isinstance(value, Backend) and value.name == name:
            return value
    raise LookupError(f"{file} has no backend {name!r} at its top level")


def main() -> int:
    """Be the program; returns the exit status."""
    file, module, name, acl, *args = sys.argv[1:]
    sys.argv = [file, *args]
    backend = find(file, module, name)
    if acl:
        for command in backend.commands():
            command.acl = tuple(acl.split())
    backend.log = None
    return backend.run()


if __name__ == "__main__":
    raise SystemExit(main())
