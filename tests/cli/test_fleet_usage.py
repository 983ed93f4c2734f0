"""remctl-fleet: usage errors, missing packages, help and completion."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from cli.fleets import Hosts
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.cli.fleet.options import parse, parser

pytestmark = pytest.mark.once

# -- Wrong usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no hosts"),
        (["--", "do"], "no hosts"),
        (["-web1", "--", "do"], "there is no option -w: hosts come first"),
        (["", "do"], "no hosts"),
        (["web1"], "no command"),
        (["web1", "--"], "no command"),
        (["web[1-3", "do"], r"broken range in 'web\[1-3'"),
        (["web[3-1]", "do"], r"broken range \[3-1\]"),
        (["@nobody", "do"], "unknown or empty group: @nobody"),
        (["web1,web1", "do"], "host web1 is named twice"),
        (["localhost,LOCALHOST", "do"], "host LOCALHOST is named twice: by localhost and by"),
        (["web1,-web1", "do"], "no hosts"),
        (["web[1-3],-WEB9", "do"], "-WEB9 leaves out no host: WEB9 is not in the list"),
        (["-x", "web9", "web1", "do"], "exclude web9 leaves out no host"),
        (["--exclude-file", "/nonexistent", "web1", "do"], "cannot read /nonexistent: No such"),
        (["@x';do;'", "do"], "not the name of a group"),
        (["-x", "web[1-2]", "web[1-2]", "do"], "no hosts"),
        (["-f", "/nonexistent", "--", "do"], "cannot read /nonexistent: No such file"),
        (["-f", "/", "--", "do"], "cannot read /: Is a directory"),
        (["-f", "/dev/null", "--", "do"], "no hosts"),
        (["-f", "hosts.txt", "do", "it"], "the command goes after --"),
        (["-f", "-", "--stdin", "--", "do"], "standard input cannot be both"),
        (["--exclude-file", "-", "--stdin", "web1", "do"], "standard input cannot be both"),
        (["-f", "-", "--exclude-file", "-", "--", "do"], "standard input can be read only once"),
        (["--first", "-1", "web1", "do"], "--first: it must be a whole number, 0 or more"),
        (["--retries", "-1", "web1", "do"], "--retries: .* 0 or more, not '-1'"),
        (["--concurrency", "0", "web1", "do"], "--concurrency: .* 1 or more, not '0'"),
        (["--pick", "9" * 5000, "web1", "do"], r"--pick: .* 1 or more, not '9{60}\.\.\.'"),
        (["--pick", "\u0663", "web1", "do"], "--pick: .* 1 or more, not"),
        (["web1", "web2\x1b[2J", "do"], r"'web1,web2\\x1b\[2J'"),
        (["--stop-after", "x", "web1", "do"], "--stop-after: .* 1 or more, not 'x'"),
        (["--timeout", "-5", "web1", "do"], "--timeout: it must be a number of seconds, 0 or more"),
        (["--limit", "0", "web1", "do"], "--limit: it must be a number of seconds, more than 0"),
        (["--deadline", "nan", "web1", "do"], "--deadline: it must be a number of seconds"),
        (["--limit", "inf", "web1", "do"], "--limit: it must be a number of seconds"),
        (["-p", "65536", "web1", "do"], "--port: .* 1 to 65535, not '65536'"),
        (["-p"], "--port: expected one argument"),
        (["-b", "localhost", "web1", "do"], "source address must be an IP address"),
        (["-b", "fe80::1%nowhere0", "web1", "do"], "source address has an unknown scope"),
        (["--ccache", "", "web1", "do"], "invalid credential cache"),
        (["--keytab", "/etc/x.keytab", "web1", "do"], "--keytab needs --client"),
        (["--client", "me", "web1", "do"], "--client needs --keytab"),
        (["--keytab", "/nonexistent", "--client", "me", "web1", "do"], "/nonexistent"),
        (["--live", "--json", "web1", "do"], "not allowed with argument"),
        (["--stdin", "--ask-secret", "web1", "do"], "not allowed with argument"),
        (["--nonsense", "web1", "do"], "unrecognized arguments: --nonsense"),
        (["--shell", "web1", "web2", "do"], "separate hosts with commas: web1,web2"),
        (["--shell", "web1", "do"], "--shell prompts for commands: give none"),
        (["--shell"], "--shell: no hosts"),
        (["--shell", "web1,-web1"], "no hosts"),
        (["--shell", "web1", "--stdin"], "--shell cannot be used with --stdin"),
        (["--shell", "web1", "--any"], "--shell cannot be used with --any"),
        (["--shell", "-f", "-"], "--shell reads commands from standard input"),
        (["--any", "--live", "web1", "do"], "--any runs on one host"),
        (["--ask-secret", "web1", "do"], "--ask-secret needs a terminal"),
    ],
)
def test_wrong_usage_is_one_line(hosts: Hosts, arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remctl_toolkit.cli.fleet", *arguments],
        env=hosts.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        start_new_session=True,  # without a terminal, wherever the tests have been started
    )
    assert re.search(message, done.stderr)
    assert done.stderr.startswith("remctl-fleet: ")
    assert done.stderr.count("\n") == 1
    assert (done.stdout, done.returncode) == ("", 2)


def test_more_input_than_a_server_takes_is_refused(hosts: Hosts) -> None:
    done = hosts.run("--stdin", "web[1-2]", "input", "show", typed=bytes(100 * 1024 * 1024))
    assert "a server takes less than 100 MiB" in done.stderr
    assert (done.stderr.count("\n"), done.returncode) == (1, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("web1 web2 -- service status", "commas: web1,web2 -- service status; if 'web2' is the"),
        ("web1 web2 web3 -- service status", "commas: web1,web2,web3 -- service status"),
        ("web1, web2, db -- service status", "commas: web1,web2,db -- service status"),
        ("alpha beta -- service status", "commas: alpha,beta -- service status"),
        ("web1 do -- it", "if 'do' is the command, put -- before it"),
        ("web1 web2 service status", "commas: web1,web2 -- service status"),
        ("web[1-3] db[1-2] status", "commas: 'web[1-3],db[1-2]' -- status"),
        ("web1 @db status", "commas: web1,@db -- status"),
        ("a.example.org b.example.org status", "commas: a.example.org,b.example.org -- status"),
        ("web1 web2 --json -- do", "commas: web1,web2 -- do"),
        ("-w web1,web2 uptime", "no option -w: hosts come first: remctl-fleet 'web[1-9]' --"),
        ("-qw web1 uptime", "-w: hosts come first"),
        ("-b -w web1 uptime", "-w: hosts come first"),
        ("-b web1 uptime x", "-b means --source-ip, and output is gathered by default"),
        ("-g web uptime", "write @GROUP in the list of hosts"),
        ("-a uptime", "for the hosts of all groups, write @*"),
        ("-l root web1 uptime", "your Kerberos ticket determines the user"),
        ("-f 32 web1 uptime", "use --concurrency 32"),
        ("-f32 -- uptime", "use --concurrency 32"),
        ("--fanout 32 web1 uptime", "use --concurrency N"),
        ("-f 0 -- uptime", "cannot read 0: No such file or directory"),
        ("--timout 5 web1 do", "did you mean --timeout?"),
        ("--timout=5 web1 do", "did you mean --timeout?"),
        ("--time 5 web1 do", "did you mean --timeout?"),
        ("--conc 5 web1 do", "did you mean --concurrency?"),
        ("--exclude-hosts x web1 do", "did you mean --exclude"),
        ("web1 --timout 5 -- do", "did you mean --timeout?"),
        ("web* do", "no host of a group matches 'web*'; * and ? match hosts of groups only"),
        ("--printcompletion bash", "did you mean --print-completion?"),
    ],
)
def test_a_mistake_is_explained_and_reaches_no_server(
    hosts: Hosts, line: str, message: str
) -> None:
    done = hosts.run(*line.split(), CLUSTERSHELL_CFGDIR="/nonexistent")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.stdout, done.returncode) == ("", 2)


@pytest.mark.parametrize(
    ("line", "hosts", "command"),
    [
        ("web1 do it", "web1", ["do", "it"]),
        ("web1 -- do it", "web1", ["do", "it"]),
        ("web1 do it -- more", "web1", ["do", "it", "--", "more"]),
        ("web1 -- do -- it", "web1", ["do", "--", "it"]),
        ("web1 -- web2 do", "web1", ["web2", "do"]),
        ("web1 do web2", "web1", ["do", "web2"]),
        ("web1 python3 x", "web1", ["python3", "x"]),
        ("- do", "-", ["do"]),
        ("web1 do --json -q", "web1", ["do", "--json", "-q"]),
        ("-p 44 -qs x web1 do", "web1", ["do"]),
        ("-p44 --timeout=3 web1 --live -p 45 -- do", "web1", ["do"]),
        ("-f x -- do it", None, ["do", "it"]),
        ("-f x web1 -- -do", "web1", ["-do"]),
        ("--srv example.org --first 2 -- do", None, ["do"]),
    ],
)
def test_hosts_and_command_are_found(line: str, hosts: str | None, command: list[str]) -> None:
    options = parse(line.split())
    assert (options.hosts, options.command) == (hosts, command)
    assert options.quiet == ("-qs" in line)


# -- Without the extra ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "arguments", "package"),
    [
        (
            *("ClusterShell", ["@web", "name", "show"]),
            "ClusterShell: pip install ClusterShell, or apt install python3-clustershell",
        ),
        (
            *("dns", ["--srv", "example.org", "--", "name", "show"]),
            "dnspython: pip install dnspython, or apt install python3-dnspython",
        ),
        (
            *("gssapi", ["--keytab", "x", "--client", "me", "web1", "do"]),
            "python-gssapi: pip install gssapi, or apt install python3-gssapi",
        ),
    ],
)
def test_the_missing_extra_is_named(
    hosts: Hosts, missing: str, arguments: list[str], package: str
) -> None:
    done = hosts.run(*arguments, FLEET_WITHOUT=missing)
    assert f"needs {package}\n" in done.stderr
    assert (done.stderr.count("\n"), done.returncode) == (1, 69)


def test_plain_lists_of_hosts_need_no_extra(hosts: Hosts) -> None:
    names = "n8,n1,n7,n2,n6,n3,n5,n4"
    done = hosts.run(names, "lines", "show", FLEET_WITHOUT="ClusterShell rich dns")
    assert done.stdout == "n[1-8]:\n  one\n  two\n"
    assert done.returncode == 0


def test_nothing_of_the_extra_is_loaded_without_need(hosts: Hosts) -> None:
    code = (
        "import sys; from remctl_toolkit.cli.fleet import main; main(['localhost:1', 'do']);"
        "print({'ClusterShell', 'rich', 'dns', 'readline'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=hosts.environ(), capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


# -- Help, completion -----------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        env=python_environ(COLUMNS="80"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )


def test_help_has_examples_and_the_exit_statuses() -> None:
    page = run("remctl_toolkit.cli.fleet", "--help").stdout
    assert [line for line in page.splitlines() if len(line) > 80] == []
    for text in ("remctl-fleet 'web[1-300],-web7' -- ", "exit status:", "130", "NO_COLOR"):
        assert text in page


def test_version_is_told() -> None:
    for option in ("-v", "--version"):
        assert re.fullmatch(
            r"remctl-fleet \d[\w.]+\n", run("remctl_toolkit.cli.fleet", option).stdout
        )


def test_examples_of_the_help_page_can_be_typed() -> None:
    examples = re.findall(r"^  remctl-fleet (.*)$", parser().format_help(), re.MULTILINE)
    assert len(examples) > 5
    for line in examples:
        options = parse(line.split(" | ")[0].replace("'", "").split())
        assert options.command or options.shell
