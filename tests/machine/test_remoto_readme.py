"""remoto's README, and what else its users call: only imports and connections are changed."""

from __future__ import annotations

import getpass
import logging
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from machine.containers import place_of, write_programs

import remctl_toolkit.machine.remoto as remoto
from remctl_toolkit.machine import ClosedError, CommandTimeoutError
from remctl_toolkit.machine.group import GroupError
from remctl_toolkit.machine.process import process
from remctl_toolkit.machine.remoto import Connection, exc
from remctl_toolkit.machine.remoto.connection import (
    DockerConnection,
    KubernetesConnection,
    LocalConnection,
    OpenshiftConnection,
    PodmanConnection,
)
from remctl_toolkit.machine.remoto.process import check, run

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

MODULE = """
import os

def listdir(path):
    return os.listdir(path)

def division(a, b):
    return a / b

def environment():
    return dict(os.environ)

def python():
    return os.path.realpath('/proc/self/exe')

if __name__ == '__channelexec__':
    for item in channel:
        channel.send(eval(item))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def place(remctl_realm: Realm, programs: Path) -> Iterator[dict[str, Any]]:
    """Where to connect to, which remoto's users would not have to say."""
    with place_of(remctl_realm, programs) as place:
        yield place


@pytest.fixture
def conn(place: dict[str, Any]) -> Iterator[Connection]:
    with Connection("localhost", **place) as conn:
        yield conn


@pytest.fixture
def foo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    (tmp_path / "foo.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foo", raising=False)
    return __import__("foo")


# -- The README -----------------------------------------------------------------------------------


