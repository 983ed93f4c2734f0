"""The server: a stock remctld that obeys its configuration, and can be stopped and restarted."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.waiting import eventually, open_descriptors, runs
from testing.processes import TIMEOUT, check_gone, remctl, start_remctl

import remctl as python_remctl
from remctl_toolkit.testing import Command, Realm, RealmError, RemctldServer, ServerError, programs
from remctl_toolkit.testing import server as server_module
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS
from remctl_toolkit.testing.ports import ReservedPort

pytestmark = pytest.mark.once

ECHO = Command("test", "echo", "/bin/echo")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm() as realm:
        yield realm


@pytest.fixture(scope="module")
def sample(realm: Realm) -> Iterator[RemctldServer]:
    """A server with the sample commands, for tests that do not change it."""
    with RemctldServer(realm, SAMPLE_COMMANDS) as server:
        yield server


@pytest.fixture
def server(realm: Realm) -> Iterator[RemctldServer]:
    """A server for one test to stop and start."""
    with RemctldServer(realm, SAMPLE_COMMANDS) as server:
        yield server


@pytest.fixture(scope="module")
def stranger(realm: Realm) -> str:
    """The credential cache of a user that no ACL permits."""
    realm.add_principal("stranger", "secret")
    return realm.kinit("stranger", ccache=realm.new_ccache())


def works(server: RemctldServer) -> bool:
    done = remctl(server, "test", "echo", "hello")
    return (done.returncode, done.stdout.split()[-1:], done.stderr) == (0, ["hello"], "")


def refused(server: RemctldServer) -> bool:
    try:
        socket.create_connection((server.address, server.port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    return False


# What it runs


def test_sample_commands(sample: RemctldServer) -> None:
    assert remctl(sample, "test", "echo", "a  b", "c").stdout == "a  b c\n"
    assert remctl(sample, "test", "cat", "line\nno line").stdout == "line\nno line"
    assert remctl(sample, "test", "status", "200").returncode == 200
    both = remctl(sample, "test", "streams")
    assert (both.stdout, both.stderr) == ("this is stdout\n", "this is stderr\n")
    assert remctl(sample, "test", "sleep", "0.01").returncode == 0
    assert remctl(sample, "test", "nonsense").returncode == 64
    listed = remctl(sample, "help").stdout
    for name in ("echo", "cat", "env", "status", "streams", "sleep"):
        assert f"test {name}" in listed
    assert "test echo" in remctl(sample, "help", "test", "echo").stdout


def test_attributes_are_what_a_client_needs(sample: RemctldServer) -> None:
    assert (sample.host, sample.address) == ("localhost", "127.0.0.1")
    assert sample.principal == "host/localhost@REMCTL.TEST"
    assert sample.env == {
        "REMCTL_HOST": "localhost",
        "REMCTL_PORT": str(sample.port),
        "REMCTL_PRINCIPAL": sample.principal,
    }
    assert f"port {sample.port}: running" in repr(sample)


def test_commands_see_the_client_and_a_clean_environment(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SETTING_OF_THE_TESTS", "1")
    with RemctldServer(realm, SAMPLE_COMMANDS, env={"MINE": "yes"}) as server:
        lines = remctl(server, "test", "env").stdout.splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    assert seen["REMOTE_USER"] == realm.user
    assert seen["REMCTL_COMMAND"] == "test"
    assert seen["MINE"] == "yes"
    assert seen["KRB5_CONFIG"] == realm.krb5_conf
    assert not {"SOME_SETTING_OF_THE_TESTS", "LISTEN_FDS", "LISTEN_PID"} & set(seen)


def test_commands_get_no_descriptor_of_ours(realm: Realm) -> None:
    script = "ls -l /proc/self/fd"
    with RemctldServer(realm, [Command("show", script=script)]) as server:
        listing = remctl(server, "show", "fds").stdout
        assert os.readlink(f"/proc/{server.pid}/fd/0") == "/dev/null"
    # 3 is the directory that ls reads
    assert {line.split()[-3] for line in listing.splitlines() if "->" in line} == set("0123")


def test_only_the_user_may_unless_told_otherwise(realm: Realm, stranger: str) -> None:
    commands = [
        Command("default", "x", "/bin/echo"),
        Command("any", "x", "/bin/echo", acl="ANYUSER"),
        Command("named", "x", "/bin/echo", acl=("princ:nobody@X", "princ:stranger@REMCTL.TEST")),
        Command("but", "x", "/bin/echo", acl=("deny:princ:stranger@REMCTL.TEST", "ANYUSER")),
    ]
    allowed = {}
    with RemctldServer(realm, commands) as server:
        for name in ("default", "any", "named", "but"):
            statuses = [
                remctl(server, name, "x", ccache=cache).returncode
                for cache in (realm.ccache, stranger)
            ]
            allowed[name] = [status == 0 for status in statuses]
    assert allowed == {
        "default": [True, False],
        "any": [True, True],
        "named": [False, True],
        "but": [True, False],
    }


def test_default_acl_can_be_chosen(realm: Realm, stranger: str) -> None:
    with RemctldServer(realm, [ECHO], default_acl="ANYUSER") as server:
        assert remctl(server, "test", "echo", ccache=stranger).returncode == 0


def test_raw_configuration_comes_after_the_commands(realm: Realm) -> None:
    config = "# a comment\ntest echo /bin/false ANYUSER\nraw ALL \\\n  /bin/echo ANYUSER"
    with RemctldServer(realm, [ECHO], config=config) as server:
        assert works(server)
        assert remctl(server, "raw", "words").stdout == "words\n"


def test_script_of_another_language(realm: Realm) -> None:
    script = "#!/usr/bin/awk -f\nBEGIN { print ARGV[1] }\n"
    with RemctldServer(realm, [Command("awk", script=script)]) as server:
        assert remctl(server, "awk", "words").stdout == "words\n"


def test_masked_arguments_are_not_logged(realm: Realm) -> None:
    command = Command("set", "password", "/bin/echo", logmask=(2, 3))
    with RemctldServer(realm, [command]) as server:
        assert remctl(server, "set", "password", "one", "two", "three").returncode == 0
        assert "set password **MASKED** **MASKED** three" in server.wait_for_log("set password")


# The configuration line


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (Command("a", program="/x"), "a ALL /x DEFAULT"),
        (Command("a", "EMPTY", Path("/x")), "a EMPTY /x DEFAULT"),
        (Command("a", "b", "/x", acl="ANYUSER"), "a b /x ANYUSER"),
        (Command("a", "b", "/x", acl=("deny:y", "z")), "a b /x deny:y z"),
        (Command("a", "b", "/x", stdin="last"), "a b /x stdin=last DEFAULT"),
        (Command("a", "b", "/x", stdin=2, user=0), "a b /x stdin=2 user=0 DEFAULT"),
        (Command("a", "b", "/x", logmask=(3, 4)), "a b /x logmask=3,4 DEFAULT"),
        (
            Command("a", "b", "/x", summary="s", help="h", sudo="u"),
            "a b /x summary=s help=h sudo=u DEFAULT",
        ),
    ],
)
def test_line(command: Command, line: str) -> None:
    assert command.line(os.fspath(command.program), "DEFAULT") == line


@pytest.mark.parametrize(
    "command",
    [
        Command("", "b", "/x"),
        Command("a b", "c", "/x"),
        Command("a", "b\n", "/x"),
        Command("a", "b", "/x y"),
        Command("a", "b", "/x", acl="princ:a b"),
        Command("a", "b", "/x", help="the word"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(command: Command, realm: Realm) -> None:
    server = RemctldServer(realm, [command])
    with pytest.raises(ValueError, match=re.escape(repr(command))):
        server.start()
    assert not server.running


@pytest.mark.parametrize("command", [Command("a"), Command("a", "b", "/x", script="true")])
def test_program_or_script(command: Command, realm: Realm) -> None:
    with pytest.raises(ValueError, match="either a program or a script"):
        RemctldServer(realm, [command]).start()


# Starting and stopping


def test_stopped_server_refuses_and_comes_back_on_its_port(server: RemctldServer) -> None:
    port = server.port
    for _ in range(2):
        server.stop()
        server.stop()
        assert refused(server)
        assert not server.running
        assert "stopped" in repr(server)
        server.start()
        assert server.port == port
        assert works(server)
    assert server.log.count("remctld: starting") == 3


def test_nobody_gets_the_port_of_a_stopped_server(server: RemctldServer) -> None:
    server.stop()
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind((server.address, server.port))


def test_closed_server_gives_up_everything_and_can_start_anew(realm: Realm) -> None:
    before = open_descriptors()
    attached = len(realm._servers)
    server = RemctldServer(realm, [ECHO])
    for _ in range(2):
        server.start()
        assert works(server)
        server.close()
        server.close()
        assert server.log == ""
        for attribute in ("port", "log_path", "pid"):
            with pytest.raises(ServerError, match=r"start\(\)"):
                getattr(server, attribute)
        with pytest.raises(ServerError):
            server.freeze()
        server.thaw()
        assert len(realm._servers) == attached
    eventually(lambda: open_descriptors() <= before)


def test_restart_ends_sessions_and_keeps_the_port(server: RemctldServer) -> None:
    """SIGTERM is not enough, because sessions ignore it."""
    port, pid = server.port, server.pid
    with start_remctl(server, "test", "sleep", "600") as client:
        server.wait_for_log("test sleep", TIMEOUT)
        session = eventually(lambda: children(pid))
        server.restart()
        assert client.wait(TIMEOUT) != 0
    eventually(lambda: not any(map(runs, session)), what="no session")
    assert server.port == port
    assert server.pid != pid
    assert works(server)


def test_killed_server_has_no_session_left(server: RemctldServer) -> None:
    """After kill() returns, sessions and commands do nothing more."""
    for _ in range(5):
        with start_remctl(server, "test", "sleep", "600") as client:
            found = eventually(lambda: below(server.pid))
            server.kill()
            assert not any(map(runs, found))
            assert client.wait(TIMEOUT) != 0
        server.start()


# -- Reload ---------------------------------------------------------------------------------------


def test_reload_keeps_sessions(server: RemctldServer) -> None:
    other = Command("test", "echo", script="echo other")
    pid = server.pid
    client = start_remctl(server, "test", "sleep", "600")
    try:
        server.wait_for_log("test sleep", TIMEOUT)
        session = set(children(pid))
        for _ in range(10):
            server.reload([other])
            assert remctl(server, "test", "echo", "hello").stdout == "other\n"
            assert remctl(server, "test", "status", "0").returncode != 0
            server.reload(SAMPLE_COMMANDS)
            assert works(server)
        assert server.pid == pid
        assert session <= set(children(pid))
        assert client.poll() is None
    finally:
        client.kill()
        client.communicate()


def test_reload_of_a_connection_that_is_open(server: RemctldServer) -> None:
    with (
        server.realm.environ(),
        python_remctl.Remctl(server.host, server.port) as connection,
    ):
        connection.run(["test", "echo", "hello"])
        server.reload([Command("new", script="echo new")])
        assert connection.run(["test", "echo", "hello"]).stdout == b"hello\n"
    assert remctl(server, "new", "one").stdout == "new\n"


def test_reload_of_raw_lines_and_of_what_was_written_by_hand(realm: Realm) -> None:
    with RemctldServer(realm, [ECHO], config="raw ALL /bin/echo ANYUSER") as server:
        server.reload(config="rare ALL /bin/echo ANYUSER")
        assert works(server)
        assert remctl(server, "rare", "it").stdout == "it\n"
        assert remctl(server, "raw", "it").returncode != 0
        server.reload()
        assert remctl(server, "rare", "it").stdout == "it\n"
        server.restart()
        assert remctl(server, "rare", "it").stdout == "it\n"


def test_reload_of_a_mistake_says_so_and_can_be_undone(server: RemctldServer) -> None:
    with pytest.raises(ServerError, match=r"(?s)ended: 1.*remctl\.conf:\d+: parse error"):
        server.reload(config="nonsense")
    assert not server.running
    with pytest.raises(ServerError, match=r"start\(\)"):
        server.reload()
    server.start()
    assert works(server)


def test_reload_of_what_cannot_be_written_changes_nothing(server: RemctldServer) -> None:
    with pytest.raises(ValueError, match="white space"):
        server.reload([Command("a b", "c", "/x")])
    assert works(server)
    server.reload()
    assert works(server)


def test_reload_that_does_not_happen_is_given_up(
    server: RemctldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_RELOAD_INTERVAL", 0.01)
    monkeypatch.setattr(server_module, "_RELOAD_ATTEMPTS", 2)
    server.freeze()
    with pytest.raises(ServerError, match="does not reload"):
        server.reload()
    server.thaw()
    assert works(server)


def below(pid: int) -> list[int]:
    """Return the process ids of a session and its command."""
    found = [(session, command) for session in children(pid) for command in children(session)]
    return list(found[0]) if found else []


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_server_that_listens_still_serves_those_who_waited(server: RemctldServer) -> None:
    server.kill(keep_listening=True)
    with start_remctl(server, "test", "echo", "at last") as client:
        with socket.create_connection((server.address, server.port), timeout=TIMEOUT) as deaf:
            deaf.settimeout(0.1)
            with pytest.raises(TimeoutError):
                deaf.recv(1)
        assert client.poll() is None
        server.start()
        assert client.communicate(timeout=TIMEOUT)[0] == "at last\n"


def test_killed_server_can_be_stopped(server: RemctldServer) -> None:
    server.kill(keep_listening=True)
    assert not refused(server)
    server.stop()
    assert refused(server)


def test_frozen_server_lets_clients_wait(server: RemctldServer) -> None:
    server.freeze()
    with start_remctl(server, "test", "echo", "thawed") as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(0.2)
        server.thaw()
        assert client.communicate(timeout=TIMEOUT)[0] == "thawed\n"
    server.freeze()
    server.stop()
    assert refused(server)


def test_server_that_was_killed_by_somebody_can_be_started(server: RemctldServer) -> None:
    os.kill(server.pid, 9)
    eventually(lambda: not server.running)
    server.start()
    assert works(server)


def test_running_server_is_not_started_twice(server: RemctldServer) -> None:
    with pytest.raises(ServerError, match="already running"):
        server.start()
    assert works(server)


def test_several_servers_on_one_realm(realm: Realm) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                RemctldServer(realm, [Command("test", "echo", script=f"echo {number} hello")])
            )
            for number in range(4)
        ]
        assert len({server.port for server in servers}) == 4
        for number, server in enumerate(servers):
            assert remctl(server, "test", "echo").stdout == f"{number} hello\n"
        servers[0].stop()
        assert refused(servers[0])
        assert works(servers[1])


def test_realm_stops_its_servers() -> None:
    before = open_descriptors()
    with Realm() as realm:
        folder = realm.tmpdir
        server = RemctldServer(realm, [ECHO])
        server.start()
    assert not server.running
    check_gone(folder)
    eventually(lambda: open_descriptors() <= before)
    with pytest.raises(RealmError, match="not running"):
        server.start()
    eventually(lambda: open_descriptors() <= before)


def test_a_hundred_connections_may_wait(server: RemctldServer) -> None:
    """The backlog of remctld's own socket is five."""
    server.freeze()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection((server.address, server.port), timeout=5))
    server.thaw()
    assert works(server)


