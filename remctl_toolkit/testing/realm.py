"""A Kerberos realm for tests: a real KDC on a loopback port, in a folder that goes away."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from . import programs
from ._k5 import Database
from .errors import RealmError
from .kdc import Kdc
from .keeper import Keeper

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Realm"]

_TOOL_TIMEOUT = 30.0  # seconds for a Kerberos program
_VARIABLES = (
    "KRB5_CONFIG",
    "KRB5_KDC_PROFILE",
    "KRB5CCNAME",
    "KRB5_KTNAME",
    "KRB5_CLIENT_KTNAME",
    "KRB5RCACHEDIR",
)


class _Closing(Protocol):
    def close(self) -> None: ...


class Realm:
    """A throwaway Kerberos realm on this machine's loopback interface.

    It has one user, ``user@REALM``, with a password and (unless told otherwise) a ticket in the
    default credential cache, and one service, ``host/localhost@REALM``, with its key in the
    default keytab. Use it as a context manager, or call start() and stop(). It needs about 0.1
    seconds, no privileges, and nothing from the network. Any number of realms can be up at once.

    When the process ends without stop(), even by SIGKILL, the KDC ends and the folder is removed.
    After a fork, the child can use the realm but not change or stop it.

    Attributes that are there from the beginning: ``name``, ``user`` and ``host_principal`` (full
    principal names), ``password`` (the user's). The others raise RealmError until it is started. A
    realm must not be changed by two threads at a time; its servers and tickets may be used by any number.
    """

    _database_type: ClassVar[type[Database]] = Database

    def __init__(
        self,
        name: str = "REMCTL.TEST",
        *,
        ticket: bool = True,
        libdefaults: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the realm; start() or ``with`` brings it up.

        Args:
            name: the realm's name, upper case by custom.
            ticket: whether to get the user a ticket in the default credential cache at the start.
            libdefaults: further settings for the section of that name in krb5.conf, such as
                ``{"clockskew": "5"}`` (see krb5.conf(5)).
        """
        self.name = name
        self.user = f"user@{name}"
        self.password = secrets.token_urlsafe(12)
        self.host_principal = f"host/localhost@{name}"
        self._ticket = ticket
        self._libdefaults = dict(libdefaults or {})
        self._passwords = {self.user: self.password}
        self._servers: list[_Closing] = []
        self._numbers = 0
        self._keeper: Keeper | None = None
        self._database: Database | None = None
        self._kdc: Kdc | None = None

    def __repr__(self) -> str:
        state = "stopped"
        if self._kdc is not None and self._kdc.port is not None:
            state = f"KDC on port {self._kdc.port}"
        return f"<Realm {self.name}: {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Up and down

    def start(self) -> None:
        """Bring the realm up: database, KDC, principals, keytab and ticket.

        A stopped realm can be started again; its folder, keys and tickets are new ones then. When
        anything fails, nothing is left behind.

        Raises:
            MissingPrograms: Kerberos programs or k5test are not installed.
            RealmError: it is up already, or a program failed (the message has its output).
        """
        if self._keeper is not None:
            raise RealmError(f"{self!r} is started already")
        found = programs.find(*self._database_type.needed)
        try:
            self._keeper = Keeper()
            self._create(found)
            self.start_kdc()
            if self._ticket:
                self.kinit()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the servers and the KDC and remove the folder; harmless when that is done.

        In a forked child this does nothing.
        """
        if self._keeper is None or not self._keeper.owned:
            return
        for server in tuple(self._servers):
            server.close()
        if self._kdc is not None:
            self._kdc.close()
            self._kdc = None
        self._keeper.close()
        self._keeper = None
        self._database = None
        self._passwords = {self.user: self.password}

    def _create(self, found: Mapping[str, str]) -> None:
        """Make the database with its two principals, and the keytab."""
        self._database = self._database_type(
            self.name,
            os.fspath(self.tmpdir),
            programs=found,
            runner=self._run_tool,
            libdefaults=self._libdefaults,
        )
        self._database.write_configuration(0)  # the port is chosen when the KDC starts
        self._database.create_kdb()
        self._database.addprinc(self.user, self.password)
        self.add_host("localhost")
        env = {**programs.tool_environ(), **self.env, **self._database.kdc_env}
        self._kdc = Kdc(self._up(), self._database, env)

    # Where things are

    @property
    def tmpdir(self) -> Path:
        """The realm's folder (mode 0700). Files put there are removed by stop()."""
        return self._up().folder

    @property
    def krb5_conf(self) -> str:
        """Path of the realm's krb5.conf."""
        return self.env["KRB5_CONFIG"]

    @property
    def keytab(self) -> str:
        """Path of the services' keytab; host/localhost and what add_host() adds are in it."""
        return self.env["KRB5_KTNAME"]

    @property
    def ccache(self) -> str:
        """Name of the default credential cache, with its type: ``FILE:/...``."""
        return self.env["KRB5CCNAME"]

    @property
    def kdc_port(self) -> int:
        """The KDC's port on 127.0.0.1, for TCP and UDP; the same for as long as the realm is up."""
        port = None if self._kdc is None else self._kdc.port
        if port is None:
            raise RealmError(f"{self!r} has no port: call start()")
        return port

    @property
    def env(self) -> dict[str, str]:
        """The KRB5_* variables that make Kerberos programs and libraries use this realm (a copy).

        They are KRB5_CONFIG, KRB5_KDC_PROFILE, KRB5CCNAME (the default cache), KRB5_KTNAME,
        KRB5_CLIENT_KTNAME (names a keytab that does not exist) and KRB5RCACHEDIR.
        """
        settings: dict[str, str] = self._files().env
        named = {name: settings[name] for name in _VARIABLES}
        return {**named, "KRB5CCNAME": f"FILE:{named['KRB5CCNAME']}"}

    @contextmanager
    def environ(self) -> Iterator[None]:
        """Put the KRB5_* variables in os.environ, and restore what was there (or not) before."""
        before = {name: os.environ.get(name) for name in _VARIABLES}
        os.environ.update(self.env)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    # Principals and tickets

    def principal(self, name: str) -> str:
        """Return a full principal name: ``@`` and this realm are added when there is no realm."""
        return name if "@" in name else f"{name}@{self.name}"

    def add_principal(
        self, name: str, password: str | None = None, *, max_life: float | None = None
    ) -> str:
        """Create a principal.

        Args:
            name: with or without the realm.
            password: its password; None gives it a random key (see extract_keytab).
            max_life: seconds its tickets are valid at most; None means one day.

        Returns:
            The full principal name.

        Raises:
            RealmError: it exists, the password is empty, or the realm is not started.
        """
        principal = self.principal(name)
        if password == "":
            raise RealmError(f"no password for {principal}: give a non-empty one, or None")
        self._files().addprinc(principal, password)
        if max_life is not None:
            self._files().limit_life(principal, round(max_life))
        if password is not None:
            self._passwords[principal] = password
        return principal

    def add_host(self, hostname: str) -> str:
        """Create ``host/HOSTNAME`` and add its key to the realm's keytab.

        Returns:
            The full principal name.

        Raises:
            RealmError: it exists, or the realm is not started.
        """
        principal = self.add_principal(f"host/{hostname}")
        self.extract_keytab(principal, self.keytab)
        return principal

    def extract_keytab(self, principal: str, path: str | os.PathLike[str]) -> str:
        """Add a principal's key to a keytab file, which is made if need be. The key stays valid.

        Returns:
            The path, as text.

        Raises:
            RealmError: there is no such principal, or the file cannot be written.
        """
        self._files().extract_keytab(self.principal(principal), os.fspath(path))
        return os.fspath(path)

    def rotate_key(self, principal: str) -> None:
        """Give a principal a new key; its keytabs keep the old one until extract_keytab().

        Tickets that were made with the old key stay in their caches. A password is void.

        Raises:
            RealmError: there is no such principal, or the realm is not started.
        """
        full = self.principal(principal)
        self._files().rotate_key(full)
        self._passwords.pop(full, None)

    def delete_principal(self, principal: str) -> None:
        """Remove a principal. Its keytabs and tickets stay where they are.

        Raises:
            RealmError: there is no such principal, or the realm is not started.
        """
        full = self.principal(principal)
        self._files().delete_principal(full)
        self._passwords.pop(full, None)

    def new_ccache(self) -> str:
        """Return the name (``FILE:/...``) of a credential cache that nobody has used yet."""
        return f"FILE:{self.tmpdir}/ccache{self.next_number()}"

    def kinit(
        self,
        principal: str | None = None,
        password: str | None = None,
        *,
        keytab: str | os.PathLike[str] | None = None,
        ccache: str | None = None,
        lifetime: float | None = None,
        renewable: float | None = None,
        timeout: float = _TOOL_TIMEOUT,
    ) -> str:
        """Get a ticket-granting ticket and put it in a cache, in place of what is there.

        Args:
            principal: with or without the realm; None means the user.
            password: None means the one it was created with. Not used with a keytab.
            keytab: take the key from this file instead.
            ccache: name of the credential cache; None means the default one.
            lifetime: seconds the ticket is valid; None means one day.
            renewable: seconds it can be renewed for; None makes it not renewable.
            timeout: seconds to wait for kinit, which retries for a minute if the KDC is frozen.

        Returns:
            The name of the credential cache.

        Raises:
            RealmError: no password is known, the time was over, or kinit failed.
        """
        full = self.principal(principal or self.user)
        cache = ccache or self.ccache
        flags = ["-c", cache]
        if lifetime is not None:
            flags += ["-l", f"{round(lifetime)}s"]
        if renewable is not None:
            flags += ["-r", f"{round(renewable)}s"]
        typed = None
        if keytab is not None:
            flags += ["-k", "-t", os.fspath(keytab)]
        else:
            typed = f"{self._password_of(full, password)}\n"
        self.run(["kinit", *flags, full], input=typed, timeout=timeout)
        return cache

    def _password_of(self, principal: str, given: str | None) -> str:
        password = self._passwords.get(principal) if given is None else given
        if password is None:
            raise RealmError(f"no password of {principal} is known: give one, or a keytab")
        return password

    def run(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = _TOOL_TIMEOUT,
    ) -> str:
        """Run a program in the realm, such as ``["klist", "-f"]``, and return what it prints.

        Args:
            args: program and arguments; it is looked for as the realm's own programs are.
            env: variables to add to the clean environment it gets.
            input: what it reads from standard input; None means nothing.
            timeout: seconds it may take.

        Returns:
            Its standard output and error together, as text.

        Raises:
            RealmError: it failed or took too long; the message has its output.
        """
        try:
            done = subprocess.run(
                args,
                env={**programs.tool_environ(), **self.env, **(env or {})},
                stdin=subprocess.DEVNULL if input is None else None,
                input=None if input is None else input.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RealmError(f"{args[0]} took more than {timeout} seconds") from error
        output = done.stdout.decode(errors="replace")
        if done.returncode:
            raise RealmError(f"{args[0]} ended with status {done.returncode}: {output.strip()}")
        return output

    def _run_tool(
        self, args: Sequence[str], env: Mapping[str, str] | None, typed: str | None
    ) -> str:
        return self.run(args, env=env, input=typed)

    # The KDC

    def start_kdc(self) -> None:
        """Start the KDC, on the port it had before if it had one; on return it answers.

        Raises:
            RealmError: it runs already, or it cannot be started (the message has its output).
        """
        self._existing_kdc().start()

    def stop_kdc(self) -> None:
        """End the KDC (at once, frozen or not); clients are refused. Harmless when it is down."""
        if self._kdc is not None:
            self._kdc.stop()

    def freeze_kdc(self) -> None:
        """Let the KDC answer nobody: its port stays open, and clients wait.

        Raises:
            RealmError: it is not running.
        """
        self._existing_kdc().freeze()

    def thaw_kdc(self) -> None:
        """Let a frozen KDC go on, with the requests that came meanwhile; harmless otherwise."""
        if self._kdc is not None:
            self._kdc.thaw()

    def _existing_kdc(self) -> Kdc:
        self._up()
        assert self._kdc is not None
        return self._kdc

    # For the servers of the realm

    @property
    def keeper(self) -> Keeper:
        """What starts the realm's daemons, and ends them when this process is gone."""
        return self._up()

    def next_number(self) -> int:
        """Return a number not used before in this realm, to make names of files with."""
        self._numbers += 1
        return self._numbers

    def attach(self, server: _Closing) -> None:
        """Have stop() close this first."""
        if server not in self._servers:
            self._servers.append(server)

    def detach(self, server: _Closing) -> None:
        """Forget what attach() was told."""
        with contextlib.suppress(ValueError):
            self._servers.remove(server)

    def _up(self) -> Keeper:
        if self._keeper is None:
            raise RealmError(f"{self!r} is not running: call start(), or use with")
        return self._keeper

    def _files(self) -> Database:
        self._up()
        assert self._database is not None
        return self._database
