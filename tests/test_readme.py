"""The README's tables of behaviour, of both bindings, and of figures; the Install page.

Each line about behaviour has a program here.  It runs with the system's Python and Debian's
python3-pyremctl, and with ours, and prints the cells of the line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import _remctl
import pytest

import remctl
from remctl_toolkit.testing import Command
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS
from remctl_toolkit.testing.server import RemctldServer

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # benchmarks is not installed

from benchmarks.questions._contests import EXISTING  # noqa: E402
from benchmarks.report import between_markers, excerpt  # noqa: E402

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = [pytest.mark.once, pytest.mark.nightly]

README = ROOT / "README.md"
SYSTEM_PYTHON = "/usr/bin/python3"

BEGINNING = """
import os, pathlib, signal, sys, threading, time
import remctl
host, port, principal = sys.argv[1], int(sys.argv[2]), sys.argv[3]
call = host, port, principal
"""

PROGRAMS = {
    "a command ends with status 200": """
print(remctl.remctl(*call, ["test", "status", "200"]).status)
""",
    "the argument `hello\\0x` of `remctl()` arrives as": """
print(remctl.remctl(*call, ["input", "octets", "hello\\0x"]).stdout)
""",
    "a second command, while the first one's output is unread": """
r = remctl.Remctl(*call)
r.command(["test", "echo", "one"])
try:
    r.command(["test", "echo", "two"])
    print("gets the first one's output" if r.output()[1] == b"one\\n" else "gets its own")
except remctl.RemctlError as error:
    print(type(error).__name__)
""",
    "the next command after a timeout": """
r = remctl.Remctl()
r.set_timeout(20)
name = "".join(host)
r.open(name, port, principal)
del name
r.command(["test", "sleep", "30"])
r.set_timeout(1)
try:
    r.output()
    print("no timeout")
except remctl.RemctlError:
    r.set_timeout(20)
try:
    r.command(["test", "echo", "two"])
    print("goes to the same host" if r.output()[1] == b"two\\n" else "goes wrong")
except (remctl.RemctlError, UnicodeDecodeError) as error:
    named = isinstance(error, UnicodeDecodeError) or host not in str(error)
    print("goes to a host named by freed memory" if named else error)
""",
    "a timeout, and more than 1,024 open files": """
import resource
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
r = remctl.Remctl()
r.set_timeout(10)
r.open(*call)
r.command(["test", "status", "0"])
print("works" if r.output()[3] == 0 else "fails")
""",
    "`_remctl.remctl_close(handle)`, then `del handle`": """
import _remctl
handle = _remctl.remctl_new()
_remctl.remctl_open(handle, *call)
_remctl.remctl_close(handle)
del handle
print("works")
""",
    "a forked child exits": """
r = remctl.Remctl(*call)
r.command(["test", "sleep", "4"])
child = os.fork()
if child == 0:
    del r
    sys.exit()
os.waitpid(child, 0)
try:
    print("the parent's session stays open" if r.output()[3] == 0 else "lost")
except remctl.RemctlError as error:
    print("the parent's session is closed" if "end of file" in str(error) else error)
""",
    "other threads, during a call": """
def answer():
    while not pathlib.Path("begun").exists():
        time.sleep(0.01)
    pathlib.Path("answered").touch()
other = threading.Thread(target=answer)
other.start()
met = remctl.remctl(*call, ["meet", os.getcwd()]).status == 0
other.join()
print("run" if met else "are blocked")
""",
    "Ctrl-C during a call": """
signal.signal(signal.SIGALRM, signal.default_int_handler)
r = remctl.Remctl(*call)
start = time.monotonic()
r.command(["test", "sleep", "4"])
try:
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    r.output()
    print("is lost")
except KeyboardInterrupt:
    print("ends the call" if time.monotonic() - start < 3 else "waits until the call ends")
""",
    "the text of a refusal": """
try:
    remctl.remctl(*call, ["none"])
except remctl.RemctlProtocolError as error:
    print(error)
""",
    "a number as an argument": """
try:
    print("its text" if remctl.remctl(*call, ["test", "echo", 7]).stdout == b"7\\n" else "lost")
