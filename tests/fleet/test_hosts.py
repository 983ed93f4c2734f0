"""Lists of hosts: what patterns, files and DNS stand for, what is refused, and folding back."""

from __future__ import annotations

import collections
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest
from ClusterShell import NodeSet
from hypothesis import given, settings
from hypothesis import strategies as st
from support.generating import steady
from support.nameserver import name_server, resolver

import remctl_toolkit._hosts_patterns as patterns_module
import remctl_toolkit.hosts as hosts_module
from remctl_toolkit.fleet import Host, run_on_hosts
from remctl_toolkit.hosts import HostList, HostListError, MissingExtraError, fold

pytestmark = pytest.mark.once


def names(*patterns: str) -> list[str]:
    return [str(host) for host in HostList(*patterns)]


# -- Patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("web1", ["web1"]),
        ("web1.example.org,DB", ["web1.example.org", "DB"]),
        ("web[1-3]", ["web1", "web2", "web3"]),
        ("web[08-10]", ["web08", "web09", "web10"]),
        ("web[1-2,5],db", ["web1", "web2", "web5", "db"]),
        ("web[1-7/3].example.org", ["web1.example.org", "web4.example.org", "web7.example.org"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("10.0.0.[9-10]", ["10.0.0.9", "10.0.0.10"]),
        ("web1:4444", ["web1:4444"]),
        ("web[1-2]:4444", ["web1:4444", "web2:4444"]),
        ("localhost:[4001-4002]", ["localhost:4001", "localhost:4002"]),
        ("web1,web1:4444", ["web1", "web1:4444"]),
        ("2001:db8::7", ["2001:db8::7"]),
        ("[2001:db8::7]", ["2001:db8::7"]),
        ("[2001:db8::7]:4444", ["[2001:db8::7]:4444"]),
        ("fe80::1%eth0", ["fe80::1%eth0"]),
        ("db[1-2], web1", ["db1", "db2", "web1"]),
    ],
)
def test_pattern_stands_for_hosts_in_its_order(pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("web[1-4],-web3", ["web1", "web2", "web4"]),
        ("-web[2-9],web[1-3],db", ["web1", "db"]),
        ("web[1-2]:4444,-web1", ["web2:4444"]),
        ("web[1-2]:4444,web1:5555,-web1:5555", ["web1:4444", "web2:4444"]),
        ("web[1-4]!web[2-3]", ["web1", "web4"]),
        ("web[1-4]!web[2-3],web2", ["web1", "web4", "web2"]),
        ("web[1-4]&web[3-6]", ["web3", "web4"]),
        ("web[1-4]^web[3-6]", ["web1", "web2", "web5", "web6"]),
        ("-web1,web1", []),
    ],
)
def test_hosts_are_left_out(pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_what_is_excluded_stays_out() -> None:
    hosts = HostList("web[1-3]")
    hosts.exclude("web2,db1")
    hosts.add("db[1-2]")
    assert list(map(str, hosts)) == ["web1", "web3", "db2"]


def test_a_host_has_its_own_port() -> None:
    assert list(HostList("[::1]:4444,web1")) == [Host("::1", 4444), Host("web1")]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "no hosts"),
        ("  ", "no hosts"),
        ("web1,", "a name is missing in 'web1,'"),
        (",web1", "a name is missing"),
        ("web1!", "a name is missing"),
        ("-", "a name is missing"),
        ("web1 web2", "not the name of a host: 'web1 web2'"),
        ("a/b", "not the name of a host"),
        ("a%d", "not the name of a host"),
        ("\x1b[1m", "broken range"),
        ("a:b", "not the name of a host: 'a:b'"),
        ("web1:0", "not a port: 0"),
        ("web1:65536", "not a port: 65536"),
        ("1:2:3", "not a name or IPv6 address: '1:2:3'"),
        ("[foo]", "not a range: '[foo]'"),
        ("web[]", "broken range []"),
        ("web[3-1]", "broken range [3-1]"),
        ("web[1-", "broken range in 'web[1-'"),
        ("web1]", "broken range in 'web1]'"),
        ("web[1]]", "broken range"),
        ("web[-3]", "broken range [-3]"),  # ClusterShell makes web-3 of it
        ("web[a-c]", "broken range [a-c]"),
        ("web[1-9/0]", "broken range [1-9/0]"),
        ("web[1-010]", "broken range"),
        ("web[1-1000000000]", "more than 100,000 hosts"),
        ("a[1-1000]b[1-1000]", "more than 100,000 hosts"),
        ("web1,web1", "host web1 is named twice"),
        ("a,a", "host a is named twice"),
        ("web[1-3],web2", "host web2 is named twice: by web[1-3] and by web2"),
        ("web[1-3,2]", "a host is named twice in web[1-3,2]"),
        # What DNS's own form of names leaves out, or came later than that did.
        *(
            (f"web{odd}1", "characters that cannot be seen")
            for odd in "\xad\u061c\u200b\u2066\u0378"
        ),
        ("web\u202e1", "not the name of a host"),
        ("x" * 256, "host name is too long"),
        ("x" * 1_000_000, "host name is too long"),
        ("web[" * 250_000, "broken range in"),
        (f"{'[1]' * 100}x{'[1]' * 200}", "host name is too long"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(pattern: str, message: str) -> None:
    with pytest.raises(HostListError) as caught:
        HostList(pattern)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1100


def test_a_list_cannot_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns_module, "MAX_TOTAL", 1000)
    path = tmp_path / "hosts"
    named, left_out = ([f"{sign}h{n}n[1-100]" for n in range(20)] for sign in ("", "-"))
    for text in (",".join(named), ",".join(left_out), "\n".join(named), "\n".join(left_out)):
        path.write_text(text)
        with pytest.raises(HostListError, match="more than 1,000 hosts"):
            HostList().add_file(path)
    path.write_text("\n".join(named))
    with pytest.raises(HostListError, match="line 11: more than 1,000 hosts"):
        HostList().exclude_file(path)


