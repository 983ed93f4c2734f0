"""Shared by the tests of credentials: a realm with a server, and tickets that expire soon."""

from __future__ import annotations

import time
from typing import NamedTuple

import remctl
from remctl_toolkit.credentials import KeytabCredentials, RenewedCredentials
from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 20.0  # seconds after which a wait has failed
# Lifetime of a short ticket in seconds: a busy machine may stall a test for half of it.
LIFE = 4
PASSWORD = "a-secret-not-to-be-shown"

Error = remctl.RemctlAuthenticationError


class Place(NamedTuple):
    """A realm, and a server that any user may use."""

    realm: Realm
    server: RemctldServer

    def user(self, credentials: remctl.RemctlCredentials) -> str:
        """Return the principal that the server sees."""
        command = ["test", "env"]
        result = remctl.remctl(
            "localhost", self.server.port, command=command, credentials=credentials, timeout=LIMIT
        )
        return dict(
            line.split("=", 1) for line in result.check().stdout_text().splitlines() if "=" in line
        )["REMOTE_USER"]

    def daemon(self, life: int | None = None, **password: str) -> str:
        """Create a principal."""
        name = f"daemon{self.realm.next_number()}/client"
        return self.realm.add_principal(name, max_life=life, **password)

    def keytab(self, principal: str) -> str:
        path = self.realm.tmpdir / f"keytab{self.realm.next_number()}"
        return self.realm.extract_keytab(principal, path)

    def credentials(self, life: int | None = None, ccache: str | None = None) -> KeytabCredentials:
        """Return credentials of a new principal with a keytab."""
        principal = self.daemon(life)
        return KeytabCredentials(self.keytab(principal), principal, ccache)

    def file(self) -> str:
        """Return the name of a file for a credential cache."""
        return self.realm.new_ccache().removeprefix("FILE:")

    def requests(self, principal: str) -> int:
        """Return the number of tickets that the KDC issued for a principal's password or key."""
        lines = (self.realm.tmpdir / "kdc.log").read_text().splitlines()
        wanted = f", {principal} for krbtgt/"
        return sum("AS_REQ" in line and ": ISSUE: " in line and wanted in line for line in lines)


def ended(credentials: RenewedCredentials) -> bool:
    return credentials._left() <= 0


def end(credentials: RenewedCredentials) -> None:
    """Make credentials believe that their tickets have expired, to avoid waiting for it."""
    assert credentials._tickets is not None
    credentials._tickets = credentials._tickets._replace(until=time.time())
