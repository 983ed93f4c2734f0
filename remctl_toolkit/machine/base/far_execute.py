"""Replace this process by a command."""

import _signal  # Importing signal itself takes as long as Python's start.
import os

# Python ignores these signals, and programs would inherit that.
IGNORED = (_signal.SIGPIPE, _signal.SIGXFSZ)


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


def become_program(argv, variables, mark=b""):
    for number in IGNORED:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, variables)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        fail(127 if missing else 126, mark + argv[0] + b": " + error.strerror.encode() + b"\n")


def execute(spec):
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        fail(125, spec["mark"] + b" " + error.strerror.encode() + b"\n")
    become_program(spec["argv"], environment(spec), spec.get("exec_mark", b""))
