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

# Reads its program from standard input, and leaves there what follows.  remctld logs it each time,
# as it stands: no value may be in it.  It runs for each command: to import os (posix is built in),
# and to call compile(), which makes the types of the ast module, takes half as long as Python's own
# start.
PYTHON_LOADER = """\
import posix,sys
def r(n,s=b''):
 while len(s)<n:
  d=posix.read(0,n-len(s))
  if not d:sys.exit('no program on standard input')
  s+=d
 return s
exec(r(int(r(8),16)))"""

# The same for sh: a line, in which $remctl_n stands for the end of one.  A shell's `read` takes one
# octet at a time from what cannot be rewound.  What is called so in the environment is lost.
SHELL_LOADER = """remctl_n='
';IFS= read -r remctl_s;eval "$remctl_s\""""

# A shell can start programs for channel/keeper.py if it leaves their status to the Python that it
# becomes (bash and others ask for it themselves), and env and setsid are not too old.
SHELL_PROBE = (
    b'echo `id -u` "${BASH_VERSION}${KSH_VERSION}${ZSH_VERSION}${YASH_VERSION}"'
    b'`env --default-signal=INT,QUIT setsid -- echo quick 2>/dev/null` "${TMPDIR:-/tmp}"\n'
)
SHELL_ANSWER = re.compile(rb"(\d{1,10}) ?(?:quick (/[\w./-]{1,150})|.*)\n", re.DOTALL)

LONGEST_TIME = 1 << 22  # seconds, seven weeks: of milliseconds, 32 bits hold so many

_LABEL_LIMIT = 60
_DEEPEST = 6  # brackets in each other
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\"""")
# What a value, or the end of one, is followed by is no operator and no value.
_PLAIN = re.compile(
    rf"(?:[\s,:([{{]|(?:b?(?:{_STRING.pattern})|-?[\d.]+(?:e[+-]?\d+)?|None|True|False|[])}}])"
    r"(?=\s*(?:[],:)}]|\Z)))*+"
)
_SHELL_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*\Z")
# Beyond this, reading the script one octet at a time takes longer than starting Python.
_SHELL_SCRIPT_LIMIT = 4096


@functools.cache
def source(*names: str) -> str:
    """Return the text of files that are sent to the remote host: "base/far_probe", say.

    Raises:
        MachineError: this installation does not have the text.
    """
    texts = []
    for name in names:
        # importlib.resources would do, but takes longer to import than all the rest.
        path = os.path.join(os.path.dirname(os.path.dirname(__file__)), f"{name}.py")
        try:
            texts.append(__spec__.loader.get_data(path).decode())  # type: ignore[union-attr]
        except (AttributeError, OSError) as error:
            text = f"remctl_toolkit/machine/{name}.py, which runs on the server, is not installed"
            cure = "install the package with its .py files (it has a hook for PyInstaller)"
            raise MachineError(f"{text}: {cure} ({error})") from None
    return "\n".join(texts)


class Program(NamedTuple):
    """Python text for the remote host, and the text of modules of ours that it imports there.

    A module may import those before it.
    """

    main: str
    modules: Mapping[str, str] = {}

    def text(self) -> str:
        """Return all of it as one text, as `python_payload()` takes it."""
        return (
            "import sys\n"
            f"for name, text in {dict(self.modules)!a}.items():\n"
            "    module = sys.modules[name] = type(sys)(name)\n"
            "    exec(compile(text, '<remctl ' + name + '>', 'exec'), module.__dict__)\n"
            f"{self.main}\n"
        )

    def parts(self, label: str) -> list[tuple[str, str, str]]:
        """Return (module, file, text) of each part, the main one last: its module is ""."""
        modules = [(name, f"<remctl {name}>", text) for name, text in self.modules.items()]
        return [*modules, ("", f"<{label}>", self.main)]


def python_arguments(label: str) -> tuple[str, ...]:
    """Return the arguments of the Python that `python_payload()` is for; the label is logged."""
    return "-IS", "-c", PYTHON_LOADER, label


def python_payload(program: str, data: bytes = b"") -> bytes:
    """Return what PYTHON_LOADER takes on standard input: a program, and then what it may read."""
    octets = program.encode("utf-8", "surrogateescape")
    return b"%08x%b%b" % (len(octets), octets, data)


def literal(octets: bytes, limit: int) -> Any:
    """Return the value that a remote host wrote with ascii(); ValueError if it wrote none.

    The parser takes a hundred times the memory of the octets, so their number is limited.  For what
    is nested, and for operators, it uses so much of a thread's stack that the process may end.
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
        raise ValueError("it is no plain value")
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
    """Return a label for remctld's log: a few printable characters, never empty."""
    if not isinstance(label, str):
        raise TypeError(f"label must be a string, not {type(label).__name__}")
    printable = "".join(c if c.isascii() and c.isprintable() else "?" for c in label)
    return printable[:_LABEL_LIMIT] or "-"


