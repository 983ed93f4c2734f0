"""Start a command for a channel, and connect it with the client until its end.

The keeper sends frames on its standard output:
  H  hello: directory, pid of the command, own pid     O, E  standard output, error
  F  the command cannot be started: the reason         o, e  its end
  D  its directory cannot be entered: the reason       X     the exit status; -N for signal N
  C  the byte code of program N, to be kept            B     a heartbeat
  T  the time limit was reached                        S     the shell has entered the directory
Commands of other sessions write to two FIFOs in a private directory: `data` is the command's
standard input, `control` takes lines:
  b  a heartbeat    e  the end of standard input    k N  signal N to the command    q  end
  c O, c E  the stream is not read any more
Without "control" there is no directory: the command reads the rest of the keeper's standard input.
This text is sent after both_frames.py, far_execute.py and far_supervise.py, for far_loader.py.
"""

import _signal  # Importing signal itself takes as long as Python's start.
import fcntl
import os
import select
import sys
import time

PIECE = 65536  # octets of a pipe, and of a frame of output at most
SETTLING = 0.5  # seconds for unread input commands to end
LONGEST_WAIT = 3600.0  # seconds, for poll(), which takes no infinity
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
    gone = folder + b".gone"  # Renaming it prevents new files in the directory.
    try:
        settle(os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK))
        os.rename(folder, gone)
        for name in (b"/data", b"/control"):
            os.unlink(gone + name)
        os.rmdir(gone)
    except FileNotFoundError:
        pass  # Another process has removed it.


def settle(fifo):
    # A process that left the session may hold the FIFO open without reading: drain it, so that
    # input commands end.
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
        fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ, which fcntl defines since Python 3.10.
    except OSError:
        pass  # The user's limit for pipes is reached.


def open_input(spec, folder):
    """Return the command's standard input, and the keeper's end of it or None."""
    if folder is None:
        return 0, None
    if not spec["stdin"]:
        return os.open("/dev/null", os.O_RDONLY), None
    theirs = os.open(folder + b"/data", os.O_RDONLY | os.O_NONBLOCK)
    data = os.open(folder + b"/data", os.O_WRONLY)  # Closing it ends the input.
    os.set_blocking(theirs, True)
    return theirs, data


def start(spec):
    """Start the command; return a Keeper's arguments, or None in a child that runs Python."""
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
    """Return a Keeper's arguments for a command that the shell started (see keeper.py)."""
    os.waitpid(greeter, 0)  # Its hello precedes all other frames.
    folder, streams = spec["folder"], {6: b"O", 8: b"E"}
    for name in (b"/out", b"/err"):
        os.unlink(folder + name)
    for fd in [fd for fd in streams if streams[fd] in spec["nulls"] or (spec["merge"] and fd == 8)]:
        os.close(fd)
        del streams[fd]
    os.set_blocking(3, False)
    return pid, folder, 3, 5, streams


class Keeper:
    """The state and event loop of the keeper while the command runs."""

    def __init__(self, spec, pid, folder, control, data, streams):
        self.child = Child(pid)  # noqa: F821
        self.folder, self.control, self.data, self.streams = folder, control, data, streams
        self.beat, self.patience, self.grace = spec["beat"], spec["patience"], spec["grace"]
        self.silence, self.pipe = spec["silence"], max(spec["pipe"], PIECE)
        self.outgoing = b""
        self.status_sent = False  # whether the exit status was sent
        self.over = self.ending = False  # whether the keeper, and the command, must end
        self.lost = False  # whether the client is gone
        self.woken, self.waker = os.pipe()
        if folder is not None:
            # tmpfiles.d(5) does not clean a locked directory.
            self.lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_SH)
            os.set_blocking(1, False)  # Without control, the command may share this descriptor.
        for fd in (self.woken, self.waker, *streams):
            os.set_blocking(fd, False)
        for fd in streams if data is None else (*streams, data):
            enlarge(fd, spec["pipe"])
        self.heard = self.spoke = self.wrote = time.monotonic()
        self.end_by = self.heard + spec["limit"]
        # SIGCHLD wakes the loop.
        _signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
        os.write(self.waker, b".")  # The command may have ended before.
        for number in ENDINGS:
            _signal.signal(number, self.give_up)

    def give_up(self, *_):
        self.lost = True

    def watch(self):
        """Fork a process that cleans up if the keeper is killed."""
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

    # To the client.

    def send(self, letter, octets=b"", number=0):
        self.outgoing += frame(letter, number, octets)  # noqa: F821
        self.flush()

    def flush(self):
        while self.outgoing:
            try:
                self.outgoing = self.outgoing[os.write(1, self.outgoing) :]
            except BlockingIOError:
                return
            except OSError:  # remctld has closed it, because the client is gone.
                self.lost = True
                return
            self.spoke = time.monotonic()

    def relay(self, fd):
        """Send data of a stream; return the number of octets, 0 at its end."""
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

    def send_status(self):
        """Send the rest of the command's output, and its status."""
        for fd in list(self.streams):
            left = self.pipe  # Its children may go on writing.
            try:
                while left > 0 and fd in self.streams:
                    left -= self.relay(fd)
            except BlockingIOError:
                pass
        self.status_sent = True
        status = self.child.status
        killed = os.WIFSIGNALED(status)
        self.send(b"X", b"%d" % (-os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)))

    # From the client.

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
        """Return the command's deadline."""
        return min(self.end_by, self.wrote + self.silence)

    def wait(self):
        """Return ready descriptors; streams are not read while unsent data waits."""
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
        # In a channel, wait for children that still hold the streams.
        waits = self.streams and self.control is not None
        return self.status_sent and not self.outgoing and not waits

    def keep(self):
        """Relay until the command or the client ends."""
        while not self.is_over():
            for fd, events in self.wait():
                if fd == 1:
                    if events & ~select.POLLOUT:
                        self.lost = True
                    self.flush()
                    self.wrote = time.monotonic()  # The client caused this delay.
                elif fd == self.control:
                    self.obey()
                elif fd == self.woken:
                    os.read(fd, PIECE)
                elif fd in self.streams:
                    self.relay(fd)
            if self.child.reap():
                self.send_status()
            elif not self.status_sent and time.monotonic() >= self.time_over():
                self.over = self.ending = self.status_sent = True
                self.send(b"T")
            self.tick()

    def drain(self):
        """Discard output while the command is ended."""
        self.child.reap()
        for fd in self.streams:
            try:
                os.read(fd, 16 * PIECE)
            except BlockingIOError:
                pass
        self.tick()

    def close(self):
        """End the command if needed, and send its status."""
        self.end_input()
        if self.lost:
            for fd in self.streams:
                os.close(fd)
            self.streams = {}
        if self.ending or self.child.status is None:
            end(self.child.pid, self.grace, self.drain)  # noqa: F821
        self.streams = {}
        if not (self.lost or self.status_sent or self.child.status is None):
            self.send_status()
        writable = select.poll()
        writable.register(1, select.POLLOUT)
        while self.outgoing and not self.lost:
            writable.poll(self.beat * 1000)
            self.flush()
            self.tick()


def keep(spec):
    """Run the keeper, and exit; return only in a child that runs Python text."""
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
            pass  # The watcher was killed.
        os.waitpid(watcher, 0)
    os._exit(0)


def become(spec, codes):
    """Run Python text as ``__main__``."""
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
