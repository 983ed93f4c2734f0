"""Make functions and classes from the pickles of call/shipping.py.

The pickles name functions of this file.  Names that were sent for one module are kept in one
dictionary, from call to call.
"""

import sys
from _thread import RLock
from importlib import import_module
from types import CellType, CodeType, FunctionType

try:
    from _pickle import loads as loads
except ImportError:
    from pickle import loads as loads

LOCK = RLock()
SPACES: "dict[str, dict[str, object]]" = {}  # from the name of a module to its names
LOADED: "dict[tuple[str, str], int]" = {}  # from a module and a name to the hash of its pickle
CODES: "dict[object, CodeType]" = {}  # from a piece of source, or marshalled code
TEXTS: "dict[str, dict[int, str]]" = {}  # from a file's name to its lines, for tracebacks

# The state of one call:
PENDING: "dict[tuple[str, str], bytes]" = {}  # from a module and a name to a pickle to be loaded
MAKING: "list[str]" = []  # names that are being loaded
MADE: "list[tuple[CodeType, str]]" = []  # code of functions, and whose names it uses


def load(names, function, arguments):
    """Load the names of a call; return its function and its arguments."""
    with LOCK:
        try:
            for module, name, octets in names:
                if LOADED.get((module, name)) != hash(octets):
                    PENDING[module, name] = octets
            while PENDING:
                need(*next(iter(PENDING)))
            return (loads(function), *loads(arguments))
        finally:
            for left in (PENDING, MAKING, MADE):
                left.clear()


def need(module, name):
    """Load a name if it is pending, and then the names that its functions use."""
    octets = PENDING.pop((module, name), None)
    if octets is None:
        return
    MAKING.append(name)
    try:
        space(module)[name] = loads(octets)
        while MADE:
            use(*MADE.pop())
    except NameError:
        if len(MAKING) == 1:
            raise
        PENDING[module, name] = octets  # It may use a name that is being loaded: try again later.
    else:
        LOADED[module, name] = hash(octets)
    MAKING.pop()


def use(code, module):
    for name in code.co_names:
        need(module, name)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            use(each, module)


def space(module):
    if module == "__main__":
        return sys.modules["__main__"].__dict__
    return SPACES.setdefault(module, {"__name__": module, "__builtins__": __builtins__})


# -- Named in pickles -----------------------------------------------------------------------------


def named(module, qualname):
    first, *rest = qualname.split(".")
    need(module, first)
    if first not in space(module):
        raise NameError(f"name {first!r} is not defined")
    found = space(module)[first]
    for part in rest:
        found = getattr(found, part)
    return found


def module(name, parts):
    for part in parts:
        import_module(part)
    return import_module(name)


def cached(function, maxsize, typed):
    from functools import lru_cache

    return lru_cache(maxsize, typed)(function)


def defined(piece, module):
    """Execute a statement in the namespace of a module; return the object that it binds."""
    text, filename, name, _ = piece
    code = compiled(text, filename)
    use(code, module)
    exec(code, space(module))
    return space(module)[name]


def function(made_of, module, imported):
    """Return a function whose closure and attributes `complete` sets: they may refer to it."""
    code = CODES.get(made_of)
    if code is None:
        code = CODES[made_of] = code_of(made_of)
    names = import_module(module).__dict__ if imported else space(module)
    MADE.append((code, module))
    cells = tuple(CellType() for _ in code.co_freevars)
    return FunctionType(code, names, code.co_name, None, cells)


def code_of(made_of):
    if isinstance(made_of, bytes):
        import marshal

        return marshal.loads(made_of)
    text, filename, name, arguments = made_of
    return find_code(compiled(text, filename), name, arguments)


def complete(made, state):
    closed, attributes = state
    for name, cell in zip(made.__code__.co_freevars, made.__closure__ or ()):
        if name in closed:
            cell.cell_contents = closed[name]
    for name, value in attributes.items():
        setattr(made, name, value)


# -- Sources, on both sides -----------------------------------------------------------------------


def compiled(text, filename):
    lines = TEXTS.setdefault(filename, {})
    lines.update((number, line) for number, line in enumerate(text.split("\n")) if line)
    # Annotations stay text, so their names need not exist here.
    flags = import_module("__future__").annotations.compiler_flag
    return compile(text, filename, "exec", flags, True)


def find_code(code: CodeType, name: str, arguments: "tuple[str, ...]") -> CodeType:
    """Return a function's code from that of its source: the last of the outermost ones."""
    level = [code]
    while level:
        level = [each for one in level for each in one.co_consts if isinstance(each, CodeType)]
        for one in reversed(level):
            if one.co_name == name and arguments_of(one) == arguments:
                return one
    raise SyntaxError(f"no function {name} in the source that was sent")


def arguments_of(code: CodeType) -> "tuple[str, ...]":
    flags = code.co_flags
    count = code.co_argcount + code.co_kwonlyargcount + bool(flags & 4) + bool(flags & 8)
    return code.co_varnames[:count]
