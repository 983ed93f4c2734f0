"""Functions of files that are sent to the far side, to be called over there by their source."""

from __future__ import annotations

import importlib.resources
import types
from typing import Any

from .program import source


def functions_of(name: str) -> dict[str, Any]:
    """Return the names of such a file, as a module that nobody can import.

    A function of a module that can be imported is called over there by its name.  Ours would lead
    to the whole of this package, and to libremctl.
    """
    file = importlib.resources.files("remctl_toolkit.machine").joinpath(f"{name}.py")
    module = types.ModuleType(f"remctl_{name.rpartition('/')[2]}", f"What {name}.py has.")
    exec(compile(source(name), str(file), "exec", dont_inherit=True), module.__dict__)
    return module.__dict__
