"""Realms and servers start with odd directories, users, networks and patched processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.subprocesses import in_child_after
from testing.processes import PACKAGE_FOLDER, TIMEOUT

import remctl
from remctl_toolkit.testing import Command, Realm, RealmError, RemctldServer
from remctl_toolkit.testing.keeper import Keeper

pytestmark = pytest.mark.once

# A program with a realm; it prints the parent of its directory, the server's address and host.
PROGRAM = """if True:
    import os, sys, remctl
    from remctl_toolkit.testing import Command, Realm, RemctldServer
    with Realm() as realm, RemctldServer(realm, [Command("test", script="echo hi")]) as server:
        with realm.environ():
            done = remctl.remctl(
                server.host, server.port, principal=server.principal, command=["test", "it"])
            assert done.stdout == b"hi\\n", done
        realm.stop_kdc()
        realm.start_kdc()
        realm.kinit()
        server.restart()
        folder = realm.tmpdir
    assert not folder.exists()
    print(folder.parent, server.address, server.host)
"""

NOBODY = 54321  # a user id that has no entry in passwd

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")


def run_program(
    *before: str, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run PROGRAM, with a prefix before the command line."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("KRB5")}
    return subprocess.run(
        [*before, python, "-c", PROGRAM],
        env={**env, "PYTHONPATH": str(PACKAGE_FOLDER), **variables},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def check(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Check that PROGRAM succeeded, and return the words of its output."""
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="anywhere") as name:
        yield Path(name)


# Folders


