"""The examples in chopsticks' README, with nothing changed but the import and the connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from remctl_toolkit.machine.chopsticks import Group, Tunnel
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once


@pytest.fixture
def tun(server: RemctldServer) -> Iterator[Tunnel]:
    with Tunnel("localhost", port=server.port, principal=server.principal) as tunnel:
        yield tunnel


def test_time(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    t = tun
    import time

    print('Time on %s:' % t.host, t.call(time.time))  # fmt: skip  # noqa: UP031

    word, _, seconds = capsys.readouterr().out.partition(": ")
    assert word == "Time on localhost"
    assert float(seconds) == pytest.approx(time.time(), abs=60)


def test_facts(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    t = tun
    from remctl_toolkit.machine.chopsticks import ip

    print('%s ip:' % t.host, t.call(ip))  # fmt: skip  # noqa: UP031

    assert capsys.readouterr().out.startswith("localhost ip: ")


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
    assert capsys.readouterr().err == "[localhost] got here\n"


def test_a_group(tun: Tunnel, capsys: pytest.CaptureFixture[str]) -> None:
    from remctl_toolkit.machine.chopsticks import ip, python_version

    group = Group([tun])
    for host, addr in group.call(ip).successful():
        print('%s ip:' % host, addr)  # fmt: skip  # noqa: UP031
    for host, version in group.call(python_version, short=True).items():
        print('%s Python version:' % host, version)  # fmt: skip  # noqa: UP031

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "localhost ip",
        "localhost Python version",
    ]


def test_connecting_and_disconnecting(tun: Tunnel) -> None:
    import time

    group = Group([tun])
    assert not tun.connected

    # Explictly connect and disconnect
    group.connect()
    group.call(time.time).raise_failures()
    assert tun.connected
    group.close()
    assert not tun.connected

    # Reconnect and disconnect as context manager
    with group:
        group.call(time.time).raise_failures()
    assert not tun.connected

    # Implicit reconnect
    group.call(time.time).raise_failures()
    assert tun.connected
