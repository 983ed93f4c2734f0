"""Send modules of this program that the remote host imports.

The host asks by name; the answer is source text, which is found as `import` finds it.  A question
never imports or runs anything in this program.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.machinery
import logging
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

Allowed: TypeAlias = "Callable[[str], object] | Iterable[str] | None"

_EXTENSION = (importlib.machinery.ExtensionFileLoader, importlib.machinery.BuiltinImporter)
_EXTENSION_SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_CODE = tuple(importlib.machinery.all_suffixes())
_PARTS_LIMIT = 64

log = logging.getLogger(__name__)


class ModuleServer:
    """Answer the remote host's questions for modules and files.

    Args:
        allowed: the modules that may be sent: names, which include everything below them, or a
            function that is called with a name; None: those that the calls need.
    """

    def __init__(self, allowed: Allowed = None) -> None:
        if isinstance(allowed, str):
            raise TypeError("modules must be a list of names, not one string: use [...]")
        listed = () if allowed is None or callable(allowed) else tuple(allowed)
        for name in listed:
            if not _is_name(name):
                raise ValueError(f"modules has {name!r}, which is not a module name")
        self._choose: Callable[[str], object] | None = None
        if callable(allowed):
            self._choose = allowed
        elif allowed is not None:
            self._choose = lambda name: any(f"{name}.".startswith(f"{each}.") for each in listed)
        self._needed: dict[str, None] = dict.fromkeys(listed)
        self._found: set[str] = set()
        self._served: dict[str, None] = {}

    def __call__(self, question: str, name: str, parts: Any = ()) -> tuple[Any, ...]:
        """Answer one question, which is not trusted."""
        if not _is_name(name):
            return ("missing", "not a module name")
        try:
            if question == "module":
                return self._module(name)
            if question == "file":
                return self._file(name, parts)
            if question == "names" and _is_ours(name):
                return _names(name)
        except Exception as error:  # Other packages' finders and loaders may raise anything.
            kind = "unfit" if question == "module" else "missing"
            return (kind, f"looking for {name!r} failed: {type(error).__name__}: {error}")
        return ("missing", "unknown question")

    @property
    def served(self) -> tuple[str, ...]:
        """The names of modules and files that were sent, in that order."""
        return tuple(self._served)

    @property
    def servable(self) -> tuple[str, ...]:
        """The names of the modules that may be sent."""
        return tuple(name for name in self._needed if _find(name) is not None)

    def need(self, name: str) -> None:
        """Allow a module that a call needs, and its parent packages."""
        top = name.partition(".")[0]
        if self._choose is not None or name in self._needed:
            return
        if _is_name(name) and not _has_standard_name(name) and top != "__main__":
            if top != name:
                self.need(name.rpartition(".")[0])
            self._needed[name] = None

    def allows(self, name: str) -> bool:
        """Return whether a module may be sent, if it exists."""
        if name.rpartition(".")[2] == "__main__":
            return False
        if _is_sent(name) or self._choose is None:
            return _is_sent(name) or name in self._needed
        if self._choose(name):
            self._needed[name] = None
        return name in self._needed

    def has(self, name: str) -> bool:
        """Return whether the remote host can import a module by name."""
        if name not in self._found:
            spec = getattr(sys.modules.get(name), "__spec__", None) or _find(name)
            # The host prefers its standard library, so a local module that shadows it is not found.
            standard = _has_standard_name(name)
            if (spec is None or _is_standard(spec)) if standard else spec is not None:
                self._found.add(name)
        return name in self._found

    def refuses(self, name: str) -> bool:
        """Return whether a module exists, but `allowed` excludes it."""
        if self._choose is None or _has_standard_name(name) or self.allows(name):
            return False
        return _find(name) is not None

    def _module(self, name: str) -> tuple[Any, ...]:
        # The host must not learn whether a forbidden module exists.
        allowed = self.allows(name)
        spec = _find(name) if allowed else None
        if _has_standard_name(name) if spec is None else _is_standard(spec):
            version = ".".join(map(str, sys.version_info[:2]))
            why = f"it is in the standard library of Python {version}, but not in the host's"
            return ("refused", f"No module named {name!r}: {why}")
        if not allowed:
            why = "it may not be sent" if self._choose else "no function called imports it"
            return ("refused", f"No module named {name!r}: {why} (see modules=)")
        if spec is None or _is_main(spec.origin):
            return ("missing", "no such module")
        return self._answer(spec)

    def _answer(self, spec: importlib.machinery.ModuleSpec) -> tuple[Any, ...]:
        name = spec.name
        package = spec.submodule_search_locations is not None
        if package and spec.origin is None:
            return ("namespace", None, None, _has_extensions(name))
        if isinstance(spec.loader, _EXTENSION):
            text = f"extension module {name!r} cannot be sent: install it on the host"
            return ("unfit", text)
        try:
            source = spec.loader.get_source(name)  # type: ignore[union-attr]
        except (ImportError, OSError, SyntaxError, UnicodeError) as error:
            return ("unfit", f"module {name!r} cannot be sent: its source cannot be read: {error}")
        if source is None:
            return ("unfit", f"module {name!r} cannot be sent: it has no source")
        for each in sorted(imports_of(source, name if package else name.rpartition(".")[0])):
            self.need(each)
        self._note(name)
        kind = "package" if package else "module"
        return (kind, spec.origin or f"<{name}>", source, _has_extensions(name))

    def _note(self, name: str) -> None:
        log.debug("sent %s", name)
        self._served[name] = None

    def _file(self, name: str, parts: Any) -> tuple[Any, ...]:
        """Return the octets of a package's file, or the names in a directory of it."""
        sensible = isinstance(parts, tuple) and len(parts) <= _PARTS_LIMIT
        if not sensible or not all(map(_is_file_name, parts)):
            return ("missing", "not a file name")
        spec = _find(name) if self.allows(name) else None
        folders = None if spec is None else spec.submodule_search_locations
        if spec is None or folders is None or _is_standard(spec):
            return ("missing", f"{name} is not a package whose files can be sent")
        reader = getattr(spec.loader, "get_resource_reader", lambda _: None)(name)
        roots = [Path(folder) for folder in folders] if reader is None else [reader.files()]
        places = [root.joinpath(*parts) if parts else root for root in roots]
        place = next((each for each in places if each.is_dir() or each.is_file()), places[0])
        # Links must not lead out of the package.
        inside = map(os.path.realpath, folders)
        if isinstance(place, Path) and not any(map(place.resolve().is_relative_to, inside)):
            return ("missing", f"the file is not in package {name}")
        # Modules must be requested by name.
        code = self._choose is None and place.name.endswith(_CODE)
        if place.is_dir():
            return ("folder", tuple(sorted(entry.name for entry in place.iterdir())))
        if place.is_file() and not code and not _is_main(str(place)):
            octets = place.read_bytes()
            self._note("/".join((name, *parts)))
            return ("file", octets)
        return ("missing", f"no such file in package {name}")


@functools.lru_cache(maxsize=256)
def imports_of(text: str, package: str) -> frozenset[str]:
    """Return the full names of modules that a source imports, or may import.

    Strings that are passed to a function count if they name modules of the same package.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            value = node.args[0].value
            own = _is_name(value) and str(value).startswith(f"{package.partition('.')[0]}.")
            if own or (name in ("import_module", "__import__") and isinstance(value, str)):
                found.add(str(value))
    return frozenset(found)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _is_file_name(part: object) -> bool:
    if not isinstance(part, str) or part in ("", ".", ".."):
        return False
    return not any(c in part for c in "/\\\0")


def _is_sent(name: str) -> bool:
    """Return whether a module is a file of this package that is made to be sent."""
    last = name.rpartition(".")[2]
    return name.startswith("remctl_toolkit.") and last.startswith(("far_", "both_"))


def _has_standard_name(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _is_ours(name: str) -> bool:
    top = name.partition(".")[0]
    return top in ("remctl", "remctl_toolkit") or top.startswith("_remctl")


def _has_extensions(name: str) -> bool:
    """Return whether a module's package has extension modules, in it or next to it."""
    top = name.partition(".")[0]
    spec = _find(top)
    folders = tuple(spec.submodule_search_locations or ()) if spec else ()
    place = folders[0] if folders else spec.origin if spec else None
    return _is_extended(top, folders, os.path.dirname(place or ""))


