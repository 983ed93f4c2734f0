"""Start daemons that never outlive the process that started them, however it ends.

A process killed with SIGKILL cannot clean up, so a second process does: the keeper, a small shell
script in its own session that reads from a pipe. Only its owner holds the other end. When the owner
ends, the keeper reads the end of file, kills all registered process groups, and removes its
directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import RealmError
from .programs import tool_environ
from .waiting import wait_until

__all__ = ["Daemon", "Keeper"]

_END_TIMEOUT = 30.0  # seconds for killed processes to end and for the directory to be removed

# The directory's path goes into krb5.conf, kdc.conf, remctl.conf, KRB5_CONFIG and the names of
# credential caches and keytabs. These cannot quote white space, colons, percent signs and other
# special characters, and some have buffers of a fixed size.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_/.+-]{1,200}")
_PLAIN_FOLDER = "/tmp"  # parent of the directory if TMPDIR is not plain

# POSIX sh only. It reads lines "add GROUP", "del GROUP" and "end". The script creates the directory
# because nobody would remove it if the owner created it and was killed right afterwards.
_KEEPER_SCRIPT = """
trap '' HUP INT PIPE QUIT TERM
umask 077
mkdir "$1" 2>&1 || exit 1
echo ready
exec >/dev/null 2>&1
groups=
while read -r verb id && [ "$verb" != end ]; do
    case $verb in
    add) case $groups in *" $id "*) ;; *) groups="$groups $id " ;; esac ;;
    del) case $groups in *" $id "*) groups="${groups%% $id *}${groups#* $id }" ;; esac ;;
    esac
