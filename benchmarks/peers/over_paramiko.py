"""The contestant paramiko."""

from __future__ import annotations

import os

import paramiko

from .worker import Action, serve


def _connect() -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(os.environ["BENCH_SSH_KNOWN_HOSTS"])
    client.connect(
        "127.0.0.1",
        int(os.environ["BENCH_SSH_PORT"]),
        os.environ["BENCH_SSH_USER"],
        key_filename=os.environ["BENCH_SSH_KEY"],
        allow_agent=False,
        look_for_keys=False,
    )
    return client


def _echo(client: paramiko.SSHClient) -> None:
    _, stdout, _ = client.exec_command("/bin/echo hello")
    if stdout.read() != b"hello\n" or stdout.channel.recv_exit_status() != 0:
        raise RuntimeError("wrong output")


class _Commands(Action):
    def prepare(self) -> None:
        self.client = _connect()

    def go(self, count: int) -> None:
        for _ in range(count):
            _echo(self.client)

    def quit(self) -> None:
        self.client.close()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            with _connect() as client:
                _echo(client)


if __name__ == "__main__":
    serve({"commands": _Commands, "connects": _Connects})
