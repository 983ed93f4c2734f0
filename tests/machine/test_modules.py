"""Modules that the remote host imports from this program, and those that it cannot get."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machine.call_pipes import PipeInterpreter, pythons

from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.call import Interpreter, RemoteCallError
from remctl_toolkit.machine.call.modules import ModuleServer

pytestmark = pytest.mark.once

FILES = {
    "rm_plain.py": """
        import os
        import string
        from rm_package.inner import deep
        STATE = []
        LOADED = os.getpid()
        def where():
            return os.getpid(), LOADED
        def add(x):
            STATE.append(x)
            return STATE
        def low():
            return deep.LETTERS, string.__file__.startswith(os.path.dirname(os.__file__))
        """,
    "rm_package/__init__.py": """
        import pkgutil
        from . import sibling
        from .sibling import NAME
        def get_data():
            return pkgutil.get_data(__name__, "data/words.txt")
        def no_data():
            return pkgutil.get_data(__name__, "data/none.txt")
        def by_loader(path):
            return __loader__.get_data(path)
        def resource():
            import importlib.resources
            return importlib.resources.read_text("rm_package.data", "words.txt")
        def files():
            import importlib.resources
            root = importlib.resources.files(__name__)
            names = sorted(e.name for e in root.joinpath("data").iterdir() if "pyc" not in e.name)
            with importlib.resources.as_file(root / "data" / "words.txt") as path:
                return names, path.read_text(), (root / "none").is_file(), root.is_dir()
        def source():
            import inspect
            return inspect.getsource(get_data)
        """,
    "rm_package/sibling.py": "NAME = __name__\n",
    "rm_package/inner/__init__.py": "",
    "rm_package/inner/deep.py": "import string\nLETTERS = string.ascii_lowercase[:3]\n",
    "rm_package/data/__init__.py": "",
    "rm_package/data/words.txt": "é and more\n",
    "rm_space/one/thing.py": "def name():\n    return __name__\n",
    "rm_broken.py": "def f(:\n",
    "rm_failing.py": "def f():\n    pass\nraise KeyError('as it is imported')\n",
    "rm_uses_extension.py": """
        def load():
            import _remctl
        def load_newer():
            import tomllib
        """,
    "rm_channelexec.py": '''
        """A module for remoto."""
        import os
        from os.path import basename
        class Thing:
            pass
        VALUE = 1
        def listdir(path):
            """List a folder."""
            return os.listdir(path)
        def twice(x, times=2):
            return x * times
        if __name__ == '__channelexec__':
            for item in channel:
                channel.send(eval(item))
        ''',
}


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def write_zip(folder: Path) -> Path:
    path = folder / "modules.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder_name in ("rm_space/", "rm_space/one/"):
            archive.mkdir(folder_name)  # Or they are no packages for zipimport.
        for name, text in FILES.items():
            archive.writestr(name, textwrap.dedent(text))
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("modules")
    write_files(folder / "files")
    return {"files": folder / "files", "zip": write_zip(folder)}


@pytest.fixture(params=["files", "zip"])
def ours(
    request: pytest.FixtureRequest, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return a directory that is in sys.path during a test."""
    place = places[request.param]
    monkeypatch.syspath_prepend(place)
    yield place
    for name in [name for name in sys.modules if name.startswith("rm_")]:
        del sys.modules[name]


@pytest.fixture(params=pythons())
def far(request: pytest.FixtureRequest) -> Iterator[PipeInterpreter]:
    with PipeInterpreter(pythons()[request.param]) as interpreter:
        yield interpreter


@pytest.fixture
def one() -> Iterator[PipeInterpreter]:
    with PipeInterpreter(sys.executable) as interpreter:
        yield interpreter


