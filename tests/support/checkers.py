"""Run mypy and pyright over a folder of programs, like a user of the installed bindings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import _remctl

from .pages import ROOT
from .waiting import LIMIT

# The oldest Python that is supported.
PYTHON_VERSION = "3.11"

# What a distribution installs.
INSTALLED = ("remctl.py", "remctl-stubs", "_remctl-stubs", "remctl_toolkit")

PYRIGHT_CONFIG = {
    "typeCheckingMode": "strict",
    "pythonVersion": PYTHON_VERSION,
    # As mypy --strict does: a comment that ignores an error needs an error.
    "reportUnnecessaryTypeIgnoreComment": "error",
}


class Problem(NamedTuple):
    """An error that a checker found."""

    file: str
    line: int
    message: str


def install_for_checkers(folder: Path) -> Path:
    """Install this checkout in a new virtual environment; return its interpreter.

    Checkers do not see the editable installation of the tests' environment. In the checkout
    itself, remctl.py would come before its stubs.
    """
    builder = venv.EnvBuilder(symlinks=True)
    python = builder.ensure_directories(folder).env_exe
    builder.create(folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    for source in (*(ROOT / name for name in INSTALLED), Path(str(_remctl.__file__))):
        (packages / source.name).symlink_to(source)
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
    return Path(python)


def run_mypy(folder: Path, python: Path, cache: Path) -> list[Problem]:
    options = [f"--python-version={PYTHON_VERSION}", f"--python-executable={python}"]
    options += [f"--cache-dir={cache}", "--config-file=", "--output=json"]
    done = _run(["mypy", "--strict", *options, "."], folder)
    errors = map(json.loads, filter(None, done.splitlines()))
    return [
        Problem(error["file"], error["line"], f"{error['message']} [{error['code']}]")
        for error in errors
        if error["severity"] == "error"
    ]


def run_pyright(folder: Path, python: Path) -> list[Problem]:
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT_CONFIG))
    done = _run(["pyright", "--pythonpath", str(python), "--outputjson"], folder)
    return [
        Problem(Path(error["file"]).name, _line_of(error), _message_of(error))
        for error in json.loads(done)["generalDiagnostics"]
        if error["severity"] == "error"
    ]


def _line_of(error: Mapping[str, Any]) -> int:
    return int(error["range"]["start"]["line"]) + 1


def _message_of(error: Mapping[str, Any]) -> str:
    return f"{error['message']} [{error.get('rule', 'syntax')}]"


def _run(command: list[str], folder: Path) -> str:
    """Run a checker; return its standard output."""
    # A sanitizer is for the extension, which no checker loads; paths would come before the stubs.
    unwanted = {"LD_PRELOAD", "MYPYPATH", "PYTHONPATH"}
    environ = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        # pyright would say that a newer release exists.
        env={**environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    # 1 means that errors were found, another status that the checker itself failed.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout
