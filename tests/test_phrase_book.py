"""The pages for people who come from elsewhere: what they say of others' programs.

Our own examples are run by test_docs.py.  Those in ```py blocks are not run, as they are for
libraries or servers that are not here; but they are Python, and what they import from us, or from
the libraries that are installed with us, is there.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from remctl_toolkit.cli.fleet.options import parse

pytestmark = [pytest.mark.once, pytest.mark.nightly]

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
SSH = ROOT / "docs" / "coming-from-ssh.md"
OURS = {"remctl", "_remctl", "remctl_toolkit"}
NAMED = {"fabric", "invoke", "paramiko", "plumbum", "remoto", "chopsticks", *OURS}
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALSO_HERE = {"plumbum", "execnet"}


def imports_of(code: str) -> list[tuple[str, str]]:
    """Every module that is imported, each with a name that is taken from it, or none."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_is_python_and_imports_what_there_is(page: Path) -> None:
    for code in BLOCK.findall(page.read_text()):
        for module, name in imports_of(code):
            if module.partition(".")[0] not in OURS | ALSO_HERE:
                continue
            there = importlib.import_module(module)
            submodule = f"{module}.{name}"
            if name and not hasattr(there, name):
                assert importlib.util.find_spec(submodule), f"{page.name}: no {submodule}"


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_ours_comes_first_and_is_run() -> None:
    compared = {name: text for name, text in sections(SSH).items() if "\nTheirs:\n" in text}
    assert len(compared) > 10
    for name, text in compared.items():
        ours, theirs = text.split("\nTheirs:\n")
        assert ours.count("```python\n") or name == "As another user"
        assert BLOCK.match(theirs.lstrip("\n")), name
        assert "remctl" not in BLOCK.findall(theirs)[0], name


def test_our_command_lines_can_be_typed() -> None:
    lines = re.findall(r"`(remctl-fleet [^`]*)`", sections(SSH)["From the command line"])
    assert len(lines) > 15
    for line in lines:
        words = shlex.split(line.partition(" < ")[0].replace("\\|", "|"))
        options = parse(words[1:])
        assert options.shell or len(options.command) > 1, line
        # The shell leaves the words as they are.
        assert not re.search(r"[\[*!]", re.sub(r"'[^']*'", "", line)), line


def test_only_the_libraries_that_the_page_names_are_compared() -> None:
    modules = {
        module.partition(".")[0]
        for code in BLOCK.findall(SSH.read_text())
        for module, _ in imports_of(code)
    }
    standard = {"io", "platform", "os"}
    assert modules <= NAMED | standard
    assert modules >= NAMED - {"remctl", "_remctl"}
