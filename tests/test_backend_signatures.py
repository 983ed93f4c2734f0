"""Signatures of all kinds behind a real remctld: commands get what Python would have given."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import remctl
from remctl_toolkit.backend import Context
from remctl_toolkit.testing import RemctldServer, backend_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

HEAD = """
from typing import Annotated
from remctl_toolkit.backend import Backend, Context, Count, Short

backend = Backend("every", acl="ANYUSER")

def seen(values):
    values.pop("self", None)
    if "context" in values:
        values["context"] = values["context"].user
    return repr(values)

class Service:
    pass

service = Service()
"""


class Part(NamedTuple):
    """Some parameters of a signature.

    Attributes:
        source: as they are declared.
        args: what the caller writes.
        values: what Python is called with: positional arguments, or those with a name.
        may_be_left_out: whether a call without them is valid as well.
    """

    source: str = ""
    args: tuple[str | bytes, ...] = ()
    values: tuple[Any, ...] | dict[str, Any] = ()
    may_be_left_out: bool = True


NOTHING = Part()
REQUIRED = (
    NOTHING,
    Part("a: str", ("-x y",), ("-x y",), may_be_left_out=False),
    Part("a: str, b: int", ("", "-2"), ("", -2), may_be_left_out=False),
)
OPTIONAL = (NOTHING, Part("c: int = 10, d: bool | None = None", ("3", "yes"), (3, True)))
LAST = (
    NOTHING,
    Part("*names: str", ("n1", "--", "-n"), ("n1", "--", "-n")),
    Part("users: list[int]", ("1", "2"), ([1, 2],), may_be_left_out=False),
    Part("users: tuple[str, ...] | None = None", ("u1", ""), (("u1", ""),)),
)
OPTIONS = (
    NOTHING,
    Part(
        "force: bool = False, check: bool = True, unit: Annotated[str, Short('u')] = 'GB'",
        ("--no-check", "-uTB=", "--force"),
        {"force": True, "check": False, "unit": "TB="},
    ),
    Part(
        "tag: list[int] | None = None, verbose: Annotated[int, Short('v'), Count()] = 0,"
        " define: Annotated[dict[str, str] | None, Short('d')] = None",
        ("--tag", "1", "-vvdk=v=w", "--tag=2", "--define", "=x", "--verbose"),
        {"tag": [1, 2], "verbose": 3, "define": {"k": "v=w", "": "x"}},
    ),
    Part("size: int, quick: bool", ("--size", "-5"), {"size": -5, "quick": False}, False),
)
CALLERS = ("", "context", "method")
DATA = b"\0d\xff"


class Case(NamedTuple):
    """A command, and a call of it.

    Attributes:
        name: the command.
        source: how it is declared.
        args: what the caller writes.
        positional, keywords: what Python is called with.
        options: its options.
    """

    name: str
    source: str
    args: list[str | bytes]
    positional: list[Any]
    keywords: dict[str, Any]
    options: Part


def cases() -> Iterator[Case]:
    """Return all combinations of the parts that Python and remctld can do."""
    callers = itertools.cycle(CALLERS)
    combinations = itertools.product(REQUIRED, OPTIONAL, LAST, OPTIONS, (False, True))
    for number, (required, optional, last, options, with_data) in enumerate(combinations):
        if optional.source and not last.may_be_left_out:
            continue  # Python refuses them.
        parts = [required, optional, last]
        if with_data:
            # It is last, or has only required arguments before it.
            is_list = "*" not in last.source and last.source
            place = 3 if is_list and not last.may_be_left_out else 1
            if (options.source and any(part.source for part in parts[place:])) or (
                optional.source and place == 3
            ):
                continue
            parts.insert(place, Part("data: bytes", (DATA,), (DATA,), may_be_left_out=False))
        yield from calls_of(f"f{number}", next(callers), parts, options)


def calls_of(name: str, caller: str, parts: list[Part], options: Part) -> Iterator[Case]:
    """Return a command, called with all it takes, and some with the least."""
    star = [] if any("*names" in part.source for part in parts) else ["*"]
    sources = ["self", "context: Context"][caller != "method" :] if caller else []
    sources += [part.source for part in parts if part.source]
    sources += [*star, options.source] if options.source else []
    stdin = "stdin='data'" if any(part.args == (DATA,) for part in parts) else ""
    source = f"def {name}({', '.join(sources)}): return seen(locals())\n"
    if caller == "method":
        source += f"Service.{name} = {name}\n{name} = service.{name}\n"
    source += f"backend.command({stdin})({name})\n"
    for is_least in (False, True):
        given = [p for p in (*parts, options) if not (is_least and p.may_be_left_out)]
        can_be_less = any(p.source and p.may_be_left_out for p in (*parts, options))
        if is_least and (caller or not can_be_less):
            return
        # Options are written first; what is for standard input stands where it is declared.
        words = [word for p in given if isinstance(p.values, dict) for word in p.args]
        words += ["--"] if options.source else []
        plain = [p for p in given if not isinstance(p.values, dict)]
        words += [word for p in plain for word in p.args]
        positional = [value for p in plain for value in p.values]
        keywords = {k: v for p in given if isinstance(p.values, dict) for k, v in p.values.items()}
        yield Case(name, source, words, positional, keywords, options)


CASES = list(cases())


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("signatures") / "every.py"
    file.write_text(HEAD + "".join(dict.fromkeys(case.source for case in CASES)))
    spec = importlib.util.spec_from_file_location("every_signature", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["every_signature"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def session(module: Any, remctl_realm: Realm) -> Iterator[remctl.Remctl]:
    with (
        RemctldServer(remctl_realm, backend_commands(module.backend)) as server,
        remctl.Remctl(server.host, server.port, timeout=30) as session,
    ):
        yield session


@pytest.mark.parametrize("options", OPTIONS, ids=["none", "plain", "repeated", "required"])
def test_a_command_gets_what_python_would(
    options: Part, module: Any, session: remctl.Remctl, remctl_realm: Realm
) -> None:
    context = Context({"REMOTE_USER": remctl_realm.user}, ())
    wrong = []
    cases = [case for case in CASES if case.options is options]
    for case in cases:
        function = getattr(module, case.name)
        first = [context] if "context" in case.source else []
        expected = function(*first, *case.positional, **case.keywords)
        result = session.run(["every", case.name, *case.args])
        if (result.status, result.stdout_text()) != (0, f"{expected}\n"):
            wrong.append((case.source, case.args, expected, result))
    assert not wrong
    assert len(cases) > 20


def test_help_and_configuration_know_them_all(module: Any, session: remctl.Remctl) -> None:
    text = session.run(["help", "every"]).check().stdout_text()
    names = {case.name for case in CASES}
    assert {line.split()[1] for line in text.splitlines() if line.startswith("every ")} == names
