"""Packs a call for the far side: its function, its arguments, and what both need there.

What can be imported travels as its name.  What cannot (functions of ``__main__``, those made
inside others) travels as the source of one statement, and so does each name of its module that it
uses.  All of that is pickles, which name the functions of `far_shipping.py`.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import io
import marshal
import pickle
import sys
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from . import far_shipping as far
from .errors import SendError
from .modules import ModuleServer, imports_of
from .pieces import (
    Piece,
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
_Names: TypeAlias = dict[Key, tuple[Space, str]]  # with what each is called in an error

_PARTS = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")


class Packer:
    """Packs calls for one interpreter.

    Args:
        modules: knows which modules are found there by their names, and lets it have them.
        version: the Python there, as (major, minor).
    """

    def __init__(self, modules: ModuleServer, version: tuple[int, ...]) -> None:
        self.modules = modules
        self.version = version
        self._known: dict[Key, bytes] = {}  # the digest of what is there

    def pack(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, dict[Key, bytes]]:
        """Return the octets of a call, and what the far side knows once it was called.

        Raises:
            SendError: something of it cannot be sent.
        """
        batch = _Batch(self)
        called = batch.dump(function, "the function")
        arguments = batch.dump((args, kwargs), "an argument")
        found = batch.names()
        digests = {key: hashlib.sha256(octets).digest() for key, octets in found}
        new = [each for each in found if self._known.get(each[0]) != digests[each[0]]]
        names = [(*key, digests[key], octets) for key, octets in new]
        keep = bool(called.by_value) and isinstance(function, FunctionType)
        message = (names, keep, called.octets(), arguments.octets())
        return pickle.dumps(message, PROTOCOL), digests

    def learn(self, digests: Mapping[Key, bytes]) -> None:
        """Send these no more: the far side has them."""
        self._known.update(digests)


class _Batch:
    """The names that a call needs, each a pickle, in an order in which they can be made."""

    def __init__(self, packer: Packer) -> None:
        self.packer = packer
        self.attributes: set[str] = set()  # those that any code uses
        self.spaces: dict[int, Space] = {}
        self._modules: dict[Key, ModuleType] = {}
        self._values: dict[Key, bytes] = {}
        self._making: set[Key] = set()
        self._postponed: list[tuple[Key, Space, str]] = []

    def names(self) -> list[tuple[Key, bytes]]:
        modules = [(k, self._dump(each, k[1]).octets()) for k, each in self._modules.items()]
        return [*modules, *self._values.items()]

    def dump(self, value: Any, what: str) -> _Pickler:
        """Pickle a value, and all names that it needs."""
        pickler = self._dump(value, what)
        self._add({**pickler.first, **pickler.then})
        while self._postponed:
            waiting, self._postponed = self._postponed, []
            self._add({key: (space, what) for key, space, what in waiting})
            if len(self._postponed) == len(waiting):  # Names were bound again since: try it.
                for key, space, what in self._postponed:
                    self._values[key] = self._dump_name(key, space, what).octets()
                break
        return pickler

    def _dump(self, value: Any, what: str, own: Any = None) -> _Pickler:
        pickler = _Pickler(self, what, own)
        try:
            pickler.dump(value)
        except Exception as error:  # The user's __reduce__ and __getstate__ raise anything.
            cause = None if isinstance(error, SendError) else error
            raise SendError(f"{what} cannot be sent: {error}") from cause
        return pickler

    def _dump_name(self, key: Key, space: Space, what: str) -> _Pickler:
        value = space[key[1]]
        # What another name leads to is sent under its own.
        own = value if getattr(value, "__qualname__", None) == key[1] else None
        return self._dump(value, what, own)

    def _add(self, names: _Names) -> None:
        for key, (space, what) in names.items():
            if key in self._values or key in self._making:
                continue
            value = space[key[1]]
            if isinstance(value, ModuleType):
                self.packer.modules.need(value.__name__)
                self._modules[key] = value
                continue
            self._making.add(key)
            pickler = self._dump_name(key, space, what)
            self._add(pickler.first)
            self._making.discard(key)
            if all(k in self._values or k in self._modules for k in pickler.first):
                self._values[key] = pickler.octets()
                self._add(pickler.then)
            else:  # Something of it is being made: a class that calls what uses this one.
                self._postponed.append((key, space, what))

    def note(self, code: CodeType, source: str, home: str) -> None:
        """Take note of what else code needs, and where it was found."""
        self.attributes |= attribute_names(code)
        for name in imports_of(source, home):
            self.packer.modules.need(name)

    def submodules(self, module: ModuleType) -> tuple[str, ...]:
        """Return the modules that code reaches through one, as in ``import os.path``."""
        found: list[str] = []
        for name in self.attributes:
            inner = vars(module).get(name)
            if isinstance(inner, ModuleType) and inner.__name__ == f"{module.__name__}.{name}":
                self.packer.modules.need(inner.__name__)
                found += [inner.__name__, *self.submodules(inner)]
        return tuple(sorted(found))


class _Pickler(pickle.Pickler):
    """Pickles one value.

    Attributes:
        first, then: names that must be there before it is read, and those that it uses later.
        by_value: whether it holds functions by value.
    """

    def __init__(self, batch: _Batch, what: str, own: Any = None) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, PROTOCOL)
        self._batch = batch
        self._packer = batch.packer
        self._own = own
        self.first: _Names = {}
        self.then: _Names = {}
        self.by_value = False

    def octets(self) -> bytes:
        return self._file.getvalue()

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, ModuleType):
            self._packer.modules.need(thing.__name__)
            return far.module, (thing.__name__, self._batch.submodules(thing))
        module = getattr(thing, "__module__", None)
        if module == far.__name__:
            return NotImplemented
        if not isinstance(thing, (FunctionType, type, _CACHED)) or self._by_name(thing, module):
            if isinstance(module, str):
                self._packer.modules.need(module)
            home = _public_home(thing) if isinstance(thing, type) else None
            return (far.public, (home, thing.__qualname__)) if home else NotImplemented
        space = self._space_of(thing)
        home = space.get("__name__", "?")
        if thing is not self._own and walk(space, thing.__qualname__) is thing:
            root = thing.__qualname__.partition(".")[0]
            self.first[home, root] = (space, shown(thing))
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
        space = self._importable(module)
        return space is not None and walk(space, getattr(thing, "__qualname__", "")) is thing

    def _importable(self, module: str | None) -> Space | None:
        """Return the names of a module that is found by its name there."""
        if module is None or module == "__main__" or module not in sys.modules:
            return None
        return vars(sys.modules[module]) if self._packer.modules.has(module) else None

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
        spaces = [*(m.__globals__ for m in methods_of(thing)), *self._batch.spaces.values()]
        return next((s for s in spaces if walk(s, thing.__qualname__) is thing), known)

    def _class(self, cls: type, space: Space, home: str) -> Any:
        if "<locals>" in cls.__qualname__:
            raise SendError(f"{shown(cls)} is a class made inside a function: make it outside")
        piece = class_piece(cls, space)
        if piece is None:
            raise SendError(f"no source of {shown(cls)} is to be had: put it in a file")
        code = compiled(piece)
        self._use(used_names(code, deep=False) - {cls.__name__}, space, cls, self.first)
        self._use(used_names(code) - {cls.__name__}, space, cls, self.then)
        self._batch.note(code, piece.text, home)
        return far.defined, (tuple(piece), home)

    def _function(self, function: FunctionType, space: Space, home: str) -> Any:
        self.by_value = True
        code, marshalled = function.__code__, None
        piece = function_piece(function)
        if piece is None:
            if self._packer.version[:2] != sys.version_info[:2]:
                raise SendError(_no_source(function, self._packer.version))
            marshalled = marshal.dumps(code)
            key = hashlib.sha256(marshalled).hexdigest()
            piece = Piece(key, code.co_filename, code.co_name)
        names = {name for name in used_names(code) if name in space}
        # What uses nothing of its module does not need it.
        imported = bool(names) and self._importable(home) is space
        if imported:
            self._packer.modules.need(home)
        else:
            self._use(names, space, function, self.then)
        self._batch.note(code, "" if marshalled else piece.text, home)
        state = (_closed_over(function), {part: getattr(function, part) for part in _PARTS})
        made = (tuple(piece), marshalled, home, imported)
        return far.function, made, state, None, None, far.complete

    def _use(self, names: Iterable[str], space: Space, user: Any, found: _Names) -> None:
        self._batch.spaces[id(space)] = space
        for name in sorted(set(names) & set(space)):
            special = name.startswith("__") and name.endswith("__")
            if not special and space[name] is not getattr(builtins, name, self):
                home = space.get("__name__", "?")
                found[home, name] = (space, f"{name!r}, which {shown(user)} uses,")


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


def _public_home(kind: type) -> str | None:
    """Return the module where a class of the standard library is public, if it is made elsewhere.

    Python 3.13 makes paths in ``pathlib._local``, which no other version has.
    """
    home, _, last = kind.__module__.rpartition(".")
    if not last.startswith("_") or home.partition(".")[0] not in sys.stdlib_module_names:
        return None
    return home if getattr(sys.modules.get(home), kind.__qualname__, None) is kind else None


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