except Exception as error:
    print(type(error).__name__)
""",
}


# Notify another thread of the caller, and succeed if it answers within 4 seconds.
MEET = """
cd "$1" || exit 2
touch begun
for tenth in $(seq 40); do
    [ -e answered ] && exit 0
    sleep 0.1
done
exit 1
"""


@pytest.fixture(scope="module")
def server(remctl_realm: Realm) -> Iterator[RemctldServer]:
    commands = [
        *SAMPLE_COMMANDS,
        Command("input", "octets", script="cat", stdin="last"),
        Command("meet", script=MEET),
    ]
    with RemctldServer(remctl_realm, commands) as server:
        yield server


def has_existing_binding() -> bool:
    command = [SYSTEM_PYTHON, "-I", "-c", "import remctl"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def _existing_binding() -> None:
    if not has_existing_binding():
        reason = "the existing binding is not installed: apt-get install python3-pyremctl"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def outcome(python: list[str], program: str, server: RemctldServer, folder: Path) -> str:
    """Run a program; return its output, or that it was aborted."""
    # A sanitizer checks only our binding.
    left_out = {"LD_PRELOAD"} if python[0] == SYSTEM_PYTHON else set()
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
    place = (server.host, str(server.port), server.principal)
    done = subprocess.run(
        [*python, "-c", BEGINNING + program, *place],
        env={**environ, "PYTHONPATH": os.pathsep.join(sorted(paths))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode == -signal.SIGABRT:
        return "the process is aborted"
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n")


def lines_about_behaviour() -> dict[str, tuple[str, str]]:
    """The README's comparisons of the other binding with ours."""
    block = README.read_text().partition("<!-- behaviour -->\n")[2]
    table = block.partition("<!-- end of behaviour -->")[0].strip().splitlines()[2:]
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table]
    return {what: (theirs.strip("`"), ours.strip("`")) for what, theirs, ours in cells}


def test_every_line_about_behaviour_has_a_program() -> None:
    assert lines_about_behaviour().keys() == PROGRAMS.keys()


@pytest.mark.parametrize("what", PROGRAMS)
def test_what_is_said_of_this_binding_is_so(
    server: RemctldServer, tmp_path: Path, what: str
) -> None:
    _, ours = lines_about_behaviour()[what]
    # Python 3.12 and later warn about a fork while a thread runs, such as ours for blocking calls.
    python = [sys.executable, "-W", "ignore:This process:DeprecationWarning"]
    assert outcome(python, PROGRAMS[what], server, tmp_path) == ours


@pytest.mark.usefixtures("_existing_binding")
@pytest.mark.parametrize("what", PROGRAMS)
def test_what_is_said_of_the_existing_binding_is_so(
    server: RemctldServer, tmp_path: Path, what: str
) -> None:
    theirs, _ = lines_about_behaviour()[what]
    assert outcome([SYSTEM_PYTHON, "-I"], PROGRAMS[what], server, tmp_path) == theirs


def test_figures_are_those_of_the_page_about_performance() -> None:
    report = between_markers(ROOT / "docs" / "performance.md")
    again = "./run bench --docs docs/performance.md --readme README.md"
    assert between_markers(README) == excerpt(report, EXISTING), again


def test_what_to_install_is_what_the_build_asks_for() -> None:
    """The README, and the message of a build that lacks the header, name the same packages."""
    message = re.findall(r"install (\S*remctl\S*)", (ROOT / "setup.py").read_text())
    assert message
    assert [name for name in message if f"{name}`" not in README.read_text()] == []


@pytest.mark.parametrize("name", ["MISSING_COMPILER", "MISSING_HEADER", "OLD_HEADER"])
def test_install_page_has_the_messages_of_the_build(name: str) -> None:
    source = (ROOT / "setup.py").read_text()
    text = re.search(rf'^{name} = """\\\n(.*?)\\?\n?"""', source, re.MULTILINE | re.DOTALL)
    assert text is not None
    lines = re.split(r"\{\}", text[1].removesuffix("\\\n"))
    page = (ROOT / "docs" / "install.md").read_text()
    assert [line for line in lines if line not in page] == []
