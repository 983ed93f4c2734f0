"""Credentials that renew themselves: tickets of a few seconds, a real KDC, a real remctld."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import pty
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually

import remctl
from remctl_toolkit import credentials as module
from remctl_toolkit.aio import aremctl
from remctl_toolkit.credentials import (
    AnonymousCredentials,
    ImpersonatedCredentials,
    KeytabCredentials,
    PasswordCredentials,
    RenewedCredentials,
    whoami,
)
from remctl_toolkit.credentials._caches import Tickets
from remctl_toolkit.testing import Realm, RemctldServer
from remctl_toolkit.testing.server import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from _pytest.logging import LogCaptureFixture

LIMIT = 20.0  # seconds after which a wait has failed
LIFE = 3  # seconds of a short ticket's life
PASSWORD = "a-secret-not-to-be-shown"

Error = remctl.RemctlAuthenticationError


class Place(NamedTuple):
    """A realm, and a server of it that everybody may use."""

    realm: Realm
    server: RemctldServer

    def user(self, credentials: remctl.RemctlCredentials) -> str:
        """As whom the server sees a client."""
        command = ["test", "env"]
        result = remctl.remctl(
            "localhost", self.server.port, command=command, credentials=credentials, timeout=LIMIT
        )
        return dict(
            line.split("=", 1) for line in result.check().stdout_text().splitlines() if "=" in line
        )["REMOTE_USER"]

    def daemon(self, life: int | None = None, **password: str) -> str:
        """A new principal."""
        name = f"daemon{self.realm.next_number()}/client"
        return self.realm.add_principal(name, max_life=life, **password)

    def keytab(self, principal: str) -> str:
        path = self.realm.tmpdir / f"keytab{self.realm.next_number()}"
        return self.realm.extract_keytab(principal, path)

    def credentials(self, life: int | None = None, ccache: str | None = None) -> KeytabCredentials:
        """Of a new principal with a keytab."""
        principal = self.daemon(life)
        return KeytabCredentials(self.keytab(principal), principal, ccache)

    def file(self) -> str:
        """The name of a file for a credential cache."""
        return self.realm.new_ccache().removeprefix("FILE:")

    def requests(self, principal: str) -> int:
        """How many tickets the KDC has issued for a password or key of a principal."""
        lines = (self.realm.tmpdir / "kdc.log").read_text().splitlines()
        wanted = f", {principal} for krbtgt/"
        return sum("AS_REQ" in line and ": ISSUE: " in line and wanted in line for line in lines)


@pytest.fixture
def place() -> Iterator[Place]:
    """One to spoil; its tickets for the user are shorter than its clock skew."""
    with (
        Realm() as realm,
        realm.environ(),
        RemctldServer(realm, SAMPLE_COMMANDS, default_acl="anyuser:auth") as server,
    ):
        yield Place(realm, server)


def ended(credentials: RenewedCredentials) -> bool:
    return credentials._left() <= 0


# -- Use ------------------------------------------------------------------------------------------


def test_a_keytab_is_all_that_is_needed(place: Place) -> None:
    credentials = place.credentials()
    assert place.user(credentials) == credentials.principal
    with remctl.Remctl("localhost", place.server.port, credentials=credentials) as session:
        assert session.run(["test", "echo", "1"]).stdout == b"1\n"
    call = aremctl(
        "localhost", place.server.port, command=["test", "echo"], credentials=credentials
    )
    assert asyncio.run(call).status == 0
    assert place.requests(credentials.principal) == 1


def test_the_default_realm_and_other_kinds_of_names(place: Place) -> None:
    principal = place.daemon()
    keytab = place.keytab(principal)
    for name in (keytab, f"FILE:{keytab}", Path(keytab), os.path.relpath(keytab)):
        credentials = KeytabCredentials(name, principal.partition("@")[0])
        assert credentials.principal == principal
        assert credentials.ccache().startswith("MEMORY:")


@pytest.mark.parametrize("kind", ["path", "FILE", "DIR", "KEYRING"])
def test_tickets_go_where_they_are_wanted(place: Place, kind: str) -> None:
    names = {
        "path": place.file(),
        "FILE": f"FILE:{place.file()}",
        "DIR": f"DIR:{place.realm.tmpdir}/collection",
        "KEYRING": f"KEYRING:user:remctl-{place.realm.tmpdir.name}",
    }
    credentials = place.credentials(ccache=names[kind])
    try:
        found = credentials.ccache()
    except Error as error:
        if kind == "KEYRING":
            pytest.skip(f"no keyring here: {error}")
        raise
    assert found == f"FILE:{names[kind]}" if kind == "path" else names[kind]
    before = whoami(found).ends
    assert place.user(credentials) == credentials.principal
    with remctl.Remctl("localhost", place.server.port, ccache=found):
        credentials.renew()
    assert whoami(found).principal == credentials.principal
    assert (whoami(found).ends or 0) >= (before or 0)
    assert place.requests(credentials.principal) == 2
    if kind == "DIR":  # Which other programs can read.
        assert credentials.principal in place.realm.run(["klist", "-c", found])


def test_a_file_is_replaced_whole_and_private(place: Place) -> None:
    path = Path(place.file())
    credentials = place.credentials(ccache=str(path))
    umask = os.umask(0)
    try:
        credentials.renew()
        first = path.read_bytes()
        with path.open("rb") as old:
            credentials.renew()
            assert old.read() == first
    finally:
        os.umask(umask)
    assert path.read_bytes() != first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.glob(f"{path.name}*")) == [path]


# -- Renewal --------------------------------------------------------------------------------------


def test_sessions_go_on_over_renewals_in_threads(place: Place) -> None:
    credentials = place.credentials(LIFE)
    seen: set[Tickets] = set()
    stop = threading.Event()

    def work() -> int:
        opened = 0
        while not stop.is_set():
            assert place.user(credentials) == credentials.principal
            assert credentials._tickets is not None
            seen.add(credentials._tickets)
            opened += 1
        return opened

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work) for _ in range(4)]
        try:
            eventually(lambda: len(seen) >= 4 or any(future.done() for future in futures), LIMIT)
        finally:
            stop.set()
        assert all(future.result() for future in futures)
    # There are two, in turn; one more where a renewal came early.
    assert 2 <= len({tickets.ccache for tickets in seen}) <= 3
    in_turn = sorted(seen, key=lambda tickets: tickets.since)
    assert all(new.since < old.until for old, new in pairwise(in_turn))


def test_a_thread_renews_what_others_use(place: Place) -> None:
    path = place.file()
    principal = place.daemon(LIFE)
    with KeytabCredentials(place.keytab(principal), principal, path) as credentials:
        ends: list[float | None] = []
        for _ in range(3):
            eventually(lambda: whoami(path).ends not in ends, LIMIT)
            found = whoami(path)
            assert found.left > 0
            ends.append(found.ends)
        # Looking at tickets did not ask the KDC, though the library likes to where they end soon.
        assert place.requests(principal) <= len(ends) + 1
        credentials.start()  # Once more does nothing.
        assert [t.name for t in threading.enumerate()].count("remctl-tickets") == 1
    eventually(lambda: "remctl-tickets" not in [t.name for t in threading.enumerate()])
    credentials.close()
    assert credentials.ccache() == f"FILE:{path}"


def test_one_renewal_at_a_time(place: Place) -> None:
    credentials = place.credentials()
    barrier = threading.Barrier(20)

    def ask() -> str:
        barrier.wait(LIMIT)
        return credentials.ccache()

    with ThreadPoolExecutor(20) as pool:
        names = {future.result() for future in [pool.submit(ask) for _ in range(20)]}
    assert len(names) == 1
    assert place.requests(credentials.principal) == 1


def test_names_of_caches_in_memory_are_used_again(place: Place) -> None:
    principal = place.daemon(2)
    keytab = place.keytab(principal)

    def use_for_a_life() -> str:
        credentials = KeytabCredentials(keytab, principal)
        ccache = credentials.ccache()
        eventually(lambda: time.time() > credentials._tickets.until, LIMIT)  # type: ignore[union-attr]
        return ccache

    assert len({use_for_a_life() for _ in range(3)}) == 1


def test_the_reason_is_told_where_a_cache_is_used_again(place: Place) -> None:
    principal = place.daemon(2)
    credentials = KeytabCredentials(place.keytab(principal), principal)
    ccache = credentials.ccache()
    credentials.renew()
    assert credentials.ccache() != ccache
    eventually(lambda: ended(credentials), LIMIT)
    place.realm.stop_kdc()
    with pytest.raises(Error, match="Cannot contact any KDC"):
        credentials.ccache()


def test_a_cache_that_was_removed_is_made_again(place: Place) -> None:
    path = place.file()
    credentials = place.credentials(ccache=path)
    assert place.user(credentials) == credentials.principal
    os.unlink(path)
    assert place.user(credentials) == credentials.principal


def test_no_thread_keeps_what_nobody_uses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def look(credentials: RenewedCredentials) -> float:
        looked.set()
        return 0.05

    monkeypatch.setattr(RenewedCredentials, "_next_look", look)
    credentials = place.credentials()
    credentials.start()
    assert looked.wait(LIMIT)
    del credentials
    eventually(lambda: "remctl-tickets" not in [t.name for t in threading.enumerate()])


# -- Failure --------------------------------------------------------------------------------------


def test_the_old_tickets_are_used_while_the_kdc_is_down(
    place: Place, caplog: LogCaptureFixture
) -> None:
    credentials = place.credentials(LIFE)
    assert place.user(credentials) == credentials.principal
    ccache = credentials.ccache()
    place.realm.stop_kdc()
    eventually(lambda: credentials._is_due(credentials._left()), LIMIT)
    with caplog.at_level(logging.WARNING, "remctl"):
        while not ended(credentials):
            with contextlib.suppress(Error):  # It may end on the way.
                assert place.user(credentials) == credentials.principal
                assert credentials.ccache() == ccache
        failures = [r.getMessage() for r in caplog.records if "the old ones are good" in r.message]
    assert 1 <= len(failures) <= 20
    assert "Cannot contact any KDC" in failures[0]

    with pytest.raises(Error) as caught:
        place.user(credentials)
    text = str(caught.value)
    assert text.startswith(f"no tickets for {credentials.principal} from the keytab ")
    assert text.endswith(": Cannot contact any KDC for realm 'REMCTL.TEST'")
    cure, tickets, server = caught.value.__notes__
    assert cure.startswith("no KDC answers")
    assert tickets.startswith(f"tickets of {credentials.principal} in {ccache} ended 20")
    assert server == "the server was to be host/localhost"
    assert (caught.value.host, caught.value.port) == ("localhost", place.server.port)
    assert type(pickle.loads(pickle.dumps(caught.value))) is Error

    place.realm.start_kdc()
    assert place.user(credentials) == credentials.principal


def test_nobody_waits_for_a_kdc_while_there_are_tickets(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = place.credentials()
    assert place.user(credentials) == credentials.principal
    ccache = credentials.ccache()
    place.realm.freeze_kdc()
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 1)
    for _ in range(3):
        assert place.user(credentials) == credentials.principal
        assert credentials.ccache() == ccache
        assert credentials._attempt is not None
    place.realm.thaw_kdc()
    eventually(lambda: credentials.ccache() != ccache, LIMIT)


def test_a_late_renewal_takes_half_of_what_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = place.credentials(4)
    ccache = credentials.ccache()
    place.realm.freeze_kdc()
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 1)
    monkeypatch.setattr(module._renewal, "_LATE_LEFT", 1)
    half = time.time() + credentials._left() / 2
    assert credentials.ccache() == ccache
    assert time.time() >= half
    assert not ended(credentials)
    place.realm.thaw_kdc()
    eventually(lambda: credentials.ccache() != ccache, LIMIT)


def test_where_no_thread_can_be_had_it_does_without(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    credentials = place.credentials()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert credentials.ccache() == credentials.ccache()


def test_attempts_have_pauses_between_them(place: Place) -> None:
    credentials = place.credentials()
    place.realm.stop_kdc()
    pauses = []
    for _ in range(9):
        with pytest.raises(Error):
            credentials.ccache()
        pauses.append(round(credentials._not_before - time.monotonic()))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_thread_gets_tickets_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._renewal, "_LAST_PAUSE", 0.2)
    path = place.file()
    principal = place.daemon(2)
    with KeytabCredentials(place.keytab(principal), principal, path) as credentials:
        place.realm.stop_kdc()
        eventually(lambda: credentials._failures > 3 and ended(credentials), LIMIT)
        place.realm.start_kdc()
        eventually(lambda: not ended(credentials), LIMIT)


def test_good_tickets_in_a_shared_cache_do_without_a_kdc(place: Place) -> None:
    principal = place.daemon()
    keytab = place.keytab(principal)
    ccache = place.realm.kinit(principal, keytab=keytab, ccache=place.realm.new_ccache())
    other = place.realm.kinit(ccache=place.realm.new_ccache())
    place.realm.stop_kdc()
    assert KeytabCredentials(keytab, principal, ccache).ccache() == ccache
    with pytest.raises(Error):  # They are somebody else's.
        KeytabCredentials(keytab, principal, other).ccache()
    place.realm.expire(ccache)
    with pytest.raises(Error):
        KeytabCredentials(keytab, principal, ccache).ccache()


SPOILS: dict[str, tuple[Callable[[Place, str, str], object], str]] = {
    "key": (lambda p, principal, _: p.realm.rotate_key(principal), "keytab out of date"),
    "principal": (lambda p, principal, _: p.realm.delete_principal(principal), "was deleted"),
    "keytab": (lambda p, _, keytab: os.unlink(keytab), "does not exist"),
    "emptied": (lambda p, _, keytab: os.truncate(keytab, 0), ""),
    "other's": (lambda p, _, keytab: os.replace(p.keytab(p.daemon()), keytab), "has no key"),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_was_spoilt_is_told(place: Place, what: str) -> None:
    spoil, cure = SPOILS[what]
    principal = place.daemon()
    keytab = place.keytab(principal)
    credentials = KeytabCredentials(keytab, principal)
    spoil(place, principal, keytab)
    with pytest.raises(Error) as caught:
        place.user(credentials)
    assert str(caught.value).startswith(f"no tickets for {principal} from the keytab {keytab}: ")
    assert cure in f"{caught.value} {caught.value.__notes__[0]}"
    assert caught.value.__notes__[-2] == f"there were no tickets of {principal} before"


def test_a_cache_that_cannot_be_written_is_told(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    credentials = place.credentials(ccache=str(folder / "ccache"))
    folder.rmdir()
    with pytest.raises(Error, match="Failed to store credentials"):
        credentials.ccache()


# -- Bad input ------------------------------------------------------------------------------------


def make(place: Place, **given: Any) -> KeytabCredentials:
    keytab, principal = place.realm.keytab, place.realm.host_principal
    return KeytabCredentials(**{"keytab": keytab, "principal": principal, **given})


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"keytab": "/no/such"}, ValueError, r"keytab /no/such does not exist: .*ktadd"),
    ({"keytab": "/etc"}, ValueError, "keytab /etc is a folder: name the file"),
    ({"keytab": "/etc/passwd"}, ValueError, "/etc/passwd is not a keytab: Unsupported"),
    ({"keytab": "NONSENSE:x"}, ValueError, "NONSENSE:x is not a keytab: Unknown Key table type"),
    ({"keytab": ""}, ValueError, "invalid keytab: ''"),
    ({"keytab": "a\0b"}, ValueError, "invalid keytab"),
    ({"keytab": 5}, TypeError, "not int"),
    ({"keytab": b"x"}, TypeError, "keytab must be a str or a path: b'x'"),
    ({"principal": "nobody"}, ValueError, r"has no key of nobody@REMCTL.TEST: klist -k"),
    ({"principal": "host/localhost@OTHER"}, ValueError, "has no key of host/localhost@OTHER"),
    ({"principal": "a@b@c"}, ValueError, "invalid principal 'a@b@c': Malformed .* name@REALM"),
    ({"principal": ""}, ValueError, "invalid principal: ''"),
    ({"principal": "a\0b"}, ValueError, "invalid principal: 'a"),
    ({"principal": None}, TypeError, "principal must be a str: None"),
    ({"ccache": ""}, ValueError, "invalid credential cache: ''"),
    ({"ccache": 5}, TypeError, "not int"),
    ({"ccache": "FOO:x"}, ValueError, "'FOO:x' is of an unknown kind: .* FILE:, MEMORY:, "),
    ({"ccache": "MEMORY:mine"}, ValueError, "'MEMORY:mine': .* leave it out"),
    ({"ccache": "DIR::/x/tkt"}, ValueError, "name the collection"),
    ({"ccache": "KEYRING:process:x"}, ValueError, "for one thread only"),
    ({"ccache": "FILE:"}, ValueError, "names no file"),
    ({"ccache": "/etc"}, ValueError, "/etc is a folder"),
    ({"ccache": "/no/such/file"}, ValueError, "there is no folder /no/such: make it first"),
]


@pytest.mark.parametrize(("given", "kind", "text"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_bad_input_is_told_at_once(
    place: Place, given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    place.realm.stop_kdc()
    with pytest.raises(kind, match=text):
        make(place, **given)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else then")
def test_files_of_others_are_told_at_once() -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match="may not be read by this user: "):
            module._sources._check_keytab("/etc/shadow")
        with pytest.raises(ValueError, match="/etc is not writable: name another folder"):
            module._caches.make_cache("/etc/ccache", "")
    finally:
        os.seteuid(0)


def test_other_arguments_are_checked_too(place: Place) -> None:
    with pytest.raises(TypeError, match="password must be a str or bytes, not int"):
        PasswordCredentials("user", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the password must not be empty"):
        PasswordCredentials("user", "")
    with pytest.raises(TypeError, match="service must be credentials, not str"):
        ImpersonatedCredentials("service", "user")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="realm must be a str: 5"):
        AnonymousCredentials(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"credentials must have ccache\(\): int has not"):
        whoami(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid credential cache"):
        whoami("")


# -- Passwords ------------------------------------------------------------------------------------


def test_a_password_is_used_once_and_forgotten(place: Place) -> None:
    principal = place.daemon(2, password=PASSWORD)
    credentials = PasswordCredentials(principal, PASSWORD)
    assert PASSWORD not in repr(credentials)
    assert credentials.ccache().startswith("MEMORY:")
    assert PASSWORD not in repr((credentials, vars(credentials)))
    assert credentials._password is None
    eventually(lambda: ended(credentials), LIMIT)
    with pytest.raises(Error, match="it was used, and forgotten") as caught:
        place.user(credentials)
    assert "give a function" in caught.value.__notes__[0]


def test_a_password_is_kept_until_a_kdc_has_answered(
    place: Place, caplog: LogCaptureFixture
) -> None:
    principal = place.daemon(password=PASSWORD)
    credentials = PasswordCredentials(principal, PASSWORD)
    wrong = PasswordCredentials(principal, "wrong")
    place.realm.stop_kdc()
    for each in (credentials, wrong):
        with caplog.at_level(logging.DEBUG), pytest.raises(Error, match="Cannot contact any KDC"):
            each.ccache()
    place.realm.start_kdc()
    assert place.user(credentials) == principal
    with pytest.raises(Error) as caught:
        wrong.ccache()
    assert "the password is wrong" in caught.value.__notes__[0]
    assert wrong._password is None
    assert PASSWORD not in caplog.text


def test_a_function_is_asked_again_when_the_tickets_have_ended(place: Place) -> None:
    principal = place.daemon(2, password=PASSWORD)
    asked = []

    def ask() -> bytes:
        asked.append(threading.current_thread())
        return PASSWORD.encode()

    credentials = PasswordCredentials(principal, ask, place.file())
    assert asked == []
    with credentials:
        assert asked == [threading.current_thread()]
        assert credentials.ccache() == credentials.ccache()
        assert len(asked) == 1
        eventually(lambda: ended(credentials), LIMIT)
        assert credentials.ccache()
        assert len(asked) == 2


def test_without_a_terminal_nobody_is_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = PasswordCredentials(place.daemon(password=PASSWORD))
    with open(os.devnull) as nothing:
        for stdin in (nothing, None):
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(Error, match="there is no terminal to ask") as caught:
                place.user(credentials)
            assert "use a keytab" in caught.value.__notes__[0]


def test_at_a_terminal_the_user_is_asked(place: Place) -> None:
    principal = place.daemon(password=PASSWORD)
    code = (
        "import sys; from remctl_toolkit.credentials import *;"
        "print(whoami(PasswordCredentials(sys.argv[1])).principal)"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, principal],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        text=True,
    ) as child:
        os.close(theirs)
        shown = b""
        while not shown.endswith(f"Password for {principal}: ".encode()):
            shown += os.read(ours, 1000)
        os.write(ours, f"{PASSWORD}\n".encode())
        assert child.stdout is not None
        assert child.stdout.read() == f"{principal}\n"
        with contextlib.suppress(OSError):  # It says so where the other end is closed.
            shown += os.read(ours, 1000)
    os.close(ours)
    assert PASSWORD.encode() not in shown


# -- In somebody else's name ----------------------------------------------------------------------


def test_a_service_can_act_for_a_user_towards_itself(place: Place) -> None:
    realm = place.realm
    service = KeytabCredentials(realm.keytab, realm.host_principal)
    for ccache in (None, place.file()):
        credentials = ImpersonatedCredentials(service, "user", ccache)
        assert place.user(credentials) == realm.user
        assert whoami(credentials).principal == realm.user
        assert PasswordCredentials._source not in repr(credentials)


def test_a_service_can_go_to_others_only_where_the_kdc_allows_it(place: Place) -> None:
    """The KDC's database here cannot hold a list of where (db2): S4U2Proxy is always refused."""
    credentials = ImpersonatedCredentials(place.credentials(), place.realm.user)
    with pytest.raises(Error, match="KDC can't fulfill requested option") as caught:
        place.user(credentials)
    assert caught.value.__notes__[-1].startswith(f"tickets of {place.realm.user} in MEMORY:")


