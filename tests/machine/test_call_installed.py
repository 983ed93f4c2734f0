"""Calls from installations of other forms: from a zip file, with byte code alone, with -O."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import _remctl
import pytest
from support.waiting import LIMIT

import remctl
import remctl_toolkit

pytestmark = pytest.mark.once

PROGRAM = """
import subprocess, sys
from machine.call_pipes import PipeInterpreter
import remctl_toolkit, ours
from remctl_toolkit.machine import MachineError, helpers
def double(x):
    assert __debug__ or x
    return 2 * x
try:
    with PipeInterpreter(sys.executable) as far:
        print(far.call(double, 4), far.call(ours.f), far.call(helpers.output_lines, ["echo", "x"]))
except MachineError as error:
    print(type(error).__name__, error)
print(remctl_toolkit.__file__)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of what is installed, and a module of a user's."""
    folder = tmp_path / "place"
    source = Path(remctl_toolkit.__file__).parent
    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in Path(remctl.__file__).parent.glob("*remctl*.py"):
        shutil.copy(file, folder)
    (folder / "ours.py").write_text("def f():\n    return 'ours'\n")
    return folder


def run(place: Path, tmp_path: Path, *options: str) -> str:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = [str(place), str(Path(__file__).parent.parent), str(Path(_remctl.__file__).parent)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, *options, str(program)]
    ended = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert str(place) in ended.stdout, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_optimized(place: Path, tmp_path: Path, option: str) -> None:
    assert run(place, tmp_path, option).startswith("8 ours ['x']\n")


def test_from_a_zip_file(place: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(place), "zip", place)
    assert run(Path(archive), tmp_path).startswith("8 ours ['x']\n")


def only_byte_code(folder: Path) -> None:
    assert compileall.compile_dir(folder, legacy=True, quiet=1)
    for file in folder.rglob("*.py"):
        if not file.name.startswith(("far_", "both_")):
            file.unlink()


def test_with_byte_code_alone_it_says_what_is_missing(place: Path, tmp_path: Path) -> None:
    only_byte_code(place)
    text = "RemoteCallError ImportError on far.example.org: module 'ours' cannot be sent: "
    assert run(place, tmp_path).startswith(text + "it has no source")
    for file in place.rglob("far_agent.py"):
        file.unlink()
    said = run(place, tmp_path)
    name = "remctl_toolkit/machine/call/far_agent.py"
    assert said.startswith(f"MachineError {name}, which runs on the server, is not installed: ")


def test_the_hook_for_pyinstaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """It includes all files that are sent, and is found by its entry point."""
    (entry,) = importlib.metadata.entry_points(group="pyinstaller40", name="hook-dirs")
    (folder,) = entry.load()()
    found: dict[str, Any] = {}
    hooks: Any = types.ModuleType("PyInstaller.utils.hooks")
    hooks.collect_data_files = lambda name, **how: found.update(how) or [name]
    hooks.collect_submodules = lambda name: [name]
    for name in ("PyInstaller", "PyInstaller.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, hooks.__name__, hooks)
    hook = runpy.run_path(os.path.join(folder, "hook-remctl_toolkit.py"))
    assert (hook["datas"], hook["hiddenimports"]) == (
        ["remctl_toolkit"],
        ["remctl_toolkit.machine"],
    )
    root = Path(remctl_toolkit.__file__).parent
    included = {path for pattern in found["includes"] for path in root.glob(pattern)}
    assert included == {p for p in root.rglob("*.py") if p.name.startswith(("far_", "both_"))}
    assert found["include_py_files"]