@functools.lru_cache(maxsize=256)
def _is_extended(top: str, folders: tuple[str, ...], parent: str) -> bool:
    files = [file for folder in folders for _, _, files in os.walk(folder) for file in files]
    with contextlib.suppress(OSError):  # It may be in a zip file.
        files += [f for f in os.listdir(parent) if f.startswith((f"_{top}.", f"_{top}_"))]
    return any(file.endswith(_EXTENSION_SUFFIXES) for file in files)


def _names(name: str) -> tuple[Any, ...]:
    """Return a module's public names, and the real place of those that work on the remote host."""
    found = vars(sys.modules[name]) if name in sys.modules else {}
    names = tuple(found.get("__all__", [each for each in found if not each.startswith("_")]))
    usable: dict[str, tuple[str, str]] = {}
    for each, value in found.items():
        home = getattr(value, "__module__", None)
        if isinstance(value, ModuleType) and _is_ours(value.__name__):
            usable[each] = (value.__name__, "")
        elif isinstance(home, str) and home.rpartition(".")[2].startswith("far_"):
            usable[each] = (home, value.__name__)
    return names, usable


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    paths = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")}
    return tuple(os.path.join(os.path.realpath(path), "") for path in paths)


def _is_standard(spec: importlib.machinery.ModuleSpec) -> bool:
    """Return whether a module is in the standard library, by its location."""
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    if origin in ("built-in", "frozen"):
        return True
    if getattr(sys, "frozen", False):  # All modules of a frozen program are in one place.
        return _has_standard_name(spec.name)
    path = os.path.realpath(origin)
    for folder in filter(path.startswith, _standard_folders()):
        return not {"site-packages", "dist-packages"} & set(path[len(folder) :].split(os.sep))
    return False


def _is_main(path: str | None) -> bool:
    """Return whether a file is that of ``__main__``, whatever its module is called."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    for each in (getattr(main, "__file__", None), getattr(spec, "origin", None)):
        if isinstance(each, str) and path and os.path.realpath(each) == os.path.realpath(path):
            return True
    return False


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module as `import` does, but without importing its parent packages."""
    path: Any = None
    spec = None
    so_far = ""
    for part in name.split("."):
        so_far = f"{so_far}.{part}" if so_far else part
        spec = _find_next(so_far, path)
        if spec is None:
            return None
        path = _path_of(so_far, spec)
    return spec


def _path_of(name: str, spec: importlib.machinery.ModuleSpec) -> Any:
    """Return a package's search path; an empty tuple for a module."""
    path = spec.submodule_search_locations
    module = sys.modules.get(name)
    if module is not None:
        # This avoids __getattr__, which would load a lazy module.
        path = object.__getattribute__(module, "__dict__").get("__path__", path)
    return () if path is None else path


def _find_next(name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    if path == ():
        return None
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec: importlib.machinery.ModuleSpec | None = find_spec and find_spec(name, path)
        if spec is None:
            continue
        # Import hooks that change modules, such as pytest's, do not provide the source.
        whole = isinstance(spec.loader, _EXTENSION) or hasattr(spec.loader, "get_source")
        if whole or (spec.origin is None and spec.submodule_search_locations is not None):
            return spec
    return None
