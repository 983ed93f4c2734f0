"""Run a program with a timeout; only the owner can access the files that it creates."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from .errors import RealmError
from .files import PRIVATE_UMASK

__all__ = ["TOOL_TIMEOUT", "run_tool"]

TOOL_TIMEOUT = 30.0
"""Timeout of a Kerberos program, in seconds."""


def run_tool(
    args: Sequence[str],
    env: Mapping[str, str],
    *,
    input: str = "",
    timeout: float = TOOL_TIMEOUT,
) -> str:
    """Run a program and return what it prints.

    Args:
        args: program and arguments. Any user of this machine can see them: secrets go in ``input``.
        env: its complete environment.
        input: text for its standard input.
        timeout: seconds to wait at most.

    Returns:
        Its standard output and error together, as text.

    Raises:
        RealmError: it failed or took too long; the message has its output.
    """
    try:
        done = subprocess.run(
            args,
            env=env,
            input=input.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            umask=PRIVATE_UMASK,
        )
    except subprocess.TimeoutExpired as error:
        raise RealmError(f"{args[0]} took more than {timeout} seconds") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise RealmError(f"{args[0]} ended with status {done.returncode}: {output.strip()}")
    return output
