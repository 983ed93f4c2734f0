"""remctl-fleet: output in files, differences, some hosts at random, the largest status."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from cli.fleets import Hosts

from remctl_toolkit.cli.fleet.folders import Folders
from remctl_toolkit.fleet import Host

pytestmark = pytest.mark.once


# -- Files ----------------------------------------------------------------------------------------


def test_each_host_has_a_file(hosts: Hosts, tmp_path: Path) -> None:
    out, err = tmp_path / "new" / "out", tmp_path / "err"
    options = ("--outdir", str(out), "--errdir", str(err))
    done = hosts.run(*options, "web[1-2],dead1", "lines", "show")
    assert done.stdout == "web[1-2]:\n  one\n  two\n"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        **dict.fromkeys(("web1", "web2"), "one\ntwo\n"),
        "dead1": "",
    }
    assert (err / "web2").read_text() == "look out\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "web1").stat().st_mode) == 0o600


def test_octets_of_one_host_are_in_its_file_too(hosts: Hosts, tmp_path: Path) -> None:
    hosts.run("--outdir", str(tmp_path), "web1", "octets", "show")
    assert (tmp_path / "web1").read_bytes() == b"\xff\0\033[31mx\n"


def test_no_file_is_of_an_earlier_run(hosts: Hosts, tmp_path: Path) -> None:
    """Files with the name of a host are replaced, but not the target of a link."""
    other = tmp_path / "other"
    other.write_text("precious")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "web1").symlink_to(other)
    os.link(other, folder / "web2")
    os.mkfifo(folder / "dead1")
    (folder / "web9").write_text("of another host")
    (folder / "web3").touch(0o644)
    hosts.run("--outdir", str(folder), "web[1-3],dead1", "name", "show")
    assert other.read_text() == "precious"
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert files == {
        **{f"web{number}": f"I am web{number}\n" for number in (1, 2, 3)},
        "dead1": "",
        "web9": "of another host",
    }
    assert stat.S_IMODE((folder / "web3").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (Host("web1"), "web1"),
        (Host("web1", 4444), "web1:4444"),
        (Host("2001:db8::7"), "2001:db8::7"),
        (Host("2001:db8::7", 4444), "[2001:db8::7]:4444"),
        (Host("../../etc/cron.d/x"), "%2E.%2F..%2Fetc%2Fcron.d%2Fx"),
        (Host("/etc/passwd"), "%2Fetc%2Fpasswd"),
        (Host(".."), "%2E."),
        (Host("."), "%2E"),
        (Host("a b"), "a%20b"),
    ],
)
def test_the_name_of_a_host_cannot_leave_the_folder(tmp_path: Path, host: Host, name: str) -> None:
    folder = tmp_path / "deep" / "out"
    Folders([host, Host("other")], str(folder), None)
    assert {path.name for path in folder.iterdir()} == {name, "other"}
    assert list(tmp_path.rglob("*")).count(folder / name) == 1
    assert len(list(tmp_path.rglob("*"))) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("folder", "cannot write .*/out/web1: Is a directory"),
        ("same", "--outdir and --errdir must be different directories"),
    ],
)
def test_folders_that_cannot_be_used(hosts: Hosts, tmp_path: Path, make: str, message: str) -> None:
    folder = tmp_path / "out"
    if make == "folder":
        (folder / "web1").mkdir(parents=True)
    options = ["--outdir", str(folder)]
    if make == "same":
        options += ["--errdir", str(tmp_path / "." / "out")]
    done = hosts.run(*options, "web[1-2]", "name", "show")
    assert re.fullmatch(f"remctl-fleet: {message}\n", done.stderr)
    assert (done.stdout, done.returncode) == ("", 2)


def test_a_file_that_cannot_be_written_later_is_named(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.terminal(
        *("--ask-secret", "--outdir", str(tmp_path), "web[1-2]", "input", "show")
    ) as terminal:
        terminal.expect("Secret: ")
        (tmp_path / "web1").unlink()
        (tmp_path / "web1").symlink_to(tmp_path / "elsewhere")
        terminal.type("x\n")
        terminal.expect("Repeat secret: ")
        terminal.type("x\n")
        assert terminal.wait() == os.EX_IOERR
    text = terminal.everything.replace("\r\n    ", "")  # where the terminal is not wide enough
    assert f"cannot write {tmp_path}/web1: Too many levels" in text


# -- Differences ----------------------------------------------------------------------------------


def test_outputs_are_compared_with_the_one_that_most_have(hosts: Hosts) -> None:
    done = hosts.run("--diff", "web[1-4]", "odd", "show")
    assert done.stdout == (
        "web[1,3]:\n  one\n  \n  three\n"
        "--- web[1,3]\n+++ web2\n@@ -1,3 +1,3 @@\n one\n-\n+web2\n three\n"
        "--- web[1,3]\n+++ web4\n@@ -1,3 +1,3 @@\n one\n-\n+web4\n three\n"
    )


def test_no_output_and_no_newline_are_differences(hosts: Hosts) -> None:
    done = hosts.run("--diff", "web[1-4],dead1", "shy", "show")
    end = "three\n\\ No newline at end of file\n"
    assert done.stdout == (
        "web[1-2,4]:\n  one\n  two\n  three\n"
        f"--- web[1-2,4]\n+++ web3\n@@ -1,3 +0,0 @@\n-one\n-two\n-{end}"
    )
    done = hosts.run("--diff", "web[1-4]", "third", "fails")
    assert done.stdout == ""
    said = "--- web[1-2,4]\n+++ web3\n@@ -0,0 +1 @@\n+disk full\n"
    assert done.stderr.startswith(said)
    assert hosts.run("--diff", "dead[1-2]", "name", "show").stdout == ""


def test_differences_have_colours_on_a_terminal(hosts: Hosts) -> None:
    with hosts.terminal("-q", "--diff", "n4,web[1-2]", "octets", "show") as terminal:
        assert terminal.wait() == 0
    assert r"\x1b[31mx" in terminal.everything
    with hosts.terminal("-q", "--diff", "n4,web[1-2]", "name", "show") as terminal:
        assert terminal.wait() == 0
    shown = terminal.everything.replace("\r", "")
    assert "\x1b[1m--- n4,web1\x1b[0m\n\x1b[1m+++ web2\x1b[0m\n\x1b[36m@@ -1 +1 @@" in shown
    assert "\x1b[31m-I am web1\x1b[0m\n\x1b[32m+I am web2\x1b[0m\n" in shown


# -- Some at random -------------------------------------------------------------------------------


def test_some_hosts_are_picked(hosts: Hosts) -> None:
    picks = set()
    for _ in range(3):
        done = hosts.run("--dry-run", "--pick", "20", "n[1-200]", "name", "show")
        names = done.stdout.split()
        assert len(set(names)) == 20
        assert names == sorted(names, key=lambda name: int(name[1:]))
        picks.add(done.stdout)
    assert len(picks) == 3
    assert hosts.run("--dry-run", "--pick", "9", "web3,web1", "do").stdout == "web3\nweb1\n"
    done = hosts.run("--gather", "--pick", "1", "web[1-4],-web2", "name", "show")
    assert re.fullmatch(r"(web[134]): I am \1\n", done.stdout)


# -- The largest status ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["web[1-4]", "third", "fails"], 4),
        (["web[1-2]", "third", "fails"], 0),
        (["--json", "web[1-4]", "test", "status", "200"], 200),
        (["web[1-2],dead1", "name", "show"], 255),
        (["web[1-2],deny1", "name", "show"], 255),
        (["--first", "1", "web3,web[1-2]", "third", "fails"], 255),
        (["web3", "third", "fails"], 4),
        (["dead1", "name", "show"], 255),
        (["web[1-4", "name", "show"], 2),
    ],
)
def test_the_largest_status_is_the_exit_status(hosts: Hosts, words: list[str], status: int) -> None:
    assert hosts.run("-S", *words).returncode == status
