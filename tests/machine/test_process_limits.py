"""Time limits of commands as remoto runs them, and what tells that anybody is still there."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.endings import attempt_within_limit, pids_in
from machine.loglines import Lines
from support.waiting import eventually, runs

import remctl
from remctl_toolkit.machine import (
    CommandTimeoutError,
    Connection,
    MachineError,
    facts,
)
from remctl_toolkit.machine.process import (
    CommandFailedError,
    Target,
    check,
    process,
    run,
)
from remctl_toolkit.machine.wire.both_frames import frame
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed


def test_run_ends_a_command_that_is_silent_for_too_long(
    connection: Connection, tmp_path: Path
) -> None:
    """With all that it has started."""
    script = 'sleep 60 & echo $$ $! >"$0"; echo x; wait'

    def attempt(limit: float) -> bool:
        logger = Lines()
        text = rf"no output of sh for {limit:g} s on .*: it was ended"
        with pytest.raises(CommandTimeoutError, match=text):
            run(connection, ["sh", "-c", script, tmp_path / "pids"], timeout=limit, logger=logger)
        pids = pids_in(tmp_path / "pids")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 2 and logger.of("DEBUG")[1:] == ["x"]

    attempt_within_limit(attempt)


def test_run_lets_a_command_go_on_that_writes_now_and_then(
    connection: Connection,
) -> None:
    script = 'for n in 1 2 3 4 5 6 7 8; do echo $n; sleep "$0"; done; exit 124'

    def attempt(limit: float) -> bool:
        logger = Lines()
        with pytest.raises(MachineError) as info:
            run(connection, ["sh", "-c", script, str(limit / 6)], timeout=limit, logger=logger)
        if isinstance(info.value, CommandTimeoutError):
            return False
        assert isinstance(info.value, CommandFailedError)
        assert info.value.status == 124
        assert len(logger.of("DEBUG")) == 9
        return True

    attempt_within_limit(attempt)


def test_check_ends_a_command_that_takes_too_long(connection: Connection, tmp_path: Path) -> None:
    script = 'echo $$ >"$0"; while :; do echo x; sleep 0.05; done'

    def attempt(limit: float) -> bool:
        text = rf"sh took longer than {limit:g} s on .*: it was"
        with pytest.raises(CommandTimeoutError, match=text):
            check(connection, ["sh", "-c", script, tmp_path / "pid"], timeout=limit)
        pids = pids_in(tmp_path / "pid")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 1

    attempt_within_limit(attempt)


def test_a_command_that_will_not_end_is_killed(connection: Connection, tmp_path: Path) -> None:
    script = "trap '' TERM; echo $$ >\"$0\"; while :; do sleep 0.05; done"

    def attempt(limit: float) -> bool:
        with pytest.raises(CommandTimeoutError):
            check(connection, ["sh", "-c", script, tmp_path / "pid"], timeout=limit)
        pids = pids_in(tmp_path / "pid")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 1

    attempt_within_limit(attempt)


def test_timeouts_that_do_not_raise_return_what_there_was(connection: Connection) -> None:
    def attempt(limit: float) -> bool:
        logger = Lines()
        options: dict[str, Any] = {"stop_on_timeout": False, "logger": logger}
        script = ["sh", "-c", "echo x; sleep 60"]
        stdout, *rest = check(connection, script, timeout=limit, **options)
        run(connection, ["sleep", "60"], timeout=0.2, **options)
        assert rest == [[], -1]
        assert len(logger.of("ERROR")) == 2
        return stdout == ["x"]

    attempt_within_limit(attempt)


def test_a_global_timeout(connection: Connection) -> None:
    target = Target(connection)
    target.global_timeout = 0.2
    with pytest.raises(CommandTimeoutError):
        check(target, ["sleep", "60"])
    assert check(target, ["echo", "x"], timeout=-1)[0] == ["x"]


def test_a_far_side_without_a_sign_of_life_is_given_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is not the command's silence."""
    monkeypatch.setattr(process, "_PATIENCE", 1.5)
    with pytest.raises(remctl.RemctlTimeoutError):
        check(connection, ["sleep", "60"])
    monkeypatch.setattr(process, "_BEAT", 0.2)

    def attempt(limit: float) -> bool:
        monkeypatch.setattr(process, "_PATIENCE", limit + 1.0)
        try:
            return check(connection, ["sleep", str(limit + 1.7)])[2] == 0
        except remctl.RemctlTimeoutError:
            return False

    attempt_within_limit(attempt)


def test_a_command_ends_when_nobody_reads_any_more(
    server: RemctldServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be silent itself: what runs it finds out by its own beats."""
    monkeypatch.setattr(process, "_BEAT", 0.2)
    connection = Connection(server.host, server.port, server.principal)
    pid_file = tmp_path / "pid"
    script = 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 300'

    def work() -> None:
        with contextlib.suppress(remctl.RemctlNotOpenedError):
            check(connection, ["sh", "-c", script, pid_file])

    thread = threading.Thread(target=work)
    thread.start()
    eventually(pid_file.exists, LIMIT)
    connection.close()
    thread.join(LIMIT)
    pid = int(pid_file.read_text())
    eventually(lambda: not runs(pid))


def test_a_background_process_is_not_waited_for(connection: Connection) -> None:
    start = time.monotonic()
    found = check(connection, ["sh", "-c", "sleep 100 & echo $!"])
    assert time.monotonic() - start < 50
    os.kill(int(found[0][0]), 9)


@pytest.mark.parametrize("stream", [1, 2])
def test_a_far_side_that_does_not_end_it_is_left(
    remctl_realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: int
) -> None:
    """It gives signs of life for ever, or output."""
    (tmp_path / "beat").write_bytes(frame(b"B"))
    # The host is honest until the test replaces it.
    honest = f'[ -e {tmp_path}/now ] || exec /usr/bin/python3 "$@"\n'
    script = f"#!/bin/sh\n{honest}while cat {tmp_path}/beat; do sleep 0.05; done >&{stream}\n"
    line = Command("python", script=script, stdin="last")
    monkeypatch.setattr(process, "_SLACK", 0.1)
    monkeypatch.setattr("remctl_toolkit.machine.base.connection.STARTS_AND_ENDS", 0.1)
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal, shell=None) as connection,
    ):
        (tmp_path / "now").touch()
        for function in (run, check):
            with pytest.raises(CommandTimeoutError):
                function(connection, ["true"], timeout=0.1)
        with pytest.raises(remctl.RemctlTimeoutError):
            connection.run(["true"], timeout=0.1)
        with pytest.raises(remctl.RemctlTimeoutError):
            facts.gather(connection, timeout=0.1)
        with (
            pytest.raises(remctl.RemctlTimeoutError),
            connection.stream(["true"], timeout=0.1) as tokens,
        ):
            list(tokens)
