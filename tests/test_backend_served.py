"""Backends behind a real remctld: whatever a client sends, who it is, and how output travels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import samplebackend
from support.waiting import eventually

import remctl
from remctl_toolkit.testing import Command, RemctldServer, backend_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

BACKEND = samplebackend.backend


@pytest.fixture(scope="module")
def server(remctl_realm: Realm) -> Iterator[RemctldServer]:
    with RemctldServer(remctl_realm, backend_commands(BACKEND)) as server:
        yield server


@pytest.fixture(scope="module")
def session(server: RemctldServer) -> Iterator[remctl.Remctl]:
    with remctl.Remctl(server.host, server.port, timeout=30) as session:
        yield session


def run(session: remctl.Remctl, *args: str | bytes) -> remctl.RemctlSimpleResult:
    return session.run(["sample", *args])


def usage_error(session: remctl.Remctl, *args: str | bytes, status: int = os.EX_USAGE) -> str:
    """Return the one line of a refusal."""
    result = run(session, *args)
    assert (result.status, result.stdout) == (status, None), result.stderr
    lines = result.stderr_text().splitlines(keepends=True)
    assert len(lines) == 1
    assert lines[0].endswith("\n")
    assert lines[0].rstrip("\n").isprintable()
    return lines[0].rstrip("\n")


# -- Arguments ------------------------------------------------------------------------------------


def test_arguments_are_octets(session: remctl.Remctl) -> None:
    parts = [b"", b"--", b"-x", b"--help", b"a b", b"\n\t\x7f", bytes(range(1, 256)), b"\xff\xfe"]
    assert run(session, "octets", *parts).stdout == f"{parts!r}\n".encode()


def test_text_that_is_not_utf_8_survives(session: remctl.Remctl) -> None:
    for octets in (
        b"\xff\xfe",
        "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n".encode(),
        b"\xed\xa0\x80",
    ):
        assert run(session, "echo", octets).check().stdout == octets + b"\n"


def test_octets_are_text_in_utf_8_whatever_the_locale_is(remctld) -> None:
    server = remctld(BACKEND, env={"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"})
    word = "\N{LATIN SMALL LETTER U WITH DIAERESIS}"
    command = ["sample", "name", word]
    result = remctl.remctl(server.host, server.port, command=command, timeout=30)
    assert f"not a name: '{word}'" in result.stderr_text()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["echo"], "sample echo: missing argument: TEXT"),
        (["echo", "a", "b"], "sample echo: too many arguments"),
        (["name", "Bob"], "sample name: WHO: not a name: 'Bob'"),
        (["name", "bob\n"], "sample name: WHO: not a name: 'bob\\n'"),
        (["name", "bob", "x"], "sample name: SIZE: not an integer: 'x'"),
        (["name", "bob", "9" * 5000], f"sample name: SIZE: not an integer: '{'9' * 60}...'"),
        (["name", b"\xff\x1b[2J"], "sample name: WHO: not a name: '\\xff\\x1b[2J'"),
        (["option", "--nonsense"], "sample option: option --nonsense not recognized"),
        (["option", "--unit"], "sample option: option --unit requires argument"),
        (["option", b"--\xff"], "sample option: option --\\xff not recognized"),
        (["note"], "sample: missing subcommand after note"),
        (["note", "burn"], "sample: unknown subcommand: 'note burn'"),
        (["note", "put"], "sample note put: missing argument: TITLE"),
        (["note", "put", "a"], "sample note put: missing argument: TITLE"),
        (["swap", "data"], "sample swap: missing argument: WHERE"),
        (["last"], "sample last: missing argument: DATA"),
        (["save"], "sample save: missing argument: WHERE"),
    ],
)
def test_wrong_arguments_are_one_line(session: remctl.Remctl, args: list[str], text: str) -> None:
    assert usage_error(session, *args) == text


def test_a_huge_argument(session: remctl.Remctl) -> None:
    """Linux takes 128 KiB in one argument; what is more, remctld cannot pass on."""
    assert run(session, "echo", b"x" * 100_000).stdout == b"x" * 100_000 + b"\n"
    refused = usage_error(session, "name", b"\x01" * 100_000)
    assert len(refused) < 400
    too_much = run(session, "echo", b"x" * 200_000)
    assert too_much.status != 0
    assert too_much.stdout is None


def test_many_arguments(session: remctl.Remctl) -> None:
    parts = [b"%d" % number for number in range(4000)]
    assert run(session, "octets", *parts).stdout == f"{parts!r}\n".encode()
    assert usage_error(session, "echo", *parts) == "sample echo: too many arguments"


def test_options(session: remctl.Remctl) -> None:
    assert run(session, "option", "--force", "--unit=TB", "word").stdout == b"word True TB\n"
    assert run(session, "option", "word", "--force").status == os.EX_USAGE
    assert run(session, "option", "--", "--force").stdout == b"--force False GB\n"
    assert run(session, "option", "-").stdout == b"- False GB\n"


# -- The argument on standard input ---------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"\0", b"a\0b", bytes(range(256)) * 4096])
def test_data_are_any_octets(session: remctl.Remctl, data: bytes) -> None:
    assert run(session, "save", "here", data).stdout == b"here %d %r\n" % (len(data), data[:8])
    assert run(session, "swap", data, "here").stdout_text().startswith("here ")
    assert run(session, "last", "--force", data).stdout == b"%d True\n" % len(data)
    assert run(session, "note", "put", "a", data).status == 0


def test_much_data(session: remctl.Remctl) -> None:
    data = b"\xff" * 20_000_000
    assert run(session, "save", "here", data).stdout_text().startswith("here 20000000 ")


def test_missing_data_are_told_from_empty_ones(session: remctl.Remctl) -> None:
    assert usage_error(session, "save", "here") == "sample save: missing argument: DATA"
    assert run(session, "save", "here", "").stdout == b"here 0 b''\n"


def test_malformed_data_have_a_status_of_their_own_and_are_not_repeated(
    session: remctl.Remctl,
) -> None:
    line = usage_error(session, "count", "secret", status=os.EX_DATAERR)
    assert line == "sample count: NUMBER: not an integer"
    assert run(session, "count", "12").stdout == b"12\n"


def test_a_group_gets_its_last_argument_back(session: remctl.Remctl) -> None:
    """stdin= is for the whole line of the group: also for commands that want none."""
    assert run(session, "note", "list", "a", "b").stdout == b"list a b\n"
    assert run(session, "note", "list").stdout == b"list \n"
    assert run(session, "note", "put", "t", "xyz").stdout == b"put t 3\n"


def test_a_nul_where_none_can_be(session: remctl.Remctl) -> None:
    """remctld lets one through in the last argument of such a line."""
    assert "TITLES: contains a NUL" in usage_error(session, "note", "list", b"a\0b")
    with pytest.raises(remctl.RemctlServerError, match="Invalid command token"):
        run(session, "echo", b"a\0b")


def test_no_subcommand_where_remctld_puts_it_on_standard_input(remctld) -> None:
    server = remctld(
        [Command("sample", script=backend_commands(BACKEND)[0].script, stdin="last", acl="ANYUSER")]
    )
    with remctl.Remctl(server.host, server.port, timeout=30) as session:
        assert run(session, "silent") == remctl.RemctlSimpleResult(None, None, 0)
        assert run(session, "last", "x").stdout == b"1 False\n"
        assert run(session, "help").stdout_text().startswith("What the tests ask for.\n")


# -- Who calls ------------------------------------------------------------------------------------


def test_who_calls(session: remctl.Remctl, remctl_realm: Realm) -> None:
    first, second = run(session, "who").stdout_text().splitlines()
    assert first == f"{remctl_realm.user} 127.0.0.1 sample who"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", second)


def test_a_denial(session: remctl.Remctl, server: RemctldServer, remctl_realm: Realm) -> None:
    assert usage_error(session, "admin", status=os.EX_NOPERM) == "sample admin: not allowed"
    remctl_realm.add_principal("user/admin", password="secret")
    ccache = remctl_realm.kinit("user/admin", password="secret", ccache=remctl_realm.new_ccache())
    result = remctl.remctl(server.host, server.port, command=["sample", "admin"], ccache=ccache)
    assert result.stdout == b"welcome\n"


# -- Output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 127, 128, 200, 255])
def test_statuses(session: remctl.Remctl, number: int) -> None:
    assert run(session, "status", str(number)) == remctl.RemctlSimpleResult(None, None, number)


@pytest.mark.parametrize("number", ["256", "-1"])
def test_what_is_no_status_is_an_internal_error(session: remctl.Remctl, number: str) -> None:
    """The system would make it success, or something else."""
    assert "internal error" in usage_error(session, "status", number, status=os.EX_SOFTWARE)


def test_a_failure(session: remctl.Remctl) -> None:
    text = "no\nsuch \x1b[31m user"
    result = run(session, "fail", text)
    assert result == remctl.RemctlSimpleResult(None, b"sample fail: no\\nsuch \\x1b[31m user\n", 3)


@pytest.mark.parametrize("command", ["ticks", "printed"])
def test_output_comes_as_it_is_produced(
    session: remctl.Remctl, command: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    tokens = session.stream(["sample", command, str(fifo)])
    assert next(tokens).output == b"first\n"
    with fifo.open("wb"):
        pass
    assert [token.output for token in tokens] == [b"second\n", None]


def test_an_unexpected_exception_stays_off_the_wire(
    session: remctl.Remctl, server: RemctldServer
) -> None:
    line = usage_error(session, "login", "bob", "hunter2", status=os.EX_SOFTWARE)
    match = re.fullmatch(r"sample login: internal error \(reference ([0-9a-f]{8})\)", line)
    assert match
    log = server.wait_for_log("without its text")
    assert match[1] in log
    assert "samplebackend.py" in log
    assert "for user@REMCTL.TEST" in log
    assert "RuntimeError\n" in log
    assert "hunter2" not in log


def test_a_command_that_dies(session: remctl.Remctl) -> None:
    assert run(session, "killed").status == 255
    assert run(session, "silent").status == 0


def test_output_stays_in_order(session: remctl.Remctl) -> None:
    assert run(session, "mixed").stdout == b"one two three four five\nsix"


def test_a_slow_reader(session: remctl.Remctl, tmp_path: Path) -> None:
    """When all buffers on the way are full, the command waits; nothing is lost."""
    progress = tmp_path / "progress"
    pieces = 500
    tokens = session.stream(["sample", "flood", str(pieces), str(progress)])
    size = len(next(tokens).output or b"")
    seen: list[int] = []

    def stands_still() -> bool:
        seen.append(progress.stat().st_size)
        return seen[-1] > 0 and len(seen) > 5 and len(set(seen[-5:])) == 1

    eventually(stands_still, 30, interval=0.1)
    assert seen[-1] < pieces
    for token in tokens:
        size += len(token.output or b"")
        status = token.status
    assert (size, status) == (pieces * 65536, 0)
    assert progress.stat().st_size == pieces


@pytest.mark.parametrize("by_print", [[], ["--by-print"]])
def test_a_client_that_goes_away(
    server: RemctldServer, by_print: list[str], tmp_path: Path
) -> None:
    said = len(server.log)
    marker = tmp_path / "marker"
    marked = str(marker)
    with remctl.Remctl(server.host, server.port, timeout=30) as session:
        tokens = session.stream(["sample", "endless", *by_print, marked])
        assert next(tokens).output
        session.close()
    process = eventually(lambda: marker.exists() and marker.read_text(), 30, what="the mark")
    eventually(lambda: not Path("/proc", process.strip()).exists(), 30, what="the command's end")
    assert "Traceback" not in server.log[said:], "that is no internal error"


def test_a_closed_stdout(session: remctl.Remctl) -> None:
    line = usage_error(session, "closed", status=os.EX_IOERR)
    assert line == "sample closed: cannot write output: [Errno 9] Bad file descriptor"


# -- Help -----------------------------------------------------------------------------------------


def test_summary_of_what_the_caller_may_run(remctld) -> None:
    commands = [
        command
        if command.subcommand != "login"
        else Command(
            "sample",
            "login",
            script=command.script,
            summary="summary",
            acl="princ:admin@REMCTL.TEST",
        )
        for command in backend_commands(BACKEND)
        if command.subcommand in ("echo", "login", "note")
    ]
    server = remctld(commands)
    result = remctl.remctl(server.host, server.port, command=["help"], timeout=30)
    assert result.check().stdout_text().splitlines() == [
        "sample echo TEXT  Write text back.",
        "sample note put TITLE TEXT    Write a note.",
        "sample note list [TITLES...]  List notes.",
    ]


def test_help(session: remctl.Remctl) -> None:
    text = session.run(["help", "sample", "option"]).check().stdout_text()
    assert text.startswith("usage: sample option [--force] [--unit=UNIT] [WORD]\n\nTake options.\n")
    everything = session.run(["help", "sample"]).check().stdout_text()
    assert everything.startswith("What the tests ask for.\n\nsample octets [PARTS...]")
    assert run(session, "help").stdout_text() == everything
    assert session.run(["help", "sample", "note"]).stdout_text().startswith("Notes.\n")
    with pytest.raises(remctl.RemctlServerError, match="Unknown command"):
        session.run(["help", "sample", "nothing"])


def test_the_administrators_commands_are_not_for_the_network(remctld) -> None:
    """Even where the configuration lets every subcommand through."""
    script = backend_commands(BACKEND)[0].script
    server = remctld([Command("sample", script=script, acl="ANYUSER")])
    with remctl.Remctl(server.host, server.port, timeout=30) as session:
        assert usage_error(session, "config") == "sample: unknown subcommand: 'config'"
        assert usage_error(session, "check", "/etc/passwd") == "sample: unknown subcommand: 'check'"
