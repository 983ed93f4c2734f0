"""From a function's signature to the parameters of a command.

It does without `inspect`, which takes as long to import as all the rest.
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

# The kind of a parameter, by its place in the signature and by what it holds.
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
        type: what its annotation says.
        kind: "context", "positional", "list" or "rest" (all arguments that are left, as a list or
            for ``*names``), "option" (with a value), "flag" or "count".
        label: as the caller knows it: ``USER``, or ``--force``.
        labels: what an option begins with: ``--force``, ``-f``; nothing for others.
        is_option: whether it is one of the last three kinds.
        many: whether it may be given more than once.
        required: whether it must be given.
        default: the value without it.
        about: what it is, for the help.
        secret: whether no message may repeat it.
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
        """Make sense of a parameter.

        Args:
            name: as in the function.
            place: where it stands: "positional", "rest" (``*names``) or "option".
            annotation: its type, or the text of it.
            scope: the variables that such a text may name.
            default: the value without it.
            required: whether it must be given; a flag or a count is not, in any case.

        Raises:
            TypeError: no argument can be that.
        """
        self.name = name
        self.type = type_of(annotation, scope)
        holds = self.type.holds
        kind = _KINDS.get((place, holds))
        if kind is None:
            raise TypeError(f"a {holds} cannot be here: {_CURES[holds]}")
        self.kind = kind
        self.is_option = place == "option"
        self.many = kind in ("list", "rest", "count") or holds in ("list", "dict")
        self.required = required
        self.default = default
        if kind == "count" and not isinstance(default, int | None):
            raise TypeError(f"the default of a count is a number, not {default!r}")
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
                raise TypeError("only an option, after a * in the signature, has a short form")

    @property
    def value_label(self) -> str:
        """What help calls the value of an option; "" for a flag and a count."""
        if self.kind != "option":
            return ""
        return "KEY=VALUE" if self.type.holds == "dict" else self.name.strip("_").upper()

    def collect(self, given: "Sequence[bytes]") -> "Any":
        """Return the value for what was given: one argument, or as many as there are.

        Raises:
            UsageError: an argument is malformed, or there is none and it is required.
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
        """Return the value for what was on standard input; None is nothing at all.

        Raises:
            DataError: the data are malformed.
            UsageError: there are none, and they are required.
        """
        if data is None:
            return self.collect(())
        try:
            return self.type.convert(data)
        except ValueError as error:
            raise DataError(f"{self.label}: {error}") from error

    def _value(self, octets: bytes) -> "Any":
        try:
            # remctld lets one through where an argument may be on standard input, and this is not.
            if b"\0" in octets:
                raise ValueError("has a NUL")
            return self.type.convert(octets)
        except ValueError as error:
            quote = "" if self.secret else f": {quoted(text_of(octets))}"
            raise UsageError(f"{self.label}: {error}{quote}") from error


def parameters_of(function: "Any") -> list[Parameter]:
    """Examine a function.

    Returns:
        Its parameters: positional ones, ``*names``, options.

    Raises:
        TypeError: it cannot be a command.
    """
    inner, bound = _innermost(function)
    code = inner.__code__
    if code.co_flags & _VAR_KEYWORD:
        raise TypeError("a command cannot take **keywords: its options are its own parameters")
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
        raise TypeError("a method is declared once there is an object: command(...)(object.method)")
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
    """Return the function that has the signature, and how many parameters are bound already."""
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
            raise TypeError("a command cannot be a coroutine: call asyncio.run() in it")
        wrapped = getattr(inner, "__wrapped__", None)
        if wrapped is not None and (code is None or code.co_flags & _VAR_POSITIONAL):
            inner = wrapped
        elif code is not None:
            is_narrow = code is not outermost and not flags & _VAR_KEYWORD
            if code.co_kwonlyargcount and is_narrow:
                raise TypeError("it has options, but its decorator takes no **keywords")
            return inner, bound
        else:
            break
    raise TypeError(f"a command is a function, not {function!r}")


def _annotations(function: "Any") -> "dict[str, Any]":
    try:
        found: dict[str, Any] = function.__annotations__
    except NameError:
        # Python 3.14 evaluates all of them now; names that it cannot find become ForwardRefs.
        import importlib

        library: Any = importlib.import_module("annotationlib")
        found = library.get_annotations(function, format=library.Format.FORWARDREF)
    return found
