"""Start a command in a session of its own, and end it with its family.

The family is the command, its descendants, and all processes of its session.  A process that has
left both, as daemons do, is not included.  This text is sent after far_execute.py.
"""

import _signal
import os
import time

GRACE = 2.0  # seconds between SIGTERM and SIGKILL
STEP = 0.02  # poll interval for processes that are ending


def leave_session():
    """Leave remctld's session and group: a signal to the group would end remctld."""
    try:
        os.setsid()
    except PermissionError:
        pass  # This process already leads one, as after sudo.


def spawn(spec, streams=(0, 1, 2)):
    """Start a command as the leader of a session of its own; return its process id.

    Without an "argv", return 0 in the child.
    """
    ignored = IGNORED if spec["argv"] else ()  # noqa: F821
    for number in ignored:  # This precedes the fork so that an early signal is not lost.
        _signal.signal(number, _signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        if spec["argv"]:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
            execute(spec)  # noqa: F821
        return 0
    for number in ignored:
        _signal.signal(number, _signal.SIG_IGN)
    return pid


def processes():
    """Return the parent, session and start time of each process that is not a zombie."""
    found = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        names = []
    for name in names:
        try:
            fd = os.open("/proc/" + name + "/stat", os.O_RDONLY)  # faster than open()
            text = os.read(fd, 4096)
            os.close(fd)
        except OSError:
            continue  # It has ended.
        fields = text.rpartition(b")")[2].split(None, 20)  # The name may contain anything.
        if fields[0] not in b"ZX":
            found[int(name)] = (int(fields[1]), int(fields[3]), fields[19])
    if not found:  # This is not Linux.
        with os.popen("ps -A -o pid= -o ppid= -o pgid= -o stat=") as lines:
            for line in lines:
                pid, parent, group, state = line.split()
                if not state.startswith("Z"):
                    found[int(pid)] = (int(parent), int(group), b"")
    return found


def family(first, known=()):
    """Return a command's family with start times, parents before children.

    `known` is an earlier result: some of its processes may have lost their parent since.
    """
    present = processes()
    children = {}  # type: dict[int | None, list[int]]
    for pid, (parent, session, _) in present.items():
        children.setdefault(parent, []).append(pid)
        if session == first != pid:
            children.setdefault(None, []).append(pid)
    roots = [
        pid for pid, start in dict(known).items() if pid in present and start == present[pid][2]
    ]
    found = (roots if known else [first]) + children.get(None, [])
    for pid in found:
        found += [child for child in children.get(pid, ()) if child not in found]
    return {pid: present[pid][2] for pid in found if pid in present}


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # It has ended, or runs as another user, for example through sudo.


def kill(first, known=()):
    """Kill a command's family."""
    stopped = {}
    while True:  # Stopped processes cannot start others.
        new = {pid: start for pid, start in family(first, known).items() if pid not in stopped}
        if not new:
            break
        send(new, _signal.SIGSTOP)
        stopped.update(new)
    send(stopped, _signal.SIGKILL)


def signal_family(first, number):
    if number == _signal.SIGKILL:
        kill(first)
    else:
        send(family(first), number)


def end(first, grace=GRACE, reap=None):
    """Terminate a command's family; kill the rest after `grace` seconds.

    `reap` is called regularly, to wait for the command if it is a child.
    """
    known = family(first)
    for number in (_signal.SIGTERM, _signal.SIGCONT):
        send(known, number)
    for seconds in (grace, GRACE):
        deadline, step = time.monotonic() + seconds, STEP / 32
        while known and time.monotonic() < deadline:
            time.sleep(step)
            step = min(2 * step, STEP)
            if reap is not None:
                reap()
            known = family(first, known)
        if not known:
            break
        kill(first, known)
    if reap is not None:
        reap()


class Child:
    """A child process.  When `status`, its wait status, is set, its id may be reused."""

    def __init__(self, pid):
        self.pid = pid
        self.status = None

    def reap(self):
        """Return True once, when it has ended."""
        if self.status is not None:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = status
        return pid != 0


def limited(spec):
    """Run a command with a time limit, and exit with its status, or with 124."""
    leave_session()
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
    deadline = time.monotonic() + spec["timeout"]
    child = Child(spawn(spec))
    while not child.reap():
        left = deadline - time.monotonic()
        if left <= 0:
            end(child.pid, reap=child.reap)
            os._exit(124)
        _signal.sigtimedwait([_signal.SIGCHLD], left)
    status = child.status or 0
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 255)