def test_a_service_cannot_act_for_who_does_not_exist(place: Place) -> None:
    service = place.credentials()
    credentials = ImpersonatedCredentials(service, "nobody")
    with pytest.raises(Error, match=f"no tickets for nobody@REMCTL.TEST by {service.principal}: "):
        credentials.ccache()


def test_a_service_without_tickets_says_its_own_reason(place: Place) -> None:
    service = place.credentials()
    place.realm.stop_kdc()
    with pytest.raises(Error, match=f"by {service.principal}: no tickets for .*KDC") as caught:
        ImpersonatedCredentials(service, "user").ccache()
    assert caught.value.__notes__[0].startswith("no KDC answers")


# -- Anonymous ------------------------------------------------------------------------------------

PKINIT_PLUGINS = [
    path
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib")
    for path in Path(folder).glob("**/krb5/plugins/preauth/pkinit.so")
]

CERTIFICATE = """
[req]
distinguished_name = none
[none]
[kdc]
basicConstraints = CA:TRUE
keyUsage = digitalSignature, keyEncipherment, keyAgreement, keyCertSign
extendedKeyUsage = 1.3.6.1.5.2.3.5
subjectAltName = otherName:1.3.6.1.5.2.2;SEQUENCE:name
[name]
realm = EXP:0, GeneralString:REMCTL.TEST
principal = EXP:1, SEQUENCE:principal
[principal]
type = EXP:0, INTEGER:2
parts = EXP:1, SEQUENCE:parts
[parts]
first = GeneralString:krbtgt
second = GeneralString:REMCTL.TEST
"""


