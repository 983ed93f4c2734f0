"""The contestant scp(1), over a connection that ssh shares (ControlMaster)."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from .worker import Action, serve

_OPTIONS = ["-F", os.environ["BENCH_SSH_CONFIG"]]
_HOST = "bench-master"


class _Copy(Action):
    """A file of COUNT octets, created on the first call."""

    def prepare(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="remctl-bench-")
        self.source = Path(self.folder.name, "source")
        self.target = Path(self.folder.name, "target")
        subprocess.run(["ssh", *_OPTIONS, _HOST, "true"], check=True)

    def words(self) -> tuple[str, str]:
        """Return source and target."""
        raise NotImplementedError

    def go(self, count: int) -> None:
        if not self.source.exists() or self.source.stat().st_size != count:
            self.source.write_bytes(os.urandom(count))
        subprocess.run(["scp", *_OPTIONS, "-q", *self.words()], check=True)
        if self.target.stat().st_size != count:
            raise RuntimeError("wrong output")

    def quit(self) -> None:
        self.folder.cleanup()
        end = ["ssh", *_OPTIONS, "-q", "-O", "exit", _HOST]
        subprocess.run(end, stderr=subprocess.DEVNULL, check=False)


class _Upload(_Copy):
    def words(self) -> tuple[str, str]:
        return str(self.source), f"{_HOST}:{self.target}"


class _Download(_Copy):
    def words(self) -> tuple[str, str]:
        return f"{_HOST}:{self.source}", str(self.target)


if __name__ == "__main__":
    serve({"upload": _Upload, "download": _Download})
