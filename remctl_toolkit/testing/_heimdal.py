"""A Heimdal realm's configuration and database; the programs are Heimdal's, the clients MIT's."""

from __future__ import annotations

from typing import Any

from ._k5 import Database
from .errors import RealmError
from .heimdal import Heimdal

__all__ = ["HeimdalDatabase"]

_LIFETIMES = ("--realm-max-ticket-life=1d", "--realm-max-renewable-life=7d")


class HeimdalDatabase(Database):
    """The files of a Heimdal realm: krb5.conf, kdc.conf, the database and keytabs."""

    def __init__(self, *arguments: Any, heimdal: Heimdal, **keywords: Any) -> None:
        """As for Database; ``heimdal`` is where the programs are."""
        self._heimdal = heimdal
        super().__init__(*arguments, **keywords)

    @property
    def _kdc_conf(self) -> dict[str, Any]:
        return {
            "kdc": {
                "ports": "$port0",
                "addresses": "127.0.0.1",
                "num-kdc-processes": "1",
                "database": {
                    "realm": "$realm",
                    "dbname": "$tmpdir/heimdal",
                    "mkey_file": "$tmpdir/stash",
                    "acl_file": "$tmpdir/acl",
                    "log_file": "$tmpdir/changes",
                },
            },
            "kadmin": {"default_keys": "aes256-cts-hmac-sha1-96:pw-salt"},
            "logging": {"kdc": "STDERR", "default": "FILE:$tmpdir/others.log"},
        }

    def _init_paths(self, **paths: str) -> None:
        self._kinit = paths["kinit"]

    @property
    def kdc_command(self) -> list[str]:
        return [self._heimdal.kdc, f"--config-file={self.env['KRB5_KDC_PROFILE']}"]

    @property
    def kdc_env(self) -> dict[str, str]:
        return self._heimdal.env

    def kdc_is_ready(self, printed: bytes) -> bool:
        if b"KDC started" not in printed:
            return False
        # It starts as well when somebody else has the port.
        for protocol in ("udp", "tcp"):
            wanted = f"listening on IPv4:127.0.0.1 port {self.portbase}/{protocol}\n"
            if wanted.encode() not in printed:
                raise RealmError(f"the KDC's {protocol} port {self.portbase} is in use")
        return True

    def create_kdb(self) -> None:
        self._kadmin("init", *_LIFETIMES, self.realm)

    def addprinc(self, princname: str, password: str | None = None) -> None:
        secret = "--random-key" if password is None else f"--password={password}"
        self._kadmin("add", "--use-defaults", secret, princname)

    def rotate_key(self, princname: str) -> None:
        self._kadmin("cpw", "--random-key", princname)

    def delete_principal(self, princname: str) -> None:
        self._kadmin("delete", princname)

    def extract_keytab(self, princname: str, keytab: str) -> None:
        self._kadmin("ext_keytab", f"--keytab={keytab}", princname)

    def _kadmin(self, *query: str) -> None:
        """Run one query of kadmin(1)."""
        options = ["--local", f"--config-file={self.env['KRB5_KDC_PROFILE']}"]
        self.run([self._heimdal.kadmin, *options, *query], self._heimdal.env)
