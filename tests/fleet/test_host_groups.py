"""Groups of hosts: their text is data, whatever it says, and no shell gets to see it unchecked."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ClusterShell import NodeSet, NodeUtils
from hypothesis import given, settings
from hypothesis import strategies as st
from support.generating import steady
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.cli.completion import host_names
from remctl_toolkit.hosts import HostList, HostListError

pytestmark = pytest.mark.once

# The names of groups, each of which a shell would take for a command.
HOSTILE = (
    "x';{};'",
    'x";{};"',
    "x;{}",
    "x|{}",
    "x&&{}",
    "$({})",
    "`{}`",
    "x\n{}",
    "x>{}",
    "x/e;{};",
)


class Answers(NodeUtils.GroupSource):
    """Groups in a dictionary; keeps the names that it is asked for, which a shell would see."""

    def __init__(self, name: str, groups: dict[str, str], everything: str | None = None) -> None:
        super().__init__(name, groups, everything)
        self.asked: list[str] = []

    def resolv_map(self, group: str) -> str:
        self.asked.append(group)
        found: str = super().resolv_map(group)
        return found


@pytest.fixture
def resolver() -> Iterator[Any]:
    """Groups that a test configures, the first source being the default."""

    def configure(*sources: NodeUtils.GroupSource) -> None:
        found = NodeUtils.GroupResolver(sources[0], NodeSet.ILLEGAL_GROUP_CHARS)
        for source in sources[1:]:
            found.add_source(source)
        NodeSet.set_std_group_resolver(found)

    yield configure
    NodeSet.set_std_group_resolver(None)


def names(pattern: str) -> list[str]:
    return [str(host) for host in HostList(pattern)]


# -- Hostile names --------------------------------------------------------------------------------


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that every hostile name would make, with upcalls like those that are installed."""
    path = tmp_path / "marker"
    (tmp_path / "groups").write_text("web: web[1-3]\n")
    (tmp_path / "groups.conf").write_text(
        "[Main]\ndefault: local\n\n[local]\n"
        "map: sed -n 's/^$GROUP:\\(.*\\)/\\1/p' $CFGDIR/groups\n"
        "list: cut -d: -f1 $CFGDIR/groups\n"
        "reverse: grep -w $NODE $CFGDIR/groups\n\n"
        "[bare]\nmap: echo $GROUP >/dev/null; echo web1\nall: echo web1 $SOURCE\n"
    )
    NodeSet.set_std_group_resolver_config(str(tmp_path / "groups.conf"))
    yield path
    NodeSet.set_std_group_resolver(None)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "pattern",
    [
        "@{}",
        "web1 @{}",
        "web1,@{}",
        "web1,-@{}",
        "web1!@{}",
        "web1&@{}",
        "@bare:{}",
        "@{}:web",
        "@{}:*",
        "@x[1-2]{}",
        "@{}[1-2]",
        "@[1-2]{}",
        "@@{}",
        "@@bare:{}",
        "web*{}",
        "{}*",
    ],
)
def test_a_hostile_name_runs_nothing(pattern: str, name: str, marker: Path, tmp_path: Path) -> None:
    text = pattern.format(name.format(f"touch {marker}"))
    file = tmp_path / "hosts.txt"
    file.write_text(text)
    actions: tuple[Any, ...] = (
        lambda: list(HostList(text)),
        lambda: HostList("web1").exclude(text),
        lambda: HostList().add_file(file),
        lambda: HostList().exclude_file(file),
    )
    for action in actions:
        with pytest.raises(HostListError) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name])
def test_a_hostile_name_within_a_group_runs_nothing(
    name: str, marker: Path, tmp_path: Path
) -> None:
    hostile = name.format(f"touch${{IFS}}{marker}")
    for line in (f"web: @{hostile}", f"web: web1,@bare:{hostile}", f"web: @{hostile}:x"):
        (tmp_path / "groups").write_text(f"{line}\n")
        with pytest.raises(HostListError, match="group @web: "):
            HostList("@web")
        for pattern in ("@*", "web*", "@local:*"):
            with pytest.raises(HostListError):
                HostList(pattern)
    assert not marker.exists()


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name])
@pytest.mark.parametrize("pattern", ["@*", "@local:*", "web*", "-@*"])
def test_a_hostile_name_that_a_source_lists_runs_nothing(
    pattern: str, name: str, marker: Path, tmp_path: Path
) -> None:
    hostile = name.format(f"touch${{IFS}}{marker}")
    (tmp_path / "groups").write_text(f"{hostile}: web9\nweb: web1\n")
    with pytest.raises(HostListError, match=r"not the name of a group|broken range|missing"):
        HostList(pattern)
    assert not marker.exists()


