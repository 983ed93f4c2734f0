"""Programs and commands for the remote host: source texts, loaders, arguments, environments."""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from .errors import MachineError

Word: TypeAlias = "str | bytes | int | os.PathLike[str] | os.PathLike[bytes]"
Environment: TypeAlias = "Mapping[str, Word] | Mapping[str, Word | None]"

# This reads a program from standard input, and leaves the rest there.  remctld logs the text, so it
# must not contain values.  It runs for each command: importing os (posix is built in) or calling
# compile(), which makes the types of the ast module, would take half as long as Python's start.
PYTHON_LOADER = """\
import posix,sys
def r(n,s=b''):
 while len(s)<n:
  d=posix.read(0,n-len(s))
  if not d:sys.exit('no program on standard input')
  s+=d
 return s
exec(r(int(r(8),16)))"""

# The same for sh.  The program is one line, in which $remctl_n stands for a newline: the shell's
# `read` reads a pipe one octet at a time.  It overwrites environment variables of these names.
SHELL_LOADER = """remctl_n='
';IFS= read -r remctl_s;eval "$remctl_s\""""

# A shell can start programs for channel/keeper.py if it does not reap them before it becomes Python
# (bash and others do), and if env and setsid are recent enough.
SHELL_PROBE = (
    b'echo `id -u` "${BASH_VERSION}${KSH_VERSION}${ZSH_VERSION}${YASH_VERSION}"'
    b'`env --default-signal=INT,QUIT setsid -- echo quick 2>/dev/null` "${TMPDIR:-/tmp}"\n'
)
SHELL_ANSWER = re.compile(rb"(\d{1,10}) ?(?:quick (/[\w./-]{1,150})|.*)\n", re.DOTALL)

LONGEST_TIME = 1 << 22  # seconds (seven weeks): in milliseconds it fits into 32 bits

_LABEL_LIMIT = 60
_DEEPEST = 6  # nested brackets
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\"""")
# A value, or its end, must not be followed by an operator or another value.
_PLAIN = re.compile(
    rf"(?:[\s,:([{{]|(?:b?(?:{_STRING.pattern})|-?[\d.]+(?:e[+-]?\d+)?|None|True|False|[])}}])"
    r"(?=\s*(?:[],:)}]|\Z)))*+"
)
_SHELL_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*\Z")
# Longer scripts are read more slowly, one octet at a time, than Python starts.
_SHELL_SCRIPT_LIMIT = 4096


@functools.cache
def source(*names: str) -> str:
    """Return the text of files that are sent to the remote host, such as "base/far_probe".

    Raises:
        MachineError: the installation has no such file.
    """
    texts = []
    for name in names:
        # Importing importlib.resources takes too long.
        path = os.path.join(os.path.dirname(os.path.dirname(__file__)), f"{name}.py")
        try:
            texts.append(__spec__.loader.get_data(path).decode())  # type: ignore[union-attr]
        except (AttributeError, OSError) as error:
            text = f"remctl_toolkit/machine/{name}.py, which runs on the server, is not installed"
            cure = "install the package with its .py files (it has a hook for PyInstaller)"
            raise MachineError(f"{text}: {cure} ({error})") from None
    return "\n".join(texts)


class Program(NamedTuple):
    """A Python program for the remote host, with modules of ours; each may import earlier ones."""

    main: str
    modules: Mapping[str, str] = {}

    def text(self) -> str:
        """Return the program as one text, for `python_payload()`."""
        return (
            "import sys\n"
            f"for name, text in {dict(self.modules)!a}.items():\n"
            "    module = sys.modules[name] = type(sys)(name)\n"
            "    exec(compile(text, '<remctl ' + name + '>', 'exec'), module.__dict__)\n"
            f"{self.main}\n"
        )

    def parts(self, label: str) -> list[tuple[str, str, str]]:
        """Return (module, file, text) of each part; the main part is last, with module ""."""
        modules = [(name, f"<remctl {name}>", text) for name, text in self.modules.items()]
        return [*modules, ("", f"<{label}>", self.main)]


def python_arguments(label: str) -> tuple[str, ...]:
    """Return Python's arguments for a `python_payload()`; the label is logged."""
    return "-IS", "-c", PYTHON_LOADER, label


def python_payload(program: str, data: bytes = b"") -> bytes:
    """Return the standard input for PYTHON_LOADER: a program, and its own input."""
    octets = program.encode("utf-8", "surrogateescape")
    return b"%08x%b%b" % (len(octets), octets, data)


