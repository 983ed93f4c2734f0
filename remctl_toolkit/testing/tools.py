"""Run a program to its end, with a time limit; whatever it creates is its owner's alone."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from .errors import RealmError
from .files import PRIVATE_UMASK

__all__ = ["TOOL_TIMEOUT", "run_tool"]

TOOL_TIMEOUT = 30.0
"""Seconds for a Kerberos program."""


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
        env: its whole environment.
        input: what it reads from standard input.
        timeout: seconds it may take.

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
