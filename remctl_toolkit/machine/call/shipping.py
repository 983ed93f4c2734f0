"""Pickle a call for the remote host: its function, its arguments, and the names that both need.

Objects that can be imported are sent by name.  Others (functions of ``__main__`` or inside other
functions) are sent as the source of one statement, together with each name of their module that
they use.  The pickles name functions of `far_shipping.py`.
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

PROTOCOL = 5  # since Python 3.8

_CACHED = type(functools.lru_cache(int))

Key: TypeAlias = tuple[str, str]  # a module's name, and a name in it
Space: TypeAlias = dict[str, Any]

_PARTS = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__")


class Packer:
    """Pickle calls for one interpreter.

    Args:
        modules: the server of modules for this interpreter.
        version: the version of the remote Python.
    """

    def __init__(self, modules: ModuleServer, version: tuple[int, ...]) -> None:
        self._modules = modules
        self._version = version
        self._known: dict[Key, int] = {}  # hashes of the pickles that the host has

    def pack(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, dict[Key, int]]:
        """Return the pickle of a call, and the hashes for `learn()` after its success.

        Raises:
            SendError: the function or an argument cannot be sent.
        """
        needs = _Needs(self._modules, self._version)
        parts = needs.dump(function, "the function"), needs.dump((args, kwargs), "an argument")
        names = needs.names()
        hashes = {key: hash(octets) for key, octets in names.items()}
        new = [(*k, octets) for k, octets in names.items() if self._known.get(k) != hashes[k]]
        return pickle.dumps((new, *parts), PROTOCOL), hashes

    def learn(self, hashes: Mapping[Key, int]) -> None:
        """Do not send these again: the host has them."""
        self._known.update(hashes)


class _Needs:
    """Collect the names that a call needs from modules that the host cannot import."""

    def __init__(self, modules: ModuleServer, version: tuple[int, ...]) -> None:
        self.modules = modules
        self.version = version
        self.spaces: dict[int, Space] = {}
        self._attributes: set[str] = set()  # all attributes that code uses
        self._wanted: list[tuple[Key, Space, str]] = []  # with a description for errors

    def dump(self, value: Any, what: str, own: Any = None) -> bytes:
        file = io.BytesIO()
        try:
            _Pickler(self, file, own).dump(value)
        except Exception as error:  # Users' __reduce__ and __getstate__ may raise anything.
            cause = None if isinstance(error, SendError) else error
            raise SendError(f"{what} cannot be sent: {error}") from cause
        return file.getvalue()

    def names(self) -> dict[Key, bytes]:
        """Pickle all needed names; their values may need others."""
        found: dict[Key, bytes] = {}
        modules: dict[Key, ModuleType] = {}
        for key, space, what in self._wanted:  # The loop appends to it.
            value = space[key[1]]
            if isinstance(value, ModuleType):
                modules[key] = value
            elif key not in found:
                found[key] = b""
                # An object that has another name is sent under that one.
                own = value if getattr(value, "__qualname__", None) == key[1] else None
                found[key] = self.dump(value, what, own)
        # Modules come last: used submodules are known when all code is.
        return {**{key: self.dump(each, key[1]) for key, each in modules.items()}, **found}

    def want(self, name: str, space: Space, what: str) -> None:
        self.spaces[id(space)] = space
        self._wanted.append(((space.get("__name__", "?"), name), space, what))

    def use(self, code: CodeType, source: str, space: Space, user: Any) -> None:
        """Want the names that code uses of its module, and allow its imports."""
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
        """Return the submodules that code uses through a module, as in ``import os.path``."""
        self.modules.need(module.__name__)
        found: list[str] = []
        for name in self._attributes:
            inner = vars(module).get(name)
            if isinstance(inner, ModuleType) and inner.__name__ == f"{module.__name__}.{name}":
                found += [inner.__name__, *self.submodules(inner)]
        return tuple(sorted(found))

    def importable(self, module: str | None) -> Space | None:
        """Return the namespace of a module that the host can import; otherwise None."""
        if module is None or module == "__main__" or module not in sys.modules:
            return None
        return vars(sys.modules[module]) if self.modules.has(module) else None


class _Pickler(pickle.Pickler):
    """Pickle one value; the object `own` is not sent by its name."""

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
            return True  # The builtins module does not contain all types that name it.
        space = self._needs.importable(module)
        return space is not None and walk(space, getattr(thing, "__qualname__", "")) is thing

    def _space_of(self, thing: Any) -> Space:
        """Return the namespace of an object's module."""
        if not isinstance(thing, type):
            written = thing.__wrapped__ if isinstance(thing, _CACHED) else thing
            space: Space = written.__globals__
            return space
        # Classes of a notebook or doctest are not in the namespace of the module that they name.
        module = sys.modules.get(thing.__module__)
        known = {} if module is None else vars(module)
        spaces = [*(m.__globals__ for m in methods_of(thing)), *self._needs.spaces.values()]
        return next((s for s in spaces if walk(s, thing.__qualname__) is thing), known)

    def _class(self, cls: type, space: Space, home: str) -> Any:
        if "<locals>" in cls.__qualname__:
            raise SendError(f"class {shown(cls)} is inside a function: define it at module level")
        piece = class_piece(cls, space)
        if piece is None:
            raise SendError(f"the source of {shown(cls)} is not available: put it in a file")
        self._needs.use(compiled(piece), piece.text, space, cls)
        return far.defined, (tuple(piece), home)

    def _function(self, function: FunctionType, space: Space, home: str) -> Any:
        code = function.__code__
        piece = function_piece(function)
        if piece is None and self._needs.version[:2] != sys.version_info[:2]:
            raise SendError(_no_source(function, self._needs.version))
        source = piece.text if piece else ""
        # A function that uses no names of its module does not need the module.
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
    """Return the object with a qualified name in a namespace; None if it does not exist."""
    first, *rest = qualname.split(".")
    found = space.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found


def shown(thing: Any) -> str:
    """Return the name of a function or class for an error message."""
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', None) or '?'}.{name}"


def _public_home(kind: type) -> ModuleType | None:
    """Return the public module of a standard library class, if it is defined in a private one.

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
        except ValueError:  # It is not bound yet.
            continue
    return found


def _no_source(function: FunctionType, version: tuple[int, ...]) -> str:
    there, here = (".".join(map(str, v[:2])) for v in (version, sys.version_info))
    return (
        f"the source of {shown(function)} is not available, and Python {there} of the host cannot "
        f"run its byte code for Python {here}: put it in a file"
    )
