"""A realm with Heimdal's KDC: it is one like MIT's, and the main tests pass in it as well.

Its programs come from `python tests/support/heimdal.py FOLDER`, with the folder in the environment
variable REMCTL_HEIMDAL.  Clients and servers use MIT's libraries here, too.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import heimdal, heimdal_realm
from support.heimdal_realm import HeimdalRealm, is_heimdal, use_chosen_kdc
from support.waiting import eventually, open_descriptors
from testing.processes import gone

import remctl
from remctl_toolkit.testing import Realm, RealmError, RemctldServer, kdc
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS
from remctl_toolkit.testing.plugin import _is_required
from remctl_toolkit.testing.ports import ReservedPort

pytestmark = pytest.mark.once

TESTS = Path(__file__).resolve().parent
LIMIT = 200  # seconds for one file of tests
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "--remctl-required"),
    *("-p", "no:cacheprovider", "-p", "no:xdist"),
)

# What the main tests are, and which of them: of the surroundings what a KDC has a part in, of the
# realm's own what is not about MIT's programs.
MAIN = {
    "test_threads.py": "",
    "test_simple.py": "",
    "test_surroundings.py": "ticket or deleted or keytab or clock or kdc or anew or is_another",
    "test_protocols.py": "",
    "test_remctl_class.py": "",
    "test_reopening.py": "",
    "testing/test_realm.py": "new_key or deleted or expired or lifetimes or mistakes or kdc_lets or"
    " who_waited or comes_back or from_stopping or dead_kdc or takes_its_port",
}


@pytest.fixture(scope="module", autouse=True)
def _heimdal(request: pytest.FixtureRequest) -> None:
    """Skip without Heimdal's programs; fail where they could have been had."""
    if heimdal.find_heimdal() is not None:
        return
    if _is_required(request.config) and shutil.which("apt-get"):
        pytest.fail(heimdal_realm.MISSING, pytrace=False)
    pytest.skip(heimdal_realm.MISSING)


@pytest.fixture
def realm() -> Iterator[Realm]:
    with HeimdalRealm() as realm:
        yield realm


@pytest.mark.timeout(LIMIT + 10)
@pytest.mark.parametrize("file", MAIN)
def test_the_main_tests_pass(file: str, tmp_path: Path) -> None:
    """In a pytest of their own: all realms of a process have the KDC that the variable names."""
    own = {
        name: text for name, text in os.environ.items() if not name.startswith(("PYTEST", "KRB5"))
    }
    done = subprocess.run(
        [*PYTEST, f"--basetemp={tmp_path}/temporary", "-k", MAIN[file], file],
        env={**own, heimdal_realm.KDC_VARIABLE: "heimdal"},
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]


def test_it_is_heimdals(realm: Realm) -> None:
    assert is_heimdal(realm)
    with RemctldServer(realm, SAMPLE_COMMANDS) as server, realm.environ():
        result = remctl.remctl(server.host, server.port, command=["test", "echo", "hello"])
    assert result.stdout == b"hello\n"
    log = realm.tmpdir / "kdc1.out"
    eventually(lambda: f"TGS-REQ {realm.user}" in log.read_text())
    assert realm.host_principal in log.read_text()


def test_the_variable_says_whose_kdc_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(heimdal_realm.KDC_VARIABLE, "heimdal")
    monkeypatch.setattr(Realm, "_database_type", Realm._database_type)  # to be restored
    use_chosen_kdc()
    assert is_heimdal(Realm())
    monkeypatch.delenv(heimdal_realm.KDC_VARIABLE)
    use_chosen_kdc()
    assert not is_heimdal(Realm())
    assert is_heimdal(HeimdalRealm())
    monkeypatch.setenv(heimdal_realm.KDC_VARIABLE, "Heimdal")
    with pytest.raises(ValueError, match="unknown KDC 'Heimdal': use one of mit, heimdal"):
        use_chosen_kdc()


def test_it_leaves_nothing() -> None:
    before = open_descriptors()
    with HeimdalRealm() as realm:
        folder, port = realm.tmpdir, realm.kdc_port
        realm.freeze_kdc()
    eventually(lambda: gone(folder))
    eventually(lambda: open_descriptors() <= before)
    with pytest.raises(RealmError, match=r"start\(\)"):
        _ = realm.kdc_port
    assert port


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_somebody_has_is_not_used(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Heimdal's KDC goes on without it."""
    choose = kdc._reserve_port
    takers: list[socket.socket] = []

    def choose_and_lose() -> ReservedPort:
        port = choose()
        if len(takers) < 2:
            takers.append(
                port.listen() if protocol == "tcp" else socket.socket(type=socket.SOCK_DGRAM)
            )
            if protocol == "udp":
                takers[-1].bind((port.address, port.number))
        return port

    monkeypatch.setattr(kdc, "_reserve_port", choose_and_lose)
    try:
        with HeimdalRealm() as realm:
            assert len(takers) == 2
            realm.kinit()
    finally:
        for taker in takers:
            taker.close()


def test_the_folder_is_named_by_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(heimdal.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(RealmError, match=r"heimdal\.py FOLDER"):
        HeimdalRealm().start()


def test_what_is_unpacked_is_left_alone(tmp_path: Path) -> None:
    found = heimdal.find_heimdal()
    assert found is not None
    for name in ("usr/lib/heimdal-servers/kdc", "usr/bin/kadmin.heimdal", "usr/lib/x/libkdc.so.2"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    env = {**os.environ, "PATH": "/nonexistent"}
    command = [sys.executable, heimdal.__file__]
    done = subprocess.run([*command, str(tmp_path)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_says_how_it_is_used_and_what_failed(tmp_path: Path) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-query"):
        tool = tmp_path / name
        tool.write_text('#!/bin/sh\necho "no network today" >&2\nexit 100\n')
        tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, heimdal.__file__]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == os.EX_USAGE
    assert "heimdal.py FOLDER" in done.stderr
    done = subprocess.run([*command, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == os.EX_UNAVAILABLE
    assert f"{tmp_path} has something else in it" in done.stderr
    folder = tmp_path / "folder"
    done = subprocess.run([*command, str(folder)], env=env, capture_output=True, text=True)
    assert done.returncode == os.EX_UNAVAILABLE
    assert "no network today" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()