def test_modules_and_packages(far: PipeInterpreter, ours: Path) -> None:
    plain = importlib.import_module("rm_plain")
    here, loaded = far.call(plain.where)
    assert here == loaded != os.getpid()
    assert far.call(plain.low) == ("abc", True)
    assert [far.call(plain.add, x) for x in (1, 2)] == [[1], [1, 2]]
    assert plain.STATE == []
    # Only what was asked for, and the standard library's `string` is its own.
    assert far.served == (
        "rm_plain",
        "rm_package",
        "rm_package.sibling",
        "rm_package.inner",
        "rm_package.inner.deep",
    )
    thing = importlib.import_module("rm_space.one.thing")
    assert far.call(thing.name) == "rm_space.one.thing"


def test_files_of_packages(far: PipeInterpreter, ours: Path) -> None:
    package = importlib.import_module("rm_package")
    assert far.call(package.get_data) == "é and more\n".encode()
    assert far.call(package.resource) == "é and more\n"
    with pytest.raises(RemoteCallError, match=r"FileNotFoundError"):
        far.call(package.no_data)
    with pytest.raises(RemoteCallError, match=r"FileNotFoundError"):
        far.call(package.by_loader, "/etc/passwd")
    if far.python_version >= (3, 10):
        names = ["__init__.py", "__pycache__", "words.txt"]
        found, *rest = far.call(package.files)
        assert set(found) <= set(names)
        assert rest == ["é and more\n", False, True]
    assert far.call(package.source).startswith("def get_data():")


