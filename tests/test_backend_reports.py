"""Reports of internal errors of a backend: their author sees them, the caller never does."""

from __future__ import annotations

import os
import pty
import re
import socket
import stat
import subprocess
import sys
import syslog
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.calling import call

import remctl
from remctl_toolkit.backend import Backend, reports
from remctl_toolkit.testing import Command, RemctldServer

pytestmark = pytest.mark.once

PROGRAM = f"""#!{sys.executable}
import sys
sys.path[:] = {sys.path!r}
from remctl_toolkit.backend import Backend
backend = Backend("test")
@backend.command()
def fail():
    raise RuntimeError("the reason")
raise SystemExit(backend.run())
"""
# The same, where nobody listens at /dev/log.
WITHOUT_LOG = PROGRAM.replace(
    "backend =",
    "from remctl_toolkit.backend import reports\nreports._SYSTEM_LOGS = ()\nbackend =",
    1,
)
TOLD = re.compile(rb"test fail: internal error \(reference ([0-9a-f]{8})\)\n")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def environ(**more: str) -> dict[str, str]:
    """The environment without what remctld says."""
    served = ("REMCTL_COMMAND", "REMOTE_USER", "REMUSER", "SUDO_COMMAND")
    return {**{name: v for name, v in os.environ.items() if name not in served}, **more}


# -- What they say --------------------------------------------------------------------------------


SECRETS = [
    "hunter2",
    "pässwörd",
    "\udcff\udcc3",
    "a'b\"c\\d\n",
    "$(x) &;",
    "\N{KEY}" * 300,
    "x" * 5000,
]


def plain(secret: str) -> None:
    raise RuntimeError(f"no: {secret}")


def as_repr(secret: str) -> None:
    raise KeyError(secret)


def cut(secret: str) -> None:
    octets = secret.encode("utf-8", "surrogateescape")
    raise ValueError(f"{octets[1:]!r} {octets[:-1].decode('latin-1')} {octets.hex()}")


def caused(secret: str) -> None:
    try:
        raise LookupError(secret)
    except LookupError as error:
        raise RuntimeError(secret.upper()) from error


def grouped(secret: str) -> None:
    error = ExceptionGroup(secret, [ValueError(secret), OSError(2, "x", secret)])
    error.add_note(secret)
    raise error


def evaluated(secret: str) -> None:
    eval(f"1 +* {secret!a}")  # a SyntaxError has the line


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("declared", [{"logmask": "secret"}, {"stdin": "secret"}], ids=str)
@pytest.mark.parametrize("function", [plain, as_repr, cut, caused, grouped, evaluated])
def test_masked_values_are_in_no_log(
    function: Callable[[str], None], secret: str, declared: dict[str, str]
) -> None:
    """Nor what is made of them: of such a command, the log has no exception's text."""
    args = [secret] if "logmask" in declared else []
    given = None if args else secret
    result = call(function, *args, input=given, **declared)
    assert result.status == os.EX_SOFTWARE
    unlike = call(function, *(["other"] if args else []), input=given and "other", **declared)
    assert result.log.splitlines()[1:] == unlike.log.splitlines()[1:], "whatever the value is"
    assert f"in {function.__name__}" in result.log
    assert result.log.endswith("(without its text: the command has masked arguments or data)\n")
    if function is caused:
        assert result.log.index("\nLookupError\n") < result.log.index("\nRuntimeError\n")


def test_other_commands_of_the_backend_have_the_whole_traceback() -> None:
    assert "RuntimeError: no: value" in call(plain, "value").log


# -- Where they go --------------------------------------------------------------------------------


def test_by_hand_it_is_on_standard_error(program: Path) -> None:
    done = subprocess.run([program, "fail"], env=environ(), capture_output=True, timeout=50)
    assert (done.returncode, done.stdout) == (os.EX_SOFTWARE, b"")
    match = TOLD.search(done.stderr)
    assert match
    assert done.stderr.startswith(b"internal error " + match[1] + b"\n")
    assert b"RuntimeError: the reason" in done.stderr


