"""The benchmark's side of the protocol of peers/worker.py: a contestant in its own process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from remctl_toolkit.testing.waiting import wait_until

from .figures import Sample

__all__ = ["Worker", "WorkerError"]

_TIMEOUT = 300.0  # seconds that one answer may take
_END_TIMEOUT = 10.0  # seconds to end in


class WorkerError(Exception):
    """A contestant failed, ended, or did not answer in time."""


class Worker:
    """A contestant, waiting for orders."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Start a program, with its complete environment and working directory."""
        self._name = " ".join(Path(arg).name for arg in args)
        self._process = subprocess.Popen(
            args,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=cwd,
            bufsize=0,
            start_new_session=True,  # what it starts ends with it
        )

    def prepare(self) -> None:
        """Connect and warm up.

        Raises:
            WorkerError: that failed.
        """
        self.ask("prepare")

    def go(self, count: int) -> Sample:
        """Repeat the action COUNT times.

        Raises:
            WorkerError: it failed, or did not answer in time.
        """
        seconds, cpu = self.ask(f"go {count}").split()
        return Sample(float(seconds), float(cpu))

    def ask(self, line: str) -> str:
        """Send an order, and return the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its answer says why
            self._process.stdin.write(f"{line}\n".encode())
        answer = self._read_line(line)
        if answer.startswith("failed "):
            raise WorkerError(f"{self._name}: {line}: {answer.removeprefix('failed ')}")
        return answer

    def _read_line(self, order: str) -> str:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + _TIMEOUT
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise WorkerError(f"{self._name}: {order}: no answer in {_TIMEOUT:.0f} seconds")
            octets = os.read(fd, 4096)
            if not octets:
                raise WorkerError(f"{self._name}: {order}: it ended")
            line += octets
        return line.decode(errors="replace").strip()

    def memory(self) -> int:
        """Return its current memory in bytes."""
        return self._status("VmRSS") * 1024

    def peak(self) -> int:
        """Return its maximum memory in bytes since forget_peak()."""
        return self._status("VmHWM") * 1024

    def threads(self) -> int:
        """Return its number of threads, including those of libraries."""
        return self._status("Threads")

    def forget_peak(self) -> None:
        """Reset peak(), proc(5): clear_refs."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise WorkerError(f"{self._name}: it has no {field}")

    def end(self) -> None:
        """Make it quit, and kill its remaining processes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"quit\n")
        self._process.stdin.close()
        wait_until(self._ended, _END_TIMEOUT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def _ended(self) -> bool:
        # It is not reaped yet, so its process group id is not reused.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is not None
