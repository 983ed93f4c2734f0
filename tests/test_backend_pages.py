"""The examples of backends: their own tests, and Perl and Python side by side."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.pages import blocks_of

import remctl
from remctl_toolkit.testing import Command, Realm, RemctldServer

pytestmark = [pytest.mark.once, pytest.mark.nightly]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "quota"
PAGE = ROOT / "docs" / "backends.md"
IN_SERVICE = ROOT / "docs" / "backends-in-service.md"


def test_the_example_passes_its_own_tests(remctl_realm: Realm) -> None:
    """In a pytest of its own, as a reader runs it; the fixture sees to missing programs."""
    options = ["-p", "no:cacheprovider", "-p", "remctl_toolkit.testing.plugin", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--remctl-required", *options],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def block(language: str, marker: str) -> str:
    """Return the block of the page that has some text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    (found,) = [text for text in blocks if marker in text]
    return str(found)


@pytest.fixture
def servers(remctld: Any, tmp_path: Path) -> dict[str, RemctldServer]:
    """A server with the page's Perl backend, and one with the Python one."""
    perl = "/usr/bin/perl"
    try:
        found = subprocess.run([perl, "-MNet::Remctl::Backend", "-e1"], capture_output=True)
    except OSError:
        found = None
    if found is None or found.returncode:
        pytest.skip("Net::Remctl::Backend is not installed: libnet-remctl-perl (Debian, Ubuntu)")
    ours = tmp_path / "note.py"
    ours.write_text(block("py", "lib/remctl/note"))
    path = os.pathsep.join(filter(None, sys.path))
    scripts = {
        "perl": f"#!{perl}\n{block('perl', 'Net::Remctl')}",
        "python": f'PYTHONPATH={path} exec {sys.executable} {ours} "$@"',
    }
    return {
        language: remctld(
            [
                Command("note", "save", script=script, stdin=3, acl="ANYUSER"),
                Command("note", script=script, acl="ANYUSER"),
            ]
        )
        for language, script in scripts.items()
    }


def test_perl_and_python_do_the_same(servers: dict[str, RemctldServer]) -> None:
    commands = {
        "plain": ["show", "todo"],
        "option": ["show", "--upper", "todo"],
        "short": ["show", "-u", "todo"],
        "failure": ["show", "other"],
        "data": ["save", "todo", b"a\0\xff"],
        "empty": ["save", "todo", ""],
    }
    results = {}
    for language, server in servers.items():
        with remctl.Remctl(server.host, server.port, timeout=30) as session:
            results[language] = {
                name: session.run(["note", *command]) for name, command in commands.items()
            }
    assert results["python"] == results["perl"]
    assert results["python"]["option"].stdout == b"MILK\n"
    assert results["python"]["data"].stdout == b"todo: 3 octets\n"
    assert results["python"]["failure"].stderr == b"note show: no such note: other\n"


def test_perl_and_python_refuse_the_same(servers: dict[str, RemctldServer]) -> None:
    """With their own words; and with a status that differs, as the page says."""
    refused = [
        [],
        ["burn"],
        ["show"],
        ["show", "a", "b"],
        ["show", "Todo"],
        ["show", "todo\n"],
        ["show", "--nonsense", "todo"],
        ["show", "todo", "--upper"],
        ["save", "TODO", "text"],
    ]
    for language, server in servers.items():
        with remctl.Remctl(server.host, server.port, timeout=30) as session:
            for command in refused:
                result = session.run(["note", *command])
                assert result.status != 0, (language, command)
                assert result.stdout is None
                if language == "python":
                    assert result.status == os.EX_USAGE
                    assert (result.stderr or b"").count(b"\n") == 1


@pytest.mark.usefixtures("remctl_realm")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """The realm sees to a missing remctld, which systemd would complain about."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    files = []
    for block in blocks_of(IN_SERVICE):
        if block.language == "ini":
            files.append(tmp_path / block.text.splitlines()[0].removeprefix("# "))
            files[-1].write_text(block.text)
    assert [file.name for file in files] == ["remctld.socket", "remctld.service"]
    done = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, timeout=50)
    # The machine's own units are none of our business.
    assert [line for line in done.stderr.splitlines() if "remctld" in line] == []
