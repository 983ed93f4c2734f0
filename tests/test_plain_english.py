"""Plain English: the first words of docstrings, and phrases that native speakers stumble over."""

import ast
import re

import pytest
from test_project import project_files, relative

pytestmark = pytest.mark.once

# Folders and files, by the beginning of their path.
NOT_DONE_YET = (
    *(".github/", "README.md", "pyproject.toml", "run", "share/"),
    *("docs/coming-from-ssh", "docs/conf.py", "docs/machine", "docs/remctl-fleet"),
    *("remctl_toolkit/_pyinstaller/", "remctl_toolkit/cli/", "remctl_toolkit/machine/"),
    *("tests/ansible", "tests/cli/", "tests/machine/"),
)
QUESTION = re.compile(r"\W*(What|Where|Who|How|Which|Whether)\b")
PHRASES = re.compile(
    r"\b(is (none|to be|told)|(?i:tells (of)|comes of (it)|came to (pass)|as it (must)|besid(e)"
    r"|for so (long)|so (many)|with (that)|over (there)|the far side (has)))\b"
)
LINE_BREAK = re.compile(r"\s*\n[\s#*>|]*")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(name: str, text: str) -> list[str]:
    nodes = ast.walk(ast.parse(text)) if name.endswith((".py", ".pyi")) else ()
    return [ast.get_docstring(node) or "" for node in nodes if isinstance(node, DOCUMENTED)]


def test_plain_english() -> None:
    found = []
    for path in project_files():
        name, text = relative(path), path.read_text(errors="replace")
        found += [(name, each) for each in docstrings(name, text) if QUESTION.match(each)]
        found += [(name, each[0]) for each in PHRASES.finditer(LINE_BREAK.sub(" ", text))]
    assert [fault for fault in found if not fault[0].startswith(NOT_DONE_YET)] == []
