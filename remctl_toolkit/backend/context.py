"""Who calls a command, and what he may do."""

from .errors import DeniedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping
    from datetime import datetime

__all__ = ["Context", "names_in"]


class Context:
    """Who calls, from where, and which command: what remctld tells, and nothing else.

    A command that wants it has a first parameter annotated with it.

    Attributes:
        user: the principal that authenticated (REMOTE_USER), ``alice/admin@EXAMPLE.ORG`` say;
            None where remctld did not run this program.
        address: the IP address of the client (REMOTE_ADDR), or None.
        untrusted_host: what the client's address resolves to (REMOTE_HOST), or None. Who controls
            the client's DNS controls it: show it, but never decide by it.
        command: the command that was asked for (REMCTL_COMMAND), or None. It is ``help``, or the
            summary's word, where these are run.
        path: the subcommand and its nested ones, ``("group", "add")`` say.
    """

    __slots__ = ("_expires", "address", "command", "path", "untrusted_host", "user")

    def __init__(self, environ: "Mapping[str, str]", path: tuple[str, ...] = ()) -> None:
        """Read what remctld put into the environment."""
        self.user = environ.get("REMOTE_USER") or None
        self.address = environ.get("REMOTE_ADDR") or None
        self.untrusted_host = environ.get("REMOTE_HOST") or None
        self.command = environ.get("REMCTL_COMMAND") or None
        self.path = path
        self._expires = environ.get("REMOTE_EXPIRES", "")

    def __repr__(self) -> str:
        words = " ".join(self.path)
        return f"<Context {words!r} for {self.user} from {self.address}>"

    @property
    def expires(self) -> "datetime | None":
        """When the caller's authentication ends (REMOTE_EXPIRES), in UTC; None if not told."""
        if not self._expires.isdecimal() or not int(self._expires):
            return None
        from datetime import UTC, datetime

        return datetime.fromtimestamp(int(self._expires), UTC)

    @property
    def components(self) -> tuple[str, ...]:
        """The principal's parts before the realm: ``("alice", "admin")``; () without a user."""
        return _split(self.user)[0] if self.user else ()

    @property
    def realm(self) -> str | None:
        """The principal's realm."""
        return _split(self.user)[1] if self.user else None

    @property
    def instance(self) -> str | None:
        """The second part of a principal that has two: ``admin`` of ``alice/admin@REALM``."""
        components = self.components
        return components[1] if len(components) == 2 else None

    def allows(
        self,
        principal: "str | Collection[str] | None" = None,
        *,
        realm: "str | Collection[str] | None" = None,
        instance: "str | Collection[str] | None" = None,
    ) -> bool:
        """Tell whether the caller is one of these. Each argument is a name or a group of names.

        Args:
            principal: whole principals, with their realm.
            realm: realms.
            instance: instances. It needs `realm`: whoever runs another realm can have any
                instance there.

        Returns:
            True if he is in all that are given; without a user it is always False.

        Raises:
            TypeError: nothing is given, or `instance` without `realm`.
        """
        if realm is None and (principal is None or instance is not None):
            raise TypeError("say who is allowed: principal, realm, or realm and instance")
        return (
            (principal is None or _is_in(self.user, principal))
            and (realm is None or _is_in(self.realm, realm))
            and (instance is None or _is_in(self.instance, instance))
        )

    def require(
        self,
        principal: "str | Collection[str] | None" = None,
        *,
        realm: "str | Collection[str] | None" = None,
        instance: "str | Collection[str] | None" = None,
        message: str = "not allowed",
    ) -> None:
        """End the command unless allows() says yes.

        Args:
            principal, realm, instance: see allows().
            message: what the caller is told.

        Raises:
            DeniedError: the caller is none of these; the exit status is 77.
            TypeError: see allows().
        """
        if not self.allows(principal, realm=realm, instance=instance):
            raise DeniedError(message)


def names_in(path: "str | os.PathLike[str]") -> frozenset[str]:
    """Read a group of names from a file: one in each line; empty lines and # lines do not count.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.strip() for line in file]
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _is_in(name: str | None, names: "str | Collection[str]") -> bool:
    """Whether a name is among names; a text is one name, not a collection of characters."""
    return name is not None and (name == names if isinstance(names, str) else name in names)


def _split(principal: str) -> tuple[tuple[str, ...], str | None]:
    """Return components and realm of a principal, krb5_unparse_name(3)'s escapes undone."""
    components = [""]
    realm = None
    chars = iter(principal)
    for char in chars:
        literal = char == "\\"
        if literal:
            char = next(chars, "\\")
            char = {"n": "\n", "t": "\t", "b": "\b", "0": "\0"}.get(char, char)
        if realm is not None:
            realm += char
        elif char == "@" and not literal:
            realm = ""
        elif char == "/" and not literal:
            components.append("")
        else:
            components[-1] += char
    return tuple(components), realm
