"""Other users of the machine get no secret, ticket or command from a realm."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import eventually
from testing.processes import TIMEOUT, processes_of, remctl, start_remctl

from remctl_toolkit.testing import Command, Realm, RealmError, RemctldServer, programs
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

pytestmark = pytest.mark.once

# A user id of no account and no concurrent test, because it can see processes of the same id.
STRANGER = 30_000 + os.getpid() % 20_000
PASSWORD = "a-password-of-the-test"

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can be another user for a moment"
)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The secrets generated during the test."""
    found: list[str] = []
    real = secrets.token_urlsafe

    def token(size: int | None = None) -> str:
        found.append(real(size))
        return found[-1]

    monkeypatch.setattr(secrets, "token_urlsafe", token)
    return found


def use_everything() -> None:
    """Use all functions of a realm and a server that handle secrets."""
    with Realm() as realm, Realm("OTHER.TEST") as other:
        realm.trust(other)
        realm.add_principal("alice", PASSWORD)
        realm.kinit("alice", PASSWORD, ccache=realm.new_ccache())
        realm.kinit("alice", ccache=realm.new_ccache())
        realm.rotate_key("alice")
        with RemctldServer(realm, SAMPLE_COMMANDS) as server:
            assert remctl(server, "test", "echo", "hello").returncode == 0


def test_no_secret_is_an_argument_of_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, generated: list[str]
) -> None:
    """Each program is replaced by one that records its arguments."""
    said = tmp_path / "arguments"
    for name, path in programs.find(*programs.REALM_PROGRAMS, *programs.SERVER_PROGRAMS).items():
        recorder = tmp_path / name
        recorder.write_text(f'#!/bin/sh\necho "$0 $@" >>{said}\nexec {path} "$@"\n')
        recorder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    use_everything()
    arguments = said.read_text()
    for name in ("kdb5_util", "kadmin.local", "kinit", "krb5kdc", "remctld"):
        assert f"/{name} " in arguments
    assert len(generated) == 3  # two master keys, and the key of the trust
    for secret in (PASSWORD, *generated):
        assert secret not in arguments


def test_files_are_their_owners_whatever_the_umask_is() -> None:
    before = os.umask(0)
    try:
        with Realm() as realm, RemctldServer(realm, SAMPLE_COMMANDS) as server:
            realm.extract_keytab(realm.user, realm.tmpdir / "users")
            realm.kinit(ccache=realm.new_ccache())
            realm.stop_kdc()
            realm.start_kdc()
            assert remctl(server, "test", "echo", "hello").returncode == 0
            server.reload()
            public = {
                str(path.relative_to(realm.tmpdir))
                for path in [realm.tmpdir, *realm.tmpdir.rglob("*")]
                if stat.S_IMODE(path.lstat().st_mode) & 0o077
            }
    finally:
        os.umask(before)
    assert public == {"krb5.conf", "kdc.conf"}  # these have no secrets


def test_commands_keep_the_umask_of_the_test(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with Realm() as realm, RemctldServer(realm, [Command("make", script=f": >{made}")]) as server:
        assert remctl(server, "make", "it").returncode == 0
    assert stat.S_IMODE(made.stat().st_mode) == 0o666 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_nothing_listens_but_on_loopback() -> None:
    with (
        Realm() as realm,
        RemctldServer(realm, SAMPLE_COMMANDS) as server,
        start_remctl(server, "test", "sleep", "600") as client,
    ):
        ports = {realm.kdc_port, server.port}
        try:
            server.wait_for_log("test sleep", TIMEOUT)
            found = sockets_of(processes_of(realm.tmpdir))
        finally:
            client.kill()
    assert {port for _, port, remote in found if not remote} == ports
    assert {address for address, _, _ in found} == {"0100007F"}


def sockets_of(processes: list[int]) -> set[tuple[str, int, int]]:
    """Return local address, local port and remote port (0: none) of sockets."""
    inodes = set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(link)))
            except OSError:  # the socket was closed
                continue
    found = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[9] in inodes:
                found.add((address, int(port, 16), int(fields[2].partition(":")[2], 16)))
    return found


def test_ticket_and_keys_of_one_realm_are_nothing_in_another_of_its_name() -> None:
    with Realm() as mine, Realm() as theirs:
        keytab = theirs.extract_keytab(theirs.user, theirs.tmpdir / "users")
        with pytest.raises(RealmError, match=r"Password incorrect|Preauthentication failed"):
            mine.kinit(keytab=keytab)
        with RemctldServer(mine, SAMPLE_COMMANDS) as server:
            assert remctl(server, "test", "echo", "hello").returncode == 0
            done = remctl(server, "test", "echo", "hello", ccache=theirs.ccache, realm=theirs)
            assert done.returncode != 0
            assert server.log.count("COMMAND") == 1


