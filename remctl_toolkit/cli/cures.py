"""What to do about an error: the first note of its exception, in the words of a command line."""

from __future__ import annotations

import re

__all__ = ["explained"]

_ARGUMENT = re.compile(r"\((\w+)=\)")  # as the notes of remctl name an argument


def explained(text: str, error: BaseException | None) -> list[str]:
    """Return lines to print: what went wrong, and what to do about it if that is known.

    Args:
        text: what went wrong.
        error: the exception; ``(ccache=)`` in its note becomes ``(--ccache)``.
    """
    notes = [" ".join(note.splitlines()) for note in getattr(error, "__notes__", ())[:1]]
    return [text, *(_ARGUMENT.sub(_option, note) for note in notes)]


def _option(found: re.Match[str]) -> str:
    return f"(--{found[1].replace('_', '-')})"
