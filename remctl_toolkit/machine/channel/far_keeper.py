"""Keeps a command for a channel: starts it, and stands between it and the client until its end.

Downwards, on our standard output, go frames: a letter, the length in four octets, and the data.
  H  hello: folder, pid of the command, our own pid    O, E  standard output, error
  F  the command cannot be started: why                o, e  its end
  X  the exit status; -N for signal N                  B     a beat: nothing else was to be said
  D  its folder cannot be entered: why                 C     this text compiled, for the next time
Upwards come commands of other sessions, which write to two FIFOs in a folder of our own: `data`
is the command's standard input, `control` takes lines:
  b  a beat    e  the end of standard input    k N  signal N for the command    q  end it all
  c O, c E  nobody reads that stream any more
It comes after execute.py, and has the command's environment and its start from there.
"""

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import fcntl
import os
import select
import sys
import time

PIECE = 65536  # what a pipe holds, and what a frame of output holds at most
SETTLING = 0.5  # seconds in which a feed that nobody reads has to end
STEP = 0.02  # seconds between two looks at a group of processes that is to end


def header(kind, data=b""):
    return kind + len(data).to_bytes(4, "big")


def end_with(kind, data):
    os.set_blocking(1, True)
    os.write(1, header(kind, data) + data)
    os._exit(0)


# -- The folder -----------------------------------------------------------------------------------


def make_folder():
    bases = [os.environb.get(b"TMPDIR", b""), b"/tmp", b"/var/tmp", b"/dev/shm"]
    for base in bases:
        if not base.startswith(b"/") or b"\n" in base:
            continue
        folder = base + b"/.remctl-" + os.urandom(16).hex().encode()
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            reason = error.strerror
            continue
        os.mkfifo(folder + b"/data", 0o600)
        os.mkfifo(folder + b"/control", 0o600)
        return folder
    end_with(b"F", ("cannot make a folder in /tmp: " + reason).encode())


def remove_folder(folder):
    gone = folder + b".gone"  # Whoever opens the old path from now on cannot make a file there.
    try:
        os.rename(folder, gone)
        for name in (b"/data", b"/control"):
            os.unlink(gone + name)
        os.rmdir(gone)
    except FileNotFoundError:
        pass  # Somebody else did it.


def settle(folder):
    # A process that left the group may hold the data FIFO open, and not read it.
    try:
        fd = os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    end = time.monotonic() + SETTLING
    while time.monotonic() < end:
        try:
            if not os.read(fd, PIECE):
                return
        except BlockingIOError:
            time.sleep(STEP)


# -- The command ----------------------------------------------------------------------------------


def enlarge(fd, size):
    try:
        fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ, which fcntl knows by name since Python 3.10.
    except OSError:
        pass  # The user has many large pipes already.


class Command:
    """The command's process, as we see it."""

    def __init__(self, spec, folder):
        self.status = None
        self.data = None
        ours, theirs = [], []
        self.streams = {}
        for kind in (b"O",) if spec["merge"] else (b"O", b"E"):
            if kind in spec["nulls"]:
                theirs.append(os.open("/dev/null", os.O_WRONLY))
                continue
            reader, writer = os.pipe()
            enlarge(reader, spec["pipe"])
            self.streams[reader] = kind
            ours.append(reader)
            theirs.append(writer)
        if spec["stdin"]:
            stdin = os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK)
            self.data = os.open(folder + b"/data", os.O_WRONLY)
            enlarge(self.data, spec["pipe"])
            os.set_blocking(stdin, True)
            ours.append(self.data)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        ignored = (_signal.SIGPIPE, _signal.SIGXFSZ) if spec["argv"] is not None else ()
        for number in ignored:  # By Python; a signal at once must not be lost.
            _signal.signal(number, _signal.SIG_DFL)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number, fd in enumerate((stdin, theirs[0], theirs[-1])):
                os.dup2(fd, number)
            if spec["argv"] is not None:
                become_program(spec["argv"], environment(spec))  # noqa: F821
            for fd in (stdin, *ours, *theirs):
                os.close(fd)
            return
        for number in ignored:
            _signal.signal(number, _signal.SIG_IGN)
        for fd in (stdin, *theirs):
            os.close(fd)

    def signal(self, number):
        if self.status is not None:
            return  # Its number may be another's by now.
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)  # It has not made its group yet.
        except OSError:
            pass  # All of the group run as another user, or there is no such signal here.

    def reap(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG) if self.status is None else (0, 0)
        if pid:
            killed = os.WIFSIGNALED(status)
            self.status = -os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
        return pid != 0

    def end_input(self):
        if self.data is not None:
            os.close(self.data)
            self.data = None