# Another user


def as_stranger(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program as another user."""
    return subprocess.run(
        command,
        env={"PATH": programs.search_path(), "LC_ALL": "C", **env},
        cwd="/",
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        input="",
    )


@pytest.fixture
def strangers_home() -> Iterator[Path]:
    """A directory that the other user can reach and write to."""
    folder = Path(f"/tmp/remctl-stranger-{secrets.token_hex(8)}")
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_stranger_sees_no_secret_while_a_realm_starts_and_runs(
    generated: list[str], strangers_home: Path
) -> None:
    """The stranger keeps reading the arguments and environments of all processes."""
    code = f"""if True:
        while [ ! -e {strangers_home}/stop ]; do
            cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
            echo; : >{strangers_home}/seen
        done
    """.removeprefix("if True:\n")
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", code],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.defpath},  # Its own environment must not have the secrets.
    )
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(watcher.communicate()[0]))
    reader.start()
    try:
        for _ in range(3):
            eventually((strangers_home / "seen").exists, TIMEOUT)
            use_everything()
            (strangers_home / "seen").unlink()
        eventually((strangers_home / "seen").exists, TIMEOUT)
    finally:
        (strangers_home / "stop").touch()
        reader.join(TIMEOUT)
    assert b"krb5kdc" in seen[0]
    for secret in (PASSWORD, *generated):
        assert secret.encode() not in seen[0]
    assert b"KRB5_KDC_PROFILE" not in seen[0]


@needs_root
def test_stranger_can_read_nothing(strangers_home: Path) -> None:
    with Realm() as realm, RemctldServer(realm, SAMPLE_COMMANDS) as server:
        realm.extract_keytab(realm.user, realm.tmpdir / "users")
        paths = [str(path) for path in realm.tmpdir.rglob("*") if path.is_file()]
        paths += [
            f"/proc/{process}/{name}"
            for process in processes_of(realm.tmpdir)
            for name in ("environ", "mem", "maps", "fd/0", "fd/1", "fd/3", "cwd/.", "root/.")
        ]
        assert len(paths) > 20
        for path in [str(realm.tmpdir), str(server.log_path.parent), *paths]:
            for attempt in (["ls", "-l", f"{path}/"], ["cat", path], ["cp", path, "/dev/null"]):
                done = as_stranger(attempt, {})
                assert done.returncode != 0, (attempt, done.stdout)
                assert done.stdout == ""
        for attempt in (["touch", f"{realm.tmpdir}/file"], ["mv", str(realm.tmpdir), "/tmp/mine"]):
            assert as_stranger(attempt, {}).returncode != 0
        assert remctl(server, "test", "echo", "hello").returncode == 0


@needs_root
def test_stranger_gets_no_ticket_and_no_command(strangers_home: Path) -> None:
    """The stranger knows all names and ports, and tries everything it sees as a password."""
    with Realm() as realm, RemctldServer(realm, SAMPLE_COMMANDS) as server:
        conf = strangers_home / "krb5.conf"
        conf.write_text(Path(realm.krb5_conf).read_text())
        conf.chmod(0o644)
        words = {
            word
            for process in processes_of(realm.tmpdir)
            for word in Path(f"/proc/{process}/cmdline").read_text().split("\0")
            if word and "\n" not in word
        }
        env = {"KRB5_CONFIG": str(conf), "KRB5CCNAME": f"FILE:{strangers_home}/ccache"}
        for principal in (realm.user, realm.host_principal, f"K/M@{realm.name}", "root/admin"):
            for password in ("", "master", "user", "password", *words):
                typed = ["sh", "-c", 'printf "%s\\n" "$2" | kinit "$1"', "sh", principal, password]
                assert as_stranger(typed, env).returncode != 0, (principal, password)
            assert as_stranger(["kinit", "-k", "-t", realm.keytab, principal], env).returncode != 0
        assert as_stranger(["kinit", "-n", f"@{realm.name}"], env).returncode != 0
        assert not (strangers_home / "ccache").exists()
        command = ["remctl", "-p", str(server.port), "-s", server.principal, server.host]
        for ccache in (env["KRB5CCNAME"], realm.ccache):
            done = as_stranger([*command, "test", "echo", "hello"], {**env, "KRB5CCNAME": ccache})
            assert done.returncode != 0
            assert done.stdout == ""
        with socket.create_connection((server.address, server.port), timeout=TIMEOUT):
            pass  # anybody can connect, but nothing more
        assert remctl(server, "test", "echo", "hello").returncode == 0
        assert server.log.count("COMMAND") == 1
