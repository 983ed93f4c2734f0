"""One host has one identity, however its name is spelled; what was written is shown."""

from __future__ import annotations

import copy
import pickle
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import remctl
from remctl_toolkit.fleet import Fleet, Host, run_on_hosts
from remctl_toolkit.hosts import HostList, HostListError, canonical_name
from remctl_toolkit.machine import Group
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

# Spellings of one name, one of them in fullwidth letters.
SAME = (
    ("web2", "WEB2", "Web2.", "\uff57\uff45\uff42\uff12"),
    ("web1.example.org", "web1.example.org.", "WEB1.Example.ORG."),
    ("bücher.example", "BÜCHER.example.", "bu\u0308cher.example", "XN--bcher-kva.Example"),
    (
        "2001:db8::1",
        "2001:DB8:0::1",
        "2001:0db8:0000:0000:0000:0000:0000:0001",
        "2001:db8::0.0.0.1",
    ),
    ("192.0.2.7", "::ffff:192.0.2.7", "::FFFF:c000:207", "0:0:0:0:0:ffff:192.0.2.7"),
    ("127.0.0.1", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.01"),
    ("fe80::1%eth0", "FE80:0::1%eth0"),
)
DIFFERENT = (
    ("web2", "web02"),
    ("web2", "web2.example.org"),
    ("bucher.example", "bücher.example"),
    ("2001:db8::1", "2001:db8::10"),
    ("192.0.2.7", "::192.0.2.7"),
    ("fe80::1%eth0", "fe80::1%eth1"),
    ("fe80::1%eth0", "fe80::1%ETH0"),
    ("fe80::1", "fe80::1%eth0"),
    ("face", "0xface"),
)
PAIRS = [(names[0], other) for names in SAME for other in names[1:]]


def written(name: str, port: int | None = None) -> str:
    return str(Host(name, port))


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_hosts_are_equal_however_they_are_spelled(name: str, other: str) -> None:
    for host, same in (
        (Host(name), Host(other)),
        (Host(name), Host(other, 4373)),
        (Host(name, 4444), Host(other, 4444)),
        (Host(name, 4444, "p"), Host(other, 4444, "p")),
    ):
        assert host == same
        assert hash(host) == hash(same)
        assert not host < same
        assert not same < host
        assert same.name == other
    assert canonical_name(name) == canonical_name(other)


@pytest.mark.parametrize(("name", "other"), DIFFERENT)
def test_hosts_that_are_different(name: str, other: str) -> None:
    assert Host(name) != Host(other)
    assert (Host(name) < Host(other)) is not (Host(other) < Host(name))


def test_ports_and_principals_make_hosts_different() -> None:
    assert Host("web1", 4444) != Host("web1")
    assert Host("web1", principal="host/web1") != Host("web1")
    assert Host("web1") != "web1"


@pytest.mark.parametrize("name", ["web\x1b[2J", "web\u2066", "web1\nweb2", "\x9bweb1", "w" * 256])
def test_a_name_that_cannot_be_shown_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="host name") as caught:
        Host(name)
    assert str(caught.value).isprintable()


def test_hosts_can_be_copied() -> None:
    host = Host("WEB1.", 4444, "host/web1")
    copies: tuple[Host, ...] = (pickle.loads(pickle.dumps(host)), copy.copy(host), replace(host))
    for each in copies:
        assert (each.name, each.port, each.principal) == ("WEB1.", 4444, "host/web1")
        assert each == host
    assert repr(host) == "Host(name='WEB1.', port=4444, principal='host/web1')"


# -- Where hosts are compared ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_a_list_has_a_host_once(name: str, other: str) -> None:
    for second in (written(other), written(other, 4373)):
        with pytest.raises(HostListError) as caught:
            HostList(f"{name},{second}")
        assert str(caught.value) == f"host {second} is named twice: by {name} and by {second}"
    assert [host.name for host in HostList(f"{name},{written(other, 4444)}")] == [name, other]


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_a_host_is_left_out_however_it_is_spelled(name: str, other: str) -> None:
    for pattern in (
        f"db1,{name},-{other}",
        f"db1,{written(name, 4373)},-{other}",
        f"db1,{name},-{written(other, 4373)}",
        f"db1,{written(name, 4444)},-{other}",
        f"db1,{written(name, 4444)},-{written(other, 4444)}",
        f"db1,{name}!{other}",
        f"db1,{name}^{other}",
        f"{name},db1&db1:4373",
    ):
        (left,) = HostList(pattern)
        assert left.name == "db1", pattern
    hosts = HostList("db1", name)
    hosts.exclude(other)
    assert list(hosts) == [Host("db1")]
    assert list(HostList(f"db1,{name}&{other}")) == [Host(name)]


