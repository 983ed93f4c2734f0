"""Packs a call for the far side: its function, its arguments, and what both need over there.

What can be imported travels as its name.  What cannot (functions of ``__main__``, those made
inside others) travels as a piece of source, and what it uses of its module beside it, name by name.
What was sent once is sent again only if it has changed here: the far side keeps it, and what it
has changed of it.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import io
import marshal
import pickle
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from .functions import (
    Names,
    Piece,
    class_names,
    class_piece,
    function_piece,
    futures_of,
    member,
    methods_of,
    named,
    shown,
    used_names,
    walk,
)

PROTOCOL = 5  # Python 3.8 reads it.

_CACHED = type(functools.lru_cache(int))


class Packer:
    """Packs calls for one interpreter.  Not thread-safe.

    Args:
        has: whether a module can be found by its name over there, or be served from here.
        version: the Python over there, as (major, minor).
    """

    def __init__(self, has: Callable[[str], bool], version: tuple[int, ...]) -> None:
        self._has = has
        self._found: set[str] = set()
        self.version = version
        self._definitions: set[str] = set()
        self._names: dict[tuple[str, str], bytes] = {}

    def has(self, module: str) -> bool:
        """Whether the far side finds a module by its name, there or here."""
        if module not in self._found and self._has(module):
            self._found.add(module)
        return module in self._found

    def forget(self) -> None:
        """Send everything again: the far side could not make use of it."""
        self._definitions.clear()
        self._names.clear()

    def pack(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the octets of a call.

        Raises:
            TypeError: there is something in it that cannot be sent; nothing is changed.
        """
        batch = _Batch(self)
        try:
            called = batch.dump(function, "the function")
            arguments = batch.dump((args, kwargs), "an argument")
            batch.finish()
        except _ToldError as error:
            raise TypeError(str(error)) from error.__cause__
        definitions = [(k, d) for k, d in batch.definitions.items() if k not in self._definitions]
        digests = {(s, n): hashlib.sha256(octets).digest() for s, n, octets in batch.names}
        names = [item for item in batch.names if self._names.get(item[:2]) != digests[item[:2]]]
        message = pickle.dumps((definitions, names, called, arguments), PROTOCOL)
        self._definitions.update(key for key, _ in definitions)
        self._names.update(digests)
        return message


