"""The contestant remctl_toolkit.fleet: all hosts are loopback addresses of one server."""

from __future__ import annotations

import os
import tempfile

from remctl_toolkit.fleet import Host, check_all, run_on_hosts
from remctl_toolkit.hosts import HostList, fold

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
    """Connect, run one command and close on COUNT hosts."""

    def prepare(self) -> None:
        self.go(1)

    def go(self, count: int) -> None:
        outcomes = check_all(run_on_hosts(_hosts(count), _ECHO, principal=_PRINCIPAL))
        if {outcome.check().stdout for outcome in outcomes} != {b"hello\n"}:
            raise RuntimeError("wrong output")


class _Silent(_Hosts):
    """The same on 200 hosts, COUNT of which are silent."""

    def go(self, count: int) -> None:
        hosts = _hosts(_HOSTS)
        for number in range(count):  # spread over the others
            place = number * _HOSTS // count
            hosts[place] = Host(hosts[place].name, _SILENT_PORT)
        outcomes = list(run_on_hosts(hosts, _ECHO, principal=_PRINCIPAL, limit=_LIMIT))
        if sum(outcome.ok for outcome in outcomes) != _HOSTS - count:
            raise RuntimeError("a host that should answer did not")


class _Lists(Action):
    """Read a file of COUNT hosts, half of them in ranges, exclude a quarter, and fold it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = os.path.join(self._folder.name, "hosts")

    def go(self, count: int) -> None:
        half = count // 2
        with open(self._path, "w") as file:
            file.writelines(f"r{n // 40}n{n % 40}.example.org\n" for n in range(half))
            file.writelines(f"web[{n}-{n + 9}]:{_PORT}\n" for n in range(0, half, 10))
        hosts = HostList()
        hosts.add_file(self._path)
        hosts.exclude(",".join(f"WEB{n}" for n in range(0, half, 2)))
        left = list(hosts)
        if len(left) != count - half // 2 or not fold(left):
            raise RuntimeError("wrong hosts")

    def quit(self) -> None:
        self._folder.cleanup()


if __name__ == "__main__":
    serve({"hosts": _Hosts, "lists": _Lists, "silent": _Silent})
