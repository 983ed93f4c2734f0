"""Keeps a command for a channel: starts it, and stands between it and the client until its end.

Downwards, on our standard output, go frames:
  H  hello: folder, pid of the command, our own pid    O, E  standard output, error
  F  the command cannot be started: why                o, e  its end
  D  its folder cannot be entered: why                 X     the exit status; -N for signal N
  C  program N compiled, for the next time             B     a beat: nothing else was to be said
  T  time was over, and the command was ended          S     the shell has entered its folder
Upwards come commands of other sessions, which write to two FIFOs in a folder of our own: `data`
is the command's standard input, `control` takes lines:
  b  a beat    e  the end of standard input    k N  signal N for the command    q  end it all
  c O, c E  nobody reads that stream any more
Without "control" there is no folder: standard input is what follows ours, and nobody says anything.
It comes after both_frames.py, far_execute.py and far_supervise.py, and far_loader.py loads it.
"""

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import fcntl
import os
import select
import sys
import time

PIECE = 65536  # what a pipe holds, and what a frame of output holds at most
SETTLING = 0.5  # seconds in which a feed that nobody reads has to end
LONGEST_WAIT = 3600.0  # seconds; poll() takes no infinite ones
ENDINGS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


def refuse(letter, error):
    os.set_blocking(1, True)
    os.write(1, frame(letter, 0, error.strerror.encode()))  # noqa: F821
    os._exit(0)


# -- The folder -----------------------------------------------------------------------------------


def make_folder():
    for base in (os.environb.get(b"TMPDIR", b""), b"/tmp", b"/var/tmp", b"/dev/shm"):
        if not base.startswith(b"/") or b"\n" in base:
            continue
        folder = base + b"/.remctl-" + os.urandom(16).hex().encode()
        try:
            os.mkdir(folder, 0o700)
            for name in (b"/data", b"/control"):
                os.mkfifo(folder + name, 0o600)
            return folder
        except OSError as error:
            reason = error
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                os.unlink(folder + b"/" + name)
            os.rmdir(folder)
    refuse(b"F", reason)


def remove_folder(folder):
    gone = folder + b".gone"  # Whoever opens the old path from now on cannot make a file there.
    try:
        settle(os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK))
        os.rename(folder, gone)
        for name in (b"/data", b"/control"):
            os.unlink(gone + name)
        os.rmdir(gone)
    except FileNotFoundError:
        pass  # Somebody else did it.


def settle(fifo):
    # A process that left the session may hold the FIFO open, and not read it: its feed would wait.
    last = time.monotonic() + SETTLING
    while time.monotonic() < last:
        try:
            if not os.read(fifo, PIECE):
                return
        except BlockingIOError:
            time.sleep(STEP)  # noqa: F821


# -- The command ----------------------------------------------------------------------------------


def enlarge(fd, size):
    try:
        fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ, which fcntl knows by name since Python 3.10.
    except OSError:
        pass  # The user has many large pipes already.


def open_input(spec, folder):
    """Return the command's standard input, and our end of it or None."""
    if folder is None:
        return 0, None
    if not spec["stdin"]:
        return os.open("/dev/null", os.O_RDONLY), None
    theirs = os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK)
    data = os.open(folder + b"/data", os.O_WRONLY)  # It is held until the input ends.
    os.set_blocking(theirs, True)
    return theirs, data


def start(spec):
    """Start the command; return what a Keeper takes, or None in the process that runs Python."""
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        refuse(b"D", error)
    spec["cwd"] = b"."
    folder = make_folder() if spec["control"] else None
    stdin, data = open_input(spec, folder)
    streams, theirs = {}, [stdin]
    for letter in (b"O",) if spec["merge"] else (b"O", b"E"):
        if letter in spec["nulls"]:
            theirs.append(os.open("/dev/null", os.O_WRONLY))
        else:
            reader, writer = os.pipe()
            streams[reader] = letter
            theirs.append(writer)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    pid = spawn(spec, (theirs[0], theirs[1], theirs[-1]))  # noqa: F821
    for fd in theirs if pid else (*theirs, *streams, data):
        if fd is not None:
            os.close(fd)
    if not pid:
        return None
    control = folder and os.open(folder + b"/control", os.O_RDWR | os.O_NONBLOCK)
    return pid, folder, control, data, streams


