"""A machine's connection: how commands run, and errors."""

from __future__ import annotations

import concurrent.futures
import io
import math
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.waiting import TRIES, eventually, runs

import remctl
from remctl_toolkit.machine import (
    ClosedError,
    CommandTimeoutError,
    Connection,
    MachineError,
    NoPythonError,
    WorkingFolderError,
)
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

ODD_WORDS = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "$HOME",
    "`id`",
    "\\",
    "*",
    "\n",
    "é",
    b"\xff\xfe",
    "-n",
    "~",
]


# -- Commands -------------------------------------------------------------------------------------


def test_arguments_arrive_as_they_are(either: Connection) -> None:
    words = [os.fsencode(word) for word in ODD_WORDS]
    result = either.run(["printf", "%s|", *ODD_WORDS]).check()
    assert result.stdout == b"".join(word + b"|" for word in words)


def test_input_is_octets(either: Connection) -> None:
    octets = bytes(range(256)) * 1000
    assert either.run(["cat"], input=octets).check().stdout == octets


def test_without_input_there_is_its_end(either: Connection) -> None:
    assert either.run(["wc", "-c"]).check().stdout_text().strip() == "0"


def test_streams_and_status_are_the_commands_own(either: Connection) -> None:
    result = either.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.stdout, result.stderr, result.status) == (b"out\n", b"err\n", 3)


def test_output_goes_to_files(either: Connection) -> None:
    stdout, stderr = io.BytesIO(), io.BytesIO()
    result = either.run(["sh", "-c", "echo out; echo err >&2"], stdout=stdout, stderr=stderr)
    assert (stdout.getvalue(), stderr.getvalue()) == (b"out\n", b"err\n")
    assert (result.stdout, result.stderr, result.status) == (None, None, 0)


def test_a_program_that_is_not_there_is_127(either: Connection) -> None:
    result = either.run(["no-such-program"])
    assert result.status == 127
    assert "no-such-program" in result.stderr_text()


def test_a_program_that_cannot_be_run_is_126(either: Connection) -> None:
    assert either.run(["/etc/passwd"]).status == 126


def test_a_broken_pipe_ends_a_command(either: Connection) -> None:
    # Python ignores SIGPIPE, and a program that it starts would, too.
    result = either.run(["sh", "-c", "{ yes; echo $? >&2; } | head -n 1"])
    assert result.stdout == b"y\n"
    assert result.stderr == b"141\n"


def test_commands_start_at_home_as_after_a_login(either: Connection) -> None:
    far = either.far
    script = 'echo "$HOME $USER $LOGNAME $SHELL"; pwd'
    lines = either.run(["sh", "-c", script]).check().stdout_text().splitlines()
    assert lines[0] == f"{far.home} {far.user} {far.user} {far.shell}"
    assert Path(lines[1]) == Path(far.home).resolve()


def test_cwd(either: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "a 'b'\n"
    folder.mkdir()
    assert os.fsencode(folder) + b"\n" == either.run(["pwd"], cwd=folder).check().stdout


UNUSABLE_FOLDERS = (
    ("/nonexistent", "No such file or directory"),
    ("/nonexistent/a `b` 'c' \\$(d)", "No such file or directory"),
    ("/etc/passwd", "Not a directory"),
    ("/etc/passwd/x", "Not a directory"),
)


@pytest.mark.parametrize("stderr", [None, io.BytesIO()], ids=["kept", "file"])
def test_a_folder_that_cannot_be_entered_is_one_error(either: Connection, stderr: Any) -> None:
    for folder, reason in UNUSABLE_FOLDERS:
        text = f"cannot change to working directory {folder} on {either.host}: {reason}"
        with pytest.raises(WorkingFolderError, match=f"^{re.escape(text)}$"):
            either.run(["pwd"], cwd=folder, stderr=stderr)
    assert stderr is None or stderr.getvalue() == b""
    with pytest.raises(WorkingFolderError), either.stream(["pwd"], cwd="/nonexistent") as tokens:
        list(tokens)


@pytest.mark.parametrize("stderr", [None, io.BytesIO()], ids=["kept", "file"])
def test_a_folder_that_cannot_be_entered_after_a_warning(remctl_realm: Realm, stderr: Any) -> None:
    """A shell may have something to say first: that a locale is missing, for example."""
    python = Command("python", program="/usr/bin/python3", stdin="last")
    script = """#!/bin/sh
exec 3>&1
said=$(/bin/sh "$@" 2>&1 >&3)
status=$?
printf 'warning\\n%s' "$said" >&2
exit $status
"""
    shell = Command("sh", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (python, shell)) as server,
        Connection(server.host, server.port, server.principal) as connection,
    ):
        assert connection.run(["true"]).stderr == b"warning\n"
        with pytest.raises(WorkingFolderError, match="/nonexistent on localhost: No such file"):
            connection.run(["pwd"], cwd="/nonexistent", stderr=stderr)
        with (
            pytest.raises(WorkingFolderError, match="/nonexistent on localhost: No such file"),
            connection.stream(["pwd"], cwd="/nonexistent") as tokens,
        ):
            list(tokens)


