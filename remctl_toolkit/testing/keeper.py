"""Start daemons so that none outlives the process that wanted them, however that one ends.

A process that is killed with SIGKILL cannot clean up after itself, so a second one does it: the
keeper, a small shell script in a session of its own that reads from a pipe. Its owner alone holds
the other end; when the owner is gone, in whatever way, the keeper reads the end of file, kills the
process groups it was told about, and removes the folder it made.
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

_END_TIMEOUT = 30.0  # seconds for killed processes to be gone, and for the folder to be removed

# What the path of the folder is made of. It stands in krb5.conf, kdc.conf and remctl.conf, in names
# of credential caches and keytabs, and in KRB5_CONFIG, which cannot quote white space, colons,
# percent signs or whatever else means something there; some of them have buffers of a fixed size.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_/.+-]{1,200}")
_PLAIN_FOLDER = "/tmp"  # where the folder is made when TMPDIR is not plain

# Only what POSIX sh has. Lines read: "add GROUP", "del GROUP" and "end". The folder is made here,
# not by the owner, so that there is no moment at which it exists and nobody would remove it.
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

# Runs between fork and exec of every daemon, with the pipe to the keeper as its stderr: the daemon
# is in the keeper's books before it exists, so that there is no moment to be killed in between.
_REGISTER_SCRIPT = 'echo "add $$" >&2 && exec "$@" 2>&1'

_live: weakref.WeakSet[Keeper] = weakref.WeakSet()


class Daemon:
    """A process started by a keeper, with its process group: whatever it started itself."""

    def __init__(self, keeper: Keeper, process: subprocess.Popen[bytes]) -> None:
        self._keeper = keeper
        self._process = process
        self._frozen = False

    @property
    def pid(self) -> int:
        """The process id, which is the id of its process group and session too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process itself still exists (its children may when it does not)."""
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
            ready: called again and again, every few milliseconds.
            timeout: seconds to wait at most.

        Returns:
            True when ready; False when the daemon ended or the time was over first.
        """
        wait_until(lambda: ready() or not self.running, timeout)
        return ready()

    def freeze(self) -> None:
        """Stop the process group with SIGSTOP; on return the daemon does stand still.

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
        """Wait until the process stands still; False when it ended before the signal came."""
        if sys.platform == "darwin":
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):  # it is reaped now
                self._process.returncode = os.waitstatus_to_exitcode(status)
            return os.WIFSTOPPED(status)
        # gevent replaces waitpid() by one that waits for the end of a process only.
        seen = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return seen is not None and seen.si_code == os.CLD_STOPPED

    def thaw(self) -> None:
        """Let a frozen process group go on; does nothing when it is not frozen."""
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def end(self) -> None:
        """Kill the process group with SIGKILL; on return none of it runs. Harmless when it is dead.

        SIGKILL, because remctld's sessions ignore SIGTERM and a frozen process gets nothing else.
        In a forked child this does nothing: the daemon is its parent's.
        """
        if not self._keeper.owned:
            return
        self._signal(signal.SIGKILL)
        # Forgotten before it is reaped: from then on its number may be somebody else's.
        self._keeper.forget(self.pid)
        self._process.wait(_END_TIMEOUT)
        wait_until(lambda: _group_has_ended(self.pid), _END_TIMEOUT)

    def hang_up(self) -> None:
        """Send SIGHUP to the daemon itself, and to nothing that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, if there is any of it left to signal."""
        # macOS says EPERM, not ESRCH, about a group that has only zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Keeper:
    """A private folder and any number of daemons, all gone when this process is.

    After a fork the child has no part in it: its exit, and close() there, change nothing.
    """

    def __init__(self) -> None:
        """Start the keeper process and have it make the folder (mode 0700).

        The folder is below TMPDIR, or below /tmp if the path of TMPDIR has characters in it that
        cannot be written in Kerberos' and remctld's configuration files, or is very long.

        Raises:
            RealmError: the folder cannot be made.
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
        """Read the keeper's only line of output: "ready", or why not."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            answer = output.readline().decode(errors="replace").strip()
        if answer != "ready":
            self.close()
            text = f"cannot make the realm's folder {self.folder}: {answer}"
            if self.folder.parent != Path(self._wanted):
                text += (
                    f"\nit would be in {self._wanted!r}, but Kerberos cannot use that path: set"
                    " TMPDIR to a short one of letters, digits and _ . + -"
                )
            raise RealmError(text)

    @property
    def inherited(self) -> bool:
        """Whether this process has the keeper from its parent, by a fork."""
        return os.getpid() != self._owner

    @property
    def owned(self) -> bool:
        """Whether this is the process that made the keeper, and it is not closed."""
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
        """Start a daemon in a session of its own, registered with the keeper before it runs.

        Args:
            args: full path of the program, and its arguments.
            output: open file that gets its stdout and stderr.
            env: its whole environment.
            stdin: descriptor to give it as standard input.
            umask: its umask; -1 means that of this process.

        Raises:
            RealmError: this keeper is closed, was killed, or belongs to another process.
        """
        if self.inherited:
            raise RealmError(f"the realm belongs to process {self._owner}: start it in this one")
        if not self.owned:
            raise RealmError("the realm is stopped: start it again")
        if self._process.poll() is not None:
            raise RealmError(f"the realm's process {self._process.pid} was killed: start anew")
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
        # A second time: what is said to the keeper from here on comes after this.
        self._tell(f"add {process.pid}")
        return Daemon(self, process)

    def forget(self, group: int) -> None:
        """Tell the keeper that a process group is dead already."""
        self._tell(f"del {group}")

    def close(self) -> None:
        """Kill what is left, remove the folder, end the keeper; on return all that is done.

        Closing twice is harmless. In a forked child this does nothing.
        """
        if self.owned:
            self._tell("end")  # closing is not enough if C code forked, and holds the pipe too
            os.close(self._pipe)
            self._pipe = -1
            self._process.wait(_END_TIMEOUT)

    def drop_after_fork(self) -> None:
        """Close the pipe in a forked child, so that the parent's death ends the realm at once."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _tell(self, line: str) -> None:
        """Send the keeper a line; a keeper that somebody killed is not missed here."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, f"{line}\n".encode())


def _exists(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _group_has_ended(group: int) -> bool:
    """Whether nothing of a killed process group runs any more, not counting zombies.

    Its orphans are left to process 1 to be reaped, and to this process if it takes that part.
    """
    ended = not _group_exists(group) or (
        sys.platform == "linux" and _group_states(group) <= {"Z", "X"}
    )
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    return ended


def _group_exists(group: int) -> bool:
    """Whether there is a process in a group; a zombie is one, but not on macOS."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _group_states(group: int) -> set[str]:
    """Return the states of the processes of a group, each a letter as in /proc/PID/stat."""
    states = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its_group, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(its_group) == group:
                states.add(state)
    return states


def _drop_inherited() -> None:
    for keeper in list(_live):
        keeper.drop_after_fork()


os.register_at_fork(after_in_child=_drop_inherited)
