"""Find the programs of Heimdal's KDC, or unpack them without removing MIT's.

    python tests/support/heimdal.py FOLDER

downloads Debian's packages and unpacks them in the folder.  They are not installed: that would
remove MIT's KDC.  Nothing is done if they are there already.  With the folder as the environment
variable REMCTL_HEIMDAL, find_heimdal() finds them; without it, they have to be installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from remctl_toolkit.testing.programs import tool_environ

__all__ = ["FOLDER_VARIABLE", "Heimdal", "find_heimdal", "main", "unpack"]

FOLDER_VARIABLE = "REMCTL_HEIMDAL"
"""The environment variable that names the folder the packages are unpacked in."""

_TIMEOUT = 300.0  # seconds for the download
_PACKAGES = ("heimdal-kdc", "heimdal-clients")
_NEEDS_ONLY = [
    f"--no-{kind}"
    for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
]


class Heimdal(NamedTuple):
    """Heimdal's programs, as full paths."""

    kdc: str
    kadmin: str
    libraries: str
    """The folder of its libraries; "" where the system knows it."""

    @property
    def env(self) -> dict[str, str]:
        """Environment variables for the programs."""
        return {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}


def find_heimdal() -> Heimdal | None:
    """Return the programs, in the folder that REMCTL_HEIMDAL names or installed."""
    folder = os.environ.get(FOLDER_VARIABLE)
    found = _find_in(Path(folder or "/"))
    return found if found is None or folder else found._replace(libraries="")


def _find_in(root: Path) -> Heimdal | None:
    """Return the programs of Debian's packages below a folder."""
    kdc = root / "usr/lib/heimdal-servers/kdc"
    kadmin = root / "usr/bin/kadmin.heimdal"
    libraries = list(root.glob("usr/lib/*/libkdc.so.*"))
    if not (kdc.exists() and kadmin.exists() and libraries):
        return None
    return Heimdal(str(kdc), str(kadmin), str(libraries[0].parent))


def unpack(folder: Path) -> None:
    """Download Debian's packages and unpack them, unless they are there.

    Args:
        folder: where to; it is made, unless it is there and empty.

    Raises:
        OSError: apt-get or dpkg-deb is not there, or the folder cannot be written, or is in use.
        subprocess.SubprocessError: one of them failed; ``stderr`` has what it said.
    """
    if _find_in(folder) is not None:
        return
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has something else in it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        packages, root = Path(temporary, "packages"), Path(temporary, "root")
        packages.mkdir()
        root.mkdir()
        _run("apt-get", "download", "--quiet=2", *_needed_packages(), cwd=packages)
        for package in packages.glob("*.deb"):
            _run("dpkg-deb", "--extract", str(package), str(root))
        unpacked = _find_in(root)
        if unpacked is None:
            raise FileNotFoundError("the packages do not have the programs where they used to be")
        _run(unpacked.kdc, "--version", env=unpacked.env)
        root.rename(folder)  # fails if something else is in the folder


def _needed_packages() -> list[str]:
    """Return the packages, and the libraries they need that are not installed."""
    needed: list[str] = []
    found = list(_PACKAGES)
    while found:
        needed += found
        told = _run("apt-cache", "depends", *_NEEDS_ONLY, *found)
        names = {line.split()[-1] for line in told.splitlines() if "Depends: lib" in line}
        found = sorted(names - set(needed) - _installed(names))
    return needed


def _installed(names: set[str]) -> set[str]:
    """Return which of some packages are installed."""
    if not names:
        return set()
    told = _run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names, check=False)
    return {line.split()[0] for line in told.splitlines() if line.endswith(" installed")}


def _run(
    *command: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> str:
    """Run a program and return its standard output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **tool_environ(), **(env or {})},
        capture_output=True,
        check=check,
        timeout=_TIMEOUT,
        text=True,
    )
    return done.stdout


def main() -> int:
    """Unpack the packages in the folder that the only argument names."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(f"usage: python {sys.argv[0]} FOLDER", file=sys.stderr)
        return os.EX_USAGE
    try:
        unpack(Path(sys.argv[1]).absolute())
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        print(f"cannot unpack Heimdal's packages: {error}\n{said}".rstrip(), file=sys.stderr)
        return os.EX_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
