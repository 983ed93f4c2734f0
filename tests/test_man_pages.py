"""The man pages: each command has one, with all options of --help; groff warns of nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from remctl_toolkit.cli.rsh.options import KEYWORDS
from remctl_toolkit.cli.rsh.pages import ssh_options

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
SECTIONS = ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The man pages, made as docs/remctl-fleet.md tells packagers to."""
    made = tmp_path_factory.mktemp("man")
    options = ["-W", "-n", "-q", "-t", "commands", "-b", "man", "-d", f"{made}/doctrees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(made)],
        env=ENVIRON,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return made


def options_of(command: str) -> set[str]:
    """The options that --help names at the beginning of a line."""
    module = SCRIPTS[command].partition(":")[0]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^  (-.*?)(?:   .*)?$", done.stdout, re.MULTILINE)
    return {name for line in lines for name in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", line)}


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_option_is_in_the_man_page(command: str, folder: Path) -> None:
    page = (folder / f"{command}.1").read_text().replace("\\-", "-")
    terms = "\n".join(re.findall(r"^\.TP\n(?:\.B )?(.*)$", page, re.MULTILINE))
    options = options_of(command)
    assert len(options) > 3
    assert {name for name in options if not re.search(rf"{name}(?![\w-])", terms)} == set()
    assert [title for title in SECTIONS if f"\n.SH {title}\n" not in page] == []


def test_share_holds_what_packages_install(folder: Path) -> None:
    """If not, ./run docs writes it."""
    spec = importlib.util.spec_from_file_location("share", ROOT / "docs" / "share.py")
    assert spec is not None
    assert spec.loader is not None
    share = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(share)
    there = {
        str(path.relative_to(ROOT / "share")): path.read_text()
        for path in (ROOT / "share").rglob("*")
        if path.is_file()
    }
    assert there == share.files(folder)


def test_every_option_of_ssh_is_in_the_man_page(folder: Path) -> None:
    page = re.sub(r"\\f[A-Z]", " ", (folder / "remctl-rsh.1").read_text()).replace("\\-", "-")
    names = [*KEYWORDS, *(name for names, _ in ssh_options() for name in names)]
    assert len(names) > 150
    assert [name for name in names if not re.search(rf"(?<![\w-]){name}(?!\w)", page)] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("command", SCRIPTS)
def test_groff_finds_nothing_to_say(command: str, folder: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-t", "-Kutf8", "-Tutf8", "-ww", "-P-c", str(folder / f"{command}.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    plain = re.sub(".\b", "", done.stdout)
    assert f"{command} - " in plain
    assert "[image" not in plain
