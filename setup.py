"""Build `_remctl`, the C extension over libremctl, and the page that PyPI shows.

Everything else is in pyproject.toml.

Environment variables that change the build:

REMCTL_CFLAGS   compiler flags for libremctl, instead of pkg-config's
REMCTL_LIBS     linker flags for libremctl, instead of pkg-config's
REMCTL_WERROR   set to 1 to make every compiler warning an error
REMCTL_FULL_API set to 1 to build for this one Python version, without the limited API
REMCTL_FAULTS   folder of a generated header: a build for tests, in which every call can be made to
                fail (see stress/faults)
PKG_CONFIG      the pkg-config to ask, by default the one on PATH

Flags are separated by spaces and quoted as in a shell. CC, CFLAGS and LDFLAGS work as in every
build of a Python extension.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # pip compares versions only after it has run this.
    major, minor = sys.version_info[:2]
    sys.exit(f"Python 3.11 or later is required, this is {major}.{minor}")

import ast
import glob
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

HERE = Path(__file__).resolve().parent

# One binary serves every CPython from 3.11 on. A free-threaded interpreter has no limited API, so
# it gets its own build. The C source cannot decide this: only Python.h tells whether there is a
# GIL, and the macro must be defined before that is included.
LIMITED_API = (
    sys.implementation.name == "cpython"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and os.environ.get("REMCTL_FULL_API") != "1"
)


def binding_version() -> str:
    """Return `__version__` of remctl.py, read without importing: importing needs the extension."""
    tree = ast.parse((HERE / "remctl.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if "__version__" in names and node.value is not None:
                return str(ast.literal_eval(node.value))
    raise PlatformError("remctl.py does not set __version__")


def page_for_pypi() -> str:
    """Return README.md with absolute links, for the page on PyPI.

    They lead to the tag of this version. As long as pyproject.toml does not say where the
    repository is, they stay as they are; `./run release` asks for that.
    """
    text = (HERE / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository")
    if repository is None:
        return text
    tag = f"v{binding_version()}"

    def whole(link: re.Match[str]) -> str:
        target = link[1]
        if target.startswith("../../"):  # other parts of the repository on GitHub
            return f"]({repository}/{target.removeprefix('../../')})"
        kind = "raw" if target.endswith(".svg") else "blob"
        return f"]({repository}/{kind}/{tag}/{target})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", whole, text)


def pkg_config(option: str, default: str) -> str:
    """Return pkg-config's output for libremctl, or `default` if it fails."""
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), option, "libremctl"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return default


def flags(variable: str, option: str, default: str) -> list[str]:
    """Return the flags that the environment variable holds or, without it, pkg-config's."""
    text = os.environ.get(variable)
    return shlex.split(pkg_config(option, default) if text is None else text)


MISSING_COMPILER = """\
The C compiler does not run: {}.
    Debian, Ubuntu:  apt-get install gcc libc6-dev python3-dev libremctl-dev pkg-config
    Fedora:          dnf install gcc python3-devel remctl-devel pkgconf-pkg-config
    macOS:           xcode-select --install\
"""

MISSING_HEADER = """\
remctl.h was not found: these bindings are built against libremctl.
    Debian, Ubuntu:  apt-get install libremctl-dev
    Fedora:          dnf install remctl-devel
    Homebrew:        brew install remctl
If it is where the compiler does not look: REMCTL_CFLAGS=-I... and REMCTL_LIBS="-L... -lremctl".\
"""


OLD_HEADER = """\
remctl.h has no {}: it is of a libremctl that is too old. 3.13 or later is needed.\
"""
# The youngest of the functions that we call: it came with libremctl 3.4, the others before.
YOUNGEST_FUNCTION = "remctl_open_fd"


class BuildRemctl(build_ext):
    """Looks at the header first, so that a missing or old library is one clear message."""

    def build_extension(self, ext: Extension) -> None:
        self.require_header(ext)
        super().build_extension(ext)

    def require_header(self, ext: Extension) -> None:
        include_dirs = [f"-I{folder}" for folder in (*ext.include_dirs, *self.include_dirs)]
        probe = [*self.compiler.compiler_so, *include_dirs, *ext.extra_compile_args]
        try:
            found = subprocess.run(
                [*probe, "-E", "-x", "c", "-"],
                input="#include <remctl.h>\n",
                capture_output=True,
                text=True,
            )
        except OSError as error:
            raise PlatformError(MISSING_COMPILER.format(error)) from None
        if found.returncode != 0 and "remctl.h" in found.stderr:
            raise PlatformError(MISSING_HEADER)
        if found.returncode == 0 and YOUNGEST_FUNCTION not in found.stdout:
            raise PlatformError(OLD_HEADER.format(YOUNGEST_FUNCTION))


commands: dict[str, type] = {"build_ext": BuildRemctl}
if sboms := sorted(HERE.glob("*.cdx.json")):  # Where libremctl is linked statically, as in wheels.
    from setuptools.command.bdist_wheel import bdist_wheel

    class BuildWheel(bdist_wheel):
        """Adds the SBOMs of what is linked in, as PEP 770 says."""

        def write_wheelfile(self, wheelfile_base: str, *args: str) -> None:
            super().write_wheelfile(wheelfile_base, *args)
            folder = Path(wheelfile_base, "sboms")
            folder.mkdir()
            for sbom in sboms:
                shutil.copy(sbom, folder)

    commands["bdist_wheel"] = BuildWheel

# PyMODINIT_FUNC marks the module's init function, the one thing that is exported.
compile_args = ["-Wall", "-Wextra", "-pthread", "-fvisibility=hidden"]
if os.environ.get("REMCTL_WERROR") == "1":
    compile_args.append("-Werror")

macros: list[tuple[str, str | None]] = [
    ("REMCTL_BINDING_VERSION", f'"{binding_version()}"'),
]
if LIMITED_API:
    macros.append(("Py_LIMITED_API", "0x030B0000"))

include_dirs = ["src"]
if faults := os.environ.get("REMCTL_FAULTS"):
    compile_args += ["-include", os.path.join(faults, "faults.h")]
    compile_args.append("-Wno-unused-value")  # of a call that stands for itself, in a macro

setup(
    long_description=page_for_pypi(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "_remctl",
            ["_remctl.c", *sorted(glob.glob("src/*.c"))],
            depends=sorted(glob.glob("src/*.h")),
            include_dirs=include_dirs,
            define_macros=macros,
            py_limited_api=LIMITED_API,
            extra_compile_args=[*compile_args, *flags("REMCTL_CFLAGS", "--cflags", "")],
            extra_link_args=["-pthread", *flags("REMCTL_LIBS", "--libs", "-lremctl")],
        )
    ],
    cmdclass=commands,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
