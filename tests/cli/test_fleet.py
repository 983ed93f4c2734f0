"""remctl-fleet without a terminal: gathered, live and JSON output, failures, exit statuses."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from cli.fleets import Hosts
from support.waiting import TRIES, eventually
from testing.processes import TIMEOUT

pytestmark = pytest.mark.once

UNSAFE = "not safe to repeat (the command ran, or may have run):"
SLEEP = ["test", "sleep", "60"]


def objects(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    by_host = {each["host"]: each for each in found}
    assert len(by_host) == len(found)
    return by_host


def without_waits(text: str) -> list[str]:
    """Return the lines up to the table, without progress lines."""
    told = text.partition(" succeeded, ")[0].splitlines()[:-1]
    return [line for line in told if not line.startswith("remctl-fleet: ")]


# -- Gathered -------------------------------------------------------------------------------------


def test_hosts_with_the_same_output_are_shown_together(hosts: Hosts) -> None:
    done = hosts.run("web[1-4]", "--", "lines", "show")
    assert done.stdout == "web[1-4]:\n  one\n  two\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "web[1-4]: look out"
    assert lines[1].startswith("all 4 hosts succeeded, ")
    assert (len(lines), done.returncode) == (2, 0)


def test_the_odd_ones_come_last_and_the_others_in_order(hosts: Hosts) -> None:
    done = hosts.run("web[1-4]", "third", "fails")
    assert done.stdout == ""
    said, head, row, closing, unsafe = done.stderr.splitlines()
    assert (said, head) == ("web3: disk full", "1 of 4 hosts failed:")
    assert row == "  web3  exit status 4  disk full"
    assert re.fullmatch(r"3 succeeded, 1 failed, \d+\.\d s", closing)
    assert unsafe == f"{UNSAFE} web3"
    assert done.returncode == 1
    done = hosts.run("web4,web[1-3]", "name", "show")
    assert done.stdout == "".join(f"web{number}: I am web{number}\n" for number in (4, 1, 2, 3))


def test_failures_are_told_in_words(hosts: Hosts) -> None:
    done = hosts.run(
        *("web[1-2],deny1,dead[1-2],web9.invalid", "--", "test", "echo", "hello"),
    )
    assert done.stdout == "web[1-2]: hello\n"
    head, *table = without_waits(done.stderr)
    assert head == "4 of 6 hosts failed:"
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in table}
    assert told["deny1"] == "refused        Access denied"
    assert told["dead[1-2]"].startswith("no connection  cannot connect (port ")
    assert told["dead[1-2]"].endswith("Connection refused")
    assert told["web9.invalid"].startswith("no connection  unknown host: ")
    assert done.returncode == 1


def test_a_silent_host_has_timed_out(hosts: Hosts) -> None:
    done = hosts.run("--timeout", "0.5", "silent1,dead1", "name", "show")
    assert "\n  silent1  timed out, not sent  error " in done.stderr
    assert done.returncode == 3


def test_two_hundred_hosts_are_a_few_lines(hosts: Hosts) -> None:
    done = hosts.run("n[1-200],deny1,dead1", "-x", "n100", "--", "test", "echo", "hello")
    assert done.stdout == "n[1-99,101-200]: hello\n"
    told = without_waits(done.stderr)
    assert told[0] == "2 of 201 hosts failed:"
    assert told[1].startswith("  deny1 ")
    assert (len(told), done.returncode) == (3, 1)


def test_no_ticket_is_one_line_for_all(hosts: Hosts) -> None:
    ccache = hosts.realm.new_ccache()
    done = hosts.run("--ccache", ccache, "web[1-4]", "name", "show")
    assert done.stderr.splitlines()[0] == "4 of 4 hosts failed:"
    assert len(without_waits(done.stderr)) == 3
    assert "not authenticated" in done.stderr
    assert "does not exist: run kinit, or name another (--ccache)" in done.stderr
    assert "Minor code" not in done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize("words", [["web1", "name", "show"], ["--shell", "web1"]])
def test_one_host_without_a_ticket_has_the_cure(hosts: Hosts, words: list[str]) -> None:
    done = hosts.run("--ccache", hosts.realm.new_ccache(), *words, typed="name show\n")
    assert done.stderr.startswith("remctl-fleet: GSS-API error")
    assert done.stderr.endswith("does not exist: run kinit, or name another (--ccache)\n")
    assert (done.stderr.count("\n"), done.returncode) == (2, 1)


def test_a_server_that_is_not_in_the_realm_is_named_once(hosts: Hosts) -> None:
    done = hosts.run("--principal", "host/none@REMCTL.TEST", "web[1-3]", "name", "show")
    assert "  web[1-3]  not authenticated  Server host/none@REMCTL.TEST not found" in done.stderr


def test_octets_go_through_a_pipe_as_they_are(hosts: Hosts) -> None:
    done = hosts.run("web[1-2]", "octets", "show")
    assert done.stdout.encode(errors="surrogateescape") == b"web[1-2]: \xff\0\033[31mx\n"


def test_quiet_says_nothing_about_success(hosts: Hosts) -> None:
    assert hosts.run("-q", "web[1-3]", "test", "status", "0").stderr == ""
    done = hosts.run("--quiet", "web1,dead1", "test", "status", "0")
    assert done.stderr.startswith("1 of 2 hosts failed:")


def test_output_before_a_failure_is_shown(hosts: Hosts) -> None:
    for limit in [str(2 * limit) for limit in TRIES]:
        done = hosts.run("--limit", limit, "web[1-2]", "endless", "show")
        if done.stdout == "web[1-2]: so far\n":  # Both had the time to say that.
            break
    assert done.stdout == "web[1-2]: so far\n"
    assert "web[1-2]  timed out, may still be running  time limit reached" in done.stderr
    assert done.returncode == 3


# -- Live -----------------------------------------------------------------------------------------


def test_live_shows_whole_lines_after_their_host(hosts: Hosts) -> None:
    done = hosts.run("--live", "web[1-4]", "slow", "lines")
    expected = [f"web{number}: {line}" for number in range(1, 5) for line in ("a", "begin", "end")]
    assert sorted(done.stdout.splitlines()) == sorted(expected)
    assert done.stdout.endswith("\n")
    for number in range(1, 5):
        mine = [line for line in done.stdout.splitlines() if line.startswith(f"web{number}")]
        assert mine == [f"web{number}: a", f"web{number}: begin", f"web{number}: end"]


def test_live_tells_the_streams_apart_and_failures_at_once(hosts: Hosts) -> None:
    done = hosts.run("--live", "web3,dead1", "third", "fails")
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert "web3: disk full" in lines
    assert "web3: failed: exit status 4: disk full" in lines
    assert any(line.startswith("dead1: failed: no connection: cannot connect") for line in lines)


def test_live_comes_while_the_command_runs(hosts: Hosts) -> None:
    with subprocess.Popen(
        hosts.arguments("--live", "web1,silent1", "name", "show"),
        env=hosts.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"web1: I am web1\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM


# -- JSON -----------------------------------------------------------------------------------------


def test_json_has_an_object_for_each_host(hosts: Hosts) -> None:
    done = hosts.run("--json", "web[2-3],deny1,dead1", "third", "fails")
    told = objects(done)
    assert set(told) == {"web2", "web3", "deny1", "dead1"}
    seconds = told["web2"].pop("seconds")
    assert 0 < seconds < TIMEOUT
    assert told["web2"] == {
        "host": "web2",
        "port": None,
        "ok": True,
        "status": 0,
        "stdout": "",
        "stderr": "",
        "error": None,
        "attempts": 1,
        "may_have_run": True,
        "advice": "",
    }
    web3 = told["web3"]
    assert (web3["ok"], web3["status"], web3["stderr"]) == (False, 4, "disk full\n")
    assert told["deny1"]["error"] == {
        "kind": "refused",
        "type": "RemctlServerError",
        "text": "Access denied",
        "code": 6,
    }
    assert told["dead1"]["status"] is None
    assert told["dead1"]["error"]["kind"] == "no connection"
    assert "is remctld running there" in told["dead1"]["advice"]
    ran = {host: each["may_have_run"] for host, each in told.items()}
    assert ran == {"web2": True, "web3": True, "deny1": False, "dead1": False}
    assert done.returncode == 1


def test_json_has_octets_that_are_no_text_in_base64(hosts: Hosts) -> None:
    (told,) = objects(hosts.run("--json", "web1", "octets", "show")).values()
    assert told["stdout"] is None
    assert base64.b64decode(told["stdout_base64"]) == b"\xff\0\033[31mx\n"
    (told,) = objects(hosts.run("--json", "web1", "test", "echo", "größer\x9b")).values()
    assert told["stdout"] == "größer\x9b\n"
    assert "stdout_base64" not in told


def test_json_is_ascii(hosts: Hosts) -> None:
    assert hosts.run("--json", "web1", "test", "echo", "größer\x9b").stdout.isascii()


# -- One host: as remctl(1) -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["lines", "show"], 0),
        (["octets", "show"], 0),
        (["test", "status", "200"], 200),
        (["no", "such"], 255),
        (["test", "echo", "--", "-x", "--json"], 0),
    ],
)
def test_one_host_is_what_remctl_does(hosts: Hosts, command: list[str], status: int) -> None:
    server = hosts.servers["web1"]
    principal = hosts.realm.host_principal
    arguments = [
        "-p",
        str(server.port),
        "-s",
        principal,
        "-b",
        "127.0.0.1",
        "-t",
        "60",
        server.host,
    ]
    theirs = subprocess.run(
        ["remctl", *arguments, *command],
        env=hosts.environ(),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    ours = hosts.run(*arguments, *command)
    assert ours.stdout.encode(errors="surrogateescape") == theirs.stdout
    assert ours.stderr.encode(errors="surrogateescape") == theirs.stderr
    assert ours.returncode == theirs.returncode == status


def test_one_host_that_fails_is_a_line_and_its_cure(hosts: Hosts) -> None:
    done = hosts.run("dead1", "name", "show")
    said, cure = done.stderr.splitlines()
    assert said.startswith("remctl-fleet: cannot connect to dead1 (port ")
    assert "is remctld running there" in cure
    assert done.returncode == 1
    assert hosts.run("deny1", "name", "show").returncode == 255


def test_one_host_can_be_a_fleet(hosts: Hosts) -> None:
    done = hosts.run("--gather", "web1", "test", "status", "7")
    assert done.returncode == 3
    assert done.stderr.startswith("1 of 1 host failed:\n  web1  exit status 7\n")
    assert hosts.run("--gather", "web1", "name", "show").stdout == "web1: I am web1\n"
    assert hosts.run("--live", "web1", "name", "show").stdout == "web1: I am web1\n"


def test_debug_tells_the_steps(hosts: Hosts) -> None:
    done = hosts.run("-d", "web1", "test", "echo", "hidden")
    assert "remctl-fleet: opened a connection to web1 in " in done.stderr
    assert "remctl-fleet: sent command test echo\n" in done.stderr
    assert "hidden" not in done.stderr
    assert done.stdout == "hidden\n"


# -- Input and hosts from elsewhere ---------------------------------------------------------------


def test_standard_input_is_sent_to_all(hosts: Hosts) -> None:
    done = hosts.run("--stdin", "web[1-3]", "input", "show", typed=b"\xff\nmore\n")
    assert done.stdout.encode(errors="surrogateescape") == b"web[1-3]:\n  \xff\n  more\n"


def test_hosts_come_from_standard_input_and_files(hosts: Hosts, tmp_path: Any) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("web[3-4]  # two\n")
    done = hosts.run(
        *("web1", "-f", str(path), "--hosts-file", "-", "-x", "web3", "--", "name", "show"),
        typed="web2 # three\n",
    )
    assert done.stdout == "web1: I am web1\nweb4: I am web4\nweb2: I am web2\n"


def test_hosts_to_leave_out_come_from_a_file(hosts: Hosts, tmp_path: Any) -> None:
    path = tmp_path / "down.txt"
    path.write_bytes(b"\xef\xbb\xbfWEB1  # caf\xe9\r\nold[1-9]\r\n")
    arguments = ("--dry-run", "-b", "fe80::1", "web[1-3]", "--exclude-file", str(path), "--", "do")
    done = hosts.run(*arguments)
    assert (done.stdout, done.returncode) == ("web2\nweb3\n", 0)


def test_dry_run_connects_to_none(hosts: Hosts) -> None:
    done = hosts.run("--dry-run", "dead1,web[1-2]:4444,-web1", "do", "a thing")
    assert done.stdout == "dead1\nweb2:4444\n"
    assert done.stderr == "remctl-fleet: would run on 2 hosts, dead1,web2:4444: do 'a thing'\n"
    assert done.returncode == 0
    done = hosts.run("--dry-run", "--ask-secret", "web1", "do")
    assert done.stderr == "remctl-fleet: would run on 1 host: do (secret)\n"


# -- Pace -----------------------------------------------------------------------------------------


def test_canaries_go_first(hosts: Hosts) -> None:
    done = hosts.run("--first", "1", "dead1,web[1-3]", "name", "show")
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "1 of 4 hosts failed, 3 not begun:"
    assert lines[2].startswith("  web[1-3]  not begun      canary dead1 failed")
    assert done.returncode == 3


def test_it_stops_after_failures(hosts: Hosts) -> None:
    done = hosts.run(
        *("--stop-after", "2", "--concurrency", "1", "web1,dead[1-2],web[2-4]"),
        *("--", "name", "show"),
    )
    assert done.stdout == "web1: I am web1\n"
    assert done.stderr.startswith("2 of 6 hosts failed, 3 not begun:")
    assert done.returncode == 1


def test_a_deadline_holds_for_all(hosts: Hosts) -> None:
    for limit in [str(2 * limit) for limit in TRIES]:
        done = hosts.run("--deadline", limit, "--concurrency", "2", "web[1-4]", *SLEEP)
        if "2 not begun" in done.stderr:  # It was not over before the first were begun.
            break
    assert "\n".join(without_waits(done.stderr)).startswith("2 of 4 hosts failed, 2 not begun:")
    row = "  web[1-2]  timed out, may still be running  time limit reached"
    assert row in done.stderr
    assert re.search(r"  web\[3-4\]  not begun +the time was over", done.stderr)


def test_retries_are_counted(hosts: Hosts) -> None:
    (told,) = objects(hosts.run("--json", "--retries", "1", "dead1", "name", "show")).values()
    assert told["attempts"] == 2


# -- Ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_it_says_where_it_was(hosts: Hosts, number: signal.Signals) -> None:
    command = ["test", "sleep", f"{number}99"]  # in the log once only
    with subprocess.Popen(
        hosts.arguments("--json", "--concurrency", "3", "web1,silent1,dead1,web[2-4]", *command),
        env=hosts.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert json.loads(first)["host"] == "dead1"
        for name in ("web1", "web2"):
            hosts.servers[name].wait_for_log(" ".join(command), TIMEOUT)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    told = {each["host"]: each for each in map(json.loads, [first, *out.splitlines()])}
    kinds = {host: each["error"]["kind"] for host, each in told.items()}
    assert kinds == {
        "dead1": "no connection",
        **dict.fromkeys(("web1", "web2", "silent1"), "interrupted"),
        **dict.fromkeys(("web3", "web4"), "not begun"),
    }
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    *ended, again = err.splitlines()[-7:]
    assert ended == [
        f"remctl-fleet: ended by {name}",
        "  succeeded      0",
        "  failed         1: dead1",
        "  interrupted    2: web[1-2]; the command may still be running there",
        "  never begun    3: silent1,web[3-4]",
        f"{UNSAFE} web[1-2]",
    ]
    ran = {host for host, each in told.items() if each["may_have_run"]}
    assert ran == {"web1", "web2"}
    assert again.startswith("again: remctl-fleet ")
    assert again.endswith(
        f" --concurrency 3 --json 'dead1,silent1,web[3-4]' -- {' '.join(command)}"
    )


def test_a_signal_that_is_ignored_stays_so(hosts: Hosts) -> None:
    arguments = hosts.arguments("--live", "web1,silent1", "name", "show")
    with subprocess.Popen(
        ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *arguments],
        env=hosts.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_signal_is_not_waited_for(hosts: Hosts) -> None:
    """After the first signal the run cannot end, because nobody reads its output."""
    with subprocess.Popen(
        hosts.arguments("--live", "--stdin", "web[1-2]", "input", "show"),
        env=hosts.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x" * 100 + b"\n" * 100_000)
        process.stdin.close()
        full = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ) - 4096

        def is_full() -> bool:
            waiting = fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4))  # type: ignore[arg-type]
            return int.from_bytes(waiting, sys.byteorder) > full

        eventually(is_full, TIMEOUT, what="the pipe to be full")
        process.send_signal(signal.SIGTERM)

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        eventually(ended, TIMEOUT, what="the command to end")
    assert process.returncode == -signal.SIGTERM


VIEWS = [["--live", "web[1-4]"], ["--json", "web[1-4]"], ["web[1-4]"], ["web1"]]


@pytest.mark.parametrize("view", VIEWS)
def test_it_ends_without_words_when_nobody_reads(hosts: Hosts, view: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as nobody:
        done = subprocess.run(
            hosts.arguments("-q", *view, "slow", "lines"),
            env=hosts.environ(),
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("view", VIEWS)
def test_output_that_cannot_be_written_is_one_line(hosts: Hosts, view: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            hosts.arguments(*view, "name", "show"),
            env=hosts.environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.stderr == "remctl-fleet: cannot write the output: No space left on device\n"
    assert done.returncode == os.EX_IOERR


def test_tickets_come_from_a_keytab(hosts: Hosts, tmp_path: Path) -> None:
    user = hosts.realm.user
    keytab = hosts.realm.extract_keytab(user, tmp_path / "user.keytab")
    arguments = ("--keytab", keytab, "--client", user)
    done = hosts.run(*arguments, "web[1-2]", "name", "show", KRB5CCNAME="FILE:/nonexistent")
    assert (done.returncode, done.stdout.count("I am web")) == (0, 2)
    done = hosts.run("web[1-2]", "name", "show", KRB5CCNAME="FILE:/nonexistent")
    assert done.returncode == 3