def test_a_host_may_not_come_from_two_places() -> None:
    hosts = HostList("web[1-3]")
    with pytest.raises(HostListError, match="host web3 is named twice"):
        hosts.add("web3")


def test_a_list_is_what_a_fleet_takes() -> None:
    outcomes = run_on_hosts(HostList("localhost:1"), ["true"])
    assert [str(outcome.host) for outcome in outcomes] == ["localhost:1"]


# -- Groups ---------------------------------------------------------------------------------------


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[None]:
    """Groups as an administrator configures them for ClusterShell."""
    (tmp_path / "groups.conf").write_text(
        "[Main]\ndefault: test\n\n[test]\n"
        "map: case $GROUP in web) echo 'web[1-3]';; all) echo 'web[1-3],db[1-2]:4444';;"
        " two) echo web3,db9;; broken) exit 1;; esac\n"
        "all: echo 'web[1-3],db9'\nlist: echo web two\n"
    )
    NodeSet.set_std_group_resolver_config(str(tmp_path / "groups.conf"))
    yield
    NodeSet.set_std_group_resolver(None)


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("@web", ["web1", "web2", "web3"]),
        ("@test:web", ["web1", "web2", "web3"]),
        ("@all", ["db1:4444", "db2:4444", "web1", "web2", "web3"]),
        ("@web,-web2", ["web1", "web3"]),
        ("db1,@web", ["db1", "web1", "web2", "web3"]),
        ("@web!web1", ["web2", "web3"]),
        ("web[2-8]&@web", ["web2", "web3"]),
        ("@web,@two", ["web1", "web2", "web3", "db9"]),
        ("web1,@web", ["web1", "web2", "web3"]),
        ("web[1-3],-@two", ["web1", "web2"]),
        ("web*", ["web1", "web2", "web3"]),
        ("@*", ["db9", "web1", "web2", "web3"]),
    ],
)
def test_groups_stand_for_their_members_and_may_overlap(pattern: str, expected: list[str]) -> None:
    assert sorted(names(pattern)) == sorted(expected)
    if pattern != "@all":
        assert names(pattern)[0] == expected[0]


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("@nobody", "unknown or empty group: @nobody"),
        ("@nowhere:web", "unknown source of groups: nowhere in @nowhere:web"),
        ("@broken", "@broken"),
        ("nothing*", "no host of a group matches 'nothing*'"),
        ("@[", "broken range"),
    ],
)
def test_groups_that_are_not_known_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(HostListError) as caught:
        HostList(pattern)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -- Files ----------------------------------------------------------------------------------------


