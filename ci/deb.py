"""Build Debian packages in clean chroots, install them there, and test them: ./run deb.

Each suite takes a few minutes. This needs root, because debootstrap unpacks each suite once.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tarfile
from pathlib import Path

from .building import ROOT
from .debian import Unavailable, inside, unpack
from .shell import Failed, only, run, say

SUITES = ("bookworm", "trixie")
WORK = ROOT / ".venv" / "deb"

_BUILD_NEEDS = ("build-essential", "fakeroot", "lintian")


def needs() -> str:
    """Return the packages that debian/ needs to build and to test."""
    text = (ROOT / "debian" / "control").read_text().partition("\n\n")[0]
    build = re.findall(r"^ ([\w.+-]+)", text.partition("Build-Depends:")[2], re.MULTILINE)
    text = (ROOT / "debian" / "tests" / "control").read_text()
    test = re.findall(r"^ ([\w.+-]+)", text, re.MULTILINE)
    compat = [each for each in build if each == "debhelper-compat"]
    wanted = {*_BUILD_NEEDS, *build, *test, "debhelper"} - {*compat, "dh-sequence-python3"}
    return " ".join(sorted(wanted | {"dh-python"}))


def lay_out(folder: Path) -> Path:
    """Make a folder with the upstream tarball and the source package; return the latter."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    changelog = (ROOT / "debian" / "changelog").read_text()
    version = re.match(r"python-remctl \((.*)-\d+\)", changelog)
    if version is None:
        raise Failed("debian/changelog does not begin with python-remctl (VERSION-REVISION)")
    tree = folder / f"python-remctl-{version[1]}"
    listed = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    with tarfile.open(folder / f"python-remctl_{version[1]}.orig.tar.gz", "w:gz") as archive:
        for path in sorted(tree.iterdir()):
            if path.name != "debian":
                archive.add(path, f"{tree.name}/{path.name}")
    return tree


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of the binary packages in a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.deb")
    }


def try_suite(suite: str) -> None:
    """Build, check, install and test the package in one release of Debian."""
    chroot = WORK / suite
    unpack(suite, needs(), chroot)
    tree = lay_out(chroot / "build")
    here = [*inside(chroot), "env", f"--chdir=/build/{tree.name}", "LC_ALL=C.UTF-8"]
    say(f"{suite}: building")
    run(*here, "dpkg-buildpackage", "-us", "-uc")
    first = digests(tree.parent)
    run(*here, "dpkg-buildpackage", "-us", "-uc", "-b")
    if digests(tree.parent) != first:
        raise Failed(f"{suite}: two builds differ")
    say(f"{suite}: checking")
    changes = only(list(tree.parent.glob("*.changes")), "a .changes file")
    lint = ["lintian", "-EviI", "--pedantic", "--fail-on", "error,warning", "--allow-root"]
    found = run(*here, *lint, f"../{changes.name}")
    say("".join(f"  {line}\n" for line in found.splitlines() if re.match("[EWIPX]: ", line)))
    (package,) = (name for name in first if name.startswith("python3-remctl_"))
    say(f"{suite}: installing {package}")
    apt = ["apt-get", "install", "--yes", "--no-install-recommends"]
    run(*here, "DEBIAN_FRONTEND=noninteractive", *apt, f"/build/{package}")
    say(f"{suite}: testing what is installed")
    (tree.parent / "test").mkdir()
    say(run(*here, "AUTOPKGTEST_TMP=/build/test", "debian/tests/realm"))
    target = ROOT / "dist" / suite
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in tree.parent.glob("python*_*"):
        if path.is_file():
            shutil.copy(path, target)


def main() -> int:
    """Build and try the package in each suite, and return the exit status."""
    parser = argparse.ArgumentParser(prog="./run deb", description=__doc__)
    parser.add_argument("suite", nargs="*", help=f"Debian releases (default: {' '.join(SUITES)})")
    try:
        for suite in parser.parse_args().suite or SUITES:
            try_suite(suite)
    except (Failed, Unavailable) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