def test_readme_example_usage(
    place: dict[str, Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / ".bashrc").touch()
    logger = logging.getLogger("hostname")
    logger.setLevel(logging.DEBUG)
    conn = remoto.Connection("localhost", logger=logger, **place)
    run(conn, ["ls", "-a", tmp_path])
    found = [(record.name, record.levelname, record.message) for record in caplog.records]
    expected = [("hostname", "DEBUG", line) for line in (".", "..", ".bashrc")]
    assert [line for line in found if line[1] != "INFO"] == expected
    conn.exit()


def test_readme_process_run(conn: Connection, caplog: pytest.LogCaptureFixture) -> None:
    run(conn, ["whoami"])
    assert ("localhost", logging.DEBUG, getpass.getuser()) in caplog.record_tuples


def test_readme_process_check(conn: Connection) -> None:
    stdout, stderr, status = check(conn, ["ls", "/nonexistent/path"])
    assert (stdout, status) == ([], 2)
    assert stderr == ["ls: cannot access '/nonexistent/path': No such file or directory"]


def test_readme_remote_functions(conn: Connection, foo: types.ModuleType) -> None:
    remote_foo = conn.import_module(foo)
    # Others may make files in the home folder meanwhile.
    with tempfile.NamedTemporaryFile(dir=conn.connection.far.home) as file:
        assert os.path.basename(file.name) in remote_foo.listdir(".")
    assert conn.remote_module is remote_foo


# -- Connections ----------------------------------------------------------------------------------


def test_the_names_are_where_remoto_has_them(conn: Connection) -> None:
    assert remoto.Connection is remoto.connection.Connection is Connection
    assert remoto.process.run is run is process.run
    assert remoto.process.check is check is process.check
    assert check(conn, ["true"]) == process.check(conn, ["true"]) == ([], [], 0)


def test_eager(place: dict[str, Any]) -> None:
    with Connection("localhost", eager=False, **place) as conn:
        assert not conn.has_connection()
        assert check(conn, ["true"])[2] == 0
        assert conn.has_connection()


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(exc.HostNotFound):
        Connection("no-such-host.invalid")
    Connection("no-such-host.invalid", eager=False).exit()


def test_ssh_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ssh_options: there is no ssh here; use port="):
        Connection("localhost", ssh_options="-F cfg")


def test_unknown_arguments_are_refused_before_connecting() -> None:
    for make in (Connection, PodmanConnection):
        with pytest.raises(TypeError, match=r"^unexpected keyword argument 'prot'$"):
            make("localhost", "box", eager=False, prot=1)  # type: ignore[arg-type]


def test_threads_and_use_ssh_do_nothing(place: dict[str, Any]) -> None:
    with Connection("localhost", threads=4, use_ssh=True, **place) as conn:
        assert check(conn, ["true"])[2] == 0


def test_has_connection_and_exit(place: dict[str, Any]) -> None:
    conn = Connection("localhost", **place)
    assert conn.has_connection()
    conn.exit()
    assert not conn.has_connection()
    with pytest.raises(ClosedError):
        check(conn, ["true"])
    conn.exit()
    assert repr(conn) == "<Connection localhost>"


def test_exit_after_a_command(place: dict[str, Any]) -> None:
    conn = Connection("localhost", **place)
    check(conn, ["true"], exit=True)
    assert not conn.has_connection()


def test_without_a_logger_it_is_shown(place: dict[str, Any], caplog: Any) -> None:
    logger = logging.getLogger("127.0.0.1")
    assert logger.level == logging.NOTSET
    conn = Connection("127.0.0.1", eager=False)
    assert conn.logger is logger
    assert logger.isEnabledFor(logging.DEBUG)


def test_cmd_rewrites_commands(place: dict[str, Any]) -> None:
    class Nice(Connection):
        def cmd(self, cmd: Any) -> Any:
            return ["env", "A=b", *cmd]

    with Nice("localhost", **place) as conn:
        assert "A=b" in check(conn, ["env"])[0]


# -- Time, errors ---------------------------------------------------------------------------------


def test_timeouts_are_logged(conn: Connection, caplog: pytest.LogCaptureFixture) -> None:
    assert check(conn, ["sleep", "60"], timeout=0.2) == ([], [], -1)
    assert run(conn, ["sleep", "60"], timeout=0.2) is None  # type: ignore[func-returns-value]
    conn.global_timeout = 0.2
    assert check(conn, ["sleep", "60"]) == ([], [], -1)
    levels = [record.levelno for record in caplog.records if "it was ended" in record.message]
    assert levels == [logging.WARNING] * 3
    with pytest.raises(exc.TimeoutError):
        check(conn, ["sleep", "60"], stop_on_timeout=True)
    assert exc.TimeoutError is CommandTimeoutError


def test_failures_are_runtime_errors(conn: Connection) -> None:
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: false"):
        run(conn, ["false"])
    with pytest.raises(RuntimeError, match=r"^Failed to execute command: no-such-program"):
        check(conn, ["no-such-program"])
    run(conn, ["false"], stop_on_nonzero=False)
    run(conn, ["false"], stop_on_error=False)


# -- Functions ------------------------------------------------------------------------------------


def test_functions_that_raise(conn: Connection, foo: types.ModuleType) -> None:
    remote = conn.import_module(foo)
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: division by zero$") as info:
        remote.division(1, 0)
    assert isinstance(info.value.__cause__, exc.RemoteError)
    assert remote.division(4, b=2) == 2  # In remoto, the channel would be dead.
    with pytest.raises(AttributeError, match="no function 'nothing'"):
        _ = remote.nothing


def test_python_executable(conn: Connection, foo: types.ModuleType, tmp_path: Path) -> None:
    usual = conn.import_module(foo).python()
    assert usual == os.path.realpath(conn.connection.far.python)
    link = tmp_path / "another"
    link.symlink_to(conn.connection.far.python)
    assert conn.import_module(foo, python_executable=str(link)).python() == usual
    assert len(conn._interpreters) == 2


def test_interpreter(place: dict[str, Any], foo: types.ModuleType) -> None:
    with Connection("localhost", interpreter=sys.executable, **place) as conn:
        assert conn.import_module(foo).python() == os.path.realpath(sys.executable)


def add(channel, a, b):  # type: ignore[no-untyped-def]  # execnet wants no names of ours in it
    channel.send(a + b)


def test_execute_gateway_and_group(conn: Connection) -> None:
    pytest.importorskip("execnet")
    assert conn.execute(add, a=1, b=2).receive(20) == 3
    assert conn.execute("channel.send(6 * 7)").receive(20) == 42
    assert conn.gateway in conn.group
    group = conn.group
    conn.exit()
    assert len(group) == 0


# -- sudo -----------------------------------------------------------------------------------------


def test_sudo(place: dict[str, Any], foo: types.ModuleType) -> None:
    with Connection("localhost", sudo=True, **place) as conn:
        assert check(conn, "echo $SUDO_USER", shell=True)[0] == ["them"]
        assert conn.import_module(foo).environment()["SUDO_USER"] == "them"


def test_detect_sudo(place: dict[str, Any]) -> None:
    with Connection("localhost", detect_sudo=True, **place) as conn:
        assert conn.sudo == (os.getuid() != 0)


# -- Containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "box"),
    [
        (lambda **place: DockerConnection(container_id="box", **place), "docker"),
        (lambda **place: DockerConnection("localhost", container_name="box", **place), "docker"),
        (lambda **place: PodmanConnection(container_name="box", **place), "podman"),
        (lambda **place: KubernetesConnection("pod", "n", "c", **place), "kubectl"),
        (lambda **place: OpenshiftConnection("pod", **place), "oc"),
    ],
    ids=["docker", "docker-name", "podman", "kubernetes", "openshift"],
)
def test_containers(
    make: Callable[..., Connection], box: str, place: dict[str, Any], foo: types.ModuleType
) -> None:
    with make(**place) as conn:
        assert check(conn, ["sh", "-c", 'echo "$BOX  x"']) == ([f"{box}  x"], [], 0)
        assert check(conn, ["cat"], stdin=b"in") == (["in"], [], 0)
        assert conn.import_module(foo).environment()["BOX"] == box


