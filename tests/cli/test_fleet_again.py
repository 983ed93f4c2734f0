"""remctl-fleet after failures: what may have run, and the command line to repeat the rest."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli.fleets import Hosts
from support.waiting import TRIES
from testing.processes import TIMEOUT

from remctl_toolkit.cli.fleet.again import Failures
from remctl_toolkit.cli.fleet.options import given_options, parse
from remctl_toolkit.cli.fleet.screen import Screen
from remctl_toolkit.fleet import Host, NotStartedError, Outcome
from remctl_toolkit.hosts import HostList, fold

pytestmark = pytest.mark.once

UNSAFE = "not safe to repeat (the command ran, or may have run): "


def again(text: str) -> list[str]:
    """Return the words of the last line after the program's name."""
    last = text.splitlines()[-1]
    assert last.startswith("again: remctl-fleet ")
    return shlex.split(last)[2:]


# -- Did it run? ----------------------------------------------------------------------------------


def test_hosts_that_timed_out_are_told_apart_by_whether_the_command_was_sent(hosts: Hosts) -> None:
    for limit in ("1", "4", "16"):  # seconds, in which both have to begin
        done = hosts.run("--limit", limit, "web[1-2],silent1", "endless", "show")
        if done.stdout == "web[1-2]: so far\n":
            break
    table = dict(re.findall(r"^  (\S+) +(timed out, [a-z ]+?)  ", done.stderr, re.MULTILINE))
    assert table == {
        "web[1-2]": "timed out, may still be running",
        "silent1": "timed out, not sent",
    }
    assert f"{UNSAFE}web[1-2]\n" in done.stderr
    assert again(done.stderr)[-4:] == ["silent1", "--", "endless", "show"]


def test_one_host_that_timed_out_may_still_be_running(hosts: Hosts) -> None:
    for limit in ("1", "4", "16"):
        done = hosts.run("--limit", limit, "web1", "endless", "show")
        if done.stdout:
            break
    words = "remctl-fleet: time limit reached; the command may still be running\n"
    assert done.stderr == words
    done = hosts.run("--connect-timeout", "0.2", "silent1", "name", "show")
    assert "may" not in done.stderr


def test_only_connecting_has_a_limit_of_its_own(hosts: Hosts) -> None:
    """A command may be silent for longer."""
    done = hosts.run("--connect-timeout", "2", "web1,silent1", "test", "sleep", "3")
    assert "1 succeeded, 1 failed" in done.stderr
    assert "  silent1  timed out, not sent  " in done.stderr


# -- What can be repeated -------------------------------------------------------------------------


def test_the_line_runs_the_same_on_what_is_left(hosts: Hosts) -> None:
    options = ("--concurrency=3", "-qt30", "--exclude", "web4")
    first = hosts.run(*options, "web[1-4],dead[1-2],deny1", "third", "fails")
    assert f"\n{UNSAFE}web3\n" in first.stderr
    words = again(first.stderr)
    assert words[2:] == [
        *("--timeout", "30", "--concurrency", "3", "--quiet"),
        *("dead[1-2],deny1", "--", "third", "fails"),
    ]
    second = hosts.run(*words[2:])
    assert again(second.stderr) == words
    assert second.stderr.startswith("3 of 3 hosts failed:")


@pytest.mark.parametrize("options", [[], ["-q"], ["--json"], ["--live"], ["--diff"]])
def test_nothing_is_said_where_nothing_failed(hosts: Hosts, options: list[str]) -> None:
    done = hosts.run(*options, "web[1-3]", "lines", "show")
    assert "again" not in done.stderr
    assert "safe" not in done.stderr


