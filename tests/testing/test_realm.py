"""The realm: its KDC works, stays on loopback, can be stopped, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.ccache import expire, skew
from support.waiting import eventually, open_descriptors
from testing.processes import TIMEOUT, check_gone

from remctl_toolkit.testing import MissingPrograms, Realm, RealmError, programs
from remctl_toolkit.testing import kdc as kdc_module
from remctl_toolkit.testing.ports import ReservedPort

pytestmark = pytest.mark.once

VARIABLES = (
    *("KRB5_CONFIG", "KRB5_KDC_PROFILE", "KRB5CCNAME"),
    *("KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "KRB5RCACHEDIR"),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Realm]:
    """A realm for tests that do not change it."""
    with Realm() as realm:
        yield realm


@pytest.fixture
def realm() -> Iterator[Realm]:
    """A realm for one test to change."""
    with Realm() as realm:
        yield realm


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of realms during the test, so that it can find leftovers."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def fake_program(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Replace a program by a script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


# Starting and stopping


def test_user_has_a_ticket_and_the_service_a_key(shared: Realm) -> None:
    assert f"Default principal: {shared.user}" in shared.run(["klist"])
    assert "F" in shared.run(["klist", "-f"]).partition("Flags: ")[2]  # forwardable
    assert shared.host_principal in shared.run(["klist", "-k", shared.keytab])
    assert shared.run(["kvno", shared.host_principal]).startswith(shared.host_principal)


def test_names_and_places(shared: Realm) -> None:
    assert shared.name == "REMCTL.TEST"
    assert shared.user == "user@REMCTL.TEST"
    assert shared.host_principal == "host/localhost@REMCTL.TEST"
    assert shared.ccache == f"FILE:{shared.tmpdir}/ccache"
    for path in (shared.krb5_conf, shared.keytab):
        assert Path(path).parent == shared.tmpdir
        assert Path(path).is_file()
    assert shared.tmpdir.stat().st_mode & 0o777 == 0o700
    assert str(shared.kdc_port) in repr(shared)


def test_name_can_be_chosen() -> None:
    with Realm("OTHER.EXAMPLE") as realm:
        assert "user@OTHER.EXAMPLE" in realm.run(["klist"])


def test_ticket_can_be_left_out() -> None:
    with Realm(ticket=False) as realm:
        with pytest.raises(RealmError, match="No credentials cache"):
            realm.run(["klist"])
        realm.kinit()
        realm.run(["klist"])


def test_stopped_realm_is_gone_and_can_be_started_again() -> None:
    realm = Realm()
    assert "stopped" in repr(realm)
    realm.stop()
    before = open_descriptors()
    folders = set()
    for _ in range(2):
        realm.start()
        folders.add(realm.tmpdir)
        realm.stop()
        realm.stop()
        assert "stopped" in repr(realm)
    assert len(folders) == 2
    for folder in folders:
        check_gone(folder)
    eventually(lambda: open_descriptors() <= before)


def test_exception_in_the_with_statement_stops_it() -> None:
    realm = Realm()
    with pytest.raises(ZeroDivisionError), realm:  # noqa: PT012
        folder = realm.tmpdir
        raise ZeroDivisionError
    check_gone(folder)


def test_realm_that_is_down_says_so() -> None:
    realm = Realm()
    for attribute in ("tmpdir", "env", "keytab", "ccache", "krb5_conf", "kdc_port", "keeper"):
        with pytest.raises(RealmError, match=r"start\(\)"):
            getattr(realm, attribute)
    for action in (realm.kinit, realm.start_kdc, realm.freeze_kdc, realm.new_ccache):
        with pytest.raises(RealmError, match=r"start\(\)|not running"):
            action()
    realm.stop_kdc()
    realm.thaw_kdc()


def test_started_realm_is_not_started_twice(shared: Realm) -> None:
    with pytest.raises(RealmError, match="already started"):
        shared.start()
    with pytest.raises(RealmError, match="already running"):
        shared.start_kdc()
    shared.kinit()


def test_missing_programs_leave_nothing(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "_EXTRA_DIRECTORIES", ())
    with pytest.raises(MissingPrograms, match="krb5-kdc"):
        Realm().start()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("program", ["kdb5_util", "kadmin.local", "krb5kdc", "kinit"])
def test_failed_start_tells_why_and_leaves_nothing(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    fake_program(monkeypatch, tmp_path, program, "echo the disk is made of cheese; exit 3")
    before = open_descriptors()
    realm = Realm()
    with pytest.raises(RealmError, match=rf"(?s){program}.*status 3.*cheese"):
        realm.start()
    assert list(temporary.iterdir()) == []
    eventually(lambda: open_descriptors() <= before)
    monkeypatch.undo()
    with realm:
        realm.run(["klist"])


def test_kdc_that_never_gets_ready_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    fake_program(monkeypatch, tmp_path, "krb5kdc", "exec sleep 600")
    monkeypatch.setattr(kdc_module, "_TIMEOUT", 0.05)
    monkeypatch.setattr(kdc_module, "_ATTEMPTS", 2)
    with pytest.raises(RealmError, match="is not ready"):
        Realm().start()
    assert list(temporary.iterdir()) == []


def test_no_name_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving this machine's full name can hang if the resolver is slow."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"the resolver was asked about {args}")

    for function in ("getfqdn", "gethostbyname", "gethostbyaddr", "getaddrinfo"):
        monkeypatch.setattr(socket, function, refuse)
    with Realm() as realm:
        realm.kinit()


def test_preloaded_library_is_not_in_the_kdc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SETTING_OF_THE_TESTS", "1")
    with Realm() as realm:
        assert realm._kdc is not None
        environ = Path(f"/proc/{realm._kdc.pid}/environ").read_bytes()
    assert b"KRB5_KDC_PROFILE=" in environ
    assert b"SOME_SETTING" not in environ


# Ports


def listening(port: int) -> set[tuple[str, str]]:
    """Return the protocols and local addresses (as in /proc/net) of an open port."""
    found = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            address, _, number = local.partition(":")
            if int(number, 16) == port and remote.endswith(":0000") and state in ("0A", "07"):
                found.add((protocol, address))
    return found


def test_kdc_listens_on_loopback_only(shared: Realm) -> None:
    loopback = "0100007F"
    eventually(
        lambda: listening(shared.kdc_port) == {("tcp", loopback), ("udp", loopback)},
        what=str(listening(shared.kdc_port)),
    )


def test_two_realms_at_a_time() -> None:
    with Realm() as one, Realm() as other:
        assert one.kdc_port != other.kdc_port
        assert one.tmpdir != other.tmpdir
        for realm in (one, other):
            realm.kinit()
            realm.run(["kvno", realm.host_principal])
        keytab = other.extract_keytab(other.user, other.tmpdir / "users")
        with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
            one.kinit(keytab=keytab)


def test_kdc_moves_when_somebody_takes_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process can take a free port before the KDC uses it."""
    choose = kdc_module._reserve_port
    takers: list[socket.socket] = []

    def choose_and_lose() -> ReservedPort:
        port = choose()
        if len(takers) < 3:
            takers.append(socket.socket(type=socket.SOCK_DGRAM))
            takers[-1].bind((port.address, port.number))
        return port

    monkeypatch.setattr(kdc_module, "_reserve_port", choose_and_lose)
    with Realm() as realm:
        assert len(takers) == 3
        assert realm.kdc_port not in {taker.getsockname()[1] for taker in takers}
        realm.kinit()
    for taker in takers:
        taker.close()


