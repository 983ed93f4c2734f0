"""Make the parameters of a command from a function's signature.

This avoids `inspect`, which takes as long to import as the rest of the package.
"""

import sys

from .errors import DataError, UsageError, quoted
from .values import text_of, type_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["Parameter", "parameters_of"]

_COROUTINE = 0x80 | 0x200  # code flags of inspect: CO_COROUTINE, CO_ASYNC_GENERATOR
_VAR_POSITIONAL = 0x04
_VAR_KEYWORD = 0x08

# The kind of a parameter, by its place in the signature and by the values it holds.
_KINDS = {
    ("positional", "context"): "context",
    ("positional", "one"): "positional",
    ("positional", "bool"): "positional",
    ("positional", "list"): "list",
    ("rest", "one"): "rest",
    ("rest", "bool"): "rest",
    ("option", "one"): "option",
    ("option", "list"): "option",
    ("option", "dict"): "option",
    ("option", "bool"): "flag",
    ("option", "count"): "count",
}
_CURES = {
    "context": "make it the first parameter",
    "list": "annotate it with the type of one argument",
    "dict": "make it an option, after a * in the signature",
    "count": "make it an option, after a * in the signature",
}


class Parameter:
    """One parameter of a command.

    Attributes:
        name: as in the function.
        type: the parsed annotation.
        kind: "context", "positional", "list" or "rest" (all remaining arguments, as a list or for
            ``*names``), "option" (with a value), "flag" or "count".
        label: name for the caller: ``USER`` or ``--force``.
        labels: forms of an option: ``--force``, ``-f``; empty for an argument.
        is_option: whether it is one of the last three kinds.
        many: whether it may be given more than once.
        required: whether it must be given.
        default: value if it is not given.
        about: description for the help.
        secret: whether messages must not quote it.
    """

    __slots__ = (
        "about",
        "default",
        "is_option",
        "kind",
        "label",
        "labels",
        "many",
        "name",
        "required",
        "secret",
        "type",
    )

    def __init__(
        self,
        name: str,
        place: str,
        annotation: "Any",
        scope: "dict[str, Any]",
        *,
        default: "Any",
        required: bool,
    ) -> None:
        """Examine a parameter.

        Args:
            name: as in the function.
            place: "positional", "rest" (``*names``) or "option".
            annotation: its type, or the type's source text.
            scope: the variables that such a text may name.
            default: value if it is not given.
            required: whether it must be given; ignored for a flag or a count.

        Raises:
            TypeError: the type is not supported there.
        """
        self.name = name
        self.type = type_of(annotation, scope)
        holds = self.type.holds
        kind = _KINDS.get((place, holds))
        if kind is None:
            raise TypeError(f"a {holds} is not allowed here: {_CURES[holds]}")
        self.kind = kind
        self.is_option = place == "option"
        self.many = kind in ("list", "rest", "count") or holds in ("list", "dict")
        self.required = required
        self.default = default
        if kind == "count" and not isinstance(default, int | None):
            raise TypeError(f"the default of a count must be a number, not {default!r}")
        if required and kind in ("flag", "count"):
            self.required, self.default = False, kind == "count" and 0
        self.about = self.type.about
        self.secret = False
        word = name.strip("_") or name
        if self.is_option:
            no = "no-" if kind == "flag" and default is True else ""
            self.label = f"--{no}{word.replace('_', '-')}"
            self.labels = (self.label, *[f"-{letter}" for letter in self.type.shorts])
        else:
            self.label, self.labels = word.upper(), ()
            if self.type.shorts:
                raise TypeError("Short() is for options: put it after a * in the signature")

    @property
    def value_label(self) -> str:
        """Name of an option's value in the help; "" for a flag or count."""
        if self.kind != "option":
            return ""
        return "KEY=VALUE" if self.type.holds == "dict" else self.name.strip("_").upper()

    def collect(self, given: "Sequence[bytes]") -> "Any":
        """Return the value for the given arguments: one, or any number.

        Raises:
            UsageError: an argument is malformed, or a required one is missing.
        """
        if not given:
            if self.required:
                what = "option" if self.is_option else "argument"
                raise UsageError(f"missing {what}: {self.label}")
            return self.default
        if self.kind == "flag":
            return self.default is not True
        if self.kind == "rest":
            return [self._value(octets) for octets in given]
        if self.kind == "count":
            values: list[Any] = [(self.default or 0) + len(given)]
        else:
            values = [self._value(octets) for octets in given]
        try:
            return self.type.together(values)
        except ValueError as error:
            raise UsageError(f"{self.label}: {error}") from error

    def from_data(self, data: bytes | None) -> "Any":
        """Return the value for the data on standard input; None if there was no standard input.

        Raises:
            DataError: the data are malformed.
            UsageError: required data are missing.
        """
        if data is None:
            return self.collect(())
        try:
            return self.type.convert(data)
        except ValueError as error:
            raise DataError(f"{self.label}: {error}") from error

    def _value(self, octets: bytes) -> "Any":
        try:
            # remctld passes a NUL if the line has stdin=, even in another argument.
            if b"\0" in octets:
                raise ValueError("contains a NUL")
            return self.type.convert(octets)
        except ValueError as error:
            quote = "" if self.secret else f": {quoted(text_of(octets))}"
            raise UsageError(f"{self.label}: {error}{quote}") from error


