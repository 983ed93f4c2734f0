"""remctl-fleet and remctl-rsh send the octets that were typed, in every locale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.fleets import ARGUMENTS, Hosts
from cli.rsh import Bridge, bridge
from support.waiting import eventually
from testing.processes import TIMEOUT

from remctl_toolkit.cli.octets import argument_octets, split_line
from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

# Octets that are text in some of the locales, and in none of the others.
WORDS = [
    b"\xfc",
    b"\xc3\xbc",
    b"\x80",
    b"\xa4\xa2",
    b"\x95\x5c",
    b"\xff\xfe",
    b"",
    b"plain",
    b"\xe8",
]
LOCALES = [
    ("C", None, None),
    ("en_US.utf8", "UTF-8", "en_US"),
    ("de_DE.iso88591", "ISO-8859-1", "de_DE"),
    ("de_DE.iso885915", "ISO-8859-15", "de_DE"),
    ("ru_RU.koi8r", "KOI8-R", "ru_RU"),
    ("ja_JP.eucjp", "EUC-JP", "ja_JP"),
    ("ja_JP.sjis", "SHIFT_JIS", "ja_JP"),
    ("zh_CN.gbk", "GBK", "zh_CN"),
    ("zh_TW.big5", "BIG5", "zh_TW"),
]


@pytest.fixture(params=LOCALES, ids=lambda each: each[0])
def locale(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Variables for a locale, which is generated if possible."""
    name, charmap, source = request.param
    folder = tmp_path_factory.mktemp("locale")
    if charmap is not None:
        if not shutil.which("localedef"):
            pytest.skip("localedef is not installed")
        # It warns about some, and makes them all the same.
        command = ["localedef", "-f", charmap, "-i", source, str(folder / name)]
        subprocess.run(command, capture_output=True, check=False)
        if not (folder / name).exists():
            pytest.skip(f"no sources of the locale {name}")
    return {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONUTF8": "", "PYTHONIOENCODING": ""}


@pytest.fixture(scope="module")
def rsh(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A server for remctl-rsh."""
    with bridge(remctl_realm, tmp_path_factory.mktemp("rsh")) as found:
        yield found


def run(
    hosts: Hosts, locale: dict[str, str], *arguments: bytes | str, typed: bytes = b""
) -> list[bytes]:
    """Return the output of remctl-fleet."""
    environ = {name: value for name, value in hosts.environ(**locale).items() if value}
    words = [*ARGUMENTS, "--principal", hosts.realm.host_principal, *arguments]
    done = subprocess.run(
        [os.fsencode(word) for word in words],
        env=environ,
        input=typed,
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.stderr == b"", done.stderr
    return done.stdout.splitlines()


def shown(words: list[bytes]) -> list[bytes]:
    return [word.hex().encode() for word in words]


def test_arguments_arrive_as_they_were_typed(hosts: Hosts, locale: dict[str, str]) -> None:
    assert run(hosts, locale, "-q", "web1", "octets", "take", *WORDS) == shown(WORDS)


def test_words_for_a_remote_shell_arrive_as_they_were_typed(
    rsh: Bridge, locale: dict[str, str]
) -> None:
    words = [word for word in WORDS if word]
    environ = {name: value for name, value in {**rsh.env, **locale}.items() if value}
    for command, end in (
        (["--exact", rsh.host, "printf", "%s\\n"], b""),
        ([rsh.host, "echo"], b"'"),
    ):
        quoted = [end + word + end for word in words]
        done = subprocess.run(
            [rsh.program, *command, *quoted], env=environ, capture_output=True, timeout=TIMEOUT
        )
        assert done.stderr == b""
        assert done.stdout.split() == words


def test_lines_of_a_shell_arrive_as_they_were_typed(hosts: Hosts, locale: dict[str, str]) -> None:
    lines = b"".join(b"octets take '%b'\n" % word for word in WORDS if word != b"\x95\x5c")
    expected = shown([word for word in WORDS if word != b"\x95\x5c"])
    assert run(hosts, locale, "--shell", "web1", typed=lines) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'a  \'b c\' "d\\"e" f\\ g\r\n', [b"a", b"b c", b'd"e', b"f g"]),
        (b"\xfc '\xfc \xff' \xc3\xbc", [b"\xfc", b"\xfc \xff", b"\xc3\xbc"]),
        ("a\u00a0b \u2003 \x85".encode(), ["a\u00a0b".encode(), "\u2003".encode(), b"\xc2\x85"]),
        (b"a # b", [b"a", b"#", b"b"]),
        (b"  \n", []),
    ],
)
def test_a_line_is_split_as_in_a_shell(line: bytes, words: list[bytes]) -> None:
    assert split_line(line) == words


def test_words_that_are_not_of_this_process_are_encoded() -> None:
    assert argument_octets([]) == []
    assert argument_octets(["a", "\udcff"]) == [b"a", b"\xff"]
    assert argument_octets([b"a\xff"]) == [b"a\xff"]
    code = "from remctl_toolkit.cli.octets import argument_octets; import sys;"
    code += "print(argument_octets(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, b"a\xff", b""], capture_output=True)
    assert done.stdout == b"[b'a\\xff', b'']\n"


def test_octets_that_are_typed_at_a_prompt(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.terminal("--shell", "web1", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.expect("web1> ")
        terminal.type(b"octets take \xff \xc3\xbc\n")
        terminal.expect(r"\r\nff\r\nc3bc\r\n")
        terminal.expect("web1> ")
        terminal.type("exit\n")
        assert terminal.wait() == 0
    history = (tmp_path / "remctl-fleet" / "history").read_bytes()
    assert history == b"octets take \xff \xc3\xbc\nexit\n"


def test_a_secret_is_sent_as_it_was_typed(hosts: Hosts) -> None:
    with hosts.terminal("--ask-secret", "--json", "web1", "input", "show") as terminal:
        for prompt in ("Secret: ", "Repeat secret: "):
            terminal.expect(prompt)
            eventually(lambda: not terminal.shows_what_is_typed(), TIMEOUT)
            terminal.type(b"\xfc \xc3\xbc\xff\n")
        terminal.expect('"stdout_base64": "/CDDvP8="')
        assert terminal.wait() == 0


def test_a_dry_run_shows_octets_that_are_no_text(hosts: Hosts) -> None:
    done = hosts.run("--dry-run", "web1", "--", "a", os.fsdecode(b"\xfc\x1b"))
    assert "would run on 1 host: a '\\xfc\\x1b'\n" in done.stderr
