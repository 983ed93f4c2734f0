"""Messages about arguments that are often wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl

pytestmark = pytest.mark.once

COMMAND = ["test", "echo"]


def call_async(*arguments: Any, **keywords: Any) -> Any:
    return asyncio.run(aremctl(*arguments, **keywords))


calls = pytest.mark.parametrize("call", [remctl.remctl, call_async])


@calls
def test_a_command_in_the_place_of_the_port(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="command="):
        call("localhost", COMMAND)
    with pytest.raises(TypeError, match="command="):
        call("localhost", tuple(COMMAND))


@calls
def test_a_command_in_the_place_of_the_principal(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"principal must be a str|command="):
        call("localhost", 4373, COMMAND)


@calls
@pytest.mark.parametrize("command", ["test echo", "test"])
def test_a_command_that_is_text(call: Callable[..., Any], command: str) -> None:
    with pytest.raises(TypeError, match=r"arguments, not a str$"):
        call("localhost", 4373, command=command)


def test_a_command_that_is_text_in_a_session() -> None:
    session = remctl.Remctl("localhost", 4373, connect=False)
    for call in (session.run, session.command, session.stream):
        with pytest.raises(TypeError, match=r"arguments, not a str$"):
            call("test echo")
    with pytest.raises(TypeError, match=r"arguments, not a str$"):
        asyncio.run(AsyncRemctl("localhost", 4373).run("test echo"))
    session.close()


@pytest.mark.parametrize("command", [b"test echo", bytearray(b"x"), 5, 1.5, True, None, object()])
@calls
def test_a_command_that_is_no_list_of_another_kind(
    call: Callable[..., Any], command: object
) -> None:
    with pytest.raises(TypeError, match="command"):
        call("localhost", 4373, command=command)


@calls
def test_no_command(call: Callable[..., Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="command"):
        call("localhost")
