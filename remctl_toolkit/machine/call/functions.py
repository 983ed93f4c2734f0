"""Functions and modules that run on the remote host, and are called like local ones."""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_KINDS = (FunctionType, BuiltinFunctionType)


class RemoteFunction(Generic[P, T]):
    """A function that runs on the remote host."""

    def __init__(self, call: Callable[..., Any], host: str, function: Callable[P, T]) -> None:
        self._call = call
        self._host = host
        self._function = function
        self.__name__ = getattr(function, "__name__", "?")
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function; see `Interpreter.call()`."""
        result: T = self._call(self._function, *args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<function {self.__name__} on {self._host}>"


class RemoteModule:
    """A module whose functions run on the remote host; it has no other attributes."""

    def __init__(self, call: Callable[..., Any], host: str, module: ModuleType) -> None:
        self._call = call
        self._host = host
        self._module = module
        self.__name__ = module.__name__
        self.__doc__ = module.__doc__

    def __getattr__(self, name: str) -> RemoteFunction[..., Any]:
        found = vars(self._module).get(name)
        if name.startswith("__") or not isinstance(found, _KINDS):
            text = f"module {self.__name__!r} has no function {name!r} to run on "
            raise AttributeError(text + self._host, name=name, obj=self)
        return RemoteFunction(self._call, self._host, found)

    def __dir__(self) -> list[str]:
        return sorted(n for n, value in vars(self._module).items() if isinstance(value, _KINDS))

    def __repr__(self) -> str:
        return f"<module {self.__name__!r} on {self._host}>"
