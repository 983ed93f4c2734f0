"""Run a backend of any file: python -m remctl_toolkit.backend.launch FILE MODULE NAME ACL ...

The testing server uses this to run a test's backend even if its file is not a program. ACL entries,
if given, replace those that the commands declare. REMCTL_BACKEND_LOG overrides log=.
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
    """Import a file, as a module of its package if it has one, so that relative imports work."""
    try:
        found = find_spec(name) if "." in name else None
    except ModuleNotFoundError:  # pytest invents packages for test files.
        found = None
    if found is not None and found.origin == file:
        return importlib.import_module(name)
    # The name of a program need not end with .py.
    loader = SourceFileLoader("_remctl_backend", file)
    spec = spec_from_file_location("_remctl_backend", file, loader=loader)
    assert spec is not None
    module = sys.modules["_remctl_backend"] = module_from_spec(spec)
    loader.exec_module(module)
    return module


def find(file: str, module: str, name: str) -> Backend:
    """Import a file, and return its backend of that name.

    Args:
        file: full path of the file.
        module: the module name under which the test imported it.
        name: the backend's name.

    Raises:
        LookupError: no variable at the top level of the module holds such a backend.
    """
    for value in vars(_imported(file, module)).values():
        if isinstance(value, Backend) and value.name == name:
            return value
    raise LookupError(f"{file} has no backend {name!r} at its top level")


def main() -> int:
    """Run the backend, and return the exit status."""
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