def test_extend_env_changes_the_environment(either: Connection) -> None:
    change = {"A": "a b", "ODD": b"\xff'\n", "HOME": "/x", "USER": None}
    output = either.run(["env", "-0"], extend_env=change).check().stdout or b""
    found = dict(line.split(b"=", 1) for line in output.split(b"\0") if line)
    assert found[b"A"] == b"a b"
    assert found[b"ODD"] == b"\xff'\n"
    assert found[b"HOME"] == b"/x"
    assert b"USER" not in found
    assert b"REMOTE_USER" in found


def test_env_is_the_whole_environment(either: Connection) -> None:
    output = either.run(["/usr/bin/env"], env={"A": "b", "odd name": 1}).check().stdout_text()
    assert sorted(output.splitlines()) == ["A=b", "odd name=1"]


def test_a_name_that_no_shell_can_set(either: Connection) -> None:
    output = either.run(["env"], extend_env={"a.b": "c"}).check().stdout_text()
    assert "a.b=c" in output.splitlines()


def test_long_commands(either: Connection) -> None:
    words = ["x" * 100_000, "y" * 20_000]
    result = either.run(["sh", "-c", 'printf %s "$1$2" | wc -c', "sh", *words]).check()
    assert int(result.stdout_text()) == 120_000


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ("ls -l", TypeError),
        ([], ValueError),
        ([""], ValueError),
        (["ls", "a\0b"], ValueError),
        (["ls", None], TypeError),
        (["ls", True], TypeError),
        (["ls", 1.5], TypeError),
    ],
)
def test_what_is_no_command_is_not_sent(connection: Connection, argv: Any, error: Any) -> None:
    with pytest.raises(error):
        connection.run(argv)


@pytest.mark.parametrize("env", [{"": "x"}, {"a=b": "x"}, {"a\0": "x"}, {"a": "x\0"}])
def test_what_is_no_environment_is_not_sent(connection: Connection, env: dict[str, str]) -> None:
    for argument in ("env", "extend_env"):
        with pytest.raises(ValueError, match=argument):
            connection.run(["true"], **{argument: env})  # type: ignore[arg-type]


def test_tokens_come_as_they_are_written(either: Connection) -> None:
    script = "echo one; read line; echo two"
    with either.stream(["sh", "-c", script], input=b"x\n") as tokens:
        found = [token.output for token in tokens if token.type == "output"]
    assert b"".join(found) == b"one\ntwo\n"


def test_leaving_a_stream_early_leaves_the_connection_usable(either: Connection) -> None:
    with either.stream(["yes"]) as tokens:
        next(tokens)
    assert either.run(["echo", "next"]).stdout == b"next\n"


# -- Time limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["sleep 100", "trap '' TERM; while :; do sleep 0.1; done"])
def test_a_timeout_ends_the_command_over_there(either: Connection, script: str) -> None:
    text = f"echo $$; {script} & echo $!; wait; wait"
    for timeout in TRIES:
        with pytest.raises(CommandTimeoutError, match=f"longer than {timeout:g} s") as caught:
            either.run(["sh", "-c", f"trap '' TERM; {text}"], timeout=timeout)
        partial = caught.value.partial
        assert partial is not None
        assert partial.status is None
        pids = [int(word) for word in partial.stdout_text().split()]
        eventually(lambda pids=pids: not any(map(runs, pids)))
        if len(pids) == 2:
            return
    raise AssertionError("it did not start in all that time")


def test_a_timeout_that_is_not_needed_changes_nothing(either: Connection) -> None:
    assert either.run(["sh", "-c", "exit 124"], timeout=50).status == 124
    assert either.run(["cat"], input=b"x", timeout=50).stdout == b"x"
    result = either.run(["sh", "-c", "kill -9 $$"], timeout=50)
    assert result.status == 255


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        ("1", TypeError),
    ],
)
def test_what_is_no_time_is_not_sent(connection: Connection, timeout: Any, error: Any) -> None:
    with pytest.raises(error, match=r"timeout must be .*seconds"):
        connection.run(["true"], timeout=timeout)
    with (
        pytest.raises(error, match=r"timeout must be .*seconds"),
        connection.stream(["true"], timeout=timeout),
    ):
        pass


