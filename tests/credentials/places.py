"""What the tests of credentials share: a realm with a server, and tickets that end soon."""

from __future__ import annotations

import time
from typing import NamedTuple

import remctl
from remctl_toolkit.credentials import KeytabCredentials, RenewedCredentials
from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 20.0  # seconds after which a wait has failed
# Seconds of a short ticket's life: whoever has just got it may stand still for half of that.
LIFE = 4
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


def ended(credentials: RenewedCredentials) -> bool:
    return credentials._left() <= 0


def end(credentials: RenewedCredentials) -> None:
    """Let its tickets have ended, as far as it knows: nobody has to wait for it."""
    assert credentials._tickets is not None
    credentials._tickets = credentials._tickets._replace(until=time.time())
