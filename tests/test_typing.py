"""The types: what the stubs promise is what comes back from a real server.

stubtest, in ./run lint, compares the stubs with the modules, and test_type_checkers.py checks
programs with the stubs. Neither looks at values: a wrong return type passes both. So a script that
is checked there is run here, with an assert_type() that looks.
"""

from __future__ import annotations

import ast
import collections.abc
import importlib
import re
import runpy
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

SCRIPT = Path(__file__).parent / "typing" / "user_script.py"


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a type, as far as can be checked at run time."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is None:
        return value is None
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(fits, value, arguments))
        )
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is collections.abc.Generator:
        return isinstance(value, collections.abc.Generator)
    return isinstance(value, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, str),
        (3, str | None),
        ("other", typing.Literal["output"]),
        ((1, 2), tuple[int, str]),
        ((1,), tuple[int, int]),
        ([1, "2"], list[int]),
        (iter([1]), collections.abc.Generator[int, None, None]),
    ],
)
def test_a_value_of_another_type_is_found(value: object, kind: object) -> None:
    assert not fits(value, kind)


def test_a_users_script_gets_the_types_that_it_was_promised(
    remctl_server: RemctldServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wrong = []
    lines = set()

    def assert_type(value: object, kind: object) -> object:
        lines.add(sys._getframe(1).f_lineno)
        if not fits(value, kind):
            wrong.append(f"{value!r} is not {kind}")
        return value

    monkeypatch.setattr(typing, "assert_type", assert_type)
    script = runpy.run_path(str(SCRIPT))
    script["main"](remctl_server.host, remctl_server.port)
    assert wrong == []
    assert lines == {
        node.lineno
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "assert_type"
    }
    capfd.readouterr()  # what the server wrote to its standard error


@pytest.mark.parametrize("module", ["remctl", "_remctl"])
def test_the_script_uses_every_public_name(module: str) -> None:
    """And every attribute of its classes; those of an error or an enum are those of its base."""
    found = importlib.import_module(module)
    public = getattr(found, "__all__", [name for name in vars(found) if name[:1] != "_"])
    names = {name: getattr(found, name) for name in public}
    classes = [item for item in names.values() if isinstance(item, type)]
    members = {name for item in classes for name in vars(item) if name[:1] != "_"}
    enums = {name for item in classes for name in getattr(item, "__members__", ())}
    text = SCRIPT.read_text()
    unused = [name for name in {*names, *members} - enums if not re.search(rf"\b{name}\b", text)]
    assert unused == []


class Cache:
    def ccache(self) -> str:
        return "MEMORY:"


class NoCache(remctl.RemctlCredentials):
    pass


class DerivedCache(Cache, remctl.RemctlCredentials):
    pass


def test_credentials_are_the_same_at_run_time_and_in_the_stubs() -> None:
    """tests/typing shows that checkers accept and refuse the same."""
    assert isinstance(Cache(), remctl.RemctlCredentials)
    assert isinstance(DerivedCache(), remctl.RemctlCredentials)
    assert issubclass(Cache, remctl.RemctlCredentials)
    assert not isinstance(object(), remctl.RemctlCredentials)
    assert not isinstance(Cache(), NoCache)
    refused: list[Any] = [remctl.RemctlCredentials, NoCache]
    for each in refused:
        with pytest.raises(TypeError):
            each()
