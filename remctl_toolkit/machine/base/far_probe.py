"""Print the properties of this account; see account.FarSide."""

import os
import pwd
import sys

EXECFN = 31  # AT_EXECFN, see getauxval(3)
PREFIX = "import sys; print(sys.base_prefix)"


def path_of_python():
    """Return the path of this Python: argv[0], and so sys.executable, is a bare name."""
    python = sys.executable
    try:
        python = os.readlink("/proc/self/exe")
        with open("/proc/self/auxv", "rb") as file:
            numbers = memoryview(file.read()).cast("L")
        with open("/proc/self/mem", "rb", 0) as file:
            file.seek(dict(zip(numbers[::2], numbers[1::2]))[EXECFN])
            started = os.fsdecode(file.read(4096).partition(b"\0")[0])
    except (KeyError, OSError, TypeError):
        return python
    # Prefer the name of a virtual environment.
    folder = os.path.dirname(os.path.dirname(started))
    is_own = started.startswith("/") and os.path.exists(folder + "/pyvenv.cfg")
    return started if is_own else python


def check_prefix(python):
    """Exit if this process uses the modules of another Python, found by its bare name in PATH."""
    real = os.path.realpath(python)
    home = os.path.dirname(os.path.dirname(real))
    if home == os.path.realpath(sys.base_prefix) or not os.path.exists("/proc/self/exe"):
        return
    reading, writing = os.pipe()
    words, to_pipe = [python, "-IS", "-c", PREFIX], [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(python, words, os.environ, file_actions=to_pipe)
    os.close(writing)
    with open(reading) as file:
        prefix = file.read().strip()
    os.waitpid(pid, 0)
    if prefix not in ("", sys.base_prefix):
        why = f"it uses the modules of {sys.base_prefix}"
        why += ", because remctld starts it without its directory"
        sys.exit(f'{why}: name a script in its place: exec {python} "$@"')


def account():
    try:
        account = pwd.getpwuid(os.getuid())
        name, home, shell = account.pw_name, account.pw_dir, account.pw_shell
    except KeyError:
        name, home, shell = str(os.getuid()), "/", "/bin/sh"
    if not os.access(home, os.X_OK):
        home = "/"
    return {
        "python_version": sys.version_info[:3],
        "python": path_of_python(),
        "uid": os.getuid(),
        "user": name,
        "home": home,
        "shell": shell or "/bin/sh",
        "client": os.environ.get("REMOTE_ADDR", ""),
        "path": os.environ.get("PATH", os.defpath),
        "system": tuple(os.uname()),
    }


if __name__ == "__main__":
    check_prefix(path_of_python())
    print(ascii(account()))
