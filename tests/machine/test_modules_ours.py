"""Functions of modules that import this package, or packages that have extension modules."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.call_pipes import PipeInterpreter, pythons

import remctl_toolkit
from remctl_toolkit.machine import facts, helpers
from remctl_toolkit.machine.call import RemoteCallError

pytestmark = pytest.mark.once


def public_modules() -> list[str]:
    found = pkgutil.walk_packages(remctl_toolkit.__path__, "remctl_toolkit.", lambda name: None)
    private = re.compile(r"\.(_|far_|both_)")
    names = ["remctl", "_remctl", "remctl_toolkit", *(each.name for each in found)]
    return [name for name in names if not private.search(name)]


# The shape of the package of other people: `remctl.py` takes what it needs of its extension.
PYREMCTL = {
    "remctl.py": """
import _remctl
VERSION = _remctl.VERSION
class RemctlError(Exception):
    pass
class Remctl:
    def __init__(self, host=None, port=None, principal=None):
        self.handle = _remctl.remctl_new()
def remctl(host, port=None, principal=None, command=()):
    return _remctl.remctl_new(), list(command)
def ours(host):
    return Remctl(host).handle
""",
    "_remctl.py": "VERSION = '3.18'\ndef remctl_new():\n    return 'theirs'\n",
}


def install(monkeypatch: pytest.MonkeyPatch, base: Path, python: str, files: Any) -> None:
    """Install files for a remote Python, in the directory of its user."""
    monkeypatch.setenv("PYTHONUSERBASE", str(base))
    command = [python, "-c", "import site; print(site.getusersitepackages(), end='')"]
    folder = Path(subprocess.check_output(command, text=True, timeout=30))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import modules from, whose names begin with "ro_"."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.lstrip("_").startswith("ro_")]:
        del sys.modules[name]


@pytest.fixture(params=["none of it", "pyremctl"])
def there(
    request: pytest.FixtureRequest, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PipeInterpreter]:
    python = pythons()[version]
    if request.param == "pyremctl":
        install(monkeypatch, tmp_path / "base", python, PYREMCTL)
    with PipeInterpreter(python) as far:
        yield far


EDGES = list(dict.fromkeys([next(iter(pythons())), next(reversed(pythons()))]))


@pytest.mark.parametrize("version", EDGES)
def test_every_module_can_be_imported(here: Path, there: PipeInterpreter) -> None:
    """By its name, with all its names, and with a star; what is not used does not fail."""
    names = sorted(public_modules())
    assert len(names) > 50
    for name in names:
        public = [
            n for n in vars(importlib.import_module(name)) if n.isidentifier() and n[0] != "_"
        ]
        chosen = getattr(sys.modules[name], "__all__", public)
        lines = [f"import {name}", *(f"from {name} import {each}" for each in chosen)]
        lines += [f"from {name} import *", "def work(x):", "    return x + 1"]
        module = "ro_" + name.replace(".", "_")
        (here / f"{module}.py").write_text("\n".join(lines))
        assert there.call(importlib.import_module(module).work, 1) == 2
    expected = {"ro_" + name.replace(".", "_") for name in names}
    # The functions of facts and helpers are made for there.
    assert set(there.served) == {*expected, "remctl_toolkit.machine.facts.far_facts"}


USES = """
from __future__ import annotations
import typing
import remctl as bindings
from remctl import *
from remctl import __version__
from remctl_toolkit.machine import Group, Machine, MachineError
import remctl_toolkit.machine.group as group
class Mine(Machine):
    pass
class Protocol_(typing.Protocol):
    def run(self, machine: Machine) -> Group: ...
class MineError(bindings.RemctlError, ValueError):
    pass
class StarError(RemctlError):
    pass
Alias = typing.Union[Machine, typing.List[Group], None]
def work(x, stream=group.Group, *groups: Group) -> MineError:
    try:
        return x + 1
    except MachineError:
        return 0
def use():
    return Mine("localhost")
def use_more():
    return group.Group(["localhost"])
def method():
    return Machine.facts("a")
def raising():
    raise MineError("failed")
def caught():
    try:
        raise ValueError("another")
    except (MachineError, bindings.RemctlError):
        return "ours"
    except ValueError:
        return isinstance(3, Machine)
"""


@pytest.mark.parametrize("version", pythons())
def test_names_fail_when_they_are_used(here: Path, there: PipeInterpreter) -> None:
    (here / "ro_uses.py").write_text(USES)
    uses: Any = importlib.import_module("ro_uses")
    assert there.call(uses.work, 1) == 2
    assert there.call(uses.caught) is False
    text = "ImportError on .*: {} cannot be used on the remote host, only in the program that made"
    for function, name in (
        (uses.use, "ro_uses.Mine"),
        (uses.use_more, "remctl_toolkit.machine.group.Group"),
        (uses.method, "remctl_toolkit.machine.facts"),
    ):
        with pytest.raises(RemoteCallError, match=text.format(name)):
            there.call(function)
    assert there.served == ("ro_uses",)


FOR_THERE = """
import remctl_toolkit.machine.helpers
from remctl_toolkit.machine import facts
from remctl_toolkit.machine.chopsticks import facts as same, output_lines, python_version
def work():
    assert same.ip is facts.ip
    assert facts.memory()["total"] > 0
    return output_lines(["echo", remctl_toolkit.machine.helpers.check_output(["echo", "x"])])
