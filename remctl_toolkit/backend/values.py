"""Convert the octets of an argument to a value, as the annotation says.

This avoids `typing`, which takes as long to import as the rest of the package.
"""

import sys
from _collections_abc import Mapping, Sequence

from .context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from re import Pattern
    from types import CodeType
    from typing import Any

    Convert = Callable[[bytes], Any]

__all__ = ["Count", "Matches", "Short", "Type", "text_of", "type_of", "word_of"]

_UNION = type(int | None)
_CONTAINERS: "dict[Any, type[Any]]" = {
    list: list,
    Sequence: list,
    tuple: tuple,
    dict: dict,
    Mapping: dict,
}
_HOLDERS = (list, tuple, set, frozenset, dict, type)  # They would split a str into characters.
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class Short:
    """Short form of an option: ``Annotated[bool, Short("f")]`` adds ``-f``."""

    __slots__ = ("letter",)

    def __init__(self, letter: str) -> None:
        """Check the letter.

        Raises:
            ValueError: it is not one ASCII letter or digit.
        """
        if len(letter) != 1 or not letter.isascii() or not letter.isalnum():
            raise ValueError(f"a short option must be one ASCII letter or digit: {letter!r}")
        self.letter = letter


class Count:
    """Counted option without a value: with ``Annotated[int, Count()]``, ``-vv`` is 2."""

    __slots__ = ()


class Matches:
    """Pattern for a whole argument: ``Annotated[str, Matches("[a-z]+")]``."""

    __slots__ = ("pattern", "what")

    def __init__(self, pattern: "str | bytes | Pattern[Any]", what: str = "") -> None:
        """Set the pattern.

        Args:
            pattern: a regular expression of Python's `re`, compiled or not. A str pattern is
                matched with the argument as text, a bytes pattern with its octets, regardless of
                the parameter's type.
            what: description of a valid argument for the error message: "a user name".
        """
        self.pattern = pattern
        self.what = what

    def __call__(self, octets: bytes) -> None:
        """Check an argument.

        Raises:
            ValueError: the argument does not match.
        """
        import re

        pattern: Any = re.compile(self.pattern)
        if not pattern.fullmatch(text_of(octets) if isinstance(pattern.pattern, str) else octets):
            raise ValueError(f"not {self.what}" if self.what else "invalid")


