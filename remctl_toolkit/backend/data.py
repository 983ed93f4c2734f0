"""Format the data that a command returns, as JSON or for people."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["lines_of"]


def lines_of(data: Any, as_json: bool) -> Iterator[str]:
    """Return data line by line.

    The items of an iterator are written as they come; as JSON, each is a document on its own line.
    """
    if hasattr(data, "__next__"):
        for item in data:
            yield _json(item) if as_json else _in_a_line(item)
        return
    if as_json:
        yield _json(data)
    elif isinstance(data, dict):
        for key, value in data.items():
            yield f"{_scalar(key)}: {_scalar(value)}"
    elif isinstance(data, (list, tuple)):
        for item in data:
            yield _in_a_line(item)
    elif data is not None:
        yield _scalar(data)


def _json(data: Any) -> str:
    import json  # slow to import, and not needed for text

    # ASCII, so that octets that are not UTF-8 become escapes. JSON has no NaN.
    return json.dumps(data, allow_nan=False)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else _json(value)


def _in_a_line(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{_scalar(key)}: {_scalar(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "  ".join(_scalar(inner) for inner in value)
    return _scalar(value)
