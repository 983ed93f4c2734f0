"""Facts about names: modules, classes, attributes, signatures and keywords."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from .facts import ECHO, Facts, connect, read, remctl

_remctl: Any = importlib.import_module("_remctl")

EXCEPTIONS = ("RemctlError", "RemctlProtocolError", "RemctlNotOpenedError")
CLASSES = (*EXCEPTIONS, "RemctlSimpleResult", "Remctl")
METHODS = (
    "set_ccache", "set_source_ip", "set_timeout", "open", "command", "output", "noop", "close",
    "error",
)  # fmt: skip


def names(facts: Facts) -> None:
    """Print all public names and their kinds."""
    for module in (remctl, _remctl):
        for name in filter(_public, dir(module)):
            kind = type(getattr(module, name)).__name__
            facts.note(f"name {module.__name__}.{name}", kind.removeprefix("builtin_function_or_"))
    stars: dict[str, Any] = {}
    exec("from remctl import *", stars)
    for name in filter(_public, stars):
        facts.note(f"from remctl import * gives {name}", "yes")
    facts.note("type of remctl.VERSION", type(remctl.VERSION).__name__)
    facts.note("type of _remctl.VERSION", type(_remctl.VERSION).__name__)
    for name in CLASSES:
        _describe_class(facts.about(name), getattr(remctl, name))
    session = connect(facts.place)
    for name in sorted({*filter(_public, vars(session)), "opened"}):
        facts.note(f"attribute of a connection: {name}", type(getattr(session, name)).__name__)
    session.close()
    for name in vars(remctl.RemctlSimpleResult()):
        facts.note(f"attribute of a result: {name}", "yes")
    _describe_exceptions(facts)


def _public(name: str) -> bool:
    return not name.startswith("_")


def _describe_class(facts: Facts, kind: type) -> None:
    facts.note("bases", ", ".join(base.__name__ for base in kind.__mro__))
    facts.note("module", kind.__module__)
    for name in filter(_public, vars(kind)):
        attribute = inspect.getattr_static(kind, name)
        facts.note(f"attribute {name}", type(attribute).__name__)


def _describe_exceptions(facts: Facts) -> None:
    for name in EXCEPTIONS:
        kind, about = getattr(remctl, name), facts.about(f"{name}('text', 3)")
        error = kind("text", 3)
        about.note("args", error.args)
        about.note("str()", str(error))
        about.note("repr()", repr(error))
        facts.note(f"str({name}())", str(kind()))
        facts.outcome(f"{name} with a keyword", lambda kind=kind: kind(code=1))
        facts.outcome(f"{name}.value", lambda kind=kind: kind("text").value)
        facts.outcome(f"{name} takes an attribute", setattr, error, "code", 3)
        facts.outcome(f"{name} takes the attribute host", setattr, error, "host", "web1")


def signatures(facts: Facts) -> None:
    """Print names, kinds, order and defaults of parameters; use each name as a keyword."""
    _describe_signature(facts, "remctl", remctl.remctl)
    _describe_signature(facts, "Remctl", remctl.Remctl)
    _describe_signature(facts, "RemctlSimpleResult", remctl.RemctlSimpleResult)
    for name in METHODS:
        _describe_signature(facts, f"Remctl.{name}", getattr(remctl.Remctl, name))
    place = facts.place
    target = {"host": place.host, "port": place.port, "principal": place.principal}
    facts.call("remctl() by keywords", remctl.remctl, **target, command=ECHO)
    facts.call("remctl() by position", remctl.remctl, *target.values(), ECHO)
    facts.call("remctl(host, command=)", _swallow, place, ECHO)
    session = remctl.Remctl(**target)
    facts.outcome("open() by keywords", session.open, **target)
    facts.outcome("open() by position", session.open, *target.values())
    facts.outcome("command(comm=): returns", session.command, comm=ECHO)
    facts.outcome("command(comm=): is answered", read, session)
    facts.outcome("command() without an argument", session.command)
    facts.outcome("command() with comm= and a position", lambda: session.command(ECHO, comm=ECHO))
    facts.outcome("command() with an unknown keyword", lambda: session.command(ECHO, nonsense=1))
    facts.outcome("set_timeout(timeout=)", session.set_timeout, timeout=5)
    facts.outcome("set_ccache(ccache=)", session.set_ccache, ccache=place.ccache)
    facts.outcome("set_source_ip(source=)", session.set_source_ip, source="127.0.0.1")
    facts.outcome("output() with an argument", session.output, 1)
    facts.outcome("noop() with an argument", session.noop, 1)
    facts.outcome("close() with an argument", session.close, 1)
    facts.outcome("error() with an argument", session.error, 1)
    session.close()


def _swallow(place: Any, command: list[str]) -> Any:
    """Pass None for all parameters with defaults."""
    return remctl.remctl(place.host, place.port, None, command=command)


def _describe_signature(facts: Facts, name: str, function: Any) -> None:
    about = facts.about(f"signature of {name}")
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        default = parameter.default
        shown = "none" if default is parameter.empty else repr(default)
        text = f"{parameter.kind.description}, default {shown}"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            text += f", number {position}"
        about.note(parameter.name, text)