ODD = {
    "a space": "a b",
    "quotes": 'it\'s "x"',
    "a variable": "$HOME",
    "a token of krb5.conf": "%{uid}",
    "a percent sign": "100%",
    "not ASCII": "ünïcode",
    "no text": "\udcff",
    "a colon": "a:b",
    "control characters": "a\tb\nc",
    "comments": "#x;y",
    "braces": "{x}",
    "a backslash": "a\\",
    "an equals sign": "a=b",
    "a wildcard": "*",
    "a long name": "x" * 250,
    "a long path": "long/" * 300,
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_temporary_folder_with_an_odd_name(name: str, folder: Path) -> None:
    """Configuration files of Kerberos and remctld could not express it, so /tmp is used."""
    odd = folder / name
    odd.mkdir(parents=True)
    assert check(run_program(TMPDIR=str(odd)))[0] == "/tmp"
    assert list(odd.iterdir()) == []


def test_plain_temporary_folder_is_used(folder: Path) -> None:
    plain = folder / "a.B_c+d-1"
    plain.mkdir()
    assert check(run_program(TMPDIR=str(plain)))[0] == str(plain)
    assert list(plain.iterdir()) == []


def test_temporary_folder_that_is_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not resolve "."; the keeper process has another working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", ".")
    keeper = Keeper()
    assert keeper.folder.parent == folder
    assert keeper.folder.is_dir()
    keeper.close()
    assert list(folder.iterdir()) == []


def test_without_a_place_for_it_the_error_names_tmpdir(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = folder / "a b"
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    monkeypatch.setattr("remctl_toolkit.testing.keeper._PLAIN_FOLDER", "/nonexistent")
    with pytest.raises(RealmError, match=r"(?s)directory /nonexistent/.*/a b'.*set TMPDIR to"):
        Keeper()


def test_folder_of_this_process_may_be_gone(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    there = ("sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh")
    plain = subprocess.run([*there, sys.executable, "-c", "import socket"], capture_output=True)
    if plain.returncode != 0:
        pytest.skip("this Python cannot import socket there")
    gone.mkdir()
    check(run_program(*there))


# Users


def python_of_anybody(become: list[str]) -> str:
    """Return an interpreter that another user can run with the package."""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*become, "env", python, "-c", "import remctl"]
        env = {"PATH": os.defpath, "PYTHONPATH": str(PACKAGE_FOLDER)}
        with contextlib.suppress(OSError):
            if subprocess.run(command, env=env, cwd="/", capture_output=True).returncode == 0:
                return python
    pytest.skip("no Python here that other users can run with the package")


@needs_root
@pytest.mark.parametrize("home", [None, "/", "/nonexistent", "read-only"])
def test_user_without_an_entry_in_passwd(home: str | None, folder: Path) -> None:
    folder.chmod(0o777)
    variables = {"TMPDIR": str(folder)}
    if home == "read-only":
        place = folder / "home"
        place.mkdir(mode=0o555)
        variables["HOME"] = str(place)
    elif home is not None:
        variables["HOME"] = home
    unset = ["env", *(word for name in ("HOME", "USER", "LOGNAME") for word in ("-u", name))]
    become = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    before = [*become, *unset, *(f"{name}={text}" for name, text in variables.items())]
    check(run_program(*before, python=python_of_anybody(become), TMPDIR=str(folder)))
    if home == "read-only":
        assert list(place.iterdir()) == []


# Networks


def in_namespace(*commands: str) -> list[str]:
    """Return a prefix that runs a program in a new network namespace, after some commands."""
    before = " && ".join([*commands, 'exec "$@"'])
    return ["unshare", "--net", "--mount", "sh", "-c", before, "sh"]


def can_have_namespaces() -> bool:
    if os.getuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return False
    words = in_namespace("ip link set lo up", "mount --bind /dev/null /etc/hosts")
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def hosts(folder: Path) -> Mapping[str, str]:
    """Commands that mount a file over /etc/hosts."""
    if not can_have_namespaces():
        pytest.skip("a network namespace needs Linux, root, unshare and ip")
    commands = {}
    for name, lines in {
        "both": "127.0.0.1 localhost\n::1 localhost\n",
        "IPv4": "127.0.0.1 localhost\n",
    }.items():
        (folder / name).write_text(lines)
        commands[name] = f"mount --bind {folder / name} /etc/hosts"
    return commands


NO_IPV4 = ("ip link set lo up", "ip address del 127.0.0.1/8 dev lo")
NO_IPV6 = ("ip link set lo up", "ip address del ::1/128 dev lo")


def test_host_without_ipv6(hosts: Mapping[str, str]) -> None:
    for file in hosts.values():
        done = run_program(*in_namespace(file, *NO_IPV6))
        assert check(done)[1:] == ["127.0.0.1", "localhost"]


def test_host_without_ipv4(hosts: Mapping[str, str]) -> None:
    done = run_program(*in_namespace(hosts["both"], *NO_IPV4))
    assert check(done)[1:] == ["::1", "localhost"]


def test_host_without_ipv4_where_localhost_is_still_its_name(hosts: Mapping[str, str]) -> None:
    done = run_program(*in_namespace(hosts["IPv4"], *NO_IPV4))
    assert check(done)[1:] == ["::1", "::1"]


def test_host_without_a_loopback_address(hosts: Mapping[str, str]) -> None:
    done = run_program(*in_namespace(hosts["both"], *NO_IPV4, NO_IPV6[1]))
    assert done.returncode == 1
    assert "RealmError: no loopback address (127.0.0.1, ::1): run 'ip link" in done.stderr


# Processes


def use_a_realm() -> None:
    with (
        Realm() as realm,
        RemctldServer(realm, [Command("test", script="echo hi")]) as server,
        realm.environ(),
    ):
        for _ in range(3):
            server.freeze()
            server.thaw()
            server.restart()
            server.reload()
            realm.freeze_kdc()
            realm.thaw_kdc()
        realm.kinit()
        call = (server.host, server.port)
        assert remctl.remctl(*call, command=["test", "it"]).stdout == b"hi\n"
        folder = realm.tmpdir
    assert not folder.exists()


@pytest.mark.parametrize(
    "patch",
    [
        "import gevent.monkey; gevent.monkey.patch_all()",
        "import eventlet; eventlet.monkey_patch()",
    ],
    ids=["gevent", "eventlet"],
)
def test_patched_process(patch: str) -> None:
    pytest.importorskip(patch.split()[1].partition(".")[0].rstrip(";"))
    in_child_after(f"import warnings; warnings.simplefilter('ignore'); {patch}", use_a_realm)
