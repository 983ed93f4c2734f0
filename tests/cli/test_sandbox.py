"""remctl-sandbox: a command or shell with a realm, its exit status, and cleaning up."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.terminal import Terminal
from support.waiting import eventually
from testing.processes import TIMEOUT, check_gone, gone, python_environ

import remctl
from remctl_toolkit.cli import sandbox
from remctl_toolkit.cli.sandbox import servers
from remctl_toolkit.cli.sandbox.child import Signals
from remctl_toolkit.cli.sandbox.servers import DEFAULT_PORT
from remctl_toolkit.testing import programs
from remctl_toolkit.testing.ports import ReservedPort

pytestmark = pytest.mark.once

ARGUMENTS = [sys.executable, "-m", "remctl_toolkit.cli.sandbox"]
FOLDER = 'printf %s "${KRB5_CONFIG%/*}"'
"""Shell code that prints the realm's directory."""


def run(*arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the sandbox without a terminal."""
    return subprocess.run(
        [*ARGUMENTS, *arguments],
        env=python_environ(**variables),
        input=typed,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


# One command


def test_command_runs_with_ticket_and_server() -> None:
    done = run(
        "--",
        *("sh", "-c"),
        "klist; remctl -p $REMCTL_PORT -s $REMCTL_PRINCIPAL $REMCTL_HOST test echo hello",
    )
    assert "Default principal: user@REMCTL.TEST" in done.stdout
    assert done.stdout.endswith("hello\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_command_keeps_the_environment_but_for_the_realm(tmp_path: Path) -> None:
    done = run("--", "env", KRB5CCNAME="FILE:/elsewhere", SOME_SETTING="1")
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert seen["SOME_SETTING"] == "1"
    assert seen["KRB5CCNAME"] != "FILE:/elsewhere"
    assert {"REMCTL_HOST", "REMCTL_PORT", "REMCTL_PRINCIPAL", "KRB5_CONFIG"} <= set(seen)


def test_command_finds_the_commands_beside_ours() -> None:
    """It works when remctl-sandbox is called by its path, without an active environment."""
    command = "command -v remctl-fleet; python3 -c 'import sys, remctl; print(sys.prefix)'"
    found = run("--", "sh", "-c", command, PATH="/usr/bin:/bin").stdout
    assert found == f"{sysconfig.get_path('scripts')}/remctl-fleet\n{sys.prefix}\n"


def test_command_has_the_input_and_its_own_arguments() -> None:
    """Options after -- belong to the command."""
    assert run("--", "cat", typed="words").stdout == "words"
    assert run("--", "echo", "--help", "--", "--verbose").stdout == "--help -- --verbose\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 200"], 200),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_status_is_the_commands(command: Sequence[str], status: int) -> None:
    done = run("--", *command)
    assert done.returncode == status
    assert ("cannot run" in done.stderr) == (status in (126, 127))


def test_nothing_is_left_behind() -> None:
    done = run("--", "sh", "-c", f"{FOLDER}; exit 3")
    assert done.stdout.startswith("/")
    check_gone(done.stdout)


def test_further_commands_and_the_servers_log(tmp_path: Path) -> None:
    config = tmp_path / "more.conf"
    config.write_text("more ALL /bin/echo ANYUSER\n")
    for option in ("--config", "--command-file"):
        done = run(
            *("--verbose", option, str(config)),
            *("--", "sh", "-c", "remctl -p $REMCTL_PORT $REMCTL_HOST more words"),
        )
        assert done.stdout == "words\n"
        assert "remctld: starting" in done.stderr
        assert "COMMAND from user@REMCTL.TEST: more words" in done.stderr


def test_commands_of_the_readme() -> None:
    script = """
        set -- -p $REMCTL_PORT $REMCTL_HOST
        remctl "$@" account show alice
        remctl "$@" account show carol; echo status $?
        remctl "$@" account delete alice
        remctl "$@" backup run 2>/dev/null
    """
    done = run("--", "sh", "-c", script)
    lines = ["alice: active, 3 of 10 GB used", "status 3", "saved mail", "saved home"]
    assert done.stdout.splitlines() == lines
    assert done.stderr == "no such account: carol\nAccess denied\n"
    assert run("--", "sh", "-c", script.replace("2>/dev/null", ">/dev/null")).stderr.endswith(
        "Access denied\nskipped cache\n"
    )


# The port


@contextlib.contextmanager
def usual_port_taken(address: str) -> Iterator[None]:
    """Make sure that port 4373 is in use."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taker.bind((address, DEFAULT_PORT))
            taker.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                pytest.skip(f"no {address} here: {error}")
        yield


def test_usual_port_is_used_if_it_is_free(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another port stands for 4373, which may be in use while this runs."""
    with contextlib.closing(ReservedPort("127.0.0.1")) as free:
        port = free.number
        monkeypatch.setattr(servers, "DEFAULT_PORT", port)
        script = (
            "echo $REMCTL_PORT; cat $REMCTL_HOSTS; remctl -p $REMCTL_PORT localhost test echo hi"
        )
        assert sandbox.main(["--hosts", "1", "--", "sh", "-c", script]) == 0
    assert capfd.readouterr().out == f"{port}\n127.0.0.2\nhi\n"


@pytest.mark.parametrize(
    ("address", "hosts"), [("127.0.0.1", "1"), ("::1", "1"), ("127.0.0.3", "2")]
)
def test_another_port_is_used_if_one_address_has_it_in_use(address: str, hosts: str) -> None:
    script = (
        "echo $REMCTL_PORT; remctl -p $REMCTL_PORT localhost test echo hello; cat $REMCTL_HOSTS"
    )
    with usual_port_taken(address):
        done = run("--hosts", hosts, "--", "sh", "-c", script)
    port, hello, *listed = done.stdout.splitlines()
    assert int(port) != DEFAULT_PORT
    assert hello == "hello"
    assert all(re.search(r":\d+\b", line) for line in listed)


def test_banner_says_that_the_port_is_another() -> None:
    with usual_port_taken("127.0.0.1"):
        done = run(typed="echo $REMCTL_PORT\n", SHELL="/bin/sh")
    assert f"port {done.stdout.strip()}, as {DEFAULT_PORT} is in use" in done.stderr


def test_sandboxes_started_together_share_no_port() -> None:
    processes = [
        subprocess.Popen(
            [
                *ARGUMENTS,
                "--hosts",
                "2",
                "--",
                "sh",
                "-c",
                "cat; cat $REMCTL_HOSTS; echo $REMCTL_PORT",
            ],
            env=python_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    # They end when all have started: what is said is read at the end.
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert all(len(output.splitlines()) == 3 for output in outputs)


# Hosts


def test_hosts_to_try_remctl_fleet_on() -> None:
    script = (
        "cat $REMCTL_HOSTS; remctl-fleet --no-defaults --hosts-file $REMCTL_HOSTS --timeout 1"
        " --json -- test echo hello"
    )
    done = run("--hosts", "15", "--", "sh", "-c", script)
    lines = done.stdout.splitlines()
    listed, outcomes = lines[:15], [json.loads(line) for line in lines[15:]]
    assert [line.partition("#")[2].strip() for line in listed[:5]] == [
        *("", "refuses connections", "never answers", "denies every command", "")
    ]
    names = [line.partition("#")[0].strip() for line in listed]
    kinds = {
        ":".join(filter(None, [each["host"], str(each["port"] or "")])): (
            each["error"]["kind"] if each["error"] else each["stdout"]
        )
        for each in outcomes
    }
    expected = ["hello\n", "no connection", "timed out", "refused", *["hello\n"] * 6]
    assert [kinds[name] for name in names] == [*expected, *expected][:15]


def test_hosts_work_with_remctl_and_python() -> None:
    script = """
        host=$(head -n 1 $REMCTL_HOSTS) port=$REMCTL_PORT
        case $host in *:*) port=${host##*:} host=${host%:*} ;; esac
        remctl -p $port $host test echo hello
        python3 -c 'import remctl, sys
print(remctl.remctl(sys.argv[1], sys.argv[2], command=["test", "echo", "hi"]).stdout)' $host $port
    """
    assert run("--hosts", "1", "--", "sh", "-c", script).stdout == "hello\nb'hi\\n'\n"


def test_hosts_are_ports_where_there_are_no_addresses(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """macOS has only 127.0.0.1."""
    monkeypatch.setattr(servers, "_can_bind", lambda address: False)
    script = (
        "cat $REMCTL_HOSTS; remctl-fleet --hosts-file $REMCTL_HOSTS --timeout 1 -- test echo hi"
    )
    assert sandbox.main(["--hosts", "4", "--", "sh", "-c", script]) == 1
    shown = capfd.readouterr()
    assert len(re.findall(r"^localhost:\d+(?:  # .*)?$", shown.out, re.MULTILINE)) == 4
    for text in ("no connection", "timed out", "Access denied", "1 succeeded, 3 failed"):
        assert text in shown.err


def test_banner_says_which_hosts_are_in_trouble() -> None:
    said = run("--hosts", "13", typed="exit\n", SHELL="/bin/sh").stderr
    for text in (
        "127.0.0.[2-14]",
        "127.0.0.[3,13]: refuses connections",
        "127.0.0.[4,14]: never answers",
        "127.0.0.5: denies every command",
        "remctl-fleet --hosts-file $REMCTL_HOSTS",
    ):
        assert text in said
    assert [line for line in said.splitlines() if len(line) > 80] == []


def test_logs_of_hosts_are_told_apart() -> None:
    script = "remctl-fleet --hosts-file $REMCTL_HOSTS --timeout 1 -- test echo hello"
    done = run("--hosts", "4", "--verbose", "--", "sh", "-c", script)
    assert re.search(r"^127\.0\.0\.2(:\d+)?: .*COMMAND from user@\S+ test echo", done.stderr, re.M)
    assert re.search(r"^127\.0\.0\.5(:\d+)?: .*access denied", done.stderr, re.M)


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "-l"], "unrecognized|remctl-sandbox -- ls"),
        (["ls"], "remctl-sandbox -- ls"),
        (["--"], "no command after --"),
        (["--nonsense"], "--nonsense"),
        (["--config"], "expected one argument"),
        (["--config", "/nonexistent"], "cannot read /nonexistent"),
        *(
            (["--hosts", text], "it must be a number from 1 to 200")
            for text in ("0", "201", "x", "-1")
        ),
    ],
)
def test_wrong_usage(arguments: Sequence[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "usage: remctl-sandbox" in done.stderr


def test_help_has_an_example_and_the_exit_statuses() -> None:
    done = run("--help")
    assert done.returncode == 0
    for text in (
        "remctl localhost test echo hello",
        "--version",
        "--hosts",
        "69",
        "128+N",
        "--config",
    ):
        assert text in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"remctl-sandbox {remctl.__version__}\n")


@pytest.mark.parametrize("command", [[], ["--", "true"]])
def test_missing_programs_are_named(
    command: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "_EXTRA_DIRECTORIES", ())
    assert sandbox.main(command) == 69
    message = capsys.readouterr().err
    assert message.startswith("remctl-sandbox: ")
    for package in ("krb5-kdc", "remctl-server"):
        assert package in message


def test_client_is_needed_in_a_shell_only(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    found = programs.find(*programs.REALM_PROGRAMS, *programs.SERVER_PROGRAMS)
    for name in found:
        (tmp_path / name).symlink_to(found[name])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_EXTRA_DIRECTORIES", ())
    assert sandbox.main([]) == 69
    assert "remctl-client" in capsys.readouterr().err


def test_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    config = tmp_path / "wrong.conf"
    config.write_text("nonsense\n")
    done = run("--config", str(config), "--", "true")
    assert done.returncode == 70
    assert "parse error" in done.stderr
    assert "Traceback" not in done.stderr


# Signals


@contextlib.contextmanager
def started(script: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a sandbox with a shell script that prints the realm's directory."""
    with subprocess.Popen(
        [*ARGUMENTS, "--", "sh", "-c", f"{FOLDER}; echo; {script}"],
        env=python_environ(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_interrupt_is_for_the_command() -> None:
    """Ctrl-C goes to the whole foreground group; a command that handles it goes on."""
    script = "trap 'echo interrupted; exit 5' INT; echo ready; sleep 600 & wait"
    with started(script) as (process, folder):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(TIMEOUT) == 5
        assert not Path(folder).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_request_to_end_is_passed_on(number: signal.Signals) -> None:
    with started("exec sleep 600") as (process, folder):
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
        assert not Path(folder).exists()


def test_request_to_end_that_comes_early_is_not_lost() -> None:
    """The signal may come before Popen() has returned, although the child runs already."""
    with (
        Signals(hang_up=False) as signals,
        subprocess.Popen(["sleep", "600"]) as child,
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        signals.pass_on_to(child)
        assert child.wait(TIMEOUT) == -signal.SIGTERM


def test_killed_sandbox_leaves_nothing() -> None:
    with started("exec sleep 600") as (process, folder):
        process.kill()
        process.wait(TIMEOUT)
        # The command itself is not the sandbox's to end when it is killed; the realm is.
        os.killpg(process.pid, signal.SIGKILL)
        eventually(lambda: gone(folder), TIMEOUT, what=folder)


# The shell


def test_shell_without_a_terminal() -> None:
    typed = f"remctl -p $REMCTL_PORT $REMCTL_HOST test echo hello\n{FOLDER}\nexit 6\n"
    done = run(typed=typed, SHELL="/bin/sh")
    greeting, _, folder = done.stdout.partition("\n")
    assert greeting == "hello"
    check_gone(folder)
    assert "user@REMCTL.TEST" in done.stderr
    assert done.stderr.endswith("The sandbox is closed: its realm and servers are gone.\n")
    assert done.returncode == 6


def test_shell_is_sh_when_none_is_set() -> None:
    assert run(typed="echo $0\n", SHELL="").stdout == "/bin/sh\n"


class Shell(Terminal):
    """The shell of a sandbox, on a terminal."""

    def __init__(self) -> None:
        variables = {"SHELL": "/bin/sh", "PS1": "prompt> ", "TERM": "dumb", "ENV": ""}
        super().__init__(ARGUMENTS, python_environ(**variables))

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        with open(os.devnull, "rb") as nothing:  # Keeps the numbers until the end.
            os.dup2(nothing.fileno(), self._ours)
            os.dup2(nothing.fileno(), self._master)


@pytest.fixture
def terminal() -> Iterator[Shell]:
    with Shell() as terminal:
        yield terminal


def test_shell_on_a_terminal(terminal: Shell) -> None:
    banner = terminal.expect(r"(?s)(.*)\(sandbox\) prompt> ").group(1)
    port = re.search(r"localhost, port (\d+)", banner)
    assert port
    assert "user@REMCTL.TEST" in banner
    assert "exit" in banner

    suggested = re.search(r"remctl (-p \d+ )?localhost account show alice", banner)
    assert suggested
    terminal.type(f"{suggested.group()}\n")
    terminal.expect(r"\r\nalice: active, 3 of 10 GB used\r\n\(sandbox\) prompt> ")
    terminal.type("echo port $REMCTL_PORT\n")
    assert terminal.expect(r"\r\nport (\d+)\r\n").group(1) == port.group(1)
    terminal.expect("prompt> ")

    terminal.type(f"echo folder $({FOLDER})\n")
    folder = terminal.expect(r"\r\nfolder (\S+)\r\n").group(1)
    terminal.type("exit 4\n")
    assert terminal.wait() == 4
    check_gone(folder)


def test_ctrl_c_in_the_shell_ends_neither_shell_nor_sandbox(terminal: Shell) -> None:
    terminal.expect("prompt> ")
    terminal.type("\x03")
    terminal.expect("prompt> ")
    terminal.type("sh -c 'echo started; exec sleep 600'\n")
    terminal.expect(r"\r\nstarted\r\n")
    terminal.type("\x03")
    terminal.expect("prompt> ")
    terminal.type("remctl -p $REMCTL_PORT $REMCTL_HOST test echo still here\n")
    terminal.expect(r"\r\nstill here\r\n\(sandbox\) prompt> ")
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_closed_terminal_leaves_nothing(terminal: Shell) -> None:
    terminal.expect("prompt> ")
    terminal.type(f"echo folder $({FOLDER})\n")
    folder = terminal.expect(r"\r\nfolder (\S+)\r\n").group(1)
    terminal.hang_up()
    terminal.wait()
    check_gone(folder)
