"""Makes functions and classes from what call/shipping.py has sent of them.

The pickles that it sends name the functions of this file.  The names of one module that are used
by what was sent are kept in one dictionary, from call to call.
"""

import sys
from _thread import RLock
from importlib import import_module
from types import CellType, CodeType, FunctionType

try:
    from _pickle import loads as loads
except ImportError:
    from pickle import loads as loads

KEPT = 64  # functions that were sent by value: what they change of themselves stays

LOCK = RLock()  # One at a time: what one makes the next may need.
SPACES: "dict[str, dict[str, object]]" = {}  # from the name of a module to its names
LOADED: "dict[tuple[str, str], bytes]" = {}  # from a module and a name to the digest of its pickle
CALLED: "dict[bytes, FunctionType]" = {}  # from a pickle to the function, the last one used last
CODES: "dict[tuple[str, ...], CodeType]" = {}
TEXTS: "dict[str, str]" = {}  # from a file's name to what was sent of it, for tracebacks


def load(names, keep, called, arguments):
    """Take in what came with a call; return its function and its arguments."""
    with LOCK:
        for module, name, digest, octets in names:
            if LOADED.get((module, name)) != digest:
                space(module)[name] = loads(octets)
                LOADED[module, name] = digest
        function = CALLED.pop(called, None) if keep else None
        if function is None:
            function = loads(called)
        if keep:
            CALLED[called] = function
            if len(CALLED) > KEPT:
                del CALLED[next(iter(CALLED))]
        return function, loads(arguments)


def space(module):
    if module == "__main__":
        return sys.modules["__main__"].__dict__
    return SPACES.setdefault(module, {"__name__": module, "__builtins__": __builtins__})


# -- Named in pickles -----------------------------------------------------------------------------


def named(module, qualname):
    """Return what was sent before, by its name."""
    first, *rest = qualname.split(".")
    found = space(module)[first]
    for part in rest:
        found = getattr(found, part)
    return found


def public(module, name):
    """Return a class by the name that all versions of Python know it by."""
    return getattr(import_module(module), name)


def module(name, parts):
    for part in parts:
        import_module(part)
    return import_module(name)


def cached(function, maxsize, typed):
    from functools import lru_cache

    return lru_cache(maxsize, typed)(function)


def defined(piece, module):
    """Run a statement among the names of a module; return what it has bound there."""
    text, filename, name, _ = piece
    exec(compiled(text, filename), space(module))
    return space(module)[name]


def function(piece, marshalled, module, imported):
    """Return a function without what it may refer to itself by; `complete` adds that."""
    names = import_module(module).__dict__ if imported else space(module)
    if piece not in CODES:
        if marshalled is None:
            text, filename, name, arguments = piece
            CODES[piece] = find_code(compiled(text, filename), name, arguments)
        else:
            import marshal

            CODES[piece] = marshal.loads(marshalled)
    code = CODES[piece]
    return FunctionType(
        code, names, code.co_name, None, tuple(CellType() for _ in code.co_freevars)
    )


def complete(made, state):
    closed, attributes = state
    for name, cell in zip(made.__code__.co_freevars, made.__closure__ or ()):
        if name in closed:
            cell.cell_contents = closed[name]
    for name, value in attributes.items():
        setattr(made, name, value)


# -- Sources, on both sides -----------------------------------------------------------------------


def compiled(text, filename):
    remember(filename, text)
    # Annotations stay text: nothing that they name needs to be here.
    flags = import_module("__future__").annotations.compiler_flag
    return compile(text, filename, "exec", flags, True)


def remember(filename, text):
    """Add a piece of a file to those that came before, line by line."""
    known = TEXTS.get(filename, "").split("\n")
    lines = text.split("\n")
    known += [""] * (len(lines) - len(known))
    for place, line in enumerate(lines):
        if line:
            known[place] = line
    TEXTS[filename] = "\n".join(known)


def find_code(code: CodeType, name: str, arguments: "tuple[str, ...]") -> CodeType:
    """Return a function's code from that of its source: the last one of the outermost."""
    level = [code]
    while level:
        level = [each for one in level for each in one.co_consts if type(each) is type(code)]
        for one in reversed(level):
            if one.co_name == name and arguments_of(one) == arguments:
                return one
    raise SyntaxError(f"no function {name} in what was sent of it")


def arguments_of(code: CodeType) -> "tuple[str, ...]":
    flags = code.co_flags
    count = code.co_argcount + code.co_kwonlyargcount + bool(flags & 4) + bool(flags & 8)
    return code.co_varnames[:count]
