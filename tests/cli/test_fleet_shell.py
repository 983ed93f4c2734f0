"""remctl-fleet --shell: on many hosts, for users without a home directory, with any octets."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from cli.fleets import Hosts
from support.terminal import Terminal
from support.waiting import eventually
from testing.processes import TIMEOUT

from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

# A user that no passwd has; it may read everything, as Python may be in a folder of root's.
NOBODY = [
    *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]

CTRL_C, CTRL_D = "\x03", "\x04"


def plain(text: str) -> str:
    """Return the output without colours and cursor movements."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", text)


# -- Many hosts -----------------------------------------------------------------------------------


def test_a_line_runs_on_all_hosts_and_output_is_folded(hosts: Hosts, tmp_path: Path) -> None:
    sessions = []
    with hosts.terminal("--shell", "web[1-3]", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect(r"Commands run on 3 hosts: web\[1-3\]\.")
        terminal.expect(r"web\[1-3\]> ")
        for _ in range(2):
            terminal.type("session show\n")
            shown = terminal.expect(r"(?s)session.*3 hosts succeeded.*web\[1-3\]> ").group()
            sessions.append(set(re.findall(r"session (\d+)", shown)))
        terminal.type("test echo 'a  b'\n")
        terminal.expect(r"web\[1-3\]: .*a  b")
        terminal.expect(r"web\[1-3\]> ")
        terminal.type("third fails\n")
        terminal.expect("1 of 3 hosts failed:")
        terminal.expect("web3.*exit status 4  disk full")
        terminal.expect(r"web\[1-3\]> ")
        terminal.type("exit\n")
        assert terminal.wait() == 1
    assert sessions[0] == sessions[1]
    assert len(sessions[0]) == 3


def test_ctrl_c_gives_the_command_up_on_all_hosts(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.terminal("--shell", "web[1-2],silent1", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect(r"silent1,web.*> ")
        terminal.type("name show\n")
        terminal.expect("2 of 3 hosts done")
        terminal.type(CTRL_C)
        terminal.expect("ended by Ctrl-C")
        terminal.expect("never begun +1: silent1")
        terminal.expect(r"silent1,web.*> ")
        assert "web1: I am web1" in plain(terminal.everything)
        terminal.type(CTRL_D)
        assert terminal.wait() == 130


def test_a_host_that_fails_is_tried_again_with_the_next_command(
    hosts: Hosts, tmp_path: Path
) -> None:
    with hosts.terminal("--shell", "web[1-2],dead1", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("dead1,web.*> ")
        for _ in range(2):
            terminal.type("session show\n")
            shown = terminal.expect(r"(?s)session.*dead1.*no connection.*dead1,web.*> ").group()
        sessions = re.findall(r"session (\d+)", shown)
        assert len(sessions) == 2
        servers = [hosts.servers[name] for name in ("web1", "web2")]
        marks = [len(server.log) for server in servers]
        terminal.type("endless show\n")
        for server, mark in zip(servers, marks, strict=True):
            eventually(functools.partial(_logged, server, mark, "endless show"), TIMEOUT)
        for session in sessions:
            os.kill(int(session), signal.SIGKILL)
        terminal.expect("web.*connection lost")
        terminal.expect("dead1,web.*> ")
        terminal.type("name show\n")
        terminal.expect("web1: .*I am web1")
        terminal.expect("web2: .*I am web2")
        terminal.expect("dead1,web.*> ")
        terminal.type("exit\n")
        assert terminal.wait() == 1


def _logged(server: RemctldServer, mark: int, text: str) -> bool:
    return text in server.log[mark:]


def test_lines_of_a_file_run_on_all_hosts(hosts: Hosts, tmp_path: Path) -> None:
    typed = "name show\n'oops\nthird fails\n"
    done = hosts.run("--shell", "-q", "web[1-3]", typed=typed, XDG_STATE_HOME=str(tmp_path))
    assert done.stdout == "web1: I am web1\nweb2: I am web2\nweb3: I am web3\n"
    assert done.stderr.startswith("remctl-fleet: no closing quotation\n")
    assert "1 of 3 hosts failed" in done.stderr
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_what_no_server_takes_does_not_end_the_shell(hosts: Hosts, tmp_path: Path) -> None:
    for names in ("web1", "web[1-2]"):
        done = hosts.run("--shell", "-q", names, typed=b"a\0b c\nname show\n")
        assert "I am web1" in done.stdout
        assert (done.stderr.count("\n"), done.returncode) == (1, 0)


def test_options_hold_for_one_host_too(hosts: Hosts) -> None:
    done = hosts.run(
        "--shell", "--json", "--limit", "0.3", "web1", typed="name show\ntest sleep 60\n"
    )
    ran, late = map(json.loads, done.stdout.splitlines())
    assert (ran["stdout"], ran["ok"]) == ("I am web1\n", True)
    assert (late["error"]["kind"], late["may_have_run"]) == ("timed out", True)


def test_no_status_of_a_command_ends_the_shell(hosts: Hosts) -> None:
    typed = "".join(f"test status {status}\n" for status in (129, 130, 141, 143))
    done = hosts.run("--shell", "web1", typed=f"{typed}name show\n")
    assert (done.stdout, done.returncode) == ("I am web1\n", 0)


@pytest.mark.parametrize("names", ["web1", "web[1-2]"])
def test_ctrl_c_ends_the_lines_of_a_file(hosts: Hosts, names: str) -> None:
    mark = len(hosts.servers["web1"].log)
    with subprocess.Popen(
        hosts.arguments("--shell", names),
        env=hosts.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"test sleep 74\nname show\n")
        process.stdin.flush()
        eventually(lambda: "test sleep 74" in hosts.servers["web1"].log[mark:], TIMEOUT)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=TIMEOUT)
    assert b"ended by Ctrl-C" in shown
    assert b"I am" not in shown
    assert process.returncode == 130


def test_a_closed_standard_input_is_one_line(hosts: Hosts) -> None:
    command = shlex.join(hosts.arguments("--shell", "web1"))
    done = subprocess.run(
        ["sh", "-c", f"exec {command} <&-"],
        env=hosts.environ(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    text = "remctl-fleet: --shell reads commands from standard input, which is closed\n"
    assert (done.stderr, done.returncode) == (text, 2)


@pytest.mark.parametrize("names", ["web1", "web[1-2]"])
def test_an_option_that_cannot_be_right_is_one_line(hosts: Hosts, names: str) -> None:
    done = hosts.run("--shell", "--ccache", "", names, typed="name show\n")
    assert done.stderr == "remctl-fleet: invalid credential cache: ''\n"
    assert done.returncode == 2


def test_sigterm_ends_the_shell(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.terminal("--shell", "web1,silent1", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect(r"silent1,web.*> ")
        terminal.type("name show\n")
        terminal.expect("1 of 2 hosts done")
        terminal.terminate()
        assert terminal.wait() == 128 + 15


def test_the_prompt_of_many_hosts_is_short(hosts: Hosts, tmp_path: Path) -> None:
    names = "web[1-4],n3,n5,n8,n11,n15,n20,n25,deny1"
    with hosts.terminal("--shell", names, XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect(r"\n12 hosts> ")
        terminal.type("exit\n")
        assert terminal.wait() == 0


# -- Users without a home -------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that there is not")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
@pytest.mark.parametrize("home", [None, "", "/nonexistent", "relative"])
def test_a_user_without_a_name_and_a_home(hosts: Hosts, home: str | None) -> None:
    environ = hosts.environ(TERM="dumb", **({} if home is None else {"HOME": home}))
    if home is None:
        del environ["HOME"]
    for name in ("web1", "web[1-2]"):
        command = [*NOBODY, *hosts.arguments("--shell", name)]
        with Terminal(command, environ) as terminal:
            terminal.expect("remctl-fleet: no history: ")
            terminal.expect("web.*> ")
            terminal.type("name show\n")
            terminal.expect(r"I am web1\r\n")
            terminal.expect("web.*> ")
            terminal.type(CTRL_D)
            assert terminal.wait() == 0
        assert "Traceback" not in terminal.everything
    command = [*NOBODY, *hosts.arguments("web[1-2]", "name", "show")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stdout == "web1: I am web1\nweb2: I am web2\n"
    assert done.returncode == 0


def test_a_state_folder_that_is_relative_is_ignored(hosts: Hosts, tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "XDG_STATE_HOME": "relative"}
    with hosts.terminal("--shell", "web1", **variables) as terminal:
        terminal.expect("web1> ")
        terminal.type("name show\n")
        terminal.expect("web1> ")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert (tmp_path / ".local/state/remctl-fleet/history").read_text() == "name show\n"