def test_on_a_terminal_it_is_shown_whoever_is_named(program: Path) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        named = environ(REMOTE_USER="alice@EXAMPLE.ORG")
        process = subprocess.Popen([program, "fail"], env=named, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while octets := screen.read(1000):
                shown += octets
        except OSError:  # the end of a terminal
            pass
        assert process.wait(50) == os.EX_SOFTWARE
    assert b"for alice@EXAMPLE.ORG" in shown
    assert b"RuntimeError: the reason" in shown


@pytest.mark.parametrize("name", ["REMCTL_COMMAND", "REMOTE_USER", "REMUSER", "SUDO_COMMAND"])
def test_a_caller_is_told_the_reference_alone(program: Path, tmp_path: Path, name: str) -> None:
    served = environ(**{name: "x", "TMPDIR": str(tmp_path)})
    done = subprocess.run([program, "fail"], env=served, capture_output=True, timeout=50)
    assert TOLD.fullmatch(done.stderr)


def test_a_socket_is_a_callers_even_if_nothing_tells_who_calls(
    program: Path, tmp_path: Path
) -> None:
    """As behind a wrapper, or sudo, that empties the environment."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lost = environ(TMPDIR=str(tmp_path))
        done = subprocess.run([program, "fail"], env=lost, stderr=theirs, timeout=50)
        assert TOLD.fullmatch(ours.recv(100_000))
    assert done.returncode == os.EX_SOFTWARE


def test_a_program_behind_remctld_has_it_in_the_servers_log(remctld: Any, program: Path) -> None:
    """Without the fixture's help: any program of a configuration."""
    server: RemctldServer = remctld([Command("test", program=program, acl="ANYUSER")])
    result = remctl.remctl(server.host, server.port, command=["test", "fail"])
    match = TOLD.fullmatch(result.stderr or b"")
    assert match
    log = server.wait_for_log("RuntimeError: the reason")
    assert f"test: internal error {match[1].decode()}\ntest fail, for user@REMCTL.TEST\n" in log


def test_the_file_of_the_environment_is_for_nobody_else(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "log"
    served = environ(REMOTE_USER="alice@EXAMPLE.ORG", REMCTL_BACKEND_LOG=str(path))
    for _ in range(2):
        done = subprocess.run([program, "fail"], env=served, capture_output=True, timeout=50)
        assert TOLD.fullmatch(done.stderr)
    assert path.read_text().count("RuntimeError: the reason") == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_system_log_it_is_in_a_file(remctld: Any, program: Path, tmp_path: Path) -> None:
    """One that nobody else can read."""
    program.write_text(WITHOUT_LOG)
    folder = tmp_path / "tmp"
    folder.mkdir()
    environment = {"TMPDIR": str(folder), "REMCTL_BACKEND_LOG": ""}
    server = remctld([Command("test", program=program, acl="ANYUSER")], env=environment)
    result = remctl.remctl(server.host, server.port, command=["test", "fail"])
    match = TOLD.fullmatch(result.stderr or b"")
    assert match
    (file,) = folder.iterdir()
    assert file.name == f"remctl-internal-error-{match[1].decode()}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "RuntimeError: the reason" in file.read_text()
    assert "RuntimeError" not in server.log


def test_what_is_lost_is_said(program: Path) -> None:
    nowhere = "import sys, tempfile\ntempfile.tempdir = '/nowhere'\n"
    program.write_text(WITHOUT_LOG.replace("import sys\n", nowhere, 1))
    served = environ(REMOTE_USER="alice@EXAMPLE.ORG", REMCTL_BACKEND_LOG="/nowhere/log")
    done = subprocess.run([program, "fail"], env=served, capture_output=True, timeout=50)
    assert re.fullmatch(
        rb"test fail: internal error \(reference \w{8}, not logged\)\n", done.stderr
    )


@pytest.mark.parametrize(
    "failure",
    [
        "import asyncio; raise asyncio.CancelledError('the reason')",
        "raise BaseException('the reason')",
        "raise BaseExceptionGroup('the reason', [GeneratorExit()])",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); raise ValueError",
        "fail()",  # without end
    ],
)
def test_whatever_is_raised_stays_with_the_program(
    program: Path, tmp_path: Path, failure: str
) -> None:
    program.write_text(PROGRAM.replace('raise RuntimeError("the reason")', failure))
    served = environ(REMOTE_USER="alice@EXAMPLE.ORG", REMCTL_BACKEND_LOG=str(tmp_path / "log"))
    done = subprocess.run([program, "fail"], env=served, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout) == (os.EX_SOFTWARE, b"")
    if "resource" in failure:
        assert done.stderr == b"test fail: internal error (not logged)\n"
    else:
        assert TOLD.fullmatch(done.stderr)
        assert ", in fail\n" in (tmp_path / "log").read_text()


# A program with a command `fail`, which returns nothing, whatever happens besides.
UNCAUGHT = """
{imports}

threads = 0

def raises(*_):
    global threads
    threads += 1
    raise RuntimeError("reason")

backend.command("fail")(lambda: {command})
status = backend.run()
{after}
raise SystemExit(status)
"""


@pytest.mark.parametrize(
    ("imports", "command", "after"),
    [
        ("import threading", "threading.Thread(target=raises).start()", ""),
        ("", "__import__('threading').Thread(target=raises).start()", ""),
        (
            "import _thread, time",
            "_thread.start_new_thread(raises, ()) and None",
            "while threads == 0 or _thread._count(): time.sleep(0.01)",
        ),
        ("", "type('Final', (), {'__del__': raises})() and None", ""),
        ("import atexit", "atexit.register(raises) and None", ""),
        ("", "None", "raises()"),
    ],
)
def test_what_nothing_catches_is_reported(
    program: Path, tmp_path: Path, imports: str, command: str, after: str
) -> None:
    """Python would print it for the caller to read."""
    start = PROGRAM[: PROGRAM.index("@backend")]
    body = UNCAUGHT.format(imports=imports, command=command, after=after)
    program.write_text(start + body)
    log = tmp_path / "log"
    served = environ(REMOTE_USER="alice@EXAMPLE.ORG", REMCTL_BACKEND_LOG=str(log))
    done = subprocess.run([program, "fail"], env=served, capture_output=True, timeout=50)
    assert TOLD.fullmatch(done.stderr), done.stderr
    assert done.returncode == (os.EX_SOFTWARE if after == "raises()" else 0)
    assert log.read_text().endswith("RuntimeError: reason\n\n")


def test_a_thread_that_exits_says_nothing(program: Path) -> None:
    body = "import threading; t = threading.Thread(target=sys.exit); t.start(); t.join()"
    program.write_text(PROGRAM.replace('raise RuntimeError("the reason")', body))
    done = subprocess.run([program, "fail"], env=environ(), capture_output=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "fault",
    ["import nothing_of_this_name", "backend.command()(print)", "threading.Thread(target=0).run()"],
)
def test_a_program_that_cannot_start_says_so_to_its_author(
    remctld: Any, program: Path, fault: str
) -> None:
    text = PROGRAM.replace("@backend", f"import threading\n{fault}\n@backend")
    program.write_text(text)
    server: RemctldServer = remctld([Command("test", program=program, acl="ANYUSER")])
    result = remctl.remctl(server.host, server.port, command=["test", "fail"])
    assert (result.status, result.stdout) == (os.EX_SOFTWARE, None)
    assert re.fullmatch(rb"test: internal error \(reference \w{8}\)\n", result.stderr or b"")
    assert fault in server.wait_for_log("Error: ")
    by_hand = subprocess.run([program, "fail"], env=environ(), capture_output=True, timeout=50)
    assert by_hand.returncode == 1
    assert by_hand.stderr.startswith(b"Traceback (most recent call last):\n")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The messages for the system log."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *args: found.append(args))
    monkeypatch.setattr(syslog, "syslog", lambda *args: found.append(args))
    return found


def report_of(error: Exception) -> reports.Report:
    return reports.Report("test run", None, error, is_secret=False)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_system_log(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    logged: list[tuple[Any, ...]],
    kind: socket.SocketKind,
) -> None:
    monkeypatch.setattr(reports, "_SYSTEM_LOGS", (str(tmp_path / "no"), str(tmp_path / "log")))
    report = report_of(RuntimeError("next \x00\x1b\udcff" + "x" * 1000))
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(tmp_path / "log"))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        assert reports.deliver(report, Backend("test"), {}, own_process=False)
    opened, *lines = logged
    assert opened == ("test", syslog.LOG_PID, syslog.LOG_DAEMON)
    assert {level for level, _ in lines} == {syslog.LOG_ERR}
    heading = f"internal error {report.reference}: "
    assert lines[0][1] == f"{heading}test run, for nobody"
    assert lines[1][1].startswith(rf"{heading}RuntimeError: next \x00\x1b\xffxxx")
    assert len(lines) == 3


def test_a_long_report_is_cut() -> None:
    lines = list(report_of(RuntimeError("x\n" * 5000 + "y" * 1_000_000)).lines())
    assert len(lines) == 201
    assert all(len(text) < 1000 for text in lines)


def test_a_log_of_ones_own_gets_it(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    got: list[str] = []
    own = Backend("test", log=got.append)
    assert reports.deliver(report_of(ValueError("x")), own, {}, own_process=False)
    assert got[0].endswith("ValueError: x\n")
    assert capfd.readouterr() == ("", "")


def test_a_test_that_fails_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend("test")
    backend.command("run")(plain)
    result = backend.invoke(["run", "value"])
    assert "RuntimeError: no: value" in capsys.readouterr().err
    assert b"RuntimeError" not in (result.stderr or b"")
