"""Hints about errors: the first note of an exception, in the words of a command line."""

from __future__ import annotations

import re

__all__ = ["OPTIONS", "explained"]

OPTIONS = {"ccache": "--ccache", "principal": "--principal"}
"""The options that the arguments named in the notes of remctl have; all commands have them."""

_ARGUMENT = re.compile(rf"\b({'|'.join(OPTIONS)})=(?=[,)])")


def explained(text: str, error: BaseException | None) -> list[str]:
    """Return lines to print: what went wrong, and what to do about it if that is known.

    Args:
        text: what went wrong.
        error: the exception; ``(ccache=)`` in its note becomes ``(--ccache)``.
    """
    notes = [" ".join(note.splitlines()) for note in getattr(error, "__notes__", ())[:1]]
    return [text, *(_ARGUMENT.sub(lambda found: OPTIONS[found[1]], note) for note in notes)]
