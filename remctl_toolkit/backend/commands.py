"""Commands, groups of them, and the backend: what is declared, found and called."""

import os
import sys

from .context import Context
from .errors import DataError, UsageError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import Any, TypeVar

    from .invoking import InvokeResult
    from .parameters import Parameter

    F = TypeVar("F", bound=Callable[..., Any])
    Acl = str | Sequence[str]

__all__ = ["Backend", "Command", "Group"]

_RESERVED = ("help", "summary")  # what remctld is configured to ask for
_KEYWORDS = ("ALL", "EMPTY")  # of remctl.conf


class Command:
    """One subcommand: a function, and what was declared about it."""

    __slots__ = (
        "_examined",
        "acl",
        "function",
        "hidden",
        "json",
        "logmask",
        "path",
        "stdin",
    )

    def __init__(
        self,
        function: "Callable[..., Any]",
        path: tuple[str, ...],
        *,
        stdin: str | None,
        logmask: "Sequence[str]",
        acl: tuple[str, ...],
        json: bool,
        hidden: bool,
    ) -> None:
        """Keep what was declared; the function is examined when it is first asked about."""
        self.function = function
        self.path = path
        self.stdin = stdin
        self.logmask = (logmask,) if isinstance(logmask, str) else tuple(logmask)
        self.acl = acl
        self.json = json
        self.hidden = hidden
        self._examined: tuple[list[Parameter], bool] | None = None

    @property
    def doc(self) -> str:
        """The function's docstring."""
        return self.function.__doc__ or ""

    def examine(self) -> "tuple[list[Parameter], bool]":
        """Return the parameters, and whether the function takes the Context first.

        Raises:
            TypeError: the function cannot be a command, or does not fit what was declared.
        """
        if self._examined is None:
            from .parameters import parameters_of

            found, has_context = parameters_of(self.function)
            self._check_names(found)
            self._examined = found, has_context
        return self._examined

    def _check_names(self, found: "list[Parameter]") -> None:
        kinds = {parameter.name: parameter for parameter in found}
        for name in (*self.logmask, *([self.stdin] if self.stdin is not None else [])):
            if name not in kinds or kinds[name].kind != "positional":
                raise TypeError(f"{name!r} is not a positional parameter of {self.function!r}")

    def secrets(self, args: "Sequence[bytes]", data: bytes | None) -> list[bytes]:
        """Return the arguments that no log may show: those masked, and what is on stdin."""
        found = [data] if data else []
        if self.logmask:
            names = [p.name for p in self.examine()[0] if p.kind == "positional"]
            others = [name for name in names if name != self.stdin]
            pairs = zip(others, args, strict=False)
            found += [octets for name, octets in pairs if octets and name in self.logmask]
        return found

    def call(self, context: Context, args: "Sequence[bytes]", data: bytes | None) -> "Any":
        """Call the function.

        Args:
            context: who calls.
            args: all arguments after the command's own name.
            data: what is on standard input; None for nothing at all.

        Returns:
            What the function returned; and if `json` was declared, whether ``--json`` was given.

        Raises:
            UsageError, DataError: the arguments are wrong.
        """
        parameters, has_context = self.examine()
        keywords, args = self._options(parameters, args)
        as_json = keywords.pop("--json", False)
        values: list[Any] = [context] if has_context else []
        positional = [p for p in parameters if p.kind == "positional"]
        waiting = list(args)
        for place, parameter in enumerate(positional):
            if parameter.name == self.stdin:
                values.append(self._from_data(parameter, data))
            elif waiting:
                values.append(self._from_argument(parameter, waiting.pop(0)))
            elif parameter.required:
                raise UsageError(f"missing argument: {positional[place].label}")
            else:
                values.append(parameter.default)
        for rest in (p for p in parameters if p.kind == "rest"):
            if not waiting and rest.required:
                raise UsageError(f"missing argument: {rest.label}")
            many = [self._from_argument(rest, octets) for octets in waiting]
            values += [many or rest.default or []] if rest.many else many
            waiting = []
        if waiting:
            raise UsageError("too many arguments")
        result = self.function(*values, **keywords)
        return result, as_json

    def _from_argument(self, parameter: "Parameter", octets: bytes) -> "Any":
        secret = parameter.name in self.logmask
        # remctld lets one through where an argument may be on standard input, and this one is not.
        if b"\0" in octets:
            raise UsageError(parameter.complaint(octets, "has a NUL", secret=secret))
        try:
            return parameter.value(octets)
        except ValueError as error:
            raise UsageError(parameter.complaint(octets, str(error), secret=secret)) from error

    def _from_data(self, parameter: "Parameter", data: bytes | None) -> "Any":
        if data is None:
            if parameter.required:
                raise UsageError(f"missing argument: {parameter.label}")
            return parameter.default
        try:
            return parameter.value(data)
        except ValueError as error:
            raise DataError(parameter.complaint(b"", str(error), secret=True)) from error

    def _options(
        self, parameters: "list[Parameter]", args: "Sequence[bytes]"
    ) -> "tuple[dict[str, Any], Sequence[bytes]]":
        """Take the options off the front.

        Without any declared, an argument may begin with a dash like any other. With some, they end
        where an argument does not begin with one, or is ``--``.
        """
        options = [p for p in parameters if p.kind in ("option", "flag")]
        found: dict[str, Any] = {p.name: p.default for p in options}
        if not options and not self.json:
            return found, args
        getopt = _getopt()
        by_name: dict[str, Parameter] = {}
        shorts = ""
        longs = ["json"] if self.json else []
        for option in options:
            value = option.kind == "option"
            longs.append(option.label[2:] + ("=" if value else ""))
            shorts += "".join(letter + (":" if value else "") for letter in option.shorts)
            by_name |= dict.fromkeys((option.label, *(f"-{s}" for s in option.shorts)), option)
        try:
            pairs, rest = getopt.getopt([os.fsdecode(octets) for octets in args], shorts, longs)
        except getopt.GetoptError as error:
            raise UsageError(error.msg) from None
        given: dict[str, list[Any]] = {}
        for name, text in pairs:
            if name == "--json" and name not in by_name:
                found[name] = True
                continue
            option = by_name[name]
            if option.kind == "flag":
                value = option.default is not True
            else:
                value = self._from_argument(option, os.fsencode(text))
            given.setdefault(option.name, []).append(value)
        for option in options:
            if option.name in given:
                found[option.name] = given[option.name] if option.many else given[option.name][-1]
            elif option.required:
                raise UsageError(f"missing option: {option.label}")
            elif option.many and option.default is None:
                found[option.name] = []
        return found, [os.fsencode(text) for text in rest]


