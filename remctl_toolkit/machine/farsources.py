"""Functions of sources in `_farside`, to be called over there by their source."""

from __future__ import annotations

import importlib.resources
import types
from typing import Any

from .farside import source


def functions_of(name: str) -> dict[str, Any]:
    """Return the names of a file of `_farside`, as a module that nobody can import.

    A function of a module that can be imported is called over there by its name.  Ours would lead
    to the whole of this package, and to libremctl.
    """
    file = importlib.resources.files(__package__).joinpath("_farside", f"{name}.py")
    module = types.ModuleType(f"remctl_far_{name}", f"What _farside/{name}.py has.")
    exec(compile(source(name), str(file), "exec", dont_inherit=True), module.__dict__)
    return module.__dict__
