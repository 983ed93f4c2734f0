"""Facts of a machine, compared with the kernel of this one, which is also the remote host."""

from __future__ import annotations

import ipaddress
import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from machine.call_pipes import pythons
from support.waiting import LIMIT

from remctl_toolkit.machine import Connection, MachineError, facts, helpers
from remctl_toolkit.machine.facts import far_facts

pytestmark = pytest.mark.once

FAR = vars(far_facts)


@pytest.fixture(scope="module")
def found(connection: Connection) -> dict[str, Any]:
    return facts.gather(connection)


def test_all_facts_are_there(found: dict[str, Any]) -> None:
    assert set(found) == {*facts.NAMES, "reasons"}
    assert {name for name in facts.NAMES if found[name] is None} == set(found["reasons"])


def test_addresses(found: dict[str, Any]) -> None:
    loopback = [each for each in found["addresses"] if each["address"] == "127.0.0.1"]
    name = loopback[0]["interface"]
    assert loopback == [
        {
            "interface": name,
            "family": "inet",
            "address": "127.0.0.1",
            "prefix": 8,
            "scope": "host",
        }
    ]
    interfaces = {name for _, name in socket.if_nameindex()}
    for each in found["addresses"]:
        assert each["interface"] in interfaces
        ipaddress.ip_interface(f"{each['address']}/{each['prefix']}")
        with socket.socket(getattr(socket, f"AF_{each['family'].upper()}")) as probe:
            if each["scope"] != "link":
                probe.bind((each["address"], 0))  # It is one of this machine's.


def test_routes(found: dict[str, Any]) -> None:
    defaults = [each for each in found["routes"] if each["destination"] == "default"]
    lines = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    expected = {line[0] for line in lines if line[1] == line[7] == "00000000"}
    assert {each["interface"] for each in defaults if each["family"] == "inet"} == expected


def test_system(found: dict[str, Any]) -> None:
    system = found["system"]
    uname = os.uname()
    assert (system["hostname"], system["release"]) == (uname.nodename, uname.release)
    assert (system["kernel"], system["machine"]) == (uname.sysname, uname.machine)
    assert system["cpus"] == os.cpu_count()
    assert abs(system["uptime"] - float(Path("/proc/uptime").read_text().split()[0])) < 60
    release = Path("/etc/os-release").read_text()
    assert f"ID={system['distribution']['id']}\n" in release
    assert '"' not in system["distribution"]["name"]
    (boot,) = (line for line in Path("/proc/stat").read_text().splitlines() if "btime" in line)
    assert abs(system["boot_time"] - int(boot.split()[1])) < 60


def test_disks(found: dict[str, Any]) -> None:
    disks = {disk["mountpoint"]: disk for disk in found["disks"]}
    root = shutil.disk_usage("/")
    assert disks["/"]["size"] == root.total
    assert abs(disks["/"]["available"] - root.free) < root.total / 10
    assert not {"proc", "sysfs", "cgroup2"} & {disk["type"] for disk in found["disks"]}
    assert FAR["plain"](r"/a\040b\134c") == r"/a b\c"


