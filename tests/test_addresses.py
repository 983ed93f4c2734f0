"""Hosts with several addresses: one that is dead costs a moment, not the timeout (RFC 8305).

The names exist in child processes only, where getaddrinfo() is replaced (support/preload.py). A
dead address is one of loopback whose listening queue is full, so that connect() to it hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer
from support.preload import preloaded
from support.proxy import DeafListener
from support.subprocesses import in_child
from support.waiting import PATIENCE, nothing_left_open

import remctl
from remctl_toolkit.aio import aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

NAME = "several.test"
PRINCIPAL = "host/localhost"
ECHO = ["test", "echo"]
TIMEOUT = 12.0 * PATIENCE  # seconds, with which one dead address must not be waited for
SOON = 4.0 * PATIENCE  # seconds that 250 ms may take on a machine that is busy
DEAD, DEAD_TOO, REFUSING, GOOD = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"
DEAD_IPV6 = "::1"


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab, host=GOOD) as server:
        yield server
    assert server.errors == []


def call(port: int, source_ip: str | None) -> float:
    start = time.monotonic()
    result = remctl.remctl(NAME, port, PRINCIPAL, ECHO, timeout=TIMEOUT, source_ip=source_ip)
    assert result.stdout == b"test echo\n"
    return time.monotonic() - start


def call_async(port: int, source_ip: str | None) -> float:
    start = time.monotonic()
    result = asyncio.run(aremctl(NAME, port, PRINCIPAL, ECHO, timeout=TIMEOUT, source_ip=source_ip))
    assert result.stdout == b"test echo\n"
    return time.monotonic() - start


def call_and_look(port: int, source_ip: str | None) -> float:
    call(port, source_ip)
    with nothing_left_open():  # of the attempts that lost
        return call(port, source_ip)


@contextlib.contextmanager
def addresses(folder: Path, port: int, *listed: str) -> Iterator[None]:
    """Have NAME stand for addresses, in this order; those of them that are dead listen."""
    with contextlib.ExitStack() as stack:
        for address in listed:
            if address in (DEAD, DEAD_TOO, DEAD_IPV6):
                stack.enter_context(DeafListener(address, port))
        hosts = f"{NAME}={','.join(listed)}"
        stack.enter_context(preloaded("resolver", folder, FAKE_HOSTS=hosts))
        yield


LISTS = {
    "first dead": (DEAD, GOOD),
    "two dead": (DEAD, DEAD_TOO, GOOD),
    "IPv6 dead": (DEAD_IPV6, GOOD),
    "first refusing": (REFUSING, GOOD),
    "dead, then refusing": (DEAD, REFUSING, GOOD),
    "good first": (GOOD, DEAD),
}


@pytest.mark.parametrize("how", [call, call_async, call_and_look])
@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS)
def test_a_dead_address_is_not_waited_for(
    server: FakeServer, tmp_path: Path, listed: tuple[str, ...], how: object
) -> None:
    with addresses(tmp_path, server.port, *listed):
        assert in_child(how, server.port, None) < SOON  # type: ignore[arg-type]


def test_addresses_of_another_family_than_the_source_are_not_tried(
    server: FakeServer, tmp_path: Path
) -> None:
    with addresses(tmp_path, server.port, DEAD_IPV6, GOOD):
        assert in_child(call, server.port, "127.0.0.9") < SOON


def call_in_vain(port: int, timeout: float) -> tuple[float, remctl.RemctlError]:
    start = time.monotonic()
    with pytest.raises(remctl.RemctlError) as caught, nothing_left_open():
        remctl.remctl(NAME, port, PRINCIPAL, ECHO, timeout=timeout)
    return time.monotonic() - start, caught.value


def test_the_timeout_holds_for_all_addresses_together(server: FakeServer, tmp_path: Path) -> None:
    """All attempts start within half a second, so that they end with one another."""
    with addresses(tmp_path, server.port, DEAD, DEAD_TOO):
        took, error = in_child(call_in_vain, server.port, 2.0)
    assert type(error) is remctl.RemctlTimeoutError
    assert str(error) == f"cannot connect to {NAME} (port {server.port}): Connection timed out"
    assert 2.0 <= took < 3.5 * PATIENCE


def test_a_refusal_does_not_hide_an_address_that_is_slow(
    server: FakeServer, tmp_path: Path
) -> None:
    with addresses(tmp_path, server.port, DEAD, REFUSING):
        _, error = in_child(call_in_vain, server.port, 1.0)
    assert isinstance(error, remctl.RemctlTimeoutError | remctl.RemctlConnectError)
    assert str(error).startswith(f"cannot connect to {NAME} (port {server.port}): ")
