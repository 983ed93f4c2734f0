"""Machines that connect when they are needed, accounts by their users, and use after close()."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plumbum import local
from plumbum.machines.remote import AsyncRemoteMachine, ClosedRemoteMachine
from support.subprocesses import LIMIT

import remctl
from remctl_toolkit.machine import ClosedError, Connection, Group, Machine, files, open_gateway
from remctl_toolkit.machine.base.accounts import UnknownUserError, split_user
from remctl_toolkit.machine.facts import gather
from remctl_toolkit.machine.plumbum import environment
from remctl_toolkit.machine.plumbum import machine as machines
from remctl_toolkit.machine.process import check, run
from remctl_toolkit.testing import Command, RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

USER = getpass.getuser()


def lazy(server: RemctldServer, **how: Any) -> Machine:
    return Machine(server.host, server.port, server.principal, connect=False, **how)


# -- connect=False --------------------------------------------------------------------------------


def test_making_it_needs_no_host() -> None:
    with Machine("no-such-host.invalid", connect=False) as machine:
        assert machine.host == "no-such-host.invalid"
        assert str(machine) == "remctl://no-such-host.invalid"
        assert repr(machine) == f"<Machine {machine}>"
        assert not machine.closed
        for _ in range(2):
            with pytest.raises(remctl.RemctlConnectError):
                machine["true"]
    assert machine.closed


def test_machines_do_not_wait_for_the_hosts_of_each_other(
    server: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, goes_on = threading.Event(), threading.Event()
    asked = environment.MachineEnv

    def ask(machine: Machine) -> Any:
        if machine is slow:
            waits.set()
            goes_on.wait(LIMIT)
        return asked(machine)

    monkeypatch.setattr(machines, "MachineEnv", ask)
    with lazy(server) as slow, lazy(server) as quick:
        thread = threading.Thread(target=lambda: slow.env)
        thread.start()
        waits.wait(LIMIT)
        threading.Thread(target=lambda: (quick.env, goes_on.set())).start()
        assert goes_on.wait(LIMIT / 2)
        thread.join(LIMIT)
        assert slow.env is slow.env


FIRST_USES: dict[str, Callable[[Machine], Any]] = {
    "command": lambda machine: machine["true"](),
    "connection": lambda machine: machine.connection.run(["true"]).check(),
    "far": lambda machine: machine.far.uid,
    "uname": lambda machine: machine.uname,
    "cwd": lambda machine: machine.cwd.list(),
    "env": lambda machine: machine.env["HOME"],
    "path": lambda machine: machine.path("x"),
    "popen": lambda machine: machine.popen(["true"]).communicate(),
    "session": lambda machine: machine.session().close(),
    "call": lambda machine: machine.call(os.getpid),
    "facts": lambda machine: machine.facts("system"),
    "check": lambda machine: check(machine, ["true"]),
    "group": lambda machine: Group([machine]).call(os.getpid),
}


@pytest.mark.parametrize("use", FIRST_USES.values(), ids=FIRST_USES)
def test_the_first_use_connects(server: RemctldServer, use: Callable[[Machine], Any]) -> None:
    with lazy(server, cwd="/usr") as machine:
        use(machine)
        assert str(machine.cwd) == "/usr"
        assert str(machine) == f"remctl://{machine.far.user}@{server.host}"


def test_threads_share_the_connection(server: RemctldServer) -> None:
    found: list[Connection] = []
    with lazy(server) as machine:
        threads = [
            threading.Thread(target=lambda: found.append(machine.connection)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


def test_what_is_wrong_is_found_out_later(server: RemctldServer) -> None:
    with lazy(server, cwd="/nonexistent") as machine:
        for _ in range(2):
            with pytest.raises(Exception, match="nonexistent"):
                machine["pwd"]()


def test_a_machine_on_top_of_an_imported_module(
    connection: Connection, server: RemctldServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""
        import os
        from remctl_toolkit.machine import Machine
        machine = Machine({server.host!r}, {server.port!r}, {server.principal!r}, connect=False)

        def pid():
            return os.getpid()

        def use():
            return machine["true"]()

        def pid_there():
            return machine.call(pid)
    """
    name = f"lazily_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module(name)
    try:
        assert module.pid_there() not in (0, os.getpid())
        with Machine.over(connection) as other:
            assert other.import_module(module).pid() != os.getpid()
            with pytest.raises(Exception, match="cannot be used on the remote host"):
                other.call(module.use)
    finally:
        module.machine.close()
        sys.modules.pop(name)


# -- Users ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accounts(remctl_realm: Realm) -> Iterator[RemctldServer]:
    """A server with python and sh, and python-alice, which is the same account."""
    python, shell = machine_commands()
    named = Command("python-alice", program=python.program, stdin="last")
    with RemctldServer(remctl_realm, [python, shell, named]) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "user", "command", "shell"),
    [
        ("{}", None, "python", "sh"),
        ("alice@{}", None, "python-alice", None),
        ("{}", "alice", "python-alice", None),
        ("alice@{}", "alice", "python-alice", None),
        (USER + "@{}", None, "python", "sh"),
        ("{}", USER, "python", "sh"),
    ],
)
def test_a_user_is_an_account(
    accounts: RemctldServer, host: str, user: str | None, command: str, shell: str | None
) -> None:
    name = host.format(accounts.host)
    with Machine(name, accounts.port, accounts.principal, user=user) as machine:
        assert (machine.host, machine.connection.python) == (accounts.host, command)
        assert machine.connection.shell == shell
        assert machine["id"]("-un").strip() == USER


