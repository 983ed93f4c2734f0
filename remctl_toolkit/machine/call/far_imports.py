"""Import modules from the client, and those installed on this host."""

import sys
from abc import ABCMeta
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from posixpath import dirname, normpath
from types import FunctionType

from remctl_toolkit.machine.base.far_probe import path_of_python

SENT: "dict[str, tuple[str, str]]" = {}  # from a module to its file and its text
OPTIMIZED = 1  # CO_OPTIMIZED: code of a function
SCHEME = "remctl:"  # prefix of entries of a package's __path__


def connect(asking):
    """Set the function that sends a question and returns the answer."""
    global ask
    ask = asking


class Imported(SourceFileLoader):
    """A loader for source that was sent."""

    def __init__(self, name, origin, source):
        super().__init__(name, origin)
        self.source = source

    def get_source(self, name):
        return self.source

    def get_code(self, name):
        return compile(self.source, self.path, "exec", dont_inherit=True)

    def get_data(self, path):
        """Read a data file of this module's package, or of a package around it."""
        package = self.name if self.is_package(self.name) else self.name.rpartition(".")[0]
        folder = dirname(self.path)
        inside = normpath(path)
        while package:
            if inside.startswith(folder + "/"):
                return File(package, tuple(inside[len(folder) + 1 :].split("/"))).read_bytes()
            package, folder = package.rpartition(".")[0], dirname(folder)
        raise FileNotFoundError(2, f"not in the package of {self.name}", path)

    def get_resource_reader(self, name):  # type: ignore[override]
        return File(name, ()) if self.is_package(name) else None