def test_a_stream_that_takes_too_long(either: Connection) -> None:
    for timeout in TRIES:
        found: list[bytes | None] = []
        with (
            pytest.raises(CommandTimeoutError),
            either.stream(["sh", "-c", "echo x; sleep 100"], timeout=timeout) as tokens,
        ):
            found.extend(token.output for token in tokens)
        if found:
            break
    assert found == [b"x\n"]


# -- remctld's log --------------------------------------------------------------------------------


def test_nothing_but_the_label_is_logged(
    either: Connection, server: RemctldServer, far_log: Callable[[], str]
) -> None:
    secret = os.urandom(8).hex()
    either.run(
        ["echo", secret],
        cwd="/",
        input=secret.encode(),
        extend_env={"SECRET": secret},
        label=f"label-{secret[:4]}",
    ).check()
    server.wait_for_log(f"label-{secret[:4]}")
    assert secret not in far_log()


def test_the_label_is_the_programs_name_unless_given(
    either: Connection, server: RemctldServer
) -> None:
    either.run(["/usr/bin/basename", "x"]).check()
    server.wait_for_log(" basename ")


@pytest.mark.parametrize("label", ["a\nb", "é", "", "x" * 1000])
def test_a_label_cannot_write_lines_of_its_own(either: Connection, label: str) -> None:
    assert either.run(["true"], label=label).status == 0


# -- Connecting -----------------------------------------------------------------------------------


def test_a_host_that_is_not_there(remctl_realm: Realm) -> None:
    with pytest.raises(remctl.RemctlConnectError, match=r"no-such-host\.invalid"):
        Connection("no-such-host.invalid")