def test_many_clients_at_a_time(sample: RemctldServer) -> None:
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(lambda _: works(sample), range(32)))


# Addresses, ports and principals


@pytest.mark.parametrize("address", ["::1", "127.0.0.2"])
def test_other_addresses(realm: Realm, address: str) -> None:
    try:
        ReservedPort(address).close()
    except OSError as error:
        pytest.skip(f"no {address} here: {error}")
    with RemctldServer(realm, [ECHO], address=address) as server:
        assert server.address == address
        assert server.host == address
        assert works(server)


def test_chosen_port(realm: Realm) -> None:
    """The port is in use while the first server runs, and free after its close()."""
    with RemctldServer(realm, [ECHO]) as first:
        port = first.port
        before = open_descriptors()
        with pytest.raises(OSError, match="in use"):
            RemctldServer(realm, [ECHO], port=port).start()
        eventually(lambda: open_descriptors() <= before)
        assert works(first)
    with RemctldServer(realm, [ECHO], port=port) as second:
        assert second.port == port
        assert works(second)


def test_foreign_address_is_an_error_and_leaves_nothing(realm: Realm) -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="assign"):
        RemctldServer(realm, address="192.0.2.1").start()
    eventually(lambda: open_descriptors() <= before)


def test_other_principal_and_name(realm: Realm) -> None:
    principal = realm.add_host("web.example.org")
    with RemctldServer(realm, [ECHO], principal=principal, host="127.0.0.1") as server:
        assert server.principal == principal
        assert server.host == "127.0.0.1"
        assert works(server)


