"""The caller of a command, and checks of what the caller may do."""

from .errors import DeniedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping
    from datetime import datetime

__all__ = ["Context", "names_in"]


class Context:
    """The caller, its address and the command, as remctld passes them in the environment.

    To get it, annotate the first parameter of a command with this class.

    Attributes:
        user: the authenticated principal (REMOTE_USER), such as ``alice/admin@EXAMPLE.ORG``; None
            if remctld did not run this program.
        address: the IP address of the client (REMOTE_ADDR), or None.
        untrusted_host: the host name of the client's address (REMOTE_HOST), or None. Whoever
            controls the client's DNS controls it: display it, but never base a decision on it.
        command: the command that the client named (REMCTL_COMMAND), or None. It may be ``help`` or
            ``summary``.
        path: the subcommand and its nested ones, such as ``("group", "add")``.
    """

    __slots__ = ("_expires", "address", "command", "path", "untrusted_host", "user")

    def __init__(self, environ: "Mapping[str, str]", path: tuple[str, ...] = ()) -> None:
        """Read the variables that remctld sets."""
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
        """End of the caller's authentication (REMOTE_EXPIRES), in UTC; None if unknown."""
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
        """Return whether the caller matches. Each argument is a name or a collection of names.

        Args:
            principal: full principals, with their realm.
            realm: realms.
            instance: instances. Requires `realm`, because the administrators of another realm can
                give themselves any instance there.

        Returns:
            True if the caller matches all given arguments; always False without a user.

        Raises:
            TypeError: no argument is given, or `instance` without `realm`.
        """
        if realm is None and (principal is None or instance is not None):
            raise TypeError("missing arguments: give principal, realm, or realm and instance")
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
        """End the command unless allows() returns True.

        Args:
            principal, realm, instance: see allows().
            message: the error message for the caller.

        Raises:
            DeniedError: the caller does not match; the exit status is 77.
            TypeError: see allows().
        """
        if not self.allows(principal, realm=realm, instance=instance):
            raise DeniedError(message)


def names_in(path: "str | os.PathLike[str]") -> frozenset[str]:
    """Read names from a file, one per line; empty lines and lines with # are ignored.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.strip() for line in file]
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _is_in(name: str | None, names: "str | Collection[str]") -> bool:
    """Return whether a name is among names; a str is one name."""
    return name is not None and (name == names if isinstance(names, str) else name in names)


def _split(principal: str) -> tuple[tuple[str, ...], str | None]:
    """Return components and realm of a principal, without krb5_unparse_name(3)'s escapes."""
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
