"""Hosts to leave out, and files of hosts: typos are found, and errors say where they are."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ClusterShell import NodeSet, NodeUtils
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.fleet import run_on_hosts
from remctl_toolkit.hosts import HostList, HostListError, MissingExtraError, fold

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def groups() -> Iterator[None]:
    """A group of hosts that are down."""
    source = NodeUtils.GroupSource("test", {"down": "web[2-9],old1"}, "web[1-9],old1")
    NodeSet.set_std_group_resolver(NodeUtils.GroupResolver(source))
    yield
    NodeSet.set_std_group_resolver(None)


def names(hosts: HostList) -> list[str]:
    return [str(host) for host in hosts]


# -- Exclusions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("web[1-3],-WEB9", "-WEB9 leaves out no host: WEB9 is not in the list"),
        ("-web9,web[1-3]", "-web9 leaves out no host: web9 is not in the list"),
        ("web[1-3],-web[7-9]", "-web[7-9] leaves out no host: web[7-9] is not in the list"),
        ("web1:4444,-web1:4445", "-web1:4445 leaves out no host"),
        ("web1:4444,-web1:4373", "-web1:4373 leaves out no host"),
        ("web1,-web1.example.org", "-web1.example.org leaves out no host"),
        ("-web1", "-web1 leaves out no host"),
        ("web[1-3]!web9", "!web9 leaves out no host: web9 is not in the list"),
        ("web1,-web1,-web2", "-web2 leaves out no host"),
    ],
)
def test_a_typo_in_an_exclusion_is_an_error(pattern: str, message: str) -> None:
    with pytest.raises(HostListError, match=re.escape(message)):
        list(HostList(pattern))


@pytest.mark.parametrize(
    ("excluded", "message"),
    [
        ("web9", "exclude web9 leaves out no host: web9 is not in the list"),
        ("web2,web[7-9]", "exclude web[7-9] leaves out no host"),
        ("web2:4444", "exclude web2:4444 leaves out no host"),
        ("-web1", "-web1 leaves out no host"),
        ("web[1-3]!web9", "!web9 leaves out no host"),
        ("web1&web2", "exclude web1&web2 leaves out no host"),
        ("web1!web1", "exclude web1!web1 leaves out no host"),
        ("web1,-web1", "exclude web1,-web1 leaves out no host"),
        ("web8^web9", "exclude web8^web9 leaves out no host"),
    ],
)
def test_a_typo_in_what_is_excluded_is_an_error(excluded: str, message: str) -> None:
    def left() -> HostList:
        hosts = HostList("web[1-3]")
        hosts.exclude(excluded)
        return hosts

    with pytest.raises(HostListError, match=re.escape(message)):
        list(left())
    with pytest.raises(HostListError, match=re.escape(message)):
        run_on_hosts(left(), ["do"])


@pytest.mark.parametrize(
    ("excluded", "expected"),
    [
        ("@down", ["web1"]),
        ("web[2-99]", ["web1"]),
        ("o*,@down", ["web1"]),
        ("old1&@down,web3", ["web1", "web2"]),
        ("web[1-9]&@down", ["web1"]),
        ("web[1-3],-web2", ["web2"]),
        ("web2,-@down", ["web1", "web2", "web3"]),
        ("web1&@down", ["web1", "web2", "web3"]),
    ],
)
def test_a_group_may_have_hosts_that_are_not_in_the_list(
    excluded: str, expected: list[str]
) -> None:
    hosts = HostList("web[1-3]")
    hosts.exclude(excluded)
    assert names(hosts) == expected


def test_what_is_excluded_may_be_added_later(tmp_path: Path) -> None:
    hosts = HostList("web1,-web2")
    hosts.exclude("web3")
    with pytest.raises(HostListError, match="-web2 leaves out no host"):
        list(hosts)
    hosts.add("web[2-4]")
    assert names(hosts) == ["web1", "web4"]


def test_a_file_of_hosts_to_leave_out_may_have_others(tmp_path: Path) -> None:
    path = tmp_path / "down.txt"
    path.write_text("# these are down\nWEB2\nweb2\nold[1-9]\n@down,-web3\n")
    hosts = HostList("web[1-3]")
    hosts.exclude_file(path)
    assert names(hosts) == ["web1", "web3"]
    path.write_text("web1\nweb[\n")
    with pytest.raises(HostListError, match=r"down\.txt, line 2: broken range"):
        hosts.exclude_file(path)


# -- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"web1\nb\xc3\xbccher2\n",
        b"\xef\xbb\xbfweb1\r\nb\xc3\xbccher2\r\n",
        b"\xef\xbb\xbf# one\r\n\r\n  web1 \t\r\nb\xc3\xbccher2",
        b"web1 # caf\xe9\nb\xc3\xbccher2 # \xff\xfe\x00\n#\x81\x40\n",
        b"\xef\xbb\xbfweb1\n\xef\xbb\xbfb\xc3\xbccher2\n",  # two files, one after the other
        b"web1\rb\xc3\xbccher2\r",
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_a_file_is_read_the_same_everywhere(octets: bytes, locale: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_bytes(octets)
    code = (
        "import sys; from remctl_toolkit.hosts import HostList\n"
        "hosts = HostList(); hosts.add_file(sys.argv[1])\n"
        "print(ascii([host.name for host in hosts]))"
    )
    for arguments, typed in (([str(path)], b""), (["-"], octets)):
        done = subprocess.run(
            [sys.executable, "-X", "utf8=0", "-c", code, *arguments],
            env=python_environ(LC_ALL=locale, PYTHONCOERCECLOCALE="0"),
            input=typed,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert done.stdout.decode() == "['web1', 'b\\xfccher2']\n"


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"web1\nweb[3\n", "hosts.txt, line 2: broken range"),
        (b"web1\r\n\r\nb\xfccher # x\r\n", "hosts.txt, line 3: it is not a text file in UTF-8"),
        (b"\xff\xfew\x00e\x00b\x00\n\x00", "hosts.txt, line 1: it is not a text file in UTF-8"),
        (b"web1\nweb1\n", "hosts.txt, line 2: host web1 is named twice"),
        (b"web1\n@nobody\n", "hosts.txt, line 2: unknown or empty group: @nobody"),
        (b"web\x001\n", "hosts.txt, line 1: not the name of a host"),
        (b"b\xc3\xbc..example\n", "hosts.txt, line 1: not the name of a host"),
        ("web\u00a01\n".encode(), "hosts.txt, line 1: not the name of a host"),
        ("web\uff201;\n".encode(), "hosts.txt, line 1: not the name of a host"),
        (b"web1 web2\n", "hosts.txt, line 1: not the name of a host: 'web1 web2'"),
        (b"a..b\n", "hosts.txt, line 1: not the name of a host"),
    ],
)
def test_errors_name_file_and_line(octets: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_bytes(octets)
    for read in (HostList().add_file, HostList().exclude_file):
        if b"web1\nweb1" in octets and read.__name__ == "exclude_file":
            continue
        with pytest.raises(HostListError, match=re.escape(message)) as caught:
            read(path)
        assert str(caught.value).startswith(str(tmp_path))
        assert str(caught.value).isprintable()


def test_an_exclusion_in_a_file_that_leaves_out_none_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("web[1-3]\n-web9  # gone\n")
    hosts = HostList()
    hosts.add_file(path)
    with pytest.raises(HostListError, match=r"hosts\.txt, line 2: -web9 leaves out no host"):
        list(hosts)


def test_a_missing_package_is_named_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ClusterShell", None)
    path = tmp_path / "hosts.txt"
    path.write_text("web1\n@web\n")
    with pytest.raises(MissingExtraError, match=r"hosts\.txt, line 2: the group @web needs") as e:
        HostList().add_file(path)
    copied = pickle.loads(pickle.dumps(e.value))
    assert (str(copied), copied.package) == (str(e.value), "ClusterShell")


def test_what_is_no_file() -> None:
    for path in ("/dev/zero", "/nonexistent", "no\0file", os.fsdecode(b"/\xff")):
        with pytest.raises(HostListError, match=r"^cannot read "):
            HostList().add_file(path)


# -- Size -----------------------------------------------------------------------------------------


def test_a_long_list_is_not_slow() -> None:
    """Each of these took minutes if it took quadratic time."""
    count = 20_000
    listed = [f"{number:x}.example.org" for number in range(count)]
    text = ",".join(listed)
    hosts = HostList(text)
    hosts.exclude(",".join(listed[1:]))
    assert names(hosts) == [listed[0]]
    assert names(HostList(f"{text},{','.join(f'-{name}' for name in listed[1:])}")) == listed[:1]
    assert names(HostList(f"{text}!{'!'.join(listed[1:])}")) == listed[:1]
    assert names(HostList("^".join([*listed, *listed[1:]]))) == listed[:1]
    ports = f"localhost:[1-{count}]"
    assert names(HostList(f"{ports},-localhost:[2-{count}]")) == ["localhost:1"]
    assert names(HostList(f"{ports}!localhost:[2-{count}]")) == ["localhost:1"]
    assert len(fold(listed).split(",")) <= count
    assert fold(f"web{number}" for number in range(count)) == f"web[0-{count - 1}]"
    with pytest.raises(HostListError, match="broken range"):
        HostList("[" * count)
    with pytest.raises(HostListError):
        HostList("[a" * count)