class _Batch:
    def __init__(self, packer: Packer) -> None:
        self.packer = packer
        self.definitions: dict[str, dict[str, Any]] = {}
        self.names: list[tuple[str, str, bytes]] = []
        self._seen: set[tuple[str, str]] = set()
        self._known: dict[int, tuple[Any, tuple[Any, ...]]] = {}  # keeps what has that id alive
        self._making: set[int] = set()
        self._classes: set[int] = set()  # those whose names are being sent
        self._later: list[tuple[dict[str, Any], Names, str, bool]] = []
        self._spaces: list[dict[str, Any]] = []
        self._eager = 0

    def dump(self, value: Any, what: str, own: Any = None) -> bytes:
        file = io.BytesIO()
        try:
            _Pickler(self, file, own).dump(value)
        except _ToldError:
            raise
        except _CannotSendError as error:
            raise _ToldError(f"{what} cannot be sent: {error}") from None
        except Exception as error:  # The user's __reduce__ and __getstate__ raise anything.
            raise _ToldError(f"{what} cannot be sent: {error}") from error
        return file.getvalue()

    def finish(self) -> None:
        """Send all names that were put off."""
        self._finish(functions=True)
        while self._later:
            self._finish(functions=False)
            self._finish(functions=True)

    def _finish(self, functions: bool) -> None:
        while chosen := [item for item in self._later if item[3] == functions]:
            self._later.remove(chosen[0])
            self._send_names(*chosen[0][:3])

    def _send_names(self, space: dict[str, Any], names: Names, user: str) -> None:
        module = space.get("__name__", "?")
        self._spaces.append(space)
        for name, chains in names.items():
            if name not in space or (module, name) in self._seen or name.startswith("__"):
                continue
            self._seen.add((module, name))
            value = space[name]
            if id(value) in self._classes:  # It is on its way already, when all that it needs is.
                self._seen.discard((module, name))
                self._later.append((space, {name: chains}, user, False))
                continue
            if isinstance(value, ModuleType):
                value = _Module(value.__name__, _submodules(value, chains))
            elif value is getattr(builtins, name, self):
                continue
            octets = self.dump(value, f"{name!r}, which {user} uses,")
            self.names.append((module, name, octets))

    def _need(self, space: dict[str, Any], names: Names, user: str) -> None:
        self._spaces.append(space)
        if self._eager:
            self._send_names(space, names, user)
        else:
            self._later.append((space, names, user, True))

    # What has to be sent as its source.

    def reference(self, thing: Any) -> tuple[Any, ...] | None:
        """Return what stands for a thing that cannot be pickled as its name; None if it can."""
        if isinstance(thing, ModuleType):
            return ("module", thing.__name__, ())
        if isinstance(thing, _Module):
            return ("module", thing.name, thing.parts)
        if not isinstance(thing, (FunctionType, type, _CACHED)) or self._by_name(thing):
            return None
        if id(thing) not in self._known:
            if id(thing) in self._making:
                raise _CannotSendError(f"{shown(thing)} refers to itself through another function")
            self._making.add(id(thing))
            self._known[id(thing)] = (thing, self._describe(thing))
            self._making.discard(id(thing))
        return self._known[id(thing)][1]

    def _by_name(self, thing: Any) -> bool:
        module = getattr(thing, "__module__", None)
        if not isinstance(module, str) or module == "__main__" or named(thing) is not thing:
            # A few types of the interpreter have names in a module that does not show them.
            return isinstance(thing, type) and module == "builtins"
        return self.packer.has(module)

    def _describe(self, thing: Any) -> tuple[Any, ...]:
        if isinstance(thing, _CACHED):
            settings = thing.cache_parameters()
            return ("cached", thing.__wrapped__, settings["maxsize"], settings["typed"])
        if isinstance(thing, type):
            return self._describe_class(thing)
        owner = member(thing.__globals__, thing)
        if owner is not None:
            return ("attribute", *owner)
        return ("definition", self._define_function(thing))

    def _describe_class(self, cls: type) -> tuple[Any, ...]:
        outer, _, name = cls.__qualname__.rpartition(".")
        if "<locals>" in outer:
            raise _CannotSendError(
                f"{shown(cls)} is a class made inside a function: make it outside"
            )
        space, filenames = self._place_of(cls)
        if outer and walk(space, cls.__qualname__) is cls:
            return ("attribute", walk(space, outer), name)
        piece = class_piece(cls, filenames)
        if piece is None:
            raise _CannotSendError(f"no source of {shown(cls)} is to be had: put it in a file")
        early, late = class_names(piece)
        early.pop(cls.__name__, None)
        key = self._define({**_static(piece), **_names_of(cls), "futures": ()})
        self._known[id(cls)] = (cls, ("definition", key))
        self._classes.add(id(cls))
        self._eager += 1
        self._send_names(space, early, shown(cls))
        self._finish(functions=True)  # The class may call them when it is made.
        self._eager -= 1
        self._classes.discard(id(cls))
        self._later.append((space, late, shown(cls), False))
        return ("definition", key)

    def _place_of(self, cls: type) -> tuple[dict[str, Any], list[str]]:
        """Return the names of the class's module, and the files that it may be in."""
        # The module of that name need not be the one: the names of a notebook, or of a doctest,
        # stand elsewhere.
        module = sys.modules.get(cls.__module__)
        spaces = [method.__globals__ for method in methods_of(cls)]
        spaces += [space for space in self._spaces if walk(space, cls.__qualname__) is cls]
        space = spaces[0] if spaces else {} if module is None else vars(module)
        functions = [value for value in space.values() if isinstance(value, FunctionType)]
        files = [f.__code__.co_filename for f in functions if f.__globals__ is space]
        file = space.get("__file__")
        return space, [*files, file] if isinstance(file, str) else files

    def _define_function(self, function: FunctionType) -> str:
        code, space = function.__code__, function.__globals__
        piece = function_piece(code, code.co_filename)
        packed = None
        if piece is None:
            if self.packer.version[:2] != sys.version_info[:2]:
                raise _CannotSendError(_no_source(function, self.packer.version))
            piece, packed = Piece("function", "", code.co_filename), marshal.dumps(code)
        module = space.get("__name__", "?")
        names = {name: chains for name, chains in used_names(code).items() if name in space}
        # What uses nothing of its module has no need of it.
        imported = bool(names) and self._is_importable(module, space)
        links = (function.__defaults__, function.__kwdefaults__, _closed_over(function))
        definition = {
            **_static(piece),
            **_names_of(function),
            "module": module,
            "imported": imported,
            "code": packed,
            "codename": code.co_name,
            "free": code.co_freevars,
            "futures": futures_of(code),
            "links": self.dump(links, f"what {shown(function)} was made with", function),
        }
        if not imported:
            self._need(space, names, shown(function))
        return self._define(definition)

    def _is_importable(self, module: str, space: dict[str, Any]) -> bool:
        found = sys.modules.get(module)
        same = found is not None and found.__dict__ is space
        return same and module != "__main__" and self.packer.has(module)

    def _define(self, definition: dict[str, Any]) -> str:
        key = hashlib.sha256(pickle.dumps(definition, PROTOCOL)).hexdigest()
        self.definitions[key] = definition
        return key


