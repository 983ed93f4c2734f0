"""One subcommand: a function, what was declared about it, and how it gets its arguments."""

from .errors import UsageError
from .parameters import Parameter, parameters_of
from .values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .context import Context

__all__ = ["Command"]


class Command:
    """One subcommand: a function, and what was declared about it.

    Attributes:
        function: what it runs.
        path: the names that lead to it.
        has_name: whether it has one of its own, and so can be given arguments.
        parameters: those of the function but for the Context, and ``--json``.
        arguments: those of them that are positional, ``*names`` included.
        options: the other ones, by what the caller writes: ``--force``, ``-f``.
        stdin: the parameter that comes on standard input, or None.
        stdin_place: what ``stdin=`` in remctl.conf says: a number, "last", or None.
        logmask: the parameters that no log may show.
        masked_places: what ``logmask=`` in remctl.conf says.
        acl: who may run it.
        json: whether what the function returns is data.
        hidden: whether help and summary leave it out.
    """

    __slots__ = (
        "_has_context",
        "acl",
        "arguments",
        "function",
        "has_name",
        "hidden",
        "json",
        "logmask",
        "masked_places",
        "options",
        "parameters",
        "path",
        "stdin",
        "stdin_place",
    )

    def __init__(
        self,
        function: "Callable[..., Any]",
        group: tuple[str, ...],
        name: str,
        *,
        stdin: str | None,
        logmask: "Sequence[str]",
        acl: tuple[str, ...],
        json: bool,
        hidden: bool,
    ) -> None:
        """Keep what was declared.

        Raises:
            TypeError: the function cannot be a command, or does not fit what was declared.
        """
        self.function = function
        self.path = (*group, name) if name else group
        self.has_name = bool(name)
        self.stdin = stdin
        self.logmask = (logmask,) if isinstance(logmask, str) else tuple(logmask)
        self.acl = acl
        self.json = json
        self.hidden = hidden
        try:
            self._examine(function)
            self.masked_places = self._masked_places()
            self.stdin_place = self._stdin_place(in_group=bool(group))
            if not name and any(p.required for p in self.parameters):
                raise TypeError("it runs where no arguments are given, and so can require none")
        except TypeError as error:
            raise TypeError(f"command {' '.join(self.path)!r}: {error}") from None

    @property
    def shown(self) -> "list[Parameter]":
        """The parameters that help has: none of what runs where no subcommand is given."""
        return self.parameters if self.has_name else []

    @property
    def doc(self) -> str:
        """The function's docstring."""
        return self.function.__doc__ or ""

    def _examine(self, function: "Callable[..., Any]") -> None:
        self.arguments: list[Parameter] = []
        self.options: dict[str, Parameter] = {}
        self.parameters = parameters_of(function)
        self._has_context = bool(self.parameters) and self.parameters[0].kind == "context"
        if self._has_context:
            del self.parameters[0]
        if self.json:
            self.parameters.append(_json_option())
        ends = ""  # the name of a list, after which there are no arguments
        for parameter in self.parameters:
            for label in parameter.labels:
                if label in self.options:
                    raise TypeError(f"parameter {parameter.name!r}: there is {label} already")
                self.options[label] = parameter
            if not parameter.is_option:
                self.arguments.append(parameter)
                if ends and parameter.name != self.stdin:
                    raise TypeError(f"parameter {ends!r}: only the last one can be a list")
                ends = parameter.name if parameter.many else ends

    def _index(self, name: str) -> int:
        """Return where a positional parameter stands, from 0."""
        for index, parameter in enumerate(self.arguments):
            if parameter.name == name and parameter.kind == "positional":
                return index
        raise TypeError(f"parameter {name!r}: the function has no positional one of this name")

    def _masked_places(self) -> tuple[int, ...]:
        """Return the numbers of masked arguments; the subcommand is 1."""
        if not self.logmask:
            return ()
        indices = {self._index(name) for name in self.logmask if name != self.stdin}
        for index in indices:
            self.arguments[index].secret = True
        if self.options:
            raise TypeError(
                f"parameter {self.logmask[0]!r}: with options before it, a masked argument has no"
                " fixed number: have it on standard input, which is never logged"
            )
        return tuple(len(self.path) + 1 + index for index in sorted(indices))

    def _stdin_place(self, *, in_group: bool) -> int | str | None:
        if self.stdin is None:
            return None
        index = self._index(self.stdin)
        before = self.arguments[:index]
        is_fixed = not (self.options or in_group)  # A group has one line for all its commands.
        if is_fixed and all(p.required and not p.many for p in before):
            return len(self.path) + 1 + index
        if index == len(self.arguments) - 1 and self.arguments[index].required:
            return "last"
        raise TypeError(
            f"parameter {self.stdin!r}: remctld cannot tell where standard input stands: make it"
            " the last positional parameter, and required"
        )

    @property
    def is_secret(self) -> bool:
        """Whether a log must not show all of what it is given."""
        return bool(self.logmask) or self.stdin is not None

    def call(self, context: "Context", args: "Sequence[bytes]", data: bytes | None) -> "Any":
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
        given, waiting = self._split(args)
        values: list[Any] = [context] if self._has_context else []
        keywords: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.is_option:
                keywords[parameter.name] = parameter.collect(given.get(parameter.name, ()))
                continue
            if parameter.name == self.stdin:
                values.append(parameter.from_data(data))
                continue
            count = len(waiting) if parameter.many else 1
            value = parameter.collect(waiting[:count])
            values += value if parameter.kind == "rest" else [value]
            waiting = waiting[count:]
        if waiting:
            raise UsageError("too many arguments")
        as_json = keywords.pop("json") if self.json else False
        return self.function(*values, **keywords), as_json

    def _split(self, args: "Sequence[bytes]") -> "tuple[dict[str, list[bytes]], Sequence[bytes]]":
        """Take the options off the front, as POSIX says; names of long ones are never shortened.

        Without any declared, an argument may begin with a dash like any other. With some, they end
        where an argument does not begin with one, or is ``-`` or ``--``.

        Returns:
            The values of the options that are given, by their parameters' names, and the arguments.

        Raises:
            UsageError: there is no such option, or it has no value, or one too many.
        """
        given: dict[str, list[bytes]] = {}
        place = 0
        while self.options and place < len(args):
            word = text_of(args[place])
            if not word.startswith("-") or word == "-":
                break
            place += 1
            if word == "--":
                break
            is_long = word.startswith("--")
            name, equals, value = word.partition("=") if is_long else (word[:2], "", word[2:])
            while True:
                option = self.options.get(name)
                if option is None:
                    raise UsageError(f"option {name} not recognized")
                values = given.setdefault(option.name, [])
                if option.kind == "option":
                    if not equals and not value:
                        if place == len(args):
                            raise UsageError(f"option {name} requires argument")
                        values.append(args[place])
                        place += 1
                    else:
                        values.append(value.encode("utf-8", "surrogateescape"))
                    break
                if equals:
                    raise UsageError(f"option {name} must not have an argument")
                values.append(b"")
                if not value:
                    break
                name, value = f"-{value[0]}", value[1:]
        return given, args[place:]


def _json_option() -> Parameter:
    option = Parameter("json", "option", bool, {}, default=False, required=False)
    option.about = "write the data as JSON"
    return option