LINES = {
    "no line": (),
    "no right": (Command("python", program="/usr/bin/python3", stdin="last", acl="deny:ANYUSER"),),
    "no Python": (Command("python", program="/nonexistent/python3", stdin="last"),),
    "another program": (Command("python", program="/bin/echo", stdin="last"),),
    "no stdin": (Command("python", program="/usr/bin/python3"),),
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_a_server_without_python_is_one_error_with_its_cure(
    remctl_realm: Realm, lines: tuple[Command, ...]
) -> None:
    other = Command("other", program="/bin/true")
    with (
        RemctldServer(remctl_realm, (*lines, other)) as server,
        pytest.raises(NoPythonError, match=r"needs a line such as: python ALL .* stdin=last") as e,
    ):
        Connection(server.host, server.port, server.principal)
    assert e.value.host == server.host


def test_a_python_that_is_too_old(remctl_realm: Realm) -> None:
    script = "#!/bin/sh\necho \"{'python_version': (3, 7, 0), 'python': '', 'uid': 0, 'user': '',"
    script += " 'home': '', 'shell': '', 'path': '', 'system': ()}\"\n"
    line = Command("python", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        pytest.raises(
            NoPythonError, match=r"Python 3\.7\.0 .* is too old: 3\.8 or later is needed"
        ),
    ):
        Connection(server.host, server.port, server.principal)


@pytest.mark.parametrize(
    "answer",
    [
        "x" * 100_000,
        "-" * 15_000 + "1",
        "[]",
        "{}",
        "{'python_version': None, 'python': '', 'uid': 0, 'user': '', 'home': '', 'shell': '',"
        " 'path': '', 'system': ()}",
        "{'python_version': (3, 9, 1), 'python': '', 'uid': 0, 'user': '', 'home': 1, 'shell': '',"
        " 'path': '', 'system': ()}",
    ],
    ids=["long", "deep", "list", "empty", "no version", "no home"],
)
def test_an_answer_that_is_none_is_one_error(
    remctl_realm: Realm, tmp_path: Path, answer: str
) -> None:
    (tmp_path / "answer").write_text(answer)
    line = Command("python", script=f"#!/bin/sh\ncat {tmp_path}/answer\n", stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        pytest.raises(NoPythonError, match=r"did not run Python") as caught,
    ):
        Connection(server.host, server.port, server.principal)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("way", ["yes", "yes >&2"])
def test_an_answer_without_an_end_is_one_error(remctl_realm: Realm, way: str) -> None:
    line = Command("python", script=f"#!/bin/sh\n{way}\n", stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        pytest.raises(NoPythonError, match="did not run Python: more than 65536 octets"),
    ):
        Connection(server.host, server.port, server.principal)


def test_an_answer_that_never_comes_is_not_waited_for(
    remctl_realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remctl_toolkit.machine.base.connection.STARTS_AND_ENDS", 0.0)
    script = "#!/bin/sh\nwhile printf x; do sleep 0.05; done\n"
    line = Command("python", script=script, stdin="last")
    with (
        RemctldServer(remctl_realm, (line,)) as server,
        pytest.raises(remctl.RemctlTimeoutError),
    ):
        Connection(server.host, server.port, server.principal, connect_timeout=1.0)


def test_without_a_line_for_sh_there_is_no_shell(remctl_realm: Realm) -> None:
    line = Command("python", program="/usr/bin/python3", stdin="last")
    broken = Command("broken", program="/bin/echo", stdin="last")
    endless = Command("endless", program="/usr/bin/yes", stdin="last")
    with RemctldServer(remctl_realm, (line, broken, endless)) as server:
        for shell in ("sh", "broken", "endless", None):
            with Connection(server.host, server.port, server.principal, shell=shell) as found:
                assert found.shell is None
                assert found.run(["echo", "x"]).stdout == b"x\n"


def test_lines_of_two_users_are_an_error(remctl_realm: Realm) -> None:
    python = Command("python", program="/usr/bin/python3", stdin="last")
    other = Command("sh", script="#!/bin/sh\necho 12345\n", stdin="last")
    with (
        RemctldServer(remctl_realm, (python, other)) as server,
        pytest.raises(MachineError, match=f"runs as user {os.getuid()} but 'sh' as 12345"),
    ):
        Connection(server.host, server.port, server.principal)


# -- Sessions -------------------------------------------------------------------------------------


def test_a_session_is_used_again(connection: Connection) -> None:
    with connection.session() as first:
        pass
    with connection.session() as second:
        assert second is first
        with connection.session() as third:
            assert third is not first


def test_a_session_left_with_an_unread_command_is_not(connection: Connection) -> None:
    with connection.session() as first:
        first.command(("sh", "-c", "echo x", ""))
    with connection.session() as second:
        assert second is not first


def test_a_session_that_the_server_closed_is_not_used(
    server: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remctl_toolkit._pool_ledger._CHECK_AFTER", 0)
    with Connection(server.host, server.port, server.principal) as connection:
        pid = int(connection.run(["sh", "-c", "echo $PPID"]).stdout_text())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not runs(pid))
        assert connection.run(["echo", "x"]).stdout == b"x\n"


def test_many_threads_at_once(either: Connection) -> None:
    def run(number: int) -> bytes | None:
        return either.run(["echo", number]).stdout

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(run, range(48))) == [b"%d\n" % n for n in range(48)]


def test_closing_ends_a_command_in_another_thread(server: RemctldServer) -> None:
    connection = Connection(server.host, server.port, server.principal)
    failures: list[BaseException] = []
    started = threading.Event()

    def work() -> None:
        try:
            with connection.stream(["sh", "-c", "echo x; exec sleep 30"]) as tokens:
                next(tokens)
                started.set()
                next(tokens)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    connection.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(failures[0], remctl.RemctlNotOpenedError)
    with pytest.raises(ClosedError, match="was closed"):
        connection.run(["true"])
    connection.close()


def test_a_forked_child_closes_what_is_its_own(connection: Connection) -> None:
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:  # Some thread of the parent may have the lock, for ever in the child.
        with connection._pool._ledger.lock:
            held.set()
            forked.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            connection.close()
            status = 0
        finally:
            os._exit(status)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert connection.run(["echo", "x"]).stdout == b"x\n"


def test_closing_in_the_middle_of_taking_a_session(server: RemctldServer) -> None:
    # A __del__ may come in between anywhere, and close what it held.
    connection = Connection(server.host, server.port, server.principal)
    with connection._pool._ledger.lock:
        connection.close()
    assert connection.closed


def test_sessions_lead_to_the_machine_of_the_first(server: RemctldServer) -> None:
    # A name that leads to another machine each time would split what belongs together.
    with Connection(server.host, server.port, server.principal) as connection:
        connection._pool.host = "no-such-host.invalid"
        with connection.session(), connection.session() as second:
            assert second.opened


def test_repr_tells_where_and_nothing_else(connection: Connection) -> None:
    assert re.fullmatch(r"<Connection \S+@\S+>", repr(connection))
