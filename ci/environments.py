"""Create virtual environments to build and try wheels in."""

from __future__ import annotations

import shutil
from pathlib import Path

from .shell import run

# Requirements of a trial besides the wheel: the tests and their realm.
TRIAL_NEEDS = ("pytest>=8", "pytest-timeout>=2.3", "gssapi>=1.8")

# What Debian's Python has no ensurepip for is there, or is installed by those who come here.
_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class Environment:
    """A new virtual environment of an interpreter."""

    def __init__(self, folder: Path, python: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        run(python, "-m", "venv", folder)
        self.python = folder / "bin" / "python"

    def install(self, *arguments: str | Path) -> None:
        """Install packages with pip."""
        run(self.python, *_INSTALL, *arguments)


def gather(python: Path, folder: Path) -> None:
    """Put wheels of all requirements of a trial with a Python into a folder.

    Wheels that the folder has are kept, because gssapi takes long to build from source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run(
        *(python, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--find-links", folder, "--wheel-dir", folder, *TRIAL_NEEDS),
    )


def describe(python: Path) -> str:
    """Return an interpreter's version, such as 3.13.5; with a t if it has no GIL."""
    code = (
        "import platform, sysconfig;"
        "free = sysconfig.get_config_var('Py_GIL_DISABLED');"
        "print(platform.python_version() + ('t' if free else ''))"
    )
    return run(python, "-c", code).strip()
