"""What programs written for remoto do besides its README: wrappers, names, accounts, errors."""

from __future__ import annotations

import copy
import functools
import getpass
import logging
import os
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from machine.containers import place_of, write_programs
from machine.loglines import Lines

import remctl
import remctl_toolkit.machine.remoto as remoto
from remctl_toolkit import machine
from remctl_toolkit.machine import Machine, NoPythonError, UnknownUserError, facts, open_gateway
from remctl_toolkit.machine.group import Group
from remctl_toolkit.machine.process import check, run
from remctl_toolkit.machine.remoto import Connection, exc
from remctl_toolkit.machine.remoto.connection import (
    DockerConnection,
    KubernetesConnection,
    LocalConnection,
)
from remctl_toolkit.machine.remoto.file_sync import rsync_conn

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

USER = getpass.getuser()
SHOW = 'echo "$BOX $SUDO_USER"'


@pytest.fixture(scope="module")
def place(
    remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    with place_of(remctl_realm, write_programs(tmp_path_factory.mktemp("programs"))) as place:
        yield place


@pytest.fixture(scope="module")
def box(place: dict[str, Any]) -> Iterator[DockerConnection]:
    with DockerConnection(container_name="box", sudo=True, logger=Lines(), **place) as conn:
        yield conn


@pytest.fixture(scope="module")
def plain(place: dict[str, Any]) -> Iterator[Connection]:
    with Connection("localhost", **place) as conn:
        yield conn


# -- Wrappers -------------------------------------------------------------------------------------


class Delegating:
    """As ceph's manager has it."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)


class Proxy(Delegating):
    """One that claims to be what it wraps."""

    __class__ = property(lambda self: type(self.conn))  # pyright: ignore[reportIncompatibleMethodOverride]


class Subclass(DockerConnection):
    """A connection with more."""


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "delegating": Delegating,
    "twice": lambda conn: Delegating(Delegating(conn)),
    "proxy": Proxy,
    "weakref": weakref.proxy,
    "namespace": lambda conn: types.SimpleNamespace(
        **{name: getattr(conn, name) for name in dir(conn) if not name.startswith(("_", "g"))},
        global_timeout=conn.global_timeout,
    ),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_keep_what_a_connection_has(
    wrap: Callable[[Any], Any], box: DockerConnection
) -> None:
    expected: Any = (["docker them"], [], 0)
    wrapper = wrap(box)
    assert check(wrapper, SHOW, shell=True) == expected
    box.logger.lines.clear()
    run(wrapper, SHOW, shell=True)
    assert box.logger.of("DEBUG")[-1:] == expected[0]
    box.global_timeout = 0.2
    try:
        assert check(wrap(box), ["sleep", "60"]) == ([], [], -1)
    finally:
        box.global_timeout = None


def test_subclasses_and_made_connections_are_connections(place: dict[str, Any]) -> None:
    make = functools.partial(Subclass, container_name="box", **place)
    with make() as conn:
        assert check(conn, SHOW, shell=True)[0] == ["docker "]
        with pytest.raises(TypeError, match=r"not on partial$"):
            check(make, ["true"])  # type: ignore[arg-type]


def test_a_wrapper_may_have_settings_of_its_own(box: DockerConnection) -> None:
    wrapper: Any = Delegating(box)
    wrapper.sudo = False
    assert check(wrapper, SHOW, shell=True)[0] == ["docker "]
    wrapper.cmd = lambda words: words
    assert check(wrapper, SHOW, shell=True)[0] == [" "]


def test_a_wrapper_may_end_the_connection(place: dict[str, Any]) -> None:
    conn = Connection("localhost", **place)
    wrapper: Any = Delegating(conn)
    check(wrapper, ["true"], exit=True)
    assert not conn.has_connection()


def test_wrappers_of_machines_keep_folder_and_environment(
    place: dict[str, Any], tmp_path: Path
) -> None:
    with Machine("localhost", cwd=tmp_path, **place) as one:
        one.env["A"] = "b"
        wrapper: Any = Delegating(one)
        found = check(wrapper, "pwd; echo $A", shell=True)
    assert found == ([str(tmp_path), "b"], [], 0)


class Partial:
    """Less than a connection."""

    def __init__(self, conn: Connection, *names: str) -> None:
        self.conn = conn
        for name in ("connection", *names):
            setattr(self, name, getattr(conn, name))


def test_what_would_lose_something_is_refused(box: DockerConnection) -> None:
    refused: list[tuple[Any, str]] = [
        (Partial(box), "not on Partial, which lacks close"),
        (Partial(box, "close", "hostname"), "not on Partial, which lacks logger, cwd, changes, su"),
        (Partial(box, "close", "cmd"), "not on Partial, which lacks hostname, .*, exit"),
        (types.SimpleNamespace(conn=box), "not on SimpleNamespace$"),
        (types.SimpleNamespace(connection=box, close=print), "not on SimpleNamespace$"),
        (Delegating(None), "not on Delegating$"),
        (Delegating(box.connection), "not on Delegating$"),
        (Mock(), "not on Mock$"),
        (Mock(spec=DockerConnection), "not on Mock$"),
        (Mock(wraps=box), "not on Mock$"),
        (Mock(spec=machine.Connection), "not on Mock$"),
        (Mock(spec=box.connection), "not on Mock$"),
        (DockerConnection, "not on type$"),
        (None, "not on NoneType$"),
    ]
    for wrong, text in refused:
        for function in (check, run, lambda wrong, _: facts.gather(wrong)):
            with pytest.raises(TypeError, match=f"^commands run on a machine .*, {text}"):
                function(wrong, ["true"])


def test_facts_gateways_and_files_are_never_the_hosts_instead(
    box: DockerConnection, place: dict[str, Any], tmp_path: Path
) -> None:
    with Connection("localhost", sudo=True, **place) as sudo:
        conns: list[Any] = [box, sudo, Delegating(box)]
        for conn in conns:
            for function in (facts.gather, open_gateway, lambda conn: rsync_conn(conn, ".", "x")):
                with pytest.raises(
                    ValueError, match=r" has sudo or a container, and .* use its imp"
                ):
                    function(conn)
        assert "pid" not in sudo.import_module(facts).memory()
    assert box.import_module(facts).memory().keys() >= {"total", "available"}


def test_groups_never_run_on_the_host_instead(place: dict[str, Any]) -> None:
    def in_container(host: Any) -> Any:
        return DockerConnection("localhost", container_name="box", **place)

    with Group(["box"], factory=in_container) as group:
        failures = group.run(["sh", "-c", "echo $BOX"]).failures()
    assert [type(result.error) for _, result in failures] == [ValueError]


def test_facts_and_gateways_of_an_account(plain: Connection) -> None:
    pytest.importorskip("execnet")
    import execnet

    conns: list[Any] = [plain, Delegating(plain)]
    for conn in conns:
        assert facts.gather(conn, "memory")["memory"]["total"] > 0
        group = execnet.Group()
        gateway = open_gateway(conn, group=group)
        assert gateway.remote_exec("channel.send(6 * 7)").receive(20) == 42
        group.terminate()


def test_arguments_that_are_none_name_no_class_of_ours(plain: Connection) -> None:
    functions: list[Any] = [run, check]
    for function in functions:
        for name in ("universal_newlines", "silence", "limit", "stdout", "target"):
            with pytest.raises(TypeError, match=f"^unexpected keyword argument '{name}'$"):
                function(plain, ["true"], **{name: 1})


# -- Hosts and accounts ---------------------------------------------------------------------------


def test_a_user_before_the_host(place: dict[str, Any], tmp_path: Path) -> None:
    name = f"{USER}@localhost"
    with Connection(name, **place) as conn:
        assert conn.hostname == name
        assert conn.logger is logging.getLogger("localhost")
        assert check(conn, ["id", "-un"])[0] == [USER]
    with DockerConnection(name, container_name="box", **place) as conn:
        assert check(conn, SHOW, shell=True)[0] == ["docker "]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    remoto.rsync(name, tmp_path / "a", str(tmp_path / "b"), **place)
    assert os.listdir(tmp_path / "b") == ["file"]
    with pytest.raises(UnknownUserError, match="no account 'nobody-here' on localhost"):
        DockerConnection("nobody-here@localhost", container_name="box", **place)
    for wrong in ("", "@localhost", "user@"):
        with pytest.raises(ValueError, match="host must be HOST or USER@HOST"):
            Connection(wrong, eager=False)
        with pytest.raises(ValueError, match="host must be HOST or USER@HOST"):
            remoto.rsync([name, wrong], tmp_path, "x")
    with pytest.raises(ValueError, match="there is no ssh here"):
        Connection("-F config localhost", eager=False)


def test_the_local_host(place: dict[str, Any]) -> None:
    make = remoto.connection.get("local")
    assert make is LocalConnection
    with make(hostname="ignored", logger=Lines(), **place) as conn:
        assert conn.hostname == "localhost"
        assert check(conn, ["echo", "x"]) == (["x"], [], 0)


def test_needs_ssh() -> None:
    class Here:
        @staticmethod
        def gethostname() -> str:
            return "web1.example.org"

        @staticmethod
        def getfqdn() -> str:
            return "web1.dc.example.org"

    needs_ssh = remoto.backends.needs_ssh
    for name in ("web1", "web1.example.org", "web1.dc.example.org", "LocalHost", "127.0.1.1"):
        assert not needs_ssh(name, Here)
    assert needs_ssh("web2", Here)
    assert not needs_ssh("localhost")


# -- Names ----------------------------------------------------------------------------------------


def test_names_of_remoto() -> None:
    assert remoto.__version__ > "1.2"  # As ceph compares it.
    backends = remoto.backends
    assert backends.BaseConnection is Connection
    assert backends.LegacyModuleExecute is backends.JsonModuleExecute
    assert backends.docker.DockerConnection is DockerConnection
    assert backends.local.LocalConnection is LocalConnection
    assert remoto.file_sync.rsync_conn is rsync_conn
    assert remoto.file_sync.rsync is remoto.rsync


def test_command_templates() -> None:
    conn = DockerConnection("h", "box", user="me", eager=False)
    template = ["docker", "exec", "-i", "-u", "me", "box", "/bin/sh", "-c"]
    assert conn.command_template() == template
    assert conn.cmd(["ceph", "a b"]) == [*template, "ceph 'a b'"]
    pod = KubernetesConnection("pod", eager=False)
    assert pod.command_template() == ["kubectl", "exec", "-i", "pod", "--", "/bin/sh", "-c"]


def test_rsync_over_a_connection(
    plain: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a" / "folder").mkdir(parents=True)
    (tmp_path / "a" / "folder" / "leaf").write_text("leaf")
    logger = logging.getLogger("rsync_conn")
    logger.setLevel(logging.DEBUG)
    for _ in range(2):
        rsync_conn(Delegating(plain), tmp_path / "a", str(tmp_path / "b"), logger)
    assert (tmp_path / "b" / "folder" / "leaf").read_text() == "leaf"
    expected = ("rsync_conn", logging.INFO, "syncing file: folder/leaf")
    assert caplog.record_tuples.count(expected) == 2
    assert plain.has_connection()
    with pytest.raises(ValueError, match="source must be a folder"):
        rsync_conn(plain, tmp_path / "none", "x")


# -- Errors and ends ------------------------------------------------------------------------------


def test_hosts_that_cannot_be_connected_to_as_execnet_has_it(place: dict[str, Any]) -> None:
    pytest.importorskip("execnet")
    from execnet.gateway_bootstrap import HostNotFound

    assert exc.HostNotFound is HostNotFound
    kinds: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (remctl.RemctlConnectError, "no-such-host.invalid", {}),
        (remctl.RemctlAuthenticationError, "localhost", {**place, "principal": "host/no.invalid"}),
        (NoPythonError, "localhost", {**place, "python": "none"}),
        (UnknownUserError, "nobody-here@localhost", place),
    ]
    for kind, name, settings in kinds:
        with pytest.raises(HostNotFound) as caught:
            Connection(name, **settings)
        assert isinstance(caught.value, kind)
        assert type(caught.value).__name__ == kind.__name__
        for twin in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
            assert type(twin) is type(caught.value)
            assert vars(twin) == vars(caught.value)
            assert str(twin) == str(caught.value)
        with Connection(name, eager=False, **settings) as conn, pytest.raises(HostNotFound):
            check(conn, ["true"])


MODULE = """
import sys

def leave(*status):
    sys.exit(*status)

def here():
    return True
"""


def test_a_function_in_a_container_may_exit(
    box: DockerConnection,
    plain: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "leaving.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "leaving", raising=False)
    module = __import__("leaving")
    remote = box.import_module(module)
    assert remote.leave() is remote.leave(0) is remote.leave(None) is None
    for status in (1, "text", ""):
        with pytest.raises(RuntimeError, match=r"^SystemExit"):
            remote.leave(status)
    assert box.remote_module.here() is True
    assert Delegating(box).remote_module is remote
    with pytest.raises(RuntimeError, match=r"^SystemExit"):
        plain.import_module(module).leave(0)