def offer_pkinit(realm: Realm) -> None:
    """Give the KDC a certificate, and the clients the same."""
    folder = realm.tmpdir
    (folder / "openssl.cnf").write_text(CERTIFICATE)
    key, certificate = f"{folder}/kdc.key", f"{folder}/kdc.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kdc", "-days", "2"]
    settings = ["-config", f"{folder}/openssl.cnf", "-extensions", "kdc"]
    realm.run(["openssl", "req", *options, *settings, "-keyout", key, "-out", certificate])
    plugins = "".join(
        f" {kind} = {{\n  module = pkinit:{PKINIT_PLUGINS[0]}\n }}\n"
        for kind in ("kdcpreauth", "clpreauth")
    )
    for name, section in (
        (realm.krb5_conf, "libdefaults"),
        (realm.env["KRB5_KDC_PROFILE"], "kdcdefaults"),
    ):
        with open(name, "a") as file:
            file.write(f"\n[{section}]\n pkinit_anchors = FILE:{certificate}\n")
            file.write(f" pkinit_identity = FILE:{certificate},{key}\n[plugins]\n{plugins}")
    realm.stop_kdc()
    realm.start_kdc()
    realm.add_principal("WELLKNOWN/ANONYMOUS")


@pytest.mark.skipif(not PKINIT_PLUGINS, reason="no PKINIT here (Debian: krb5-pkinit)")
def test_nobody_needs_a_name(place: Place) -> None:
    with RemctldServer(place.realm, SAMPLE_COMMANDS, default_acl="anyuser:anonymous") as server:
        offer_pkinit(place.realm)
        found = Place(place.realm, server).user(AnonymousCredentials())
        assert found == "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"


