"""The files of an MIT realm: krb5.conf, kdc.conf, the KDC's database and keytabs.

Passwords go to programs on standard input, because any user of this machine can see arguments.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeAlias

from .errors import RealmError
from .files import write_private
from .programs import REALM_PROGRAMS, tool_environ
from .tools import run_tool

__all__ = ["Database", "Settings"]

Settings: TypeAlias = "Mapping[str, str | Settings]"
"""A section of a configuration file: values, and sections within it."""

_ANYBODY = 0o644  # the mode of configuration files, which hold no secret


class Database:
    """The files of an MIT realm in a directory, with methods to change them."""

    needed: ClassVar[tuple[str, ...]] = REALM_PROGRAMS
    """The programs that have to be installed, for ``programs.find``."""

    def __init__(
        self, realm: str, folder: Path, programs: Mapping[str, str], libdefaults: Mapping[str, str]
    ) -> None:
        """Describe the realm; nothing is written or run yet.

        Args:
            realm: its name.
            folder: an empty private directory for all files. Its path must not contain characters
                that are special in a configuration file.
            programs: full paths by name, from ``programs.find``.
            libdefaults: further settings for that section of krb5.conf.
        """
        self.realm = realm
        self.folder = folder
        self.address = ""
        self.port = 0
        self._programs = programs
        self._libdefaults = libdefaults
        self._other_kdcs: dict[str, str] = {}

    @property
    def env(self) -> dict[str, str]:
        """The KRB5_* variables that make programs and libraries use the files (a copy)."""
        return {
            "KRB5_CONFIG": f"{self.folder}/krb5.conf",
            "KRB5_KDC_PROFILE": f"{self.folder}/kdc.conf",
            "KRB5CCNAME": f"FILE:{self.folder}/ccache",
            "KRB5_KTNAME": f"{self.folder}/keytab",
            "KRB5_CLIENT_KTNAME": f"{self.folder}/client_keytab",
            "KRB5RCACHEDIR": str(self.folder),
        }

    # The KDC

    @property
    def kdc_command(self) -> list[str]:
        """Command line of the KDC in the foreground."""
        return [self._programs["krb5kdc"], "-n"]

    @property
    def kdc_env(self) -> dict[str, str]:
        """Variables that the KDC needs besides the realm's."""
        return {}

    def kdc_is_ready(self, printed: bytes) -> bool:
        """Return whether the KDC is ready, judging by its output.

        Raises:
            RealmError: the KDC failed to start.
        """
        return b"starting..." in printed

    @property
    def kdc_place(self) -> str:
        """Address and port of the KDC, as written in krb5.conf."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"

    # Configuration

    def write_configuration(self, address: str, port: int) -> None:
        """Write krb5.conf and kdc.conf for a KDC on a loopback address and port."""
        self.address, self.port = address, port
        self._write("krb5.conf", self._krb5_conf)
        self._write("kdc.conf", self._kdc_conf)

    def add_kdc(self, realm: str, place: str) -> None:
        """Add the KDC of another realm to krb5.conf."""
        self._other_kdcs[realm] = place
        self._write("krb5.conf", self._krb5_conf)

    def _write(self, name: str, sections: Mapping[str, Settings]) -> None:
        lines = [line for title, text in sections.items() for line in _section(title, text)]
        write_private(self.folder / name, "".join(f"{line}\n" for line in lines), _ANYBODY)

    @property
    def _krb5_conf(self) -> Mapping[str, Settings]:
        libdefaults = {
            "default_realm": self.realm,
            "default_ccache_name": self.env["KRB5CCNAME"],
            "forwardable": "true",
            # Never ask a resolver; "" prevents appending a search domain to names.
            "rdns": "false",
            "dns_canonicalize_hostname": "false",
            "dns_lookup_kdc": "false",
            "dns_lookup_realm": "false",
            "qualify_shortname": '""',
        }
        kdcs = {self.realm: self.kdc_place, **self._other_kdcs}
        return {
            "libdefaults": {**libdefaults, **self._libdefaults},
            "realms": {realm: {"kdc": place} for realm, place in kdcs.items()},
            "domain_realm": {"localhost": self.realm},
        }

    @property
    def _kdc_conf(self) -> Mapping[str, Settings]:
        realm = {
            "database_module": "db",
            "key_stash_file": f"{self.folder}/stash",
            "kdc_listen": self.kdc_place,
            "kdc_tcp_listen": self.kdc_place,
            "max_life": "1d",
            "max_renewable_life": "7d",
            "supported_enctypes": "aes256-cts-hmac-sha1-96:normal",
        }
        # The KDC must not write to its database, because it may be killed at any time.
        database = {
            "db_library": "db2",
            "database_name": f"{self.folder}/db",
            "disable_last_success": "true",
            "disable_lockout": "true",
        }
        logs = {"kdc": f"FILE:{self.folder}/kdc.log", "default": f"FILE:{self.folder}/others.log"}
        return {"realms": {self.realm: realm}, "dbmodules": {"db": database}, "logging": logs}

    # Principals

    def create(self) -> None:
        """Create the database, with a random master key, which only the stash file keeps."""
        self._type_password("kdb5_util", "create", "-s", password=secrets.token_urlsafe(32))

    def add_principal(self, principal: str, password: str | None) -> None:
        """Create a principal; None for the password gives it a random key."""
        if password is None:
            self._kadmin("addprinc", "-randkey", principal)
        else:
            self._type_password(*self._admin, "addprinc", principal, password=password)

    def rotate_key(self, principal: str) -> None:
        """Give a principal a new random key, and delete the old one."""
        self._kadmin("cpw", "-randkey", principal)

    def limit_life(self, principal: str, seconds: int) -> None:
        """Limit the lifetime of a principal's tickets."""
        self._kadmin("modprinc", "-maxlife", f"{seconds} seconds", principal)

    def delete_principal(self, principal: str) -> None:
        """Remove a principal."""
        self._kadmin("delprinc", "-force", principal)

    def extract_keytab(self, principal: str, keytab: str) -> None:
        """Add a principal's current keys to a keytab."""
        said = self._kadmin("ktadd", "-k", keytab, "-norandkey", principal)
        if "added to keytab" not in said:  # the exit status is 0 even so
            raise RealmError(f"no key of {principal} was written to {keytab}: {said.strip()}")

    # Without a name, kadmin.local would look for one in passwd and in the ticket.
    @property
    def _admin(self) -> tuple[str, ...]:
        return "kadmin.local", "-p", f"root/admin@{self.realm}"

    def _kadmin(self, *query: str) -> str:
        """Run one query of kadmin.local; its words are arguments, so they need no quoting."""
        return self._run(*self._admin, *query)

    def _type_password(self, *command: str, password: str) -> str:
        """Run a program that asks for a password twice."""
        return self._run(*command, input=f"{password}\n{password}\n")

    def _run(self, name: str, *args: str, input: str = "") -> str:
        env = {**tool_environ(), **self.env, **self.kdc_env}
        return run_tool([self._programs[name], *args], env, input=input)


def _section(title: str, settings: Settings) -> Iterator[str]:
    """Yield the lines of a section of a configuration file."""
    yield f"[{title}]"
    yield from _indented(settings, "\t")


def _indented(settings: Settings, indent: str) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, str):
            yield f"{indent}{name} = {value}"
        else:
            yield f"{indent}{name} = {{"
            yield from _indented(value, f"{indent}\t")
            yield f"{indent}}}"
