"""Modules on their way: what the far side may import from here, and modules that run over there.

The far side asks by name; it is answered with text that was found the way `import` finds it.
Nothing is imported or run here because it asks.
"""

from __future__ import annotations

import importlib.machinery
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from .interpreter import Interpreter

Allowed: TypeAlias = "Callable[[str], object] | Iterable[str] | None"

P = ParamSpec("P")
T = TypeVar("T")

_EXTENSION = (importlib.machinery.ExtensionFileLoader, importlib.machinery.BuiltinImporter)
_PARTS_LIMIT = 64

log = logging.getLogger(__name__)


class ModuleServer:
    """Answers what the far side asks for.

    Args:
        allowed: the modules that it may have: names, each with all that is below it in its package,
            or a function that is called with a name; None: whatever can be imported here.
    """

    def __init__(self, allowed: Allowed = None) -> None:
        self._allowed = _allows(allowed)
        self._lock = threading.Lock()
        self._served: dict[str, None] = {}

    def __call__(self, question: str, name: str, parts: tuple[str, ...] = ()) -> tuple[Any, ...]:
        """Answer one question; what the far side says is never trusted to be sensible."""
        if not _is_name(name):
            return ("missing",)
        try:
            if question == "module":
                return self._module(name)
            if question in ("data", "list", "kind"):
                return self._resource(question, name, parts)
        except Exception as error:  # Finders and loaders of others: they raise anything.
            log.warning("cannot look for %s", name, exc_info=True)
            text = f"{name!r} cannot be looked for: {type(error).__name__}: {error}"
            return ("unfit" if question == "module" else False, text)
        return ("missing",)

    @property
    def served(self) -> tuple[str, ...]:
        """The names of modules and files that were asked for and sent, in that order."""
        with self._lock:
            return tuple(self._served)

    def allows(self, name: str) -> bool:
        """Whether the far side may have that module of ours, if there is one."""
        return self._allowed(name)

    def has(self, name: str) -> bool:
        """Whether a module is found by its name: here, or in any standard library."""
        return _is_standard(name) or _find(name) is not None

    def is_ours(self, name: str) -> bool:
        """Whether a module is one of ours that the far side would have to ask for."""
        return not _is_standard(name) and _find(name) is not None

    def _module(self, name: str) -> tuple[Any, ...]:
        if _is_standard(name):
            version = ".".join(map(str, sys.version_info[:2]))
            why = f"it is in the standard library of Python {version} here, but not there"
            return ("refused", f"No module named {name!r}: {why}")
        if name.partition(".")[0] == "__main__":
            return ("missing",)
        spec = _find(name)
        if spec is None:
            return ("missing",)
        if not self._allowed(name):
            return ("refused", f"No module named {name!r}: it may not be sent (see modules=)")
        return self._answer(spec)

    def _answer(self, spec: importlib.machinery.ModuleSpec) -> tuple[Any, ...]:
        name = spec.name
        package = spec.submodule_search_locations is not None
        if package and spec.origin is None:
            return ("namespace",)
        if isinstance(spec.loader, _EXTENSION):
            return ("unfit", f"module {name!r} is an extension module, which cannot be sent")
        try:
            source = spec.loader.get_source(name)  # type: ignore[union-attr]
        except (ImportError, OSError, SyntaxError, UnicodeError) as error:
            return ("unfit", f"module {name!r} cannot be sent: its source cannot be read: {error}")
        if source is None:
            return ("unfit", f"module {name!r} cannot be sent: there is no source of it")
        self._note(name)
        return ("package" if package else "module", spec.origin or f"<{name}>", source)

    def _note(self, name: str) -> None:
        log.debug("sent %s", name)
        with self._lock:
            self._served[name] = None

    def _resource(self, question: str, name: str, parts: Any) -> tuple[Any, ...]:
        sensible = isinstance(parts, tuple) and len(parts) <= _PARTS_LIMIT
        if not sensible or not all(map(_is_file_name, parts)):
            return (False, "no file of a package is called that")
        spec = None if _is_standard(name) or not self._allowed(name) else _find(name)
        if spec is None or spec.submodule_search_locations is None:
            return (False, f"{name} is no package that files can be sent of")
        reader = getattr(spec.loader, "get_resource_reader", lambda _: None)(name)
        if reader is None:
            return (False, f"the files of {name} cannot be read")
        try:
            return self._read(question, reader.files(), name, parts)
        except (OSError, ValueError) as error:
            return (False, f"cannot be read in {name}: {getattr(error, 'strerror', error)}")

    def _read(self, question: str, root: Any, name: str, parts: tuple[str, ...]) -> tuple[Any, ...]:
        place = root.joinpath(*parts) if parts else root
        kind = "dir" if place.is_dir() else "file" if place.is_file() else "none"
        # A link may lead out of the package.
        if hasattr(place, "resolve") and not place.resolve().is_relative_to(root.resolve()):
            kind = "none"
        if question == "kind":
            return (True, kind)
        if question == "list" and kind == "dir":
            return (True, tuple(sorted(entry.name for entry in place.iterdir())))
        if question == "data" and kind == "file":
            octets = place.read_bytes()
            self._note("/".join((name, *parts)))
            return (True, octets)
        return (False, f"there is no such file in package {name}")


