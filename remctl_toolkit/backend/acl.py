"""Check, evaluate and combine ACLs by the rules of remctld(8).

remctld has one ACL for each line of remctl.conf. If several commands share a line, or a site's
line permits more than was declared, the backend itself decides who may run a command.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Acl = str | Sequence[str]

__all__ = ["ANONYMOUS", "entries_of", "joined", "only_for_remctld", "permits"]

ANONYMOUS = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"  # excluded from ANYUSER

_DENY = "deny:"
_METHODS = ("anyuser", "deny", "file", "gput", "localgroup", "pcre", "princ", "regex")


def entries_of(acl: "Acl | None", whose: str) -> tuple[str, ...]:
    """Return the entries of a declared ACL; () for None.

    Args:
        acl: one entry or several.
        whose: name of the command, for error messages.

    Raises:
        TypeError: an entry is not a str.
        ValueError: there is no entry, or remctld would refuse or misunderstand one of them.
    """
    if acl is None:
        return ()
    entries = (acl,) if isinstance(acl, str) else tuple(acl)
    if not entries:
        raise ValueError(f"{whose}: acl= is empty: omit it, or list who may run the command")
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"{whose}: an ACL entry must be a str, not {entry!r}")
        fault = _fault(entry)
        if fault:
            raise ValueError(f"{whose}: ACL entry {entry!r}: {fault}")
    return entries


def _fault(entry: str) -> str | None:
    """Return the reason why remctld would refuse or misunderstand an entry; None if it is valid."""
    # A backslash at the end would continue the line.
    if entry.split() != [entry] or not entry.isprintable() or entry.endswith("\\"):
        return "remctl.conf needs one word of printable characters, not ending with a backslash"
    method, data = _parsed(entry)
    if method == "file" and ":" not in entry and not entry.startswith("/"):
        return f"remctld would read it as a file name: for a principal, write princ:{entry}"
    if method == "deny" and data:
        if data.startswith("/"):
            return f"remctld would read it as a principal: for a file, write deny:file:{data}"
        return _fault(data if ":" in data or data == "ANYUSER" else f"princ:{data}")
    if method not in _METHODS:
        return f"remctld has no ACL method {method!r}"
    if method == "anyuser" and data not in ("auth", "anonymous"):
        return "write anyuser:auth or anyuser:anonymous"
    return None if data else "nothing follows the colon"


def _parsed(entry: str, default: str = "file") -> tuple[str, str]:
    """Return an entry's method and data."""
    if entry == "ANYUSER":
        return "anyuser", "auth"
    method, colon, data = entry.partition(":")
    return (method, data) if colon else (default, entry)


def permits(acl: "Sequence[str]", user: str | None) -> bool | None:
    """Evaluate an ACL for a principal. The first entry that matches decides.

    Args:
        acl: its entries.
        user: the principal; None if the caller is unknown. Then only entries for any user match,
            and the first entry that denies anything ends the search.

    Returns:
        None if the ACL is empty, or if only remctld can evaluate it (it has done so for the line).
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
    """Return whether an entry matches; None if only remctld can evaluate it."""
    method, data = _parsed(entry, default)
    if method == "anyuser":
        return data == "anonymous" or user != ANONYMOUS
    if method == "princ":
        return user == data
    return False if method == "deny" else None  # deny:deny: matches nobody


def only_for_remctld(acl: "Iterable[str]") -> str | None:
    """Return the first entry that a backend cannot evaluate: a file, group or pattern."""
    for entry in acl:
        denies = entry.startswith(_DENY)
        if _matches(entry.removeprefix(_DENY), "", "princ" if denies else "file") is None:
            return entry
    return None


def joined(acls: "Iterable[tuple[str, ...]]") -> tuple[str, ...]:
    """Return the ACL of a line for many commands, which permits whoever may run any of them.

    Entries that all ACLs begin with are kept. After these, "deny:" entries are dropped: a user that
    one command denies may be permitted to run another.
    """
    several = list(dict.fromkeys(acls))
    first, *others = several or [()]
    count = 0  # entries that all ACLs begin with
    while count < len(first) and all(acl[: count + 1] == first[: count + 1] for acl in others):
        count += 1
    rest = [entry for acl in several for entry in acl[count:]]
    common = first[:count]
    found = (*common, *dict.fromkeys(entry for entry in rest if not entry.startswith(_DENY)))
    return found or next(filter(None, several), ())
