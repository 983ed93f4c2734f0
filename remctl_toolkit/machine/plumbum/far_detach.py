"""Start a command that runs on by itself.  This text is sent after far_execute.py."""

import _signal
import os


def detach(spec, execute):
    """Start the command and print its process id."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if spec["append"] else os.O_TRUNC)
    place = spec["cwd"]
    try:
        os.chdir(place)
        stdin = os.open("/dev/null", os.O_RDONLY)
        place = spec["stdout"]
        stdout = stderr = os.open(place, flags, 0o666)
        if spec["stderr"] is not None:
            place = spec["stderr"]
            stderr = os.open(place, flags, 0o666)
    except OSError as error:
        os.write(2, place + b": " + error.strerror.encode() + b"\n")
        os._exit(1)
    pid = os.fork()
    if pid == 0:
        os.setsid()  # Leave remctld's session.
        for number, fd in enumerate((stdin, stdout, stderr)):
            os.dup2(fd, number)
        os.closerange(3, 256)
        _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
        execute(spec)
    os.write(1, b"%d" % pid)
    os._exit(0)
