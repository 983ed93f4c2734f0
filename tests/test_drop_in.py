"""Programs written for the existing binding, run unchanged under both: they must not notice.

Each of PROGRAMS runs under the system's Python with Debian's python3-pyremctl and under ours, with
the same server; what they print and their exit status are compared.  The differences that we mean
stand in DIFFERENCES, with why; there are no others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _remctl
import pytest

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

SYSTEM_PYTHON = "/usr/bin/python3"


class Outcome(NamedTuple):
    status: int
    stdout: list[str]
    stderr: str


BEGINNING = """
import sys
import remctl
host, port, principal, scratch = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
"""

PROGRAMS = {
    # The contract's own example, its print statements made functions.
    "simple interface": """
command = ("test", "streams")
try:
    result = remctl.remctl(host=host, port=port, principal=principal, command=command)
except remctl.RemctlProtocolError as error:
    print("Error:", str(error))
    sys.exit(1)
if result.stdout:
    print("stdout:", result.stdout)
if result.stderr:
    print("stderr:", result.stderr)
print("exit status:", result.status)
""",
    "the exit status is passed on": """
result = remctl.remctl(host, port, None, ["test", "status", "200"])
sys.exit(result.status)
""",
    "nothing is None": """
result = remctl.remctl(host, str(port), principal, ["test", "status", "7"])
print(vars(result), result.stdout is None, result.stderr is None)
output = (result.stdout or b"") + (result.stderr or b"")
print(output, isinstance(result, remctl.RemctlSimpleResult))
blank = remctl.RemctlSimpleResult()
print(blank.stdout, blank.stderr, blank.status)
""",
    "refusal of the simple interface": """
try:
    remctl.remctl(host, port, principal, ["none"])
except remctl.RemctlProtocolError as error:
    print(error)
    print(isinstance(error, remctl.RemctlError), isinstance(error, Exception), len(error.args))
""",
    "full interface": """
r = remctl.Remctl()
r.open(host, port, principal)
for command in (["test", "echo", "one"], ("test", b"echo", b"two"), ["none", "none"]):
    r.command(command)
    while True:
        type, output, stream, status, error = r.output()
        if type == "output":
            name = {1: "stdout", 2: "stderr"}[stream]
            print(name, "%d" % stream, stream, output.decode())
        elif type == "error":
            print("error", error, str(error), "%03d" % error, output.decode())
            break
        elif type == "status":
            print("status", status)
            break
        else:
            break
r.close()
""",
    "reading until done": """
import json
r = remctl.Remctl(host, port)
r.command(["test", "streams"])
pieces = {1: b"", 2: b""}
token = r.output()
while token[0] != "done":
    if token[0] == "output":
        pieces[token[2]] += token[1]
        print(len(token), isinstance(token, tuple), token[0:2], json.dumps(token[2]))
    else:
        print(token[0], token[3])
    token = r.output()
print(pieces, r.output()[0], r.output()[0])
""",
    "fields of tokens that have no meaning": """
r = remctl.Remctl(host, port)
r.command(["test", "status", "3"])
print(*r.output())
print(*r.output())
r.command(["none"])
print(*r.output())
""",
    "order of except clauses": """
def attempt(function):
    try:
        function()
    except remctl.RemctlNotOpenedError as error:
        print("not opened:", error)
    except remctl.RemctlProtocolError as error:
        print("protocol:", type(error).__mro__[-1].__name__)
    except remctl.RemctlError as error:
        print("remctl:", error)
    except (TypeError, ValueError) as error:
        print("argument:", error)
r = remctl.Remctl()
attempt(lambda: r.command(["test", "echo"]))
attempt(r.output)
attempt(r.noop)
attempt(lambda: r.set_timeout(-1))
attempt(lambda: remctl.remctl(host, port, principal, ["none"]))
attempt(lambda: remctl.remctl(host, port, principal, []))
r.open(host, port, principal)
attempt(lambda: r.command([]))
attempt(lambda: r.command(3))
r.close()
attempt(lambda: r.command(["test", "echo"]))
print(r.error())
""",
    "arguments that are wrong": """