class Group:
    """Commands under one name. Make one with ``Backend.group()``.

    Attributes:
        path: the names that lead to it; empty for the backend itself.
        about: what its commands are about.
    """

    def __init__(self, path: tuple[str, ...], about: str, acl: "Acl | None") -> None:
        """Start empty."""
        self.path = path
        self.about = about
        self.acl = _words(acl)
        self.members: dict[str, Command | Group] = {}

    def command(
        self,
        name: str | None = None,
        /,
        *,
        stdin: str | None = None,
        logmask: "Sequence[str]" = (),
        acl: "Acl | None" = None,
        json: bool = False,
        hidden: bool = False,
    ) -> "Callable[[F], F]":
        """Make a function a subcommand; a decorator, which returns the function as it is.

        Its parameters are the arguments: positional ones in their order, with a default optional,
        ``*names`` repeated; keyword-only ones are options. The types are those of the annotations.

        Args:
            name: the subcommand, by default the function's name with ``-`` for ``_``. ``""`` is
                what runs when no subcommand is given.
            stdin: the parameter that comes on standard input: of any size, and with any octets.
            logmask: parameters that remctld's log must not show.
            acl: who may run it, for ``config``; by default as the group or the backend says.
            json: what the function returns is data, and there is an option ``--json``.
            hidden: leave it out of help and summary.

        Raises:
            TypeError: the parentheses after ``command`` were left out.
            ValueError: the name is taken, reserved, or cannot be written in remctl.conf.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError("write @backend.command(), with parentheses")

        def register(function: "F") -> "F":
            own = function.__name__.strip("_").replace("_", "-") if name is None else name
            path = (*self.path, own) if own else self.path
            self._add(
                own,
                Command(
                    function,
                    path,
                    stdin=stdin,
                    logmask=logmask,
                    acl=_words(acl) or self.acl,
                    json=json,
                    hidden=hidden,
                ),
            )
            return function

        return register

    def group(self, name: str, about: str = "", *, acl: "Acl | None" = None) -> "Group":
        """Make a subcommand that has subcommands.

        Args:
            name: the subcommand.
            about: what its commands are about, for the help.
            acl: who may run them, for ``config``.

        Raises:
            ValueError: see command().
        """
        if not name:
            raise ValueError("a group needs a name")
        group = Group((*self.path, name), about, _words(acl) or self.acl)
        self._add(name, group)
        return group

    def _add(self, name: str, member: "Command | Group") -> None:
        if name in self.members:
            raise ValueError(f"there is a subcommand {name!r} already")
        if not self.path and name in (*_RESERVED, *_KEYWORDS):
            raise ValueError(f"{name!r} is reserved")
        if name and (name.split() != [name] or not name.isprintable()):
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        self.members[name] = member

    def commands(self) -> "Iterator[Command]":
        """Return all commands, those of groups in it included, in the order of declaration."""
        for member in self.members.values():
            if isinstance(member, Group):
                yield from member.commands()
            else:
                yield member

    def find(self, args: "Sequence[bytes]") -> "tuple[Command, Sequence[bytes]]":
        """Return the command that is meant, and the arguments after its name.

        Raises:
            UsageError: there is none.
        """
        name = os.fsdecode(args[0]) if args else ""
        member = self.members.get(name) if name or not args else None
        if isinstance(member, Group):
            return member.find(args[1:])
        if isinstance(member, Command):
            return member, args[1:]
        if not args:
            after = f" after {' '.join(self.path)}" if self.path else ""
            raise UsageError(f"missing subcommand{after}")
        raise UsageError(f"unknown subcommand: {quoted(' '.join((*self.path, name)))}")

    def takes_data_last(self) -> bool:
        """Whether a command in it has its last argument on standard input."""
        return any(command.stdin is not None for command in self.commands())


class Backend(Group):
    """The program that remctld runs for a command.

    Attributes:
        name: the command, as clients name it.
        log: what gets the text of internal errors; the system log unless another was given.
    """

    def __init__(
        self,
        name: str,
        about: str = "",
        *,
        acl: "Acl | None" = None,
        log: "Callable[[str], object] | None" = None,
    ) -> None:
        """Start without subcommands.

        Args:
            name: the command, as clients name it and remctl.conf has it.
            about: what it is about, for the help.
            acl: who may run its commands, for ``config``: ``"ANYUSER"``, say, or several entries.
            log: called with a text, of many lines, where an internal error is to be logged.

        Raises:
            ValueError: the name cannot be written in remctl.conf.
        """
        super().__init__((), about, acl)
        if name.split() != [name] or not name.isprintable() or name in _KEYWORDS:
            raise ValueError(f"{name!r} cannot be written in remctl.conf")
        self.name = name
        self.log = log
        # Where it was made: what a server for tests has to run.
        self.file: str | None = sys._getframe(1).f_globals.get("__file__")

    def __repr__(self) -> str:
        return f"<Backend {self.name!r}, {sum(1 for _ in self.commands())} commands>"

    def run(self) -> int:
        """Run the command that this process was started for.

        Returns:
            The exit status, for ``raise SystemExit(backend.run())``. It does not raise, whatever
            the command does.
        """
        from .running import run_process

        return run_process(self)

    def invoke(
        self,
        args: "Sequence[str | bytes]",
        *,
        user: str | None = None,
        input: "str | bytes | None" = None,
        environ: "Mapping[str, str] | None" = None,
        reraise: bool = False,
    ) -> "InvokeResult":
        """Run a command in this process, as remctld would: for tests.

        Args:
            args: subcommand and arguments, without what comes on standard input.
            user: the principal that calls, REMOTE_USER.
            input: the argument on standard input; None if there is none.
            environ: more of what remctld sets: REMOTE_ADDR, REMOTE_HOST, REMOTE_EXPIRES,
                REMCTL_COMMAND (by default the backend's name).
            reraise: let an unexpected exception through, instead of making it an internal error.

        Returns:
            A `remctl.RemctlSimpleResult`, as a client would get it, with an attribute ``log``:
            what would be in the system log.
        """
        from .invoking import invoke

        return invoke(self, args, user=user, input=input, environ=environ or {}, reraise=reraise)

    def rules(self) -> "list[dict[str, Any]]":
        """Return the lines of remctl.conf: keyword arguments of `remctl_toolkit.testing.Command`.

        All but ``program`` are there.

        Raises:
            TypeError, ValueError: what was declared cannot be done with remctld.
        """
        from .configuration import rules

        return rules(self)

    def check(self, file: "str | os.PathLike[str]", program: str | None = None) -> list[str]:
        """Compare a remctl.conf with what is declared, as ``check FILE`` does.

        Args:
            file: its path.
            program: what it should have remctld run; None if that does not matter.

        Returns:
            The differences, a sentence each.

        Raises:
            OSError: the file cannot be read.
            CommandError: remctld could not read it, or not do what is declared.
        """
        from .configuration import differences

        return differences(self, file, program)


def _getopt() -> "ModuleType":
    """Import getopt without gettext, for which it has its own replacement.

    gettext brings `re` and more: three times what all of this package takes.
    """
    if "gettext" in sys.modules:
        import getopt
    else:
        sys.modules["gettext"] = None  # type: ignore[assignment]  # importing it fails
        try:
            import getopt
        finally:
            del sys.modules["gettext"]
    return getopt


def _words(acl: "Acl | None") -> tuple[str, ...]:
    return () if acl is None else (acl,) if isinstance(acl, str) else tuple(acl)
