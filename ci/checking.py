"""Check a wheel: its required libraries, exported symbols and files."""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path

from .building import KERBEROS
from .shell import Failed, only, run, tool

# The extension may need the system's Kerberos, and the C library with its parts.
_C_LIBRARY = re.compile(r"(libc|libpthread|ld-linux.*|libc\.musl-.*)\.so(\.\d+)?")


def require(holds: bool, what: str) -> None:
    """Raise Failed unless a condition holds."""
    if not holds:
        raise Failed(what)


def needed(dynamic_section: str) -> list[str]:
    """Return the libraries that `readelf -d` names as needed."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic_section)


def run_paths(dynamic_section: str) -> list[str]:
    """Return the library folders that `readelf -d` shows."""
    return re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", dynamic_section)


def check_names(names: list[str], abi3: bool) -> None:
    """Check the files of a wheel: no library, and all licences."""
    shared = [name for name in names if ".so" in name]
    require(len(shared) == 1, f"the wheel must have one extension and no library, not {shared}")
    require(not abi3 or shared[0] == "_remctl.abi3.so", f"{shared[0]} is not for every Python")
    for licence in ("LICENSE", "LICENSE.libremctl"):
        require(
            any(name.endswith(f".dist-info/licenses/{licence}") for name in names),
            f"{licence} is not in the wheel",
        )
    sbom = any(name.endswith(".dist-info/sboms/libremctl.cdx.json") for name in names)
    require(sbom, "the SBOM of what is linked in is not in the wheel")


def check_extension(extension: Path) -> list[str]:
    """Check the libraries and exports of a shared object, and return the libraries."""
    section = run("readelf", "--wide", "--dynamic", extension)
    libraries = needed(section)
    require(not run_paths(section), f"it has a RUNPATH: {run_paths(section)}")
    require(set(KERBEROS) <= set(libraries), f"it does not use the system's Kerberos: {libraries}")
    other = [name for name in libraries if name not in KERBEROS and not _C_LIBRARY.fullmatch(name)]
    require(not other, f"it needs libraries that some systems lack: {other}")
    symbols = run("nm", "--dynamic", "--defined-only", extension).splitlines()
    exported = [line.split()[-1] for line in symbols]
    require(exported == ["PyInit__remctl"], f"it exports more than its init function: {exported}")
    return libraries


def glibc_versions(symbols: str) -> set[tuple[int, int]]:
    """Return the glibc versions that the undefined symbols of `nm -D` need."""
    return {(int(m[1]), int(m[2])) for m in re.finditer(r"@GLIBC_(\d+)\.(\d+)", symbols)}


def check_glibc(extension: Path, promised: tuple[int, int]) -> str:
    """Check that the extension needs no newer glibc than the tag promises; return a message."""
    symbols = run("nm", "--dynamic", "--undefined-only", "--with-symbol-versions", extension)
    youngest = max(glibc_versions(symbols))
    text = f"needs glibc {youngest[0]}.{youngest[1]}"
    require(youngest <= promised, f"it {text}, and its tag says otherwise")
    return text


def check(wheel: Path) -> list[str]:
    """Check a wheel, and return facts about it.

    Raises:
        Failed: a check failed.
    """
    abi3 = "-abi3-" in wheel.name
    facts = []
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        check_names(archive.namelist(), abi3)
        archive.extractall(folder)
        extension = only(list(Path(folder).glob("_remctl*.so")), "extension")
        facts.append(f"needs {' '.join(check_extension(extension))}")
        if tag := re.search(r"-manylinux_(\d+)_(\d+)_", wheel.name):
            facts.append(check_glibc(extension, (int(tag[1]), int(tag[2]))))
    facts.append("no RUNPATH, exports only PyInit__remctl, no library inside, both licences")
    if abi3:
        report = run(tool("abi3audit"), "--strict", "--verbose", wheel)
        facts.append(f"abi3audit: {' '.join(report.split('whl:')[-1].split())}")
    if "linux" in wheel.name:
        shown = " ".join(run(tool("auditwheel"), "show", wheel).split())
        own = re.search(r'platform tag: "(\S+?)"', shown)
        require(own is not None, f"auditwheel show: {shown}")
        facts.append(f"auditwheel show: {own[1] if own else ''}, as it counts in Kerberos")
    return facts
