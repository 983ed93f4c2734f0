"""Play inputs with the installed extension: python -m stress.fuzz.replay [FILE...].

It plays the corpus, or the file that a crash left.  It needs only a C compiler: it builds the fake
GSS-API as a library, and starts itself again with this preloaded.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

_LIMIT = 30  # seconds that one input may take
_LIBRARY = "STRESS_FUZZ_LIBRARY"


def build(folder: Path) -> Path:
    """Compile the fake GSS-API."""
    library = folder / "fakegss.so"
    compiler = os.environ.get("CC", "gcc")
    flags = ["-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *flags, "-o", library, HERE / "fakegss.c"], check=True)
    return library


def environment(library: Path) -> dict[str, str]:
    """Return the environment of a Python with this library preloaded."""
    preloaded = filter(None, [os.environ.get("LD_PRELOAD"), str(library)])
    return {
        **os.environ,
        _LIBRARY: str(library),
        "LD_PRELOAD": " ".join(preloaded),
        "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)])),
    }


def replay(files: list[Path]) -> int:
    """Play files, or the whole corpus, in another process; return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        env = environment(build(Path(folder)))
        command = [sys.executable, "-m", "stress.fuzz.replay", *map(str, files)]
        return subprocess.run(command, env=env, check=False).returncode


def play_all(files: list[Path]) -> None:
    """Play files, or the whole corpus."""
    from . import corpus, player

    inputs = [file.read_bytes() for file in files] or [*corpus.seeds(), *corpus.read()]
    for octets in inputs:
        faulthandler.dump_traceback_later(_LIMIT, exit=True)
        try:
            player.play(octets)
        except BaseException:
            print(f"this input: {octets.hex()}", file=sys.stderr)
            raise
    faulthandler.cancel_dump_traceback_later()
    print(f"{len(inputs)} inputs played")


if __name__ == "__main__":
    arguments = [Path(argument).resolve() for argument in sys.argv[1:]]
    if _LIBRARY not in os.environ:
        sys.exit(replay(arguments))
    faulthandler.enable()
    play_all(arguments)
