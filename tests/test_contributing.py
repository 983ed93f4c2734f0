"""docs/contributing.md: its worked examples fit the checkout and pass; the changelog has its form.

The ```diff blocks of a section are put into a copy of the checkout, and the ./run test of the
section is run there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "contributing.md"
LIMIT = 240  # seconds for an example, on a machine that is busy

pytestmark = pytest.mark.once


class Example(NamedTuple):
    diffs: list[str]
    tests: list[str]


class Hunk(NamedTuple):
    before: str
    after: str


def examples() -> dict[str, Example]:
    """The sections of the page that have diffs, with what their ./run test is given."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        diffs = re.findall(r"^```diff\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        if diffs:
            (tests,) = re.findall(r"^\$ \./run test (.*)$", section, re.MULTILINE)
            found[section.partition("\n")[0]] = Example(diffs, shlex.split(tests))
    return found


def parse(diff: str) -> tuple[str, list[Hunk]]:
    """Which file a unified diff is of, and its hunks, whose line counts must be right."""
    header, *parts = re.split(r"^(@@ .* @@)\n", diff, flags=re.MULTILINE)
    name = re.fullmatch(r"--- (?:a/.*|/dev/null)\n\+\+\+ b/(.*)\n", header)
    assert name, f"no header of a diff: {header!r}"
    hunks = []
    for counts, body in zip(parts[::2], parts[1::2], strict=True):
        lines = body.splitlines(keepends=True)
        before = [line[1:] for line in lines if line[0] in " -"]
        after = [line[1:] for line in lines if line[0] in " +"]
        told = re.fullmatch(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", counts)
        assert told, f"{name[1]}: {counts}"
        assert [int(count or 1) for count in told.groups()] == [len(before), len(after)], name[1]
        hunks.append(Hunk("".join(before), "".join(after)))
    return name[1], hunks


def apply(diff: str, tree: Path) -> None:
    """Do what a diff says, wherever in the file the lines are that it shows."""
    name, hunks = parse(diff)
    path = tree / name
    text = path.read_text() if path.exists() else ""
    for before, after in hunks:
        if not before:
            assert text == "", f"{name} is there already"
            text = after
            continue
        places = f"\n{text}".count(f"\n{before}")
        assert places == 1, f"{PAGE.name}: {name} has these lines {places} times:\n{before}"
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    path.write_text(text)


def environment(tree: Path) -> dict[str, str]:
    """As a terminal would have it, whatever runs these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def run(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("name", examples())
def test_the_worked_example_is_green(name: str, tmp_path: Path) -> None:
    example = examples()[name]
    lines = (ROOT / ".gitignore").read_text().splitlines()
    made = {line.rstrip("/") for line in lines if not line.startswith("#")}
    ignored = {".git", *made} - {"*.so"}
    tree = tmp_path / "checkout"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*ignored))
    for diff in example.diffs:
        apply(diff, tree)
    if any(parse(diff)[0].endswith(".c") for diff in example.diffs):
        run(tree, "setup.py", "-q", "build_ext", "--inplace")
    told = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *example.tests)
    assert re.search(r"^\d+ passed", told, re.MULTILINE), told
    assert "skipped" not in told


def test_a_diff_that_does_not_fit_is_told(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("one\ntwo\none\n")
    for line, places in (("one", 2), ("on", 0)):
        diff = f"--- a/some.txt\n+++ b/some.txt\n@@ -1,1 +1,2 @@\n {line}\n+more\n"
        with pytest.raises(AssertionError, match=f"these lines {places} times"):
            apply(diff, tmp_path)
    with pytest.raises(AssertionError, match=r"some\.txt"):
        apply("--- a/some.txt\n+++ b/some.txt\n@@ -1,1 +1,3 @@\n two\n+more\n", tmp_path)
    apply("--- a/some.txt\n+++ b/some.txt\n@@ -9,2 +9,2 @@\n-two\n+2\n one\n", tmp_path)
    assert (tmp_path / "some.txt").read_text() == "one\n2\none\n"


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_tests_that_are_named_are_there(page: Path) -> None:
    text = re.sub(r"^```diff\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    new = {parse(diff)[0] for example in examples().values() for diff in example.diffs}
    files = re.findall(r"(?<![\w/.])(?:\w[\w-]*/)+[\w./-]*\w", text)
    for name in {name.rstrip(".") for name in files if "NAME" not in name}:
        assert (ROOT / name).exists() or name in new, f"{page.name}: {name}"
    for name, test in re.findall(r"`([\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / name).read_text(), f"{page.name}: {test}"


# -- CHANGELOG.md ---------------------------------------------------------------------------------

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_changelog_has_its_form() -> None:
    """Kinds in order, one line for each change, nothing twice."""
    text = (ROOT / "CHANGELOG.md").read_text()
    _, *versions = re.split(r"^## ", text, flags=re.MULTILINE)
    for version in versions:
        title = version.partition("\n")[0]
        assert re.fullmatch(r"Unreleased|\d+\.\d+\.\d+((a|b|rc)\d+)? \(\d{4}-\d\d-\d\d\)", title)
        kinds = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        changes = [line for line in version.splitlines()[1:] if line and line[0] != "#"]
        changes = [line for line in changes if not re.fullmatch(r"\w[\w ]+:", line)]
        assert [line for line in changes if not re.fullmatch(r"- .{,127}\.", line)] == []
        assert len(set(changes)) == len(changes)
