"""Imports what this interpreter's standard library does not have from the other end of the line."""

import sys
from abc import ABCMeta
from importlib.machinery import ModuleSpec, PathFinder

SOURCES: "dict[str, str]" = {}  # from a path to its text, for tracebacks
SCHEME = "remctl:"  # begins the entries of a package's __path__


def connect(asking):
    """Set what sends a question, and returns the answer."""
    global ask
    ask = asking


class Imported:
    """A loader for what was sent: source, or None for a package without any."""

    def __init__(self, name, origin, source):
        self.name = name
        self.origin = origin
        self.source = source

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        if self.source is not None:
            exec(self.get_code(self.name), module.__dict__)

    def get_source(self, name):
        return self.source

    def get_code(self, name):
        return compile(self.source, self.origin, "exec", dont_inherit=True)

    def is_package(self, name):
        return sys.modules[name].__spec__.submodule_search_locations is not None

    def get_data(self, path):
        folder = self.origin.rpartition("/")[0] + "/"
        if not path.startswith(folder):
            raise FileNotFoundError(2, f"not a file of package {self.name}", path)
        return File(self.name, tuple(path[len(folder) :].split("/"))).read_bytes()

    def get_resource_reader(self, name):
        return Resources(name)


class File:
    """A file or a folder of a package, as importlib.resources wants it (a Traversable)."""

    def __init__(self, package, parts):
        self.package = package
        self.parts = parts

    @property
    def name(self):
        return self.parts[-1] if self.parts else self.package.rpartition(".")[2]

    def joinpath(self, *names):
        parts = [part for name in names for part in str(name).split("/") if part not in ("", ".")]
        return File(self.package, self.parts + tuple(parts))

    __truediv__ = joinpath

    def _ask(self, question):
        found, answer = ask(question, self.package, self.parts)
        if not found:
            raise FileNotFoundError(2, answer, "/".join(self.parts))
        return answer

    def iterdir(self):
        return iter([self.joinpath(name) for name in self._ask("list")])

    def is_dir(self):
        return ask("kind", self.package, self.parts)[1] == "dir"

    def is_file(self):
        return ask("kind", self.package, self.parts)[1] == "file"

    def read_bytes(self):
        return self._ask("data")

    def read_text(self, encoding=None, errors=None):
        with self.open("r", encoding=encoding, errors=errors) as file:
            return file.read()

    def open(self, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        import io

        octets = io.BytesIO(self.read_bytes())
        return octets if "b" in mode else io.TextIOWrapper(octets, encoding, errors, newline)


class Resources:
    """What importlib.resources asks, in its old form and its new one."""

    def __init__(self, package):
        self.root = File(package, ())

    def files(self):
        return self.root

    def open_resource(self, name):
        return self.root.joinpath(name).open("rb")

    def resource_path(self, name):
        raise FileNotFoundError(2, "it is no file over here", name)

    def is_resource(self, name):
        return self.root.joinpath(name).is_file()

    def contents(self):
        return [file.name for file in self.root.iterdir()]


class Standin(ABCMeta):
    """The class of what has the names of this package there: it fails when it is used."""

    def __getattr__(cls, name):
        return stand_in(cls.__module__, name)

    def __call__(cls, *args, **kwargs):
        text = "{}.{} cannot be used here: it works where the call was made"
        raise ImportError(text.format(cls.__module__, cls.__name__))


def stand_in(module, name):
    if name.startswith("__"):
        raise AttributeError(name)
    # An exception, since one can be named wherever another class can be.
    names = {"__module__": module, "__class_getitem__": classmethod(lambda cls, item: cls)}
    return Standin(name, (Exception,), names)


class StandinLoader:
    """A loader for modules that have a stand-in for each name."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        module.__getattr__ = lambda each: stand_in(name, each)


class Finder:
    """Finds modules at the other end, and then those installed here besides the standard library.

    The standard library itself comes first: this is behind the finders that know it.
    """

    def __init__(self, prefer_far):
        self.prefer_far = prefer_far
        self.installed = None

    def find_spec(self, name, path=None, target=None):
        if path is not None and not any(str(entry).startswith(SCHEME) for entry in path):
            return None
        top, _, last = name.rpartition(".")
        top = top.partition(".")[0] or last
        # Of remctl, the halves belong together: both are those installed here.
        here = self.prefer_far is True or top in self.prefer_far or name in ("remctl", "_remctl")
        spec = self.find_installed(name) if path is None and here else None
        if spec is not None:
            return spec
        if (top == "remctl_toolkit" and not last.startswith("far_")) or name in (
            "remctl",
            "_remctl",
        ):
            return self.spec(name, StandinLoader(), None, True)
        kind, *answer = ask("module", name)
        if kind in ("module", "package"):
            SOURCES[answer[0]] = answer[1]
            return self.spec(name, Imported(name, *answer), answer[0], kind == "package")
        if kind == "namespace":
            return self.spec(name, Imported(name, None, None), None, True)
        spec = self.find_installed(name) if path is None else None
        if spec is None and kind == "refused":
            raise ModuleNotFoundError(answer[0], name=name)
        if spec is None and kind == "unfit":
            raise ImportError(answer[0], name=name)
        return spec

    def spec(self, name, loader, origin, is_package):
        spec = ModuleSpec(name, loader, origin=origin)
        spec.has_location = origin is not None
        if is_package:
            spec.submodule_search_locations = [SCHEME + name]
        return spec

    def find_installed(self, name):
        if self.installed is None:
            import site  # Does nothing by itself, as this interpreter was told not to.

            # A user's own folder comes first for Python, too; that user is whom this runs as.
            self.installed = [site.getusersitepackages(), *site.getsitepackages()]
        return PathFinder.find_spec(name, self.installed)
