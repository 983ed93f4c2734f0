"""Makes functions and classes from what was sent of them: their source, and what they use.

What the functions of one module use is in one namespace, which stays from call to call.
"""

import io
import sys
from _thread import RLock
from importlib import import_module
from types import CellType, FunctionType

try:
    from _pickle import Unpickler
except ImportError:
    from pickle import Unpickler

# Where a class says that it is from, where it moved to and back.
MOVED = {"pathlib._local": "pathlib"}


class Reader(Unpickler):
    """Unpickles what the other end has sent; see machine/_call/packing.py."""

    def find_class(self, module, name):
        return super().find_class(MOVED.get(module, module), name)

    def persistent_load(self, reference):
        kind, *parts = reference
        return getattr(Store, "get_" + kind)(STORE, *parts)


class OwnReader(Reader):
    """The same for what belongs to one function, which may be that function itself."""

    def __init__(self, octets, own):
        self.own = own
        super().__init__(io.BytesIO(octets))

    def persistent_load(self, reference):
        return self.own if reference == ("own",) else super().persistent_load(reference)


class Store:
    """All that was sent, and what was made of it."""

    def __init__(self):
        self.lock = RLock()  # One at a time: what one makes the next may need.
        self.raw = {}
        self.made = {}
        self.spaces = {}
        self.texts = {}  # for tracebacks

    def load(self, definitions, names, called, arguments):
        """Take in what came with a call, and return its function and its arguments."""
        with self.lock:
            for key, definition in definitions:
                if key not in self.made:
                    self.raw[key] = definition
            for space, name, value in names:
                self.space(space)[name] = self.read(value)
            return self.read(called), self.read(arguments)

    def read(self, octets):
        return Reader(io.BytesIO(octets)).load()

    def get_public(self, module, name):
        __import__(module)
        return getattr(sys.modules[module], name)

    def space(self, name):
        found = self.spaces.get(name)
        if found is None:
            if name == "__main__":
                found = sys.modules["__main__"].__dict__
            else:
                found = {"__name__": name, "__builtins__": __builtins__}
            self.spaces[name] = found
        return found

    def get_module(self, name, parts):
        for part in parts:
            import_module(part)
        return import_module(name)

    def get_attribute(self, owner, name):
        return getattr(owner, name)

    def get_cached(self, function, maxsize, typed):
        import functools

        return functools.lru_cache(maxsize, typed)(function)

    def get_definition(self, key):
        if key not in self.made:
            definition = self.raw.pop(key)
            make = self.make_class if definition["kind"] == "class" else self.make_function
            self.made[key] = make(definition)
        return self.made[key]

    def make_class(self, definition):
        space, name = self.space(definition["module"]), definition["name"]
        before = space.get(name)
        exec(self.compiled(definition), space)
        made = space[name]
        if before is not None:
            space[name] = before
        return made

    def make_function(self, definition):
        module = definition["module"]
        space = import_module(module).__dict__ if definition["imported"] else self.space(module)
        if definition["code"] is not None:
            import marshal

            code = marshal.loads(definition["code"])
        else:
            code = find_code(self.compiled(definition), definition["codename"])
        cells = tuple(CellType() for _ in code.co_freevars)
        made = FunctionType(code, space, definition["name"], None, cells)
        links = OwnReader(definition["links"], made).load()
        made.__defaults__, made.__kwdefaults__, closed = links
        for place, name in zip(cells, code.co_freevars):
            if name in closed:
                place.cell_contents = closed[name]
        made.__qualname__, made.__module__ = definition["qualname"], module
        made.__doc__ = definition["doc"]
        return made

    def compiled(self, definition):
        import ast

        text, filename = definition["text"], definition["filename"]
        self.remember(filename, text)
        tree = ast.parse(text, filename)
        if definition["kind"] != "class":
            bare_function(ast, tree, definition)
        # Annotations stay text: nothing that they name needs to be here.
        flags = import_module("__future__").annotations.compiler_flag
        for name in definition["futures"]:
            flags |= getattr(import_module("__future__"), name).compiler_flag
        return compile(tree, filename, "exec", flags, True)

    def remember(self, filename, text):
        """Lay a piece of a file beside those that came before, line by line."""
        known = self.texts.get(filename, "").split("\n")
        lines = text.split("\n")
        known += [""] * (len(lines) - len(known))
        for place, line in enumerate(lines):
            if line:
                known[place] = line
        self.texts[filename] = "\n".join(known)


def bare_function(ast, tree, definition):
    """Leave of a function what is its code: the rest was worked out where it comes from."""
    node = find_node(ast, tree, definition)
    node.args.defaults = [ast.Constant(None) for _ in node.args.defaults]
    node.args.kw_defaults = [d and ast.Constant(None) for d in node.args.kw_defaults]
    if not isinstance(node, ast.Lambda):
        node.decorator_list = []
    free = definition["free"]
    if isinstance(node, ast.Lambda):
        # `keep` gives it a statement to stand in.
        stand = [ast.Assign([ast.Name("keep", ast.Store())], node)]
    else:
        stand = [node]
    if free:
        # Names of a function around it are what it closes over.
        given = [ast.arg(name, None) for name in free]
        arguments = ast.arguments(
            posonlyargs=[], args=given, kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        around = ast.parse("def around(): pass").body[0]
        around.args, around.body = arguments, stand
        stand = [around]
    tree.body = stand
    ast.fix_missing_locations(tree)


def find_node(ast, tree, definition):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    wanted = (ast.Lambda,) if definition["kind"] == "lambda" else functions
    for node in ast.walk(tree):
        if isinstance(node, wanted):
            return node
    raise SyntaxError("no function in what was sent of {}".format(definition["name"]))


def find_code(code, name):
    for constant in code.co_consts:
        if type(constant) is type(code):
            if constant.co_name == name:
                return constant
            if constant.co_name == "around":
                return find_code(constant, name)
    raise SyntaxError(f"no code in what was sent of {name}")


STORE = Store()
