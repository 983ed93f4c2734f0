"""remctl.conf: the lines a backend has, what remctld makes of them, and what `check` finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import samplebackend

import remctl
from remctl_toolkit.backend import Backend, CommandError, configuration
from remctl_toolkit.testing import ServerError

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

PROGRAM = """
import sys
sys.path[:] = {path!r}
from remctl_toolkit.backend import Backend, Context
backend = Backend("quota", "Quotas."{acl})

@backend.command()
def show(user: str):
    return user + " has 10 GB"

admins = ["princ:admin@REMCTL.TEST", "princ:root@REMCTL.TEST"]

@backend.command("set", logmask=["password"], acl=admins)
def set_quota(context: Context, user: str, password: str):
    pass

@backend.command(stdin="data", hidden=True)
def load(data: bytes):
    return str(len(data))

raise SystemExit(backend.run())
"""
LINES = """\
quota show {0} summary=summary help=help ANYUSER
quota set {0} logmask=3 summary=summary help=help princ:admin@REMCTL.TEST princ:root@REMCTL.TEST
quota load {0} stdin=2 help=help ANYUSER
quota help {0} ANYUSER
quota EMPTY {0} help=help ANYUSER
"""


WITH_EMPTY = Backend("list", acl="ANYUSER")
WITH_EMPTY.command("")(lambda: "all")
WITH_EMPTY.command("show")(lambda user: user)


def write_program(folder: Path, acl: str = ', acl="ANYUSER"') -> Path:
    program = folder / "quota"
    text = PROGRAM.format(path=sys.path, acl=acl)
    program.write_text(f"#!{sys.executable} -I\n{text}")
    program.chmod(0o755)
    return program


def run(program: Path, *args: str) -> tuple[int, str, str]:
    environ = {name: value for name, value in os.environ.items() if name != "REMCTL_COMMAND"}
    done = subprocess.run(
        [program, *args],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environ,
        timeout=50,
    )
    return done.returncode, done.stdout, done.stderr


def declared(**keywords: Any) -> Backend:
    """A backend with one command, which takes what the tests below ask about."""
    backend = Backend("test", acl="ANYUSER")
    function = keywords.pop("function")
    backend.command("run", **keywords)(function)
    return backend


def test_config_prints_the_lines(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    assert run(program, "config") == (0, LINES.format(program), "")
    assert run(program, "config", "--program=/x")[1] == LINES.format("/x")


def test_config_wants_an_acl(tmp_path: Path) -> None:
    program = write_program(tmp_path, acl="")
    status, stdout, stderr = run(program, "config")
    assert (status, stderr) == (
        os.EX_USAGE,
        "quota: show has no ACL: declare acl=, or add one after config\n",
    )
    status, stdout, stderr = run(program, "config", "ANYUSER", "deny:x")
    assert status == 0
    assert "quota show" in stdout
    assert stdout.count(" ANYUSER deny:x\n") == 2
    assert stdout.count("root@REMCTL.TEST\n") == 3, "help is for all who may run anything"


def test_remctld_takes_them(tmp_path: Path, remctld: Any, remctl_realm: Realm) -> None:
    program = write_program(tmp_path)
    server = remctld(config=run(program, "config")[1])
    with remctl.Remctl(server.host, server.port, timeout=30) as session:
        assert session.run(["quota", "show", "alice"]).stdout == b"alice has 10 GB\n"
        assert session.run(["quota", "load", b"a\0b"]).stdout == b"3\n"
        assert session.run(["help"]).stdout == b"quota show USER\n"
        assert b"usage: quota load DATA" in (session.run(["help", "quota", "load"]).stdout or b"")
        for command in (["help", "quota"], ["quota", "help"]):
            assert session.run(command).stdout_text().startswith("Quotas.\n\nquota show USER\n")
        with pytest.raises(remctl.RemctlServerError, match="Access denied"):
            session.run(["quota", "set", "alice", "secret"])
        with pytest.raises(remctl.RemctlServerError, match="Unknown command"):
            session.run(["quota", "config"])
    assert "secret" not in server.wait_for_log("quota set alice **MASKED**")


def test_check_agrees_with_config(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    file = tmp_path / "remctl.conf"
    file.write_text(run(program, "config")[1])
    assert run(program, "check", str(file)) == (0, f"{file}: as declared\n", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("logmask=3", "", "{0}:2: quota set: it has no logmask=, but logmask=3 is declared"),
        (
            "logmask=3",
            "logmask=2,3",
            "{0}:2: quota set: it has logmask=2,3, but logmask=3 is declared",
        ),
        ("stdin=2", "stdin=last", "{0}:3: quota load: it has stdin=last, but stdin=2 is declared"),
        (
            "quota show {1}",
            "quota show {1} stdin=2",
            "{0}:1: quota show: it has stdin=2, but none is declared",
        ),
        (
            " princ:root@REMCTL.TEST",
            "",
            "{0}:2: quota set: its ACL is princ:admin@REMCTL.TEST,"
            " but princ:admin@REMCTL.TEST princ:root@REMCTL.TEST is declared",
        ),
        (
            "quota show {1}",
            "quota show /bin/echo",
            "{0}:1: quota show: the line runs /bin/echo, not {1}",
        ),
        (
            "quota load",
            "quota lod",
            "{0}: quota load: no line serves this command\n{0}:3: quota lod: no such subcommand",
        ),
        (
            "quota show {1}",
            "quota ALL {1}",
            "{0}:1: quota set: it has no logmask=, but logmask=3 is declared",
        ),
    ],
)
def test_check_finds_differences(tmp_path: Path, old: str, new: str, said: str) -> None:
    program = write_program(tmp_path)
    file = tmp_path / "remctl.conf"
    lines = LINES.format(program)
    changed = lines.replace(old.format(file, program), new.format(file, program))
    assert changed != lines
    file.write_text(changed)
    status, stdout, stderr = run(program, "check", str(file))
    assert (status, stderr) == (1, "")
    assert said.format(file, program) in stdout
    if "ALL" not in new:
        assert stdout == said.format(file, program) + "\n"


def test_check_reads_what_remctld_reads(tmp_path: Path) -> None:
    """Continued lines, comments, includes of files and folders, options of others, tabs."""
    program = write_program(tmp_path)
    lines = LINES.format(program).splitlines()
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "two").write_text(f"{lines[1].replace('logmask=3', 'logmask=3 user=nobody')}\n")
    (folder / "ignored.bak").write_text("quota nonsense /bin/true ANYUSER\n")
    (tmp_path / "three").write_text("\n".join(lines[2:]) + "\n")
    file = tmp_path / "remctl.conf"
    first = lines[0].replace(" summary", " \\\n\tsummary")
    file.write_text(
        f"# quota show \\\nquota show /bin/false ANYUSER\n\nother ALL /bin/x ANYUSER\n{first}\n"
        f"include {folder}\ninclude {tmp_path}/three\n"
    )
    assert run(program, "check", str(file)) == (0, f"{file}: as declared\n", "")


def test_check_of_what_cannot_be_read(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    file = tmp_path / "remctl.conf"
    missing = run(program, "check", str(file))
    assert missing == (os.EX_NOINPUT, "", f"quota: {file}: No such file or directory\n")
    for text in ("quota show\n", "quota show /bin/x summary=summary\n"):
        file.write_text(text)
        malformed = run(program, "check", str(file))
        refusal = f"quota: {file}:1: remctld cannot read this line: "
        assert (*malformed[:2], malformed[2][: len(refusal)]) == (os.EX_CONFIG, "", refusal)
    assert run(program, "check")[0] == os.EX_USAGE
    assert run(program, "check", "--nonsense", "x")[0] == os.EX_USAGE


# What a file has, and the ACL of its line for `quota show`; None for no line, "" for a file that
# remctld refuses.
FILES = {
    "line": (b"quota show /bin/echo ANYUSER\n", ["ANYUSER"]),
    "tabs": (b"\tquota\tshow  /bin/echo\tANYUSER\t\n", ["ANYUSER"]),
    "carriage return": (b"quota show /bin/echo ANYUSER\r\n", ["ANYUSER\r"]),
    "form feed": (b"quota show /bin/echo princ:a\x0cANYUSER\n", ["princ:a\x0cANYUSER"]),
    "form feed before": (b"\x0cquota show /bin/echo ANYUSER\n", None),
    "comment": (b"\x0c\r\v #quota show /bin/echo ANYUSER\n\x0c\n\n", None),
    "line separator": ("other x /bin/echo princ:a\u2028quota show /x ANYUSER\n".encode(), None),
    "next line": ("quota\u0085show /bin/echo a b\n".encode(), None),
    "no-break space": ("quota show /bin/echo princ:a\u00a0b\n".encode(), ["princ:a\u00a0b"]),
    "continued": (b"quota \\\nshow /bin/echo\\\n \\\nANYUSER\n", ["ANYUSER"]),
    "continued comment": (b"# \\\nquota show /bin/echo ANYUSER\n", None),
    "backslash within": (b"quota show /bin/echo ANY\\USER\\ \n", ["ANY\\USER\\"]),
    "no octets of UTF-8": (b"\xff show /bin/echo ANYUSER\n", None),
    "empty": (b"", None),
    "include as a command": (b"include show /bin/echo ANYUSER\n", None),
    "empty option": (b"quota show /bin/echo help= ANYUSER\n", ["help=", "ANYUSER"]),
    "option without a name": (b"quota show /bin/echo =x ANYUSER\n", ["=x", "ANYUSER"]),
    "options": (b"quota show /bin/echo stdin=+2 logmask=1,02 help=a=b ANYUSER\n", ["ANYUSER"]),
    "folder": (b"include {folder}\n", ["ANYUSER"]),
    "lone backslash": (b"\\\nquota show /bin/echo ANYUSER\n", ""),
    "no end": (b"quota show /bin/echo ANYUSER", ""),
    "never ends": (b"quota show /bin/echo ANYUSER \\\n", ""),
    "unknown option": (b"quota show /bin/echo timeout=3 ANYUSER\n", ""),
    "no number": (b"quota show /bin/echo stdin=first ANYUSER\n", ""),
    "zero": (b"quota show /bin/echo stdin=0 ANYUSER\n", ""),
    "mask": (b"quota show /bin/echo logmask=2,last ANYUSER\n", ""),
    "no ACL": (b"quota show /bin/echo help=help\n", ""),
    "itself": (b"include {file}\n", ""),
    "byte order mark": (b"\xef\xbb\xbf# comment\nquota show /bin/echo ANYUSER\n", ""),
}


@pytest.mark.parametrize(("octets", "acl"), FILES.values(), ids=FILES)
def test_check_reads_a_file_as_remctld_does(
    tmp_path: Path, remctld: Any, octets: bytes, acl: Any
) -> None:
    folder, file = tmp_path / "conf.d", tmp_path / "remctl.conf"
    (folder / "folder").mkdir(parents=True)
    (folder / "quota").write_text("quota show /bin/echo ANYUSER\n")
    (folder / "caf\xe9").write_text("nonsense\n")
    names = {b"{folder}": folder, b"{file}": file}
    for name, path in names.items():
        octets = octets.replace(name, os.fsencode(path))
    file.write_bytes(octets)
    if acl == "":
        with pytest.raises(CommandError, match=r":[12]: remctld cannot read this line: ") as caught:
            list(configuration.read(file))
        assert caught.value.status == os.EX_CONFIG
        with pytest.raises(ServerError, match="cannot read configuration file"):
            remctld(config=f"include {file}")
        return
    found = {line.command: line for line in configuration.read(file)}.get("quota")
    assert (found and list(found.acl)) == acl
    server = remctld(config=f"include {file}")
    command = ["quota", "show", "x"]
    if acl == ["ANYUSER"]:
        assert remctl.remctl(server.host, server.port, command=command).status == 0
    else:
        said = "Access denied" if acl else "Unknown command"
        with pytest.raises(remctl.RemctlServerError, match=said):
            remctl.remctl(server.host, server.port, command=command)


def test_check_shows_what_cannot_be_seen(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    file = tmp_path / "remctl.conf"
    file.write_text(LINES.format(program), newline="\r\n")
    status, stdout, _ = run(program, "check", str(file))
    assert status == 1
    assert r"quota show: its ACL is ANYUSER\r, but ANYUSER is declared" in stdout


@pytest.mark.parametrize(
    ("function", "stdin"),
    [
        (lambda a: None, 2),
        (lambda b, a: None, 3),
        (lambda a, b: None, 2),
        (lambda b, a=b"": None, 3),
        (lambda b=1, *, a2=1, a=2: None, TypeError),
        (lambda b, a, *, c=1: None, "last"),
        (lambda b=1, a=None: None, TypeError),
        (lambda a, b, *, c=1: None, TypeError),
        (lambda *a: None, TypeError),
    ],
)
def test_where_standard_input_is(function: Any, stdin: Any) -> None:
    if isinstance(stdin, type):
        with pytest.raises(stdin, match="command 'run': parameter 'a': "):
            declared(function=function, stdin="a")
    else:
        assert declared(function=function, stdin="a").rules()[0]["stdin"] == stdin


def test_masks_need_fixed_places() -> None:
    backend = declared(function=lambda a, b, c=1: None, logmask=["c", "a"])
    assert backend.rules()[0]["logmask"] == (2, 4)
    for keywords in ({"logmask": ["b"]}, {"logmask": ["a"], "json": True}, {"logmask": ["x"]}):
        function = (lambda a: None) if "json" in keywords else (lambda a, *, b=1: None)
        with pytest.raises(TypeError, match=r"command 'run': parameter '[abx]': "):
            declared(function=function, **keywords)
    with pytest.raises(TypeError, match="standard input"):
        declared(function=lambda a, *, b=1: None, logmask="a")


def test_a_mask_for_what_is_on_standard_input_is_not_needed() -> None:
    backend = declared(function=lambda a, b: None, stdin="b", logmask=["a", "b"])
    assert backend.rules()[0]["logmask"] == (2,)


def test_a_group_has_one_line() -> None:
    rules = {rule["subcommand"]: rule for rule in samplebackend.backend.rules()}
    assert rules["note"]["stdin"] == "last"
    backend = Backend("test", acl="ANYUSER")
    group = backend.group("g", acl="princ:a@R")
    group.command("one", logmask=["x"])(lambda x: None)
    group.command("two", logmask=["y"], acl="princ:b@R")(lambda x, y: None)
    (rule, *_) = backend.rules()
    assert (rule["subcommand"], rule["logmask"]) == ("g", (3, 4))
    assert rule["acl"] == ("princ:a@R", "princ:b@R")


@pytest.mark.parametrize(
    ("one", "two", "line"),
    [
        ("ANYUSER", "ANYUSER", ["ANYUSER"]),
        (["princ:a@R", "ANYUSER"], "ANYUSER", ["princ:a@R", "ANYUSER"]),
        # What one command denies does not shut out those who may run the other.
        ("ANYUSER", ["deny:princ:a@R", "ANYUSER"], ["ANYUSER"]),
        (["deny:princ:a@R", "ANYUSER"], "princ:b@R", ["ANYUSER", "princ:b@R"]),
        # What both deny is denied by the line, too.
        (
            ["deny:princ:a@R", "princ:b@R"],
            ["deny:princ:a@R", "deny:princ:c@R", "ANYUSER"],
            ["deny:princ:a@R", "princ:b@R", "ANYUSER"],
        ),
        # Nobody may run either.
        ("deny:princ:a@R", "deny:princ:b@R", ["deny:princ:a@R"]),
        # Only remctld can evaluate it, and it is the same for all.
        (["deny:file:/x", "/y"], ["deny:file:/x", "/y"], ["deny:file:/x", "/y"]),
    ],
)
def test_the_line_of_a_group_lets_in_whoever_may_run_one_of_its_commands(
    one: Any, two: Any, line: list[str]
) -> None:
    backend = Backend("test", acl="ANYUSER")
    group = backend.group("g")
    group.command("one", acl=one)(lambda: None)
    group.group("inner").command("two", acl=two)(lambda: None)
    assert backend.rules()[0]["acl"] == tuple(line)


def test_help_is_for_whoever_may_run_anything() -> None:
    backend = Backend("test")
    backend.command("one", acl="princ:a@R")(lambda: None)
    backend.command("two", acl=["deny:princ:a@R", "ANYUSER"])(lambda: None)
    assert {rule["subcommand"]: rule["acl"] for rule in backend.rules()} == {
        "one": ("princ:a@R",),
        "two": ("deny:princ:a@R", "ANYUSER"),
        "help": ("princ:a@R", "ANYUSER"),
        "EMPTY": ("princ:a@R", "ANYUSER"),
    }


def test_check_finds_a_line_of_a_group_that_lets_in_more_than_was_declared(tmp_path: Path) -> None:
    backend = Backend("test")
    group = backend.group("g")
    group.command("one", acl="princ:a@R")(lambda: None)
    group.command("two", acl="princ:b@R")(lambda: None)
    file = tmp_path / "remctl.conf"
    for subcommand in ("g", "ALL"):
        file.write_text(f"test {subcommand} /bin/x ANYUSER\n")
        assert backend.check(file)[0] == (
            f"{file}:1: test g: its ACL is ANYUSER, but princ:a@R princ:b@R is declared"
        )
    file.write_text("test g /bin/x princ:a@R princ:b@R\n")
    assert backend.check(file) == []


def test_check_is_content_where_a_site_wants_no_help(tmp_path: Path) -> None:
    """Neither help= and summary= nor the lines that are for help alone."""
    program = write_program(tmp_path)
    file = tmp_path / "remctl.conf"
    lines = LINES.format(program).replace(" summary=summary", "").replace(" help=help", "")
    file.write_text(lines)
    assert run(program, "check", str(file)) == (0, f"{file}: as declared\n", "")
    commands = [line for line in lines.splitlines(True) if line.split()[1] not in ("help", "EMPTY")]
    assert len(commands) == 3
    file.write_text("".join(commands))
    assert run(program, "check", str(file)) == (0, f"{file}: as declared\n", "")
    file.write_text("".join(commands).replace(f"{program}", f"{program} help=usage", 1))
    assert run(program, "check", str(file)) == (
        1,
        f"{file}:1: quota show: it has help=usage, but help=help is declared\n",
        "",
    )


def test_check_wants_the_line_of_a_command_without_subcommand(tmp_path: Path) -> None:
    backend = Backend("test", acl="ANYUSER")
    backend.command("")(lambda: None)
    file = tmp_path / "remctl.conf"
    file.write_text("")
    assert backend.check(file) == [f"{file}: test EMPTY: no line serves this command"]


def test_the_summary_has_each_command_once(remctld: Any) -> None:
    """Without a subcommand, a line has the summary of all; those have lines of their own."""
    server = remctld(WITH_EMPTY)
    result = remctl.remctl(server.host, server.port, command=["help"])
    assert result.stdout_text() == "list show USER\n"
    assert remctl.remctl(server.host, server.port, command=["list"]).stdout == b"all\n"


def test_an_empty_subcommand_has_its_line() -> None:
    backend = Backend("test", acl="ANYUSER")
    backend.command("")(lambda: None)
    assert [rule["subcommand"] for rule in backend.rules()] == ["EMPTY", "help"]


def test_a_path_with_white_space_is_refused() -> None:
    backend = declared(function=lambda: None)
    with pytest.raises(configuration.UsageError, match="white space"):
        configuration.lines(backend, "/a path")


def test_own_commands_of_these_names_are_for_the_network() -> None:
    backend = Backend("test")
    backend.command("check")(lambda what: f"checked {what}")
    backend.command("config")(lambda: "configured")
    assert backend.invoke(["check", "x"]).stdout == b"checked x\n"
    assert backend.invoke(["config"]).stdout == b"configured\n"
