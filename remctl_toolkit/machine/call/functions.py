"""Finds the source of a function or a class, and the names of its module that it uses."""

from __future__ import annotations
import __future__

import ast
import dis
import functools
import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_BY_NAME = {
    "LOAD_GLOBAL",
    "LOAD_NAME",
    "STORE_GLOBAL",
    "DELETE_GLOBAL",
    "LOAD_FROM_DICT_OR_GLOBALS",
}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_FUTURES = tuple(
    (getattr(__future__, name).compiler_flag, name) for name in __future__.all_feature_names
)

Names = dict[str, set[tuple[str, ...]]]  # with the attributes that are taken of each


class Piece(NamedTuple):
    """A piece of a source file, with lines before it that make it begin where it does there."""

    kind: str  # "function", "lambda" or "class"
    text: str
    filename: str


# -- Names ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def used_names(code: CodeType) -> Names:
    """Return the names that code uses of its module, with all the functions inside it."""
    found: Names = {}
    for part in _all_code(code):
        _add_names(part, found)
    return found


def class_names(piece: Piece) -> tuple[Names, Names]:
    """Return the names that a class needs when it is made, and those that its methods use."""
    flags = __future__.annotations.compiler_flag
    code = compile(piece.text, piece.filename, "exec", flags, dont_inherit=True)
    early: Names = {}
    late: Names = {}
    _sort_names(code, early, late)
    return early, late


def _sort_names(code: CodeType, early: Names, late: Names) -> None:
    _add_names(code, early)
    for constant in code.co_consts:
        if not isinstance(constant, CodeType):
            continue
        if constant.co_flags & inspect.CO_OPTIMIZED and not constant.co_name.startswith("<"):
            for part in _all_code(constant):
                _add_names(part, late)
        else:
            _sort_names(constant, early, late)


def _all_code(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_code(constant)


def _add_names(code: CodeType, found: Names) -> None:
    chain: list[str] | None = None
    base = ""
    for step in dis.get_instructions(code):
        if step.opname in _BY_NAME:
            base, chain = step.argval, []
            found.setdefault(base, set())
        elif step.opname in _ATTRIBUTES and chain is not None:
            chain.append(step.argval)
            found[base].add(tuple(chain))
        else:
            chain = None


# -- Sources --------------------------------------------------------------------------------------


def futures_of(code: CodeType) -> tuple[str, ...]:
    """Return what the code's file has imported from __future__, as far as that changes code."""
    return tuple(name for flag, name in _FUTURES if flag and code.co_flags & flag)


@functools.lru_cache(maxsize=1024)
def function_piece(code: CodeType, filename: str) -> Piece | None:
    """Return the source of a function, from its code; None if it is not to be had."""
    tree, lines = _parsed(filename)
    if tree is None:
        return None
    if code.co_name == "<lambda>":
        return _lambda_piece(code, tree, lines, filename)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return Piece("function", _block(node, lines), filename)
    return None


def class_piece(cls: type, filenames: Iterable[str]) -> Piece | None:
    """Return the source of a class, which is in one of these files; None if it is not to be had."""
    first_line = vars(cls).get("__firstlineno__")  # Python 3.13 knows it.
    for filename in dict.fromkeys([*_files_of_methods(cls), *filenames]):
        tree, lines = _parsed(filename)
        # The last of that name is the one that stands.
        for node in reversed(tree.body if tree is not None else []):
            if not isinstance(node, ast.ClassDef) or node.name != cls.__name__:
                continue
            if first_line in (None, node.lineno, _first_line(node)):
                return Piece("class", _block(node, lines), filename)
    return None


def methods_of(cls: type) -> Iterator[FunctionType]:
    """Return the functions that were written in a class."""
    for value in vars(cls).values():
        function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
        if not isinstance(function, FunctionType) or function.__module__ != cls.__module__:
            continue
        if function.__qualname__ == f"{cls.__qualname__}.{function.__name__}":
            yield function


def _files_of_methods(cls: type) -> list[str]:
    return [function.__code__.co_filename for function in methods_of(cls)]


def _parsed(filename: str) -> tuple[ast.Module | None, list[str]]:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    return _parse(filename, "".join(lines)), lines


@functools.lru_cache(maxsize=32)
def _parse(filename: str, text: str) -> ast.Module | None:
    try:
        return ast.parse(text, filename) if text else None
    except (SyntaxError, ValueError):
        return None  # It has changed since it was run.


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _block(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, lines: list[str]) -> str:
    first = _first_line(node)
    text = "".join(lines[first - 1 : node.end_lineno])
    if node.col_offset:
        return "\n" * (first - 2) + "if 1:\n" + text
    return "\n" * (first - 1) + text


def _lambda_piece(
    code: CodeType, tree: ast.Module, lines: list[str], filename: str
) -> Piece | None:
    spans = [
        ((line, column), (end_line or line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and column is not None and end_column is not None
    ]
    # The first is that of the code as a whole, which has no place of its own.
    spans = [span for span in spans if span[0] != span[1]]
    if not spans:
        return None
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    inner: ast.Lambda | None = None
    for node in ast.walk(tree):  # What is inside comes after what is around it.
        if isinstance(node, ast.Lambda) and node.body.end_lineno and node.body.end_col_offset:
            start = (node.body.lineno, node.body.col_offset)
            end = (node.body.end_lineno, node.body.end_col_offset)
            if start <= first and last <= end:
                inner = node
    if inner is None:
        return None
    text = ast.get_source_segment("".join(lines), inner)
    return Piece("lambda", "\n" * (inner.lineno - 1) + f"({text})", filename)


# -- Finding things by their names ----------------------------------------------------------------


def walk(space: Mapping[str, Any], qualname: str) -> Any:
    """Return what a qualified name stands for among the names of a module; None if nothing."""
    first, *rest = qualname.split(".")
    found = space.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found


def named(thing: Any) -> Any:
    """Return what the name of a function or a class stands for in its module; None if nothing."""
    module = sys.modules.get(thing.__module__)
    return None if module is None else walk(vars(module), getattr(thing, "__qualname__", ""))


def member(space: Mapping[str, Any], function: FunctionType) -> tuple[type, str] | None:
    """Return the class of that module that has the function as a plain member, and its name."""
    outer, _, name = function.__qualname__.rpartition(".")
    owner = walk(space, outer)
    if isinstance(owner, type) and getattr(owner, name, None) is function:
        return owner, name
    return None


def shown(thing: Any) -> str:
    """Return how to call a function or a class in an error message."""
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', None) or '?'}.{name}"