def literal(octets: bytes, limit: int) -> Any:
    """Return the value that a remote host wrote with ascii(); raise ValueError if malformed.

    The limits are needed because the parser takes a hundred times the memory of the octets, and for
    nested values and operators so much of a thread's stack that the process may crash.
    """
    if len(octets) > limit:
        raise ValueError(f"more than {limit} octets")
    text = octets.decode("ascii")
    depth = 0
    for bracket in re.sub(r"[^][(){}]+", "", _STRING.sub("", text)):
        depth += 1 if bracket in "([{" else -1
        if depth > _DEEPEST:
            raise ValueError("nested too deep")
    if not _PLAIN.fullmatch(text):
        raise ValueError("not plain data")
    try:
        return ast.literal_eval(text)
    except (MemoryError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(str(error)) from None


def check_seconds(name: str, value: float) -> None:
    """Raise TypeError or ValueError unless a value is a time limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= LONGEST_TIME:
        limits = f"more than 0 and no more than {LONGEST_TIME}"
        raise ValueError(f"{name} must be seconds, {limits}, not {value}")


def check_label(label: str) -> str:
    """Return a label for remctld's log: short, printable, not empty."""
    if not isinstance(label, str):
        raise TypeError(f"label must be a string, not {type(label).__name__}")
    printable = "".join(c if c.isascii() and c.isprintable() else "?" for c in label)
    return printable[:_LABEL_LIMIT] or "-"


def octets(word: Word, what: str) -> bytes:
    """Return a word of a command line, or of its environment, as octets.

    Raises:
        TypeError, ValueError: it is invalid; `what` names it in the message.
    """
    if isinstance(word, bool) or not isinstance(word, (str, bytes, int, os.PathLike)):
        name = type(word).__name__
        raise TypeError(f"{what} must be text, octets, a number or a path, not {name}")
    taken = b"%d" % word if isinstance(word, int) else os.fsencode(word)
    if b"\0" in taken:
        raise ValueError(f"{what} cannot hold a NUL")
    return taken


def _environment(given: Environment | None, what: str) -> dict[bytes, bytes | None]:
    taken: dict[bytes, bytes | None] = {}
    for name, value in (given or {}).items():
        key = octets(name, f"a name in {what}")
        if not key or b"=" in key:
            raise ValueError(f"{name!r} cannot be a name in {what}")
        taken[key] = None if value is None else octets(value, f"{what}[{name!r}]")
    return taken


class Command:
    """A checked command for the remote host, in octets; see `Connection.run()`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    def __init__(
        self,
        argv: Iterable[Word],
        cwd: Word,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
    ) -> None:
        if isinstance(argv, (str, bytes)):
            raise TypeError(f"a command is a list of words, not {type(argv).__name__}: use [...]")
        self.argv = [octets(word, f"argument {place}") for place, word in enumerate(argv)]
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs a program to run")
        self.cwd = octets(cwd, "cwd")
        self.env: dict[bytes, bytes] | None = None
        if env is not None:
            self.env = {k: v for k, v in _environment(env, "env").items() if v is not None}
        self.extend_env = _environment(extend_env, "extend_env")

    @property
    def label(self) -> str:
        """The default label for remctld's log: the program's name."""
        return check_label(os.path.basename(os.fsdecode(self.argv[0])))

    def spec(self, mark: bytes = b"", **more: object) -> str:
        """Return the command as Python text of a dictionary, for far_execute.py."""
        return ascii({**vars(self), "mark": mark, **more})

    def python_program(self, mark: bytes, timeout: float | None = None) -> str:
        """Return a Python program that executes this command, with a time limit if given."""
        if timeout is None:
            return f"{source('base/far_execute')}\nexecute({self.spec(mark)})\n"
        text = source("base/far_execute", "base/far_supervise")
        return f"{text}\nlimited({self.spec(mark, timeout=timeout)})\n"

    @property
    def shell_folder(self) -> bytes:
        """The working directory, quoted for a shell."""
        return _quote(self.cwd)

    @property
    def shell_test(self) -> bytes:
        """A shell command that succeeds if the program exists."""
        program = _quote(self.argv[0])
        return b"[ -x %b ]" % program if b"/" in program else b"command -v %b >/dev/null" % program

    def shell_script(self, before: bytes = b"") -> bytes | None:
        """Return a script that executes this command; None if that takes Python.

        Args:
            before: shell words to put before the command.
        """
        # A whole environment would have to be arguments of env(1), which ps shows.
        if self.env is not None or not all(map(_SHELL_NAME.match, self.extend_env)):
            return None
        steps = [
            b"unset %b" % name if value is None else b"export %b=%b" % (name, _quote(value))
            for name, value in self.extend_env.items()
        ]
        # Not every shell's exec knows `--`, which a name that begins with a minus would need.
        steps.append(b"exec %b%b" % (before, b" ".join(map(_quote, self.argv))))
        script = b";".join(steps)
        if len(script) > _SHELL_SCRIPT_LIMIT or self.argv[0].startswith(b"-"):
            return None
        return script

    def shell_payload(self, mark: bytes, data: bytes) -> bytes | None:
        """Return the input for SHELL_LOADER that executes this command; None as above."""
        script = self.shell_script()
        if script is None:
            return None
        # Not all shells' cd prints the reason of a failure.
        cwd = self.shell_folder
        fail = b"remctl_r=$(LC_ALL=C ls -d -- %b 2>&1)" % cwd
        fail += b"&&{ [ -d %b ]&&remctl_r='Permission denied'||remctl_r='Not a directory';}" % cwd
        fail += b';echo %b "${remctl_r##*: }" >&2;exit 125' % mark
        return b"cd -- %b 2>/dev/null||{ %b;};%b\n%b" % (cwd, fail, script, data)


def _quote(word: bytes) -> bytes:
    quoted = shlex.quote(word.decode("latin-1")).encode("latin-1")
    return quoted.replace(b"\n", b"'\"$remctl_n\"'")