def lives(group):
    """Whether a group has a process that is more than a zombie, which may stay one for long."""
    os.killpg(group, 0)
    try:
        names = list(filter(str.isdigit, os.listdir("/proc")))
    except OSError:
        return True  # Only Linux tells.
    for name in names:
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                state, _, found = file.read().rpartition(b")")[2].split()[:3]
        except OSError:
            continue  # It has just gone.
        if int(found) == group and state not in b"ZX":
            return True
    return False


def end_group(pid, grace, reap=None):
    """Ask what is left of a command's group of processes to end, and end it."""
    end = time.monotonic() + grace
    try:
        os.killpg(pid, _signal.SIGTERM)
        os.killpg(pid, _signal.SIGCONT)
        while lives(pid) and time.monotonic() < end:
            time.sleep(STEP)
            if reap is not None:
                reap()
        os.killpg(pid, _signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def watch(keeper, command, folder, grace):
    """Have a process that does what is to be done at our end, should somebody kill us."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    os.setsid()
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    for fd in (0, 1, 2, writer, *keeper.descriptors()):
        os.close(fd)
    if not os.read(reader, 1):
        end_group(command.pid, grace)
        settle(folder)
        remove_folder(folder)
    os._exit(0)


# -- Keeping it -----------------------------------------------------------------------------------


class Keeper:
    """What we know and wait for while the command runs."""

    def __init__(self, spec, command, folder):
        self.command = command
        self.beat, self.patience, self.grace = spec["beat"], spec["patience"], spec["grace"]
        self.outgoing = []
        self.streams = dict(command.streams)
        self.told = False  # the exit status
        self.ending = self.kill_at = None
        self.lost = False  # the client
        self.control = os.open(folder + b"/control", os.O_RDWR | os.O_NONBLOCK)
        # Keeps others' cleaning from an old folder: tmpfiles.d(5), on flock().
        self.lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        self.woken, self.waker = os.pipe()
        for fd in (self.woken, self.waker, 1):
            os.set_blocking(fd, False)
        self.heard = self.spoke = time.monotonic()
        self.idle, self.full = select.poll(), select.poll()
        for poller in (self.idle, self.full):
            poller.register(self.control, select.POLLIN)
            poller.register(self.woken, select.POLLIN)
        self.idle.register(1, 0)
        self.full.register(1, select.POLLOUT)
        for fd in self.streams:
            self.idle.register(fd, select.POLLIN)

    def descriptors(self):
        """Return those that a process of ours must not have."""
        data = () if self.command.data is None else (self.command.data,)
        return (self.control, self.lock, self.woken, self.waker, *self.streams, *data)

    def take_signals(self):
        """Be woken by the command's end, and take a signal to us as the end of all."""
        _signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
            _signal.signal(number, self.give_up)

    def give_up(self, *_):
        self.lost = True

    # Downwards.

    def send(self, kind, data=b""):
        self.outgoing.append(header(kind, data))
        if data:
            self.outgoing.append(memoryview(data))
        self.flush()

    def flush(self):
        while self.outgoing:
            try:
                written = os.writev(1, self.outgoing)
            except BlockingIOError:
                return
            except OSError:  # remctld has closed it: the client is gone.
                self.lost = True
                return
            self.spoke = time.monotonic()
            while self.outgoing and written >= len(self.outgoing[0]):
                written -= len(self.outgoing.pop(0))
            if written:
                self.outgoing[0] = self.outgoing[0][written:]

    def relay(self, fd):
        """Send what a stream has, and return how much that was; 0 at its end."""
        data = os.read(fd, PIECE)
        kind = self.streams[fd]
        if data:
            self.send(kind, data)
        else:
            self.end_stream(fd)
        return len(data)

    def end_stream(self, fd):
        self.idle.unregister(fd)
        os.close(fd)
        self.send(self.streams.pop(fd).lower())

    def tell_status(self):
        """All that the command itself wrote goes before its status."""
        for fd in list(self.streams):
            os.set_blocking(fd, False)
            left = 2 * PIECE  # What it has started may go on writing.
            try:
                left = max(left, fcntl.fcntl(fd, 1032))  # F_GETPIPE_SZ
                while left > 0 and fd in self.streams:
                    left -= self.relay(fd)
            except BlockingIOError:
                pass
            if fd in self.streams:
                os.set_blocking(fd, True)
        self.told = True
        self.send(b"X", b"%d" % self.command.status)

    # Upwards.

    def obey(self):
        self.heard = time.monotonic()
        for line in os.read(self.control, 4096).splitlines():
            word = line[:1]
            if word == b"e":
                self.command.end_input()
            elif word == b"k":
                self.command.signal(int(line[1:]))
            elif word == b"c":
                for fd in [fd for fd, kind in self.streams.items() if kind == line[2:]]:
                    self.end_stream(fd)
            elif word == b"q" and self.ending is None:
                self.ending = True
                if self.command.status is None:
                    self.command.end_input()
                    self.command.signal(_signal.SIGTERM)
                    self.command.signal(_signal.SIGCONT)
                    self.kill_at = time.monotonic() + self.grace

    # Time.

    def wait(self):
        now = time.monotonic()
        dates = [self.heard + self.patience]
        if not self.outgoing:
            dates.append(self.spoke + self.beat)
        if self.kill_at is not None:
            dates.append(self.kill_at)
        poller = self.full if self.outgoing else self.idle
        return poller.poll(max(0, min(dates) - now) * 1000 + 1)

    def tick(self):
        now = time.monotonic()
        if now - self.heard >= self.patience:
            self.lost = True
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self.command.signal(_signal.SIGKILL)
        if not self.outgoing and now - self.spoke >= self.beat:
            self.send(b"B")

    def is_over(self):
        if self.lost:
            return True
        return self.told and not self.outgoing and (self.ending or not self.streams)

    def keep(self):
        """Go on until the command is over, or the client is."""
        while not self.is_over():
            for fd, events in self.wait():
                if fd == 1:
                    if events & ~select.POLLOUT:
                        self.lost = True
                    self.flush()
                elif fd == self.control:
                    self.obey()
                elif fd == self.woken:
                    os.read(fd, PIECE)
                elif fd in self.streams:
                    self.relay(fd)
            if self.command.reap():
                self.tell_status()
            self.tick()

    def close(self):
        """End what must not go on without the client."""
        command = self.command
        for fd in self.streams:
            os.close(fd)
        command.end_input()
        if command.status is None:
            end_group(command.pid, self.grace, command.reap)
        elif self.kill_at is not None:  # It was asked to end, not all of its group did.
            end_group(command.pid, max(0, self.kill_at - time.monotonic()))


def keep(spec):
    """Return in the process that is to run Python; in the other one, do not return."""
    try:
        os.setsid()  # Or a signal to our group would end remctld.
    except PermissionError:
        pass  # We lead one.
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        end_with(b"D", error.strerror.encode())
    folder = make_folder()
    command = Command(spec, folder)
    if command.pid == 0:
        return
    os.chdir("/")
    keeper = Keeper(spec, command, folder)
    keeper.take_signals()
    hello = b"%b\n%d\n%d" % (folder, command.pid, os.getpid())
    keeper.send(b"H", hello)
    watcher, life = watch(keeper, command, folder, keeper.grace)
    if spec["compiled"]:
        keeper.send(b"C", spec["compiled"])
    keeper.keep()
    keeper.close()
    settle(folder)
    remove_folder(folder)
    try:
        os.write(life, b".")
    except BrokenPipeError:
        pass  # Somebody has killed it.
    os.waitpid(watcher, 0)
    os._exit(0)


def become(spec):
    """Run Python text as if it were the interpreter's own."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    variables = environment(spec)  # noqa: F821
    os.environb.clear()
    os.environb.update(variables)
    names = sys.modules["__main__"].__dict__
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]
    names["payload"] = spec["payload"]
    exec(compile(spec["source"], "<" + spec["label"] + ">", "exec"), names)


keep(spec)  # noqa: F821  # starter.py has set it.
become(spec)  # noqa: F821
