"""Failures outside the client: tickets, clocks, keys, the KDC, the server, the network.

Each situation is made for real.  What comes out is the documented exception with libremctl's text,
and a note that says which situation it is and what to do.
"""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.ccache import expire, skew
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.heimdal_realm import is_heimdal
from support.preload import preloaded
from support.proxy import TO_SERVER, DeafListener, Proxy, refused_port
from support.sessions import await_data
from support.subprocesses import in_child
from support.waiting import all_is_read, eventually

import remctl
from remctl_toolkit.testing import Command, Realm, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

NO_KCM = "/nonexistent/kcm"
SECRET = "the-argument"
LIMIT = 20.0  # seconds after which a wait has failed
HANGS = 3.0  # seconds in which everything but a KDC that hangs has answered

Error = type[remctl.RemctlError]


class Place(NamedTuple):
    """A realm for one test to spoil, and a server of it."""

    realm: Realm
    server: RemctldServer

    def call(self, **keywords: Any) -> remctl.RemctlSimpleResult:
        """Run a command, as remctl() does with these keyword arguments besides."""
        given = {"host": "localhost", "port": self.server.port, "timeout": LIMIT}
        return remctl.remctl(**{**given, "command": ["test", "echo", SECRET], **keywords})

    def ticket(self, principal: str | None = None) -> str:
        """A new credential cache with a ticket-granting ticket."""
        return self.realm.kinit(principal, ccache=self.realm.new_ccache())

    def used_ticket(self) -> str:
        """A new credential cache that has a ticket for the server, too."""
        ccache = self.ticket()
        assert self.call(ccache=ccache).status == 0
        return ccache

    def file(self, octets: bytes) -> str:
        """A new credential cache that is a file with this in it."""
        ccache = self.realm.new_ccache()
        Path(ccache.removeprefix("FILE:")).write_bytes(octets)
        return ccache

    def renew_keytab(self) -> None:
        """Leave the server's present key in its keytab, and no other."""
        Path(self.realm.keytab).unlink(missing_ok=True)
        self.realm.extract_keytab(self.realm.host_principal, self.realm.keytab)


@pytest.fixture
def place() -> Iterator[Place]:
    with (
        Realm(libdefaults={"kcm_socket": NO_KCM}) as realm,
        realm.environ(),
        RemctldServer(realm, SAMPLE_COMMANDS) as server,
    ):
        yield Place(realm, server)


def check(error: remctl.RemctlError, kind: Error, text: str, *notes: str) -> None:
    """Check an exception's class, the end of its text, and what its first note contains.

    An authentication error has another, which says whose tickets there are.
    """
    assert type(error) is kind
    assert text in str(error)
    assert str(error) == error.value == error.args[0]
    note, *tickets = error.__notes__
    for part in notes:
        assert part in note
    assert note.count("\n") <= 1
    assert len(tickets) == (kind is remctl.RemctlAuthenticationError)
    assert all("tickets " in each and "the server was to be " in each for each in tickets)
    told = "\n".join(error.__notes__)
    assert SECRET not in told
    assert traceback.format_exception_only(error)[1:] == [f"{line}\n" for line in told.split("\n")]


def fails(place: Place, kind: Error, text: str, *notes: str, **call: Any) -> None:
    with pytest.raises(remctl.RemctlProtocolError) as caught:
        place.call(**call)
    check(caught.value, kind, text, *notes)


# -- The credential cache -------------------------------------------------------------------------


def damaged(place: Place, octets: int) -> str:
    return place.file(Path(place.ticket().removeprefix("FILE:")).read_bytes()[:octets])


# What a cache is, how it is made, and what the text and the note contain; {} is its name.
CCACHES: dict[str, tuple[Callable[[Place], str], str, str]] = {
    "missing": (lambda p: p.realm.new_ccache(), "", "kinit"),
    "a folder of none": (lambda p: f"DIR:{p.realm.tmpdir}/none", "", "kinit"),  # krb5 makes it
    "memory": (lambda p: "MEMORY:remctl-nobody", "", "kinit"),
    "empty": (lambda p: p.file(b""), "Bad format", "is empty, damaged, or not a credential cache"),
    "a folder": (lambda p: f"FILE:{p.realm.tmpdir}", "Bad format", "not a credential cache"),
    "something else": (lambda p: "FILE:/etc/passwd", "Unsupported", "is not a credential cache"),
    "cut in its header": (lambda p: damaged(p, 20), "End of credential cache", "is damaged"),
    "cut before the ticket": (lambda p: damaged(p, 70), "is empty", "contains no ticket"),
    "kept by nobody": (lambda p: "KCM:", "No KCM server found", "none is running"),
}