class Type:
    """A parsed annotation of a parameter.

    Attributes:
        holds: "one" value, a "bool", a "list" of values, a "dict", a "count", or the "context".
        choices: the valid arguments; () if they cannot be listed.
        about: description of the parameter, for the help.
        shorts: the letters of the short options.
        convert: converts an argument to a value, or to an item of a list or dict. It raises a
            ValueError with a text such as "not an integer".
    """

    __slots__ = ("_checks", "_container", "about", "choices", "convert", "holds", "shorts")

    def __init__(self, annotation: "Any", scope: "dict[str, Any]") -> None:
        """Parse an annotation.

        Args:
            annotation: the type, or its source text.
            scope: the variables that the text may name.

        Raises:
            TypeError: the type is not supported.
        """
        self.about = ""
        self.choices: tuple[str, ...] = ()
        self.shorts: tuple[str, ...] = ()
        self.holds = "one"
        annotation, checks = self._unwrap(annotation, scope)
        self._container = _CONTAINERS.get(getattr(annotation, "__origin__", None))
        self.convert: Convert = bytes
        self._checks: list[Any] = []
        if self._container is not None:
            self.holds = "dict" if self._container is dict else "list"
            patterns = [check for check in checks if isinstance(check, Matches)]
            self._checks = [check for check in checks if not isinstance(check, Matches)]
            self.convert = _checked(self._item(annotation, scope), patterns)
        elif self.holds == "count":
            if annotation is not int:
                raise TypeError(f"a count must be an int, not {_shown(annotation)}")
            self._checks = checks
        elif annotation is Context:
            self.holds = "context"
        else:
            self.holds = "bool" if annotation is bool else "one"
            self.convert = _checked(self._plain(annotation, scope), checks)

    def together(self, values: "list[Any]") -> "Any":
        """Return the function's argument for some values: a container, or else the last value.

        Raises:
            ValueError: a check refuses them.
        """
        value = values[-1] if self._container is None else self._container(values)
        return _passed(self._checks, value)

    def _unwrap(self, annotation: "Any", scope: "dict[str, Any]") -> "tuple[Any, list[Any]]":
        """Resolve names and aliases, split Annotated, and remove None from a union.

        Returns:
            The type, and the checks for its values.
        """
        checks: list[Any] = []
        while not isinstance(annotation, type):
            if isinstance(annotation, str):
                annotation = _evaluated(annotation, scope)
            elif hasattr(annotation, "__metadata__"):
                checks = [*self._checks_in(annotation.__metadata__), *checks]
                annotation = annotation.__origin__
            elif hasattr(annotation, "__origin__") and not getattr(annotation, "__args__", None):
                annotation = annotation.__origin__  # typing.List without an item type
            elif len(members := _members(annotation)) == 1:
                annotation = members[0]
            else:  # a NewType, a ForwardRef, or a `type` statement of Python 3.12
                for attribute in ("__supertype__", "__forward_arg__", "__value__"):
                    if hasattr(annotation, attribute):
                        annotation = getattr(annotation, attribute)
                        break
                else:
                    break
        return annotation, checks

    def _checks_in(self, metadata: "tuple[Any, ...]") -> "list[Any]":
        """Store the metadata of an Annotated, and return the checks in it."""
        checks = []
        for item in metadata:
            if isinstance(item, str):
                self.about = item
            elif isinstance(item, Short):
                self.shorts = (*self.shorts, item.letter)
            elif isinstance(item, Count):
                self.holds = "count"
            elif isinstance(item, type) and issubclass(item, (Count, Matches, Short)):
                raise TypeError(f"write {item.__name__}(...), not {item.__name__}")
            elif callable(item):
                checks.append(item)
        return checks

    def _item(self, annotation: "Any", scope: "dict[str, Any]") -> "Convert":
        """Return the function that converts an argument to one item of a container."""
        args = annotation.__args__
        if self._container is dict:
            if args[0] is not str:
                raise TypeError(f"the keys of {_shown(annotation)} must be str")
            return _pair(self._converter(args[1], scope))
        if self._container is tuple and args[1:] != (...,):
            raise _refused(annotation, "write tuple[str, ...]")
        return self._converter(args[0], scope)

    def _converter(self, annotation: "Any", scope: "dict[str, Any]") -> "Convert":
        annotation, checks = self._unwrap(annotation, scope)
        return _checked(self._plain(annotation, scope), checks)

    def _plain(self, annotation: "Any", scope: "dict[str, Any]") -> "Convert":
        """Return the function that converts octets to a value, or raises ValueError."""
        if isinstance(annotation, type):
            if annotation in _CONVERTERS:
                return _CONVERTERS[annotation]
            members: Any = getattr(annotation, "__members__", None)
            if members is not None:  # an Enum
                return self._one_of({word_of(each.value): each for each in members.values()})
        members = _members(annotation)
        if members:
            # str and bytes accept any argument, so they come last.
            members.sort(key=lambda member: member in (str, bytes))
            converters = [self._converter(member, scope) for member in members]
            self.choices = ()  # There are more than those of one member.
            return _first_of(converters)
        typing = sys.modules.get("typing")
        if typing is not None:
            if annotation is typing.Any:
                return text_of
            if getattr(annotation, "__origin__", None) is typing.Literal:
                values = [value for value in annotation.__args__ if value is not None]
                return self._one_of({word_of(value): value for value in values})
        if isinstance(annotation, type) and _takes_text(annotation):
            return lambda octets: _construct(annotation, octets)
        if annotation in _CONTAINERS:
            raise _refused(annotation, "add the type of its items, such as list[str]")
        raise _refused(annotation, "annotate it with str, and convert it in the command")

    def _one_of(self, values: "dict[str, Any]") -> "Convert":
        if not values:
            raise TypeError("the type has no values")
        self.choices = tuple(values)

        def convert(octets: bytes) -> "Any":
            try:
                return values[text_of(octets)]
            except KeyError:
                raise ValueError(f"not one of {', '.join(values)}") from None

        return convert


def type_of(annotation: "Any", scope: "dict[str, Any]") -> Type:
    """Return the parsed annotation; classes are parsed once.

    Raises:
        TypeError: the type is not supported.
    """
    if isinstance(annotation, str):
        annotation = _evaluated(annotation, scope)
    if not isinstance(annotation, type):
        return Type(annotation, scope)
    if annotation not in _CLASSES:
        _CLASSES[annotation] = Type(annotation, scope)
    return _CLASSES[annotation]


_CLASSES: dict[type, Type] = {}
_COMPILED: "dict[str, CodeType]" = {}


def _evaluated(text: str, scope: "dict[str, Any]") -> "Any":
    """Evaluate the source text of an annotation; compiled texts are cached."""
    try:
        if text not in _COMPILED:
            # compile() would spend a millisecond on creating the classes of `ast`.
            _COMPILED[text] = eval(f"lambda: ({text})").__code__
        return eval(_COMPILED[text], scope)
    except Exception as error:
        raise TypeError(f"cannot evaluate {text} at the declaration: {error}") from None


