"""Runs the command that `spec` describes, and sends what it writes, and how it ended, in frames on
standard output: so what it wrote first comes first, whichever stream it went to.  Comes after
execute.py, and is given what it uses of that.
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


def send(kind, octets=b""):
    frame = kind + len(octets).to_bytes(4, "big") + octets
    try:
        while frame:
            frame = frame[os.write(1, frame) :]
    except OSError:
        raise Gone from None


def fail(status, text):
    # execute() calls this, in the child.
    os.write(REPORT, b"%d " % status + text)
    os._exit(status)


def start(spec, execute):
    """Return the process id, the read ends of its output and error, and why there is no command."""
    global REPORT
    (out, out_end), (err, err_end), (report, REPORT) = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(out_end, 1)
        os.dup2(err_end, 2)
        execute(spec)
    try:
        os.setpgid(child, child)
    except OSError:
        pass  # It was quicker.
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
        send(pipes[pipe], octets)
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
    """Pass on what comes until the command ends; return its wait status, None if time was over."""
    poll = select.poll()
    for descriptor in [wake, *pipes]:
        poll.register(descriptor, select.POLLIN)
    while True:
        left = clock.left()
        if left <= 0:
            return None
        ready = poll.poll(min(left, BEAT) * 1000 + 1)
        if not ready:
            send(b"b")
        for descriptor, _ in ready:
            if descriptor == wake:
                os.read(wake, CHUNK)
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    return status
            else:
                if forward(descriptor, pipes):
                    clock.heard()
                if descriptor not in pipes:
                    poll.unregister(descriptor)


def drain(pipes):
    """Pass on what is left, and not wait for what a process in the background still writes."""
    for pipe in list(pipes):
        forward(pipe, pipes)  # All of it: a pipe holds no more.


def stop(child, end):
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])  # end() waits for it.
    end(child)


def awake_for_children():
    """Return a descriptor that becomes readable when a child has ended."""
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    _signal.set_wakeup_fd(wake_end)
    _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
    return wake


def tell_end(status, pipes):
    drain(pipes)
    if status is None:
        send(b"t")
    elif os.WIFSIGNALED(status):
        send(b"s", b"%d" % -os.WTERMSIG(status))
    else:
        send(b"s", b"%d" % os.WEXITSTATUS(status))


def follow(spec, execute, end):
    try:
        os.setsid()  # Or a signal to our group would end remctld.
    except OSError:
        pass  # sudo has done so.
    wake = awake_for_children()
    child, pipes, reason = start(spec, execute)
    if reason:
        os.waitpid(child, 0)
        send(b"x", reason)
        return
    for pipe in pipes:
        os.set_blocking(pipe, False)
    try:
        status = watch(child, pipes, Clock(spec["silence"], spec["limit"]), wake)
    except Gone:
        status = None
    if status is None:
        stop(child, end)
    try:
        tell_end(status, pipes)
    except Gone:
        pass