def parameters_of(function: "Any") -> list[Parameter]:
    """Examine a function.

    Returns:
        Its parameters: positional ones, ``*names``, options.

    Raises:
        TypeError: the function cannot be a command.
    """
    inner, bound = _innermost(function)
    code = inner.__code__
    if code.co_flags & _VAR_KEYWORD:
        raise TypeError("a command cannot take **keywords: declare each option as a parameter")
    names, count = code.co_varnames, code.co_argcount
    options = count + code.co_kwonlyargcount
    given: dict[str, Any] = inner.__kwdefaults__ or {}
    if inner.__defaults__:
        names_given = names[count - len(inner.__defaults__) : count]
        given = {**given, **dict(zip(names_given, inner.__defaults__, strict=True))}
    places = dict.fromkeys(names[bound:count], "positional")
    if code.co_flags & _VAR_POSITIONAL:
        places[names[options]] = "rest"
        given = {**given, names[options]: ()}
    places |= dict.fromkeys(names[count:options], "option")
    if next(iter(places), "") == "self":
        raise TypeError("a method needs its object: write command(...)(object.method)")
    annotations = _annotations(inner)
    found = []
    for name, place in places.items():
        try:
            found.append(
                Parameter(
                    name,
                    place,
                    annotations.get(name, str),
                    inner.__globals__,
                    default=given.get(name),
                    required=name not in given,
                )
            )
        except TypeError as error:
            raise TypeError(f"parameter {name!r}: {error}") from None
    for parameter in found[1:]:
        if parameter.kind == "context":
            raise TypeError(f"parameter {parameter.name!r}: {_CURES['context']}")
    return found


def _innermost(function: "Any") -> "tuple[Any, int]":
    """Return the function that has the signature, and the number of bound parameters."""
    functools = sys.modules.get("functools")
    inner, bound, outermost = function, 0, None
    while callable(inner):
        if functools is not None and isinstance(inner, functools.partial):
            break
        if hasattr(inner, "__func__"):  # of a method, or of a staticmethod
            bound = int(hasattr(inner, "__self__"))
            inner = inner.__func__
            continue
        code = getattr(inner, "__code__", None)
        outermost = outermost or code
        flags = outermost.co_flags if outermost is not None else 0
        if flags & _COROUTINE:
            raise TypeError("a command cannot be a coroutine function: call asyncio.run() in it")
        wrapped = getattr(inner, "__wrapped__", None)
        if wrapped is not None and (code is None or code.co_flags & _VAR_POSITIONAL):
            inner = wrapped
        elif code is not None:
            is_narrow = code is not outermost and not flags & _VAR_KEYWORD
            if code.co_kwonlyargcount and is_narrow:
                raise TypeError("its decorator must accept **keywords, because it has options")
            return inner, bound
        else:
            break
    raise TypeError(f"a command must be a function, not {function!r}")


def _annotations(function: "Any") -> "dict[str, Any]":
    try:
        found: dict[str, Any] = function.__annotations__
    except NameError:
        # Python 3.14 evaluates annotations only now; unknown names become ForwardRefs.
        import importlib

        library: Any = importlib.import_module("annotationlib")
        found = library.get_annotations(function, format=library.Format.FORWARDREF)
    return found
