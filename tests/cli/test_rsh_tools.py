"""remctl-rsh in ssh's place: rsync, git, sftp, scp, plumbum's SshMachine and execnet, unchanged."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import execnet
import plumbum
import pytest
from cli.rsh import Bridge, bridge
from support.waiting import eventually
from testing.processes import TIMEOUT

from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LINES = "new\nline"  # What lists files in lines cannot have such a name.
ODD_NAMES = ("a b", "quote'", 'double"', "$HOME", LINES, "-dash", "ümläut", "semi;colon", "*")


@pytest.fixture(scope="module")
def rsh(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridge(remctl_realm, tmp_path_factory.mktemp("rsh")) as found:
        yield found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files with odd names, a large one, a link, a mode."""
    top = tmp_path / "tree"
    (top / "folder" / "deep").mkdir(parents=True)
    for name in ODD_NAMES:
        (top / "folder" / name).write_text(name)
    (top / "large").write_bytes(os.urandom(2_000_000))
    (top / "folder" / "deep" / "program").touch(mode=0o751)
    (top / "link").symlink_to("folder/a b")
    return top


def picture(top: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modes, and contents or targets, of the files in a tree."""
    found = {}
    for path in sorted(top.rglob("*")):
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(top))] = (path.lstat().st_mode, content)
    return found


# -- rsync ----------------------------------------------------------------------------------------


def test_rsync_both_ways(rsh: Bridge, tree: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    rsync = ("rsync", "-a", "-e", str(rsh.program))
    rsh.run_program(*rsync, f"{tree}/", f"{rsh.host}:{there}/", check=True)
    assert picture(there) == picture(tree)
    (there / "large").write_bytes(b"less")
    (there / "link").unlink()
    rsh.run_program(*rsync, "--delete", f"{tree}/", f"{rsh.host}:{there}/", check=True)
    rsh.run_program(*rsync, f"root@{rsh.host}:{there}/", f"{back}/", check=True)
    assert picture(back) == picture(there) == picture(tree)


def test_rsync_of_a_single_odd_name(rsh: Bridge, tree: Path, tmp_path: Path) -> None:
    """The remote shell does not interpret it; rsync before 3.2.4 needs -s for that."""
    there = tmp_path / "it's there & more"
    source = tree / "folder" / "$HOME"
    words = ("rsync", "-s", "-e", f"{rsh.program} -q")
    rsh.run_program(*words, str(source), f"{rsh.host}:{there}", check=True)
    assert there.read_text() == "$HOME"


def test_rsync_has_options_of_ours(rsh: Bridge, tree: Path, tmp_path: Path) -> None:
    port, principal = (rsh.env[f"REMCTL_RSH_{name}"] for name in ("PORT", "PRINCIPAL"))
    words = f"{rsh.program} -p {port} --principal={principal} -oBatchMode=yes"
    env = {"REMCTL_RSH_PORT": "1", "REMCTL_RSH_PRINCIPAL": "host/other"}
    target = f"{rsh.host}:{tmp_path}/copy"
    rsh.run_program("rsync", "-e", words, str(tree / "large"), target, check=True, env=env)
    assert (tmp_path / "copy").read_bytes() == (tree / "large").read_bytes()


def test_rsync_tells_what_is_wrong(rsh: Bridge, tmp_path: Path) -> None:
    words = ("rsync", "-e", str(rsh.program))
    done = rsh.run_program(*words, "nowhere.invalid:/etc/hostname", str(tmp_path))
    assert done.returncode != 0
    assert b"remctl-rsh: unknown host nowhere.invalid" in done.stderr
    done = rsh.run_program(*words, f"{rsh.host}:/nonexistent", str(tmp_path))
    assert done.returncode == 23
    assert b"remctl-rsh" not in done.stderr


def test_rsync_talks_to_a_daemon_that_it_starts(rsh: Bridge, tree: Path, tmp_path: Path) -> None:
    """The daemon takes the client's address from the environment, and checks its permissions."""
    config = tmp_path / "rsyncd.conf"
    module = f"[module]\npath = {tree}\nuse chroot = no\nhosts allow = 127.0.0.1 ::1\n"
    config.write_text(f"reverse lookup = no\nlog file = {tmp_path}/log\n{module}")
    server = tmp_path / "rsync"
    server.write_text(f'#!/bin/sh\nexec rsync --config={config} "$@"\n')
    server.chmod(0o755)
    words = ("rsync", "-e", str(rsh.program), f"--rsync-path={server}", "-r")
    rsh.run_program(*words, f"{rsh.host}::module/large", f"{tmp_path}/copy", check=True)
    assert (tmp_path / "copy").read_bytes() == (tree / "large").read_bytes()


# -- git ------------------------------------------------------------------------------------------


def git(rsh: Bridge, *words: str, **variables: str) -> str:
    env = {
        "GIT_SSH_COMMAND": str(rsh.program),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_NAME": "Somebody" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "somebody@example.org" for who in ("AUTHOR", "COMMITTER")},
        **variables,
    }
    done = rsh.run_program("git", *words, check=True, env=env)
    return done.stdout.decode() + done.stderr.decode()


@pytest.fixture
def repository(rsh: Bridge, tree: Path, tmp_path: Path) -> Path:
    """A bare repository, with a commit."""
    git(rsh, "init", "--quiet", "--initial-branch=main", str(tree))
    git(rsh, "-C", str(tree), "add", "large", "link")
    git(rsh, "-C", str(tree), "commit", "--quiet", "--message=first")
    git(rsh, "clone", "--quiet", "--bare", str(tree), str(tmp_path / "it's bare.git"))
    return tmp_path / "it's bare.git"


def test_git_clones_and_pushes(rsh: Bridge, repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(rsh, "clone", "--quiet", f"{rsh.host}:{repository}", str(clone))
    assert (clone / "large").stat().st_size == 2_000_000
    (clone / "new").write_bytes(os.urandom(1_000_000))
    git(rsh, "-C", str(clone), "add", "new")
    git(rsh, "-C", str(clone), "commit", "--quiet", "--message=second")
    git(rsh, "-C", str(clone), "push", "--quiet")
    assert git(rsh, "-C", str(repository), "log", "--format=%s") == "second\nfirst\n"
    git(rsh, "-C", str(clone), "fetch", "--quiet")


def test_git_finds_that_options_are_taken(rsh: Bridge, repository: Path) -> None:
    """git runs -G; if that fails, it refuses ports and does not use protocol 2."""
    url = f"ssh://root@{rsh.host}:{rsh.server.port}{repository}"
    trace = git(rsh, "ls-remote", url, REMCTL_RSH_PORT="1", GIT_TRACE_PACKET="1")
    assert "refs/heads/main" in trace
    assert "version 2" in trace


# -- sftp and scp ---------------------------------------------------------------------------------


def test_sftp_gets_and_puts(rsh: Bridge, tree: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    batch = f'mkdir "{there}"\nput "{tree}/large" "{there}/a b"\nget "{there}/a b" "{back}"\n'
    batch += f'rename "{there}/a b" "{there}/c"\nls -1 "{there}"\n'
    words = ("sftp", "-S", str(rsh.program), "-b", "-", rsh.host)
    done = rsh.run_program(*words, input=batch.encode(), check=True)
    assert back.read_bytes() == (tree / "large").read_bytes()
    assert done.stdout.decode().splitlines()[-1].strip() == f"{there}/c"


def test_sftp_passes_port_and_user(rsh: Bridge) -> None:
    words = ("sftp", "-S", str(rsh.program), "-P", str(rsh.server.port), "-b", "-")
    env = {"REMCTL_RSH_PORT": "1"}
    done = rsh.run_program(*words, f"root@{rsh.host}", input=b"pwd\n", env=env, check=True)
    assert b"Remote working directory: " in done.stdout
    done = rsh.run_program(*words, f"alice@{rsh.host}", input=b"pwd\n", env=env)
    assert b"remctl-rsh: no account 'alice'" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_copies_a_tree(rsh: Bridge, tree: Path, tmp_path: Path, protocol: str) -> None:
    if protocol == "-O":
        (tree / "folder" / LINES).unlink()
    there = tmp_path / "there"
    words = ("scp", protocol, "-q", "-r", "-S", str(rsh.program))
    rsh.run_program(*words, str(tree / "folder"), f"{rsh.host}:{there}", check=True)
    assert picture(there) == picture(tree / "folder")


# -- plumbum --------------------------------------------------------------------------------------


def test_plumbum_takes_it_for_ssh(rsh: Bridge, tree: Path) -> None:
    command = plumbum.local[str(rsh.program)]
    scp = plumbum.local["scp"]["-S", str(rsh.program)]
    with (
        plumbum.local.env(**rsh.env),
        plumbum.SshMachine(rsh.host, ssh_command=command, scp_command=scp) as machine,
    ):
        assert machine["echo"]("two  words", "$HOME") == "two  words $HOME\n"
        with machine.cwd(str(tree)):
            assert machine["ls"]().split() == ["folder", "large", "link"]
            status, out, error = machine["sh"].run(["-c", "cat; echo e >&2; exit 3"], retcode=3)
            assert (status, out, error) == (3, "", "e\n")
        assert (machine["cat"] << "input")() == "input"
        folder = machine.path(str(tree)) / "folder"
        (tree / "folder" / LINES).unlink()
        assert {path.name for path in folder.iterdir()} == {*ODD_NAMES, "deep"} - {LINES}
        machine.upload(tree / "large", str(tree / "copy"))
        assert (tree / "copy").read_bytes() == (tree / "large").read_bytes()
        assert (folder / "a b").read() == b"a b"
        (folder / "written").write("text")
        assert (tree / "folder" / "written").read_text() == "text"
        with machine.tunnel(0, rsh.server.port) as tunnel:
            socket.create_connection(("localhost", tunnel.lport)).close()


def test_plumbum_leaves_commands_in_the_background(rsh: Bridge, tmp_path: Path) -> None:
    with (
        plumbum.local.env(**rsh.env),
        plumbum.SshMachine(rsh.host, ssh_command=plumbum.local[str(rsh.program)]) as machine,
    ):
        wait = machine["sh"]["-c", f"read -r line <{tmp_path}/go; echo $line"]
        for start in (
            lambda: wait & plumbum.NOHUP(stdout=f"{tmp_path}/out", append=False),
            lambda: machine.daemonic_popen(wait, cwd=str(tmp_path), stdout="out"),
        ):
            os.mkfifo(tmp_path / "go")
            start()
            eventually((tmp_path / "out").exists, TIMEOUT)
            assert (tmp_path / "out").read_text() == ""
            (tmp_path / "go").write_text("on\n")
            eventually(lambda: (tmp_path / "out").read_text() == "on\n", TIMEOUT)
            (tmp_path / "go").unlink()
            (tmp_path / "out").unlink()


# -- execnet --------------------------------------------------------------------------------------


@pytest.fixture
def group(rsh: Bridge, monkeypatch: pytest.MonkeyPatch) -> Iterator[execnet.Group]:
    """Create a group in an environment in which remctl-rsh finds its server."""
    for name, value in rsh.env.items():
        monkeypatch.setenv(name, value)
    group = execnet.Group()
    yield group
    group.terminate(timeout=TIMEOUT)


def exercise(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    for item in (1, "two", [b"\0" * 300_000]):
        channel.send(item)
        assert channel.receive(TIMEOUT) == item
    channel.close()
    with pytest.raises(channel.RemoteError, match="ZeroDivisionError"):
        gateway.remote_exec("1 / 0").waitclose(TIMEOUT)


def test_execnet_by_the_name_of_a_python(rsh: Bridge, group: execnet.Group) -> None:
    """execnet adds words with quotes, which no shell may interpret."""
    exercise(group.makegateway(f"popen//python={rsh.program} --exact {rsh.host} python3"))


def test_execnet_by_the_name_of_ssh(
    rsh: Bridge, group: execnet.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """execnet runs the program ssh with options, which remctl-rsh accepts."""
    program = rsh.installed_as("ssh")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    exercise(group.makegateway(f"ssh={rsh.host}//python=python3//ssh_config=/dev/null"))
    program.unlink()
