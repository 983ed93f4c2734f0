"""What makes shells complete the options."""

from __future__ import annotations

from remctl_toolkit.hosts import MissingExtraError

from .options import parser

__all__ = ["completion"]


def completion(shell: str) -> str:
    """Return the text for a shell to read.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("shtab", "completion") from None
    built = parser()
    for action in built._actions:  # argparse has no other way to them
        if action.dest in ("hosts_file", "exclude_file", "ccache", "keytab"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(built, shell)
    return text.rstrip("\n") + "\n"
