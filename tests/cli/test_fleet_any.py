"""remctl-fleet --any: run on the first host that answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from cli.fleets import Hosts
from support.nameserver import name_server
from testing.processes import TIMEOUT

pytestmark = pytest.mark.once


def test_the_first_that_answers_is_the_only_one(hosts: Hosts) -> None:
    marks = {name: len(hosts.servers[name].log) for name in ("web1", "web2")}
    done = hosts.run("--any", "dead1,web2,web1", "test", "status", "5")
    assert done.returncode == 5
    assert done.stderr.startswith(
        "remctl-fleet: dead1: no connection: cannot connect (port 4373): "
    )
    assert "test status 5" in hosts.servers["web2"].log[marks["web2"] :]
    assert hosts.servers["web1"].log[marks["web1"] :] == ""
    done = hosts.run("--any", "-q", "web1,dead1", "lines", "show")
    assert (done.stdout, done.stderr, done.returncode) == ("one\ntwo\n", "look out\n", 0)


def test_a_refusal_is_an_answer(hosts: Hosts) -> None:
    done = hosts.run("--any", "deny1,web1", "name", "show")
    assert (done.stdout, done.returncode) == ("", 255)
    assert done.stderr == "Access denied\n"


def test_a_command_that_may_have_run_is_not_sent_again(hosts: Hosts) -> None:
    mark = len(hosts.servers["web2"].log)
    done = hosts.run("--any", "--timeout", "0.3", "web1,web2", "endless", "show")
    assert (done.stdout, done.returncode) == ("so far\n", 1)
    assert hosts.servers["web2"].log[mark:] == ""


def test_nobody_answers(hosts: Hosts) -> None:
    done = hosts.run("--any", "--timeout", "0.3", "dead1,silent1", "name", "show")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "remctl-fleet: dead1: no connection: cannot connect" in done.stderr
    assert "remctl-fleet: silent1: timed out: error receiving token" in done.stderr


def test_json_has_the_hosts_that_were_tried(hosts: Hosts) -> None:
    done = hosts.run("--any", "--json", "dead1,web2,web1", "name", "show")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["host"], each["ok"]) for each in told] == [("dead1", False), ("web2", True)]
    assert done.returncode == 0
    done = hosts.run("--any", "--json", "dead1,dead2", "name", "show")
    assert (len(done.stdout.splitlines()), done.returncode) == (2, 3)


def test_ctrl_c_ends_it(hosts: Hosts) -> None:
    with hosts.terminal("--any", "dead1,web1", "endless", "show") as terminal:
        terminal.expect("so far")
        terminal.type("\x03")
        assert terminal.wait() == 128 + signal.SIGINT
    assert "the command may still be running" in terminal.everything


def test_srv_records_say_who_is_first(hosts: Hosts) -> None:
    records = {
        "_remctl._tcp.example.org.": ["20 9 4373 web1.", "10 1 4373 web2.", "0 1 4373 dead1."],
        "_remctl._tcp.none.example.org.": ["0 0 0 ."],
    }
    with name_server(records) as port:
        done = _run(hosts, port, ["--any", "--srv", "example.org", "--", "name", "show"])
        assert (done.stdout, done.returncode) == ("I am web2\n", 0)
        done = _run(hosts, port, ["--any", "--srv", "none.example.org", "--", "name", "show"])
        assert "there is no such service" in done.stderr
        assert done.returncode == 2


def _run(hosts: Hosts, port: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the command with our own name server."""
    code = (
        "import sys, dns.resolver; from support.nameserver import resolver;"
        f"dns.resolver.default_resolver = resolver({port});"
        "from remctl_toolkit.cli.fleet import main; sys.exit(main())"
    )
    environ = hosts.environ()
    environ["PYTHONPATH"] = f"{environ.get('PYTHONPATH', '')}:tests".lstrip(":")
    return subprocess.run(
        [sys.executable, "-c", code, "-s", hosts.realm.host_principal, *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