# Failures to start


def test_mistake_in_the_configuration_is_shown(realm: Realm) -> None:
    before = open_descriptors()
    server = RemctldServer(realm, [ECHO], config="nonsense\n")
    with pytest.raises(ServerError, match=r"(?s)ended.*remctl\.conf:2: parse error"):
        server.start()
    assert not server.running
    eventually(lambda: open_descriptors() <= before)


def test_principal_without_a_key_is_shown(realm: Realm) -> None:
    with pytest.raises(ServerError, match="No key table entry found for host/none"):
        RemctldServer(realm, principal="host/none").start()


def test_server_that_is_never_ready_is_given_up(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_remctld(monkeypatch, tmp_path, "exec sleep 600")
    monkeypatch.setattr(server_module, "_START_TIMEOUT", 0.1)
    server = RemctldServer(realm, [ECHO])
    with pytest.raises(ServerError, match="is not ready"):
        server.start()
    assert not server.running


def test_remctld_without_socket_activation(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A remctld older than 3.7, or not built for systemd, binds the port itself."""
    real = programs.find("remctld")["remctld"]
    fake_remctld(monkeypatch, tmp_path, f'unset LISTEN_FDS LISTEN_PID; exec {real} "$@"')
    with RemctldServer(realm, [ECHO]) as server:
        port = server.port
        assert works(server)
        server.restart()
        assert works(server)
        server.stop()
        assert refused(server)
        server.start()
        assert server.port == port
        assert works(server)


def fake_remctld(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    path = folder / "remctld"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


# The log


def test_log_tells_what_was_asked(server: RemctldServer) -> None:
    assert remctl(server, "test", "echo", "something rare").returncode == 0
    log = server.wait_for_log("something rare")
    assert f"COMMAND from {server.realm.user}: test echo something rare" in log
    assert log == server.log == server.log_path.read_text()
    with pytest.raises(ServerError, match=r"(?s)no 'never said'.*something rare"):
        server.wait_for_log("never said", 0.01)


def test_debug_log_says_more(realm: Realm) -> None:
    with RemctldServer(realm, [ECHO], debug=True) as server:
        assert works(server)
        assert "accepted connection" in server.wait_for_log("accepted connection")
