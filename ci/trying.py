"""Try a wheel like a user: installed in a new environment, without libremctl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .building import ROOT
from .debian import Unavailable, inside, unpack
from .environments import TRIAL_NEEDS, Environment, describe
from .shell import Failed, run

# Tests that call every function of libremctl, with a real remctld; the last one shares a MEMORY
# cache with python-gssapi.
TESTS = ("tests/test_simple.py", "tests/test_low_level.py", "tests/test_one_kerberos.py")

# Fails if libremctl can be loaded.
_NO_LIBREMCTL = """\
import ctypes
try:
    ctypes.CDLL("libremctl.so.1")
except OSError as error:
    print(error)
else:
    raise SystemExit("libremctl can be loaded: the trial would prove nothing")
"""

_HIDE = """\
while [ "$1" != -- ]; do
    mount --bind /dev/null "$1" || exit
    shift
done
shift
exec "$@"
"""

# Packages that a minimal Debian lacks: a KDC, remctld, and krb5-config for building gssapi.
_DEBIAN_NEEDS = "python3-venv krb5-kdc krb5-admin-server krb5-user libkrb5-dev remctl-server"


def installed_libraries() -> list[str]:
    """Return the files of libremctl in the dynamic linker's path."""
    listed = run("/sbin/ldconfig", "-p").splitlines()
    paths = [line.split("=> ")[1] for line in listed if "libremctl.so" in line and "=> " in line]
    return sorted({os.path.realpath(path) for path in paths})


def hidden() -> list[str]:
    """Return a command prefix that runs programs without libremctl.

    It mounts an empty file over the library's files, for that command only.

    Raises:
        Unavailable: this system does not allow it.
    """
    libraries = installed_libraries()
    if not libraries:
        return []
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *as_root, "--mount", "sh", "-c", _HIDE, "sh", *libraries, "--"]
    try:
        run(*command, "true")
    except Failed as error:
        raise Unavailable(f"libremctl cannot be hidden: {error}") from None
    return command


def lay_out(wheel: Path, folder: Path) -> None:
    """Make a folder with the wheel and the tests, but without the source modules."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))


def shown(*command: str | Path, cwd: Path | None = None) -> None:
    """Run the tests, and show their output."""
    # A missing KDC or remctld is a failure, not a skip.
    env = {**os.environ, "CI": "true", "REMCTL_LINKED": "statically"}
    words = [str(word) for word in command]
    sys.stdout.flush()
    if subprocess.run(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL).returncode != 0:
        raise Failed("the tests failed")


def try_here(wheel: Path, python: Path, wheels: Path, work: Path) -> str:
    """Try a wheel with an interpreter, and return a description of the trial."""
    folder = work / f"trial-{describe(python)}"
    lay_out(wheel, folder)
    environment = Environment(folder / "env", python)
    environment.install("--no-index", "--find-links", wheels, wheel, *TRIAL_NEEDS)
    how = "libremctl hidden"
    try:
        before = hidden()
    except Unavailable as error:
        before, how = [], f"libremctl is installed, but not loaded: {error}"
    if not how.startswith("not"):
        run(*before, environment.python, "-I", "-c", _NO_LIBREMCTL)
    shown(*before, environment.python, "-P", "-m", "pytest", "-q", *TESTS, cwd=folder)
    return how


def try_in_debian(wheel: Path, suite: str, wheels: Path, chroots: Path) -> str:
    """Try a wheel in another release of Debian, and return a description of the trial.

    Raises:
        Unavailable: that release cannot be unpacked.
    """
    folder = chroots / suite
    unpack(suite, _DEBIAN_NEEDS, folder)
    lay_out(wheel, folder / "trial")
    shutil.copytree(wheels, folder / "trial" / "wheels")
    before = [*inside(folder), "env", "--chdir=/trial", "LC_ALL=C.UTF-8"]
    run(*before, "python3", "-I", "-c", _NO_LIBREMCTL)
    run(*before, "python3", "-m", "venv", "env")
    install = ("env/bin/python", "-m", "pip", "install", "--quiet", "--no-index")
    run(*before, *install, "--find-links", "wheels", f"/trial/{wheel.name}", *TRIAL_NEEDS)
    shown(*before, "env/bin/python", "-P", "-m", "pytest", "-q", *TESTS)
    version = run(*before, "env/bin/python", "--version").strip()
    return f"no libremctl, {version}"