for arguments in (
    (host, "foo"), (host, -1), (host, "-1"), (host, 65536), (host, "70000"), (host, ""),
    (host, port, principal, b"test"), (host, port, principal, 3),
    (host, port, principal, True), (host, port, principal, 1.5), (host, port, principal, []),
    (host, port, principal, iter([])), (host,), (host, "foo", principal, []),
    (host, -1, principal, []), (host, port, principal, []),
):
    try:
        remctl.remctl(*arguments)
    except (TypeError, ValueError) as error:
        print("remctl", len(arguments), type(error).__name__, error)
for wrong in ("foo", -1, "-1", 65536, "70000", "", b"x"):
    r = remctl.Remctl()
    try:
        r.open(host, wrong, principal)
    except (TypeError, ValueError) as error:
        print("open", type(error).__name__, error, r.opened)
r = remctl.Remctl(host, port, principal)
for command in (b"test", 3, True, 1.5, [], iter([]), {}):
    try:
        r.command(command)
    except (TypeError, ValueError) as error:
        print("command", type(error).__name__, error, r.opened)
""",
    "no connection": """
import socket
with socket.socket() as holder:
    holder.bind(("127.0.0.1", 0))
    nobody = holder.getsockname()[1]
    r = remctl.Remctl()
    try:
        r.open("127.0.0.1", nobody)
    except remctl.RemctlError as error:
        print(str(error).replace(str(nobody), "PORT"), str(error) == r.error(), r.opened)
    try:
        r.open("no-such-host.invalid", 1)
    except remctl.RemctlError as error:
        print(error, r.error() == str(error))
""",
    "settings": """
r = remctl.Remctl()
r.set_timeout(10)
r.set_source_ip("127.0.0.1")
r.set_ccache(scratch + "/nonexistent")
try:
    r.open(host, port, principal)
    print("opened")
except remctl.RemctlError as error:
    print(error)
import os
r.set_ccache(os.environ["KRB5CCNAME"])
r.open(host, port, principal)
r.set_timeout(0)
print(r.opened, r.error())
r.command(["test", "echo", "hello"])
print(r.output()[1], r.output()[3])
""",
    "a timeout and what is left": """
r = remctl.Remctl(host, port, principal)
r.set_timeout(1)
r.command(["test", "sleep", "30"])
try:
    r.output()
    print("in time")
except remctl.RemctlError as error:
    print(error, r.error())
r.set_timeout(20)
r.open(host, port, principal)
r.command(["test", "echo", "again"])
print(r.output()[:2])
""",
    "one object for many connections": """
r = remctl.Remctl(host, port, principal)
for number in range(3):
    r.open(host, port, principal)
    r.command(("test", "echo", "%d" % number))
    print(r.output()[1], r.output()[0])
r.open(host=host, port=port, principal=None)
r.noop()
print(r.opened, r.error())
r.close()
r.close()
print(r.opened, r.error())
""",
    "commands of every kind": """
import collections, enum
class Word(str, enum.Enum):
    ECHO = "echo"
class Text(str):
    pass
def words():
    yield "test"
    yield b"echo"
    yield "gr\\u00fcn"
for command in (
    ["test", "echo", "a b", ""], ("test", "echo"), words(), iter(["test", "echo", "x"]),
    {"test": 1, "echo": 2}, collections.deque(["test", "echo"]), ["test", Word.ECHO, Word.ECHO],
    [Text("test"), Text("echo"), Text("x")], map(str, ["test", "echo", 3]),
):
    print(remctl.remctl(host, port, None, command).stdout)
print(len(remctl.remctl(host, port, None, ["test", "cat", b"\\377" * 300000]).stdout))
""",
    "a class of one's own": """
class Session(remctl.Remctl):
    def __init__(self, host, port):
        remctl.Remctl.__init__(self, host, port)
        self.commands = 0
    def ask(self, *words):
        self.commands += 1
        self.command(words)
        output = []
        while True:
            token = self.output()
            if token[0] != "output":
                return b"".join(output), token[0]
            output.append(token[1])
class SiteError(remctl.RemctlError):
    def __init__(self, message, code):
        remctl.RemctlError.__init__(self, message)
        self.code = code
s = Session(host, port)
print(s.ask("test", "echo", "x"), s.ask("none"), s.commands, s.opened)
try:
    raise SiteError("ours", 3)
except remctl.RemctlError as error:
    print(error, error.code, error.args)
""",
    "names": """
from remctl import *
print(sorted(name for name in (
    "VERSION", "RemctlError", "RemctlProtocolError", "RemctlNotOpenedError", "RemctlSimpleResult",
    "RemctlOutput", "Remctl") if name in globals()))
