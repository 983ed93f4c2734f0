"""Find the source of a function or class, and the names of its module that it uses."""

from __future__ import annotations
import __future__

import ast
import dis
import functools
import inspect
import linecache
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from .far_shipping import arguments_of, find_code

_FLAGS = __future__.annotations.compiler_flag
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Piece(NamedTuple):
    """A statement of a file, with empty lines before it that keep its line numbers."""

    text: str
    filename: str
    name: str
    arguments: tuple[str, ...] = ()


# -- Names ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def used_names(code: CodeType) -> frozenset[str]:
    """Return the module's names that code, and functions inside it, use."""
    steps = dis.get_instructions(code)
    found = {s.argval for s in steps if "GLOBAL" in s.opname or s.opname == "LOAD_NAME"}
    return frozenset(found).union(*map(used_names, _inner(code)))


@functools.lru_cache(maxsize=1024)
def attribute_names(code: CodeType) -> frozenset[str]:
    """Return all names in code, including attributes."""
    return frozenset(code.co_names).union(*map(attribute_names, _inner(code)))


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _meaning(code: CodeType) -> tuple[Any, ...]:
    constants = (_meaning(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, tuple(constants)


@functools.lru_cache(maxsize=1024)
def compiled(piece: Piece) -> CodeType:
    """Return the code of a piece."""
    code: CodeType = compile(piece.text, piece.filename, "exec", _FLAGS, dont_inherit=True)
    return code


# -- Sources --------------------------------------------------------------------------------------


def function_piece(function: FunctionType) -> Piece | None:
    """Return the source of a function; None if it is not available."""
    code = function.__code__
    return _function_piece(code, code.co_filename, _text(code.co_filename, function.__globals__))


@functools.lru_cache(maxsize=1024)
def _function_piece(code: CodeType, filename: str, text: str) -> Piece | None:
    # The variables of its closure become arguments of an enclosing function.
    head = f"def around({', '.join(code.co_freevars)}):"
    pieces = []
    for node in ast.walk(_parse(text)):
        if not isinstance(node, _FUNCTIONS) or _first_line(node) != code.co_firstlineno:
            continue
        if isinstance(node, ast.Lambda):
            name = "<lambda>"
            source = "\n" * (node.lineno - 1) + head
            source += f" return ({ast.get_source_segment(text, node)})\n"
        else:
            name, source = node.name, _block(node, text, head)
        piece = Piece(source, filename, name, arguments_of(code))
        try:
            found = find_code(compiled(piece), code.co_name, piece.arguments)
        except (SyntaxError, ValueError):  # It is another function, or the file has changed.
            continue
        if set(found.co_freevars) == set(code.co_freevars):
            pieces.append((piece, _meaning(found) == _meaning(code)))
    # Several lambdas on one line are distinguished by their byte code.
    chosen = [piece for piece, same in pieces if same or len(pieces) == 1]
    return chosen[0] if chosen else None


def class_piece(cls: type, space: dict[str, Any]) -> Piece | None:
    """Return the statement that made a class; None if it is not available."""
    functions = [f for f in space.values() if isinstance(f, FunctionType)]
    functions = [*methods_of(cls), *(f for f in functions if f.__globals__ is space)]
    files = [function.__code__.co_filename for function in functions]
    first_line = vars(cls).get("__firstlineno__")  # since Python 3.13
    for filename in dict.fromkeys([*files, str(space.get("__file__"))]):
        text = _text(filename, space)
        nodes: list[Any] = [n for n in ast.walk(_parse(text)) if _makes(n, cls.__name__)]
        nodes = [node for node in nodes if first_line in (None, node.lineno, _first_line(node))]
        if nodes:
            # The least indented one is meant, and of these the last.
            node = min(nodes, key=lambda node: (node.col_offset, -node.lineno))
            return Piece(_block(node, text, "if 1:"), filename, cls.__name__)
    return None


def _makes(node: Any, name: str) -> bool:
    """Return whether a statement makes that class, also by a call such as `namedtuple`."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return name in [getattr(target, "id", None) for target in node.targets]
    return isinstance(node, ast.ClassDef) and node.name == name


def methods_of(cls: type) -> Iterator[FunctionType]:
    """Yield the functions that were defined in a class."""
    for value in vars(cls).values():
        function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
        if isinstance(function, FunctionType) and function.__module__ == cls.__module__:
            name = f"{cls.__qualname__}.{function.__name__}"
            yield from [function] if function.__qualname__ == name else []


def _text(filename: str, space: dict[str, Any]) -> str:
    linecache.checkcache(filename)
    return "".join(linecache.getlines(filename, space))


@functools.lru_cache(maxsize=32)
def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # The file has changed.


def _first_line(node: Any) -> int:
    lines: list[int] = [each.lineno for each in [node, *getattr(node, "decorator_list", ())]]
    return min(lines)


def _block(node: Any, text: str, head: str) -> str:
    """Return the lines of a statement, below `head` if they are indented."""
    first = _first_line(node)
    lines = "\n".join(text.split("\n")[first - 1 : node.end_lineno]) + "\n"
    if node.col_offset:
        return "\n" * (first - 2) + f"{head}\n{lines}"
    return "\n" * (first - 1) + lines