def test_disks_of_the_network_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is down would keep us for ever."""
    texts = {
        "/proc/filesystems": "nodev\tproc\nnodev\tnfs4\n\text4\n",
        "/proc/self/mounts": (
            "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw,noatime 0 0\n"
            "server:/x /far\\040away nfs4 rw 0 0\n"
        ),
    }
    asked: list[str] = []

    def space_of(place: str) -> dict[str, int]:
        asked.append(place)
        return {"size": 1}

    monkeypatch.setitem(FAR, "text_of", texts.__getitem__)
    monkeypatch.setitem(FAR, "space_of", space_of)
    local, remote = FAR["FINDERS"]["disks"]()
    assert asked == ["/"]
    assert (local["type"], local["options"], local["size"]) == ("ext4", ["rw", "noatime"], 1)
    assert (remote["mountpoint"], remote["device"]) == ("/far away", "server:/x")
    assert remote["size"] is None


def test_memory(found: dict[str, Any]) -> None:
    memory = found["memory"]
    assert memory["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory["available"] <= memory["total"]
    assert 0 <= memory["swap_free"] <= memory["swap_total"]


def test_users(found: dict[str, Any]) -> None:
    expected = [(each.pw_name, each.pw_uid, each.pw_dir) for each in pwd.getpwall()]
    assert [(each["name"], each["uid"], each["home"]) for each in found["users"]] == expected


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="a system without dpkg")
def test_packages(found: dict[str, Any]) -> None:
    ours = {each["name"]: each for each in found["packages"]}
    form = ["dpkg-query", "-W", "-f", "${Version} ${Architecture}", "dpkg"]
    version, architecture = subprocess.check_output(form, text=True).split()
    expected = {"name": "dpkg", "version": version, "architecture": architecture}
    assert ours["dpkg"] == expected


def test_without_the_program_ip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAR, "SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    names = ["addresses", "routes"]
    reasons = dict.fromkeys(names, "ip is not installed")
    assert FAR["gather"](names) == {"addresses": None, "routes": None, "reasons": reasons}
    assert facts.addresses() is None
    program(tmp_path, "ip", "echo 'Option \"-json\" is unknown' >&2; exit 255")
    said = FAR["gather"](["routes"])["reasons"]["routes"]
    assert said == 'ip: Option "-json" is unknown'


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_packages_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAR, "SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = FAR["gather"](["packages"])
    assert found == {
        "packages": None,
        "reasons": {
            "packages": "dpkg-query is not installed; rpm is not installed; apk is not installed"
        },
    }
    assert FAR["packages"]() is None
    program(tmp_path, "dpkg-query", "echo 'it is locked' >&2; exit 2")
    program(tmp_path, "rpm", r"printf 'bash\t1:5.2-1\tx86_64\n'")
    assert FAR["packages"]() == [{"name": "bash", "version": "1:5.2-1", "architecture": "x86_64"}]
    (tmp_path / "rpm").unlink()
    assert "dpkg-query: it is locked" in FAR["gather"](["packages"])["reasons"]["packages"]
    (tmp_path / "installed").write_text("P:musl\nV:1.2-r0\nA:x86_64\n\nP:zlib\nV:1.3\n\n")
    assert FAR["packages_of_apk"](str(tmp_path / "installed")) == [
        {"name": "musl", "version": "1.2-r0", "architecture": "x86_64"},
        {"name": "zlib", "version": "1.3", "architecture": None},
    ]


def test_what_cannot_be_had_is_none_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setitem(FAR, "text_of", broken)
    found = FAR["gather"](["memory", "users"])
    assert found["memory"] is None
    assert found["users"]
    assert "Permission denied: '/proc/meminfo'" in found["reasons"]["memory"]


def test_both_sides_know_the_same_names() -> None:
    assert tuple(FAR["FINDERS"]) == facts.NAMES


def test_some_of_them(connection: Connection) -> None:
    assert set(facts.gather(connection, ["memory"])) == {"memory", "reasons"}
    assert set(facts.gather(connection, "users")) == {"users", "reasons"}
    with pytest.raises(ValueError, match="unknown fact 'colour': choose from addresses, routes"):
        facts.gather(connection, ["colour"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("def gather(names): return 5", "status 0"),
        ("def gather(names): print('x')", "status 0"),
        ("raise SystemExit('out of \\x1b memory')", r"out of \\x1b memory"),
    ],
)
def test_an_answer_that_holds_no_facts(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, answer: str, said: str
) -> None:
    monkeypatch.setattr(facts, "source", lambda name: answer)
    with pytest.raises(MachineError, match=f"^cannot read facts of localhost: {said}$") as caught:
        facts.gather(connection)
    assert caught.value.host == connection.host


def test_ip_is_an_address_of_this_machine() -> None:
    address = facts.ip()
    known = {each["address"] for each in facts.addresses() or []}
    assert address is None or address in known


def test_python_there(connection: Connection) -> None:
    system = facts.gather(connection, "system")["system"]
    assert system["python_version"] == connection.far.python_version
    assert system["python_executable"] == connection.far.python
    assert facts.python_version() == list(sys.version_info[:3])
    assert facts.python_version(short=True) == list(sys.version_info[:2])
    assert os.path.realpath(facts.python_executable()) == os.path.realpath(sys.executable)


def test_helpers() -> None:
    assert helpers.check_output(["cat"], input=b"\xff\n") == "\udcff\n"
    assert helpers.output_lines(["printf", r"a\n\nb"]) == ["a", "", "b"]
    assert helpers.output_lines(["true"]) == []
    with pytest.raises(subprocess.CalledProcessError):
        helpers.output_lines(["false"])


@pytest.mark.parametrize("version", pythons())
def test_older_and_newer_pythons(version: str) -> None:
    """Facts work with every remote Python."""
    source = Path(FAR["gather"].__code__.co_filename).read_text()
    code = f"{source}\nprint(ascii(gather()))"
    done = subprocess.run(
        [pythons()[version], "-IS", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    assert f"'python_version': ({version.replace('.', ', ')}" in done.stdout
