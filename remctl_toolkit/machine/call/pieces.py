"""Finds the source of a function or a class, and the names of its module that it uses."""

from __future__ import annotations
import __future__

import ast
import dis
import functools
import inspect
import linecache
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from . import far_shipping as far

_FLAGS = __future__.annotations.compiler_flag
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Piece(NamedTuple):
    """A statement of a file, after as many empty lines as make its lines have their numbers."""

    text: str
    filename: str
    name: str
    arguments: tuple[str, ...]


# -- Names ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def used_names(code: CodeType, deep: bool = True) -> frozenset[str]:
    """Return the names that code uses of its module; of functions inside it as well if `deep`."""
    steps = dis.get_instructions(code)
    found = {s.argval for s in steps if "GLOBAL" in s.opname or s.opname == "LOAD_NAME"}
    for inner in _inner(code):
        if deep or _runs_at_once(inner):
            found |= used_names(inner, deep)
    return frozenset(found)


@functools.lru_cache(maxsize=1024)
def attribute_names(code: CodeType) -> frozenset[str]:
    """Return the names in code, among them those of all attributes that it uses."""
    return frozenset(code.co_names).union(*map(attribute_names, _inner(code)))


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _runs_at_once(code: CodeType) -> bool:
    """Whether code inside a class runs when the class is made, or may be called then."""
    return not code.co_flags & inspect.CO_OPTIMIZED or code.co_name.startswith("<")


@functools.lru_cache(maxsize=1024)
def compiled(piece: Piece) -> CodeType:
    """Return the code of a piece."""
    code: CodeType = compile(piece.text, piece.filename, "exec", _FLAGS, dont_inherit=True)
    return code


# -- Sources --------------------------------------------------------------------------------------


def function_piece(function: FunctionType) -> Piece | None:
    """Return the source of a function; None if it cannot be had."""
    code = function.__code__
    lines = _lines(code.co_filename, function.__globals__)
    return _function_piece(code, code.co_filename, "".join(lines))


@functools.lru_cache(maxsize=1024)
def _function_piece(code: CodeType, filename: str, text: str) -> Piece | None:
    pieces = []
    for node in ast.walk(_parse(text)):
        if not isinstance(node, _Function | ast.Lambda):
            continue
        name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
        if name == code.co_name and _first_line(node) == code.co_firstlineno:
            source = _function_text(node, text, ", ".join(code.co_freevars))
            piece = Piece(source, filename, name, far.arguments_of(code))
            found = _found(piece)
            if found is not None and set(found.co_freevars) == set(code.co_freevars):
                pieces.append((piece, found))
    # Several lambdas of one line are told apart by what they do.
    same = [each for each in pieces if _meaning(each[1]) == _meaning(code)]
    if len(pieces) > 1 and not same:
        return None
    return (same or pieces)[0][0] if pieces else None


def _function_text(node: _Function | ast.Lambda, text: str, free: str) -> str:
    # The variables around a function are arguments of a function around it.
    if isinstance(node, ast.Lambda):
        source = ast.get_source_segment(text, node)
        return "\n" * (node.lineno - 1) + f"def around({free}): return ({source})\n"
    return _block(node, text, f"def around({free}):\n")


def _found(piece: Piece) -> CodeType | None:
    try:
        found = far.find_code(compiled(piece), piece.name, piece.arguments)
    except (SyntaxError, ValueError):  # Part of a line, say; or it has changed since it was run.
        return None
    return found


def _meaning(code: CodeType) -> tuple[Any, ...]:
    constants = (_meaning(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, tuple(constants)


def class_piece(cls: type, space: dict[str, Any]) -> Piece | None:
    """Return the statement that made a class of that module; None if it cannot be had."""
    functions = [value for value in space.values() if isinstance(value, FunctionType)]
    files = [function.__code__.co_filename for function in methods_of(cls)]
    files += [f.__code__.co_filename for f in functions if f.__globals__ is space]
    files += [space["__file__"]] if isinstance(space.get("__file__"), str) else []
    first_line = vars(cls).get("__firstlineno__")  # Python 3.13 knows it.
    for filename in dict.fromkeys(files):
        text = "".join(_lines(filename, space))
        # The last of that name is the one that stands.
        for node in reversed(list(_statements(_parse(text).body))):
            if cls.__name__ in _bound(node) and first_line in (
                None,
                node.lineno,
                _first_line(node),
            ):
                return Piece(_block(node, text, "if 1:\n"), filename, cls.__name__, ())
    return None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Return the statements of a module, with those in its conditions."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt))
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement gives to classes: also by calling `namedtuple`."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def methods_of(cls: type) -> Iterator[FunctionType]:
    """Return the functions that were written in a class."""
    for value in vars(cls).values():
        function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
        if not isinstance(function, FunctionType) or function.__module__ != cls.__module__:
            continue
        if function.__qualname__ == f"{cls.__qualname__}.{function.__name__}":
            yield function


def _lines(filename: str, space: dict[str, Any]) -> list[str]:
    linecache.checkcache(filename)
    return linecache.getlines(filename, space)


@functools.lru_cache(maxsize=32)
def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # It has changed since it was run.


def _first_line(node: ast.stmt | ast.Lambda) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _block(node: ast.stmt, text: str, head: str) -> str:
    """Return the lines of a statement, below `head` if they are indented."""
    first = _first_line(node)
    lines = "\n".join(text.split("\n")[first - 1 : node.end_lineno]) + "\n"
    if node.col_offset:
        return "\n" * (first - 2) + head + lines
    return "\n" * (first - 1) + lines
