"""`_remctl.remctl()`, implemented with the other functions of `_remctl`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Buffer

    Result = tuple[str | None, bytes | None, bytes | None, int]


def call(low: Any, arguments: tuple[Any, ...]) -> Result:
    """Call `remctl()` with the arguments of the C function."""
    return remctl(low, *arguments)


def remctl(
    low: Any, host: str, port: int, principal: str | None, command: Iterable[Buffer]
) -> Result:
    """Run one command.

    Args:
        low: the module `_remctl` of the caller.
        host, port, principal: see `_remctl.remctl_open()`.
        command: bytes-like objects.

    Returns:
        A tuple: the error text or None, standard output or None, standard error or None, and the
        exit status.
    """
    borrowed = [memoryview(part) for part in command]  # Locks the buffers against changes.
    handle = low.remctl_new()
    try:
        return _run(low, handle, (host, port, principal), borrowed)
    finally:
        low.remctl_close(handle)
        for part in borrowed:
            part.release()


def _run(low: Any, handle: Any, target: tuple[Any, ...], command: list[memoryview]) -> Result:
    output: dict[int, list[bytes]] = {1: [], 2: []}
    sent = low.remctl_open(handle, *target) and low.remctl_commandv(handle, command)
    token = low.remctl_output(handle) if sent else ()
    while token and token[0] == "output":
        output[2 if token[2] == 2 else 1].append(token[1])
        token = low.remctl_output(handle)
    error = None if token else low.remctl_error(handle)
    status = token[3] or 0 if token else 0
    if token and token[0] == "error":
        error = token[1].decode(errors="replace")
    stdout, stderr = (b"".join(pieces) or None for pieces in output.values())
    return error, stdout, stderr, status