def test_a_range_is_compared_by_its_names() -> None:
    assert list(map(str, HostList("web[1-3],-WEB2"))) == ["web1", "web3"]
    assert list(map(str, HostList("web[1-3],-WEB[2-9]."))) == ["web1"]
    assert list(map(str, HostList("bücher[1-2].example,-BÜCHER2.example"))) == ["bücher1.example"]
    with pytest.raises(HostListError, match=r"a host is named twice in 10\.0\.0\.\[1,01\]"):
        HostList("10.0.0.[1,01]")


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_a_fleet_has_a_host_once(name: str, other: str) -> None:
    for hosts in ([name, other], [name, Host(other, 4373)], [Host(name, 4444), Host(other, 4444)]):
        with pytest.raises(ValueError, match="is named twice"):
            Fleet(hosts)
        with pytest.raises(ValueError, match="is named twice"):
            run_on_hosts(hosts, ["do"])
    with pytest.raises(ValueError, match="is named twice"):
        Fleet([name, Host(other, 4444)], port=4444)
    assert len(Fleet([name, Host(other, 4444)]).hosts) == 2
    assert len(Fleet([name, Host(other, principal="host/x")]).hosts) == 2


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_a_group_has_a_machine_once(name: str, other: str) -> None:
    def factory(host: str) -> Any:
        raise AssertionError(f"connected to {host}")

    with pytest.raises(ValueError, match=f"host {other} is in the group twice"):
        Group([name, other], factory=factory)
    group = Group([name, "db1"], factory=factory)
    assert other in group
    assert "" not in group
    assert 5 not in group
    assert (group | other).hosts == [name, "db1"]
    assert (other | group).hosts == [name, "db1"]
    assert (group & [other]).hosts == [name]
    assert (group - other).hosts == ["db1"]
    assert (group ^ [other, "db2"]).hosts == ["db1", "db2"]
    assert ([other, "db2"] - group).hosts == ["db2"]


def test_what_was_written_is_connected_to_and_shown(remctl_server: RemctldServer) -> None:
    for name in ("LOCALHOST", "127.1", "::ffff:127.0.0.1"):
        hosts = [Host(name, remctl_server.port)]
        (outcome,) = run_on_hosts(hosts, ["test", "echo", "x"], principal=remctl_server.principal)
        assert outcome.check().stdout
        assert outcome.host.name == name


# -- Scopes ---------------------------------------------------------------------------------------


@pytest.fixture
def link_local() -> str:
    """An address of this host with the network interface that it is for."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, _, _, interface = line.split()
        if digits.startswith("fe80"):
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}%{interface}"
    pytest.skip("no network interface has a link-local address")


@pytest.mark.usefixtures("remctl_server")
def test_a_link_local_address_is_connected_to_and_from(link_local: str) -> None:
    (address,) = socket.getaddrinfo(link_local, 0, type=socket.SOCK_STREAM)
    with socket.create_server(address[4], family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        (host,) = HostList(f"[{link_local}]:{port}")
        assert host == Host(link_local, port)
        assert list(HostList(link_local)) == [Host(link_local)]
        # Nobody has the key of this host, so that it ends there.
        (outcome,) = run_on_hosts([host], ["do"], source_ip=link_local)
        assert isinstance(outcome.error, remctl.RemctlAuthenticationError)
        with listener.accept()[0] as peer:
            assert peer.getpeername()[0] in (link_local, link_local.partition("%")[0])


def test_a_scope_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="an unknown scope: 'fe80::1%nowhere0'"):
        remctl.Remctl(source_ip="fe80::1%nowhere0")


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%",
        "[fe80::1%]:4373",
        "fe80::1%eth0%eth1",
        "fe80::1%et h0",
        "fe80::1%$(do)",
        "web1%eth0",
        "127.0.0.1%lo",
    ],
)
def test_what_cannot_be_a_scope(text: str) -> None:
    with pytest.raises(HostListError, match=r"not (a name|a range|the name)"):
        HostList(text)