@pytest.mark.parametrize("name", CCACHES)
def test_a_credential_cache_that_is_no_use(place: Place, name: str) -> None:
    make, text, note = CCACHES[name]
    ccache = make(place)
    kind = remctl.RemctlAuthenticationError
    fails(place, kind, text, note, ccache, ccache=ccache)
    if ccache.startswith("FILE:"):
        path = ccache.removeprefix("FILE:")
        fails(place, kind, text, note, path, ccache=path)


@pytest.mark.parametrize("name", CCACHES)
def test_a_default_credential_cache_that_is_no_use(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, text, note = CCACHES[name]
    monkeypatch.setenv("KRB5CCNAME", make(place))
    fails(place, remctl.RemctlAuthenticationError, text, note)


def call_as_nobody(port: int, ccache: str | None, default: str) -> remctl.RemctlError | None:
    """Make a call as a user who may not read the cache, after one as a user who may."""
    os.environ["KRB5CCNAME"] = default
    call = {"host": "localhost", "port": port, "command": ["test", "echo", SECRET]}
    assert remctl.remctl(**call, ccache=ccache, timeout=LIMIT).status == 0  # type: ignore[arg-type]
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    else:
        Path((ccache or default).removeprefix("FILE:")).chmod(0)
    try:
        remctl.remctl(**call, ccache=ccache, timeout=LIMIT)  # type: ignore[arg-type]
    except remctl.RemctlError as error:
        return error
    return None


@pytest.mark.parametrize("given", ["ccache", "KRB5CCNAME"])
def test_a_credential_cache_that_may_not_be_read(place: Place, given: str) -> None:
    place.realm.tmpdir.chmod(0o755)  # krb5.conf is there
    ccache = place.ticket()
    port = place.server.port
    error = in_child(call_as_nobody, port, ccache if given == "ccache" else None, ccache)
    assert error is not None
    path = ccache.removeprefix("FILE:")
    text = "Credentials cache permissions incorrect"
    check(error, remctl.RemctlAuthenticationError, text, "you may not read", path, "kinit")


def test_a_ticket_that_has_expired(place: Place) -> None:
    for ccache in (place.ticket(), place.used_ticket()):
        expire(ccache)
        text, note = "Ticket expired", f"the ticket in {ccache} has expired"
        fails(place, remctl.RemctlAuthenticationError, text, note, "kinit", ccache=ccache)
    expire(place.realm.ccache)
    fails(place, remctl.RemctlAuthenticationError, text, "your default credential cache")
    place.realm.kinit()
    assert place.call().status == 0


def test_a_principal_that_the_acl_does_not_name(place: Place) -> None:
    place.realm.add_principal("alice", "secret")
    alice = place.ticket("alice")
    fails(place, remctl.RemctlServerError, "Access denied", "ACL", "klist", ccache=alice)


def test_a_ticket_of_another_realm(place: Place) -> None:
    with Realm("OTHER.TEST") as other:
        ccache = other.ccache
        text = 'Cannot find KDC for realm "OTHER.TEST"'
        fails(place, remctl.RemctlAuthenticationError, text, ccache, "krb5.conf", ccache=ccache)


def test_a_principal_that_was_deleted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = place.realm.add_principal("robot")
    keytab = place.realm.extract_keytab(robot, place.realm.tmpdir / "robot")
    place.realm.delete_principal(robot)
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", keytab)
    monkeypatch.setenv("KRB5CCNAME", place.realm.new_ccache())
    text = "Client 'robot@REMCTL.TEST' not found in Kerberos database"
    fails(place, remctl.RemctlAuthenticationError, text, "the client's keytab", "deleted")


def test_a_clients_keytab_that_is_out_of_date(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    realm = place.realm
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", realm.extract_keytab(realm.user, realm.tmpdir / "k"))
    monkeypatch.setenv("KRB5CCNAME", realm.new_ccache())
    assert place.call().status == 0
    monkeypatch.setenv("KRB5CCNAME", realm.new_ccache())
    realm.rotate_key(realm.user)
    text = "Preauthentication" if is_heimdal(realm) else "Decrypt integrity check"
    kind, notes = remctl.RemctlAuthenticationError, ("client's keytab", "extract it again")
    fails(place, kind, f"{text} failed", *notes)


# -- The clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "used", "text"),
    [
        (3600, False, "Clock skew too great"),
        (-3600, False, "Clock skew too great"),
        (3600, True, "Clock skew too great"),
        (-3600, True, "Ticket not yet valid"),
    ],
    ids=["ahead, KDC", "behind, KDC", "ahead, server", "behind, server"],
)
def test_a_clock_that_is_wrong(place: Place, seconds: int, used: bool, text: str) -> None:
    ccache = place.used_ticket() if used else place.ticket()
    skew(ccache, seconds)
    kind, note = remctl.RemctlAuthenticationError, "set the clocks"
    fails(place, kind, text, note, "the server", "the KDC", ccache=ccache)
    skew(ccache, seconds / 120)  # half a minute is allowed
    assert place.call(ccache=ccache).status == 0


# -- The server's principal and keytab ------------------------------------------------------------


def unknown_server(place: Place, principal: str) -> str:
    """Return the text about a server that the KDC does not know; only MIT's KDC sends its name."""
    name = "" if is_heimdal(place.realm) else f"{principal}@{place.realm.name} "
    return f"Server {name}not found in Kerberos database"


def test_a_server_that_the_kdc_does_not_know(place: Place) -> None:
    kind = remctl.RemctlAuthenticationError
    for principal, call in (
        ("host/unknown", {"principal": "host/unknown"}),
        ("host/127.0.0.1", {"host": "127.0.0.1"}),
    ):
        notes = (f"({principal}", "full name", "principal=")
        fails(place, kind, unknown_server(place, principal), *notes, **call)


def test_a_server_of_a_realm_that_the_kdc_does_not_know(place: Place) -> None:
    principal = "host/localhost@ELSEWHERE.TEST"
    text = unknown_server(place, "krbtgt/ELSEWHERE.TEST")
    notes = (f"Kerberos looks for {principal} in another realm", "[domain_realm]")
    if is_heimdal(place.realm):
        notes = (f"does not know the server's principal ({principal}", "the realm")
    kind = remctl.RemctlAuthenticationError
    fails(place, kind, text, *notes, principal=principal)


def test_a_server_that_is_another(place: Place) -> None:
    place.realm.add_principal("host/other")
    notes = ("the server at localhost is not host/other", "principal=")
    text = "The ticket isn't for us"
    fails(place, remctl.RemctlAuthenticationError, text, *notes, principal="host/other")


def test_a_key_that_the_keytab_does_not_have_yet(place: Place) -> None:
    old = place.used_ticket()
    place.realm.rotate_key(place.realm.host_principal)
    assert place.call(ccache=old).status == 0
    kind, text = remctl.RemctlAuthenticationError, "Key version is not available"
    notes = ("it was changed", "keytab is out of date")
    fails(place, kind, text, *notes, ccache=place.ticket())
    place.realm.extract_keytab(place.realm.host_principal, place.realm.keytab)
    for ccache in (old, place.ticket()):
        assert place.call(ccache=ccache).status == 0


def test_a_key_that_the_keytab_does_not_have_any_more(place: Place) -> None:
    old = place.used_ticket()
    place.realm.rotate_key(place.realm.host_principal)
    place.renew_keytab()
    kind, text = remctl.RemctlAuthenticationError, "Key version is not available"
    fails(place, kind, text, "it was changed", "Run kinit", ccache=old)
    assert place.call(ccache=place.ticket()).status == 0  # the cure


def test_a_realm_that_was_made_anew(place: Place) -> None:
    old = [place.ticket(), place.used_ticket()]
    with Realm() as anew, anew.environ(), RemctldServer(anew, SAMPLE_COMMANDS) as server:
        port = server.port
        kind, text = remctl.RemctlAuthenticationError, "Decrypt integrity check failed"
        for ccache in old:
            fails(place, kind, text, "(or the KDC)", "Run kinit", ccache=ccache, port=port)
        assert place.call(port=port).status == 0


def test_a_keytab_without_a_key(place: Place) -> None:
    keytab = Path(place.realm.keytab)
    kind = remctl.RemctlAuthenticationError
    keytab.unlink()
    missing = ("keytab is missing, or has no key for host/localhost", "principal=")
    fails(place, kind, "Service key not available", *missing)
    place.realm.extract_keytab(place.realm.user, keytab)
    fails(place, kind, "Service key not available", *missing)
    keytab.write_bytes(b"")
    fails(place, kind, "Generic error", "see its log", "keytab may be empty or unreadable")
    place.renew_keytab()
    assert place.call().status == 0


# -- The KDC --------------------------------------------------------------------------------------


def test_a_kdc_that_is_stopped(place: Place) -> None:
    used, unused = place.used_ticket(), place.ticket()
    place.realm.stop_kdc()
    assert place.call(ccache=used).status == 0
    text, note = "Cannot contact any KDC for realm 'REMCTL.TEST'", "no KDC of that realm answers"
    fails(place, remctl.RemctlAuthenticationError, text, note, ccache=unused)
    place.realm.start_kdc()
    assert place.call(ccache=unused).status == 0


def test_a_kdc_that_hangs(place: Place) -> None:
    used, unused = place.used_ticket(), place.ticket()
    place.realm.freeze_kdc()
    assert place.call(ccache=used).status == 0
    text, note = "timed out waiting for a KDC", "no KDC answered in time"
    fails(place, remctl.RemctlTimeoutError, text, note, ccache=unused, timeout=HANGS)
    place.realm.thaw_kdc()
    assert place.call(ccache=unused).status == 0


# -- The server and the network -------------------------------------------------------------------


def test_a_port_where_nothing_listens(place: Place) -> None:
    with refused_port() as port:
        note = f"nothing listens on port {port} of localhost"
        text = f"cannot connect to localhost (port {port}): Connection refused"
        fails(place, remctl.RemctlConnectError, text, note, "remctld", port=port)


def test_a_host_that_does_not_answer(place: Place) -> None:
    with DeafListener() as deaf:
        text, note = "Connection timed out", f"{deaf.host} did not answer on port {deaf.port}"
        call = {"host": deaf.host, "port": deaf.port, "timeout": 0.2}
        fails(place, remctl.RemctlTimeoutError, text, note, "firewall", **call)


def call_in_vain(port: int) -> remctl.RemctlProtocolError:
    with pytest.raises(remctl.RemctlProtocolError) as caught:
        remctl.remctl("localhost", port, command=["test", "echo", SECRET], timeout=LIMIT)
    return caught.value


@pytest.mark.parametrize(
    ("number", "note"),
    [
        (errno.EHOSTUNREACH, "the network does not reach localhost"),
        (errno.ENETUNREACH, "this host has no route to localhost"),
    ],
    ids=["host", "network"],
)
def test_a_network_without_a_way(place: Place, number: int, note: str, tmp_path: Path) -> None:
    """The one situation that is not made for real: that would take a network to spoil."""
    with preloaded("ports", tmp_path, FAKE_CONNECT_ERRNO=str(number)):
        error = in_child(call_in_vain, place.server.port)
    assert error.errno == number
    check(error, remctl.RemctlConnectError, os.strerror(number), note)


def test_a_host_that_does_not_exist(place: Place) -> None:
    host = "no-such-host.invalid"
    note = f"no address was found for {host}"
    fails(place, remctl.RemctlConnectError, f"unknown host {host}: ", note, host=host)


@pytest.mark.parametrize("principal", [None, "host/localhost"])
def test_a_server_that_is_no_remctl_server(place: Place, principal: str | None) -> None:
    def talk_http(peer: Peer) -> None:
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.stall()

    with FakeServer(place.realm.keytab, talk_http) as server:
        call = {"port": server.port, "principal": principal}
        note = f"listens on port {server.port} of localhost is not remctld: is the port right?"
        fails(place, remctl.RemctlAuthenticationError, ": token too larger", note, **call)


def test_a_server_that_hangs_up_while_authenticating(place: Place) -> None:
    def hang_up(peer: Peer) -> None:
        peer.read_hello()
        peer.read_token()

    with FakeServer(place.realm.keytab, hang_up) as server:
        kind, text = remctl.RemctlAuthenticationError, "unexpected end of file"
        fails(place, kind, text, "without giving a reason: see its log", port=server.port)


def test_a_server_that_is_down_between_commands(place: Place) -> None:
    server = place.server
    with remctl.Remctl("localhost", server.port, timeout=LIMIT) as session:
        for _ in range(2):
            assert session.run(["test", "echo", "a"]).stdout == b"a\n"
            server.kill()
            await_data(session)
            with pytest.raises(remctl.RemctlDisconnectedError) as caught:
                session.noop()
            check(caught.value, remctl.RemctlDisconnectedError, "error ", "the server closed")
            with pytest.raises(remctl.RemctlDisconnectedError) as caught:
                session.output()
            note = "the next command opens it again"
            check(caught.value, remctl.RemctlDisconnectedError, "no connection open", note)
            for _ in range(2):
                with pytest.raises(remctl.RemctlConnectError) as refused:
                    session.run(["test", "echo", SECRET])
                note = f"nothing listens on port {server.port} of localhost"
                check(refused.value, remctl.RemctlConnectError, "Connection refused", note)
                assert session.opened
            server.start()
        assert session.run(["test", "echo", "b"]).stdout == b"b\n"


def test_a_server_that_is_restarted_between_commands(place: Place) -> None:
    with remctl.Remctl("localhost", place.server.port, timeout=LIMIT) as session:
        for number in range(5):
            assert session.run(["test", "echo", number]).stdout == b"%d\n" % number
            place.server.restart()
            await_data(session)


def test_a_server_that_is_killed_during_a_command(place: Place, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = f'echo "$2" >>{ran}; echo begun; [ "$2" = quick ] || exec sleep 600'
    with (
        RemctldServer(place.realm, [Command("count", script=script)]) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(session.run, ["count", "up", SECRET])
        eventually(lambda: ran.exists() and ran.read_text().endswith("\n"), LIMIT)
        server.restart()
        error = running.exception(LIMIT)
        assert isinstance(error, remctl.RemctlDisconnectedError)
        text, note = "error receiving token: unexpected end of file", "may have run"
        check(error, remctl.RemctlDisconnectedError, text, "the server closed", note)
        assert error.partial is not None
        assert error.partial.stdout in (None, b"begun\n")
        assert session.run(["count", "up", "quick"]).stdout == b"begun\n"
    assert ran.read_text().split() == [SECRET, "quick"]  # once each


def test_a_server_that_is_killed_while_authenticating(place: Place) -> None:
    with Proxy("127.0.0.1", place.server.port) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.stall(TO_SERVER, after=50)  # in the middle of the ticket
        opening = pool.submit(remctl.Remctl, "localhost", proxy.port, timeout=LIMIT)
        eventually(lambda: proxy.struck(TO_SERVER), LIMIT)
        eventually(lambda: all_is_read(place.server.port), LIMIT)
        place.server.restart()
        error = opening.exception(LIMIT)
        assert isinstance(error, remctl.RemctlError)
        check(error, remctl.RemctlAuthenticationError, "error receiving token: ", "see its log")
    assert place.call().status == 0


def test_data_that_nobody_asked_for(place: Place) -> None:
    said = threading.Event()

    def say_too_much(peer: Peer) -> None:
        peer.accept()
        peer.send_output(b"nobody asked")
        said.set()
        peer.stall()

    with (
        FakeServer(place.realm.keytab, in_turn(say_too_much, serve())) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        assert said.wait(LIMIT)
        with pytest.raises(remctl.RemctlDisconnectedError) as caught:
            session.noop()
        note = "data that was not requested"
        check(caught.value, remctl.RemctlDisconnectedError, "unexpected data from server", note)


# -- No note --------------------------------------------------------------------------------------


def test_there_is_no_cure_where_the_cause_is_not_known(place: Place) -> None:
    with pytest.raises(remctl.RemctlServerError) as refused:
        place.call(command=["nonsense"])
    assert not hasattr(refused.value, "__notes__")
    with pytest.raises(remctl.RemctlAuthenticationError) as caught:
        place.call(principal="bad@@name")
    [note] = caught.value.__notes__
    assert note.startswith(f"tickets of {place.realm.user} in {place.realm.ccache} end ")
    assert note.endswith("; the server was to be bad@@name")
    with pytest.raises(remctl.RemctlNotOpenedError) as unopened:
        remctl.Remctl().run(["test"])
    assert not hasattr(unopened.value, "__notes__")


def test_a_server_cannot_have_its_text_taken_for_a_cause(place: Place) -> None:
    def lie(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_error(1, b"Ticket expired")

    with (
        FakeServer(place.realm.keytab, lie) as server,
        pytest.raises(remctl.RemctlServerError, match="Ticket expired") as caught,
    ):
        place.call(port=server.port)
    assert not hasattr(caught.value, "__notes__")
