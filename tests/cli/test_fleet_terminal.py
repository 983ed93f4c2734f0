"""remctl-fleet on a terminal: the bar, colours, Ctrl-C, secrets, the prompt and its history."""

from __future__ import annotations

import re
import signal
import stat
from pathlib import Path

import pytest
from cli.fleets import Hosts
from support.waiting import eventually
from testing.processes import TIMEOUT, processes_of

pytestmark = pytest.mark.once

CTRL_C, CTRL_D = "\x03", "\x04"
UP = "\x1b[A"


def plain(text: str) -> str:
    """Return the output without colours and cursor movements."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", text)


# -- The bar and colours --------------------------------------------------------------------------


def test_a_bar_counts_and_goes_away(hosts: Hosts) -> None:
    with hosts.terminal("dead1,web[1-2],silent1", "name", "show") as terminal:
        terminal.expect(r"0:00:\d\d.* 3 of 4 hosts done, 1 failed, waiting for silent1")
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
        after = terminal.shown[terminal.shown.rindex("\x1b[2K") :]
    assert plain(after).splitlines()[:2] == ["web1: I am web1", "web2: I am web2"]
    assert "hosts done" not in after
    assert "\x1b[?25h" in terminal.everything  # The cursor is back.


def test_live_lines_stand_above_the_bar(hosts: Hosts) -> None:
    with hosts.terminal("--live", "web[1-2],silent1", "name", "show") as terminal:
        terminal.expect("2 of 3 hosts done")
        terminal.type(CTRL_C)
        terminal.wait()
    lines = plain(terminal.everything).splitlines()
    for number in (1, 2):
        assert any(line.endswith(f"web{number}:    I am web{number}") for line in lines)


def test_json_on_a_terminal_is_not_mixed_with_the_bar(hosts: Hosts) -> None:
    with hosts.terminal("--json", "web1,silent1", "name", "show") as terminal:
        terminal.expect(r'\r\x1b\[2K\{"host": "web1", [^\r\n]*\}\r\n')
        terminal.expect("1 of 2 hosts done")
        terminal.type(CTRL_C)
        terminal.wait()


def test_success_and_failure_have_colours(hosts: Hosts) -> None:
    with hosts.terminal("web[1-2]", "name", "show") as terminal:
        assert terminal.wait() == 0
    assert "\x1b[32m2 hosts succeeded" in terminal.everything
    assert "\x1b[1mweb1: \x1b[0mI am web1" in terminal.everything
    with hosts.terminal("dead[1-2]", "name", "show") as terminal:
        assert terminal.wait() == 3
    assert "\x1b[31m2 of 2 hosts failed:" in terminal.everything


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(hosts: Hosts, variables: dict[str, str]) -> None:
    for view in ("--live", "--gather"):
        with hosts.terminal(view, "web1,dead1", "lines", "show", **variables) as terminal:
            assert terminal.wait() == 1
        assert re.findall(r"\x1b\[[1-9][\d;]*m", terminal.everything) == []
        assert "1 of 2 hosts failed:" in terminal.everything


def test_a_host_cannot_play_tricks_with_the_terminal(hosts: Hosts) -> None:
    for view in ("--live", "--gather"):
        with hosts.terminal("-q", view, "web[1-2]", "octets", "show", NO_COLOR="1") as terminal:
            terminal.wait()
        assert r"\xff\x00\x1b[31mx" in terminal.everything
        assert "\x1b[31m" not in terminal.everything
        with hosts.terminal("-q", view, "web[1-2]", "crlf", "show") as terminal:
            terminal.wait()
        assert "line\r\n" in terminal.everything  # as a line ends on any terminal
    command = ["test", "\x1b[2Jname"]  # in the server's answer
    with hosts.terminal("--gather", "web1", *command) as terminal:
        terminal.wait()
    assert r"\x1b[2Jname" in terminal.everything
    assert "\x1b[2J" not in terminal.everything


def test_one_host_has_no_bar(hosts: Hosts) -> None:
    with hosts.terminal("web1", "octets", "show") as terminal:
        assert terminal.wait() == 0
    assert terminal.everything == "\\xff\\x00\\x1b[31mx\r\n"
    assert "done" not in terminal.everything


def test_the_bar_needs_the_extra_and_nothing_else_does(hosts: Hosts) -> None:
    with hosts.terminal("web1,web2", "name", "show", FLEET_WITHOUT="rich") as terminal:
        assert terminal.wait() == 0
    text = plain(terminal.everything).replace("\n    ", "")
    assert "a progress bar needs rich: pip install rich, or apt install python3-rich" in text
    assert "web2: I am web2" in text


def test_long_reasons_are_wrapped_in_their_column(hosts: Hosts) -> None:
    with hosts.terminal("-s", f"{'x' * 60}@REMCTL.TEST", "web[1-2]", "a", "b") as terminal:
        terminal.wait()
    lines = plain(terminal.everything).splitlines()
    table = lines[lines.index("2 of 2 hosts failed:") + 1 : -2]
    assert len(table) > 1
    assert all(len(line) <= 80 for line in table)
    assert all(line.startswith(" " * 29) for line in table[1:])


# -- Ctrl-C ---------------------------------------------------------------------------------------


def test_ctrl_c_says_what_is_finished_running_and_never_begun(hosts: Hosts) -> None:
    command = ["test", "sleep", "71"]
    with hosts.terminal("--concurrency", "2", "dead1,web[1-4]", *command) as terminal:
        for name in ("web1", "web2"):
            hosts.servers[name].wait_for_log(" ".join(command), TIMEOUT)
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
    lines = plain(terminal.everything).splitlines()
    assert lines[-7:-1] == [
        "remctl-fleet: ended by Ctrl-C",
        "  succeeded      0",
        "  failed         1: dead1",
        "  interrupted    2: web[1-2]; the command may still be running there",
        "  never begun    2: web[3-4]",
        "not safe to repeat (the command ran, or may have run): web[1-2]",
    ]
    assert "Traceback" not in terminal.everything


def test_ctrl_c_with_one_host(hosts: Hosts) -> None:
    with hosts.terminal("web1", "test", "sleep", "72") as terminal:
        hosts.servers["web1"].wait_for_log("test sleep 72", TIMEOUT)
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
    assert "remctl-fleet: ended by Ctrl-C; the command may still be running" in terminal.everything
    with hosts.terminal("--debug", "silent1", "name", "show") as terminal:
        terminal.expect("connect")
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
    assert "remctl-fleet: ended by Ctrl-C; the command was not sent" in terminal.everything


# -- Secrets --------------------------------------------------------------------------------------

SECRET = "corréct horse"


def test_a_secret_is_asked_for_twice_and_shown_nowhere(hosts: Hosts) -> None:
    options = ("--ask-secret", "--debug", "--json")
    with hosts.terminal(*options, "web[1-2],silent1", "input", "count") as terminal:
        terminal.expect("Secret: ")
        eventually(lambda: not terminal.shows_what_is_typed(), TIMEOUT)
        terminal.type(f"{SECRET}\n")
        terminal.expect("Repeat secret: ")
        eventually(lambda: not terminal.shows_what_is_typed(), TIMEOUT)
        terminal.type(f"{SECRET}\n")
        for name in ("web1", "web2"):  # silent1 keeps it running
            hosts.servers[name].wait_for_log("input count", TIMEOUT)
        terminal.expect('"host": "web[12]".*"stdout": "14')
        terminal.expect('"host": "web[12]".*"stdout": "14')
        assert processes_of(SECRET) == []
        terminal.type(CTRL_C)
        terminal.wait()
        assert terminal.shows_what_is_typed()
    assert "horse" not in terminal.everything
    assert "sent command input count" in terminal.everything


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["one\n", "two\n"], "the two secrets differ; nothing was sent"),
        (["\n", "\n"], "no secret was typed"),
        ([CTRL_D], "no secret was typed"),
    ],
)
def test_a_secret_that_is_not_one(hosts: Hosts, typed: list[str], message: str) -> None:
    with hosts.terminal("--ask-secret", "dead1,dead2", "input", "show") as terminal:
        for text in typed:
            terminal.expect(": $")
            eventually(lambda: not terminal.shows_what_is_typed(), TIMEOUT)
            terminal.type(text)
        assert terminal.wait() == 2
        assert terminal.shows_what_is_typed()
    assert f"remctl-fleet: {message}\r\n" in terminal.everything


def test_ctrl_c_while_a_secret_is_asked_for(hosts: Hosts) -> None:
    with hosts.terminal("--ask-secret", "dead1", "input", "show") as terminal:
        terminal.expect("Secret: ")
        eventually(lambda: not terminal.shows_what_is_typed(), TIMEOUT)
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
        assert terminal.shows_what_is_typed()
    assert "Traceback" not in terminal.everything


# -- The prompt -----------------------------------------------------------------------------------


def test_a_prompt_runs_commands_over_one_connection(hosts: Hosts, tmp_path: Path) -> None:
    sessions = []
    with hosts.terminal("--shell", "web4", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("web4> ")
        for typed, shown in (
            ("test echo 'a  b' c", r"\r\na  b c\r\n"),
            ("", ""),
            ("test status 3", "exit status 3"),
            ("no such", "Unknown command"),
            ("'oops", "no closing quotation"),
            ("lines show", r"one\r\ntwo\r\nlook out"),
            ("help", "test echo WORDS"),
        ):
            terminal.type("session show\n")
            sessions.append(terminal.expect(r"session (\d+)\r\n").group(1))
            terminal.expect("web4> ")
            terminal.type(f"{typed}\n")
            terminal.expect(f"(?s){shown}.*web4> ")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert len(set(sessions)) == 1


def test_ctrl_c_at_the_prompt_drops_the_line_and_gives_up_a_command(
    hosts: Hosts, tmp_path: Path
) -> None:
    with hosts.terminal("--shell", "web4", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("web4> ")
        terminal.type("half a line")
        terminal.expect("half a line")
        terminal.interrupt("web4> ")
        terminal.type("test sleep 73\n")
        hosts.servers["web4"].wait_for_log("test sleep 73", TIMEOUT)
        terminal.type(CTRL_C)
        terminal.expect("ended by Ctrl-C; the command may still be running")
        terminal.expect("web4> ")
        terminal.type("test echo again\n")
        terminal.expect(r"\r\nagain\r\n")
        terminal.expect("web4> ")
        terminal.type("exit\n")
        assert terminal.wait() == 0


def test_the_history_is_kept_for_nobody_else_and_without_secrets(
    hosts: Hosts, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "remctl-fleet" / "history"
    for number, lines in enumerate((["test echo one", " test echo hidden", "test echo one"], [])):
        with hosts.terminal("--shell", "web4", XDG_STATE_HOME=str(path.parent.parent)) as terminal:
            terminal.expect("web4> ")
            for line in lines:
                terminal.type(f"{line}\n")
                terminal.expect("web4> ")
            if number:
                terminal.type(f"{UP}")
                terminal.expect("test echo one")
                terminal.type("more\n")
                terminal.expect("onemore\r\n.*\r\n?web4> |onemore(?s:.*)web4> ")
            terminal.type(CTRL_D)
            assert terminal.wait() == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == "test echo one\ntest echo onemore\n"


def test_a_history_that_others_could_read_is_closed_to_them(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "remctl-fleet" / "history"
    path.parent.mkdir()
    path.touch(0o644)
    with hosts.terminal("--shell", "web4", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("web4> ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        terminal.type("exit\n")
        assert terminal.wait() == 0


def test_a_prompt_can_do_without_a_history(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with hosts.terminal("--shell", "web4", XDG_STATE_HOME=str(tmp_path / "file")) as terminal:
        terminal.expect("remctl-fleet: no history: Not a directory")
        terminal.expect("web4> ")
        terminal.type("test echo hello\n")
        terminal.expect(r"\r\nhello\r\nweb4> ")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0


def test_commands_of_a_prompt_can_come_from_a_file(hosts: Hosts, tmp_path: Path) -> None:
    typed = "test echo hello\n'oops\n\ntest status 5\n"
    done = hosts.run("--shell", "web4", typed=typed, XDG_STATE_HOME=str(tmp_path))
    assert done.stdout == "hello\n"
    assert done.stderr == "remctl-fleet: no closing quotation\n"
    assert done.returncode == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("host", "message"), [("dead1", "cannot connect"), ("deny1", "Access")])
def test_a_prompt_with_nobody_there(hosts: Hosts, host: str, message: str) -> None:
    done = hosts.run("--shell", host, typed="name show\n")
    assert message in done.stderr
    assert (done.stderr.count("\n"), done.returncode) == ((2, 1) if host == "dead1" else (1, 255))


def test_the_tab_key_completes_commands_of_the_server(hosts: Hosts, tmp_path: Path) -> None:
    for names in ("web1", "web[1-2]"):
        with hosts.terminal("--shell", names, XDG_STATE_HOME=str(tmp_path)) as terminal:
            terminal.expect("web.*> ")
            terminal.type("acc\tsh\talice\n")
            terminal.expect("account show alice\r\n")
            terminal.expect("web.*> ")
            terminal.shown = terminal.everything = ""
            terminal.type("account \t\t")
            terminal.expect("create +show *\r\n")
            terminal.type("\x15exit\n")
            terminal.wait()
        assert "evil" not in terminal.everything


def test_the_tab_key_where_nobody_answers(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.terminal("--shell", "dead1,web1", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("web1> ")
        terminal.type("na\tme show\n")
        terminal.expect("I am web1")
        terminal.expect("web1> ")
        terminal.type("exit\n")
        assert terminal.wait() == 1
