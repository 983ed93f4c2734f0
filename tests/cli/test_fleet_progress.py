"""Progress lines of remctl-fleet without a bar, with a clock that the tests control."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from cli.fleets import Hosts
from testing.processes import TIMEOUT

import remctl
from remctl_toolkit.cli.fleet.progress import LINE_INTERVAL, Lines
from remctl_toolkit.cli.fleet.screen import Screen
from remctl_toolkit.fleet import Host, Outcome

pytestmark = pytest.mark.once


class Clock:
    """Clock that a test advances."""

    def __init__(self) -> None:
        self._asked: queue.Queue[float] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._asked_for = 0.0

    def wait(self, seconds: float) -> bool:
        self._asked.put(seconds)
        return self._answers.get(timeout=TIMEOUT)

    def pass_(self) -> float:
        """End the current wait, return its length, and wait until the next one has started."""
        seconds = self._asked_for or self._asked.get(timeout=TIMEOUT)
        self._answers.put(False)
        self._asked_for = self._asked.get(timeout=TIMEOUT)
        return seconds

    def end(self) -> None:
        self._answers.put(True)


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.end()


def test_a_line_appears_every_ten_seconds_even_if_nothing_happens(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [Host(f"web{number}") for number in range(1, 5)]
    lines = Lines(4, Screen(), clock.wait)
    for host in hosts[:3]:
        lines.begun(host)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        assert clock.pass_() == LINE_INTERVAL == 10
        shown = capsys.readouterr().err
        assert shown == "remctl-fleet: 0 of 4 hosts done, still running: web[1-3]\n"
    lines.finished(Outcome(hosts[0], remctl.RemctlSimpleResult(status=0)))
    lines.finished(Outcome(hosts[2], remctl.RemctlSimpleResult(status=1)))
    lines.begun(hosts[3])
    assert capsys.readouterr().err == ""
    clock.pass_()
    shown = capsys.readouterr().err
    assert shown == "remctl-fleet: 2 of 4 hosts done, 1 failed, still running: web[2,4]\n"
    clock.end()
    lines.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("folds", [True, False])
def test_the_hosts_of_a_line_have_a_bound(
    clock: Clock, capsys: pytest.CaptureFixture[str], folds: bool
) -> None:
    hosts = [Host(f"web{n}" if folds else f"{'abcdefgh'[n % 8]}{n}.example") for n in range(400)]
    lines = Lines(1000, Screen(), clock.wait)
    for host in hosts:
        lines.begun(host)
    clock.pass_()
    shown = capsys.readouterr().err
    assert len(shown) < 140
    if folds:
        assert shown.endswith("still running: web[0-399]\n")
    else:
        assert "still running: a0.example,b1.example" in shown  # Those that take longest.
        assert shown.endswith(" more\n")


def test_a_clock_that_runs_ends_with_the_run(hosts: Hosts) -> None:
    done = hosts.run("web[1-2]", "name", "show")
    assert "still running" not in done.stderr


@pytest.mark.parametrize("place", ["pipe", "dumb"])
def test_the_lines_are_there_without_a_terminal_and_on_a_dumb_one(hosts: Hosts, place: str) -> None:
    line = "remctl-fleet: 1 of 2 hosts done, 1 failed, still running: silent1"
    if place == "pipe":
        done = hosts.run(
            *("--connect-timeout", "2", "dead1,silent1", "name", "show"), FLEET_INTERVAL="0.1"
        )
        assert done.stderr.count(f"{line}\n") > 1
        quiet = hosts.run(
            *("-q", "--connect-timeout", "0.5", "dead1,silent1", "name", "show"),
            FLEET_INTERVAL="0.1",
        )
        assert "still running" not in quiet.stderr
        return
    variables = {"TERM": "dumb", "FLEET_INTERVAL": "0.1"}
    with hosts.terminal("dead1,silent1", "name", "show", **variables) as terminal:
        terminal.expect(f"{line}\r\n")
        terminal.expect(f"{line}\r\n")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "\x1b" not in terminal.everything
