"""Packs a call for the far side: its function, its arguments, and what both need there.

What can be imported travels as its name.  What cannot (functions of ``__main__``, those made
inside others) travels as the source of one statement, and so does each name of its module that it
uses.  All of that is pickles, which name the functions of `far_shipping.py`.
"""

from __future__ import annotations

import builtins
import functools
import io
import marshal
import pickle
import sys
from collections.abc import Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from . import far_shipping as far
from .errors import SendError
from .modules import ModuleServer, imports_of
from .pieces import (
    attribute_names,
    class_piece,
    compiled,
    function_piece,
    methods_of,
    used_names,
)

PROTOCOL = 5  # Python 3.8 reads it.

_CACHED = type(functools.lru_cache(int))

Key: TypeAlias = tuple[str, str]  # a module's name, and a name in it
Space: TypeAlias = dict[str, Any]

_PARTS = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")


class Packer:
    """Packs calls for one interpreter.

    Args:
        modules: knows which modules are found there by their names, and lets it have them.
        version: the Python there, as (major, minor).
    """

    def __init__(self, modules: ModuleServer, version: tuple[int, ...]) -> None:
        self._modules = modules
        self._version = version
        self._known: dict[Key, int] = {}  # the hashes of the pickles that are there

    def pack(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, dict[Key, int]]:
        """Return the octets of a call, and what the far side knows once it was called.

        Raises:
            SendError: something of it cannot be sent.
        """
        needs = _Needs(self._modules, self._version)
        parts = needs.dump(function, "the function"), needs.dump((args, kwargs), "an argument")
        names = needs.names()
        hashes = {key: hash(octets) for key, octets in names.items()}
        new = [(*k, octets) for k, octets in names.items() if self._known.get(k) != hashes[k]]
        return pickle.dumps((new, *parts), PROTOCOL), hashes

    def learn(self, hashes: Mapping[Key, int]) -> None:
        """Send these no more: the far side has them."""
        self._known.update(hashes)


class _Needs:
    """What a call needs of the modules that cannot be imported there."""

    def __init__(self, modules: ModuleServer, version: tuple[int, ...]) -> None:
        self.modules = modules
        self.version = version
        self.spaces: dict[int, Space] = {}
        self._attributes: set[str] = set()  # those that any code uses
        self._wanted: list[tuple[Key, Space, str]] = []  # with what each is called in an error

    def dump(self, value: Any, what: str, own: Any = None) -> bytes:
        file = io.BytesIO()
        try:
            _Pickler(self, file, own).dump(value)
        except Exception as error:  # The user's __reduce__ and __getstate__ raise anything.
            cause = None if isinstance(error, SendError) else error
            raise SendError(f"{what} cannot be sent: {error}") from cause
        return file.getvalue()

    def names(self) -> dict[Key, bytes]:
        """Pickle all names that are needed, whose values may need others."""
        found: dict[Key, bytes] = {}
        modules: dict[Key, ModuleType] = {}
        for key, space, what in self._wanted:  # It grows meanwhile.
            value = space[key[1]]
            if isinstance(value, ModuleType):
                modules[key] = value
            elif key not in found:
                found[key] = b""
                # What another name leads to is sent under its own.
                own = value if getattr(value, "__qualname__", None) == key[1] else None
                found[key] = self.dump(value, what, own)
        # Which submodules are used is known when all code is.
        return {**{key: self.dump(each, key[1]) for key, each in modules.items()}, **found}

    def want(self, name: str, space: Space, what: str) -> None:
        self.spaces[id(space)] = space
        self._wanted.append(((space.get("__name__", "?"), name), space, what))

    def use(self, code: CodeType, source: str, space: Space, user: Any) -> None:
        """Want what code uses of its module, and let the far side have what it imports."""
        for name in sorted(used_names(code) & set(space)):
            special = name.startswith("__") and name.endswith("__")
            if not special and space[name] is not getattr(builtins, name, self):
                self.want(name, space, f"{name!r}, which {shown(user)} uses,")
        self.note(code, source, space.get("__name__", "?"))

    def note(self, code: CodeType, source: str, home: str) -> None:
        self._attributes |= attribute_names(code)
        for name in imports_of(source, home):
            self.modules.need(name)

    def submodules(self, module: ModuleType) -> tuple[str, ...]:
        """Return the modules that code reaches through one, as in ``import os.path``."""
        self.modules.need(module.__name__)
        found: list[str] = []
        for name in self._attributes:
            inner = vars(module).get(name)
            if isinstance(inner, ModuleType) and inner.__name__ == f"{module.__name__}.{name}":
                found += [inner.__name__, *self.submodules(inner)]
        return tuple(sorted(found))

    def importable(self, module: str | None) -> Space | None:
        """Return the names of a module that is found by its name there."""
        if module is None or module == "__main__" or module not in sys.modules:
            return None
        return vars(sys.modules[module]) if self.modules.has(module) else None


