"""Users' programs and the examples of all pages, checked by mypy --strict and by pyright strict.

The programs are in tests/typing. A line there that is wrong on purpose has a comment
`# type: ignore[code]`, with mypy's code: both checkers fail where such a line has no error.

The Python examples of a page are one program, as in test_docs.py, and lines have the numbers that
they have on the page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkers import Problem, install_for_checkers, run_mypy, run_pyright
from support.pages import PAGES, ROOT, Block, blocks_of, is_test_file, name_of

pytestmark = [pytest.mark.once, pytest.mark.nightly]

PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))


def at_its_lines(blocks: list[Block]) -> str:
    """Return the code of some blocks of a page, each on the lines that it has there."""
    text = ""
    for block in blocks:
        text += "\n" * (block.line - text.count("\n")) + block.text
    return text


def examples_of(page: Path) -> Iterator[str]:
    """Yield the program that the examples of a page are, and each file of tests."""
    blocks = [block for block in blocks_of(page) if block.language == "python"]
    yield at_its_lines([block for block in blocks if not is_test_file(block)])
    for block in filter(is_test_file, blocks):
        yield at_its_lines([block])


def write_programs(folder: Path) -> dict[str, str]:
    """Write all programs into one folder; return the original file of each."""
    origins = {}
    for program in PROGRAMS:
        shutil.copy(program, folder)
        origins[program.name] = program.relative_to(ROOT).as_posix()
    for page in PAGES:
        stem = re.sub(r"\W", "_", page.stem)
        for number, text in enumerate(filter(str.strip, examples_of(page))):
            file = folder / f"page_{stem}_{number}.py"
            file.write_text(text)
            origins[file.name] = name_of(page)
    return origins


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_for_checkers(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def cache(pytestconfig: pytest.Config) -> Path:
    """Keep what mypy knows of the standard library from one run of the tests to the next."""
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("mypy")


def fail_for(problems: list[Problem], origins: dict[str, str]) -> None:
    """Fail with all problems, if there is one; pytest would cut the list short."""
    lines = [f"{origins[file]}:{line}: {message}" for file, line, message in problems]
    if lines:
        pytest.fail("\n".join(sorted(lines)), pytrace=False)


def test_mypy_accepts_programs_and_examples(python: Path, cache: Path, tmp_path: Path) -> None:
    origins = write_programs(tmp_path)
    fail_for(run_mypy(tmp_path, python, cache), origins)


def test_pyright_accepts_programs_and_examples(python: Path, tmp_path: Path) -> None:
    origins = write_programs(tmp_path)
    fail_for(run_pyright(tmp_path, python), origins)


def test_lines_are_those_of_the_page() -> None:
    page = ROOT / "docs" / "first-steps.md"
    lines = page.read_text().splitlines()
    for text in examples_of(page):
        for number, line in enumerate(text.splitlines()):
            assert line in ("", lines[number])


def test_checkers_find_what_is_wrong(python: Path, cache: Path, tmp_path: Path) -> None:
    """A wrong line is found, and so is a comment that ignores no error."""
    text = """
import remctl

remctl.remctl(7, command=["test"])
remctl.remctl("server.example.org", command=["test"])  # type: ignore[arg-type]
"""
    (tmp_path / "wrong.py").write_text(text)
    for problems in (run_mypy(tmp_path, python, cache), run_pyright(tmp_path, python)):
        assert {(problem.file, problem.line) for problem in problems} == {
            ("wrong.py", 4),
            ("wrong.py", 5),
        }