@pytest.mark.parametrize("option", ["--hosts-file", "--exclude-file", "-x", "hosts"])
def test_remctl_fleet_runs_nothing_that_a_name_says(option: str, tmp_path: Path) -> None:
    """With the configuration that ClusterShell installs."""
    marker = tmp_path / "marker"
    file = tmp_path / "hosts.txt"
    file.write_text(f"@x';touch {marker};'\n")
    arguments = {
        "--hosts-file": ["-f", str(file)],
        "--exclude-file": ["--exclude-file", str(file), "web1"],
        "-x": ["-x", file.read_text(), "web1"],
        "hosts": [f"web1,{file.read_text()}"],
    }[option]
    done = subprocess.run(
        [sys.executable, "-m", "remctl_toolkit.cli.fleet", "--dry-run", *arguments, "--", "do"],
        env=python_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "not the name of a group" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("place", [".config", ".local/etc"])
def test_a_folder_that_is_called_like_the_home_is_none(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ClusterShell looks there where the user has neither HOME nor an entry in passwd."""
    marker = tmp_path / "marker"
    folder = tmp_path / "~" / place / "clustershell"
    folder.mkdir(parents=True)
    (folder / "groups.conf").write_text(
        f"[Main]\ndefault: evil\n[evil]\nmap: touch {marker}; echo web1\n"
    )
    monkeypatch.chdir(tmp_path)
    files = [f"~/{place}/clustershell/groups.conf", str(tmp_path / "none.conf")]
    NodeSet.set_std_group_resolver(NodeUtils.GroupResolverConfig(files))
    try:
        with pytest.raises(HostListError, match="no groups configured"):
            HostList("@web")
        assert host_names("@evil:") == []
    finally:
        NodeSet.set_std_group_resolver(None)
    assert not marker.exists()


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "CLUSTERSHELL_CFGDIR"])
@pytest.mark.parametrize("value", ["", "."])
def test_the_working_directory_has_no_groups_unless_named(
    variable: str, value: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "clustershell").mkdir()
    for folder in (tmp_path, tmp_path / "clustershell"):
        (folder / "groups.conf").write_text(
            f"[Main]\ndefault: evil\n[evil]\nmap: touch {marker}; echo web1\n"
        )
    subprocess.run(
        [sys.executable, "-m", "remctl_toolkit.cli.fleet", "--dry-run", "@evil:web", "do"],
        env=python_environ(**{variable: value}),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert marker.exists() is ((variable, value) == ("CLUSTERSHELL_CFGDIR", "."))


SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*")
WORDS = ["@", "web", "other:", "x", "*", "?", "[1-2]", "[", "]", ",", "!", "&", "^", "-", " ", "\n"]
WORDS += ["'", '"', ";", "$", "`", "/", "\\", "%s", "\0", "é", "٣", "\ufeff"]


@pytest.mark.once
@settings(steady, max_examples=300)
@given(pattern=st.lists(st.sampled_from(WORDS)).map("".join), text=st.lists(st.sampled_from(WORDS)))
def test_only_safe_names_are_ever_looked_up(pattern: str, text: list[str]) -> None:
    nested = "".join(text)
    groups = {"web": nested, "x": "web1,@x1", "x1": "web1", nested: "web2"}
    sources = Answers("test", groups), Answers("other", groups, nested)
    found = NodeUtils.GroupResolver(sources[0], set())
    found.add_source(sources[1])
    NodeSet.set_std_group_resolver(found)
    with contextlib.suppress(HostListError):
        HostList(pattern)
    NodeSet.set_std_group_resolver(None)
    for source in sources:
        assert all(SAFE.fullmatch(name) for name in source.asked)


# -- What groups stand for ------------------------------------------------------------------------


def test_groups_within_groups_belong_to_the_same_source(resolver: Any) -> None:
    """As in the example that comes with ClusterShell."""
    roles = {"adm": "n0", "io": "@racks:rack2,n2", "compute": "@racks:rack[3-4]"}
    racks = {
        "rack1": "n[0,2]",
        "rack2": "n[4-5]",
        "rack3": "n[32-40]",
        "rack4": "n[38-40]",
        "old": "@rack[1,3]",
    }
    cpu = {"ivy": "n[32-35]", "hsw": "@roles:compute!@ivy", "none": "@roles:io^@racks:rack2"}
    resolver(Answers("roles", {**roles, "all": "@io,@compute"}), Answers("racks", racks))
    NodeSet.std_group_resolver().add_source(Answers("cpu", cpu, "@hsw,@ivy"))
    assert names("@io") == ["n2", "n4", "n5"]
    assert names("@racks:old") == ["n0", "n2", *(f"n{number}" for number in range(32, 41))]
    assert names("@cpu:hsw") == [f"n{number}" for number in range(36, 41)]
    assert names("@cpu:none") == ["n2"]
    assert names("@all") == ["n2", "n4", "n5", *(f"n{number}" for number in range(32, 41))]
    assert names("@cpu:*") == [f"n{number}" for number in range(32, 41)]
    assert names("@*")[:4] == ["n0", "n2", "n4", "n5"]
    assert names("n*5") == ["n5", "n35"]
    assert names("N?,-n[0-4]") == ["n5"]


def test_a_wildcard_matches_however_names_are_spelled(resolver: Any) -> None:
    resolver(Answers("test", {"web": "WEB1,web2.example.org:4444,2001:DB8::7,db1"}))
    assert names("web*") == ["WEB1", "web2.example.org:4444"]
    assert names("web[1-2]*") == ["WEB1", "web2.example.org:4444"]
    assert names("*.example.org:*") == ["web2.example.org:4444"]
    assert names("2001:db8::*") == ["2001:DB8::7"]


def test_groups_share_hosts_and_groups(resolver: Any) -> None:
    groups = {"a": "@b,@b,web1,WEB1.", "b": "@c,@c", "c": "web1,web2"}
    source = Answers("test", groups)
    resolver(source)
    assert names("@a,@b,@c") == ["web1", "web2"]
    assert sorted(source.asked) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"web": "@web"}, "group @web: @web contains itself"),
        ({"web": "@a", "a": "@b", "b": "@test:web,@a"}, "contains itself"),
        ({"web": "@*"}, "contains itself"),
        ({"web": "w*"}, "contains itself"),
        ({"web": "a;b"}, "group @web: not the name of a host: 'a;b'"),
        ({"web": "web[1-"}, "group @web: broken range"),
        ({"web": "-web1"}, "group @web: not the name of a host: '-web1'"),
        ({"web": "web1,,web2"}, "group @web: a name is missing"),
        ({"web": "web[1-100001]"}, "more than 100,000 hosts"),
        ({"web": "a[1-100000],b[1-100000]"}, "more than 100,000 hosts"),
        ({"web": "@no:where"}, "group @web: unknown source of groups: no in @no:where"),
        ({"web": "a%d[1-2]"}, "group @web: not the name of a host"),
        ({"web": 5}, "ClusterShell cannot look up @web"),
        ({"web": [1, 2]}, "ClusterShell cannot look up @web"),
        ({"web": "@g0", **{f"g{n}": f"@g{n + 1}" for n in range(2000)}}, "more than 32 deep"),
    ],
)
def test_groups_that_are_wrong(groups: dict[str, Any], message: str, resolver: Any) -> None:
    resolver(Answers("test", groups))
    with pytest.raises(HostListError, match=re.escape(message)) as caught:
        HostList("@web")
    assert "\n" not in str(caught.value)


def test_a_group_is_not_taken_for_another(marker: Path, tmp_path: Path) -> None:
    """In the configuration that ClusterShell installs, a name is a pattern of sed's."""
    (tmp_path / "groups").write_text("rack.1: web1\nrackA1: web2\nrack.2: web3\n")
    assert names("@rack.2") == ["web3"]
    assert names("@rackA1") == ["web2"]
    for pattern in ("@rack.1", "db1,-@rack.1", "@local:r..kA1"):
        with pytest.raises(HostListError, match=r"group @r.* could also be @rackA1"):
            HostList(pattern)


def test_groups_cannot_take_all_memory(resolver: Any) -> None:
    groups = {f"g{number}": "@big" for number in range(30)}
    groups |= {"big": "n[1-100000]", "all": ",".join(f"@g{number}" for number in range(30))}
    resolver(Answers("test", groups))
    with pytest.raises(HostListError, match="too many hosts"):
        HostList("@all")


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("", "ClusterShell has no groups configured: @web"),
        ("[test]\nmap echo web1\n", "ClusterShell cannot look up @web"),
        ("no section\n", "ClusterShell cannot look up @web"),
        ("[test]\nlist: echo web\n", "ClusterShell cannot look up @web"),
        ("[Main]\ndefault: gone\n[test]\nmap: echo web1\n", "ClusterShell cannot look up @web"),
        ("[test]\nmap: exit 3\n", "ClusterShell cannot look up @web: exit 3"),
    ],
)
def test_a_configuration_that_is_wrong(configuration: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.conf"
    path.write_text(configuration)
    NodeSet.set_std_group_resolver_config(str(path))
    try:
        with pytest.raises(HostListError, match=message):
            HostList("@web")
    finally:
        NodeSet.set_std_group_resolver(None)


def test_a_file_of_groups_that_is_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text(f"test:\n  web: {'[' * 5000}\n")
    (tmp_path / "groups.conf").write_text(f"[Main]\nautodir: {tmp_path}\n")
    NodeSet.set_std_group_resolver_config(str(tmp_path / "groups.conf"))
    try:
        with pytest.raises(HostListError, match="ClusterShell cannot look up @web"):
            HostList("@web")
    finally:
        NodeSet.set_std_group_resolver(None)
