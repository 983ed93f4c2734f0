"""Facts about arguments: hosts, ports, principals, settings and commands of every kind."""

from __future__ import annotations

import collections
import enum
import fractions
import pathlib
from collections.abc import Iterator
from typing import Any

from .facts import ECHO, TIMEOUT, Facts, ask, connect, meant, remctl


class Word(str, enum.Enum):  # noqa: UP042  (as programs before Python 3.11 have it)
    ECHO = "echo"


class Text(str):
    pass


class Index:
    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def _session() -> Any:
    session = remctl.Remctl()
    session.set_timeout(TIMEOUT)
    return session


def arguments(facts: Facts) -> None:
    """Print facts about arguments of connecting functions and of settings."""
    place = facts.place
    port = place.port
    ports: dict[str, Any] = {
        "int": port, "str": str(port), "bytes": str(port).encode(), "spaces": f" {port} ",
        "whole float": float(port), "fraction": port + 0.5, "Fraction": fractions.Fraction(port),
        "__index__": Index(port), "plus": f"+{port}", "underscore": f"{port // 10}_{port % 10}",
        "empty": "", "word": "remctl", "-1": -1, "'-1'": "-1", "65536": 65536, "'70000'": "70000",
        "list": [port], "nan": float("nan"), "infinity": float("inf"), "hex": hex(port),
        "object": object(), "2**64": 2**64, "False": False, "None": None,
    }  # fmt: skip
    for name, value in ports.items():
        if name in ("False", "None"):  # The default ports: other servers may listen there.
            continue
        facts.outcome(f"open(port={name})", _session().open, place.host, value)
        facts.outcome(f"remctl(port={name})", remctl.remctl, place.host, value, None, ECHO)
    hosts: dict[str, Any] = {
        "None": None, "empty": "", "bytes": b"localhost", "int": 3, "NUL": "local\0host",
        "space": "local host", "str subclass": Text("localhost"), "address": "127.0.0.1",
        "upper case": "LOCALHOST", "surrogate": "\udcff", "list": ["localhost"],
        "long": "a" * 300, "final dot": "localhost.",
    }  # fmt: skip
    for name, value in hosts.items():
        facts.outcome(f"open(host={name})", _session().open, value, port, place.principal)
        simple = (value, port, place.principal, ECHO)
        facts.outcome(f"remctl(host={name})", remctl.remctl, *simple)
        facts.outcome(f"Remctl(host={name}).opened", lambda v=value: remctl.Remctl(v, port).opened)
    principals: dict[str, Any] = {
        "None": None, "empty": "", "bytes": place.principal.encode(), "int": 3,
        "NUL": place.principal + "\0", "str subclass": Text(place.principal),
        "without realm": place.principal.partition("@")[0], "surrogate": "\udcff", "False": False,
    }  # fmt: skip
    for name, value in principals.items():
        facts.outcome(f"open(principal={name})", _session().open, place.host, port, value)
        facts.outcome(f"remctl(principal={name})", remctl.remctl, place.host, port, value, ECHO)
    _settings(facts)


def _settings(facts: Facts) -> None:
    place = facts.place
    settings: dict[str, dict[str, Any]] = {
        "set_timeout": {
            "0": 0, "5": 5, "True": True, "text": "5", "1.5": 1.5, "5.0": 5.0, "None": None,
            "-1": -1, "-1.0": -1.0, "2**40": 2**40, "2**62": 2**62, "2**70": 2**70,
            "__index__": Index(5),
        },
        "set_ccache": {
            "path": place.ccache, "Path": pathlib.Path(place.ccache), "None": None, "empty": "",
            "bytes": place.ccache.encode(), "NUL": "a\0b", "missing": place.missing_ccache,
            "garbage": place.garbage_ccache, "unknown type": "NOSUCH:x", "int": 3,
        },
        "set_source_ip": {
            "IPv4": "127.0.0.1", "IPv6": "::1", "empty": "", "word": "nonsense", "None": None,
            "bytes": b"127.0.0.1", "NUL": "127.0.0.1\0", "not ours": "192.0.2.1",
        },
    }  # fmt: skip
    for method, choices in settings.items():
        for name, value in choices.items():
            about = facts.about(f"{method}({name})")
            session = _session()
            about.call("outcome", getattr(session, method), value)
            about.note("error()", session.error())
            if method != "set_timeout" and name != "Path":
                about.outcome("open() after it", session.open, place.host, place.port)


def _words() -> Iterator[Any]:
    yield "test"
    yield b"echo"
    yield "gr\u00fcn"


def _breaks() -> Iterator[str]:
    yield "test"
    raise LookupError("the iterator's own")


def commands(facts: Facts) -> None:
    """Print facts about commands in different containers and with different items."""
    echo = ["test", "echo"]
    choices: dict[str, Any] = {
        "list": ECHO, "tuple": tuple(ECHO), "generator": _words, "iterator": lambda: iter(ECHO),
        "dict": dict.fromkeys(ECHO), "deque": collections.deque(ECHO),
        "map": lambda: map(str, ECHO),
        "dict keys": dict.fromkeys(ECHO).keys(), "str": "test", "bytes": b"test",
        "bytearray": bytearray(b"test"), "memoryview": memoryview(b"test"), "int": 3,
        "float": 1.5, "True": True, "None": None, "object": object(), "empty list": [],
        "empty tuple": (), "empty iterator": lambda: iter(()), "iterator that raises": _breaks,
        "str subclass": Text("test"), "list of a list": [["test", "echo"]],
        "item int": [*echo, 7], "item float": [*echo, 1.5], "item True": [*echo, True],
        "item None": [*echo, None], "item Path": [*echo, pathlib.Path("/tmp")],
        "item bytearray": [*echo, bytearray(b"x")], "item memoryview": [*echo, memoryview(b"x")],
        "item list": [*echo, ["x"]], "item str subclass": [*echo, Text("x")],
        "item str enum": ["test", Word.ECHO, Word.ECHO], "item not ASCII": [*echo, "gr\u00fcn"],
        "item surrogate escape": [*echo, "\udcff"], "item surrogate": [*echo, "\ud800"],
        "item empty": [*echo, "", "x", ""], "item bytes": [*echo, b"x y"],
        "item NUL": [*echo, "a\0b"], "subcommand NUL": ["test", "ec\0ho", "x"],
        "command NUL": ["te\0st", "echo"], "command empty": ["", "echo"], "one word": ["test"],
        "item long": ["test", "cat", b"x" * 300000], "4096 items": [*echo, *["x"] * 4094],
        "4097 items": [*echo, *["x"] * 4095],
    }  # fmt: skip
    place = facts.place
    for name, choice in choices.items():
        value = choice if not callable(choice) else choice()
        about = facts.about(f"command {name}")
        about.outcome("remctl()", remctl.remctl, place.host, place.port, None, value)
        value = choice if not callable(choice) else choice()
        session = connect(place)
        about.outcome("command()", session.command, value)
        about.note("opened after it", session.opened)
        about.note("error() after it", session.error())
        about.outcome("output() after it", _shape, session)
        about.outcome("another command after it", ask, session)


def _shape(session: Any) -> list[Any]:
    """Return the tokens of a command, with the length of long output."""
    tokens: list[Any] = []
    length = 0
    while not tokens or tokens[-1][0] == "output":
        token = meant(session.output())
        if token[0] == "output" and len(token[1]) > 100:
            length += len(token[1])
        else:
            tokens.append(token)
    return [*tokens, length] if length else tokens
