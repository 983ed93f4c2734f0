"""The contestant asyncssh."""

from __future__ import annotations

import asyncio
import os

import asyncssh

from .worker import Action, serve


async def _connect() -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1",
        int(os.environ["BENCH_SSH_PORT"]),
        username=os.environ["BENCH_SSH_USER"],
        client_keys=[os.environ["BENCH_SSH_KEY"]],
        known_hosts=os.environ["BENCH_SSH_KNOWN_HOSTS"],
        config=None,
        agent_path=None,
    )


async def _echo(connection: asyncssh.SSHClientConnection) -> None:
    result = await connection.run("/bin/echo hello", check=True)
    if result.stdout != "hello\n":
        raise RuntimeError("wrong output")


class _Commands(Action):
    def prepare(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(_connect())

    def go(self, count: int) -> None:
        self.loop.run_until_complete(self._repeat(count))

    async def _repeat(self, count: int) -> None:
        for _ in range(count):
            await _echo(self.connection)

    def quit(self) -> None:
        self.connection.close()
        self.loop.run_until_complete(self.connection.wait_closed())


class _Connects(Action):
    def prepare(self) -> None:
        self.loop = asyncio.new_event_loop()

    def go(self, count: int) -> None:
        self.loop.run_until_complete(self._repeat(count))

    async def _repeat(self, count: int) -> None:
        for _ in range(count):
            async with await _connect() as connection:
                await _echo(connection)


class _Gather(_Connects):
    """All at the same time."""

    async def _repeat(self, count: int) -> None:
        await asyncio.gather(*[super(_Gather, self)._repeat(1) for _ in range(count)])


if __name__ == "__main__":
    serve({"commands": _Commands, "connects": _Connects, "gather": _Gather})
