"""One subcommand: a function, its declaration, and the parsing of its arguments."""

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
    """One subcommand: a function and its declaration.

    Attributes:
        function: the function to run.
        path: names of the groups and of the command.
        has_name: whether it has a name of its own; without one it gets no arguments.
        parameters: those of the function without the Context, and ``--json``.
        arguments: the positional parameters, ``*names`` included.
        options: the other parameters, by the text that the caller writes: ``--force``, ``-f``.
        stdin: the parameter that comes on standard input, or None.
        stdin_place: value of ``stdin=`` in remctl.conf: a number, "last", or None.
        logmask: the parameters that no log may show.
        masked_places: value of ``logmask=`` in remctl.conf.
        acl: entries that say who may run it.
        json: whether the function returns data.
        hidden: whether help and summary omit it.
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
        """Examine the declaration.

        Raises:
            TypeError: the function cannot be a command, or does not fit the declaration.
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
                raise TypeError('command "" gets no arguments: give each parameter a default')
        except TypeError as error:
            raise TypeError(f"command {' '.join(self.path)!r}: {error}") from None

    @property
    def shown(self) -> "list[Parameter]":
        """The parameters to show in help: none for a command without a name."""
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
        ends = ""  # the name of a list, which must be the last argument
        for parameter in self.parameters:
            for label in parameter.labels:
                if label in self.options:
                    name = parameter.name
                    raise TypeError(f"parameter {name!r}: another one already uses {label}")
                self.options[label] = parameter
            if not parameter.is_option:
                self.arguments.append(parameter)
                if ends and parameter.name != self.stdin:
                    raise TypeError(f"parameter {ends!r}: only the last argument can be a list")
                ends = parameter.name if parameter.many else ends

    def _index(self, name: str) -> int:
        """Return the index of a positional parameter."""
        for index, parameter in enumerate(self.arguments):
            if parameter.name == name and parameter.kind == "positional":
                return index
        raise TypeError(f"parameter {name!r}: the function has no positional parameter so named")

    def _masked_places(self) -> tuple[int, ...]:
        """Return the numbers of masked arguments; the subcommand is 1."""
        if not self.logmask:
            return ()
        indices = {self._index(name) for name in self.logmask if name != self.stdin}
        for index in indices:
            self.arguments[index].secret = True
        if self.options:
            raise TypeError(
                f"parameter {self.logmask[0]!r}: options before a masked argument change its"
                " number: read it from standard input (stdin=), which is never logged"
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
            f"parameter {self.stdin!r}: remctl.conf cannot express this place for standard input:"
            " make it the last positional parameter, without a default"
        )

    @property
    def is_secret(self) -> bool:
        """Report whether logs must hide some of the arguments."""
        return bool(self.logmask) or self.stdin is not None

    def call(self, context: "Context", args: "Sequence[bytes]", data: bytes | None) -> "Any":
        """Call the function.

        Args:
            context: the caller.
            args: all arguments after the command's own name.
            data: the data on standard input; None if there is no standard input.

        Returns:
            The function's result, and whether ``--json`` was given (False without `json`).

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
        """Split options, which come first as POSIX says, from arguments.

        A command without options takes arguments that begin with a dash as they are. Otherwise
        options end at the first argument without a dash, at ``-`` or at ``--``. Long names cannot
        be abbreviated.

        Returns:
            The values of the given options, by their parameters' names, and the arguments.

        Raises:
            UsageError: an option is unknown, lacks its value, or has one that it does not take.
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
