"""A Kerberos realm for tests: a real KDC on a loopback port, in a temporary directory."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from . import programs
from .database import Database
from .errors import RealmError
from .kdc import Kdc
from .keeper import Keeper
from .tools import TOOL_TIMEOUT, run_tool

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Realm"]


class _Closing(Protocol):
    def close(self) -> None: ...


class Realm:
    """A temporary Kerberos realm on this machine's loopback interface.

    It has one user, ``user@REALM``, with a ticket in the default credential cache, and one service,
    ``host/localhost@REALM``, with its key in the default keytab. All keys are random, and different
    in every realm. Everything listens on the loopback interface only. Other users of the machine
    cannot read the files, so they cannot get a ticket or use a server.

    Use it as a context manager, or call start() and stop(). Starting takes about 0.1 seconds and
    needs no privileges and no network. Any number of realms can run at once.

    If the process ends without stop(), even by SIGKILL, the KDC ends and the directory is removed.
    A forked child can use the realm, but not change or stop it.

    The attributes ``name``, ``user`` and ``host_principal`` (full principal names) always exist.
    The others raise RealmError until the realm is started. Only one thread at a time may change a
    realm; any number may use its servers and tickets.
    """

    _database_type: ClassVar[type[Database]] = Database

    def __init__(
        self,
        name: str = "REMCTL.TEST",
        *,
        ticket: bool = True,
        libdefaults: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the realm; start() or ``with`` starts it.

        Args:
            name: the realm's name, upper case by custom.
            ticket: whether to get a ticket for the user in the default credential cache.
            libdefaults: more settings for the section [libdefaults] of krb5.conf(5), such as
                ``{"clockskew": "5"}``.
        """
        self.name = name
        self.user = f"user@{name}"
        self.host_principal = f"host/localhost@{name}"
        self._ticket = ticket
        self._libdefaults = dict(libdefaults or {})
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

    # Starting and stopping

    def start(self) -> None:
        """Start the realm: database, KDC, principals, keytab and ticket.

        A stopped realm can be started again, with a new directory, new keys and new tickets. If
        anything fails, nothing is left behind.

        Raises:
            MissingPrograms: Kerberos programs are not installed.
            RealmError: it is already started, or a program failed (the message has its output).
        """
        if self._keeper is not None:
            raise RealmError(f"{self!r} is already started")
        found = programs.find(*self._database_type.needed)
        try:
            self._keeper = Keeper()
            self._database = self._database_type(self.name, self.tmpdir, found, self._libdefaults)
            self._kdc = Kdc(self._keeper, self._database)
            self._database.write_configuration("", 0)  # the KDC sets its port when it starts
            self._database.create()
            self.add_principal(self.user)
            self.add_host("localhost")
            self.start_kdc()
            if self._ticket:
                self.kinit()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the servers and the KDC, and remove the directory; harmless if already stopped.

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

    # Paths, ports and variables

    @property
    def tmpdir(self) -> Path:
        """The realm's directory (mode 0700). stop() removes it with all files in it."""
        return self._up().folder

    @property
    def krb5_conf(self) -> str:
        """Path of the realm's krb5.conf."""
        return self.env["KRB5_CONFIG"]

    @property
    def keytab(self) -> str:
        """Path of the services' keytab, with host/localhost and the principals of add_host()."""
        return self.env["KRB5_KTNAME"]

    @property
    def ccache(self) -> str:
        """Name of the default credential cache, with its type: ``FILE:/...``."""
        return self.env["KRB5CCNAME"]

    @property
    def kdc_port(self) -> int:
        """The KDC's port on 127.0.0.1, for TCP and UDP; it does not change until stop()."""
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
        return self._files().env

    @contextmanager
    def environ(self) -> Iterator[None]:
        """Set the KRB5_* variables in os.environ, and restore the old ones afterwards."""
        env = self.env
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
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
        """Return a full principal name: add ``@`` and this realm if the name has no realm."""
        return name if "@" in name else f"{name}@{self.name}"

    def add_principal(
        self, name: str, password: str | None = None, *, max_life: float | None = None
    ) -> str:
        """Create a principal.

        Args:
            name: with or without the realm.
            password: its password; None gives it a random key. Other users of the machine may
                guess a weak password.
            max_life: maximum lifetime of its tickets, in seconds; None means one day.

        Returns:
            The full principal name.

        Raises:
            RealmError: it exists, the password is empty or has several lines, or the realm is not
                started.
        """
        principal = self.principal(name)
        if password is not None and (not password or set(password) & set("\n\r\0")):
            raise RealmError(f"invalid password for {principal}: give one line of text, or None")
        self._files().add_principal(principal, password)
        if max_life is not None:
            self._files().limit_life(principal, round(max_life))
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
        """Add a principal's key to a keytab file, created if missing. The key stays valid.

        Returns:
            The path, as text.

        Raises:
            RealmError: there is no such principal, or the file cannot be written.
        """
        self._files().extract_keytab(self.principal(principal), os.fspath(path))
        return os.fspath(path)

    def rotate_key(self, principal: str) -> None:
        """Give a principal a new key; its keytabs keep the old one until extract_keytab().

        Tickets for the old key stay in their caches. A password becomes invalid.

        Raises:
            RealmError: there is no such principal, or the realm is not started.
        """
        self._files().rotate_key(self.principal(principal))

    def delete_principal(self, principal: str) -> None:
        """Delete a principal from the KDC. Its keytabs and tickets are kept.

        Raises:
            RealmError: there is no such principal, or the realm is not started.
        """
        self._files().delete_principal(self.principal(principal))

    def trust(self, other: Realm) -> None:
        """Set up cross-realm trust: the users of each realm can use the services of the other.

        This adds the KDC of each to the krb5.conf of the other. ACLs name the users in full, such
        as ``princ:user@OTHER.TEST``. The trust lasts until one of the realms is stopped.

        Args:
            other: another realm with a different name, which is started.

        Raises:
            RealmError: one of the realms is not started, they have the same name, or they trust
                each other already.
        """
        if other.name == self.name:
            raise RealmError(
                f"two realms {self.name} cannot trust each other: give one another name"
            )
        key = secrets.token_urlsafe(32)
        for realm, neighbour in ((self, other), (other, self)):
            realm.add_principal(f"krbtgt/{self.name}@{other.name}", key)
            realm.add_principal(f"krbtgt/{other.name}@{self.name}", key)
            realm._files().add_kdc(neighbour.name, neighbour._files().kdc_place)

    def new_ccache(self) -> str:
        """Return the name (``FILE:/...``) of a new credential cache."""
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
        timeout: float = TOOL_TIMEOUT,
    ) -> str:
        """Get a ticket-granting ticket, and replace the content of a credential cache with it.

        Args:
            principal: with or without the realm; None means the user.
            password: its password. Not used with a keytab.
            keytab: file with its key. Without a password or a keytab, the key comes from the KDC.
            ccache: name of the credential cache; None means the default one.
            lifetime: lifetime of the ticket, in seconds; None means one day.
            renewable: renewable lifetime, in seconds; None makes it not renewable.
            timeout: seconds to wait for kinit, which retries for a minute if the KDC is frozen.

        Returns:
            The name of the credential cache.

        Raises:
            RealmError: there is no such principal, the timeout passed, or kinit failed.
        """
        full = self.principal(principal or self.user)
        cache = ccache or self.ccache
        flags = ["-c", cache]
        if lifetime is not None:
            flags += ["-l", f"{round(lifetime)}s"]
        if renewable is not None:
            flags += ["-r", f"{round(renewable)}s"]
        with contextlib.ExitStack() as stack:
            if password is None and keytab is None:
                keytab = stack.enter_context(self._temporary_keytab(full))
            if keytab is not None:
                flags += ["-k", "-t", os.fspath(keytab)]
            typed = f"{password}\n" if keytab is None else ""
            self.run(["kinit", *flags, "--", full], input=typed, timeout=timeout)
        return cache

    @contextmanager
    def _temporary_keytab(self, principal: str) -> Iterator[str]:
        path = self.tmpdir / f"keytab{self.next_number()}"
        try:
            yield self.extract_keytab(principal, path)
        finally:
            path.unlink(missing_ok=True)

    def run(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        input: str = "",
        timeout: float = TOOL_TIMEOUT,
    ) -> str:
        """Run a program in the realm, such as ``["klist", "-f"]``, and return its output.

        Args:
            args: program and arguments; the program is searched like the realm's own programs.
            env: variables to add to its clean environment.
            input: text for its standard input.
            timeout: seconds to wait at most.

        Returns:
            Its standard output and error together, as text.

        Raises:
            RealmError: it failed or took too long; the message has its output.
        """
        whole_env = {**programs.tool_environ(), **self.env, **(env or {})}
        return run_tool(args, whole_env, input=input, timeout=timeout)

    # The KDC

    def start_kdc(self) -> None:
        """Start the KDC, on its previous port if it had one, and wait until it answers.

        Raises:
            RealmError: it is already running, or failed to start (the message has its output).
        """
        self._existing_kdc().start()

    def stop_kdc(self) -> None:
        """Kill the KDC, even if it is frozen; clients are refused. Harmless if it is stopped."""
        if self._kdc is not None:
            self._kdc.stop()

    def freeze_kdc(self) -> None:
        """Stop the KDC from answering: its port stays open, and clients wait.

        Raises:
            RealmError: it is not running.
        """
        self._existing_kdc().freeze()

    def thaw_kdc(self) -> None:
        """Resume a frozen KDC, which answers the waiting requests; harmless if not frozen."""
        if self._kdc is not None:
            self._kdc.thaw()

    def _existing_kdc(self) -> Kdc:
        self._up()
        assert self._kdc is not None
        return self._kdc

    # For the servers of the realm

    @property
    def keeper(self) -> Keeper:
        """Keeper that starts the realm's daemons, and kills them when this process ends."""
        return self._up()

    def next_number(self) -> int:
        """Return a new number, for unique names of files in this realm."""
        self._numbers += 1
        return self._numbers

    def attach(self, server: _Closing) -> None:
        """Let stop() close a server."""
        if server not in self._servers:
            self._servers.append(server)

    def detach(self, server: _Closing) -> None:
        """Undo attach()."""
        with contextlib.suppress(ValueError):
            self._servers.remove(server)

    def _up(self) -> Keeper:
        if self._keeper is None:
            raise RealmError(f"{self!r} is not running: call start(), or use a with statement")
        return self._keeper

    def _files(self) -> Database:
        self._up()
        assert self._database is not None
        return self._database
