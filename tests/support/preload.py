"""Replace functions of the C library in the child processes of a test.

    with preloaded("resolver", tmp_path, FAKE_HOSTS="two.test=127.0.0.2,127.0.0.1"):
        in_child(...)

A library of the folder preloaded/ is compiled and named in LD_PRELOAD, so that it holds for Python
and C code alike, needs no privileges, and changes nothing for other processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

SOURCES = Path(__file__).parent / "preloaded"


@contextlib.contextmanager
def preloaded(name: str, folder: Path, **variables: str) -> Iterator[None]:
    """Compile a library into a folder, and preload it into programs started in the block.

    `variables` are set in the environment besides.
    """
    library = folder / f"{name}.so"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library)]
    subprocess.run([*command, str(SOURCES / f"{name}.c"), "-ldl"], check=True)
    libraries = [os.environ.get("LD_PRELOAD", ""), str(library)]
    variables["LD_PRELOAD"] = ":".join(filter(None, libraries))
    with mock.patch.dict(os.environ, variables):
        yield
