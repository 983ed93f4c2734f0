# Runs the command that `spec` describes for no longer than `spec["timeout"]` seconds; see execute.py,
# which comes before this.

import time

GRACE = 2.0  # seconds between asking it to end and ending it


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