class _Module:
    """A module, and modules in it that are to be imported, too."""

    def __init__(self, name: str, parts: tuple[str, ...]) -> None:
        self.name = name
        self.parts = parts


class _CannotSendError(Exception):
    """Why something cannot be sent."""


class _ToldError(Exception):
    """The same, with what it is that cannot be sent."""


class _Pickler(pickle.Pickler):
    def __init__(self, batch: _Batch, file: io.BytesIO, own: Any) -> None:
        super().__init__(file, PROTOCOL)
        self._batch = batch
        self._own = own

    def persistent_id(self, thing: Any) -> Any:
        if self._own is not None and thing is self._own:
            return ("own",)
        if isinstance(thing, type) and (home := _public_home(thing)):
            return ("public", home, thing.__qualname__)
        return self._batch.reference(thing)


def _public_home(kind: type) -> str | None:
    """Return the module where a class of the standard library is public, if it is made elsewhere.

    Python 3.13 makes paths in ``pathlib._local``, which no other version has.
    """
    home, _, last = kind.__module__.rpartition(".")
    if not last.startswith("_") or home.partition(".")[0] not in sys.stdlib_module_names:
        return None
    return home if getattr(sys.modules.get(home), kind.__qualname__, None) is kind else None


def _submodules(module: ModuleType, chains: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the modules that are reached through a module, as in ``import os.path``."""
    found = set()
    for chain in chains:
        at: Any = module
        for part in chain:
            at = vars(at).get(part) if isinstance(at, ModuleType) else None
            name = getattr(at, "__name__", None) if isinstance(at, ModuleType) else None
            if name is None or not name.startswith(f"{module.__name__}."):
                break
            found.add(name)
    return tuple(sorted(found))


def _static(piece: Piece) -> dict[str, Any]:
    return {"kind": piece.kind, "text": piece.text, "filename": piece.filename}


def _names_of(thing: Any) -> dict[str, Any]:
    return {
        "name": thing.__name__,
        "qualname": thing.__qualname__,
        "module": thing.__module__,
        "doc": thing.__doc__ if isinstance(thing.__doc__, str) else None,
    }


def _closed_over(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # It is bound later, or never.
            continue
    return found


def _no_source(function: FunctionType, version: tuple[int, ...]) -> str:
    there, here = (".".join(map(str, v[:2])) for v in (version, sys.version_info))
    return (
        f"no source of {shown(function)} is to be had, and Python {there} there cannot run what "
        f"Python {here} here has made of it: put it in a file"
    )
