"""Tickets from a password, on behalf of a user, and anonymous ones."""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from credentials.places import PASSWORD, Error, Place, end

from remctl_toolkit.credentials import (
    AnonymousCredentials,
    ImpersonatedCredentials,
    KeytabCredentials,
    PasswordCredentials,
    whoami,
)
from remctl_toolkit.testing import Realm, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

if TYPE_CHECKING:
    from _pytest.logging import LogCaptureFixture

pytestmark = pytest.mark.once


# -- Passwords ------------------------------------------------------------------------------------


def test_a_password_is_used_once_and_forgotten(place: Place) -> None:
    principal = place.daemon(password=PASSWORD)
    credentials = PasswordCredentials(principal, PASSWORD)
    assert PASSWORD not in repr(credentials)
    assert credentials.ccache().startswith("MEMORY:")
    assert PASSWORD not in repr((credentials, vars(credentials)))
    assert credentials._password is None
    end(credentials)
    with pytest.raises(Error, match="the password was forgotten after its first use") as caught:
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
    principal = place.daemon(password=PASSWORD)
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
        end(credentials)
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
        with contextlib.suppress(OSError):  # Linux reports a closed other end like this.
            shown += os.read(ours, 1000)
    os.close(ours)
    assert PASSWORD.encode() not in shown


# -- On behalf of a user --------------------------------------------------------------------------


def test_a_service_can_act_for_a_user_towards_itself(place: Place) -> None:
    realm = place.realm
    service = KeytabCredentials(realm.keytab, realm.host_principal)
    for ccache in (None, place.file()):
        credentials = ImpersonatedCredentials(service, "user", ccache)
        assert place.user(credentials) == realm.user
        assert whoami(credentials).principal == realm.user
        assert PasswordCredentials._source not in repr(credentials)


def test_a_service_can_go_to_others_only_where_the_kdc_allows_it(place: Place) -> None:
    """The KDC's db2 database cannot hold a list of targets, so S4U2Proxy is always refused."""
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
    """Give the KDC and the clients the same certificate."""
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