def is_python_3():
    return tuple(python_version(short=True)) >= (3, 0)
"""


@pytest.mark.parametrize("version", EDGES)
def test_functions_that_are_made_for_there_work(here: Path, there: PipeInterpreter) -> None:
    (here / "ro_for_there.py").write_text(FOR_THERE)
    module: Any = importlib.import_module("ro_for_there")
    assert there.call(module.is_python_3) is True
    assert there.call(module.work) == ["x", ""]


MADE = """
from remctl_toolkit.backend import Backend
from remctl_toolkit.machine import Group, Machine
from remctl_toolkit.pool import Pool
machine = Machine("server.example.org", connect_timeout=1)
pool = Pool("server.example.org")
machines = [Machine(host) for host in ("web1", "web2")] + list(Pool(host) for host in ["web3"])
backend = Backend("tool")
@backend.command("disk", "usage")
def usage(path: str = "/"):
    return path
class Site:
    hosts = Group(["web1", "web2"])
    def ask(self):
        return self.hosts.call(usage)
def run():
    return machine.run(["true"])
def ask():
    return Site().ask()
"""


@pytest.mark.parametrize("version", EDGES)
def test_what_a_module_makes_fails_when_it_is_used(here: Path, there: PipeInterpreter) -> None:
    """Nothing is connected to from there as a module is imported."""
    (here / "ro_made.py").write_text(MADE)
    with PipeInterpreter(there.python, modules=["ro_made"]) as far:
        assert far.call(eval, "__import__('ro_made').usage()") == "/"
        for name in ("run", "ask"):
            with pytest.raises(
                RemoteCallError, match=r"ImportError .* cannot be used on the remote host"
            ):
                far.call(eval, f"__import__('ro_made').{name}()")


@pytest.mark.parametrize("version", EDGES)
def test_remctl_is_theirs_and_whole_or_a_stand_in(
    here: Path, there: PipeInterpreter, request: pytest.FixtureRequest
) -> None:
    text = """
import _remctl
import remctl
from remctl import RemctlStream, remctl as call
def run():
    return call("host", command=["a"]), remctl.Remctl("host").handle, _remctl.VERSION
def newer():
    return RemctlStream(1)
"""
    (here / "ro_user.py").write_text(text)
    user: Any = importlib.import_module("ro_user")
    if "pyremctl" in request.node.name:
        assert there.call(user.run) == (("theirs", ["a"]), "theirs", "3.18")
    else:
        with pytest.raises(
            RemoteCallError, match=r"remctl.remctl cannot be used on the remote host"
        ):
            there.call(user.run)
    with pytest.raises(
        RemoteCallError, match=r"remctl.RemctlStream cannot be used on the remote host"
    ):
        there.call(user.newer)
    assert there.served == ("ro_user",)


@pytest.mark.parametrize("version", EDGES)
def test_half_of_remctl_is_none(
    here: Path, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"remctl.py": PYREMCTL["remctl.py"]}
    install(monkeypatch, tmp_path / "base", pythons()[version], files)
    (here / "ro_user.py").write_text("import remctl\ndef run():\n    remctl.Remctl()\n")
    with PipeInterpreter(pythons()[version], modules=lambda name: True) as far:
        with pytest.raises(
            RemoteCallError, match=r"remctl.Remctl cannot be used on the remote host"
        ):
            far.call(importlib.import_module("ro_user").run)
        assert far.served == ("ro_user",)


def test_files_that_are_meant_to_be_sent() -> None:
    with PipeInterpreter(sys.executable) as far:
        assert far.call(helpers.output_lines, ["echo", "x"]) == ["x"]
        assert isinstance(far.call(facts.memory), dict)


# -- Packages with extension modules --------------------------------------------------------------

# Local and remote packages: with the extension inside, with the extension next to it, parts of one
# folder, and one whose extension is only remote.
HERE = {
    "ro_yaml/__init__.py": """
try:
    from ro_yaml._yaml import WORD
except ImportError:
    WORD = None
SIDE = "here"
def halves():
    return SIDE, WORD
""",
    "ro_yaml/_yaml.abi3.so": "",
    "ro_ldap.py": "import _ro_ldap\nSIDE = 'here'\ndef halves():\n    return SIDE, _ro_ldap.WORD\n",
    "_ro_ldap.abi3.so": "",
    "ro_space/proto/__init__.py": """
