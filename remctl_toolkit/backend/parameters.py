"""From a function's signature to the arguments of a command, and from octets to values.

It does without `inspect` and `typing`, which take as long to import as all the rest.
"""

import sys

from .context import Context
from .errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Matches", "Parameter", "Short", "parameters_of"]

_COROUTINE = 0x80 | 0x200  # code flags of inspect: CO_COROUTINE, CO_ASYNC_GENERATOR
_VAR_POSITIONAL = 0x04
_VAR_KEYWORD = 0x08

_UNION = type(int | None)
_CONTAINERS = (list, tuple, set, frozenset, dict, object, type(None), Context)
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class Matches:
    """In ``Annotated[str, Matches("[a-z]+")]``: the whole argument must match the pattern."""

    __slots__ = ("pattern", "what")

    def __init__(self, pattern: str | bytes, what: str = "") -> None:
        """Take a regular expression.

        Args:
            pattern: the expression, of Python's `re`.
            what: what the argument should be, for the error message: "a user name".
        """
        self.pattern = pattern
        self.what = what

    def __call__(self, value: "Any") -> "Any":
        """Return the value if it matches.

        Raises:
            ValueError: it does not.
        """
        import re

        pattern: Any = self.pattern
        if isinstance(value, bytes) and isinstance(pattern, str):
            pattern = pattern.encode()
        if not re.fullmatch(pattern, value):
            raise ValueError(f"not {self.what}" if self.what else "invalid")
        return value


class Short:
    """In ``Annotated[bool, Short("f")]``: the option has a short form, ``-f``, too."""

    __slots__ = ("letter",)

    def __init__(self, letter: str) -> None:
        """Take the letter."""
        if len(letter) != 1 or not letter.isascii() or not letter.isalnum():
            raise ValueError(f"a short option is one letter or digit: {letter!r}")
        self.letter = letter


class Parameter:
    """One parameter of a command.

    Attributes:
        name: as in the function.
        label: as the caller knows it: ``USER``, or ``--force``.
        kind: "positional", "rest" (as many as there are), "option" (with a value) or "flag".
        required: whether it must be given.
        many: whether its values make a list.
        default: the value without it.
        shorts: the short options' letters.
        choices: the texts it can be, () if there are more.
        about: what it is, for the help.
    """

    __slots__ = (
        "_checks",
        "_convert",
        "about",
        "choices",
        "default",
        "kind",
        "label",
        "many",
        "name",
        "required",
        "shorts",
    )

    def __init__(self, name: str, kind: str, annotation: "Any", default: "Any", required: bool):
        """Make sense of a parameter.

        Raises:
            TypeError: the annotation is none that an argument can have.
        """
        self.name = name
        self.kind = kind
        self.required = required
        self.default = default
        self.shorts: tuple[str, ...] = ()
        self.about = ""
        self.choices: tuple[str, ...] = ()
        self._checks: list[Callable[[Any], Any]] = []
        annotation = self._unwrap(annotation)
        self.many = getattr(annotation, "__origin__", None) is list
        if self.many:
            (annotation,) = annotation.__args__
            annotation = self._unwrap(annotation)
        if kind == "option" and annotation is bool and not self.many:
            self.kind = "flag"
        if kind == "positional" and self.many:
            self.kind = "rest"
        self._convert = self._converter(annotation)
        self.label = self._label()

    def _label(self) -> str:
        if self.kind in ("positional", "rest"):
            return self.name.strip("_").upper()
        no = "no-" if self.kind == "flag" and self.default is True else ""
        return f"--{no}{self.name.strip('_').replace('_', '-')}"

    def _unwrap(self, annotation: "Any") -> "Any":
        """Take an Annotated apart, and leave None out of a union."""
        for item in getattr(annotation, "__metadata__", ()):
            if isinstance(item, str):
                self.about = item
            elif isinstance(item, Short):
                self.shorts = (*self.shorts, item.letter)
            elif callable(item):
                self._checks.append(item)
        if hasattr(annotation, "__metadata__"):
            return self._unwrap(annotation.__origin__)
        if _is_union(annotation):
            members = [member for member in annotation.__args__ if member is not type(None)]
            if len(members) == 1:
                return self._unwrap(members[0])
        return annotation

    def _converter(self, annotation: "Any") -> "Callable[[bytes], Any]":
        """Return the function that makes a value of octets, or raises ValueError."""
        plain = _CONVERTERS.get(annotation) if isinstance(annotation, type) else None
        if plain is not None:
            return plain
        if _is_union(annotation):
            members = [member for member in annotation.__args__ if member is not type(None)]
            return _first_of([self._converter(member) for member in members])
        typing, enum, pathlib = (sys.modules.get(name) for name in ("typing", "enum", "pathlib"))
        if typing is not None:
            if annotation is typing.Any:
                return _text
            if getattr(annotation, "__origin__", None) is typing.Literal:
                return self._one_of({str(value): value for value in annotation.__args__})
        if isinstance(annotation, type):
            if enum is not None and issubclass(annotation, enum.Enum):
                enumeration: Any = annotation
                return self._one_of({str(member.value): member for member in enumeration})
            if pathlib is not None and issubclass(annotation, pathlib.PurePath):
                return lambda octets: annotation(_text_without_nul(octets))
            if annotation not in _CONTAINERS:
                return lambda octets: _construct(annotation, _text_without_nul(octets))
        raise TypeError(f"parameter {self.name}: no argument can be {annotation!r}")

    def _one_of(self, values: "dict[str, Any]") -> "Callable[[bytes], Any]":
        self.choices = tuple(values)

        def convert(octets: bytes) -> "Any":
            try:
                return values[_text(octets)]
            except KeyError:
                raise ValueError(f"not one of {', '.join(values)}") from None

        return convert

    def value(self, octets: bytes) -> "Any":
        """Make the value of an argument.

        Raises:
            ValueError: it is malformed; the text says what it is not.
        """
        value = self._convert(octets)
        for check in self._checks:
            checked = check(value)
            value = value if checked is None else checked
        return value

    def complaint(self, octets: bytes, reason: str, *, secret: bool) -> str:
        """Return the error message for a malformed argument; a secret one is not repeated."""
        return f"{self.label}: {reason}" + ("" if secret else f": {quoted(_text(octets))}")


