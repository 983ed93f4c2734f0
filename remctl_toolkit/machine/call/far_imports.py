"""Imports what this interpreter's standard library does not have from the other end of the line."""

import sys
from importlib.machinery import ModuleSpec, PathFinder

SOURCES: "dict[str, str]" = {}  # from a path to its text, for tracebacks
SCHEME = "remctl:"  # begins the entries of a package's __path__


def ask(*question):
    """Send a question, and return the answer; the agent puts its own in the place of this."""
    raise NotImplementedError


class Imported:
    """A loader for modules whose source was sent."""

    def __init__(self, name, origin, source):
        self.name = name
        self.origin = origin
        self.source = source

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.source, self.origin, "exec", dont_inherit=True), module.__dict__)

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


class Namespace:
    """A loader for packages without source."""

    def __init__(self, name):
        self.name = name

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass

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

    def _kind(self):
        return ask("kind", self.package, self.parts)[1]

    def is_dir(self):
        return self._kind() == "dir"

    def is_file(self):
        return self._kind() == "file"

    def read_bytes(self):
        return self._ask("data")

    def read_text(self, encoding=None, errors=None):
        with self.open("r", encoding=encoding, errors=errors) as file:
            return file.read()

    def open(self, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        import io

        octets = io.BytesIO(self.read_bytes())
        if "b" in mode:
            return octets
        return io.TextIOWrapper(octets, encoding, errors, newline)


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


class Finder:
    """Finds modules at the other end, and then those installed here beside the standard library.

    The standard library itself comes first: this is behind the finders that know it.
    """

    def __init__(self, prefer_far):
        self.prefer_far = prefer_far
        self.installed = None

    def find_spec(self, name, path=None, target=None):
        if path is not None and not any(str(entry).startswith(SCHEME) for entry in path):
            return None
        top = name.partition(".")[0]
        if path is None and (self.prefer_far is True or top in self.prefer_far):
            spec = self.find_installed(name)
            if spec is not None:
                return spec
        kind, *answer = ask("module", name)
        if kind in ("module", "package"):
            return self.spec(name, kind == "package", *answer)
        if kind == "namespace":
            loader = Namespace(name)
            spec = ModuleSpec(name, loader, is_package=True)  # type: ignore[arg-type]
            spec.submodule_search_locations.append(SCHEME + name)
            return spec
        spec = self.find_installed(name) if path is None else None
        if spec is None and kind == "refused":
            raise ModuleNotFoundError(answer[0], name=name)
        if spec is None and kind == "unfit":
            raise ImportError(answer[0], name=name)
        return spec

    def spec(self, name, is_package, origin, source):
        SOURCES[origin] = source
        loader = Imported(name, origin, source)
        spec = ModuleSpec(name, loader, origin=origin)  # type: ignore[arg-type]
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [SCHEME + name]
        return spec

    def find_installed(self, name):
        if self.installed is None:
            self.installed = installed_folders()
        return PathFinder.find_spec(name, self.installed)


def installed_folders():
    import site  # Does nothing by itself, as this interpreter was told not to.

    # A user's own folder comes first for Python, too; that user is whom this runs as.
    return [site.getusersitepackages(), *site.getsitepackages()]
