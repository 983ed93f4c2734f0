"""The reference in docs/api/ describes every public name of each module."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.once, pytest.mark.nightly]

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))


def public_modules() -> list[ModuleType]:
    """Return the modules that the pages import from."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    found = {"remctl"}
    for module, names in re.findall(r"^from (remctl_toolkit[\w.]*) import (.*)$", text, re.M):
        found.add(module)
        within = (f"{module}.{name}" for name in re.findall(r"\b[a-z]+\b", names))
        found.update(name for name in within if is_module(name))
    return [importlib.import_module(name) for name in sorted(found)]


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # The parent is not a package.
        return False


def described() -> dict[str, object]:
    """Return the objects that the directives of the page describe, by full name."""
    found: dict[str, object] = {}
    module = remctl = importlib.import_module("remctl")
    directive = re.compile(r"^\.\. auto(\w+):: ([\w.]+)\n((?:   :.*\n)*)", re.MULTILINE)
    for kind, name, options in directive.findall("\n".join(page.read_text() for page in REFERENCE)):
        names = [name]
        if kind == "module":
            module = importlib.import_module(name)
            listed = re.search(r":members:(.*)", options)
            names = re.findall(r"\w+", listed[1]) if listed else []
            names = names or list(found_by_autodoc(module))
            found[name] = module
        found.update((f"{module.__name__}.{each}", getattr(module, each)) for each in names)
    assert found["remctl.Remctl"] is remctl.Remctl
    return found


def found_by_autodoc(module: ModuleType) -> Iterator[str]:
    """Return the names of `__all__` that autodoc documents: those that have a docstring."""
    for name in set(module.__all__) & set(dir(module)):
        value = getattr(module, name)
        pattern = rf'^{name}\b.* = (.*|\([^)]*\))\n"""'
        described = re.search(pattern, inspect.getsource(module), re.MULTILINE) is not None
        if inspect.isclass(value) or inspect.isroutine(value):
            described = described or inspect.getdoc(value) is not None
        if described:
            yield name


def test_every_public_name_is_described() -> None:
    found = described()
    for module in public_modules():
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            value = getattr(module, name)
            elsewhere = callable(value) and any(value is other for other in found.values())
            assert full in found or elsewhere, f"{full} is not in docs/api/"