def parameters_of(function: "Callable[..., Any]") -> "tuple[list[Parameter], bool]":
    """Examine a function.

    Returns:
        Its parameters, and whether the first one (which is not among them) is the Context.

    Raises:
        TypeError: it cannot be a command.
    """
    inner, bound = _innermost(function)
    code = inner.__code__
    if code.co_flags & _COROUTINE:
        raise TypeError("a command cannot be a coroutine: call asyncio.run() in it")
    if code.co_flags & _VAR_KEYWORD:
        raise TypeError("a command cannot take **keywords: its options are its own parameters")
    annotations = _annotations(inner)
    names = code.co_varnames
    count, keywords = code.co_argcount, code.co_kwonlyargcount
    positional = list(names[bound:count])
    has_context = bool(positional) and annotations.get(positional[0]) is Context
    del positional[:has_context]
    defaults = inner.__defaults__ or ()
    given = dict(zip(names[count - len(defaults) : count], defaults, strict=True))
    found = [_parameter(name, "positional", annotations, given) for name in positional]
    if code.co_flags & _VAR_POSITIONAL:
        name = names[count + keywords]
        found.append(Parameter(name, "rest", annotations.get(name, str), (), required=False))
    given = inner.__kwdefaults__ or {}
    options = names[count : count + keywords]
    found += [_parameter(name, "option", annotations, given) for name in options]
    if any(parameter.kind == "rest" for parameter in found[: len(positional) - 1]):
        raise TypeError("only the last parameter can be a list")
    return found, has_context


def _parameter(
    name: str, kind: str, annotations: "dict[str, Any]", defaults: "dict[str, Any]"
) -> Parameter:
    required = name not in defaults
    parameter = Parameter(name, kind, annotations.get(name, str), defaults.get(name), required)
    if parameter.kind == "flag" and required:
        parameter.required = parameter.default = False
    return parameter


def _innermost(function: "Any") -> "tuple[Any, int]":
    """Return the function that has the signature, and how many parameters are bound already."""
    bound = 0
    while True:
        if hasattr(function, "__func__"):  # of a method
            function, bound = function.__func__, 1
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__code__"):
            return function, bound
        else:
            raise TypeError(f"a command is a function, not {function!r}")


def _annotations(function: "Any") -> "dict[str, Any]":
    """Return the annotations; those that are text (PEP 563) are evaluated."""
    found = {}
    for name, annotation in function.__annotations__.items():
        if isinstance(annotation, str) and name != "return":
            try:
                annotation = eval(annotation, function.__globals__)
            except Exception as error:
                raise TypeError(
                    f"parameter {name}: {annotation} cannot be evaluated: {error}"
                ) from None
        found[name] = annotation
    return found


def _is_union(annotation: "Any") -> bool:
    if isinstance(annotation, _UNION):
        return True
    typing = sys.modules.get("typing")
    return typing is not None and getattr(annotation, "__origin__", None) is typing.Union


# -- Octets to values -----------------------------------------------------------------------------


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _text_without_nul(octets: bytes) -> str:
    if b"\0" in octets:
        raise ValueError("has a NUL")
    return _text(octets)


def _integer(octets: bytes) -> int:
    # int() alone takes spaces, underscores and the digits of every script, too.
    if octets.removeprefix(b"-").isdigit():
        try:
            return int(octets)
        except ValueError:  # of thousands of digits
            pass
    raise ValueError("not an integer")


def _number(octets: bytes) -> float:
    if not octets.strip(b"0123456789.eE+-"):
        try:
            value = float(octets)
        except ValueError:
            pass
        else:
            if abs(value) != float("inf"):
                return value
    raise ValueError("not a number")


def _truth(octets: bytes) -> bool:
    text = _text(octets).lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError("neither yes nor no")
    return text in _TRUE


def _construct(kind: "type[Any]", text: str) -> "Any":
    try:
        return getattr(kind, "fromisoformat", kind)(text)
    except ValueError as error:
        raise ValueError(f"not a valid {kind.__name__}") from error


def _first_of(converters: "list[Callable[[bytes], Any]]") -> "Callable[[bytes], Any]":
    """Return a function that tries several ways; the last one's complaint counts."""

    def convert(octets: bytes) -> "Any":
        for converter in converters[:-1]:
            try:
                return converter(octets)
            except ValueError:
                continue
        return converters[-1](octets)

    return convert


_CONVERTERS: "dict[type, Callable[[bytes], Any]]" = {
    bytes: bytes,
    bool: _truth,
    float: _number,
    int: _integer,
    str: _text,
}
