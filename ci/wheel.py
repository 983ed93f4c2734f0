"""Build wheels that include libremctl, check them, and try them without libremctl: ./run wheel.

Wheels given as arguments are checked and tried instead.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from .building import (
    OLD_NEEDS,
    OLD_POLICY,
    OLD_SUITE,
    ROOT,
    build_libremctl,
    build_sdist,
    build_wheel,
    repair,
)
from .checking import check
from .debian import Unavailable, unpack
from .environments import describe, gather
from .shell import Failed, say
from .trying import try_here, try_in_debian

# Cache for later runs: downloads, wheels of other projects, chroots.
CACHE = ROOT / ".venv"
WORK = CACHE / "wheel"
DIST = ROOT / "dist"

UNAVAILABLE = 69  # sysexits.h, as in ./run


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./run wheel",
        description="Build wheels that include libremctl, check them, and try them without the"
        " installed libremctl, with every Python and a real server. The wheels go to dist/.",
    )
    parser.add_argument("wheels", nargs="*", type=Path, metavar="WHEEL", help="try these instead")
    parser.add_argument(
        "--chroot",
        action="append",
        default=[],
        metavar="SUITE",
        help="also try it in this release of Debian (trixie, sid), unpacked in .venv; needs root",
    )
    # Which interpreters there are, ./run knows.
    parser.add_argument("--python", action="append", default=[], type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def old_system() -> Path | None:
    """Return the folder of an old Debian to link with; None if it cannot be unpacked."""
    folder = CACHE / "chroots" / OLD_SUITE
    try:
        unpack(OLD_SUITE, OLD_NEEDS, folder)
    except Unavailable as error:
        say(f"linked with this system's C library, so not for older systems: {error}")
        return None
    return folder


def build(pythons: list[Path]) -> list[Path]:
    """Build the wheel for all Pythons with a GIL, and one for each without."""
    system = old_system()
    say("libremctl, static")
    libremctl = CACHE / "libremctl"
    build_libremctl(libremctl, system)
    say("sdist")
    sdist = build_sdist(WORK / "sdist")
    for name in ("repaired", "again"):
        shutil.rmtree(WORK / name, ignore_errors=True)
        (WORK / name).mkdir(parents=True)
    wheels = []
    with_gil = [python for python in pythons if not describe(python).endswith("t")]
    without = [python for python in pythons if describe(python).endswith("t")]
    for python in with_gil[:1] + without:
        say(f"wheel, with Python {describe(python)}")
        policy = OLD_POLICY if system else "auto"
        made = [
            repair(build_wheel(sdist, python, libremctl, system, WORK), policy, WORK / name)
            for name in ("repaired", "again")
        ]
        if made[0].read_bytes() != made[1].read_bytes():
            raise Failed(f"two builds of {made[0].name} differ")
        wheels.append(made[0])
    DIST.mkdir(exist_ok=True)
    return [Path(shutil.copy(path, DIST)) for path in (sdist, *wheels)][1:]


def fits(wheel: Path, python: Path) -> bool:
    """Return whether a wheel is for this interpreter."""
    version = describe(python)
    if not version.endswith("t"):
        return "-abi3-" in wheel.name
    major, minor = version.split(".")[:2]
    return f"-cp{major}{minor}t-" in wheel.name


def main() -> int:
    """Run the command line, and return the exit status."""
    options = arguments()
    done: list[str] = []
    status = 0
    try:
        for wheel in options.wheels or build(options.python):
            wheel = wheel.resolve()
            say(f"\n{wheel.name}")
            for fact in check(wheel):
                say(f"  {fact}")
            for python in options.python:
                if not fits(wheel, python):
                    continue
                say(f"\nPython {describe(python)}")
                gather(python, CACHE / "wheels")
                how = try_here(wheel, python, CACHE / "wheels", WORK)
                done.append(f"{wheel.name}  Python {describe(python)}, {how}: ok")
            for suite in options.chroot if "-abi3-" in wheel.name else []:
                say(f"\nDebian {suite}")
                try:
                    how = try_in_debian(wheel, suite, CACHE / "wheels", CACHE / "chroots")
                    done.append(f"{wheel.name}  Debian {suite}, {how}: ok")
                except Unavailable as error:
                    done.append(f"{wheel.name}  Debian {suite}: skipped: {error}")
                    status = UNAVAILABLE
    except Failed as error:
        say(f"\nFAILED  {error}")
        status = 1
    say("\n" + "\n".join(done))
    return status


if __name__ == "__main__":
    sys.exit(main())
