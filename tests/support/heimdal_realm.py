"""A realm with Heimdal's KDC: the programs are Heimdal's, the clients MIT's.

With the environment variable REMCTL_KDC set to `heimdal`, all realms of our tests use it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from remctl_toolkit.testing import Realm, RealmError
from remctl_toolkit.testing.database import Database, Settings
from remctl_toolkit.testing.programs import tool_environ
from remctl_toolkit.testing.tools import run_tool

from .heimdal import FOLDER_VARIABLE, find_heimdal

__all__ = ["KDC_VARIABLE", "MISSING", "HeimdalRealm", "is_heimdal", "use_chosen_kdc"]

KDC_VARIABLE = "REMCTL_KDC"

_LIFETIMES = ("--realm-max-ticket-life=1d", "--realm-max-renewable-life=7d")


MISSING = (
    "Heimdal's KDC is missing: run python tests/support/heimdal.py FOLDER (Debian, Ubuntu), and"
    f" set {FOLDER_VARIABLE} to that folder"
)


class HeimdalDatabase(Database):
    """The files of a Heimdal realm: krb5.conf, kdc.conf, the database and keytabs."""

    needed: ClassVar[tuple[str, ...]] = ("kinit", "klist")

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """As for Database.

        Raises:
            RealmError: Heimdal's programs are not here.
        """
        heimdal = find_heimdal()
        if heimdal is None:
            raise RealmError(MISSING)
        self._heimdal = heimdal
        super().__init__(*arguments, **keywords)

    @property
    def _kdc_conf(self) -> Mapping[str, Settings]:
        kdc: Settings = {
            "ports": str(self.port),
            "addresses": self.address,
            "num-kdc-processes": "1",
            "database": {
                "realm": self.realm,
                "dbname": f"{self.folder}/heimdal",
                "mkey_file": f"{self.folder}/stash",
                "acl_file": f"{self.folder}/acl",
                "log_file": f"{self.folder}/changes",
            },
        }
        return {
            "kdc": kdc,
            "kadmin": {"default_keys": "aes256-cts-hmac-sha1-96:pw-salt"},
            "logging": {"kdc": "STDERR", "default": f"FILE:{self.folder}/others.log"},
        }

    @property
    def kdc_command(self) -> list[str]:
        return [self._heimdal.kdc, f"--config-file={self.env['KRB5_KDC_PROFILE']}"]

    @property
    def kdc_env(self) -> dict[str, str]:
        return self._heimdal.env

    def kdc_is_ready(self, printed: bytes) -> bool:
        if b"KDC started" not in printed:
            return False
        # It starts even if another process uses the port.
        for protocol in ("udp", "tcp"):
            wanted = f"listening on IPv4:127.0.0.1 port {self.port}/{protocol}\n"
            if wanted.encode() not in printed:
                raise RealmError(f"the KDC's {protocol} port {self.port} is in use")
        return True

    def create(self) -> None:
        self._ask("init", *_LIFETIMES, self.realm)

    def add_principal(self, principal: str, password: str | None) -> None:
        secret = "--random-key" if password is None else f"--password={password}"
        self._ask("add", "--use-defaults", secret, principal)

    def rotate_key(self, principal: str) -> None:
        self._ask("cpw", "--random-key", principal)

    def delete_principal(self, principal: str) -> None:
        self._ask("delete", principal)

    def extract_keytab(self, principal: str, keytab: str) -> None:
        self._ask("ext_keytab", f"--keytab={keytab}", principal)

    def _ask(self, *query: str) -> None:
        """Run one query of kadmin(1)."""
        options = ["--local", f"--config-file={self.env['KRB5_KDC_PROFILE']}"]
        env = {**tool_environ(), **self.env, **self._heimdal.env}
        run_tool([self._heimdal.kadmin, *options, *query], env)


class HeimdalRealm(Realm):
    """A realm whose KDC is Heimdal's."""

    _database_type = HeimdalDatabase


def use_chosen_kdc() -> None:
    """Make all realms of this process use the KDC that REMCTL_KDC names.

    Raises:
        ValueError: there is no such KDC.
    """
    types = {"mit": Database, "heimdal": HeimdalDatabase}
    chosen = os.environ.get(KDC_VARIABLE) or "mit"
    if chosen not in types:
        raise ValueError(f"unknown KDC {chosen!r}: use one of {', '.join(types)}")
    Realm._database_type = types[chosen]


def is_heimdal(realm: Realm) -> bool:
    """Return whether a realm's KDC is Heimdal's."""
    return realm._database_type is HeimdalDatabase