print(type(VERSION).__name__, issubclass(RemctlProtocolError, RemctlError),
      issubclass(RemctlNotOpenedError, RemctlError))
import inspect, remctl as module
print(list(inspect.signature(module.remctl).parameters)[:4])
print(list(inspect.signature(Remctl).parameters)[:3])
""",
    "the low-level interface": """
import _remctl
print(_remctl.remctl(host, port, principal, [b"test", b"streams"]))
print(_remctl.remctl(host, port, None, [b"test", b"status", b"3"]))
h = _remctl.remctl_new()
print(_remctl.remctl_output(h), _remctl.remctl_error(h), _remctl.remctl_commandv(h, [b"test"]))
print(bool(_remctl.remctl_open(h, host, port, principal)))
print(_remctl.remctl_commandv(h, [b"test", b"echo", b"hello"]))
print(_remctl.remctl_output(h)[:3], _remctl.remctl_output(h)[0], _remctl.remctl_output(h)[0])
print(bool(_remctl.remctl_noop(h)), bool(_remctl.remctl_set_ccache(h, "x")))
print(bool(_remctl.remctl_set_source_ip(h, "127.0.0.1")), bool(_remctl.remctl_set_timeout(h, 5)))
print(bool(_remctl.remctl_set_timeout(h, -5)), _remctl.remctl_error(h), type(_remctl.VERSION))
""",
    "ending with all left open": """
first = remctl.Remctl(host, port)
first.command(["test", "echo", "unread"])
class Holder:
    pass
holder = Holder()
holder.session = remctl.Remctl(host, port)
holder.itself = holder
print("the end")
""",
}

# Lines of theirs, and what we print instead.
ADDED = " of arguments, not a str"  # to the text about a command that is a str
DIFFERENCES: dict[str, dict[str, str]] = {
    "refusal of the simple interface": {
        # The contract: "the string returned by the remctl library".
        "b'Unknown command'": "Unknown command",
    },
    "fields of tokens that have no meaning": {
        # The contract: "other members of the tuple may be None", "done tokens will return None".
        "status None 0 3 0": "status None None 3 None",
        "done None 0 0 0": "done None None None None",
        "error b'Unknown command' 0 0 5": "error b'Unknown command' None None 5",
    },
}


@pytest.fixture(scope="module", autouse=True)
def _the_existing_binding_is_there() -> None:
    where = "import remctl; print(remctl.__file__)"
    found = subprocess.run(
        [SYSTEM_PYTHON, "-I", "-c", where], capture_output=True, check=False
    ).returncode
    if found != 0:
        reason = "the existing binding is not installed: apt-get install python3-pyremctl"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def run(python: list[str], program: str, server: RemctldServer, folder: Path) -> Outcome:
    script = folder / "program.py"
    script.write_text(BEGINNING + program)
    paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
    place = (server.host, server.port, server.principal, folder)
    done = subprocess.run(
        [*python, str(script), *map(str, place)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sorted(paths))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.splitlines(), done.stderr)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_the_existing_binding_runs_unchanged(
    remctl_realm: Realm, remctl_server: RemctldServer, tmp_path: Path, name: str
) -> None:
    theirs = run([SYSTEM_PYTHON, "-I"], PROGRAMS[name], remctl_server, tmp_path)
    ours = run([sys.executable], PROGRAMS[name], remctl_server, tmp_path)
    assert theirs.stderr == "", "the program is one for the existing binding"
    meant = DIFFERENCES.get(name, {})
    assert meant.keys() <= set(theirs.stdout), "these differences are there"
    ours = ours._replace(stdout=[line.removesuffix(ADDED) for line in ours.stdout])
    assert ours == theirs._replace(stdout=[meant.get(line, line) for line in theirs.stdout])


def test_the_two_bindings_are_two(tmp_path: Path, remctl_server: RemctldServer) -> None:
    program = "import _remctl; print(remctl.__file__, _remctl.__file__)"
    theirs = run([SYSTEM_PYTHON, "-I"], program, remctl_server, tmp_path)
    ours = run([sys.executable], program, remctl_server, tmp_path)
    assert (theirs.status, ours.status) == (0, 0), theirs.stderr + ours.stderr
    assert ours.stdout == [f"{remctl.__file__} {_remctl.__file__}"]
    assert theirs.stdout != ours.stdout