def test_kdc_comes_back_when_its_port_is_free_again(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the KDC is down, a client's UDP socket may briefly get the port."""
    realm.stop_kdc()
    taker = socket.socket(type=socket.SOCK_DGRAM)
    taker.bind(("127.0.0.1", realm.kdc_port))

    def wait(condition: Callable[[], bool], timeout: float) -> bool:
        assert not condition()
        taker.close()
        return condition()

    with taker, monkeypatch.context() as patch:
        patch.setattr(kdc_module, "wait_until", wait)
        realm.start_kdc()
    realm.kinit()


def test_ports_are_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()

        class Taken(ReservedPort):
            def __init__(self) -> None:
                super().__init__("127.0.0.1")
                self.number = taker.getsockname()[1]

        monkeypatch.setattr(kdc_module, "_reserve_port", Taken)
        with pytest.raises(RealmError, match=r"(?s)krb5kdc.*in use"):
            Realm().start()
    assert list(temporary.iterdir()) == []


# The environment


def test_env_is_all_that_is_needed_and_a_copy(shared: Realm) -> None:
    env = shared.env
    assert tuple(env) == VARIABLES
    assert env["KRB5_CONFIG"] == shared.krb5_conf
    assert env["KRB5_KTNAME"] == shared.keytab
    assert env["KRB5CCNAME"] == shared.ccache
    env.clear()
    assert shared.env


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_environ_restores_what_was_there_and_what_was_not(
    shared: Realm, monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KRB5_CONFIG", "/somewhere/krb5.conf")
    monkeypatch.setenv("KRB5CCNAME", "")
    before = dict(os.environ)
    try:
        with shared.environ():
            assert {name: os.environ[name] for name in VARIABLES} == shared.env
            done = subprocess.run(["klist"], capture_output=True, text=True, check=True)
            assert shared.user in done.stdout
            if error:
                raise error
    except ZeroDivisionError:
        pass
    assert dict(os.environ) == before


def test_further_settings_are_written() -> None:
    with Realm(libdefaults={"clockskew": "7", "noaddresses": "$x"}) as realm:
        text = Path(realm.krb5_conf).read_text()
    assert "\tclockskew = 7\n" in text
    assert "\tnoaddresses = $x\n" in text
    assert "\trdns = false\n" in text


def test_run_reports_failure_output_and_time(shared: Realm) -> None:
    assert shared.run(["cat"], input="päper") == "päper"
    assert shared.run(["cat"]) == ""
    assert "A=b\n" in shared.run(["env"], env={"A": "b"})
    with pytest.raises(RealmError, match="status 4: one\ntwo"):
        shared.run(["sh", "-c", "echo one; echo two >&2; exit 4"])
    with pytest.raises(RealmError, match=r"sleep took more than 0\.1 seconds"):
        shared.run(["sleep", "600"], timeout=0.1)


# Principals and tickets


@pytest.mark.parametrize("password", ["plain", "two words", "q'u\"o$t\\e", "päss", "-pw"])
def test_principal_with_a_password(realm: Realm, password: str) -> None:
    cache = realm.new_ccache()
    assert realm.add_principal("alice", password) == "alice@REMCTL.TEST"
    assert realm.kinit("alice", password, ccache=cache) == cache
    assert "Default principal: alice@REMCTL.TEST" in realm.run(["klist", cache])
    assert realm.user in realm.run(["klist"])  # the default cache is as it was
    with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
        realm.kinit("alice@REMCTL.TEST", "wrong", ccache=cache)


@pytest.mark.parametrize("name", ["-c", "--help", "two words", "q'u\"o$te", "päss"])
def test_principal_with_any_name(realm: Realm, name: str) -> None:
    cache = realm.kinit(realm.add_principal(name), ccache=realm.new_ccache())
    assert f"Default principal: {name}@REMCTL.TEST" in realm.run(["klist", cache])


def test_principal_with_a_key(realm: Realm) -> None:
    robot = realm.add_principal("robot/daily")
    with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
        realm.kinit(robot, "password")
    keytab = realm.extract_keytab(robot, realm.tmpdir / "robot keytab")
    assert realm.extract_keytab(robot, keytab) == keytab  # the key is not replaced
    cache = realm.kinit(robot, keytab=keytab, ccache=realm.new_ccache())
    assert f"Default principal: {robot}" in realm.run(["klist", cache])


def test_password_stays_valid_beside_a_keytab(realm: Realm) -> None:
    alice = realm.add_principal("alice", "secret")
    keytab = realm.extract_keytab(alice, realm.tmpdir / "users")
    files = set(realm.tmpdir.iterdir())
    realm.kinit(alice, keytab=keytab)
    realm.kinit(alice)
    realm.kinit(alice, password="secret")
    assert set(realm.tmpdir.iterdir()) == files


def test_host_is_added_to_the_keytab(realm: Realm) -> None:
    """A search domain must not be appended to a name without dots."""
    for hostname in ("web.example.org", "box"):
        principal = realm.add_host(hostname)
        assert principal == f"host/{hostname}@REMCTL.TEST"
        assert principal in realm.run(["klist", "-k"])
        assert "kvno = " in realm.run(["kvno", "-k", realm.keytab, "-S", "host", hostname])


def test_mistakes_with_principals_are_errors(realm: Realm) -> None:
    with pytest.raises(RealmError, match="already exists"):
        realm.add_principal("user", "again")
    for password in ("", "two\nlines", "a\rb", "\0"):
        with pytest.raises(RealmError, match="one line"):
            realm.add_principal("bob", password)
    with pytest.raises(RealmError, match=r"bob@REMCTL\.TEST"):
        realm.kinit("bob")
    with pytest.raises(RealmError, match=r"nobody@REMCTL\.TEST"):
        realm.extract_keytab("nobody", realm.tmpdir / "nobodys")
    with pytest.raises(RealmError, match="not found in Kerberos database"):
        realm.kinit("nobody", "password")


def test_principals_end_with_the_realm() -> None:
    realm = Realm()
    with realm:
        realm.add_principal("alice", "secret")
    with realm, pytest.raises(RealmError, match="no key of alice"):
        realm.kinit("alice")


def lifetime(listing: str) -> float:
    """Return the seconds between the two times of the first ticket that klist shows."""
    found = re.search(r"^(\S+ \S+)  (\S+ \S+)  krbtgt", listing, re.MULTILINE)
    assert found
    start, end = (datetime.strptime(text, "%m/%d/%y %H:%M:%S") for text in found.groups())
    return (end - start).total_seconds()


def about(seconds: float) -> Any:
    """Match a lifetime of klist: the client counts from its request, the KDC from a later time."""
    return pytest.approx(seconds, abs=20)


def test_lifetimes(realm: Realm) -> None:
    assert lifetime(realm.run(["klist"])) == about(24 * 60 * 60)
    realm.kinit(lifetime=90)
    assert lifetime(realm.run(["klist"])) == about(90)
    assert "renew until" not in realm.run(["klist"])
    realm.kinit(lifetime=90, renewable=600)
    assert "renew until" in realm.run(["klist"])
    realm.run(["kinit", "-R"])


def test_caches_are_new(realm: Realm) -> None:
    caches = [realm.new_ccache() for _ in range(3)]
    assert len({realm.ccache, *caches}) == 4
    for cache in caches:
        assert not Path(cache.removeprefix("FILE:")).exists()


def test_expired_tickets(realm: Realm) -> None:
    for _ in range(2):
        realm.run(["kvno", realm.host_principal])
        assert lifetime(realm.run(["klist"])) == about(24 * 60 * 60)
        realm.run(["klist", "-s"])
        expire(realm.ccache)
        assert lifetime(realm.run(["klist"])) == about(24 * 60 * 60)
        with pytest.raises(RealmError, match="status 1"):
            realm.run(["klist", "-s"])
        with pytest.raises(RealmError, match="Ticket expired"):
            realm.run(["kvno", realm.host_principal])
        realm.kinit()


def test_clock_that_is_wrong(realm: Realm) -> None:
    for seconds in (3600, -3600):
        skew(realm.ccache, seconds)
        with pytest.raises(RealmError, match="Clock skew too great"):
            realm.run(["kvno", realm.host_principal])
    skew(realm.ccache, 0)
    realm.run(["kvno", realm.host_principal])


def test_only_credential_caches_are_changed(realm: Realm) -> None:
    file = realm.tmpdir / "file"
    whole = Path(realm.ccache.removeprefix("FILE:")).read_bytes()
    for octets in (b"", b"root:x:0:0::", whole[:300]):
        file.write_bytes(octets)
        with pytest.raises(RealmError, match=r"credential cache FILE:.*/file"):
            expire(f"FILE:{file}")
        assert file.read_bytes() == octets
    file.unlink()
    with pytest.raises(RealmError, match="No such file"):
        skew(str(file), 1)


def test_new_key(realm: Realm) -> None:
    robot = realm.add_principal("robot", "secret")
    keytab = realm.extract_keytab(robot, realm.tmpdir / "keytab")
    realm.rotate_key("robot")
    with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
        realm.kinit(robot, "secret")
    realm.kinit(robot)
    with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
        realm.kinit(robot, keytab=keytab)
    realm.extract_keytab(robot, keytab)
    realm.kinit(robot, keytab=keytab)
    with pytest.raises(RealmError, match="nobody"):
        realm.rotate_key("nobody")


def test_deleted_principal(realm: Realm) -> None:
    realm.add_principal("robot", "secret")
    realm.delete_principal("robot")
    with pytest.raises(RealmError, match="not found in Kerberos database"):
        realm.kinit("robot", "secret")
    with pytest.raises(RealmError, match="nobody"):
        realm.delete_principal("nobody")
    realm.add_principal("robot", "again")
    realm.kinit("robot")


# The KDC


def test_stopped_kdc_refuses_and_comes_back_on_its_port(realm: Realm) -> None:
    port = realm.kdc_port
    for _ in range(2):
        realm.stop_kdc()
        realm.stop_kdc()
        assert listening(port) == set()
        with pytest.raises(RealmError, match="Cannot contact any KDC"):
            realm.kinit()
        realm.start_kdc()
        assert realm.kdc_port == port
        realm.kinit()


def test_dead_kdc_can_be_started(realm: Realm) -> None:
    assert realm._kdc is not None
    assert realm._kdc._daemon is not None
    realm._kdc._daemon.end()
    with pytest.raises(RealmError):
        realm.freeze_kdc()
    realm.start_kdc()
    realm.kinit()


def test_frozen_kdc_lets_clients_wait(realm: Realm) -> None:
    realm.freeze_kdc()
    started = time.monotonic()
    with pytest.raises(RealmError, match=r"more than 0\.5 seconds"):
        realm.kinit(timeout=0.5)
    assert time.monotonic() - started >= 0.5
    with pytest.raises(RealmError, match="already running"):
        realm.start_kdc()
    realm.thaw_kdc()
    realm.kinit()


def test_thawed_kdc_answers_those_who_waited(realm: Realm) -> None:
    alice = realm.add_principal("alice", "secret")
    realm.freeze_kdc()
    command = ["kinit", alice]
    with subprocess.Popen(
        command, env={**os.environ, **realm.env}, stdin=subprocess.PIPE, text=True
    ) as client:
        try:
            waiting = f"{realm.kdc_port:04X}"
            eventually(
                lambda: any(
                    line.split()[2].endswith(waiting)
                    for line in Path("/proc/net/udp").read_text().splitlines()[1:]
                ),
                TIMEOUT,
            )
            realm.thaw_kdc()
            client.communicate("secret\n", timeout=TIMEOUT)
        finally:
            client.kill()
    assert client.returncode == 0


def test_frozen_kdc_does_not_keep_the_realm_from_stopping(realm: Realm) -> None:
    folder = realm.tmpdir
    realm.freeze_kdc()
    realm.stop()
    check_gone(folder)
