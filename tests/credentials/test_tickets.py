"""Use of credentials: tickets from a keytab, bad input, whoami(), hints in errors."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from credentials.places import Error, Place
from support.ccache import expire
from support.subprocesses import in_child

import remctl
from remctl_toolkit import credentials as module
from remctl_toolkit.aio import aremctl
from remctl_toolkit.credentials import (
    AnonymousCredentials,
    ImpersonatedCredentials,
    KeytabCredentials,
    PasswordCredentials,
    whoami,
)

pytestmark = pytest.mark.once

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
    assert found == {**names, "path": f"FILE:{names['path']}"}[kind]
    before = whoami(found).ends
    assert place.user(credentials) == credentials.principal
    with remctl.Remctl("localhost", place.server.port, ccache=found):
        credentials.renew()
    assert whoami(found).principal == credentials.principal
    assert (whoami(found).ends or 0) >= (before or 0)
    assert place.requests(credentials.principal) == 2
    if kind == "DIR":  # Other programs can read it.
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


# -- Bad input ------------------------------------------------------------------------------------


def make(place: Place, **given: Any) -> KeytabCredentials:
    keytab, principal = place.realm.keytab, place.realm.host_principal
    return KeytabCredentials(**{"keytab": keytab, "principal": principal, **given})


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"keytab": "/no/such"}, ValueError, r"keytab /no/such does not exist: .*ktadd"),
    ({"keytab": "/etc"}, ValueError, "keytab /etc is a directory: name a file"),
    ({"keytab": "/etc/passwd"}, ValueError, "/etc/passwd is not a keytab: Unsupported"),
    ({"keytab": "NONSENSE:x"}, ValueError, "NONSENSE:x is not a keytab: Unknown Key table type"),
    ({"keytab": ""}, ValueError, "invalid keytab: ''"),
    ({"keytab": "a\0b"}, ValueError, "invalid keytab"),
    ({"keytab": 5}, TypeError, "not int"),
    ({"keytab": b"x"}, TypeError, "keytab must be a str or a path: b'x'"),
    ({"principal": "nobody"}, ValueError, r"has no key of nobody@REMCTL.TEST: .* klist -k"),
    ({"principal": "host/localhost@OTHER"}, ValueError, "has no key of host/localhost@OTHER"),
    ({"principal": "a@b@c"}, ValueError, "invalid principal 'a@b@c': Malformed .* name@REALM"),
    ({"principal": ""}, ValueError, "invalid principal: ''"),
    ({"principal": "a\0b"}, ValueError, "invalid principal: 'a"),
    ({"principal": None}, TypeError, "principal must be a str: None"),
    ({"ccache": ""}, ValueError, "invalid credential cache: ''"),
    ({"ccache": 5}, TypeError, "not int"),
    ({"ccache": "FOO:x"}, ValueError, "'FOO:x' has an unsupported type: .* FILE:, MEMORY:, "),
    ({"ccache": "MEMORY:mine"}, ValueError, "'MEMORY:mine': .* omit ccache="),
    ({"ccache": "DIR::/x/tkt"}, ValueError, "name the whole collection"),
    ({"ccache": "KEYRING:process:x"}, ValueError, "belongs to one thread or process"),
    ({"ccache": "FILE:"}, ValueError, "lacks the path of a file"),
    ({"ccache": "/etc"}, ValueError, "/etc is a directory"),
    ({"ccache": "/no/such/file"}, ValueError, "directory /no/such does not exist: create it"),
]


@pytest.mark.parametrize(("given", "kind", "text"), BAD, ids=[str(bad[0]) for bad in BAD])
def test_bad_input_is_told_at_once(
    place: Place, given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    place.realm.stop_kdc()
    with pytest.raises(kind, match=text):
        make(place, **given)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_files_of_others_are_told_at_once() -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match="is not readable by this user: "):
            module._sources._check_keytab("/etc/shadow")
        with pytest.raises(ValueError, match="directory /etc is not writable: use another"):
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
    expire(realm.ccache)
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
    expire(realm.ccache)
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
    assert "pip install gssapi, or apt install python3-gssapi" in text