class RemoteFunction(Generic[P, T]):
    """A function that runs over there."""

    def __init__(self, interpreter: Interpreter, function: Callable[P, T]) -> None:
        self._interpreter = interpreter
        self._function = function
        self.__name__ = getattr(function, "__name__", "?")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it over there; see `Interpreter.call()`."""
        return self._interpreter.call(self._function, *args, **kwargs)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<function {self.__name__} on {self._interpreter.name}>"


class RemoteModule:
    """A module whose functions run over there; nothing but its functions can be had of it."""

    def __init__(self, interpreter: Interpreter, module: ModuleType) -> None:
        self._interpreter = interpreter
        self._module = module
        self.__name__ = module.__name__
        self.__doc__ = module.__doc__

    def __getattr__(self, name: str) -> RemoteFunction[..., Any]:
        found = vars(self._module).get(name)
        if name.startswith("__") or not isinstance(found, (FunctionType, BuiltinFunctionType)):
            raise AttributeError(
                f"module {self.__name__!r} has no function {name!r} to run on "
                f"{self._interpreter.name}",
                name=name,
                obj=self,
            )
        return RemoteFunction(self._interpreter, found)

    def __dir__(self) -> list[str]:
        kinds = (FunctionType, BuiltinFunctionType)
        return sorted(
            name for name, value in vars(self._module).items() if isinstance(value, kinds)
        )

    def __repr__(self) -> str:
        return f"<module {self.__name__!r} on {self._interpreter.name}>"


def _allows(allowed: Allowed) -> Callable[[str], bool]:
    if allowed is None:
        return lambda name: True
    if callable(allowed):
        return lambda name: bool(allowed(name))
    if isinstance(allowed, str):
        raise TypeError("modules must be a list of names, not one string: use [...]")
    names = tuple(allowed)
    for name in names:
        if not _is_name(name):
            raise ValueError(f"modules has {name!r}, which is no name of a module")
    return lambda name: any(name == n or name.startswith(f"{n}.") for n in names)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _is_file_name(part: object) -> bool:
    if not isinstance(part, str) or part in ("", ".", ".."):
        return False
    return not any(c in part for c in "/\\\0")


def _is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module as `import` does, but without importing the packages that it is in."""
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
    """Return where the modules of a package are looked for; an empty tuple if it is none."""
    path = spec.submodule_search_locations
    module = sys.modules.get(name)
    if module is not None:
        # Past any __getattr__: a module that loads itself when it is looked at stays as it is.
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
        # Hooks that change what they load, such as pytest's, do not tell the source.
        whole = isinstance(spec.loader, _EXTENSION) or hasattr(spec.loader, "get_source")
        if whole or (spec.origin is None and spec.submodule_search_locations is not None):
            return spec
    return None