def _members(annotation: "Any") -> "list[Any]":
    """Return the members of a union except None; [] if it is not a union."""
    if not isinstance(annotation, _UNION):
        typing = sys.modules.get("typing")
        if typing is None or getattr(annotation, "__origin__", None) is not typing.Union:
            return []
    union: Any = annotation
    return [member for member in union.__args__ if member is not type(None)]


def _shown(annotation: "Any") -> str:
    if not isinstance(annotation, type):
        return repr(annotation)
    module = "" if annotation.__module__ == "builtins" else f"{annotation.__module__}."
    return f"{module}{annotation.__qualname__}"


def _refused(annotation: "Any", cure: str) -> TypeError:
    return TypeError(f"unsupported type {_shown(annotation)}: {cure}")


def _checked(convert: "Convert", checks: "Sequence[Any]") -> "Convert":
    """Return a function that checks octets by patterns, converts, and checks the value."""
    if not checks:
        return convert
    patterns = [check for check in checks if isinstance(check, Matches)]
    functions = [check for check in checks if not isinstance(check, Matches)]

    def convert_checked(octets: bytes) -> "Any":
        for pattern in patterns:
            pattern(octets)
        return _passed(functions, convert(octets))

    return convert_checked


def _passed(checks: "Sequence[Any]", value: "Any") -> "Any":
    """Apply all checks to a value; their results, if not None, replace it."""
    for check in checks:
        replaced = check(value)
        value = value if replaced is None else replaced
    return value


def _takes_text(kind: "Any") -> bool:
    """Return whether a class can be called with one str, judged without running its code."""
    if issubclass(kind, _HOLDERS) or kind.__dict__.get("_is_protocol"):
        return False
    if getattr(kind, "__abstractmethods__", None):
        return False
    if hasattr(kind, "fromisoformat"):
        return True
    makers = [m for m in (kind.__init__, kind.__new__) if hasattr(m, "__code__")]
    for maker in makers:
        code = maker.__code__
        needed = code.co_argcount - len(maker.__defaults__ or ())
        options = code.co_kwonlyargcount - len(maker.__kwdefaults__ or ())
        most = 2 if code.co_flags & 0x04 else code.co_argcount
        if needed > 2 or most < 2 or options:
            return False
    if not makers:  # The class is in C: it has no code to examine, and is safe to call.
        try:
            kind("")
        except TypeError:
            return False
        except Exception:
            pass  # It accepts a str, but not this one.
    return True


# -- Octets to values -----------------------------------------------------------------------------


def text_of(octets: bytes) -> str:
    """Return octets as text; those that are not UTF-8 become surrogates."""
    return octets.decode("utf-8", "surrogateescape")


def _integer(octets: bytes) -> int:
    # int() would also accept spaces, underscores and the digits of every script.
    if octets.removeprefix(b"-").isdigit():
        try:
            return int(octets)
        except ValueError:  # thousands of digits
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
    text = text_of(octets).lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError("neither yes nor no")
    return text in _TRUE


def word_of(value: "Any") -> str:
    """Return the argument that stands for a value of an Enum or a Literal."""
    value = getattr(value, "value", value)
    return text_of(value) if isinstance(value, bytes) else str(value)


def _pair(convert: "Convert") -> "Convert":
    """Return a function that splits KEY=VALUE."""

    def pair(octets: bytes) -> "tuple[str, Any]":
        key, equals, value = octets.partition(b"=")
        if not equals:
            raise ValueError("not KEY=VALUE")
        return text_of(key), convert(value)

    return pair


def _construct(kind: "Any", octets: bytes) -> "Any":
    if b"\0" in octets:
        raise ValueError("contains a NUL")
    try:
        return getattr(kind, "fromisoformat", kind)(text_of(octets))
    except (ValueError, ArithmeticError, LookupError) as error:
        raise ValueError(f"not a valid {kind.__name__}") from error


def _first_of(converters: "Sequence[Convert]") -> "Convert":
    """Return a function that tries several converters; if all fail, the last one's error counts."""

    def convert(octets: bytes) -> "Any":
        for converter in converters[:-1]:
            try:
                return converter(octets)
            except ValueError:
                continue
        return converters[-1](octets)

    return convert


_CONVERTERS: "dict[type, Convert]" = {
    bytes: bytes,
    bool: _truth,
    float: _number,
    int: _integer,
    str: text_of,
}