def test_the_line_can_be_typed_whatever_the_words_are(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["it's", "", "$HOME `x`", "a\nb", "\x1b[31m", os.fsdecode(b"\xff'\\"), "grün", "-x"]
    failures = Failures([Host("::1", 4444), Host("h2"), Host("h1")])
    for outcome in unsent("h1", "::1", "h2"):
        failures.add(outcome)
    failures.show(Screen(), ["--ccache=-x y"], command)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line
    shell = 'remctl-fleet() { printf "%s\\0" "$@"; }; ' + line.removeprefix("again: ")
    done = subprocess.run(
        ["/bin/bash", "-c", shell], capture_output=True, check=True, timeout=TIMEOUT
    )
    typed = [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]
    assert typed == ["--ccache=-x y", typed[1], "--", *command]
    assert list(HostList(typed[1])) == [Host("::1", 4444), Host("h1"), Host("h2")]


def unsent(*names: str) -> list[Outcome]:
    """Outcomes of hosts where nothing was sent."""
    ports = {"::1": 4444}
    return [Outcome(Host(name, ports.get(name)), error=NotStartedError("no")) for name in names]


def test_options_are_given_options_without_those_that_choose_hosts() -> None:
    line = "-qd -p44 -s me/x -t 2.5 --limit 60 --live --first 0 -f a -x b --pick 3 --srv c d"
    options = parse([*line.split(), "--stdin", "--ccache=-x", "--", "do"])
    assert given_options(options) == [
        *("--port", "44", "--principal", "me/x", "--ccache=-x", "--timeout", "2.5"),
        *("--limit", "60", "--first", "0", "--stdin", "--live", "--quiet", "--debug"),
    ]


def test_failed_hosts_are_written_to_a_file(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "failed"
    words = ["--failed-to", str(path), "web[1-4],dead[1-2],deny1:4000,-web4", "third", "fails"]
    done = hosts.run("--port", "4373", *words)
    assert done.returncode == 1
    safe = ["dead1:4373", "dead2:4373", "deny1:4000"]
    *lines, why, unsafe = path.read_text().splitlines()
    assert lines == safe
    assert why.startswith("# The command ran on these, or may have")
    assert unsafe == "# web3:4373  # exit status 4"
    listed = HostList()
    listed.add_file(path)
    assert list(map(str, listed)) == safe
    path.write_text(path.read_text().replace("# web3", "web3"))
    listed = HostList()
    listed.add_file(path)
    assert fold(listed) == "dead[1-2]:4373,web3:4373,deny1:4000"
    # The file it reads may be the one that it writes; where nothing has failed it is empty.
    path.write_text("web1\nweb2\n")
    assert hosts.run("-f", str(path), "--failed-to", str(path), "--", "name", "show").stdout
    assert path.read_text() == ""


def test_the_file_is_as_it_was_until_the_end(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "failed"
    path.write_text("web1\nold\n")
    options = ("--failed-to", str(path), "--json", "--concurrency", "2")
    with subprocess.Popen(
        hosts.arguments(*options, "dead1,silent1,web[1-2]", "test", "sleep", "733"),
        env=hosts.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        hosts.servers["web1"].wait_for_log("test sleep 733", TIMEOUT)
        assert path.read_text() == "web1\nold\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
    names = re.findall(r"^(?:# )?(\w+)", path.read_text(), re.MULTILINE)
    assert names == ["dead1", "silent1", "web2", "The", "web1"]


def test_a_file_that_cannot_be_written_is_named_before_anything_is_sent(
    hosts: Hosts, tmp_path: Path
) -> None:
    for option in ("--failed-to", "--outdir", "--errdir"):
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "x"
        done = hosts.run(option, str(path), "web[1-2]", "name", "show")
        assert re.fullmatch(f"remctl-fleet: cannot [a-z ]+ {path}: Not a directory\n", done.stderr)
        assert (done.stdout, done.returncode) == ("", 2)


def test_the_file_has_all_hosts_where_nobody_takes_the_output(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "failed"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            hosts.arguments(
                *("--failed-to", str(path), "--concurrency=1", "--live", "web[1-3]"),
                *("--", "name", "show"),
            ),
            env=hosts.environ(),
            stdout=full,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == os.EX_IOERR
    text = path.read_text()
    assert re.findall(r"^(?:# )?(web\d)", text, re.MULTILINE) == ["web2", "web3", "web1"]


def test_a_single_host_can_be_written_to_a_file(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "failed"
    assert "again" not in hosts.run("--failed-to", str(path), "dead1", "name", "show").stderr
    assert path.read_text() == "dead1\n"
    hosts.run("--failed-to", str(path), "web1", "test", "status", "3")
    assert path.read_text().splitlines()[1:] == ["# web1  # exit status 3"]


# -- Interrupted ----------------------------------------------------------------------------------


SHOWN = {
    "--gather": "web[1-2]: so far\n",
    "--diff": "web[1-2]: so far\n",
    "--live": "web1: so far\nweb2: so far\n",
    "--json": '"stdout": "so far\\n"',
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("view", SHOWN)
def test_a_signal_shows_the_output_so_far(
    hosts: Hosts, tmp_path: Path, view: str, number: signal.Signals
) -> None:
    for count, seconds in enumerate(TRIES):  # Nobody else sees the output arrive.
        command = ["endless", "show", f"{view}{number}-{count}"]  # in the log once only
        arguments = (view, "--outdir", str(tmp_path), "web[1-2],dead1", "--", *command)
        with subprocess.Popen(
            hosts.arguments(*arguments),
            env=hosts.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for name in ("web1", "web2"):
                hosts.servers[name].wait_for_log(" ".join(command), TIMEOUT)
            time.sleep(seconds)
            process.send_signal(number)
            out, err = process.communicate(timeout=TIMEOUT)
        files = {path.name: path.read_text() for path in tmp_path.iterdir()}
        if files == {"web1": "so far\n", "web2": "so far\n", "dead1": ""}:
            break
    assert process.returncode == 128 + number
    assert SHOWN[view] in "".join(sorted(out.splitlines(keepends=True)))
    assert "  succeeded      0\n  failed         1: dead1\n" in err
    assert f"{UNSAFE}web[1-2]\n" in err
    if view == "--json":
        told = {each["host"]: each for each in map(json.loads, out.splitlines())}
        ran = {host: each["may_have_run"] for host, each in told.items()}
        assert ran == {"web1": True, "web2": True, "dead1": False}
