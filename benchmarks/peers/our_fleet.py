"""The contestant remctl_toolkit.fleet: hosts are loopback addresses, which all are one server's."""

from __future__ import annotations

import os

from remctl_toolkit.fleet import Host, check_all, run_on_hosts

from .worker import Action, serve

_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_SILENT_PORT = int(os.environ["BENCH_SILENT_PORT"])
_ECHO = ("echo", "hello")

_HOSTS = 200  # of which some are silent
_LIMIT = 2.0  # seconds


def _address(number: int) -> str:
    return f"127.0.{number // 250}.{number % 250 + 1}"


def _hosts(count: int) -> list[Host]:
    return [Host(_address(number), _PORT) for number in range(count)]


class _Hosts(Action):
    """Connect, one command, close: on so many hosts."""

    def prepare(self) -> None:
        self.go(1)

    def go(self, count: int) -> None:
        outcomes = check_all(run_on_hosts(_hosts(count), _ECHO, principal=_PRINCIPAL))
        if {outcome.check().stdout for outcome in outcomes} != {b"hello\n"}:
            raise RuntimeError("wrong output")


class _Silent(_Hosts):
    """The same on 200 hosts, of which so many are silent."""

    def go(self, count: int) -> None:
        hosts = _hosts(_HOSTS)
        for number in range(count):  # spread over the others
            place = number * _HOSTS // count
            hosts[place] = Host(hosts[place].name, _SILENT_PORT)
        outcomes = list(run_on_hosts(hosts, _ECHO, principal=_PRINCIPAL, limit=_LIMIT))
        if sum(outcome.ok for outcome in outcomes) != _HOSTS - count:
            raise RuntimeError("not all hosts answered that should have")


if __name__ == "__main__":
    serve({"hosts": _Hosts, "silent": _Silent})
