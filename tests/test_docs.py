"""The documentation and the demo: every example runs, and prints what the page says it prints.

In README.md and docs/*.md, the ```python blocks of a page run from top to bottom as one program,
against a real remctld.  What a block prints must be what the ```text block right after it has; a
block without one must print nothing.  "..." there stands for anything.  A block whose first line is
the comment "# test_NAME.py" is a file of tests: it runs under pytest, with the plugin.

The names that the examples use: server.example.org is the remctld, down.example.org a port that
nobody listens on, silent.example.org a server that never answers, and nothing else is known.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import _remctl
import pytest
from support.pages import PAGES, blocks_of, is_test_file, name_of
from support.preload import preloaded
from support.waiting import PATIENCE

import remctl
from remctl_toolkit import testing
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = [pytest.mark.once, pytest.mark.nightly]

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "examples" / "demo.py"
TIMEOUT = 50 * PATIENCE  # seconds

# Runs a page's blocks; between their outputs stands a line that no example prints.
RUNNER = """
import json, linecache, signal, sys

blocks = json.load(sys.stdin)
signal.signal(signal.SIGINT, signal.default_int_handler)
names = {"__name__": "__main__"}
for place, code in blocks:
    # Functions are sent as source where the remote Python is another version.
    linecache.cache[place] = len(code), None, code.splitlines(True), place
    exec(compile(code, place, "exec"), names)
    print("=" * 20, "the next block")
"""

Place = dict[str, str]  # the environment of the examples


@pytest.fixture(scope="module")
def place(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A realm of its own, as the examples change it; the shared one sees to missing programs."""
    commands = [
        *runpy.run_path(str(DEMO))["COMMANDS"],
        *SAMPLE_COMMANDS,
        *testing.machine_commands(),
    ]
    with ExitStack() as stack:
        realm = stack.enter_context(testing.Realm())
        principal = realm.add_host("server.example.org")
        realm.add_host("silent.example.org")
        server = testing.RemctldServer(realm, commands, principal=principal)
        stack.enter_context(server)
        down, silent = (stack.enter_context(socket.socket()) for _ in range(2))
        for listener in (down, silent):
            listener.bind(("127.0.0.1", 0))
        silent.listen()
        names = ("server", "down", "silent")
        ports = (server.port, down.getsockname()[1], silent.getsockname()[1])
        found = (
            f"{name}.example.org=127.0.0.1@{port}" for name, port in zip(names, ports, strict=True)
        )
        hosts = {"FAKE_HOSTS": " ".join([*found, ".example.org="])}  # others are not known
        stack.enter_context(preloaded("resolver", tmp_path_factory.mktemp("resolver"), **hosts))
        paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
        yield {
            **os.environ,
            **realm.env,
            "PYTHONPATH": os.pathsep.join(sorted(paths)),
            "REMCTL_HOST": "server.example.org",
            "REMCTL_PORT": str(server.port),
        }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_print_what_the_page_says(page: Path, place: Place, tmp_path: Path) -> None:
    found = blocks_of(page)
    code = [block for block in found if block.language == "python" and not is_test_file(block)]
    if not code:
        return
    # Line numbers of a traceback are then those of the page.
    programs = [(name_of(page), "\n" * block.line + block.text) for block in code]
    done = subprocess.run(
        [sys.executable, "-u", "-W", "error", "-c", RUNNER],
        input=json.dumps(programs),
        env=place,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    printed = re.split(r"^={20} the next block\n", done.stdout, flags=re.MULTILINE)
    assert len(printed) == len(code) + 1
    checker = doctest.OutputChecker()
    for block, output in zip(code, printed, strict=False):
        follower = found[found.index(block) + 1 :][:1]
        expected = "".join(b.text for b in follower if b.language == "text" and b.follows)
        same = checker.check_output(expected, output, doctest.ELLIPSIS)
        assert same, f"{name_of(page)}, line {block.line}, printed:\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_test_files_of_the_page_pass(page: Path, place: Place, tmp_path: Path) -> None:
    files = [block.text for block in blocks_of(page) if is_test_file(block)]
    for text in files:
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    if not files:
        return
    options = ["-p", "no:cacheprovider", "-p", "remctl_toolkit.testing.plugin", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--remctl-required", *options, str(tmp_path)],
        env={**place, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def prose_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_links_between_pages_lead_somewhere() -> None:
    dead = []
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        prose = prose_of(page)
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            # ../../actions is what GitHub has next to the files: test_pypi_page.py looks at those.
            elsewhere = "://" in target or target.startswith("../../actions/")
            if not elsewhere and not (page.parent / target).exists():
                dead.append(f"{name_of(page)}: {target}")
    assert dead == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    trees = re.findall(r"^```\{toctree\}\n(?::.*\n)*\n((?:.+\n)*)```$", index, re.MULTILINE)
    pages = [page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index"]
    assert sorted("".join(trees).split()) == sorted(pages)


def test_a_page_has_one_title() -> None:
    """Links on the landing page have the title of the page that they lead to."""
    for page in PAGES:
        assert len(re.findall(r"^# .*$", prose_of(page), re.MULTILINE)) == 1, page
    index = (ROOT / "docs" / "index.md").read_text()
    for text, name in re.findall(r"(?<!!)\[([^]]+)\]\(([\w-]+\.md)\)", index):
        assert (ROOT / "docs" / name).read_text().startswith(f"# {text}\n")


def test_every_exception_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    names = [name for name in remctl.__all__ if name.endswith("Error")]
    assert [name for name in names if f"## {name}\n" not in text] == []


def test_every_low_level_function_is_explained() -> None:
    text = (ROOT / "docs" / "low-level.md").read_text()
    names = [name for name in vars(_remctl) if name.startswith("remctl")]
    assert [name for name in names if f"`{name}(" not in text] == []


# -- The demo -------------------------------------------------------------------------------------


def run_demo(place: Place, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *options],
        env={**place, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_the_demo_shows_its_own_code_and_what_it_prints(place: Place) -> None:
    done = run_demo(place)
    assert (done.returncode, done.stderr) == (0, "")
    printed = [line[4:] for line in done.stdout.splitlines() if line.startswith("  │ ")]
    assert printed[0] == "alice: active, 3 of 10 GB used"
    assert printed[3] == "status 3 None b'no such account: carol\\n'"
    assert "RemctlServerError: Access denied, code <RemctlErrorCode.ACCESS: 6>" in printed
    source = DEMO.read_text()
    shown = [line[4:] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert all(line in source for line in shown[:-1]), "the last is how to start the sandbox"
    assert "\033" not in done.stdout


def test_the_demo_needs_no_unicode(place: Place) -> None:
    done = run_demo(place, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_the_demo_has_help(place: Place) -> None:
    done = run_demo(place, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "exit status:" in done.stdout


def test_the_demo_says_what_to_install(place: Place, tmp_path: Path) -> None:
    bare = "import remctl_toolkit.testing.programs as p; p._EXTRA_DIRECTORIES = ()"
    code = f"{bare}; import runpy; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**place, "PYTHONPATH": str(ROOT), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == os.EX_UNAVAILABLE
    assert "krb5-kdc" in done.stderr


def test_the_demo_ends_when_nobody_reads_it(place: Place) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as unread:
        done = subprocess.run(
            [sys.executable, str(DEMO)],
            env={**place, "PYTHONPATH": str(ROOT)},
            stdout=unread,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
    assert (done.returncode, done.stderr) == (141, "")