done
for id in $groups; do kill -s KILL -- "-$id"; done
tries=0
until rm -rf "$1" || [ "$tries" -ge 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"""

# Runs between fork and exec of every daemon, with the pipe to the keeper as its stderr. So the
# keeper knows the daemon before it runs, even if the owner is killed at that moment.
_REGISTER_SCRIPT = 'echo "add $$" >&2 && exec "$@" 2>&1'

_live: weakref.WeakSet[Keeper] = weakref.WeakSet()


class Daemon:
    """A process started by a keeper, together with its process group."""

    def __init__(self, keeper: Keeper, process: subprocess.Popen[bytes]) -> None:
        self._keeper = keeper
        self._process = process
        self._frozen = False

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group and session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Report whether the process itself still runs; its children may outlive it."""
        if self._keeper.inherited:  # only a parent can ask for an exit status
            return _exists(self.pid)
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal number; None while it runs."""
        return self._process.poll()

    def await_ready(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``ready()`` is true.

        Args:
            ready: called every few milliseconds.
            timeout: seconds to wait at most.

        Returns:
            True when ready; False if the daemon ended or the timeout passed first.
        """
        wait_until(lambda: ready() or not self.running, timeout)
        return ready()

    def freeze(self) -> None:
        """Stop the process group with SIGSTOP, and wait until the daemon has stopped.

        Raises:
            RealmError: the daemon is not running.
        """
        if not self.running:
            raise RealmError(f"process {self.pid} has ended: start it before freezing it")
        if self._frozen:
            return
        self._signal(signal.SIGSTOP)
        if not self._await_standstill():
            raise RealmError(f"process {self.pid} ended before it could be frozen")
        self._frozen = True

    def _await_standstill(self) -> bool:
        """Wait until the process has stopped; return False if it ended instead."""
        if sys.platform == "darwin":
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):  # it is reaped now
                self._process.returncode = os.waitstatus_to_exitcode(status)
            return os.WIFSTOPPED(status)
        # gevent's waitpid() waits only for the end of a process.
        seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return seen is not None and seen.si_code == os.CLD_STOPPED

    def thaw(self) -> None:
        """Resume a frozen process group; does nothing if it is not frozen."""
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def end(self) -> None:
        """Kill the process group and wait until it has ended; does nothing if it has.

        It uses SIGKILL, because remctld's sessions ignore SIGTERM, and frozen processes handle no
        other signal. In a forked child this does nothing: the daemon belongs to the parent.
        """
        if not self._keeper.owned:
            return
        self._signal(signal.SIGKILL)
        # Deregister it before it is reaped: afterwards another process may get its number.
        self._keeper.forget(self.pid)
        self._process.wait(_END_TIMEOUT)
        wait_until(lambda: _group_has_ended(self.pid), _END_TIMEOUT)

    def hang_up(self) -> None:
        """Send SIGHUP to the daemon itself, but not to its children."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, if it still exists."""
        # For a group of zombies, macOS reports EPERM instead of ESRCH.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Keeper:
    """A private directory and any number of daemons, all removed when this process ends.

    A forked child does not own them: its exit, and close() in it, change nothing.
    """

    def __init__(self) -> None:
        """Start the keeper process, which creates the directory (mode 0700).

        The directory is in TMPDIR. It is in /tmp if the path of TMPDIR is very long, or has
        characters that the configuration files of Kerberos and remctld cannot express.

        Raises:
            RealmError: the directory cannot be created.
        """
        self._owner = os.getpid()
        self._wanted = os.path.abspath(tempfile.gettempdir())
        parent = self._wanted if _PLAIN_PATH.fullmatch(self._wanted) else _PLAIN_FOLDER
        self.folder = Path(parent, f"remctl-realm-{secrets.token_hex(12)}")
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER_SCRIPT, "remctl-keeper", os.fspath(self.folder)],
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=tool_environ(),
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
        _live.add(self)
        self._await_folder()

    def _await_folder(self) -> None:
        """Read the keeper's only line of output: "ready" or an error."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            answer = output.readline().decode(errors="replace").strip()
        if answer != "ready":
            self.close()
            text = f"cannot create the realm's directory {self.folder}: {answer}"
            if self.folder.parent != Path(self._wanted):
                text += (
                    f"\nTMPDIR was not used because Kerberos cannot use the path {self._wanted!r}:"
                    " set TMPDIR to a short path of letters, digits and _ . + -"
                )
            raise RealmError(text)

    @property
    def inherited(self) -> bool:
        """Report whether this process is a forked child of the owner."""
        return os.getpid() != self._owner

    @property
    def owned(self) -> bool:
        """Report whether this process created the keeper and has not closed it."""
        return self._pipe >= 0  # a forked child closes its copy at once

    def launch(
        self,
        args: Sequence[str],
        *,
        output: IO[bytes],
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        umask: int = -1,
    ) -> Daemon:
        """Start a daemon in its own session, registered with the keeper before it runs.

        Args:
            args: full path of the program, and its arguments.
            output: open file for its stdout and stderr.
            env: its complete environment.
            stdin: descriptor for its standard input.
            umask: its umask; -1 means that of this process.

        Raises:
            RealmError: this keeper is closed, was killed, or belongs to another process.
        """
        if self.inherited:
            raise RealmError(f"the realm belongs to process {self._owner}: start one in this one")
        if not self.owned:
            raise RealmError("the realm is stopped: start it again")
        if self._process.poll() is not None:
            raise RealmError(f"keeper process {self._process.pid} was killed: restart the realm")
        process = subprocess.Popen(
            ["/bin/sh", "-c", _REGISTER_SCRIPT, "sh", *args],
            stdin=stdin,
            stdout=output,
            stderr=self._pipe,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            umask=umask,
        )
        # Register it again, so that the keeper reads this before any later line from here.
        self._tell(f"add {process.pid}")
        return Daemon(self, process)

    def forget(self, group: int) -> None:
        """Deregister a process group that has been killed."""
        self._tell(f"del {group}")

    def close(self) -> None:
        """Kill all remaining daemons, remove the directory, and wait until the keeper has ended.

        Closing twice is harmless. In a forked child this does nothing.
        """
        if self.owned:
            self._tell("end")  # closing is not enough if a forked child has the pipe
            os.close(self._pipe)
            self._pipe = -1
            self._process.wait(_END_TIMEOUT)

    def drop_after_fork(self) -> None:
        """Close the pipe in a forked child, so that the realm ends when the parent does."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _tell(self, line: str) -> None:
        """Send the keeper a line; ignore a keeper that was killed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, f"{line}\n".encode())


def _exists(pid: int) -> bool:
    """Return whether a process of that number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _group_has_ended(group: int) -> bool:
    """Return whether a killed process group has no running processes; zombies do not count.

    Process 1 reaps its orphans, or this process if it is a subreaper.
    """
    ended = not _group_exists(group) or (
        sys.platform == "linux" and _group_states(group) <= {"Z", "X"}
    )
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    return ended


def _group_exists(group: int) -> bool:
    """Return whether a group has a process; zombies count, except on macOS."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _group_states(group: int) -> set[str]:
    """Return the states of the processes of a group, each a letter as in /proc/PID/stat."""
    states = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            state, _, its_group, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(its_group) == group:
                states.add(state)
    return states


def _drop_inherited() -> None:
    for keeper in list(_live):
        keeper.drop_after_fork()


os.register_at_fork(after_in_child=_drop_inherited)
