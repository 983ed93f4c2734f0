"""The contestant remoto, which runs Python on the remote host through execnet and ssh(1)."""

from __future__ import annotations

import logging
import os
from typing import Any

import remoto
import remoto.process

from .worker import Action, serve


def _connect() -> Any:
    return remoto.Connection(
        "bench",
        logger=logging.getLogger("remoto"),
        use_ssh=True,
        interpreter="/usr/bin/python3",
        ssh_options=f"-F {os.environ['BENCH_SSH_CONFIG']}",
    )


def _echo(connection: Any) -> None:
    output, _, status = remoto.process.check(connection, ["/bin/echo", "hello"])
    if list(output) != ["hello"] or status != 0:
        raise RuntimeError(f"wrong output: {output!r}")


class _Commands(Action):
    def prepare(self) -> None:
        self.connection = _connect()

    def go(self, count: int) -> None:
        for _ in range(count):
            _echo(self.connection)

    def quit(self) -> None:
        self.connection.exit()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            connection = _connect()
            _echo(connection)
            connection.exit()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve({"commands": _Commands, "connects": _Connects})
