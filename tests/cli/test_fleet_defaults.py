"""Default options of remctl-fleet, and their precedence."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.fleets import Hosts

from remctl_toolkit.cli.fleet import defaults, main
from remctl_toolkit.cli.fleet.options import CONNECT_TIMEOUT, given_options, parse

pytestmark = pytest.mark.once


class Places:
    """Files with default options."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.system = folder / "etc" / "remctl-fleet" / "options"
        self.user = folder / "home" / "remctl-fleet" / "options"
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(defaults, "SYSTEM", self.system)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(self.user.parent.parent))
        monkeypatch.delenv(defaults.VARIABLE, raising=False)
        for path in (self.system, self.user):
            path.parent.mkdir(parents=True)

    def environ(self, text: str) -> None:
        self._monkeypatch.setenv(defaults.VARIABLE, text)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


def test_the_command_line_wins_then_the_environment_the_user_and_the_system(
    places: Places,
) -> None:
    places.system.write_text("--timeout 1 --concurrency 1 --limit 1\n--port 1\n")
    places.user.write_text("# mine\n\n--timeout 2  # slow\n--concurrency 2\n--limit=2\n")
    places.environ("--timeout 3 --concurrency 3")
    options = parse(["-t", "4", "web1", "do"])
    found = (options.timeout, options.concurrency, options.limit, options.port)
    assert found == (4, 3, 2, 1)
    assert given_options(options) == ["--timeout", "4"]
    options = parse(["-t4", "--no-defaults", "web1", "do"])
    found = (options.timeout, options.concurrency, options.limit, options.port)
    assert found == (4, 64, None, None)


def test_a_default_that_is_typed_wins_too(places: Places) -> None:
    places.environ("--concurrency 3 --json --first 2")
    options = parse(["--concurrency", "64", "--live", "--first", "0", "web1", "do"])
    assert (options.concurrency, options.first) == (64, 0)
    assert (options.live, options.json) == (True, False)
    words = ["--concurrency", "64", "--first", "0", "--live"]
    assert given_options(options) == words
    assert parse(["web1", "do"]).json
    places.system.write_text("--live")
    options = parse(["web1", "do"])
    assert (options.live, options.json) == (False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--timeout x", "line 2: argument -t/--timeout: it must be a number of seconds"),
        ("--timout 3", "line 2: unrecognized arguments: --timout"),
        ("--timeout", "line 2: argument -t/--timeout: expected one argument"),
        ("web1", "line 2: only options can be defaults"),
        ("-- do", "line 2: only options can be defaults"),
        ("--quiet do it", "line 2: only options can be defaults"),
        ("--ccache 'x", "line 2: no closing quotation"),
        ("--live --json", "line 2: argument --json: not allowed with argument --live"),
        ("-qh", "line 2: write each option as a separate word"),
        *(
            (f"{word} x", f"line 2: {word} cannot be a default")
            for word in (
                *("--hosts-file", "--srv", "--exclude", "--failed-to", "--outdir"),
                "--errdir",
            )
        ),
        ("--pick 3", "line 2: --pick cannot be a default"),
        *(
            (word, f"line 2: {word} cannot be a default")
            for word in (
                *("--dry-run", "--stdin", "--ask-secret", "--no-defaults", "--shell", "--any"),
            )
        ),
        ("--help", "line 2: --help and --version cannot be defaults"),
        ("--\x1b[2J\u202e", r"line 2: unrecognized arguments: --\x1b[2J\u202e"),
        ("-v", "line 2: --help and --version cannot be defaults"),
    ],
)
def test_a_wrong_default_is_one_line_with_its_place(
    places: Places, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    places.user.write_text(f"--quiet\n{text}\n")
    try:
        status = main(["web1", "do"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"remctl-fleet: {places.user}, {message}")
    assert (shown.out, shown.err.count("\n"), status) == ("", 1, 2)


def test_help_is_there_whatever_the_defaults_are(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.system.write_text("--nonsense")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "REMCTL_FLEET_OPTIONS" in capsys.readouterr().out


def test_files_that_are_not_there_are_none(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(["web1", "do"]).timeout is None
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "")
    assert parse(["web1", "do"]).timeout is None
    home = places.user.parent.parent.parent
    monkeypatch.setenv("HOME", str(home))
    (home / ".config" / "remctl-fleet").mkdir(parents=True)
    (home / ".config" / "remctl-fleet" / "options").write_bytes(b"\xef\xbb\xbf-t 7 # \xff\r\n")
    assert parse(["web1", "do"]).timeout == 7


def test_a_file_that_cannot_be_read_is_named(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.system.mkdir()
    assert main(["web1", "do"]) == 2
    said = f"remctl-fleet: cannot read {places.system}: Is a directory\n"
    assert capsys.readouterr().err == said


def test_the_command_takes_them(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "remctl-fleet" / "options"
    path.parent.mkdir()
    path.write_text("--live\n--quiet\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "REMCTL_FLEET_OPTIONS": "--gather"}
    done = hosts.run("web[1-2]", "lines", "show", **environ)
    assert (done.stdout, done.stderr) == ("web[1-2]:\n  one\n  two\n", "web[1-2]: look out\n")
    done = hosts.run("--live", "web2", "name", "show", **environ)
    assert done.stdout == "web2: I am web2\n"


def test_groups_come_from_a_file_that_is_named(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "groups.conf"
    path.write_text(
        f"[Main]\ndefault: here\n[here]\nmap: sed -n 's/^$GROUP: //p' {tmp_path}/names\n"
    )
    (tmp_path / "names").write_text("good: web[1-2]\n")
    done = hosts.run("@good", "name", "show", REMCTL_FLEET_OPTIONS=f"-q --groups {path}")
    assert done.stderr == ""
    assert done.stdout == "web1: I am web1\nweb2: I am web2\n"
    done = hosts.run("--groups", str(tmp_path / "none"), "@good", "name", "show")
    assert done.stderr == f"remctl-fleet: cannot read {tmp_path}/none: No such file or directory\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ([], CONNECT_TIMEOUT),
        (["--connect-timeout", "3"], 3),
        (["--connect-timeout", "0"], None),
        (["--timeout", "60"], None),
        (["--timeout", "0"], None),
        (["--timeout", "60", "--connect-timeout", "5"], 5),
    ],
)
def test_connecting_has_a_limit_unless_told_otherwise(
    places: Places, words: list[str], seconds: float | None
) -> None:
    assert parse([*words, "web1", "do"]).connect_timeout == seconds