def test_a_user_without_an_account(accounts: RemctldServer) -> None:
    with pytest.raises(UnknownUserError, match=r"no account 'bob' .*'python' runs as") as caught:
        Machine(f"bob@{accounts.host}", accounts.port, accounts.principal)
    assert caught.value.host == accounts.host
    with Machine(
        accounts.host, accounts.port, accounts.principal, user="bob", connect=False
    ) as machine:
        for _ in range(2):
            with pytest.raises(UnknownUserError):
                machine.call(abs, -1)


@pytest.mark.parametrize(
    ("host", "user"), [("@h", None), ("a@", None), ("", None), ("a@h", "b"), ("h", "")]
)
def test_hosts_that_are_none(host: str, user: str | None) -> None:
    with pytest.raises(ValueError, match="host"):
        Machine(host, user=user, connect=False)


def test_names_with_an_at() -> None:
    assert split_user("h") == ("h", None)
    assert split_user("a@h") == ("h", "a")
    assert split_user("a@b.org@h") == ("h", "a@b.org")
    assert split_user("h", "a") == ("h", "a")


# -- After close() --------------------------------------------------------------------------------


def uses_of(machine: Machine) -> dict[str, Callable[[], Any]]:
    """Return all ways of using a machine, most of them by what it gave out before."""
    command, path, remote = machine["true"], machine.path("/tmp"), machine.import_module(os)
    interpreter, environment, folder = machine.interpreter, machine.env, machine.cwd
    far = AsyncRemoteMachine(machine)["true"]
    return {
        "look up": lambda: machine["ls"],
        "look up by path": lambda: machine["/bin/ls"],
        "which": lambda: machine.which("ls"),
        "in": lambda: "ls" in machine,
        "cmd": lambda: machine.cmd.ls,
        "run": lambda: command(),
        "popen": lambda: command.popen(),
        "popen of a text": lambda: machine.popen("true"),
        "background": lambda: command.run_bg(),
        "foreground": lambda: command.run_fg(),
        "nohup": lambda: command.nohup(),
        "pipe": lambda: (local["true"] | command)(),
        "redirection": lambda: (command << "x")(),
        "daemon": lambda: machine.daemonic_popen(command),
        "session": lambda: machine.session(),
        "terminal": lambda: machine.session(isatty=True),
        "python": lambda: machine.python("-c", ""),
        "asyncio": lambda: asyncio.run(far.run()),
        "make a path": lambda: machine.path("x"),
        "exists": lambda: path.exists(),
        "list": lambda: path.list(),
        "glob": lambda: path // "*",
        "read": lambda: (path / "x").read(),
        "write": lambda: (path / "x").write("x"),
        "open": lambda: (path / "x").open(),
        "delete": lambda: (path / "x").delete(),
        "cwd": lambda: machine.cwd,
        "chdir": lambda: folder.chdir("/"),
        "chdir for a while": lambda: folder("/").__enter__(),
        "env": lambda: environment.expand("$HOME"),
        "expand": lambda: machine.expand("$HOME"),
        "expanduser": lambda: machine.expanduser("~"),
        "tempdir": lambda: machine.tempdir().__enter__(),
        "processes": lambda: list(machine.list_processes()),
        "pgrep": lambda: list(machine.pgrep("x")),
        "upload": lambda: machine.upload("/etc/passwd", "/tmp/x"),
        "download": lambda: machine.download("/etc/passwd", "/tmp/x"),
        "put": lambda: machine.put("/etc/passwd"),
        "fetch": lambda: machine.fetch("/etc/passwd"),
        "tunnel": lambda: machine.tunnel(0, 1),
        "connect_sock": lambda: machine.connect_sock(1),
        "call": lambda: machine.call(abs, -1),
        "module": lambda: machine.import_module(os),
        "old module": lambda: remote.getpid(),
        "interpreter": lambda: machine.interpreter,
        "old interpreter": lambda: interpreter.call(abs, -1),
        "facts": lambda: machine.facts("system"),
        "gather": lambda: gather(machine),
        "gateway": lambda: machine.gateway(),
        "process.run": lambda: run(machine, ["true"]),
        "process.check": lambda: check(machine, ["true"]),
    }


WITH_ITS_CONNECTION: dict[str, Callable[[Connection], Any]] = {
    "run": lambda connection: connection.run(["true"]),
    "stream": lambda connection: connection.stream(["true"]).__enter__(),
    "session": lambda connection: connection.session().__enter__(),
    "check": lambda connection: check(connection, ["true"]),
    "files": lambda connection: files.read(connection, "/etc/passwd"),
    "gateway": lambda connection: open_gateway(connection),
}


@pytest.mark.parametrize("way", ["own", "over", "lazy"])
def test_after_close_there_is_one_exception(server: RemctldServer, way: str) -> None:
    how = server.host, server.port, server.principal
    with Connection(*how) as connection:
        machine = Machine.over(connection) if way == "over" else Machine(*how, connect=way == "own")
        uses = uses_of(machine)
        machine.close()
        for name, use in uses.items():
            with pytest.raises(ClosedError) as caught:
                use()
            if name not in ("gather", "old module", "old interpreter"):  # These are not plumbum's.
                assert isinstance(caught.value, ClosedRemoteMachine), name
        if way == "over":
            assert connection.run(["true"]).status == 0
    if way == "own":
        for with_it in WITH_ITS_CONNECTION.values():
            with pytest.raises(ClosedError):
                with_it(machine.connection)


def test_closed_before_it_was_used(server: RemctldServer) -> None:
    machine = lazy(server)
    machine.close()
    machine.close()
    for use in (lambda: machine.connection, lambda: machine["ls"], lambda: machine.uname):
        with pytest.raises(ClosedError, match="has been closed"):
            use()
