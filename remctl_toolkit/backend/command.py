"""One subcommand: a function, what was declared about it, and how it gets its arguments."""

import os
import sys

from .context import Context
from .errors import DataError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from .parameters import Parameter

__all__ = ["Command"]


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
