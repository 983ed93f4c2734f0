"""Commands as remoto runs them: lines as they come, failures, arguments, environment, sudo."""

from __future__ import annotations

import logging
import os
import pickle
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.endings import attempt_within_limit, pids_in
from machine.loglines import Lines
from support.waiting import eventually, runs

from remctl_toolkit.machine import (
    ClosedError,
    CommandTimeoutError,
    Connection,
    MachineError,
)
from remctl_toolkit.machine.process import CommandFailedError, Target, check, run
from remctl_toolkit.machine.wire.both_frames import frame
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed


@pytest.fixture
def logger() -> Lines:
    return Lines()


# -- run ------------------------------------------------------------------------------------------


def test_run_logs_stdout_as_debug_and_stderr_as_error(
    connection: Connection, logger: Lines
) -> None:
    run(connection, ["sh", "-c", "echo out; echo err >&2"], logger=logger)
    assert logger.lines[1:] == [("DEBUG", "out"), ("ERROR", "err")]


def test_run_logs_by_the_logger_named_after_the_host(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger=connection.host):
        run(connection, ["sh", "-c", "echo 100%s out; echo err >&2"])
    assert caplog.record_tuples == [
        (connection.host, logging.INFO, "Running command: sh"),
        (connection.host, logging.DEBUG, "100%s out"),
        (connection.host, logging.ERROR, "err"),
    ]


