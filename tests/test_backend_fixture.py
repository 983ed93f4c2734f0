"""Backends in the pytest fixture: which can be run by a server, and with which ACL."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from support import samplebackend

import remctl
from remctl_toolkit.backend import Backend, launch
from remctl_toolkit.testing import Command, Realm, backend_commands

pytestmark = pytest.mark.once

BACKEND = samplebackend.backend
PRIVATE = Backend("private")


@PRIVATE.command()
def ping() -> str:
    return "pong"


def test_one_backend_and_several(remctld: Any) -> None:
    for commands in (BACKEND, [BACKEND], (c for c in [Command("x", program="/bin/echo"), BACKEND])):
        server = remctld(commands)
        result = remctl.remctl(server.host, server.port, command=["sample", "echo", "x"])
        assert result.check().stdout == b"x\n"


def test_declared_acls_count_unless_others_are_given(remctld: Any) -> None:
    nobody = backend_commands(BACKEND, acl="princ:nobody@REMCTL.TEST")
    assert {command.acl for command in nobody} == {("princ:nobody@REMCTL.TEST",)}
    assert {command.acl for command in backend_commands(BACKEND)} == {("ANYUSER",)}
    server = remctld(nobody)
    with pytest.raises(remctl.RemctlServerError, match="Access denied"):
        remctl.remctl(server.host, server.port, command=["sample", "echo", "x"])


def test_a_backend_without_acls_is_for_the_realms_user(remctld: Any, remctl_realm: Realm) -> None:
    server = remctld(PRIVATE)
    call = {"host": server.host, "port": server.port, "command": ["private", "ping"]}
    assert remctl.remctl(**call).stdout == b"pong\n"
    remctl_realm.add_principal("another", password="secret")
    ccache = remctl_realm.kinit("another", password="secret", ccache=remctl_realm.new_ccache())
    with pytest.raises(remctl.RemctlServerError, match="Access denied"):
        remctl.remctl(**call, ccache=ccache)


def test_a_backend_that_another_process_cannot_find(remctld: Any) -> None:
    backend = Backend("hidden")
    with pytest.raises(ValueError, match="at the top level of its file"):
        remctld(backend)


def test_launching_finds_a_backend_by_its_name() -> None:
    assert launch.find(samplebackend.__file__, "other", "sample").name == "sample"
    with pytest.raises(LookupError, match="no backend 'other'"):
        launch.find(samplebackend.__file__, "other", "other")


PACKAGE = """
from __future__ import annotations
from remctl_toolkit.backend import Backend
{imports}
backend = Backend("packaged", acl="ANYUSER")

@backend.command()
def show() -> str:
    return {value}
"""


@pytest.mark.parametrize("file", ["backend.py", "inner/backend.py"])
def test_a_backend_of_a_package_imports_from_it(
    remctld: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    path = tmp_path / "some_package" / file
    path.parent.mkdir(parents=True)
    for folder in {path.parent, tmp_path / "some_package"}:
        (folder / "__init__.py").write_text("from .backend import backend\n")
        (folder / "data.py").write_text("VALUE = 'of the package'\n")
    if "/" in file:
        (tmp_path / "some_package/__init__.py").write_text("from .inner.backend import backend\n")
    path.write_text(PACKAGE.format(imports="from .data import VALUE", value="VALUE"))
    monkeypatch.syspath_prepend(tmp_path)
    name = f"some_package.{file.replace('/', '.').removesuffix('.py')}"
    try:
        server = remctld(importlib.import_module(name).backend)
    finally:
        for module in [each for each in sys.modules if each.startswith("some_package")]:
            del sys.modules[module]
    result = remctl.remctl(server.host, server.port, command=["packaged", "show"])
    assert result.check().stdout == b"of the package\n"


@pytest.mark.parametrize("name", ["program", "made.up.program"])
def test_a_backend_of_a_program_whose_name_has_no_suffix(
    remctld: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nor need it be importable: pytest makes up packages for test files."""
    path = tmp_path / "program"
    path.write_text(PACKAGE.format(imports="", value="'of the program'"))
    spec = spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    server = remctld(module.backend)
    result = remctl.remctl(server.host, server.port, command=["packaged", "show"])
    assert result.check().stdout == b"of the program\n"
