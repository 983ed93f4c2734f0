"""Facts about values: types of results, and uses of them in programs."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from .facts import ECHO, FIELDS, MEANT, Facts, ask, connect, remctl


def values(facts: Facts) -> None:
    """Print types and contents of tokens, results, exceptions and connections."""
    place = facts.place
    session = connect(place)
    _describe_tokens(facts, session)
    facts.note("noop() returns", session.noop())
    for name, value in (
        ("set_timeout", 5), ("set_source_ip", "127.0.0.1"), ("set_ccache", place.ccache)
    ):  # fmt: skip
        facts.note(f"{name}() returns", getattr(session, name)(value))
    facts.note("open() returns", session.open(place.host, place.port))
    facts.note("command() returns", session.command(ECHO))
    for name in ("close", "error"):
        facts.note(f"{name}() returns", getattr(session, name)())
    _describe_results(facts)
    _describe_refusal(facts)
    _describe_object(facts)


def _describe_tokens(facts: Facts, session: Any) -> None:
    commands = {"streams": ["test", "streams"], "status 200": ["test", "status", "200"],
                "refused": ["none"], "no output": ["test", "status", "0"]}  # fmt: skip
    for name, command in commands.items():
        session.command(command)
        number, token = 0, None
        while token is None or token[0] != "done":
            token = session.output()
            about = facts.about(f"token {number} of {name}")
            about.note("is a tuple", isinstance(token, tuple))
            about.note("has the class tuple", type(token) is tuple)
            about.note("repr", repr(token))
            for field, value in zip(FIELDS, token, strict=True):
                meaning = "" if field in MEANT[token[0]] else ", without meaning"
                about.note(f"{field}{meaning}", value)
                if not meaning:
                    about.note(f"{field} as text", str(value))
                    about.note(f"{field} as repr", repr(value))
                    about.note(f"{field} in a format", f"{value!s:>3}")
            about.outcome("numbers as JSON", lambda token=token: json.dumps(_numbers(token)))
            about.outcome("comes back from a pickle", lambda token=token: _pickled(token))
            about.note("can be hashed", isinstance(hash(token), int))
            number += 1


def _numbers(token: Any) -> list[int]:
    """Return a token's numbers: its stream, status or error."""
    fields = zip(FIELDS[2:], token[2:], strict=True)
    return [value for field, value in fields if field in MEANT[token[0]]]


def _pickled(value: Any) -> bool:
    return bool(pickle.loads(pickle.dumps(value)) == value)


def _describe_results(facts: Facts) -> None:
    place = facts.place
    for name, command in {
        "streams": ["test", "streams"], "status 7": ["test", "status", "7"],
        "status 200": ["test", "status", "200"], "nothing": ["test", "status", "0"],
    }.items():  # fmt: skip
        result = remctl.remctl(place.host, place.port, None, command)
        for field in ("stdout", "stderr", "status"):
            facts.note(f"result of {name}: {field}", getattr(result, field))
        same = remctl.remctl(place.host, place.port, None, command)
        facts.note(f"result of {name}: equals another of the same", result == same)
        facts.outcome(f"result of {name}: can be hashed", lambda r=result: isinstance(hash(r), int))
        facts.note(f"result of {name}: is true", bool(result))
        facts.note(f"result of {name}: vars", sorted(vars(result)))
        facts.note(f"result of {name}: repr", repr(result))
        facts.outcome(f"result of {name}: takes an attribute", setattr, result, "host", "web1")
        facts.outcome(f"result of {name}: copy", lambda r=result: copy.copy(r).status)


def _describe_refusal(facts: Facts) -> None:
    place = facts.place
    try:
        remctl.remctl(place.host, place.port, None, ["none"])
    except remctl.RemctlProtocolError as caught:
        error: Any = caught
    facts.note("refusal by remctl(): args", error.args)
    facts.note("refusal by remctl(): type of args[0]", type(error.args[0]).__name__)
    facts.note("refusal by remctl(): str()", str(error))
    facts.outcome("refusal by remctl(): value", lambda: error.value)
    facts.outcome("refusal by remctl(): a bytes method of args[0]", lambda: error.args[0].decode())
    facts.outcome("refusal by remctl(): takes an attribute", setattr, error, "code", 5)
    facts.outcome("refusal by remctl(): pickle", lambda: str(pickle.loads(pickle.dumps(error))))
    facts.note("refusal by remctl(): cause", error.__cause__)
    facts.note("refusal by remctl(): context", error.__context__)
    facts.note("refusal by remctl(): notes", len(getattr(error, "__notes__", ())))


def _describe_object(facts: Facts) -> None:
    session = connect(facts.place)
    uses: dict[str, Callable[[], Any]] = {
        "bool()": lambda: bool(session),
        "fileno()": lambda: session.fileno() >= 0,
        "len()": lambda: len(session),
        "iter()": lambda: iter(session),
        "hash()": lambda: isinstance(hash(session), int),
        "equals itself": lambda: session == session,
        "copy.copy()": lambda: type(copy.copy(session)).__name__,
        "pickle": lambda: pickle.dumps(session),
        "weak reference": lambda: weakref.ref(session)() is session,
        "new attribute": lambda: setattr(session, "anything", 1),
        "with statement": lambda: session.__enter__() is session,
        "repr() names the class": lambda: "Remctl" in repr(session),
    }
    for name, use in uses.items():
        facts.outcome(f"connection as an object: {name}", use)
    gc.collect()
    facts.outcome("connection as an object: a command after all that", ask, session)
    session.close()
    dropped = connect(facts.place)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del dropped
        gc.collect()
    shown = sorted({warning.category.__name__ for warning in caught})
    facts.note("warnings where an open connection is dropped", shown)
