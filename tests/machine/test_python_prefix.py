"""The Python of a remctl.conf that is not the system's: remctld starts it by its name alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remctl_toolkit.machine import Connection, Machine, NoPythonError
from remctl_toolkit.machine.call import Interpreter
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

VERSION = "{}.{}".format(*sys.version_info)
REAL = os.path.realpath(sys.executable)


def found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def of_the_system() -> list[str]:
    """Return the packages of the Python that virtual environments begin with."""
    base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
    folder = Path(sysconfig.get_path("purelib", vars=base))
    return [path.parent.name for path in folder.glob("[a-z]*/__init__.py")]


def server(realm: Realm, *, path: Path | None = None, **line: str) -> RemctldServer:
    env = {"PATH": f"{path}:/usr/bin:/bin"} if path else None
    return RemctldServer(realm, (Command("python", stdin="last", **line),), env=env)


@pytest.fixture
def another(tmp_path: Path) -> Path:
    """Make a folder of programs with a Python of the same version, whose modules are elsewhere."""
    folder = tmp_path / "another"
    (folder / "lib").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "lib" / f"python{VERSION}").symlink_to(sysconfig.get_path("stdlib"))
    (folder / "bin" / Path(REAL).name).write_text("#!/bin/sh\n")
    (folder / "bin" / "python3").write_text("#!/bin/sh\n")
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    return folder


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make a virtual environment with a module."""
    command = [REAL, "-m", "venv", "--without-pip", tmp_path / "venv"]
    subprocess.run(command, check=True, timeout=60)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "only_in_venv.py").write_text("PLACE = __file__\n")
    return tmp_path / "venv"


def test_one_with_the_modules_of_another_is_one_error_with_its_cure(
    remctl_realm: Realm, another: Path
) -> None:
    with (
        server(remctl_realm, path=another / "bin", program=REAL) as there,
        pytest.raises(NoPythonError) as caught,
    ):
        Connection(there.host, there.port, there.principal)
    text = str(caught.value)
    assert (
        f"it uses the modules of {another}, because remctld starts it without its directory" in text
    )
    assert f'name a script in its place: exec {REAL} "$@"' in text


def test_the_cure(remctl_realm: Realm, another: Path) -> None:
    script = f'#!/bin/sh\nexec {REAL} "$@"\n'
    with (
        server(remctl_realm, path=another / "bin", script=script) as there,
        Machine(there.host, there.port, there.principal) as machine,
    ):
        prefix = machine.call(eval, "__import__('sys').base_prefix")
    assert os.path.realpath(prefix) == os.path.realpath(sys.base_prefix)


def test_one_that_finds_no_modules_is_one_error_with_its_cure(
    remctl_realm: Realm, tmp_path: Path
) -> None:
    script = "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'encodings'\" >&2\n"
    script += "echo '  <no Python frame>' >&2\nexit 1\n"
    with (
        server(remctl_realm, script=script) as there,
        pytest.raises(NoPythonError, match=r"script in its place: exec /PATH/"),
    ):
        Connection(there.host, there.port, there.principal)


@pytest.mark.parametrize("way", ["by its path", "by a script"])
def test_a_virtual_environment(remctl_realm: Realm, venv: Path, tmp_path: Path, way: str) -> None:
    """Its modules are found, and programs that the machine starts are run by it."""
    python = venv / "bin" / "python3"
    line = {"program": str(python)}
    if way == "by a script":
        line = {"script": f'#!/bin/sh\nexec {python} "$@"\n'}
    # Its base is the Python of that name in PATH, or this would be the case above.
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(REAL)
    with (
        server(remctl_realm, path=programs, **line) as there,
        Machine(there.host, there.port, there.principal) as machine,
    ):
        assert machine.connection.far.python == str(python)
        place = machine.call(eval, "__import__('only_in_venv').PLACE")
        assert Path(place).is_relative_to(venv)
        assert machine.python("-c", "import sys; print(sys.prefix)") == f"{venv}\n"


@pytest.mark.parametrize("wide", [False, True], ids=["alone", "with the system's modules"])
def test_a_virtual_environment_may_have_more_modules(
    remctl_realm: Realm, venv: Path, wide: bool
) -> None:
    name = next(iter(of_the_system()), "only_in_venv" if wide else "none")
    settings = venv / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("= false", f"= {str(wide).lower()}"))
    script = f'#!/bin/sh\nexec {venv}/bin/python3 "$@"\n'
    with (
        server(remctl_realm, script=script) as there,
        Connection(there.host, there.port, there.principal) as connection,
        Interpreter(connection, prefer_far=[name]) as far,
    ):
        assert far.call(found, "only_in_venv")
        assert far.call(found, name) is wide