def test_a_kdc_need_not_offer_it(place: Place) -> None:
    for credentials in (AnonymousCredentials(), AnonymousCredentials("REMCTL.TEST")):
        with pytest.raises(Error, match=r"no tickets for WELLKNOWN/ANONYMOUS@REMCTL") as caught:
            credentials.ccache()
        assert "does not offer anonymous PKINIT" in caught.value.__notes__[0]


# -- Forks ----------------------------------------------------------------------------------------


def fork(work: Callable[[], object]) -> int:
    """Do some work in a forked child; its process id."""
    child = os.fork()
    if child:
        return child
    signal.alarm(round(LIMIT * PATIENCE))  # A child that hangs ends by this.
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def check_child(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_the_tickets_and_renews_them_itself(place: Place) -> None:
    credentials = place.credentials(LIFE)
    ccache = credentials.ccache()

    def work() -> None:
        assert credentials.ccache() == ccache
        assert place.user(credentials) == credentials.principal
        eventually(lambda: credentials.ccache() != ccache, LIMIT)
        assert place.user(credentials) == credentials.principal

    check_child(fork(work))
    assert place.user(credentials) == credentials.principal


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_it_does_not_have(place: Place) -> None:
    path = place.file()
    principal = place.daemon()
    credentials = KeytabCredentials(place.keytab(principal), principal, path)
    place.realm.freeze_kdc()
    waiting = threading.Thread(target=credentials.ccache, daemon=True)
    waiting.start()
    eventually(lambda: credentials._attempt)

    def work() -> None:
        assert credentials.ccache() == f"FILE:{path}"

    with credentials._lock:
        child = fork(work)
    place.realm.thaw_kdc()
    check_child(child)
    waiting.join(LIMIT)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_the_names_of_caches(place: Place) -> None:
    credentials = place.credentials()
    with module._caches._names.lock:
        child = fork(credentials.ccache)
    check_child(child)


# -- Who am I -------------------------------------------------------------------------------------


def test_whoami_tells_whose_tickets_there_are(place: Place) -> None:
    realm = place.realm
    found = whoami()
    assert (found.principal, found.ccache, found.reason) == (realm.user, realm.ccache, None)
    assert 86000 < found.left <= 86400
    assert str(found).startswith(f"tickets of {realm.user} in {realm.ccache} end 20")
    assert str(found).endswith(" (23 h 59 min left)")
    credentials = place.credentials(50)
    told = whoami(credentials)
    assert (told.principal, told.ccache) == (credentials.principal, credentials.ccache())
    assert str(told).endswith(" s left)")
    for ccache in (realm.ccache, realm.ccache.removeprefix("FILE:"), Path(realm.ccache[5:])):
        assert whoami(ccache) == found


def test_whoami_tells_when_tickets_have_ended(place: Place) -> None:
    realm = place.realm
    realm.expire(realm.ccache)
    found = whoami()
    assert (found.principal, found.ccache, found.left) == (realm.user, realm.ccache, 0)
    assert found.ends is not None
    assert -3 * 86400 < found.ends - time.time() < -86400
    assert " ended 20" in str(found)
    assert str(found).endswith(": run kinit")


def test_whoami_tells_why_there_are_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = place.realm.new_ccache()
    found = whoami(missing)
    assert (found.principal, found.ccache, found.left) == (None, missing, 0)
    assert str(found) == f"no tickets: No credentials cache found (filename: {missing[5:]})"
    assert str(whoami("MEMORY:none")).startswith("no tickets: MEMORY:none: ")
    monkeypatch.setenv("KRB5CCNAME", missing)
    assert missing in str(whoami())
    credentials = place.credentials()
    place.realm.stop_kdc()
    assert str(whoami(credentials)).startswith(
        f"no tickets: no tickets for {credentials.principal}"
    )


def test_looking_does_not_get_tickets(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keytab = place.keytab(place.daemon())
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", keytab)
    monkeypatch.setenv("KRB5CCNAME", place.realm.new_ccache())
    assert whoami().reason is not None


# -- Hints in errors ------------------------------------------------------------------------------


def hint_of(place: Place, **settings: Any) -> str:
    with pytest.raises(Error) as caught:
        remctl.remctl("localhost", place.server.port, command=["test", "echo"], **settings)
    assert str(caught.value).startswith(("GSS-API error", "no tickets"))
    return str(caught.value.__notes__[-1])


def test_errors_tell_whose_tickets_there_are(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    realm = place.realm
    credentials = place.credentials()
    hint = hint_of(place, principal="host/none", credentials=credentials)
    assert hint.startswith(f"tickets of {credentials.principal} in {credentials.ccache()} end 20")
    assert hint.endswith("; the server was to be host/none")
    realm.expire(realm.ccache)
    for settings in ({}, {"ccache": realm.ccache}):
        hint = hint_of(place, **settings)
        assert hint.startswith(f"tickets of {realm.user} in {realm.ccache} ended 20")
        assert hint.endswith("; the server was to be host/localhost")
    missing = realm.new_ccache()
    assert hint_of(place, ccache=missing).startswith(f"no tickets in {missing}; the server")
    monkeypatch.setenv("KRB5CCNAME", missing)
    assert hint_of(place).startswith(f"no tickets in {missing}; the server")


def without_gssapi(port: int) -> tuple[list[str], str]:
    sys.modules["gssapi"] = None  # type: ignore[assignment]
    notes: list[str] = []
    try:
        remctl.remctl("localhost", port, "host/none", command=["test", "echo"])
    except Error as error:
        notes = error.__notes__
    for name in [name for name in sys.modules if name.startswith("remctl_toolkit.credentials")]:
        del sys.modules[name]
    try:
        import remctl_toolkit.credentials  # noqa: F401
    except ImportError as error:
        return notes, str(error)
    return notes, ""


def test_nothing_but_the_toolkit_needs_python_gssapi(place: Place) -> None:
    notes, text = in_child(without_gssapi, place.server.port)
    assert len(notes) == 1
    assert "tickets of" not in notes[0]
    assert "pip install 'python-remctl[gssapi]'" in text
