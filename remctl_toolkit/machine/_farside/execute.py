# Becomes the command that `spec` describes; its standard input is what follows this source.

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import os


def fail(status, text):
    os.write(2, text)
    os._exit(status)


def execute(spec):
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)  # Python ignores it, and that is inherited.
    folder = spec["cwd"]
    try:
        os.chdir(folder)
    except OSError as error:
        fail(125, spec["mark"] + b" " + error.strerror.encode() + b"\n")
    environment = dict(os.environb) if spec["env"] is None else dict(spec["env"])
    for name, value in spec["extend_env"].items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    program = spec["argv"][0]
    try:
        os.execvpe(program, spec["argv"], environment)
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        fail(127 if missing else 126, program + b": " + error.strerror.encode() + b"\n")