def octets(word: Word, what: str) -> bytes:
    """Return a word of a command line, or a value of its environment, as octets.

    Raises:
        TypeError, ValueError: it cannot be one; `what` names it.
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
    """A command for the remote host, checked, in octets; see `Connection.run()`.

    Raises:
        TypeError, ValueError: something cannot be part of a command; the text names it.
    """

    def __init__(
        self,
        argv: Iterable[Word],
        cwd: Word,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
    ) -> None:
        """Check and convert."""
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
        """What remctld's log shows of it: the program's name alone."""
        return check_label(os.path.basename(os.fsdecode(self.argv[0])))

    def spec(self, mark: bytes = b"", **more: object) -> str:
        """Return it as the text of a Python dictionary, for what runs there."""
        return ascii({**vars(self), "mark": mark, **more})

    def python_program(self, mark: bytes, timeout: float | None = None) -> str:
        """Return the Python program that becomes this command, or runs it for a limited time."""
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
        """What a shell finds true if there is such a program."""
        program = _quote(self.argv[0])
        return b"[ -x %b ]" % program if b"/" in program else b"command -v %b >/dev/null" % program

    def shell_script(self, before: bytes = b"") -> bytes | None:
        """Return what makes sh become this command; None if it is not for a shell.

        Args:
            before: words of programs that the command is given to.
        """
        # A whole environment would have to go through the arguments of env(1), where ps shows it.
        if self.env is not None or not all(map(_SHELL_NAME.match, self.extend_env)):
            return None
        steps = [
            b"unset %b" % name if value is None else b"export %b=%b" % (name, _quote(value))
            for name, value in self.extend_env.items()
        ]
        # `--` is not known to every exec, and a program may begin with a minus.
        steps.append(b"exec %b%b" % (before, b" ".join(map(_quote, self.argv))))
        script = b";".join(steps)
        if len(script) > _SHELL_SCRIPT_LIMIT or self.argv[0].startswith(b"-"):
            return None
        return script

    def shell_payload(self, mark: bytes, data: bytes) -> bytes | None:
        """Return what SHELL_LOADER takes to become this command; None if it is not for a shell."""
        script = self.shell_script()
        if script is None:
            return None
        # cd does not say why in all shells.
        cwd = self.shell_folder
        fail = b"remctl_r=$(LC_ALL=C ls -d -- %b 2>&1)" % cwd
        fail += b"&&{ [ -d %b ]&&remctl_r='Permission denied'||remctl_r='Not a directory';}" % cwd
        fail += b';echo %b "${remctl_r##*: }" >&2;exit 125' % mark
        return b"cd -- %b 2>/dev/null||{ %b;};%b\n%b" % (cwd, fail, script, data)


def _quote(word: bytes) -> bytes:
    quoted = shlex.quote(word.decode("latin-1")).encode("latin-1")
    return quoted.replace(b"\n", b"'\"$remctl_n\"'")
