"""Servers for the tests of pools: one that answers, and holds the commands that a test names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import Command, FakeServer, Refusal, Result, echo, serve

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 30.0  # seconds after which a wait has failed


class HoldingServer(FakeServer):
    """Echoes commands; ``wait`` waits for `go`, ``refuse`` is refused, ``fail`` has status 1."""

    def __init__(self, realm: Realm) -> None:
        super().__init__(realm.keytab, serve(handler=self._answer))
        self.go = threading.Event()
        self.running = 0  # commands that wait

    def _answer(self, command: Command) -> Result:
        if command[0] == b"refuse":
            raise Refusal(5, "Unknown command")
        if command[0] == b"wait":
            with self._lock:
                self.running += 1
            self.go.wait(LIMIT)
            with self._lock:
                self.running -= 1
        output, errors, _ = echo(command)
        return output, errors, int(command[0] == b"fail")


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[HoldingServer]:
    """A server that has no complaints about its clients."""
    with HoldingServer(remctl_realm) as server:
        try:
            yield server
        finally:
            server.go.set()
    assert server.errors == []
