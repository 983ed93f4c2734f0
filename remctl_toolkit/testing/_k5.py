"""k5test's MIT realm, reduced to what writes configuration and fills the KDC's database.

k5test finds programs on PATH only, asks the resolver for this machine's name (which can hang),
searches the file system for plugins (seconds), leaves everything behind when its constructor
fails, and runs programs without a time limit. What is overridden here is for these reasons. The
folder and the daemons are the keeper's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from k5test.realm import MITRealm

from .errors import RealmError
from .programs import REALM_PROGRAMS

__all__ = ["Database", "Runner"]

# Given the arguments, the environment and the input of a program: runs it, returns its output.
Runner = Callable[[Sequence[str], Mapping[str, str] | None, str | None], str]

_SECTION = dict[str, Any]


class Database(MITRealm):  # type: ignore[misc]
    """The files of an MIT realm: krb5.conf, kdc.conf, the database and keytabs."""

    needed: ClassVar[tuple[str, ...]] = (*REALM_PROGRAMS, "k5test")
    """The names of what has to be installed, for ``programs.find``."""

    def __init__(
        self,
        realm: str,
        folder: str,
        *,
        programs: Mapping[str, str],
        runner: Runner,
        libdefaults: Mapping[str, str],
    ) -> None:
        """Describe the realm; nothing is written or run yet.

        Args:
            realm: its name.
            folder: an empty folder for all files.
            programs: full paths by name, from ``programs.find``.
            runner: runs one program.
            libdefaults: further settings for that section of krb5.conf.
        """
        self._runner = runner
        self._libdefaults = {key: value.replace("$", "$$") for key, value in libdefaults.items()}
        # An "existing" realm is one whose folder k5test neither makes, nor fills, nor removes.
        super().__init__(realm, existing=folder, get_creds=False, **programs)

    @property
    def hostname(self) -> str:
        return "localhost"

    @property
    def _krb5_conf(self) -> _SECTION:
        libdefaults = {
            "default_realm": "$realm",
            "default_ccache_name": "FILE:$tmpdir/ccache",
            "forwardable": "true",
            # No resolver, whatever a name is; "" keeps a search domain from being added to names.
            "rdns": "false",
            "dns_canonicalize_hostname": "false",
            "dns_lookup_kdc": "false",
            "dns_lookup_realm": "false",
            "qualify_shortname": '""',
        }
        return {
            "libdefaults": {**libdefaults, **self._libdefaults},
            "realms": {"$realm": {"kdc": "127.0.0.1:$port0"}},
            "domain_realm": {"localhost": "$realm"},
        }

    @property
    def _kdc_conf(self) -> _SECTION:
        realm = {
            "database_module": "db",
            "key_stash_file": "$tmpdir/stash",
            "kdc_listen": "127.0.0.1:$port0",
            "kdc_tcp_listen": "127.0.0.1:$port0",
            "max_life": "1d",
            "max_renewable_life": "7d",
            "supported_enctypes": "aes256-cts-hmac-sha1-96:normal",
        }
        # A KDC that writes nothing to its database can be killed at any moment.
        database = {
            "db_library": "db2",
            "database_name": "$tmpdir/db",
            "disable_last_success": "true",
            "disable_lockout": "true",
        }
        return {
            "realms": {"$realm": realm},
            "dbmodules": {"db": database},
            "logging": {"kdc": "FILE:$tmpdir/kdc.log", "default": "FILE:$tmpdir/others.log"},
        }

    def _init_paths(self, **paths: str) -> None:
        self.kdb5_util = paths["kdb5_util"]
        self.kadmin_local = paths["kadmin.local"]
        self._krb5kdc = paths["krb5kdc"]
        self._kinit = paths["kinit"]

    @property
    def kdc_command(self) -> list[str]:
        """What runs the KDC in the foreground."""
        return [self._krb5kdc, "-n"]

    @property
    def kdc_env(self) -> dict[str, str]:
        """Variables that the KDC needs besides the realm's."""
        return {}

    def kdc_is_ready(self, printed: bytes) -> bool:
        """Whether the KDC, which has printed that, is ready.

        Raises:
            RealmError: it never will be.
        """
        return b"starting..." in printed

    def write_configuration(self, kdc_port: int) -> None:
        """Write krb5.conf and kdc.conf for a KDC on that port of 127.0.0.1."""
        self.portbase = kdc_port
        self._create_conf(self._krb5_conf, self.env["KRB5_CONFIG"])
        self._create_conf(self._kdc_conf, self.env["KRB5_KDC_PROFILE"])

    def run(
        self,
        args: Sequence[str],
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        expected_code: int = 0,
    ) -> str:
        """Run a program for k5test; anything but exit status 0 raises."""
        assert expected_code == 0
        return self._runner(args, env, input)

    def run_kadminl(self, query: Sequence[str], **keywords: Any) -> str:
        """Run one kadmin.local query, given as words: as arguments they need no quoting."""
        return self.run([self.kadmin_local, *query], **keywords)

    def rotate_key(self, princname: str) -> None:
        """Give a principal a new random key, and forget the one before."""
        self.run_kadminl(["cpw", "-randkey", princname])

    def limit_life(self, princname: str, seconds: int) -> None:
        """Let the tickets of a principal be valid that long at most."""
        self.run_kadminl(["modprinc", "-maxlife", f"{seconds} seconds", princname])

    def delete_principal(self, princname: str) -> None:
        """Remove a principal."""
        self.run_kadminl(["delprinc", "-force", princname])

    def extract_keytab(self, princname: str, keytab: str) -> None:
        """Add a principal's present keys to a keytab."""
        said = self.run_kadminl(["ktadd", "-k", keytab, "-norandkey", princname])
        if "added to keytab" not in said:  # its exit status is 0 all the same
            raise RealmError(f"no key of {princname} was written to {keytab}: {said.strip()}")
