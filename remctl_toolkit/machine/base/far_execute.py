"""Becomes the command that `spec` describes, or runs it for a limited time; the command's standard
input is what follows this source.
"""

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import os
import time

GRACE = 2.0  # seconds between asking it to end and ending it


def fail(status, text):
    os.write(2, text)
    os._exit(status)


def environment(spec):
    found = dict(os.environb) if spec["env"] is None else dict(spec["env"])
    for name, value in spec["extend_env"].items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found


def become_program(argv, variables):
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them: that is inherited.
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, variables)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        fail(127 if missing else 126, argv[0] + b": " + error.strerror.encode() + b"\n")


def execute(spec):
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        fail(125, spec["mark"] + b" " + error.strerror.encode() + b"\n")
    become_program(spec["argv"], environment(spec))


def wait_until(child, deadline):
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        _signal.sigtimedwait([_signal.SIGCHLD], left)


def end(child):
    for number in (_signal.SIGTERM, _signal.SIGKILL):
        try:
            os.killpg(child, number)
        except ProcessLookupError:
            pass
        if wait_until(child, time.monotonic() + GRACE) is not None:
            break
    try:
        os.killpg(child, _signal.SIGKILL)  # What the command has started, and did not end itself.
    except ProcessLookupError:
        pass


def limited(spec):
    os.setsid()  # Or a signal to our group would end remctld.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
        execute(spec)
    try:
        os.setpgid(child, child)
    except OSError:
        pass  # It was quicker.
    status = wait_until(child, time.monotonic() + spec["timeout"])
    if status is None:
        end(child)
        os._exit(124)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 255)
