"""remctl-rsh: options of ssh and of its own, usage errors, help and completion."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.cli import completion
from remctl_toolkit.cli.rsh.options import IGNORED, KEYWORDS, OPTIONS, REFUSED, SHELLS, parse
from remctl_toolkit.cli.rsh.pages import parser
from remctl_toolkit.cli.rsh.request import Request, UsageError

pytestmark = pytest.mark.once


def read(*words: str, **environ: str) -> Request:
    return parse(words, environ)


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "remctl_toolkit.cli.rsh", *words],
        env=python_environ(COLUMNS="80", **variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


# -- The command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["web1"], []),
        (["web1", "ls", "-l"], ["ls", "-l"]),
        (["-x", "-aT", "web1", "ls -l"], ["ls -l"]),
        (["--", "web1", "ls"], ["ls"]),
        (["web1", "--", "ls"], ["ls"]),
        (["web1", "ls", "--", "-p", "1"], ["ls", "--", "-p", "1"]),
        (["web1", "-q", "ls"], ["ls"]),
        (["-oRemoteCommand=ls -l", "web1"], ["ls -l"]),
        (["-oRemoteCommand=none", "web1", "ls"], ["ls"]),
    ],
)
def test_what_follows_the_host_is_the_command(words: list[str], expected: list[str]) -> None:
    request = read(*words)
    assert (request.host, request.command) == ("web1", expected)


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "22", "-l", "me", "web1"],
        ["-p22", "-lme", "web1"],
        ["-xp22", "-Tlme", "web1"],
        ["me@web1", "-p", "22"],
        ["-oPort=22", "-o", "User=me", "web1"],
        ["-oport 22", "-o", "uSER = me", "web1"],
        ["-o", "HostName=web1", "-o", "Port 22", "me@alias"],
        ["-p", "22", "-p", "23", "-l", "me", "other@web1"],
    ],
)
def test_ways_to_say_port_and_user(words: list[str]) -> None:
    """The first of several values counts, as with ssh."""
    request = read(*words, REMCTL_RSH_PORT="24")
    assert (request.host, request.user, request.port) == ("web1", "me", 22)


def test_users_with_an_at_sign() -> None:
    request = read("me@example.org@web1")
    assert (request.user, request.host) == ("me@example.org", "web1")


def test_options_of_ours() -> None:
    words = ["--principal=host/web1", "--python", "py", "--shell=", "--ccache", "FILE:/x"]
    request = read(*words, "--timeout", "2.5", "-b", "::1", "web1")
    assert (request.principal, request.python, request.shell) == ("host/web1", "py", "")
    assert (request.ccache, request.timeout, request.source_ip) == ("FILE:/x", 2.5, "::1")


def test_environment_comes_last() -> None:
    environ = {
        "REMCTL_RSH_PORT": "1",
        "REMCTL_RSH_PRINCIPAL": "host/a",
        "REMCTL_RSH_PYTHON": "p",
        "REMCTL_RSH_SHELL": "s",
        "REMCTL_RSH_CCACHE": "c",
        "REMCTL_RSH_TIMEOUT": "2",
    }
    request = read("web1", **environ)
    assert (request.port, request.principal, request.python) == (1, "host/a", "p")
    assert (request.shell, request.ccache, request.timeout) == ("s", "c", 2.0)
    request = read("-oPort=7", "-oConnectTimeout=8", "web1", **environ)
    assert (request.port, request.timeout) == (7, 8.0)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-n"], "no_input"),
        (["-oStdinNull=yes"], "no_input"),
        (["-N"], "no_command"),
        (["-oSessionType=none"], "no_command"),
        (["-q"], "quiet"),
        (["-oLogLevel=QUIET"], "quiet"),
        (["-v"], "verbose"),
        (["-oLogLevel DEBUG3"], "verbose"),
        (["-f", "-N"], "background"),
        (["-f", "-N"], "no_input"),
        (["-oForkAfterAuthentication=yes", "-N"], "background"),
        (["-N", "-oSessionType=default"], "no_command"),
        (["-tt"], "terminal"),
        (["-oRequestTTY=force"], "terminal"),
    ],
)
def test_switches(words: list[str], name: str) -> None:
    assert getattr(read(*words, "web1"), name) is True
    assert getattr(read("web1"), name) is False


@pytest.mark.parametrize(
    "words",
    [
        # As sftp and scp, git, plumbum, execnet, rsync and ansible start ssh.
        "'-oForwardX11 no' '-oPermitLocalCommand no' '-oClearAllForwardings yes'",
        "-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no",
        "-o SendEnv=GIT_PROTOCOL -4",
        "-T -i /home/me/.ssh/id",
        "-C -F /dev/null",
        "-C -o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=no -S /x"
        " -o KbdInteractiveAuthentication=no -o PasswordAuthentication=no -o ControlPath=/x/%h",
        "-oProxyCommand=none '-oProxyJump none' -oTunnel=no -oForkAfterAuthentication=no",
        "-A -X -Y -k -K -g -M -y -6 -a -2 -m mac -c cipher -e none -E log -I lib -P tag -J none",
        "-o Protocol=2 -o 'ControlPath=\"/x y/%h\"'",
        "-o IgnoreUnknown=Made*,x -o MadeUp=yes -o X=y",
    ],
)
def test_options_that_do_nothing(words: str) -> None:
    request = read(*shlex.split(words), "web1")
    request.no_forwards = request.unknown = None
    assert vars(request) == vars(read("web1"))


def test_an_option_that_is_refused_can_be_off() -> None:
    for words in ("-Jnone", "-wno", "-oProxyCommand=none", "-oPermitLocalCommand no"):
        assert read(words, "web1").host == "web1"


@pytest.mark.parametrize(("names", "why"), [*REFUSED.items()])
def test_what_cannot_be_had_is_an_error_with_a_cure(names: str, why: tuple[str, str]) -> None:
    what, cure = why
    for name in names.split():
        words = [name, "value"] if name.startswith("-") else ["-o", f"{name}=value"]
        text = f"{name}.*: remctl does not support {re.escape(what)}: {re.escape(cure)}"
        with pytest.raises(UsageError, match=text):
            read(*words, "web1")


# -- Compared with ssh ----------------------------------------------------------------------------


def ssh(*words: str, config: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """Run the installed ssh to compare with it."""
    command = ["ssh", "-F", config, "-G", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)


def test_every_option_of_ssh_has_its_place() -> None:
    """An option takes a value if that of ssh does."""
    usage = subprocess.run(["ssh"], capture_output=True, text=True, timeout=TIMEOUT).stderr
    [switches] = re.findall(r"\[-(\w{2,})\]", usage)
    valued = {f"-{letter}": True for letter in re.findall(r"\[-(\w) \S", usage)}
    assert len(switches) > 20 < 3 + len(valued)
    places = {name: option.metavar is not None for option in OPTIONS for name in option.names}
    assert places | {f"-{letter}": False for letter in switches} | valued == places


def test_every_keyword_of_ssh_has_its_place(tmp_path: Path) -> None:
    """Each word in the ssh binary that ssh accepts as a keyword is known."""
    ssh_program = Path(shutil.which("ssh") or "").read_bytes()
    texts = re.findall(rb"[a-z][a-z0-9]{2,40}(?=\0)", ssh_program)
    words = {text[start:].decode() for text in texts for start in range(len(text) - 2)}
    config = tmp_path / "config"
    config.write_text("".join(f'{word} "\n' for word in sorted(words)))  # not read any further
    bad = re.findall(r"Bad configuration option: (\S+)", ssh("web1", config=str(config)).stderr)
    keywords = words - {*bad}
    assert {"port", "proxyjump", "forkafterauthentication", "match"} < keywords
    assert len(keywords) > 100
    ours = " ".join((*KEYWORDS, *IGNORED.values(), *REFUSED)).split()
    assert keywords - {name.lower() for name in ours} == set()
    assert sorted(set(ours)) == sorted(ours)


VALUES = (
    *("User=alice", "User alice", 'User="alice"', "User='alice'", 'User = "alice"', "user\talice"),
    *("USER =alice", " User= alice ", "User==alice", "SetEnv=A=\\'b", 'User="a b"', "User=a b"),
    *(
        "User=a\\ b",
        'SetEnv="A=a\\"b"',
        'User="a',
        "SetEnv='A=a\"b'",
        "User=",
        'User=""',
        "User",
        "User=a\\b",
    ),
    *(
        "User=a#b",
        "User=a #b",
        "User=#b",
        "User=\"a\"b'c'",
        'Port="22"',
        "Port = '22'",
        "Port=22 23",
    ),
    *(
        "Port=0",
        "Port=x",
        "PORT=22",
        "Hostname=other",
        'HostName "other"',
        "HostName=%h.example.org",
    ),
    *("HostName=%%h", "ConnectTimeout=1m", "ConnectTimeout=5s", 'ConnectTimeout="1m30s"'),
    *("ConnectTimeout=1H2M", "ConnectTimeout=none", "ConnectTimeout=7", "ConnectTimeout=1x"),
    *(
        "ConnectTimeout=m",
        "ConnectTimeout=-1",
        "ConnectTimeout=1d",
        "SetEnv=A=b",
        "SetEnv=A='b c' D=e",
    ),
    *(
        'SetEnv="A=b c"',
        "SetEnv=A=",
        "SetEnv=A",
        "SetEnv A=\\\\b",
        "StdinNull=yes",
        "StdinNull=maybe",
    ),
    *("RequestTTY=force", "RequestTTY=x", "SessionType=None", "SessionType=x", "LogLevel=Debug"),
    *("LogLevel=loud", "Prot=22", "Include=x", "ClearAllForwardings=x", "RemoteCommand=ls 'a b'"),
    *("LocalForward=7 web2:8", "LocalForward='7' \"[::1]:8\"", "LocalForward=7", "SetEnv='A=b"),
    *("ForkAfterAuthentication=x", "ConnectTimeout=2d3", "Compression=", "Ciphers='"),
)


@pytest.mark.parametrize("value", VALUES)
def test_values_are_what_ssh_takes_them_for(value: str) -> None:
    answer = ssh("-o", value, "web1")
    if answer.returncode:
        with pytest.raises(UsageError, match="-o"):
            read("-o", value, "web1")
        return
    request = read("-o", value, "web1")
    for line in answer.stdout.splitlines():
        name, _, told = line.partition(" ")
        if name in ("user", "hostname", "port"):
            default = {"user": getpass.getuser(), "hostname": "web1", "port": "22"}[name]
            ours = {"user": request.user, "hostname": request.host, "port": request.port}[name]
            assert (name, told) == (name, str(ours or default))
        elif name == "connecttimeout":
            assert told == ("none" if request.timeout is None else f"{request.timeout:.0f}")
        elif name == "setenv":
            variable, _, content = told.partition("=")
            assert request.changes == {**request.changes, variable: content}
        elif name == "remotecommand":
            assert request.command == [told]
        elif name == "localforward":
            assert len(request.local) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("web1", "me@web1", "a@b@web1", "ssh://web1", "ssh://me@web1:22", "ssh://web1:22/"),
        *("ssh://me@web1", "ssh://a%40b@web1", "ssh://web1/x"),
        *("ssh://web1:x", "ssh://web1:0", "ssh://@web1", "ssh://", "ssh://me@", "::1", "me@::1"),
    ],
)
def test_destinations_are_what_ssh_takes_them_for(text: str) -> None:
    answer = ssh(text)
    if answer.returncode:
        with pytest.raises(UsageError, match=r"is not HOST|a port must be"):
            read(text)
        return
    request = read(text)
    expected = [f"user {request.user or getpass.getuser()}", f"hostname {request.host}"]
    assert {*expected, f"port {request.port or 22}"} <= {*answer.stdout.splitlines()}


def test_a_host_in_brackets() -> None:
    for text in ("[::1]", "me@[::1]", "ssh://[::1]", "ssh://me@[::1]:22"):
        assert read(text).host == "::1"
    assert read("ssh://me@[::1]:22").port == 22


def test_tunnels() -> None:
    words = ["-L", "1:a:2", "-L[::1]:0:[::2]:3", "-oRemoteForward=localhost:4 b:5", "-R/x:/y"]
    words += ["-L", "6:/z", "-L*:7:a:8", "-L", ":9:a:1"]
    request = read(*words, "web1")
    assert request.local == [
        ("localhost", 1, "a", 2),
        ("::1", 0, "::2", 3),
        ("localhost", 6, None, "/z"),
        ("::", 7, "a", 8),
        ("::", 9, "a", 1),
    ]
    cleared = read(*words, "-oClearAllForwardings=yes", "web1")
    assert (cleared.local, cleared.remote) == ([], [])
    assert request.remote == [("localhost", 4, "b", 5), (None, "/x", None, "/y")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no host"),
        (["--"], "no host"),
        (["-q"], "no host"),
        ([""], "'' is not HOST"),
        (["@web1"], "'@web1' is not HOST"),
        (["me@"], "'me@' is not HOST"),
        (["--", "-oProxyCommand=x"], "is not HOST"),
        (["ssh://web1/path"], "is not HOST"),
        (["-p"], "-p: a value is missing"),
        (["-p", "x", "web1"], "-p: a port must be a number from 1 to 65535, not 'x'"),
        (["-p", "70000", "web1"], "not '70000'"),
        (["-oPort=0", "web1"], "-o 'Port=0': a port must be a number"),
        (["-oPort", "web1"], "-o 'Port': a value is missing"),
        (["-oProt=1", "web1"], "-o 'Prot=1': unknown option"),
        (["-o", "", "web1"], "-o '': unknown option"),
        (["-oSetEnv=A", "web1"], "'A' is not NAME=VALUE"),
        (["-oSetEnv=A='", "web1"], "No closing quotation"),
        (["-oSessionType=x", "web1"], "x': it must be none, subsystem or default, not 'x'"),
        (["--timeout", "0", "web1"], "--timeout: it must be a time more than 0, not '0'"),
        (["--nonsense", "web1"], "no such option: --nonsense"),
        (["-Z", "web1"], "no such option: -Z"),
        (["--exact=1", "web1"], "--exact takes no value"),
        (["--exact", "web1"], "--exact needs a command"),
        (["-s", "web1"], "-s needs the name of a subsystem"),
        (["-N", "web1", "ls"], "-N cannot be used with a command"),
        (["-oRemoteCommand=a", "web1", "b"], "a command and the option RemoteCommand are"),
        (["-L", "1:2", "web1"], "a tunnel must be"),
        (["-L", "1:a:0", "web1"], "not '0'"),
        (["-R", "::a:2", "web1"], "a tunnel must be"),
        (["-R", "1::2", "web1"], "a tunnel must be"),
        (["-D", "1", "web1"], "-D: remctl does not support SOCKS proxies"),
        (["-J", "a", "web1"], "jump hosts"),
        (["-oProxyCommand=nc %h", "web1"], "proxy commands"),
        (["-W", "a", "web1"], "-W: it must be HOST:PORT or the path of a Unix socket, not 'a'"),
        (["-W", "a:0", "web1"], "-W: a port must be a number"),
        (["-W", "a:1", "web1", "ls"], "-W cannot be used with a command"),
        (["-f", "web1"], "-f needs a command or -N"),
        (["-N", "-s", "web1", "sftp"], "-s: -N, -s and SessionType are mutually exclusive"),
        (["-oUser=a b", "web1"], "-o 'User=a b': unexpected 'b': put quotes around a value"),
        (["-l", "", "web1"], "-l: a value is missing"),
        (["-oConnectTimeout=9w", "web1"], "it must be a time"),
        (["--print-completion", "tcsh"], "the shell must be one of bash, zsh, fish, not 'tcsh'"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read(*words)


def test_wrong_variable_is_named() -> None:
    with pytest.raises(UsageError, match="REMCTL_RSH_PORT: a port must be a number"):
        read("web1", REMCTL_RSH_PORT="x")


# -- Pages ----------------------------------------------------------------------------------------


def test_wrong_usage_is_one_line_and_our_status() -> None:
    done = run("-p", "x", "web1")
    assert (done.returncode, done.stdout) == (255, "")
    assert re.fullmatch(r"remctl-rsh: -p: .*\(see --help\)\n", done.stderr)


def test_configuration_is_told_without_a_server() -> None:
    done = run("-G", "-p", "22", "me@nowhere.invalid")
    assert done.stdout == "host nowhere.invalid\nhostname nowhere.invalid\nport 22\nuser me\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_what_git_asks_first_imports_little() -> None:
    code = "import sys; from remctl_toolkit.cli.rsh import main; main(['-G', 'web1']);"
    code += "print({'remctl', 'argparse', 'socket', 'ssl', 'plumbum'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environ(), capture_output=True, text=True
    )
    assert done.stdout.endswith("\nset()\n")


def test_help_has_all_options_that_do_something() -> None:
    page = run("--help").stdout
    assert [line for line in page.splitlines() if len(line) > 85] == []
    for text in ("rsync -e remctl-rsh", "exit status:", "REMCTL_RSH_PORT", "255"):
        assert text in page
    for option in OPTIONS:
        assert option.names[0] in page


def test_examples_of_the_help_page_can_be_typed() -> None:
    examples = re.findall(r"^  remctl-rsh (.*)$", parser().format_help(), re.MULTILINE)
    assert len(examples) > 1
    for line in examples:
        assert read(*line.split()).host


def test_version() -> None:
    for option in ("-V", "--version"):
        assert re.fullmatch(r"remctl-rsh \d[\w.]+\n", run(option).stdout)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion(shell: str) -> None:
    assert SHELLS == completion.SHELLS
    assert run("--print-completion", shell).stdout == completion.script("remctl-rsh", shell)
