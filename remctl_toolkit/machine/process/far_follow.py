"""Runs the command that `spec` describes, and sends what it writes, and how it ended, in frames on
standard output: so what it wrote first comes first, whichever stream it went to.  Comes after
both_frames.py, far_execute.py and far_supervise.py.
"""

import _signal
import os
import select
import time

BEAT = 5.0  # seconds after which something is sent, to find out whether anybody still reads
CHUNK = 65536  # octets, also what a pipe holds

REPORT = -1  # where a child tells that it could not become the command


class Gone(Exception):
    """Nobody reads any more."""


def write(letter, octets=b""):
    rest = frame(letter, 0, octets)  # noqa: F821
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except OSError:
        raise Gone from None


def fail(status, text):
    # execute() calls this, in the child.
    os.write(REPORT, b"%d " % status + text)
    os._exit(status)


def start(spec):
    """Return the child, the read ends of its output and error, and why there is no command."""
    global REPORT
    (out, out_end), (err, err_end), (report, REPORT) = os.pipe(), os.pipe(), os.pipe()
    child = Child(spawn(spec, (0, out_end, err_end)))  # noqa: F821
    for end_of_child in (out_end, err_end, REPORT):
        os.close(end_of_child)
    reason = b""
    while True:
        octets = os.read(report, CHUNK)
        if not octets:
            break
        reason += octets
    os.close(report)
    return child, {out: b"o", err: b"e"}, reason.strip()


def forward(pipe, pipes):
    """Pass on what a pipe holds; tell whether there was anything, and forget a pipe that ended."""
    try:
        octets = os.read(pipe, CHUNK)
    except BlockingIOError:
        return False
    if octets:
        write(pipes[pipe], octets)
        return True
    del pipes[pipe]
    os.close(pipe)
    return False


class Clock:
    """When to beat, and when the command has had its time."""

    def __init__(self, silence, limit):
        self.silence = silence
        self.end = None if limit is None else time.monotonic() + limit
        self.heard()

    def heard(self):
        self.last = time.monotonic()

    def left(self):
        now = time.monotonic()
        ends = [] if self.end is None else [self.end]
        if self.silence is not None:
            ends.append(self.last + self.silence)
        return min(ends) - now if ends else BEAT


def watch(child, pipes, clock, wake):
    """Pass on what comes until the command ends; False if time was over before."""
    poll = select.poll()
    for descriptor in [wake, *pipes]:
        poll.register(descriptor, select.POLLIN)
    while True:
        left = clock.left()
        if left <= 0:
            return False
        ready = poll.poll(min(left, BEAT) * 1000 + 1)
        if not ready:
            write(b"b")
        for descriptor, _ in ready:
            if descriptor == wake:
                os.read(wake, CHUNK)
                if child.reap():
                    return True
            else:
                if forward(descriptor, pipes):
                    clock.heard()
                if descriptor not in pipes:
                    poll.unregister(descriptor)


def awake_for_children():
    """Return a descriptor that becomes readable when a child has ended."""
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    _signal.set_wakeup_fd(wake_end)
    _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
    return wake


def tell_end(status, pipes):
    for pipe in list(pipes):  # What a process in the background still writes is not waited for.
        forward(pipe, pipes)  # All of it: a pipe holds no more.
    if status is None:
        write(b"t")
    elif os.WIFSIGNALED(status):
        write(b"s", b"%d" % -os.WTERMSIG(status))
    else:
        write(b"s", b"%d" % os.WEXITSTATUS(status))


def follow(spec):
    leave_session()  # noqa: F821
    wake = awake_for_children()
    child, pipes, reason = start(spec)
    try:
        if reason:
            write(b"x", reason)
            return
        for pipe in pipes:
            os.set_blocking(pipe, False)
        in_time = watch(child, pipes, Clock(spec["silence"], spec["limit"]), wake)
        if not in_time:
            end(child.pid, reap=child.reap)  # noqa: F821
        tell_end(child.status if in_time else None, pipes)
    except Gone:
        if child.status is None:
            end(child.pid, reap=child.reap)  # noqa: F821
