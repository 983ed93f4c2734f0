"""The fuzzer's command line: python -m stress.fuzz, or ./run fuzz.

Exit status: 0 if nothing was found; 1 if an input crashed, hung or broke a rule; 2 if the command
line is wrong; 69 if the fuzzer cannot be built here; 130 if interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ..report import check_outputs, markdown_table, put_between_markers
from ..report import environment as machine
from . import corpus
from .build import BuildError, build, environment

ROOT = Path(__file__).resolve().parent.parent.parent

_LONGEST = 400  # octets of an input
_HANG = 20  # seconds


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run fuzz",
        description="Plays a hostile peer against the extension, guided by coverage.",
    )
    parser.add_argument(
        "--seconds", type=int, default=60, metavar="N", help="duration (default: 60)"
    )
    parser.add_argument("--libremctl", type=Path, metavar="FOLDER", help="its source")
    parser.add_argument(
        "--keep", action="store_true", help="write the minimised corpus to the source tree"
    )
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the figures in that page")
    options = parser.parse_args(arguments)
    if options.seconds < 1:  # For libFuzzer, 0 means for ever.
        parser.error(f"--seconds {options.seconds}: must be 1 or more")
    check_outputs(parser, "fuzz", [options.docs])
    return options


class Fuzzer:
    """The program, and its folders."""

    def __init__(self, folder: Path, libremctl: Path | None) -> None:
        self._program = build(folder, libremctl)
        self._folder = folder
        self._env = environment(sys.base_prefix)

    def folder(self, name: str) -> Path:
        """Make a folder."""
        path = self._folder / name
        path.mkdir()
        return path

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        """Run it, and return its exit status and output."""
        common = [f"-max_len={_LONGEST}", f"-timeout={_HANG}", "-rss_limit_mb=4096"]
        command = [self._program, *common, *arguments]
        done = subprocess.run(
            command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return done.returncode, done.stdout.decode(errors="replace")


def _statistics(printed: str) -> dict[str, str]:
    """Return the figures that libFuzzer prints."""
    found = {}
    progress = re.findall(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", printed, re.MULTILINE)
    if progress:
        found["edges covered"], found["features"], found["inputs kept meanwhile"] = progress[-1]
    for name, label in (
        ("number_of_executed_units", "executions"),
        ("average_exec_per_sec", "executions a second"),
        ("slowest_unit_time_sec", "slowest input, seconds"),
        ("peak_rss_mb", "memory at most, MiB"),
    ):
        value = re.search(rf"^stat::{name}:\s+(\d+)", printed, re.MULTILINE)
        if value:
            found[label] = f"{int(value[1]):,}"
    return found


def _minimised(fuzzer: Fuzzer, seen: Path) -> list[bytes]:
    """Return a minimal set of inputs with the coverage of all seen ones."""
    least = fuzzer.folder("least")
    status, printed = fuzzer.run("-merge=1", least, seen)
    if status:
        raise BuildError(f"merging failed:\n{printed[-2000:]}")
    return [file.read_bytes() for file in least.iterdir()]


def _crashed(printed: str, where: Path) -> None:
    """Print a crash, and the path of its input."""
    print(printed[-6000:])
    folder = Path(tempfile.mkdtemp(prefix="remctl-fuzz-"))
    for file in sorted(where.iterdir()):
        kept = folder / file.name
        kept.write_bytes(file.read_bytes())
        print(f"the input: {kept}\nto see it again: python -m stress.fuzz.replay {kept}")


def fuzz(options: argparse.Namespace, folder: Path) -> int:
    """Build, run and report, and return the exit status."""
    print("building", file=sys.stderr, flush=True)
    fuzzer = Fuzzer(folder, options.libremctl and options.libremctl.resolve())
    seen, artifacts = fuzzer.folder("seen"), fuzzer.folder("artifacts")
    before = {*corpus.read(), *corpus.seeds()}
    corpus.unpack(before, seen)
    print(f"fuzzing for {options.seconds} seconds", file=sys.stderr, flush=True)
    status, printed = fuzzer.run(
        f"-max_total_time={options.seconds}",
        f"-artifact_prefix={artifacts}{os.sep}",
        "-print_final_stats=1",
        seen,
    )
    if status:
        _crashed(printed, artifacts)
        return 1
    least = _minimised(fuzzer, seen)
    figures = _statistics(printed)
    figures["inputs in the corpus, minimised"] = str(len(least))
    figures["of these, new"] = str(len(set(least) - before))
    for label, value in figures.items():
        print(f"{label:34}{value:>12}")
    if options.keep:
        corpus.write(least)
    if options.docs:
        measured = {"seconds": str(options.seconds), **figures, **machine()}
        table = markdown_table(["what", "figure"], [list(row) for row in measured.items()])
        put_between_markers(options.docs, "fuzz", table)
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line, and return the exit status."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fuzz(options, Path(folder))
        except BuildError as error:
            print(error, file=sys.stderr)
            return os.EX_UNAVAILABLE


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