def adopt(spec, pid, greeter):
    """Return the same for what the shell has started; keeper.py tells which descriptor is what."""
    os.waitpid(greeter, 0)  # What it says comes first.
    folder, streams = spec["folder"], {6: b"O", 8: b"E"}
    for name in (b"/out", b"/err"):
        os.unlink(folder + name)
    for fd in [fd for fd in streams if streams[fd] in spec["nulls"] or (spec["merge"] and fd == 8)]:
        os.close(fd)
        del streams[fd]
    os.set_blocking(3, False)
    return pid, folder, 3, 5, streams


class Keeper:
    """What we know and wait for while the command runs."""

    def __init__(self, spec, pid, folder, control, data, streams):
        self.child = Child(pid)  # noqa: F821
        self.folder, self.control, self.data, self.streams = folder, control, data, streams
        self.beat, self.patience, self.grace = spec["beat"], spec["patience"], spec["grace"]
        self.silence, self.pipe = spec["silence"], max(spec["pipe"], PIECE)
        self.outgoing = b""
        self.told = False  # the exit status
        self.over = self.ending = False  # whether we, and the command, were asked to end
        self.lost = False  # the client
        self.woken, self.waker = os.pipe()
        if folder is not None:
            # Keeps others' cleaning from an old folder: tmpfiles.d(5), on flock().
            self.lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_SH)
            os.set_blocking(1, False)  # Otherwise, it may be the command's standard input, too.
        for fd in (self.woken, self.waker, *streams):
            os.set_blocking(fd, False)
        for fd in streams if data is None else (*streams, data):
            enlarge(fd, spec["pipe"])
        self.heard = self.spoke = self.wrote = time.monotonic()
        self.end_by = self.heard + spec["limit"]
        # The command's end wakes us; a signal to us is the end of all.
        _signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
        os.write(self.waker, b".")  # It may have ended before.
        for number in ENDINGS:
            _signal.signal(number, self.give_up)

    def give_up(self, *_):
        self.lost = True

    def watch(self):
        """Have a process that does what is to be done at our end, should somebody kill us."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(reader)
            return pid, writer
        os.setsid()
        for number in ENDINGS:
            _signal.signal(number, _signal.SIG_IGN)
        ours = (0, 1, 2, writer, self.control, self.lock, self.woken, self.waker, *self.streams)
        for fd in ours if self.data is None else (*ours, self.data):
            os.close(fd)
        if not os.read(reader, 1):
            end(self.child.pid, self.grace)  # noqa: F821
            remove_folder(self.folder)
        os._exit(0)

    # Downwards.

    def send(self, letter, octets=b"", number=0):
        self.outgoing += frame(letter, number, octets)  # noqa: F821
        self.flush()

    def flush(self):
        while self.outgoing:
            try:
                self.outgoing = self.outgoing[os.write(1, self.outgoing) :]
            except BlockingIOError:
                return
            except OSError:  # remctld has closed it: the client is gone.
                self.lost = True
                return
            self.spoke = time.monotonic()

    def relay(self, fd):
        """Send what a stream has, and return how much that was; 0 at its end."""
        octets = os.read(fd, PIECE)
        if octets:
            self.send(self.streams[fd], octets)
            self.wrote = time.monotonic()
        else:
            self.end_stream(fd)
        return len(octets)

    def end_stream(self, fd):
        os.close(fd)
        self.send(self.streams.pop(fd).lower())

    def tell_status(self):
        """All that the command itself wrote goes before its status."""
        for fd in list(self.streams):
            left = self.pipe  # What it has started may go on writing.
            try:
                while left > 0 and fd in self.streams:
                    left -= self.relay(fd)
            except BlockingIOError:
                pass
        self.told = True
        status = self.child.status
        killed = os.WIFSIGNALED(status)
        self.send(b"X", b"%d" % (-os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)))

    # Upwards.

    def obey(self):
        self.heard = time.monotonic()
        for line in os.read(self.control, 4096).splitlines():
            word = line[:1]
            if word == b"e":
                self.end_input()
            elif word == b"k" and self.child.status is None:
                signal_family(self.child.pid, int(line[1:]))  # noqa: F821
            elif word == b"c":
                for fd in [fd for fd, letter in self.streams.items() if letter == line[2:]]:
                    self.end_stream(fd)
            elif word == b"q":
                self.over = True
                self.ending = self.child.status is None

    def end_input(self):
        if self.data is not None:
            os.close(self.data)
            self.data = None

    # Time.

    def time_over(self):
        """Return when the command has had its time."""
        return min(self.end_by, self.wrote + self.silence)

    def wait(self):
        """Return what is ready; the streams have to wait while something is to be sent."""
        poller = select.poll()
        poller.register(1, select.POLLOUT if self.outgoing else 0)
        for fd in (self.control, self.woken, *(() if self.outgoing else self.streams)):
            if fd is not None:
                poller.register(fd, select.POLLIN)
        date = min(self.heard + self.patience, self.time_over())
        if not self.outgoing:
            date = min(date, self.spoke + self.beat)
        return poller.poll(min(max(0, date - time.monotonic()), LONGEST_WAIT) * 1000 + 1)

    def tick(self):
        now = time.monotonic()
        if now - self.heard >= self.patience:
            self.lost = True
        if not self.outgoing and now - self.spoke >= self.beat:
            self.send(b"B")

    def is_over(self):
        if self.lost or self.over:
            return True
        # What the command has left behind is waited for where somebody may still talk to it.
        return self.told and not self.outgoing and not (self.streams and self.control is not None)

    def keep(self):
        """Go on until the command is over, or the client is."""
        while not self.is_over():
            for fd, events in self.wait():
                if fd == 1:
                    if events & ~select.POLLOUT:
                        self.lost = True
                    self.flush()
                    self.wrote = time.monotonic()  # It was our client that kept it waiting.
                elif fd == self.control:
                    self.obey()
                elif fd == self.woken:
                    os.read(fd, PIECE)
                elif fd in self.streams:
                    self.relay(fd)
            if self.child.reap():
                self.tell_status()
            elif not self.told and time.monotonic() >= self.time_over():
                self.over = self.ending = self.told = True
                self.send(b"T")
            self.tick()

    def drain(self):
        """Forget what comes while the command ends: nobody waits for it."""
        self.child.reap()
        for fd in self.streams:
            try:
                os.read(fd, 16 * PIECE)
            except BlockingIOError:
                pass
        self.tick()

    def close(self):
        """End what must not go on without the client, and tell how it ended."""
        self.end_input()
        if self.lost:
            for fd in self.streams:
                os.close(fd)
            self.streams = {}
        if self.ending or self.child.status is None:
            end(self.child.pid, self.grace, self.drain)  # noqa: F821
        self.streams = {}
        if not (self.lost or self.told or self.child.status is None):
            self.tell_status()
        writable = select.poll()
        writable.register(1, select.POLLOUT)
        while self.outgoing and not self.lost:
            writable.poll(self.beat * 1000)
            self.flush()
            self.tick()


def keep(spec):
    """Return in the process that is to run Python; in the other one, do not return."""
    leave_session()  # noqa: F821
    adopted = sys.argv[2:]
    started = adopt(spec, *map(int, adopted[:2])) if adopted else start(spec)
    if started is None:
        return
    os.chdir("/")
    keeper = Keeper(spec, *started)
    folder, pid, life = keeper.folder, keeper.child.pid, None
    if folder is not None:
        if not adopted:
            keeper.send(b"H", b"%b\n%d\n%d" % (folder, pid, os.getpid()))
        watcher, life = keeper.watch()
    for place, kept in made.items():  # noqa: F821  # far_loader.py has set it.
        keeper.send(b"C", kept, place)
    keeper.keep()
    keeper.close()
    if life is not None:
        remove_folder(folder)
        try:
            os.write(life, b".")
        except BrokenPipeError:
            pass  # Somebody has killed it.
        os.waitpid(watcher, 0)
    os._exit(0)


def become(spec, codes):
    """Run Python text as if it were the interpreter's own."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    variables = environment(spec)  # noqa: F821
    os.environb.clear()
    os.environb.update(variables)
    modules, new_module = sys.modules, type(sys)
    names = modules["__main__"].__dict__
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]
    names["payload"] = spec["payload"]
    for name, code in zip(spec["modules"], codes):
        if name:
            modules[name] = new_module(name)
        exec(code, modules[name].__dict__ if name else names)


keep(spec)  # noqa: F821
become(spec, codes[1:])  # noqa: F821
