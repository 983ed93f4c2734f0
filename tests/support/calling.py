"""Run a function as a command of a backend, without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remctl_toolkit.backend import Backend, InvokeResult

__all__ = ["call", "raising"]


def call(function: Callable[..., Any], *args: str | bytes, **declared: Any) -> InvokeResult:
    """Run a function as the only command of a backend.

    `input` is for invoke(), all other keywords for command().
    """
    given = declared.pop("input", None)
    backend = Backend("test")
    backend.command("run", **declared)(function)
    return backend.invoke(["run", *args], user="alice@EXAMPLE.ORG", input=given)


def raising(error: BaseException) -> Callable[[], None]:
    """Return a function that raises."""

    def run() -> None:
        raise error

    return run
