"""The examples in chopsticks' README, with nothing changed but the connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.call import Interpreter

pytestmark = pytest.mark.once


class Tunnel(Interpreter):
    """What the examples call it."""

    @property
    def host(self) -> str:
        return self.name


@pytest.fixture(scope="module")
def tun(connection: Connection) -> Iterator[Tunnel]:
    with Tunnel(connection, name="troy") as tunnel:
        yield tunnel


def test_time(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    t = tun
    import time

    print('Time on %s:' % t.host, t.call(time.time))  # fmt: skip  # noqa: UP031

    word, _, seconds = capsys.readouterr().out.partition(": ")
    assert word == "Time on troy"
    assert float(seconds) == pytest.approx(time.time(), abs=60)


def test_facts(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    t = tun
    from remctl_toolkit.machine.facts import ip

    print('%s ip:' % t.host, t.call(ip))  # fmt: skip  # noqa: UP031

    assert capsys.readouterr().out.startswith("troy ip: ")


def test_any_function_with_any_arguments(tun: Tunnel) -> None:
    # "Any pickleable function can be called with any pickleable arguments."
    data: dict[str, Any] = {"a": [1, 2.5, None], "b": {"c": "é"}}
    assert json.loads(tun.call(json.dumps, data)) == data
    assert tun.call(json.loads, json.dumps(data)) == data


def test_standard_error_is_for_debugging(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    def debug() -> str:
        import sys

        print("got here", file=sys.stderr)
        return "done"

    assert tun.call(debug) == "done"
    assert capsys.readouterr().err == "[troy] got here\n"