from ro_space._upb import WORD
SIDE = 'here'
def halves():
    return SIDE, WORD
""",
    "ro_space/_upb/_message.abi3.so": "",
    "ro_space/pure.py": "SIDE = 'here'\ndef halves():\n    return SIDE, 'here'\n",
    "ro_plain/__init__.py": """
try:
    from ro_plain._speed import WORD
except ImportError:
    WORD = "slow"
SIDE = "here"
def halves():
    return SIDE, WORD
""",
}
THERE = {
    "ro_yaml/_yaml.py": "WORD = 'there'\n",
    "_ro_ldap.py": "WORD = 'there'\n",
    "ro_space/_upb/__init__.py": "WORD = 'there'\n",
    "ro_plain/_speed.py": "WORD = 'there'\n",
    **{
        name: text.replace("'here'", "'there'").replace('"here"', '"there"')
        for name, text in HERE.items()
        if name.endswith(".py") and "pure" not in name
    },
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


HALVES = """
import ro_yaml, ro_ldap, ro_space.proto, ro_space.pure, ro_plain
def halves():
    return [m.halves() for m in (ro_yaml, ro_ldap, ro_space.proto, ro_space.pure, ro_plain)]
"""


@pytest.mark.parametrize("modules", [None, lambda name: True], ids=["needed", "all"])
@pytest.mark.parametrize("version", EDGES)
def test_a_package_is_whole(
    here: Path, version: str, modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with an extension is the one installed on the host; others are sent."""
    python = pythons()[version]
    write(here, HERE)
    install(monkeypatch, tmp_path / "base", python, THERE)
    (here / "ro_main.py").write_text(HALVES)
    monkeypatch.setitem(sys.modules, "_ro_ldap", sys)  # These are no extensions, but only named so.
    monkeypatch.setitem(sys.modules, "ro_space._upb", sys)
    monkeypatch.setattr(sys, "WORD", "", raising=False)
    main: Any = importlib.import_module("ro_main")
    with PipeInterpreter(python, modules=modules) as far:
        assert far.call(main.halves) == [
            ("there", "there"),
            ("there", "there"),
            ("there", "there"),
            ("here", "here"),
            ("here", "slow"),
        ]


@pytest.mark.parametrize("version", EDGES)
def test_a_package_that_is_not_there_is_the_half_from_here(
    here: Path, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, HERE)
    (here / "ro_main.py").write_text("import ro_yaml\ndef halves():\n    return ro_yaml.halves()\n")
    with PipeInterpreter(pythons()[version]) as far:
        assert far.call(importlib.import_module("ro_main").halves) == ("here", None)
        monkeypatch.setitem(sys.modules, "_ro_ldap", sys)
        monkeypatch.setattr(sys, "WORD", "", raising=False)
        text = (
            r"ImportError on .*: extension module '_ro_ldap' cannot be sent: install it on the host"
        )
        with pytest.raises(RemoteCallError, match=text):
            far.call(importlib.import_module("ro_ldap").halves)


def test_an_extension_that_is_there_alone_is_not_taken(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half is sent, because this program has no extension of it."""
    install(monkeypatch, tmp_path / "base", sys.executable, {"_ro_fast.abi3.so": ""})
    text = "def halves():\n    try:\n        import _ro_fast\n    except ImportError as error:\n"
    (here / "ro_fast.py").write_text(text + "        return str(error)\n")
    with PipeInterpreter(sys.executable) as far:
        said = far.call(importlib.import_module("ro_fast").halves)
    assert said == (
        "extension module '_ro_fast' of the remote host may not match 'ro_fast', which was sent"
    )


# -- Files of packages ----------------------------------------------------------------------------


GET = "import pkgutil\ndef get(name):\n    return pkgutil.get_data(__name__, name)\n"
FILES = {
    "ro_data/__init__.py": "",
    "ro_data/words.txt": "words",
    "ro_data/inner/__init__.py": "",
    "ro_data/inner/more/words.txt": "more",
    "ro_data/inner/module.py": GET,
    "ro_data/space/words.txt": "of a folder without a file for it",
    "ro_data/space/module.py": GET,
    "ro_secret.txt": "secret",
}


@pytest.mark.parametrize("version", pythons())
def test_modules_read_the_files_of_their_package(here: Path, version: str) -> None:
    write(here, FILES)
    inner: Any = importlib.import_module("ro_data.inner.module")
    space: Any = importlib.import_module("ro_data.space.module")
    with PipeInterpreter(pythons()[version]) as far:
        for module, name in (
            (inner, "more/words.txt"),
            (inner, "../words.txt"),
            (inner, "more/../more/words.txt"),
            (space, "words.txt"),
        ):
            assert far.call(module.get, name) == module.get(name)
        for name in ("../../ro_secret.txt", "none.txt", "/etc/passwd", "more"):
            with pytest.raises(RemoteCallError, match=r"FileNotFoundError"):
                far.call(inner.get, name)