def test_a_container_needs_a_name() -> None:
    with pytest.raises(TypeError, match="Either container_id or container_name"):
        DockerConnection("localhost")


def test_user_of_a_container(place: dict[str, Any], programs: Path) -> None:
    with DockerConnection(container_id="box", user="me", **place) as conn:
        check(conn, ["true"])
    assert "exec -i -u me box /bin/sh -c true" in (programs / "docker.log").read_text()


def test_get(caplog: pytest.LogCaptureFixture) -> None:
    get = remoto.connection.get
    assert get("ssh") is get(None) is get("remctl") is Connection
    assert get(" Docker ") is DockerConnection
    assert get("podman") is PodmanConnection
    assert get("k8s") is get("kubernetes") is KubernetesConnection
    assert get("oc") is get("openshift") is OpenshiftConnection
    assert get("non-existent") is Connection
    assert get("non-existent", "openshift") is OpenshiftConnection
    assert get("local") is get("localhost") is get("popen") is LocalConnection
    assert get("non-existent", None) is None
    assert 'no connection backend found for: "non-existent"' in caplog.text


# -- rsync ----------------------------------------------------------------------------------------


def test_rsync(place: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "leaf").write_text("leaf")
    (source / "root").write_text("root")
    logger = logging.getLogger("hostname")
    logger.setLevel(logging.DEBUG)
    for _ in range(2):
        hosts = ["localhost", "127.0.0.1"]
        remoto.rsync(hosts, source, str(tmp_path / "copy"), logger=logger, **place)
    assert (tmp_path / "copy" / "folder" / "leaf").read_text() == "leaf"
    assert (tmp_path / "copy" / "root").read_text() == "root"
    assert sorted(os.listdir(tmp_path / "copy")) == ["folder", "root"]
    assert "syncing file: folder/leaf" in caplog.text
    remoto.rsync("localhost", str(source), str(tmp_path / "another"), **place)
    assert (tmp_path / "another" / "root").exists()


def test_rsync_that_fails(tmp_path: Path) -> None:
    with pytest.raises(GroupError, match="1 of 1 hosts failed"):
        remoto.rsync("no-such-host.invalid", tmp_path, "/tmp/x")
    with pytest.raises(ValueError, match="not as root"):
        remoto.rsync("localhost", tmp_path, "/tmp/x", sudo=True)
    with pytest.raises(ValueError, match="source must be a folder"):
        remoto.rsync("localhost", tmp_path / "nothing", "/tmp/x")
