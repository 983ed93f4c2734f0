"""Facts about `_remctl`: results of every function, arguments, and the life of a handle."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .facts import Facts, Place, meant

_remctl: Any = importlib.import_module("_remctl")

ECHO = [b"test", b"echo", b"hello"]


def _open(place: Place) -> Any:
    handle = _remctl.remctl_new()
    _remctl.remctl_set_timeout(handle, 10)
    _remctl.remctl_open(handle, place.host, place.port, place.principal)
    return handle


def _token(handle: Any) -> Any:
    return meant(_remctl.remctl_output(handle))


def low_level(facts: Facts) -> None:
    """Print results of every function, before, while and after a connection is open."""
    place = facts.place
    new = _remctl.remctl_new()
    facts.note("type of a handle", type(new).__name__)
    steps: dict[str, Callable[[Any], Any]] = {
        "remctl_error": _remctl.remctl_error,
        "remctl_output": _remctl.remctl_output,
        "remctl_noop": _remctl.remctl_noop,
        "remctl_commandv": lambda h: _remctl.remctl_commandv(h, ECHO),
        "remctl_set_timeout": lambda h: _remctl.remctl_set_timeout(h, 5),
        "remctl_set_timeout, negative": lambda h: _remctl.remctl_set_timeout(h, -5),
        "remctl_set_ccache": lambda h: _remctl.remctl_set_ccache(h, place.ccache),
        "remctl_set_source_ip": lambda h: _remctl.remctl_set_source_ip(h, "127.0.0.1"),
        "remctl_open, refused": lambda h: _remctl.remctl_open(
            h, place.host, place.closed_port, None
        ),
        "remctl_open": lambda h: _remctl.remctl_open(h, place.host, place.port, place.principal),
        "remctl_error, opened": _remctl.remctl_error,
        "remctl_output, opened": _token,
        "remctl_noop, opened": _remctl.remctl_noop,
        "remctl_commandv, opened": lambda h: _remctl.remctl_commandv(h, ECHO),
        "first token": _token,
        "second token": _token,
        "third token": _token,
        "remctl_commandv, refused": lambda h: _remctl.remctl_commandv(h, [b"none"]),
        "refusal": _token,
        "remctl_error after it": _remctl.remctl_error,
        "remctl_commandv, empty": lambda h: _remctl.remctl_commandv(h, []),
        "remctl_error after the empty one": _remctl.remctl_error,
        "remctl_commandv, after the empty one": lambda h: _remctl.remctl_commandv(h, ECHO),
        "output of it": _token,
    }
    for name, step in steps.items():
        result = _call(facts.about(f"new handle, {name}"), step, new)
        facts.note(f"new handle, {name}: type", type(result).__name__)
    for name, command in {
        "streams": [b"test", b"streams"], "status 200": [b"test", b"status", b"200"],
        "nothing": [b"test", b"status", b"0"], "refused": [b"none"],
    }.items():  # fmt: skip
        facts.call(f"_remctl.remctl(), {name}", _simple, place, command)
        handle = _open(place)
        _remctl.remctl_commandv(handle, command)
        facts.note(f"whole tokens of {name}", [_remctl.remctl_output(handle) for _ in range(2)])
    facts.outcome("type of the error of _remctl.remctl()", lambda: type(
        _simple(place, [b"none"])[0]).__name__)  # fmt: skip


def _call(facts: Facts, step: Callable[[Any], Any], handle: Any) -> Any:
    try:
        result = step(handle)
    except Exception as error:
        facts.note("result", f"raises {type(error).__name__}")
        return None
    facts.note("result", result if result is None or isinstance(result, (tuple, str)) else (
        f"{'true' if result else 'false'}"))  # fmt: skip
    return result


def _simple(place: Place, command: Any) -> Any:
    return _remctl.remctl(place.host, place.port, place.principal, command)


def arguments(facts: Facts) -> None:
    """Print facts about arguments that are wrong, missing, or of another type."""
    place = facts.place
    handle = _open(place)
    functions = {
        "remctl": (place.host, place.port, place.principal, ECHO),
        "remctl_open": (_remctl.remctl_new(), place.host, place.port, place.principal),
        "remctl_commandv": (handle, ECHO),
        "remctl_output": (handle,),
        "remctl_noop": (handle,),
        "remctl_error": (handle,),
        "remctl_set_timeout": (handle, 5),
        "remctl_set_source_ip": (handle, "127.0.0.1"),
        "remctl_set_ccache": (handle, place.ccache),
        "remctl_new": (),
    }
    for name, whole in functions.items():
        function = getattr(_remctl, name)
        for count in range(len(whole)):
            facts.outcome(f"{name} with {count} arguments", _truth, function, *whole[:count])
        facts.outcome(f"{name} with one argument more", _truth, function, *whole, None)
        facts.outcome(f"{name} with a keyword", lambda f=function, w=whole: f(*w, nonsense=1))
        if whole and whole[0] is handle:
            for other in (None, 3, object()):
                kind = type(other).__name__
                facts.outcome(f"{name} of a {kind}", _truth, function, other, *whole[1:])
    for name, command in {
        "tuple": tuple(ECHO), "str items": ["test", "echo"], "None": None, "int": 3,
        "empty": [], "NUL": [b"test", b"echo", b"a\0b"], "bytearray": [b"test", bytearray(b"echo")],
    }.items():  # fmt: skip
        facts.outcome(f"_remctl.remctl() with a command: {name}", _simple, place, command)
        with_handle = lambda c=command: _truth(_remctl.remctl_commandv, _open(place), c)  # noqa: E731
        facts.outcome(f"remctl_commandv with a command: {name}", with_handle)
    for name, port in {"None": None, "str": str(place.port), "-1": -1, "65536": 65536}.items():
        if name != "65536":
            facts.outcome(f"_remctl.remctl() with port {name}", lambda p=port: _remctl.remctl(
                place.host, p, None, ECHO))  # fmt: skip


def _truth(function: Callable[..., Any], *args: Any) -> Any:
    result = function(*args)
    return bool(result) if not isinstance(result, (tuple, str)) else type(result).__name__
