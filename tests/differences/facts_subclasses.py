"""Facts about subclasses: calls between methods, and attributes set by programs."""

from __future__ import annotations

from typing import Any

from .facts import ECHO, TIMEOUT, Facts, ask, connect, meant, read, remctl

METHODS = (
    "open", "close", "command", "output", "noop", "error", "set_timeout", "set_ccache",
    "set_source_ip",
)  # fmt: skip


def _tracing(calls: list[str], **attributes: Any) -> Any:
    """Return a subclass of Remctl whose methods record their calls."""

    def wrap(name: str) -> Any:
        original = getattr(remctl.Remctl, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"{name}({', '.join([str(len(args)), *kwargs])})")
            return original(self, *args, **kwargs)

        return method

    return type("Session", (remctl.Remctl,), {**{n: wrap(n) for n in METHODS}, **attributes})


def subclasses(facts: Facts) -> None:
    """Print facts about subclasses that override a method, and objects with more attributes."""
    _describe_calls(facts)
    _describe_overrides(facts)
    _describe_constructors(facts)
    _describe_attributes(facts)
    _describe_opened(facts)


def _describe_calls(facts: Facts) -> None:
    """Print the methods of a subclass that the methods of Remctl call."""
    place = facts.place
    calls: list[str] = []
    kind = _tracing(calls)
    session = kind(place.host, place.port, place.principal)
    steps = {
        "the constructor": lambda: None,
        "open()": lambda: session.open(place.host, place.port),
        "command()": lambda: session.command(ECHO),
        "output()": lambda: read(session)[-1],
        "noop()": lambda: session.noop() in (None, True),
        "a bad set_timeout()": lambda: session.set_timeout(-1),
        "an open() that fails": lambda: session.open(place.host, place.closed_port),
        "close()": lambda: session.close(),
        "command() after close()": lambda: session.command(ECHO),
        "error()": lambda: session.error(),
        "set_ccache()": lambda: session.set_ccache(place.ccache),
        "set_source_ip()": lambda: session.set_source_ip("127.0.0.1"),
    }
    for name, step in steps.items():
        facts.outcome(f"subclass, {name}", step)
        facts.note(f"subclass, {name}: methods called", calls)
        calls.clear()


def _describe_overrides(facts: Facts) -> None:
    """Override a method, with a result or exception that other methods may pass on."""
    place = facts.place
    kind = type("Session", (remctl.Remctl,), {"error": lambda self: "my words"})
    session = kind()
    facts.call("error() overridden, open() fails", session.open, place.host, place.closed_port)
    facts.call("error() overridden, set_timeout(-1)", session.set_timeout, -1)

    def refuse(self: Any, *args: Any) -> None:
        raise LookupError("closed")

    stubborn = type("Session", (remctl.Remctl,), {"close": refuse})()
    facts.outcome("close() raises, open()", stubborn.open, place.host, place.port)
    facts.outcome("close() raises, open() again", stubborn.open, place.host, place.port)
    facts.outcome("close() raises, a command", ask, stubborn)
    remctl.Remctl.close(stubborn)


def _describe_constructors(facts: Facts) -> None:
    """Print facts about subclasses with their own constructor."""
    place = facts.place

    def late(self: Any, host: str, port: int) -> None:
        self.host, self.port, self.name = host, port, "mine"
        remctl.Remctl.__init__(self)

    def early(self: Any, host: str, port: int) -> None:
        remctl.Remctl.__init__(self, host, port)
        self.host, self.port, self.timeout, self.principal = host, port, 5, None

    for name, method in {"late": late, "early": early}.items():
        kind = type("Session", (remctl.Remctl,), {"__init__": method})
        session = kind(place.host, place.port)
        facts.note(f"{name} super().__init__(): opened", session.opened)
        facts.outcome(f"{name} super().__init__(): open", session.open, place.host, place.port)
        facts.outcome(f"{name} super().__init__(): a command", ask, session)
        session.close()
    bare = type("Session", (remctl.Remctl,), {"__init__": lambda self: None})()
    for name in ("output", "error", "close", "noop"):
        facts.outcome(f"no super().__init__(): {name}()", getattr(bare, name))


def _describe_attributes(facts: Facts) -> None:
    """Set attributes on a connection, as programs do."""
    names = "host port principal timeout ccache source name status result lock log fd handle r"
    for name in names.split():
        session = connect(facts.place)
        if name == "r":
            session.close()  # The existing binding keeps its handle there.
        facts.outcome(f"attribute {name}: set", setattr, session, name, None)
        facts.note(f"attribute {name}: read", getattr(session, name, "nothing"))
        facts.outcome(f"attribute {name}: open()", session.open, *facts.place[:2])
        facts.outcome(f"attribute {name}: a command", ask, session)
        session.close()
    session = connect(facts.place)
    facts.outcome("attribute r: is true while open", lambda: bool(session.r))
    session.close()
    facts.outcome("attribute r: after close()", lambda: session.r)


def _describe_opened(facts: Facts) -> None:
    """Set `opened`, which programs do to disable a connection or to fake one."""
    session = connect(facts.place)
    facts.outcome("opened set to False: outcome", setattr, session, "opened", False)
    facts.note("opened set to False: read", session.opened)
    for name in ("output", "noop"):
        facts.call(f"opened set to False: {name}()", getattr(session, name))
    facts.call("opened set to False: command()", session.command, ECHO)
    facts.outcome("opened set to True again: outcome", setattr, session, "opened", True)
    facts.note("opened set to True again: read", session.opened)
    facts.call("opened set to True again: a command", ask, session)
    facts.outcome("opened set to False: open()", _open_again, session, facts.place)
    facts.note("opened set to False, open(): read", session.opened)
    session.close()
    facts.outcome("opened set to True after close(): outcome", setattr, session, "opened", True)
    facts.note("opened set to True after close(): read", session.opened)
    facts.outcome("opened set to True after close(): command()", session.command, ECHO)
    fresh = remctl.Remctl()
    fresh.set_timeout(TIMEOUT)
    facts.outcome("opened set to True when new: outcome", setattr, fresh, "opened", True)
    facts.note("opened set to True when new: read", fresh.opened)
    facts.call("opened set to True when new: command()", fresh.command, ECHO)
    facts.call("opened set to True when new: output()", lambda: meant(fresh.output()))
    facts.call("opened set to True when new: noop()", fresh.noop)
    facts.note("opened set to True when new: error()", fresh.error())
    kind = type("Session", (remctl.Remctl,), {"opened": False})
    facts.outcome("opened as an attribute of a subclass", lambda: ask(connect(facts.place, kind)))


def _open_again(session: Any, place: Any) -> Any:
    session.opened = False
    session.open(place.host, place.port)
    return ask(session)