def test_run_levels_can_be_chosen(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("elsewhere")
    with caplog.at_level(1, logger="elsewhere"):
        script = ["sh", "-c", "echo out; echo err >&2"]
        run(connection, script, logger=log, stdout_level=logging.INFO, stderr_level=33)
    found = [(record.levelno, record.message) for record in caplog.records]
    assert found[1:] == [(logging.INFO, "out"), (33, "err")]


def test_run_logs_a_line_when_it_is_there(connection: Connection, tmp_path: Path) -> None:
    """The command waits for what the logger does when it has the first line."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    class Answering(Lines):
        def debug(self, text: str) -> None:
            super().debug(text)
            if text == "first":
                fifo.write_text("second\n")

    logger = Answering()
    run(connection, ["sh", "-c", 'echo first; cat "$0"', fifo], logger=logger, timeout=LIMIT)
    assert logger.of("DEBUG")[1:] == ["first", "second"]


def test_run_logs_both_streams_as_they_come(connection: Connection, tmp_path: Path) -> None:
    """The command waits until each line is logged before it writes to the other stream."""

    class Marking(Lines):
        def debug(self, text: str) -> None:
            super().debug(text)
            (tmp_path / text).touch()

        def error(self, text: str) -> None:
            super().error(text)
            (tmp_path / text).touch()

    script = """
        await() { until [ -e "$0/$1" ]; do sleep 0.01; done; }
        for n in 1 2 3 4 5; do echo o$n; await o$n; echo e$n >&2; await e$n; done
    """
    logger = Marking()
    run(connection, ["sh", "-c", script, tmp_path], logger=logger, timeout=LIMIT)
    for number in range(1, 6):
        expected = [("DEBUG", f"o{number}"), ("ERROR", f"e{number}")]
        assert logger.lines[2 * number - 1 : 2 * number + 1] == expected
    assert len(logger.lines) == 11


def test_run_logs_a_last_line_without_an_end(connection: Connection, logger: Lines) -> None:
    run(connection, ["printf", r"one\r\n\ntwo"], logger=logger)
    assert logger.of("DEBUG")[1:] == ["one", "", "two"]


def test_run_logs_octets_that_are_no_utf8_as_escapes(connection: Connection, logger: Lines) -> None:
    run(connection, ["printf", r"a\377\303\251\n"], logger=logger)
    assert logger.of("DEBUG")[1:] == [r"a\xffé"]


def test_run_logs_long_lines_whole(connection: Connection, logger: Lines) -> None:
    text = "é" * 300_000
    run(connection, ["cat"], stdin=f"{text}\n{text}", logger=logger)
    assert logger.of("DEBUG")[1:] == [text, text]


def test_run_raises_for_a_status_other_than_0(connection: Connection, logger: Lines) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: sh: .* status: 3") as info:
        run(connection, ["sh", "-c", "echo out; exit 3"], logger=logger)
    assert isinstance(info.value, CommandFailedError)
    assert (info.value.status, info.value.host) == (3, connection.host)
    assert logger.lines[1:] == [
        ("DEBUG", "out"),
        ("ERROR", "command returned non-zero exit status: 3"),
    ]
    copy = pickle.loads(pickle.dumps(info.value))
    assert (str(copy), copy.status) == (str(info.value), 3)


def test_run_stop_on_nonzero(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    run(connection, ["false"], stop_on_nonzero=False)
    assert caplog.record_tuples == [
        (connection.host, logging.WARNING, "command returned non-zero exit status: 1")
    ]


def test_run_stop_on_error(connection: Connection, logger: Lines) -> None:
    run(connection, ["false"], stop_on_error=False, logger=logger)
    run(connection, ["no-such-program"], stop_on_error=False, logger=logger)
    run(connection, ["true"], cwd="/nonexistent", stop_on_error=False, logger=logger)
    assert logger.of("ERROR") == [
        "command returned non-zero exit status: 1",
        "no-such-program: No such file or directory",
        "cannot change to working directory /nonexistent: No such file or directory",
    ]


@pytest.mark.parametrize("function", [run, check])
def test_a_program_that_is_not_there_is_a_failure(
    connection: Connection, function: Callable[..., object]
) -> None:
    with pytest.raises(RuntimeError, match="no-such-program: No such file"):
        function(connection, ["no-such-program"], logger=Lines())


@pytest.mark.parametrize("function", [run, check])
def test_a_folder_that_is_not_there_is_a_failure(
    connection: Connection, function: Callable[..., object]
) -> None:
    with pytest.raises(
        RuntimeError, match="cannot change to working directory /nonexistent: No such"
    ):
        function(connection, ["true"], cwd="/nonexistent", logger=Lines())


# -- check ----------------------------------------------------------------------------------------


def test_check_returns_lines_and_status(connection: Connection) -> None:
    script = "echo one; echo; printf 'two\\r\\nthree'; echo err >&2; exit 4"
    assert check(connection, ["sh", "-c", script]) == (["one", "", "two", "three"], ["err"], 4)


def test_check_of_a_silent_command(python_only: Connection) -> None:
    assert check(python_only, ["true"]) == ([], [], 0)


def test_check_tells_the_signal_that_ended_a_command(connection: Connection) -> None:
    assert check(connection, ["sh", "-c", "kill -9 $$"]) == ([], [], -9)
    assert check(connection, ["sh", "-c", "exit 255"]) == ([], [], 255)


def test_check_keeps_octets_that_are_no_utf8(connection: Connection) -> None:
    stdout, _, _ = check(connection, ["printf", r"\377\376\303\251"])
    assert os.fsencode(stdout[0]) == b"\xff\xfe\xc3\xa9"
    assert check(connection, ["printf", "%s", stdout[0]])[0] == stdout


def test_check_logs_nothing_that_the_command_wrote(connection: Connection, logger: Lines) -> None:
    check(connection, ["sh", "-c", "echo out; echo err >&2; exit 1"], logger=logger)
    assert logger.lines == [("DEBUG", "Running command: sh")]


def test_check_stop_on_error(connection: Connection, logger: Lines) -> None:
    found = check(connection, ["no-such-program"], stop_on_error=False, logger=logger)
    assert found == ([], ["no-such-program: No such file or directory"], -1)


def test_much_output(connection: Connection) -> None:
    stdout, _, status = check(connection, ["sh", "-c", "seq 50000; yes | head -c 5000000"])
    assert stdout[:50000] == [str(number) for number in range(1, 50001)]
    assert (len(stdout), status) == (2_550_000, 0)


# -- Arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", ["é\n", "é\n".encode()])
def test_stdin(connection: Connection, logger: Lines, stdin: bytes | str) -> None:
    assert check(connection, ["cat"], stdin=stdin) == (["é"], [], 0)
    run(connection, ["cat"], stdin=stdin, logger=logger)
    assert logger.of("DEBUG")[1:] == ["é"]


def test_without_stdin_there_is_its_end(connection: Connection) -> None:
    assert check(connection, ["wc", "-c"])[0] == ["0"]


def test_cwd(connection: Connection, tmp_path: Path) -> None:
    assert check(connection, ["pwd"], cwd=tmp_path)[0] == [str(tmp_path)]
    home = Path(connection.far.home).resolve()
    assert Path(check(connection, ["pwd"])[0][0]) == home


def environment(found: tuple[list[str], list[str], int]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in found[0])


def test_extend_env(connection: Connection) -> None:
    found = environment(check(connection, ["env"], extend_env={"A": "b", "USER": None}))
    assert found["A"] == "b"
    assert "USER" not in found
    assert found["HOME"] == connection.far.home
    assert "REMOTE_USER" in found


def test_env_is_the_whole_environment(connection: Connection) -> None:
    found = check(connection, ["/usr/bin/env"], env={"A": "b"}, extend_env={"C": "d"})
    assert environment(found) == {"A": "b", "C": "d"}


def test_path_has_the_folders_of_administrators(connection: Connection) -> None:
    path = environment(check(connection, ["env"]))["PATH"].split(":")
    assert ":".join(path).startswith(connection.far.path)
    assert {"/usr/local/sbin", "/usr/sbin", "/sbin"} <= set(path)
    assert len(path) == len(set(path))
    assert (
        environment(check(connection, ["/usr/bin/env"], extend_env={"PATH": "/x"}))["PATH"] == "/x"
    )


def test_shell(connection: Connection) -> None:
    assert check(connection, "echo $((1 + 1)) | cat", shell=True)[0] == ["2"]
    assert check(connection, ['echo "$0" "$1"', "a b", "c"], shell=True)[0] == ["a b c"]


@pytest.mark.parametrize("function", [run, check])
def test_exit_closes_the_connection(server: RemctldServer, function: Callable[..., object]) -> None:
    with Connection(server.host, server.port, server.principal) as connection:
        function(connection, ["true"], exit=True)
        assert connection.closed
        with pytest.raises(ClosedError):
            function(connection, ["true"])


def test_what_has_a_connection_will_do(connection: Connection) -> None:
    class Machine:
        def __init__(self, connection: Connection) -> None:
            self.connection = connection

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    assert check(Machine(connection), ["echo", "x"], exit=True) == (["x"], [], 0)
    assert closed == [True]


def test_folder_and_environment_of_a_machine(connection: Connection, tmp_path: Path) -> None:
    pytest.importorskip("plumbum")
    from remctl_toolkit.machine.plumbum.machine import Machine

    machine = Machine.over(connection)
    try:
        machine.cwd.chdir(tmp_path)
        machine.env["A"] = "b"
        assert check(machine, "pwd; echo $A", shell=True)[0] == [str(tmp_path), "b"]
        found = check(machine, "pwd; echo $A", shell=True, cwd="/", extend_env={"A": "c"})
        assert found[0] == ["/", "c"]
    finally:
        machine.close()


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13"])
def test_older_and_newer_pythons(remctl_realm: Realm, version: str) -> None:
    """Commands work with every remote Python."""
    versions = Path.home() / ".pyenv" / "versions"
    pythons = sorted(versions.glob(f"{version}.*/bin/python3"))
    if not pythons:
        pytest.skip(f"no Python {version} here")
    line = Command("python", program=pythons[0], stdin="last")
    script = "echo out; cat; echo err >&2; exit 3"
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        for _ in range(2):  # The second time, the program is compiled.
            found = check(connection, ["sh", "-c", script], stdin="in", timeout=LIMIT)
            assert found == (["out", "in"], ["err"], 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("echo x",), {}, "a command is a list of words, or a string with shell=True"),
        (([],), {}, "needs a program"),
        ((["cat"],), {"stdin": 1}, "stdin must be octets or text, not int"),
        ((["cat"],), {"timeout": -2}, "timeout must be seconds, more than 0 .*, not -2"),
        ((["cat"],), {"timeout": "1"}, "timeout must be a number of seconds, not str"),
        ((["cat"],), {"preexec_fn": print}, "unexpected keyword argument 'preexec_fn'"),
    ],
)
def test_bad_arguments_are_told_at_once(
    connection: Connection, arguments: Any, options: Any, error: str
) -> None:
    for function in (run, check):
        with pytest.raises((TypeError, ValueError), match=error):
            function(connection, *arguments, **options)


def test_a_machine_is_needed() -> None:
    with pytest.raises(TypeError, match="on a machine or a Connection, not on str"):
        run("host", ["true"])  # type: ignore[arg-type]


def test_secrets_are_in_no_log(
    connection: Connection, far_log: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    words: dict[str, Any] = {"stdin": "xyzzy", "extend_env": {"A": "xyzzy"}}
    check(connection, ["true", "xyzzy"], label="that-one", **words)
    with pytest.raises(RuntimeError) as info:
        run(connection, ["false", "xyzzy"], **words)
    eventually(lambda: "that-one" in far_log())
    assert "xyzzy" not in far_log() + caplog.text + str(info.value)


# -- sudo -----------------------------------------------------------------------------------------

SUDO = """#!/bin/sh
[ "$1 $2" = "-n --" ] || { echo "sudo: what?" >&2; exit 1; }
shift 2
[ ! -e "$0.no" ] || { echo "sudo: a password is required" >&2; exit 1; }
exec env -i PATH=/usr/bin:/bin HOME=/root SUDO_USER=them "$@"
"""


@pytest.fixture(scope="module")
def sudo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sudo that empties the environment and leaves the user as it is."""
    folder = tmp_path_factory.mktemp("sudo")
    sudo = folder / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(sudo.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def sudoer(remctl_realm: Realm, sudo_folder: Path) -> Iterator[Connection]:
    commands = (Command("python", program="/usr/bin/python3", stdin="last"),)
    path = f"{sudo_folder}:/usr/bin:/bin"
    with (
        RemctldServer(remctl_realm, commands, env={"PATH": path}) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        yield connection


def test_sudo(sudoer: Connection, tmp_path: Path) -> None:
    found = check(
        sudoer,
        ["sh", "-c", "pwd; cat; env; exit 5"],
        sudo=True,
        stdin="in\n",
        cwd=tmp_path,
        extend_env={"A": "b"},
    )
    assert found[0][:2] == [str(tmp_path), "in"]
    values = dict(line.split("=", 1) for line in found[0][2:])
    assert (values["SUDO_USER"], values["HOME"], values["A"]) == ("them", "/root", "b")
    assert "REMOTE_USER" not in values
    assert "/usr/sbin" in values["PATH"].split(":")
    assert found[1:] == ([], 5)
    assert "SUDO_USER" not in environment(check(sudoer, ["env"]))


def test_sudo_for_all_of_a_target(sudoer: Connection) -> None:
    target = Target(sudoer)
    target.sudo = True
    assert check(target, "echo $SUDO_USER", shell=True)[0] == ["them"]
    assert check(target, "echo $SUDO_USER", shell=True, sudo=False)[0] == [""]


def test_sudo_timeout_ends_the_command(sudoer: Connection, tmp_path: Path) -> None:
    script = ["sh", "-c", 'echo $$ >"$0"; exec sleep 60', tmp_path / "pid"]

    def attempt(limit: float) -> bool:
        with pytest.raises(CommandTimeoutError):
            run(sudoer, script, sudo=True, timeout=limit, logger=Lines())
        pids = pids_in(tmp_path / "pid")
        eventually(lambda: not any(map(runs, pids)))
        return len(pids) == 1

    attempt_within_limit(attempt)


def test_sudo_that_is_refused(sudoer: Connection, sudo_folder: Path, logger: Lines) -> None:
    (sudo_folder / "sudo.no").touch()
    try:
        with pytest.raises(
            RuntimeError, match="sudo ended with status 1 and did not run the command"
        ):
            run(sudoer, ["true"], sudo=True, logger=logger)
    finally:
        (sudo_folder / "sudo.no").unlink()
    assert "sudo: a password is required" in logger.of("ERROR")


def test_sudo_that_is_not_there(connection: Connection) -> None:
    found = check(connection, ["true"], sudo=True, stop_on_error=False, logger=Lines())
    if found[2]:
        assert found[1][-1].startswith("sudo ended with status")


# -- Hostile hosts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"O" + b"\xff" * 8, "does not begin a frame"),
        (b"no such thing", "does not begin a frame"),
        (frame(b"X", 0, b"x"), "a malformed status"),
        (frame(b"X"), "a malformed status"),
        (frame(b"X", 0, b"1" * 8192), "a malformed status"),
    ],
)
def test_what_it_must_not_send_is_one_error(
    remctl_realm: Realm, tmp_path: Path, octets: bytes, text: str
) -> None:
    (tmp_path / "octets").write_bytes(octets)
    # The host is honest until the test replaces it.
    script = f"#!/bin/sh\n[ ! -e {tmp_path}/now ] || exec cat {tmp_path}/octets\n"
    script += 'exec /usr/bin/python3 "$@"\n'
    line = Command("python", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        Connection(server.host, server.port, server.principal, shell=None) as connection,
    ):
        (tmp_path / "now").touch()
        for function in (run, check):
            with pytest.raises(MachineError, match=text) as caught:
                function(connection, ["true"])
            assert caught.value.host == server.host