class _Pickler(pickle.Pickler):
    """Pickles one value; `own` is what must not be sent as its own name."""

    def __init__(self, needs: _Needs, file: io.BytesIO, own: Any) -> None:
        super().__init__(file, PROTOCOL)
        self._needs = needs
        self._own = own

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, ModuleType):
            return far.module, (thing.__name__, self._needs.submodules(thing))
        module = getattr(thing, "__module__", None)
        if module == far.__name__:
            return NotImplemented
        if not isinstance(thing, (FunctionType, type, _CACHED)) or self._by_name(thing, module):
            if isinstance(module, str):
                self._needs.modules.need(module)
            home = _public_home(thing) if isinstance(thing, type) else None
            return (getattr, (home, thing.__qualname__)) if home else NotImplemented
        space = self._space_of(thing)
        home = space.get("__name__", "?")
        if thing is not self._own and walk(space, thing.__qualname__) is thing:
            self._needs.want(thing.__qualname__.partition(".")[0], space, shown(thing))
            return far.named, (home, thing.__qualname__)
        if isinstance(thing, type):
            return self._class(thing, space, home)
        if isinstance(thing, FunctionType):
            return self._function(thing, space, home)
        settings = thing.cache_parameters()
        return far.cached, (thing.__wrapped__, settings["maxsize"], settings["typed"])

    def _by_name(self, thing: Any, module: str | None) -> bool:
        if isinstance(thing, type) and module == "builtins":
            return True  # A few types of the interpreter are called so, but not shown there.
        space = self._needs.importable(module)
        return space is not None and walk(space, getattr(thing, "__qualname__", "")) is thing

    def _space_of(self, thing: Any) -> Space:
        """Return the names of the module that something is of."""
        if not isinstance(thing, type):
            written = thing.__wrapped__ if isinstance(thing, _CACHED) else thing
            space: Space = written.__globals__
            return space
        # The module of that name need not be the one: the names of a notebook, or of a doctest,
        # are elsewhere.
        module = sys.modules.get(thing.__module__)
        known = {} if module is None else vars(module)
        spaces = [*(m.__globals__ for m in methods_of(thing)), *self._needs.spaces.values()]
        return next((s for s in spaces if walk(s, thing.__qualname__) is thing), known)

    def _class(self, cls: type, space: Space, home: str) -> Any:
        if "<locals>" in cls.__qualname__:
            raise SendError(f"{shown(cls)} is a class made inside a function: make it outside")
        piece = class_piece(cls, space)
        if piece is None:
            raise SendError(f"no source of {shown(cls)} is to be had: put it in a file")
        self._needs.use(compiled(piece), piece.text, space, cls)
        return far.defined, (tuple(piece), home)

    def _function(self, function: FunctionType, space: Space, home: str) -> Any:
        code = function.__code__
        piece = function_piece(function)
        if piece is None and self._needs.version[:2] != sys.version_info[:2]:
            raise SendError(_no_source(function, self._needs.version))
        source = piece.text if piece else ""
        # What uses nothing of its module does not need it.
        imported = used_names(code) & set(space) and self._needs.importable(home) is space
        if imported:
            self._needs.modules.need(home)
            self._needs.note(code, source, home)
        else:
            self._needs.use(code, source, space, function)
        state = (_closed_over(function), {part: getattr(function, part) for part in _PARTS})
        made_of = tuple(piece) if piece else marshal.dumps(code)
        return far.function, (made_of, home, bool(imported)), state, None, None, far.complete


def walk(space: Mapping[str, Any], qualname: str) -> Any:
    """Return what a qualified name leads to among the names of a module; None if nothing."""
    first, *rest = qualname.split(".")
    found = space.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found


def shown(thing: Any) -> str:
    """Return how to call a function or a class in an error message."""
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', None) or '?'}.{name}"


def _public_home(kind: type) -> ModuleType | None:
    """Return the module where a class of the standard library is public, if it is made elsewhere.

    Python 3.13 makes paths in ``pathlib._local``, which no other version has.
    """
    home, _, last = kind.__module__.rpartition(".")
    module = sys.modules.get(home) if home in sys.stdlib_module_names else None
    public = last.startswith("_") and getattr(module, kind.__qualname__, None) is kind
    return module if public else None


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
