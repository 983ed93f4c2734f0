"""remctl-rsh: streams, exit status, signals, accounts and errors, with a real remctld."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli.rsh import Bridge, bridge, first_line, sha256, wait
from support.waiting import eventually, runs
from testing.processes import TIMEOUT

from remctl_toolkit.machine import Machine
from remctl_toolkit.testing import Command, Realm

pytestmark = pytest.mark.once

ACCOUNTS = (
    Command("python-nobody", program="/usr/bin/python3", stdin="last", user="nobody"),
    Command("sh-nobody", program="/bin/sh", stdin="last", user="nobody"),
    Command("secret", program="/usr/bin/python3", stdin="last", acl="princ:other@REMCTL.TEST"),
    Command("no-python", program="/bin/cat", stdin="last"),
)


@pytest.fixture(scope="module")
def rsh(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridge(remctl_realm, tmp_path_factory.mktemp("rsh"), *ACCOUNTS) as found:
        yield found


# -- Streams --------------------------------------------------------------------------------------


def test_streams_and_status_are_the_commands(rsh: Bridge) -> None:
    done = rsh.sh("cat; echo error >&2; exit 3", input=b"words\0\xff\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"words\0\xff\n", b"error\n", 3)


def test_words_are_joined_and_run_by_a_shell(rsh: Bridge) -> None:
    done = rsh.run(rsh.host, "echo", "a  b", "$HOME", "'c  d'", "|", "tr", "a-z", "A-Z")
    assert done.stdout.decode() == f"A B {os.path.expanduser('~').upper()} C  D\n"


def test_large_binary_data_both_ways(rsh: Bridge) -> None:
    data = random.Random(1).randbytes(5_000_000)
    assert rsh.run(rsh.host, "sha256sum", input=data).stdout[:64] == sha256(data)
    done = rsh.sh("head -c 5000000 /dev/zero; cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(bytes(5_000_000) + data).digest()


def test_conversation(rsh: Bridge) -> None:
    """Each line is answered before the next is sent."""
    with rsh.popen(rsh.host, "while read -r line; do echo got $line; done; echo over") as process:
        assert process.stdin is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert first_line(process) == b"got " + word + b"\n"
        process.stdin.close()
        assert first_line(process) == b"over\n"
        assert process.wait(TIMEOUT) == 0


def test_command_ends_while_input_is_still_open(rsh: Bridge) -> None:
    with rsh.popen(rsh.host, "exec <&-; exit 4") as process:
        assert process.wait(TIMEOUT) == 4


def test_command_that_reads_part_of_its_input(rsh: Bridge) -> None:
    with rsh.popen(rsh.host, "head -c 3") as process:
        assert process.stdin is not None
        process.stdin.write(b"abcdef")
        process.stdin.flush()
        assert process.stdout is not None
        assert process.stdout.read() == b"abc"
        assert process.wait(TIMEOUT) == 0


def test_no_input_is_read_with_n(rsh: Bridge, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"mine\n")
    for option in ("-n", "-oStdinNull=yes"):
        with (tmp_path / "input").open("rb") as file:
            with rsh.popen(option, rsh.host, "cat; echo end", stdin=file) as process:
                assert process.stdout is not None
                assert process.stdout.read() == b"end\n"
            assert file.read() == b"mine\n"
            assert process.returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_empty_streams(rsh: Bridge, closed: str) -> None:
    script = f'"$0" "$1" "cat; echo out; echo error >&2; exit 5" {closed}'
    done = rsh.run_program("/bin/sh", "-c", script, str(rsh.program), rsh.host)
    assert done.returncode == 5
    assert (done.stdout == b"out\n") == (" >" not in f" {closed}".replace("2>", "2"))
    assert (done.stderr == b"error\n") == ("2>" not in closed)


def test_descriptors_that_do_not_block(rsh: Bridge) -> None:
    """rsync leaves descriptors non-blocking."""
    near, far = os.pipe(), os.pipe()
    for fd in (near[0], far[1]):
        os.set_blocking(fd, False)
    script = "read -r line; head -c 1000000 /dev/zero"
    with rsh.popen(rsh.host, script, stdin=near[0], stdout=far[1], stderr=None) as process:
        os.close(near[0])
        os.close(far[1])
        with closing(open(far[0], "rb")) as output:
            os.write(near[1], b"go\n")
            eventually(lambda: waiting(far[0]) >= 65536, TIMEOUT)
            assert output.read() == bytes(1_000_000)
        os.close(near[1])
    assert process.returncode == 0


def waiting(pipe: int) -> int:
    """Return the number of octets in a pipe."""
    size = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return int.from_bytes(size, sys.byteorder)


def test_output_that_cannot_be_written(rsh: Bridge) -> None:
    with open("/dev/full", "wb") as full:
        process = rsh.popen(rsh.host, "echo words", stdout=full, stdin=subprocess.DEVNULL)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert errors == b"remctl-rsh: cannot write standard output: No space left on device\n"
    assert process.returncode == 255


def test_input_that_cannot_be_read(rsh: Bridge, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as write_only:
        process = rsh.popen(rsh.host, "cat", stdin=write_only)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert errors == b"remctl-rsh: cannot read standard input: Bad file descriptor\n"
    assert process.returncode == 255


# -- Without a command, subsystems, the environment -----------------------------------------------


def test_without_a_command_it_is_the_accounts_shell(rsh: Bridge) -> None:
    done = rsh.run(rsh.host, input=b"echo $SHELL; pwd; exit 6\n")
    home = os.path.expanduser("~")
    assert done.stdout.decode().splitlines()[1:] == [home]
    assert done.returncode == 6


def test_shell_knows_that_somebody_is_typing(rsh: Bridge) -> None:
    near, terminal = pty.openpty()
    try:
        process = rsh.popen(rsh.host, stdin=terminal)
        os.write(near, b"echo flags $-\nexit\n")
        out, _ = process.communicate(timeout=TIMEOUT)
    finally:
        os.close(near)
        os.close(terminal)
    assert b"i" in out.partition(b"flags ")[2]
    assert process.returncode == 0


def test_subsystem_that_is_unknown(rsh: Bridge) -> None:
    done = rsh.run("-s", rsh.host, "netconf")
    assert done.stderr == b"remctl-rsh: unknown subsystem 'netconf' (known: sftp)\n"
    assert done.returncode == 255


def test_variables_are_sent(rsh: Bridge) -> None:
    done = rsh.run(
        *("-o", "SendEnv=MY_* NOWHERE", "-o", "SetEnv=B='two words'", "-o", "SetEnv MY_C=own"),
        *(rsh.host, 'echo "$MY_A,$B,$MY_C,$OTHER"'),
        env={"MY_A": "a", "MY_C": "c", "OTHER": "o"},
    )
    assert done.stdout == b"a,two words,own,\n"


def test_terminal_that_was_asked_for_is_missed_in_one_line(rsh: Bridge) -> None:
    """The message is for users at a terminal, not for programs."""
    near, terminal = pty.openpty()
    try:
        process = rsh.popen("-tt", rsh.host, "true", stderr=terminal)
        assert wait(process) == 0
        assert b"remctl has no terminals" in os.read(near, 1000)
    finally:
        os.close(near)
        os.close(terminal)
    assert b"no terminals" in rsh.sh("true", "-tt", "-v").stderr
    for words in (["-tt"], ["-t", "-T", "-v"], ["-oRequestTTY=force"]):
        assert b"no terminals" not in rsh.sh("true", *words).stderr


def test_environment_is_what_sshd_gives(rsh: Bridge) -> None:
    done = rsh.sh("env", "-oSetEnv=MINE=1 REMUSER=me")
    variables = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert {name for name in variables if name.startswith(("REMCTL_COMMAND", "REMOTE_"))} == set()
    assert (variables["MINE"], variables["REMUSER"]) == ("1", "me")
    client = variables["SSH_CLIENT"].split()
    connection = variables["SSH_CONNECTION"].split()
    assert client == [*connection[:2], connection[3]]
    assert (connection[0], connection[2]) in {("127.0.0.1", "127.0.0.1"), ("::1", "::1")}
    assert connection[3] == str(rsh.server.port)
    assert {"HOME", "USER", "LOGNAME", "SHELL", "PATH"} <= set(variables)


def test_a_machine_keeps_the_servers_environment(rsh: Bridge) -> None:
    """remctl-rsh replaces sshd here."""
    with rsh.realm.environ(), Machine(rsh.host, rsh.server.port, rsh.server.principal) as machine:
        assert machine["sh"]("-c", "echo $REMOTE_USER $SSH_CLIENT") == "user@REMCTL.TEST\n"
        assert machine.connection.far.client in ("127.0.0.1", "::1")


# -- Exit status and signals ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 127, 255])
def test_exit_status(rsh: Bridge, status: int) -> None:
    done = rsh.sh(f"exit {status}")
    assert (done.returncode, done.stderr) == (status, b"")


def test_no_such_command(rsh: Bridge) -> None:
    done = rsh.run(rsh.host, "no-such-command", "words")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


def test_command_that_a_signal_ends(rsh: Bridge) -> None:
    done = rsh.sh("kill -9 $$")
    assert done.stderr == b"remctl-rsh: the command was killed by signal 9: Killed\n"
    assert done.returncode == 255
    assert rsh.sh("kill -9 $$", "-q").stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_command_and_then_us(rsh: Bridge, number: int) -> None:
    script = f"trap 'echo tidy; exit' {number}; echo $$; while :; do sleep 0.05; done"
    process = rsh.popen(rsh.host, script, env={"TEST_GRACE": str(TIMEOUT)})
    pid = int(first_line(process))
    assert runs(pid)
    process.send_signal(number)
    assert first_line(process) == b"tidy\n"
    assert wait(process) == -number
    eventually(lambda: not runs(pid))


def test_command_that_ignores_the_signal_is_ended(rsh: Bridge) -> None:
    process = rsh.popen(rsh.host, "trap '' INT TERM; echo $$; while :; do sleep 0.05; done")
    pid = int(first_line(process))
    process.send_signal(signal.SIGINT)
    assert wait(process) == -signal.SIGINT
    eventually(lambda: not runs(pid))


def test_signal_that_is_ignored_here_stays_so(rsh: Bridge) -> None:
    """nohup(1) ignores SIGHUP."""
    script = 'trap "" HUP; exec "$0" "$1" "echo here; read -r line; echo \\$line"'
    command = ["/bin/sh", "-c", script, str(rsh.program), rsh.host]
    with subprocess.Popen(
        command, env=rsh.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert first_line(process) == b"here\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdin is not None
        process.stdin.write(b"still\n")
        process.stdin.flush()
        assert first_line(process) == b"still\n"


def test_command_ends_when_we_are_killed(rsh: Bridge) -> None:
    process = rsh.popen(rsh.host, "echo $$; exec sleep 100")
    pid = int(first_line(process))
    process.kill()
    wait(process)
    eventually(lambda: not runs(pid), 20.0)


def test_nobody_reads_the_output(rsh: Bridge) -> None:
    process = rsh.popen(rsh.host, "echo $$; exec yes")
    pid = int(first_line(process))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(TIMEOUT) == -signal.SIGPIPE
    wait(process)
    eventually(lambda: not runs(pid))


def test_signal_while_the_output_waits(rsh: Bridge) -> None:
    """The program ends although the output has no reader."""
    process = rsh.popen(rsh.host, "echo $$; exec yes")
    pid = int(first_line(process))
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == -signal.SIGTERM
    wait(process)
    eventually(lambda: not runs(pid))


# -- Accounts -------------------------------------------------------------------------------------


def test_user_selects_the_commands(rsh: Bridge) -> None:
    for words in (["nobody@" + rsh.host], ["-l", "nobody", rsh.host], ["-oUser=nobody", rsh.host]):
        assert rsh.run(*words, "id -un").stdout == b"nobody\n"
    rsh.server.wait_for_log("COMMAND from user@REMCTL.TEST: sh-nobody ", TIMEOUT)


def test_user_whom_the_plain_commands_run_as(rsh: Bridge) -> None:
    assert rsh.run(f"root@{rsh.host}", "id -un").stdout == b"root\n"


def test_user_without_an_account(rsh: Bridge) -> None:
    done = rsh.run(f"alice@{rsh.host}", "id -un")
    assert done.returncode == 255
    assert done.stderr.startswith(
        b"remctl-rsh: no account 'alice' on localhost for this principal: "
    )
    assert b"'python' runs as 'root'" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_other_names_for_the_commands(rsh: Bridge) -> None:
    words = ("--python", "python-nobody", "--shell=sh-nobody", rsh.host, "id -un")
    assert rsh.run(*words).stdout == b"nobody\n"
    env = {"REMCTL_RSH_PYTHON": "python-nobody", "REMCTL_RSH_SHELL": ""}
    assert rsh.sh("id -un", env=env).stdout == b"nobody\n"


# -- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--python", "missing", "localhost", "id"], b"remctl command 'missing': Unknown command"),
        (["--python", "secret", "localhost", "id"], b"remctl command 'secret': Access denied"),
        (["--python", "no-python", "localhost", "id"], b"did not run Python"),
        (["-b", "nonsense", "localhost", "id"], b"source address"),
    ],
)
def test_one_clear_error(rsh: Bridge, words: list[str], message: bytes) -> None:
    done = rsh.run(*words)
    assert done.returncode == 255
    assert done.stdout == b""
    assert done.stderr.startswith(b"remctl-rsh: ")
    assert done.stderr.count(b"\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message", "cure"),
    [
        (["nowhere.invalid"], b"unknown host nowhere.invalid", b"is the name right"),
        (["-p", "1", "localhost"], b"cannot connect to localhost (port 1)", b"is remctld running"),
        (
            ["--principal", "host/other", "localhost"],
            b"host/other",
            b"name its principal (--principal)",
        ),
        (
            ["--ccache", "FILE:/nonexistent", "localhost"],
            b"importing ticket cache",
            b"run kinit, or name another (--ccache)",
        ),
    ],
)
def test_one_clear_error_and_its_cure(
    rsh: Bridge, words: list[str], message: bytes, cure: bytes
) -> None:
    done = rsh.run(*words, "id")
    assert done.returncode == 255
    [line] = done.stderr.splitlines()  # GNU parallel, for one, counts lines
    assert line.startswith(b"remctl-rsh: ")
    said, advice = line.split(b"; ")
    assert message in said
    assert cure in advice


def test_no_value_is_in_the_servers_log(rsh: Bridge) -> None:
    rsh.sh("A=s3cret true s3cret", input=b"s3cret")
    assert "s3cret" not in rsh.server.wait_for_log("sh")


def test_server_goes_away(remctl_realm: Realm, tmp_path: Path) -> None:
    with bridge(remctl_realm, tmp_path) as own:
        process = own.popen(own.host, "echo $$; exec sleep 100")
        first_line(process)
        start = time.monotonic()
        own.server.kill()
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 255
    assert errors.startswith(b"remctl-rsh: ")
    assert errors.count(b"\n") == 1
    assert time.monotonic() - start < 15