def test_a_file_has_a_pattern_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("# the web servers\nweb[1-3]\n\n  db1:4444  # the database\n-web2\n")
    hosts = HostList()
    hosts.add_file(path)
    assert list(map(str, hosts)) == ["web1", "web3", "db1:4444"]


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("web1\n\nweb[3\n")
    with pytest.raises(HostListError, match=r"hosts.txt, line 3: broken range in 'web\[3'"):
        HostList().add_file(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HostListError, match="cannot read /nonexistent: No such file"):
        HostList().add_file("/nonexistent")
    with pytest.raises(HostListError, match="Is a directory"):
        HostList().add_file(tmp_path)
    path = tmp_path / "binary"
    path.write_bytes(b"web1\n\xff\xfe")
    with pytest.raises(HostListError, match=r"binary, line 2: it is not a text file"):
        HostList().add_file(path)


# -- DNS ------------------------------------------------------------------------------------------

RECORDS = {
    "_remctl._tcp.example.org.": [
        "20 0 4373 last.example.org.",
        "10 5 4444 small.example.org.",
        "10 90 4373 big.example.org.",
    ],
    "_remctl._tcp.none.example.org.": ["0 0 0 ."],
    "_admin._tcp.example.org.": ["0 0 4373 admin.example.org."],
    "_remctl._tcp.hostile.example.org.": ["0 0 4373 x\\;do.example.org."],
    "_remctl._tcp.group.example.org.": ["0 0 4373 \\@x'\\;do\\;'."],
    "_remctl._tcp.zero.example.org.": ["0 0 0 web1.example.org."],
    "_remctl._tcp.xn--bcher-kva.example.": ["0 0 4373 WEB1.example.", "5 0 4373 web1.example."],
}


@pytest.fixture
def dns_records(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with name_server(RECORDS) as port:
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver(port))
        yield


@pytest.mark.usefixtures("dns_records")
def test_srv_records_have_hosts_and_ports_by_priority_and_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = ["big.example.org:4373", "small.example.org:4444", "last.example.org:4373"]
    firsts: collections.Counter[str] = collections.Counter()
    monkeypatch.setattr(hosts_module, "random", random.Random(1))
    for name in ("example.org", "_remctl._tcp.example.org", "_remctl._tcp.example.org."):
        hosts = HostList()
        hosts.add_srv(name)
        found = list(map(str, hosts))
        assert sorted(found) == sorted(expected)
        assert found[2] == "last.example.org:4373"
    for _ in range(400):  # RFC 2782: 90 of 95 times, which chance does not miss by much.
        hosts = HostList()
        hosts.add_srv("example.org")
        firsts[next(iter(hosts)).name] += 1
    assert 360 <= firsts["big.example.org"] <= 395
    assert firsts["big.example.org"] + firsts["small.example.org"] == 400
    hosts = HostList()
    hosts.add_srv("_admin._tcp.example.org")
    assert list(hosts) == [Host("admin.example.org", 4373)]
    hosts = HostList()
    hosts.add_srv("bücher.example")
    assert list(map(str, hosts)) == ["WEB1.example:4373"]


