"""An asyncio program as a user might write it; type checkers read it, and nothing runs it."""

import asyncio
import contextlib
import subprocess
from typing import BinaryIO, assert_type

import remctl
from remctl_toolkit.aio import AsyncRemctl, AsyncRemctlTokens, aremctl


class Log:
    """Take tokens of any command."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, token: remctl.RemctlToken) -> bool:
        match token.type:
            case "output" | "error":
                self.lines.append(token.output.decode())
            case "status":
                self.lines.append(f"status {token.status + 0}")
            case "done":
                return True
        return False


async def one_command(image: BinaryIO) -> remctl.RemctlSimpleResult:
    result = await aremctl(
        "server.example.org",
        command=["image", "convert"],
        input=image,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=10,
        deadline=60,
    )
    assert_type(result, remctl.RemctlSimpleResult)
    return result.check()


async def follow(connection: AsyncRemctl, log: Log) -> int:
    async for token in connection.stream(["backup", "run"], deadline=3600):
        log.add(token)
        if token.type == "output":
            print(token.stream.name, token.output.decode(errors="replace"))
        else:
            return token.status
    return 255


async def first_piece(connection: AsyncRemctl) -> bytes:
    async with connection.stream(["backup", "run"]) as tokens:
        assert_type(tokens, AsyncRemctlTokens)
        token = await anext(tokens)
        return token.output or b""


async def first_status(connection: AsyncRemctl) -> int | None:
    await connection.command(["backup", "run"], input="all")
    async with contextlib.aclosing(connection.tokens()) as tokens:
        async for token in tokens:
            if token.type == "status":
                assert_type(token.status, int)
                return token.status
    return None


async def old_words(connection: AsyncRemctl, log: Log) -> None:
    await connection.command(["backup", "run"])
    while not log.add(await connection.output()):
        pass
    tokens = connection.stream(["backup", "run"])
    await tokens.aclose()


async def main() -> None:
    log = Log()
    async with AsyncRemctl("server.example.org", timeout=10, keepalive=30) as connection:
        try:
            result = await connection.run(["backup", "list"], deadline=5)
        except remctl.RemctlError as error:
            print(error, error.advice)
            if error.may_have_run:
                raise
        else:
            assert_type(result.ok, bool)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(follow(connection, log))
        assert_type(task.result(), int)
        await first_piece(connection)
        await first_status(connection)
        await old_words(connection, log)


if __name__ == "__main__":
    asyncio.run(main())