class File:
    """A file or directory of a package, a Traversable of importlib.resources."""

    def __init__(self, package, parts):
        self.package = package
        self.parts = parts
        self.answer = None

    @property
    def name(self):
        return self.parts[-1] if self.parts else self.package.rpartition(".")[2]

    def joinpath(self, *names):
        parts = [part for name in names for part in str(name).split("/") if part not in ("", ".")]
        return File(self.package, self.parts + tuple(parts))

    __truediv__ = joinpath

    def look(self):
        if self.answer is None:
            self.answer = ask("file", self.package, self.parts)
        return self.answer

    def get(self, wanted):
        kind, found = self.look()
        if kind != wanted:
            why = found if kind == "missing" else f"it is a {kind}"
            raise FileNotFoundError(2, why, "/".join(self.parts))
        return found

    def is_dir(self):
        return self.look()[0] == "folder"

    def is_file(self):
        return self.look()[0] == "file"

    def iterdir(self):
        return iter([self.joinpath(name) for name in self.get("folder")])

    def read_bytes(self):
        return self.get("file")

    def read_text(self, encoding=None, errors=None):
        with self.open("r", encoding=encoding, errors=errors) as file:
            return file.read()

    def open(self, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        import io

        octets = io.BytesIO(self.read_bytes())
        return octets if "b" in mode else io.TextIOWrapper(octets, encoding, errors, newline)

    # A package's own is also its resource reader, with the methods of new Pythons and of 3.8.

    def files(self):
        return self

    def open_resource(self, name):
        return self.joinpath(name).open("rb")

    def resource_path(self, name):
        raise FileNotFoundError(2, "it is not a file on this host", name)

    def is_resource(self, name):
        return self.joinpath(name).is_file()

    def contents(self):
        return [file.name for file in self.iterdir()]


class Standin(ABCMeta):
    """The class of stand-ins for names of remctl: functions that use one fail."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(cls.__module__, name)

    def __call__(cls, *args, **kwargs):
        frame = sys._getframe(1)
        while frame.f_code.co_name.endswith(("comp>", "expr>")):
            frame = frame.f_back  # type: ignore[assignment]
        if not frame.f_code.co_flags & OPTIMIZED:
            # The body of a module or class makes an object, or uses a decorator.
            made = args[0] if args and isinstance(args[0], FunctionType) else None
            return made or stand_in(cls.__module__, cls.__name__)
        text = "{}.{} cannot be used on the remote host, only in the program that made the call"
        raise ImportError(text.format(cls.__module__, cls.__name__))


def stand_in(module, name):
    # It is an exception class because these can be used wherever other classes can.
    names = {"__module__": module, "__class_getitem__": classmethod(lambda cls, item: cls)}
    return Standin(name, (Exception,), names)


class StandinLoader:
    """A loader for modules whose names are stand-ins.

    Functions of modules that begin with "far_" are not: they are made for the remote host.

    Args:
        loader: the loader of an installed module, which may lack some of the names; or None.
    """

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return None if self.loader is None else self.loader.create_module(spec)

    def exec_module(self, module):
        usable = {}
        if self.loader is None:
            names, usable = ask("names", module.__name__)
            module.__all__ = list(names)
        else:
            self.loader.exec_module(module)

        def missing(name):
            if name.startswith("__") and name != "__version__":
                raise AttributeError(name)
            if name in usable:
                home, called = usable[name]
                __import__(home)
                return getattr(sys.modules[home], called) if called else sys.modules[home]
            return stand_in(module.__name__, name)

        module.__dict__.setdefault("__getattr__", missing)


def site_folders():
    """Return this Python's directories of installed packages."""
    import site  # This has no side effects, because Python was started with -S.

    home = dirname(dirname(path_of_python()))
    try:
        with open(home + "/pyvenv.cfg") as file:
            wide = "include-system-site-packages = true" in file.read()
        own = [home + "/lib/python{}.{}/site-packages".format(*sys.version_info)]
    except OSError:  # This is not a virtual environment.
        wide, own = True, []
    return [*own, site.getusersitepackages(), *(site.getsitepackages() if wide else ())]


class Finder:
    """Find modules on the client, and then those installed on this host.

    Other finders look in the standard library before.  Extension modules cannot be sent, so an
    installed package is preferred to one with extension modules.
    """

    def __init__(self, prefer_far):
        self.prefer_far = prefer_far
        self.folders = None

    def find_spec(self, name, path=None, target=None):
        if path is not None and not any(str(entry).startswith(SCHEME) for entry in path):
            return None
        top, _, last = name.partition(".")
        installed = None
        if self.prefer_far is True or top in self.prefer_far:
            installed = self.find_installed(name)
        if installed is not None:
            return installed
        ours = top in ("remctl", "remctl_toolkit") or top.startswith("_remctl")
        if ours and not last.rpartition(".")[2].startswith("far_"):
            return self.find_ours(name)
        kind, *answer = ask("module", name)
        if kind in ("module", "package", "namespace"):
            origin, source, has_extensions = answer
            installed = self.find_installed(name) if has_extensions else None
            if installed is not None and installed.origin is not None:
                return installed
            if kind == "namespace":
                return self.spec(name, None, None, True)
            SENT[name] = (origin, source)
            return self.spec(name, Imported(name, origin, source), origin, kind == "package")
        installed = self.find_installed(name)
        if installed is None and kind == "refused":
            raise ModuleNotFoundError(answer[0], name=name)
        if installed is None and kind == "unfit":
            raise ImportError(answer[0], name=name)
        return installed

    def find_ours(self, name):
        # remctl.py needs its own extension module: use both installed ones, or neither.
        installed = self.find_installed(name) if not name.startswith("remctl_toolkit") else None
        if installed is None or not self.find_installed("_remctl"):
            return self.spec(name, StandinLoader(None), None, True)
        installed.loader = StandinLoader(installed.loader)
        return installed

    def spec(self, name, loader, origin, is_package):
        spec = ModuleSpec(name, loader, origin=origin)
        spec.has_location = origin is not None
        if is_package:
            spec.submodule_search_locations = [SCHEME + name]
        return spec

    def find_installed(self, name):
        """Find an installed module, unless it is in a package that was sent."""
        if name.rpartition(".")[0] in SENT:
            return None
        if self.folders is None:
            self.folders = site_folders()
        spec, so_far, path = None, "", self.folders
        for part in name.split("."):
            so_far = so_far + "." + part if so_far else part
            spec = PathFinder.find_spec(so_far, path)
            if spec is None:
                return None
            path = spec.submodule_search_locations or []
        for sent in SENT if isinstance(spec.loader, ExtensionFileLoader) else ():
            if (name + "_").startswith("_" + sent.replace(".", "_") + "_"):
                text = "extension module {!r} of the remote host may not match {!r}, which was sent"
                raise ImportError(text.format(name, sent), name=name)
        return spec
