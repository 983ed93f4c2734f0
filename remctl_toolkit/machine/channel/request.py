"""What a keeper is asked to keep, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.connection import Connection
from ..base.program import Environment, Word, check_label

GRACE = 2.0  # seconds between asking a command to end and ending it
_PIPE = 1 << 18  # octets in each pipe of a command; a user has 64 MiB for all (pipe(7))


def describe(
    connection: Connection,
    argv: Iterable[Word] | None,
    source: str | None,
    payload: bytes,
    cwd: Word | None,
    env: Mapping[str, Word] | None,
    extend_env: Environment | None,
    label: str | None,
) -> dict[str, Any]:
    """Return what the keeper wants to know of the command.

    Raises:
        TypeError, ValueError: something cannot be right.
    """
    if (argv is None) == (source is None):
        raise ValueError("a channel needs either argv, a program, or source, Python text")
    if source is not None and not isinstance(source, str):
        raise TypeError(f"source must be text, not {type(source).__name__}")
    if argv is not None and payload:
        raise ValueError("payload is for source: write() gives a program its input")
    command = connection.command_of(["python"] if argv is None else argv, cwd, env, extend_env)
    shown = command.label if argv is not None else "channel"
    return {
        "argv": None if argv is None else command.argv,
        "source": source,
        "payload": bytes(payload),
        "cwd": command.cwd,
        "env": command.env,
        "extend_env": command.extend_env,
        "label": shown if label is None else check_label(label),
        "merge": False,
        "stdin": True,
        "nulls": [],
        "grace": GRACE,
        "pipe": _PIPE,
    }


def check_beat(beat: float, patience: float) -> None:
    """Raise ValueError unless a late beat is not yet one that was missed."""
    if not 0 < 2 * beat <= patience:
        raise ValueError(f"patience must be twice the beat at least: {patience!r}, {beat!r}")
