"""A server for the storms, and a separate process for each of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from remctl_toolkit.testing import Command, Realm, RemctldServer

from .figures import Outcome
from .held import Held
from .storms import Storm

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["StormError", "Weather"]

ROOT = Path(__file__).resolve().parent.parent.parent

COMMANDS = (
    Command("number", program="/bin/echo"),  # The subcommand is the number.
    Command("late", script='sleep "$2"; echo "$1"'),
    Command("cat", script="exec cat", stdin="last"),
)

_SILENCE = 120.0  # seconds without progress after which a storm has failed
_DYING = 10.0  # seconds for printing the stack traces of a hanging storm

Progress = Callable[[int, int], None]


class StormError(Exception):
    """A storm crashed, hung, or printed something on standard error."""


class Weather:
    """A realm and a remctld, `server`; a context manager.

    Args:
        realm: a realm that is up and in this process's environment; None makes one.
    """

    def __init__(self, realm: Realm | None = None) -> None:
        self._realm = realm
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            realm = self._realm or stack.enter_context(Realm())
            self._env = {**os.environ, **realm.env}
            self.server = stack.enter_context(RemctldServer(realm, COMMANDS))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def blow(self, storm: Storm, progress: Progress, *, quick: bool = False) -> Outcome:
        """Run a storm in a separate process, and return its outcome.

        Raises:
            StormError: it failed; the text says why.
        """
        run = storm.run(self.server.port, quick=quick)
        arguments = [storm.name, str(run.port), str(run.steps), str(run.warm_up)]
        with tempfile.TemporaryFile() as printed:
            child = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-W", "always", "-m", _CHILD, *arguments],
                stdout=subprocess.PIPE,
                stderr=printed,
                env=self._env | _CHILD_ENV,
                cwd="/",
            )
            with child:
                try:
                    outcome = _follow(child, progress)
                finally:
                    _end(child)
            _check(storm, child.returncode, printed)
        if outcome is None:
            raise StormError(f"{storm.name} ended without an outcome")
        return outcome


_CHILD = "stress.soak.child"

_CHILD_ENV = {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)]))}
if not sysconfig.get_config_var("Py_GIL_DISABLED"):  # That Python knows no other than its own.
    # With one allocator, the C library can report the memory of everything.
    _CHILD_ENV["PYTHONMALLOC"] = "malloc"


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> Outcome | None:
    """Read a storm's messages until it ends; return None without a final one."""
    assert child.stdout is not None
    outcome = None
    deadline = time.monotonic() + _SILENCE
    rest = b""
    while True:
        left = max(deadline - time.monotonic(), 0)
        if not select.select([child.stdout], [], [], left)[0]:
            child.send_signal(signal.SIGABRT)  # Makes faulthandler print where it hangs.
            return None
        octets = os.read(child.stdout.fileno(), 65536)
        if not octets:
            return outcome
        *lines, rest = (rest + octets).split(b"\n")
        for told in map(json.loads, lines):
            if "progress" in told:
                progress(*told["progress"])
                deadline = time.monotonic() + _SILENCE
            else:
                outcome = _outcome(told["outcome"])


def _outcome(fields: dict[str, Any]) -> Outcome:
    held = {name: Held(*fields[name]) for name in ("before", "after")}
    return Outcome(**{**fields, **held})


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that a storm has ended."""
    try:
        child.wait(_DYING)
    except subprocess.TimeoutExpired:
        child.kill()


def _check(storm: Storm, code: int, printed: IO[bytes]) -> None:
    printed.seek(0)
    text = printed.read().decode(errors="replace").strip()
    if code or text:
        raise StormError(f"{storm.name} ended with {code}:\n{text}")
