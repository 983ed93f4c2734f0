"""The first host that answers, for one connection."""

from __future__ import annotations

import os
import socket

import dns.resolver
import pytest
from support.farm import Farm
from support.nameserver import name_server, resolver

import remctl
from remctl_toolkit.fleet import FleetError, connect_to_any
from remctl_toolkit.hosts import HostList


def peer(connection: remctl.Remctl) -> tuple[str, int]:
    """The address and port that a connection leads to."""
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        found: tuple[str, int] = copy.getpeername()
        return found


def test_the_first_host_that_answers_is_connected_to(farm: Farm) -> None:
    dead, good = farm.dead(2), farm.good(2)
    with connect_to_any([*dead, *good], timeout=10) as connection:
        assert peer(connection) == (good[0].name, good[0].port)
        assert connection.run(["test", "echo", "hello"]).stdout == b"hello\n"


def test_a_silent_host_is_passed_over_after_the_timeout(farm: Farm) -> None:
    (silent,), (good,) = farm.silent(1), farm.good(1)
    with connect_to_any([silent, good], connect_timeout=0.2) as connection:
        assert peer(connection) == (good.name, good.port)


def test_all_reasons_are_told_where_none_answers(farm: Farm) -> None:
    dead = farm.dead(2)
    with pytest.raises(FleetError, match="none of 2 hosts answered") as caught:
        connect_to_any(dead)
    assert [type(error) for error in caught.value.exceptions] == [remctl.RemctlConnectError] * 2
    notes = [error.__notes__[-1] for error in caught.value.exceptions]
    assert notes == [f"host: {host}" for host in dead]


def test_the_settings_are_those_of_all_hosts(farm: Farm) -> None:
    (host,) = farm.good(1)
    with connect_to_any([host.name], port=host.port, principal=farm.principal) as connection:
        assert connection.run(["test", "status", "3"]).status == 3
    for wrong in ([], [host, host], "web1", [1]):
        with pytest.raises((TypeError, ValueError)):
            connect_to_any(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid timeout"):
        connect_to_any([host], timeout=-1)


def test_srv_records_say_who_is_first(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    (dead,), (first, last) = farm.dead(1), farm.good(2)
    records = {
        "_remctl._tcp.example.org.": [
            f"30 0 {last.port} last.example.org.",
            f"10 0 {dead.port} {dead.name}.",
            f"20 5 {first.port} {first.name}.",
        ]
    }
    with name_server(records) as port:
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver(port))
        hosts = HostList()
        hosts.add_srv("example.org")
    with connect_to_any(hosts, principal=farm.principal) as connection:
        assert peer(connection) == (first.name, first.port)
