"""Build the fuzzer: libFuzzer, Python, the extension and libremctl in one program, with clang."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import remctl

__all__ = ["BuildError", "build", "environment"]

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

_CHECKS = ["-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
_COUNTED = [*_CHECKS, "-fno-sanitize-recover=undefined", "-fsanitize=fuzzer-no-link"]

MISSING = """\
clang with libFuzzer is needed:
    Debian, Ubuntu:  apt-get install --no-install-recommends clang libclang-rt-14-dev
                     (the number is that of clang)\
"""


class BuildError(Exception):
    """The fuzzer could not be built; the text says why."""


def _run(command: Sequence[str | Path], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        cure = f"\n{MISSING}" if "libclang_rt" in done.stdout else ""
        raise BuildError(f"{shlex.join(map(str, command))}\n{done.stdout[-4000:]}{cure}")


def _flags(option: str, package: str) -> list[str]:
    asked = ["pkg-config", option, package]
    return shlex.split(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def _libremctl(clang: str, source: Path, folder: Path) -> Path:
    """Build libremctl with the sanitizers and counters of the rest."""
    folder.mkdir()
    env = {
        **os.environ,
        "CC": clang,
        "CFLAGS": shlex.join(_COUNTED),
        "ac_cv_search_event_base_free": "none required",  # The server's, which is not built.
    }
    _run([source / "configure", "--disable-shared", "--enable-static"], folder, env)
    _run(["make", "client/libremctl.la"], folder)
    return folder / "client/.libs/libremctl.a"


def _python() -> list[str]:
    """Return linker flags for this Python."""
    variables = sysconfig.get_config_vars()
    folders = [variables["LIBDIR"], variables["LIBPL"]]
    links = [f"-L{folder}" for folder in folders] + [f"-Wl,-rpath,{folders[0]}"]
    words = [f"-lpython{variables['LDVERSION']}", variables["LIBS"], variables["SYSLIBS"]]
    return links + shlex.split(" ".join(words))


def build(folder: Path, libremctl: Path | None) -> Path:
    """Build the fuzzer in a folder, and return its path.

    Args:
        folder: an empty folder.
        libremctl: the source of libremctl 3.18, to be built in; None means the installed library,
            whose coverage is not measured.

    Raises:
        BuildError: clang is missing, or something does not compile.
    """
    clang = os.environ.get("CLANG", "clang")
    if shutil.which(clang) is None:
        raise BuildError(MISSING)
    library = ["-lremctl"] if libremctl is None else [_libremctl(clang, libremctl, folder / "lib")]
    include = [f"-I{ROOT / 'src'}", f"-I{sysconfig.get_path('include')}"]
    include += _flags("--cflags", "libremctl")
    version = f'-DREMCTL_BINDING_VERSION="{remctl.VERSION}"'
    ours = [ROOT / "_remctl.c", *sorted((ROOT / "src").glob("*.c"))]
    # Coverage counts the tested code, but not the peer's.
    for sources, flags in ((ours, _COUNTED), (sorted(HERE.glob("*.c")), _CHECKS)):
        for source in sources:
            _run([clang, *flags, "-pthread", version, *include, "-c", str(source)], folder)
    program = folder / "fuzzer"
    objects = sorted(folder.glob("*.o"))
    link = [clang, *_CHECKS, "-fsanitize=fuzzer", "-rdynamic", "-pthread", "-o", program]
    libraries = [*library, "-lgssapi_krb5", "-lkrb5", *_python()]
    _run([*map(str, [*link, *objects, *libraries])], folder)
    return program


def environment(base_prefix: str) -> dict[str, str]:
    """Return the environment of the fuzzer, with the import path of its Python."""
    return {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks; the player checks for ours.
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONHOME": base_prefix,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