@pytest.mark.parametrize("version", pythons())
def test_errors_of_modules(version: str, places: Any, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(places["files"])
    with PipeInterpreter(pythons()[version], modules=lambda name: True) as far:
        errors_of_modules(far, places)


def errors_of_modules(far: PipeInterpreter, places: Any) -> None:
    with pytest.raises(RemoteCallError, match=r"SyntaxError"):
        far.call(importlib.import_module, "rm_broken")
    with pytest.raises(RemoteCallError, match=r"KeyError on .*: 'as it is imported'") as caught:
        far.call(importlib.import_module, "rm_failing")
    assert f'File "{places["files"]}/rm_failing.py", line 3' in caught.value.remote_traceback
    assert "raise KeyError('as it is imported')" in caught.value.remote_traceback
    with pytest.raises(RemoteCallError, match=r"ModuleNotFoundError.*: No module named 'rm_none'"):
        far.call(importlib.import_module, "rm_none")
    assert far.call(abs, -1) == 1


def test_extension_modules_are_one_error(
    far: PipeInterpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"rm_extension{EXTENSION_SUFFIXES[0]}").touch()
    (tmp_path / "rm_extended.py").write_text("def load():\n    import rm_extension\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = r"ImportError on .*: extension module 'rm_extension' cannot be sent"
    with pytest.raises(RemoteCallError, match=text):
        far.call(importlib.import_module("rm_extended").load)
    assert far.call(abs, -1) == 1
    del sys.modules["rm_extended"]


@pytest.mark.skipif("3.8" not in pythons(), reason="no Python 3.8 here")
def test_the_standard_library_is_the_far_sides() -> None:
    text = (
        "ModuleNotFoundError on .*: No module named 'tomllib': "
        r"it is in the standard library of Python 3\.\d+, but not in the host's"
    )
    with PipeInterpreter(pythons()["3.8"]) as far, pytest.raises(RemoteCallError, match=text):
        far.call(importlib.import_module, "tomllib")


def test_nothing_is_run_here(ours: Path) -> None:
    with PipeInterpreter(sys.executable, modules=["rm_package"]) as far:
        far.call(exec, "import rm_package.inner.deep")
    assert [name for name in sys.modules if name.startswith("rm_")] == []


# -- Installed modules ----------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install modules for the remote user; this program may know their names as well."""
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    command = [sys.executable, "-c", "import site; print(site.getusersitepackages(), end='')"]
    folder = Path(subprocess.check_output(command, text=True, timeout=30))
    folder.mkdir(parents=True)
    for name in ("rm_plain", "rm_only_there", "_remctl"):
        (folder / f"{name}.py").write_text("PLACE = 'installed'\n")


IMPORT = "__import__({!r}).PLACE"


def test_what_is_installed_there_comes_last(installed: None, ours: Path) -> None:
    with PipeInterpreter(sys.executable, modules=["rm_plain", "rm_package"]) as far:
        assert far.call(eval, IMPORT.format("rm_only_there")) == "installed"
        assert far.call(eval, IMPORT.format("_remctl")) == "installed"
        with pytest.raises(RemoteCallError, match=r"AttributeError"):
            far.call(eval, IMPORT.format("rm_plain"))


@pytest.mark.parametrize("prefer", [True, ["rm_plain"]], ids=["all", "named"])
def test_what_is_installed_there_can_come_first(
    installed: None, ours: Path, prefer: bool | list[str]
) -> None:
    modules = ["rm_plain", "rm_package"]
    with PipeInterpreter(sys.executable, prefer_far=prefer, modules=modules) as far:
        assert far.call(eval, IMPORT.format("rm_plain")) == "installed"
        assert far.call(eval, "__import__('rm_package').NAME") == "rm_package.sibling"


# -- Allowed modules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modules", [["rm_plain"], lambda name: name == "rm_plain"], ids=["names", "function"]
)
def test_modules_can_be_limited(ours: Path, modules: Any) -> None:
    plain, package = map(importlib.import_module, ("rm_plain", "rm_package"))
    with PipeInterpreter(sys.executable, modules=modules) as far:
        text = r"No module named 'rm_package': it may not be sent"
        with pytest.raises(RemoteCallError, match=text):
            far.call(plain.where)
        with pytest.raises(
            ValueError, match="module rm_package may not be sent: add it to modules="
        ):
            far.call(package.get_data)
        assert far.served == ("rm_plain",)


@pytest.mark.parametrize(
    ("question", "name", "parts"),
    [
        ("module", "os", ()),
        ("module", "__main__", ()),
        ("module", "../../etc/passwd", ()),
        ("module", ".rm_package", ()),
        ("module", "", ()),
        ("module", b"rm_package", ()),
        ("module", 3, ()),
        ("else", "rm_package", ()),
        ("file", "rm_package", ("..", "rm_plain.py")),
        ("file", "rm_package", ("/etc/passwd",)),
        ("file", "rm_package", ("data", "..", "..", "rm_plain.py")),
        ("file", "rm_package", ("data/../../rm_plain.py",)),
        ("file", "rm_package", ("link.txt",)),
        ("file", "rm_package", ("linked", "passwd")),
        ("file", "rm_package", ("",)),
        ("file", "rm_package", ("a\0b",)),
        ("file", "rm_package", "data"),
        ("file", "rm_package", (3,)),
        ("file", "rm_package", ("a",) * 100),
        ("file", "rm_plain", ("words.txt",)),
        ("file", "rm_plain", ()),
        ("file", "os", ("os.py",)),
        ("file", "json", ()),
        ("file", "rm_package", ("linked",)),
    ],
)
def test_what_nobody_may_have(
    question: str, name: Any, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    (tmp_path / "__main__.py").write_text("SECRET = 1")
    (tmp_path / "rm_package" / "link.txt").symlink_to("/etc/passwd")
    (tmp_path / "rm_package" / "linked").symlink_to("/etc")
    monkeypatch.syspath_prepend(tmp_path)
    for server in (ModuleServer(), ModuleServer(lambda name: True)):
        for each in ("rm_package", "rm_plain"):
            server.need(each)
        assert server(question, name, parts)[0] in ("missing", "refused")
        assert server.served == ()


def test_only_what_the_calls_need(ours: Path) -> None:
    package = importlib.import_module("rm_package")
    with PipeInterpreter(sys.executable) as far:
        assert far.servable == ()
        assert far.call(package.get_data) == "é and more\n".encode()
        assert far.servable == ("rm_package", "rm_package.data", "rm_package.sibling")
        for name in ("rm_plain", "rm_package.inner", "rm_channelexec", "tests", "machine"):
            text = rf"No module named '{name}': no function called imports it \(see modules=\)"
            with pytest.raises(RemoteCallError, match=text):
                far.call(importlib.import_module, name)
        server = far._modules
        assert server("file", "rm_package", ("sibling.py",))[0] == "missing"
        assert server("file", "rm_package.inner", ("deep.py",))[0] == "missing"
        assert not {"rm_plain", "rm_package.inner"} & set(far.servable)


@pytest.mark.parametrize("modules", [None, ["rm_package"], lambda name: True], ids=range(3))
def test_nobody_gets_the_program_itself(
    ours: Path, modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not under another name, either: the folder of a script is on its path."""
    package = importlib.import_module("rm_package")
    sibling = importlib.import_module("rm_package.sibling")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", sibling.__file__, raising=False)
    server = ModuleServer(modules)
    for name in ("rm_package", "rm_package.sibling", "__main__", "rm_package.__main__"):
        server.need(name)
    assert server("module", "rm_package.sibling")[0] == "missing"
    assert server("module", "rm_package")[0] == "package"
    assert server("file", "rm_package", ("sibling.py",))[0] == "missing"
    assert server("module", "__main__")[0] != "module"
    assert package.NAME == "rm_package.sibling"


def test_the_standard_library_is_known_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "this.py").write_text("def mine():\n    return 'mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    this: Any = importlib.import_module("this")
    try:
        server = ModuleServer(["this", "json"])
        assert server("module", "this")[0] == "module"
        assert server("module", "json.decoder")[0] == "refused"
        with PipeInterpreter(sys.executable) as far:
            assert far.call(this.mine) == "mine"  # By its source: that name is taken there.
    finally:
        del sys.modules["this"]


class Angry:
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.startswith("rm_angry"):
            raise RuntimeError("not today")


def test_a_finder_that_fails_is_one_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "meta_path", [Angry(), *sys.meta_path])
    text = r"ImportError.*rm_angry.*RuntimeError: not today"
    with caplog.at_level("DEBUG"), PipeInterpreter(sys.executable, modules=["rm_angry"]) as far:
        for _ in range(3):
            with pytest.raises(RemoteCallError, match=text):
                far.call(importlib.import_module, "rm_angry")
        assert far.call(abs, -1) == 1
    assert not [record for record in caplog.records if record.exc_info]


# -- import_module --------------------------------------------------------------------------------


@pytest.fixture
def channelexec(ours: Path) -> ModuleType:
    return importlib.import_module("rm_channelexec")


def test_import_module_as_remoto_has_it(
    connection: Connection, channelexec: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with Interpreter(connection) as far:
        remote = far.import_module(channelexec)
        assert remote.listdir(str(tmp_path)) == ["file"]
        assert remote.twice([1], times=3) == [1, 1, 1]


def test_modules_over_there(one: PipeInterpreter, channelexec: Any) -> None:
    remote = one.import_module(channelexec)
    assert remote.__doc__ == "A module for remoto."
    assert remote.listdir.__doc__ == "List a folder."
    assert remote.listdir.__name__ == "listdir"
    assert remote.basename("/a/b") == "b"
    assert dir(remote) == ["basename", "listdir", "twice"]
    assert repr(remote) == "<module 'rm_channelexec' on far.example.org>"
    assert repr(remote.twice) == "<function twice on far.example.org>"
    for name in ("VALUE", "Thing", "none", "os"):
        with pytest.raises(AttributeError, match=rf"has no function '{name}' to run on far"):
            getattr(remote, name)
    with pytest.raises(RemoteCallError, match=r"TypeError"):
        remote.twice()
    with pytest.raises(TypeError, match=r"module must be a module, not str"):
        one.import_module("os")  # type: ignore[arg-type]
