"""Short patterns for many names: web[1-64], rack[1-4]n[1-16]."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[\w.-]+")  # Anything else could mean something in a pattern.
_NUMBER = re.compile(r"([0-9]+)")
_MAX_DIGITS = 18  # of a number in a range


def fold_names(names: Iterable[str]) -> list[str]:
    """Return patterns for names, sorted; names that cannot be part of a range are unchanged."""
    families: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name in names:
        pieces = _NUMBER.split(name)
        texts, numbers = pieces[::2], pieces[1::2]
        # A name that is only a number would become [1-2], which looks like an address.
        foldable = _PLAIN.fullmatch(name) and any(texts)
        if not foldable or max(map(len, numbers), default=0) > _MAX_DIGITS:
            texts, numbers = [name], []
        families.setdefault(tuple(texts), []).append(tuple(numbers))
    return [item for texts in sorted(families) for item in _fold(texts, families[texts])]


def _fold(texts: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return patterns for the names that have these texts between their numbers."""
    rows = sorted(set(rows), key=lambda row: [(int(number), len(number)) for number in row])
    for column in reversed(range(len(texts) - 1)):
        padded = {len(row[column]) for row in rows if re.match("0[0-9]", row[column])}
        alike: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            number = row[column]
            width = len(number) if len(number) in padded else 1
            alike.setdefault((*row[:column], str(width), *row[column + 1 :]), []).append(number)
        rows = [
            (*key[:column], _range(numbers, int(key[column])), *key[column + 1 :])
            for key, numbers in alike.items()
        ]
    return ["".join(map("".join, zip(texts, (*row, ""), strict=True))) for row in rows]


def _range(numbers: list[str], width: int) -> str:
    """Return the pattern for numbers: one unchanged, several in brackets."""
    if len(numbers) == 1:
        return numbers[0]
    runs: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return f"[{','.join('-'.join(f'{end:0{width}}' for end in run) for run in runs)}]"
