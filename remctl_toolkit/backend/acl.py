"""ACLs, with the rules of remctld(8): what an entry may be, whom an ACL lets in, one for many.

remctld has one ACL for each line of remctl.conf. Within a line, and where a site's line lets in
more than was declared, the backend itself has to say who may run a command.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Acl = str | Sequence[str]

__all__ = ["ANONYMOUS", "entries_of", "joined", "only_for_remctld", "permits"]

ANONYMOUS = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"  # whom remctld takes for nobody in particular

_DENY = "deny:"
_METHODS = ("anyuser", "deny", "file", "gput", "localgroup", "pcre", "princ", "regex")


def entries_of(acl: "Acl | None", whose: str) -> tuple[str, ...]:
    """Return the entries of an ACL as it was declared; () for None.

    Args:
        acl: one entry or several.
        whose: the command, for an error message.

    Raises:
        TypeError: an entry is not text.
        ValueError: there is no entry, or remctld would not take one of them as it was meant.
    """
    if acl is None:
        return ()
    entries = (acl,) if isinstance(acl, str) else tuple(acl)
    if not entries:
        raise ValueError(f"{whose}: acl= has no entry: leave it out, or name who may run this")
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"{whose}: an entry of an ACL is text, not {entry!r}")
        fault = _fault(entry)
        if fault:
            raise ValueError(f"{whose}: ACL entry {entry!r}: {fault}")
    return entries


def _fault(entry: str) -> str | None:
    """Return what is wrong with an entry: remctld refuses it, or takes it for something else."""
    # What ends with a backslash would continue the line.
    if entry.split() != [entry] or not entry.isprintable() or entry.endswith("\\"):
        return "it cannot be written in remctl.conf"
    method, data = _parsed(entry)
    if method == "file" and ":" not in entry and not entry.startswith("/"):
        return f"remctld takes it for the name of a file: a principal is written princ:{entry}"
    if method == "deny" and data:
        if data.startswith("/"):
            return f"remctld takes it for a principal: a file is written deny:file:{data}"
        return _fault(data if ":" in data or data == "ANYUSER" else f"princ:{data}")
    if method not in _METHODS:
        return f"remctld has no method {method!r}"
    if method == "anyuser" and data not in ("auth", "anonymous"):
        return "it is anyuser:auth or anyuser:anonymous"
    return None if data else "there is nothing after the colon"


def _parsed(entry: str, default: str = "file") -> tuple[str, str]:
    """Return an entry's method and what comes after it."""
    if entry == "ANYUSER":
        return "anyuser", "auth"
    method, colon, data = entry.partition(":")
    return (method, data) if colon else (default, entry)


def permits(acl: "Sequence[str]", user: str | None) -> bool | None:
    """Tell whether an ACL lets a principal in. The first entry that matches decides.

    Args:
        acl: its entries; without any, there is nothing to decide.
        user: the principal; None if nobody knows who calls. Such a caller is in where any user is,
            and no further than the first entry that denies anything.

    Returns:
        None if only remctld can tell, which has done so for the line.
    """
    for entry in acl:
        denies = entry.startswith(_DENY)
        if denies and user is None:
            return False
        matches = _matches(entry.removeprefix(_DENY), user, "princ" if denies else "file")
        if matches is None:
            return None
        if matches:
            return not denies
    return False if acl else None


def _matches(entry: str, user: str | None, default: str) -> bool | None:
    """Tell whether an entry matches, None if only remctld can."""
    method, data = _parsed(entry, default)
    if method == "anyuser":
        return data == "anonymous" or user != ANONYMOUS
    if method == "princ":
        return user == data
    return False if method == "deny" else None  # deny:deny: matches nobody


def only_for_remctld(acl: "Iterable[str]") -> str | None:
    """Return the first entry that a backend cannot evaluate: of a file, a group or a pattern."""
    for entry in acl:
        denies = entry.startswith(_DENY)
        if _matches(entry.removeprefix(_DENY), "", "princ" if denies else "file") is None:
            return entry
    return None


def joined(acls: "Iterable[tuple[str, ...]]") -> tuple[str, ...]:
    """Return the ACL of a line that serves many commands: it lets in whoever may run any of them.

    What one command denies must not keep others out, so of what differs only the entries that let
    somebody in are left.
    """
    several = list(dict.fromkeys(acls))
    first, *others = several or [()]
    count = 0  # of the entries that all begin with
    while count < len(first) and all(acl[: count + 1] == first[: count + 1] for acl in others):
        count += 1
    rest = [entry for acl in several for entry in acl[count:]]
    common = first[:count]
    found = (*common, *dict.fromkeys(entry for entry in rest if not entry.startswith(_DENY)))
    return found or next(filter(None, several), ())
