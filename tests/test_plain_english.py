"""Two rules of plain English: docstrings say what a thing is or does, and some phrases are barred."""

import ast
import re

import pytest
from test_project import project_files, relative

pytestmark = pytest.mark.once

NOT_DONE_YET: tuple[str, ...] = ()
QUESTION = re.compile(r"\W*(What|Where|Who|How|Which|Whether)\b")
PHRASES = re.compile(
    r"\b(is (none|to be|told)|(?i:tells (of)|comes of (it)|came to (pass)|as it (must)|besid(e)"
    r"|for so (long)|so (many)|with (that)|over (there)|the far side (has)))\b"
)
LINE_BREAK = re.compile(r"\s*\n[\s#*>|]*")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_plain_english() -> None:
    files = {relative(path): path.read_text(errors="replace") for path in project_files()}
    found = []
    for name, text in files.items():
        nodes = ast.walk(ast.parse(text)) if name.endswith((".py", ".pyi")) else ()
        docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, DOCUMENTED)]
        found += [(name, docstring) for docstring in docstrings if QUESTION.match(docstring)]
        found += [(name, phrase[0]) for phrase in PHRASES.finditer(LINE_BREAK.sub(" ", text))]
    assert [fault for fault in found if not fault[0].startswith(NOT_DONE_YET)] == []