@pytest.mark.usefixtures("dns_records")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.example.org", "_remctl._tcp.none.example.org: there is no such service"),
        ("unknown.example.org", "cannot look up the SRV records of _remctl._tcp.unknown"),
        ("a..b", "cannot look up the SRV records"),
        ("ü..b", "cannot look up the SRV records"),
        ("hostile.example.org", "are wrong: not the name of a host"),
        ("group.example.org", "are wrong: not the name of a host"),
        ("zero.example.org", "are wrong: not a port: 0"),
    ],
)
def test_srv_records_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(HostListError) as caught:
        HostList().add_srv(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -- Folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "folded"),
    [
        ([], ""),
        (["web1"], "web1"),
        ([f"web{number}" for number in range(1, 299)], "web[1-298]"),
        (["web1", "web01", "web3"], None),
        (["a.example.org", "b1.example.org", "b2.example.org"], None),
        ([Host("web1", 4444), Host("web2", 4444), Host("db")], "web[1-2]:4444,db"),
        ([Host("::1"), Host("::2", 4444)], "::1,[::2]:4444"),
        (["10.0.0.1", "10.0.0.2", "10.0.1.1"], None),
        (["rack1n1", "rack1n2", "rack2n1", "rack2n2"], "rack[1-2]n[1-2]"),
        (["rack1n1", "rack1n2", "rack2n2"], "rack1n[1-2],rack2n2"),
        ([f"web{number:02}" for number in range(1, 101)], "web[01-99],web100"),
        ([f"web{number:03}" for number in (98, 99, 100, 101, 7)], "web[007,098-101]"),
        (["web10", "web9", "web8", "web1", "web3"], "web[1,3,8-10]"),
        (["web0", "web00", "web000", "web1", "web01"], "web[0-1],web[00-01],web000"),
        (["1", "2", "3a", "4a"], None),
        ([f"web{'1' * 20}", f"web{'1' * 19}2", f"w{'1' * 200}"], None),
        (["bücher1.example", "bücher2.example"], "bücher[1-2].example"),
        (["WEB1", "web2"], "WEB1,web2"),
    ],
)
def test_hosts_are_folded(hosts: list[Any], folded: str | None) -> None:
    if folded is not None:
        assert fold(hosts) == folded
    if hosts:
        assert sorted(names(fold(hosts))) == sorted(map(str, hosts))


@pytest.mark.parametrize("name", ["web[1,2]", "web[", "@web1", "a!b1", "a%d", "a%s1", "w*1", "b 1"])
def test_names_that_mean_something_else_in_a_pattern_stay_as_they_are(name: str) -> None:
    assert fold([name]) == name
    assert fold([name, "web1", "web2"]) in (f"{name},web[1-2]", f"web[1-2],{name}")


NAMES = st.from_regex(r"[a-c]{1,2}[0-9]{0,3}(-[0-9]{1,2})?(\.[ab]?[0-9]{1,2})?", fullmatch=True)


@pytest.mark.once
@settings(steady, max_examples=50)
@given(
    st.lists(
        st.builds(Host, NAMES, st.sampled_from([None, 4373, 4444])),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_folding_loses_and_invents_nothing(hosts: list[Host]) -> None:
    assert sorted(names(fold(hosts))) == sorted(map(str, hosts))


# -- Without the extra ----------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the extra."""
    for name in ("ClusterShell", "dns", "dns.resolver", "dns.exception"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("bare")
def test_plain_names_need_no_extra() -> None:
    assert names("web1,db1:4444,[::1]:4444,-web1") == ["db1:4444", "[::1]:4444"]
    assert names("web[1-3]") == ["web1", "web2", "web3"]
    assert fold(["web1", "web2", Host("db", 4444)]) == "web[1-2],db:4444"


@pytest.mark.usefixtures("bare")
def test_the_extra_is_named_where_it_is_needed() -> None:
    told = "needs ClusterShell: pip install ClusterShell, or apt install python3-clustershell"
    with pytest.raises(MissingExtraError, match=f"the group @web {told}"):
        HostList("@web")
    with pytest.raises(
        MissingExtraError,
        match=r"needs dnspython: pip install dnspython, or apt install python3-dnspython",
    ):
        HostList().add_srv("example.org")
