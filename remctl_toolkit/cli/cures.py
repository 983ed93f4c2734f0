"""Hints about errors: the first note of an exception, with options instead of arguments."""

from __future__ import annotations

import re

__all__ = ["OPTIONS", "explained"]

OPTIONS = {"ccache": "--ccache", "principal": "--principal"}
"""Options by the argument of remctl that a note names; all commands have them."""

_ARGUMENT = re.compile(rf"\b({'|'.join(OPTIONS)})=(?=[,)])")


def explained(text: str, error: BaseException | None) -> list[str]:
    """Return the lines of a message: the error, and the cure if it is known.

    Args:
        text: the error.
        error: the exception; ``(ccache=)`` in its note becomes ``(--ccache)``.
    """
    notes = [" ".join(note.splitlines()) for note in getattr(error, "__notes__", ())[:1]]
    return [text, *(_ARGUMENT.sub(lambda found: OPTIONS[found[1]], note) for note in notes)]
