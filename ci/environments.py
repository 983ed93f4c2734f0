"""Fresh virtual environments, in which wheels are built and tried."""

from __future__ import annotations

import shutil
from pathlib import Path

from .shell import run

# What a trial needs beside the wheel: its tests and the realm that they talk to.
TRIAL_NEEDS = ("pytest>=8", "pytest-timeout>=2.3", "gssapi>=1.8")

# What Debian's Python has no ensurepip for is there, or is installed by those who come here.
_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class Environment:
    """A virtual environment of an interpreter, made anew."""

    def __init__(self, folder: Path, python: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        run(python, "-m", "venv", folder)
        self.python = folder / "bin" / "python"

    def install(self, *arguments: str | Path) -> None:
        """Have pip install something."""
        run(self.python, *_INSTALL, *arguments)


def gather(python: Path, folder: Path) -> None:
    """Put into `folder` wheels of all that a trial with that Python needs.

    gssapi comes as source and takes its time to build: what the folder has is not built again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run(
        *(python, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--find-links", folder, "--wheel-dir", folder, *TRIAL_NEEDS),
    )


def describe(python: Path) -> str:
    """Return what an interpreter calls itself: 3.13.5, with a t where it has no GIL."""
    code = (
        "import platform, sysconfig;"
        "free = sysconfig.get_config_var('Py_GIL_DISABLED');"
        "print(platform.python_version() + ('t' if free else ''))"
    )
    return run(python, "-c", code).strip()
