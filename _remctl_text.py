r"""Foreign text, made safe for terminals, logs and exceptions.

What a server, a remote account, a KDC, DNS or a file says may hold control sequences that change a
terminal, characters that change the order in which text is read, or newlines that make up lines of
a log.  `printable()` shows them as escapes: ``\x1b``, ``\u202e``, ``\n``.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str | bytes, *, lines: bool = False) -> str:
    r"""Return a text with escapes in place of all characters that are not printable.

    These are the ones for which `str.isprintable()` is false: control characters (C0, DEL and C1),
    format characters (among them all that change the direction of text, and those without width),
    line and paragraph separators, spaces of other kinds, and what is unassigned or private.

    Args:
        text: the text; octets are read as UTF-8.  Octets that are not UTF-8, in either of them
            (`os.fsdecode()` makes surrogates of these), become escapes like ``\xff``.
        lines: whether the text may have several lines: then ``\n`` stays.  Tabs always do.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    kept = "\t\n" if lines else "\t"
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
