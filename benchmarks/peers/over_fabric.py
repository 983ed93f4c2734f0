"""The contestant fabric."""

from __future__ import annotations

import os

from fabric import Config, Connection

from .worker import Action, serve

_CONFIG = Config(overrides={"load_ssh_configs": False})


def _connect() -> Connection:
    return Connection(
        "127.0.0.1",
        user=os.environ["BENCH_SSH_USER"],
        port=int(os.environ["BENCH_SSH_PORT"]),
        config=_CONFIG,
        connect_kwargs={
            "key_filename": os.environ["BENCH_SSH_KEY"],
            "allow_agent": False,
            "look_for_keys": False,
        },
    )


def _echo(connection: Connection) -> None:
    # Without standard input it is fastest: no thread waits for keys to be pressed.
    result = connection.run("/bin/echo hello", hide=True, in_stream=False)
    if result.stdout != "hello\n":
        raise RuntimeError("wrong output")


class _Commands(Action):
    def prepare(self) -> None:
        self.connection = _connect()
        _echo(self.connection)

    def go(self, count: int) -> None:
        for _ in range(count):
            _echo(self.connection)

    def quit(self) -> None:
        self.connection.close()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            with _connect() as connection:
                _echo(connection)


if __name__ == "__main__":
    serve({"commands": _Commands, "connects": _Connects})
