"""Find the system programs of a test realm, and name the packages of missing ones."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NamedTuple

__all__ = [
    "CLIENT_PROGRAMS",
    "REALM_PROGRAMS",
    "SERVER_PROGRAMS",
    "MissingPrograms",
    "find",
    "search_path",
    "tool_environ",
]


class Packages(NamedTuple):
    """The package with a program, by packaging system."""

    debian: str
    fedora: str
    homebrew: str


_PACKAGES = {
    "krb5kdc": Packages("krb5-kdc", "krb5-server", "krb5"),
    "kdb5_util": Packages("krb5-kdc", "krb5-server", "krb5"),
    "kadmin.local": Packages("krb5-admin-server", "krb5-server", "krb5"),
    "kinit": Packages("krb5-user", "krb5-workstation", "krb5"),
    "klist": Packages("krb5-user", "krb5-workstation", "krb5"),
    "remctld": Packages("remctl-server", "remctl-server", "remctl"),
    "remctl": Packages("remctl-client", "remctl", "remctl"),
}

REALM_PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "klist")
"""Programs of ``Realm``."""

SERVER_PROGRAMS = ("remctld",)
"""Programs of ``RemctldServer``."""

CLIENT_PROGRAMS = ("remctl",)
"""Programs for the user of the sandbox."""

_EXTRA_DIRECTORIES = (
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
)

# macOS has Heimdal tools of the same names, which do not work with an MIT KDC's database, and
# Homebrew does not put its krb5 on the PATH. So these come before the PATH.
_HOMEBREW_DIRECTORIES = (
    "/opt/homebrew/opt/krb5/sbin",
    "/opt/homebrew/opt/krb5/bin",
    "/opt/homebrew/sbin",
    "/opt/homebrew/bin",
    "/usr/local/opt/krb5/sbin",
    "/usr/local/opt/krb5/bin",
)

# Variables that daemons and tools of the realm inherit. No others: a debugging aid for the tests,
# such as a sanitizer in LD_PRELOAD, would be in every program and every remctl command.
_INHERITED = (
    "DYLD_LIBRARY_PATH",
    "KRB5_TRACE",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "TZ",
)


class MissingPrograms(Exception):
    """Programs of a test realm are not installed.

    The message names all missing programs and their packages. The attribute ``missing`` is the
    tuple of program names.
    """

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(missing)
        self.missing = missing

    def __str__(self) -> str:
        lines = ["a test realm needs programs that are not installed:"]
        lines += [f"  {_advice(name)}" for name in self.missing]
        lines.append("they were not found on PATH or in the usual sbin directories")
        return "\n".join(lines)


def _advice(name: str) -> str:
    """Return the line of the message for one missing program."""
    packages = _PACKAGES[name]
    return (
        f"{name}: install {packages.debian} (Debian, Ubuntu), {packages.fedora} (Fedora)"
        f" or {packages.homebrew} (Homebrew)"
    )


def search_path() -> str:
    """Return the directories to search for programs, as a value for PATH.

    They are those of PATH, and the directories of daemons, which an ordinary user's PATH lacks.
    """
    directories = [*os.environ.get("PATH", "").split(os.pathsep), *_EXTRA_DIRECTORIES]
    if sys.platform == "darwin":
        directories[:0] = _HOMEBREW_DIRECTORIES
    return os.pathsep.join(dict.fromkeys(name for name in directories if name))


def find(*names: str) -> dict[str, str]:
    """Find programs.

    Args:
        names: program names from the ``*_PROGRAMS``.

    Returns:
        The full path of each program, by name.

    Raises:
        MissingPrograms: at least one is missing; the message names all missing ones.
    """
    path = search_path()
    found = {name: shutil.which(name, path=path) for name in names}
    missing = tuple(name for name, place in found.items() if place is None)
    if missing:
        raise MissingPrograms(missing)
    return {name: place for name, place in found.items() if place is not None}


def tool_environ() -> dict[str, str]:
    """Return the environment of the realm's programs: PATH, the C locale and little else.

    The fixed locale makes the programs' output predictable. Variables for libraries, the time zone
    and the temporary directory are passed on.
    """
    environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {"PATH": search_path(), "LC_ALL": "C", **environ}
