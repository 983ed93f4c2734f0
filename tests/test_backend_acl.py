"""ACLs of a backend's commands, enforced by remctld and by the backend."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import guardedbackend

import remctl
from remctl_toolkit.backend import Backend
from remctl_toolkit.backend.acl import ANONYMOUS, entries_of, only_for_remctld, permits
from remctl_toolkit.testing import Command, Realm, RemctldServer, backend_commands

pytestmark = pytest.mark.once

USER = "user@REMCTL.TEST"
OTHER = "other@REMCTL.TEST"
BACKEND = guardedbackend.backend


@pytest.fixture(scope="module")
def realm(remctl_realm: Realm) -> Realm:
    """The realm, with another user in it."""
    remctl_realm.add_principal("other", password="secret")
    return remctl_realm


@pytest.fixture(scope="module")
def ccaches(realm: Realm) -> dict[str, Any]:
    other = realm.kinit("other", password="secret", ccache=realm.new_ccache())
    return {USER: None, OTHER: other}


@pytest.fixture(scope="module")
def server(realm: Realm) -> Iterator[RemctldServer]:
    with RemctldServer(realm, backend_commands(BACKEND)) as server:
        yield server


@pytest.fixture(scope="module")
def wide(realm: Realm) -> Iterator[RemctldServer]:
    """A server whose configuration lets everybody run everything."""
    script = backend_commands(BACKEND)[0].script
    with RemctldServer(realm, [Command("account", script=script, acl="ANYUSER")]) as server:
        yield server


def run(server: RemctldServer, ccache: Any, *args: str) -> remctl.RemctlSimpleResult:
    command = ["account", *args]
    return remctl.remctl(server.host, server.port, command=command, ccache=ccache, timeout=30)


# -- The rules are those of remctld ---------------------------------------------------------------


ENTRIES = [
    "ANYUSER",
    "anyuser:auth",
    "anyuser:anonymous",
    f"princ:{USER}",
    f"princ:{OTHER}",
    f"deny:princ:{USER}",
    f"deny:{USER}",
    f"deny:{OTHER}",
    "deny:ANYUSER",
    "deny:anyuser:anonymous",
    f"deny:deny:princ:{USER}",
]
ACLS = [(entry,) for entry in ENTRIES] + list(itertools.permutations(ENTRIES, 2))


def test_remctld_decides_the_same(realm: Realm, ccaches: dict[str, Any]) -> None:
    commands = [
        Command("x", f"s{number}", program="/bin/true", acl=acl) for number, acl in enumerate(ACLS)
    ]
    differ = []
    with RemctldServer(realm, commands) as server:
        for user, ccache in ccaches.items():
            with remctl.Remctl(server.host, server.port, ccache=ccache, timeout=30) as session:
                for number, acl in enumerate(ACLS):
                    try:
                        allowed = session.run(["x", f"s{number}"]).status == 0
                    except remctl.RemctlServerError:
                        allowed = False
                    if permits(acl, user) is not allowed:
                        differ.append((user, acl, allowed))
    assert differ == []


@pytest.mark.parametrize(
    ("acl", "user", "allowed"),
    [
        (["ANYUSER"], ANONYMOUS, False),
        (["anyuser:auth"], ANONYMOUS, False),
        (["anyuser:anonymous"], ANONYMOUS, True),
        (["deny:ANYUSER", "anyuser:anonymous"], ANONYMOUS, True),
        (["deny:ANYUSER", "anyuser:anonymous"], USER, False),
        # It is no prefix, no pattern, and case counts.
        ([f"princ:{USER}"], f"{USER}.EVIL", False),
        ([f"princ:{USER}"], USER.upper(), False),
        (["princ:*"], USER, False),
        # If nobody is known to call, nobody in particular is let in, and anybody may be denied.
        (["ANYUSER"], None, True),
        ([f"princ:{USER}"], None, False),
        ([f"deny:{USER}", "ANYUSER"], None, False),
        (["ANYUSER", f"deny:{USER}"], None, True),
        # What only remctld can tell, it has told.
        (["file:/x"], USER, None),
        (["deny:file:/x", "ANYUSER"], USER, None),
        ([f"deny:{USER}", "file:/x"], USER, False),
        ([f"princ:{USER}", "file:/x"], USER, True),
        ([], USER, None),
    ],
)
def test_whom_an_acl_lets_in(acl: list[str], user: str | None, allowed: bool | None) -> None:
    assert permits(acl, user) is allowed


# -- What may be declared -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acl", "said"),
    [
        ([], "acl= is empty"),
        ((), "acl= is empty"),
        ("", "remctl.conf needs one word"),
        ("ANYUSER princ:a@R", "remctl.conf needs one word"),
        ("princ:a@R\nx", "remctl.conf needs one word"),
        ("princ:a\\", "remctl.conf needs one word"),
        ("alice@R", "for a principal, write princ:alice@R"),
        ("anyuser", "remctld would read it as a file name"),
        ("help=x", "remctld would read it as a file name"),
        ("deny:/etc/blocked", "for a file, write deny:file:/etc/blocked"),
        ("anyuser:all", "anyuser:auth or anyuser:anonymous"),
        ("deny:anyuser:all", "anyuser:auth or anyuser:anonymous"),
        ("princ:", "nothing follows the colon"),
        ("deny:", "nothing follows the colon"),
        ("user:a@R", "no ACL method 'user'"),
        ("deny:user:a@R", "no ACL method 'user'"),
        (["ANYUSER", "Princ:a@R"], "no ACL method 'Princ'"),
    ],
)
def test_what_remctld_would_not_take_is_refused_where_it_stands(acl: Any, said: str) -> None:
    backend = Backend("test", acl="ANYUSER")
    with pytest.raises(ValueError, match=r"^run: ") as caught:
        backend.command("run", acl=acl)(lambda: None)
    assert said in str(caught.value)
    with pytest.raises(ValueError, match=r"^g: "):
        backend.group("g", acl=acl)
    with pytest.raises(ValueError, match=r"^test: "):
        Backend("test", acl=acl)
    assert backend.members == {}


def test_an_entry_that_is_no_text() -> None:
    with pytest.raises(TypeError, match="run: an ACL entry must be a str, not b'ANYUSER'"):
        Backend("test").command("run", acl=[b"ANYUSER"])(lambda: None)  # type: ignore[list-item]


@pytest.mark.parametrize(
    "entry",
    [
        "file:/x",
        "/x",
        "deny:file:/x",
        "gput:x",
        "localgroup:x",
        "pcre:x",
        "regex:x",
        "deny:regex:x",
    ],
)
def test_what_only_remctld_can_evaluate(entry: str) -> None:
    assert entries_of(entry, "x") == (entry,)
    assert only_for_remctld(["ANYUSER", entry]) == entry
    backend = Backend("test", acl="ANYUSER")
    backend.command("alone", acl=entry)(lambda: None)  # its own line: remctld evaluates it
    same = backend.group("same", acl=entry)
    same.command("one")(lambda: None)
    same.group("inner").command("two")(lambda: None)
    for first, second in ((entry, "ANYUSER"), ("ANYUSER", entry)):
        group = backend.group(f"g{first}")
        group.command("one", acl=first)(lambda: None)
        with pytest.raises(ValueError, match="only remctld can evaluate, but another") as caught:
            group.group("inner").command("two", acl=second)(lambda: None)
        assert repr(entry) in str(caught.value)
    assert backend.invoke(["alone"], user=USER).status == 0
    assert backend.invoke(["same", "inner", "two"], user=USER).status == 0


def test_all_commands_of_a_group_have_an_acl_or_none() -> None:
    backend = Backend("test")
    group = backend.group("g")
    group.command("one")(lambda: None)
    group.command("two")(lambda: None)
    with pytest.raises(ValueError, match=r"^g one has no ACL, but other commands"):
        group.command("three", acl="ANYUSER")(lambda: None)
    assert backend.invoke(["g", "two"], user=USER).status == 0
    assert list(group.members) == ["one", "two"]


# -- Who may run what -----------------------------------------------------------------------------

# The command, and who may run it.
RIGHTS = [
    (["user", "show", "x"], {USER, OTHER}),
    (["user", "delete", "x"], {OTHER}),
    (["user", "deep", "er", "drop"], {OTHER}),
    (["user"], {OTHER}),
    (["password", "hint"], {USER, OTHER}),
    (["password", "set", "new"], {OTHER}),
    (["password", "reset", "new"], {USER}),
    (["nobody", "one"], set[str]()),
    (["nobody", "two"], set[str]()),
    (["stop"], {OTHER}),
    ([], {OTHER}),
]


@pytest.mark.parametrize(("args", "allowed"), RIGHTS)
@pytest.mark.parametrize("user", [USER, OTHER])
def test_a_declared_acl_is_enforced(
    server: RemctldServer, ccaches: dict[str, Any], args: list[str], allowed: set[str], user: str
) -> None:
    ccache = ccaches[user]
    # remctld refuses whoever may run no command of the line.
    if user == USER and args[:1] in ([], ["stop"]):
        with pytest.raises(remctl.RemctlServerError, match="Access denied"):
            run(server, ccache, *args)
        return
    result = run(server, ccache, *args)
    words = " ".join(["account", *(word for word in args if word not in ("x", "new"))])
    if user in allowed:
        assert result == remctl.RemctlSimpleResult(b"done\n", None, 0)
    else:
        denied = f"{words}: not allowed\n".encode()
        assert result == remctl.RemctlSimpleResult(None, denied, os.EX_NOPERM)


@pytest.mark.parametrize(("args", "allowed"), RIGHTS)
def test_a_line_that_lets_in_everybody_changes_nothing(
    wide: RemctldServer, ccaches: dict[str, Any], args: list[str], allowed: set[str]
) -> None:
    for user, ccache in ccaches.items():
        denied = run(wide, ccache, *args).status == os.EX_NOPERM
        assert denied is (user not in allowed)


@pytest.mark.parametrize(
    "args",
    [
        ["user", "delete"],
        ["user", "delete", "--nonsense"],
        ["user", "delete", "a", "b"],
        ["password", "set", b"\0"],
        ["password", "set"],
    ],
)
def test_arguments_are_not_looked_at_before(
    wide: RemctldServer, server: RemctldServer, args: list[str]
) -> None:
    result = run(server, None, *args)
    assert result.status == os.EX_NOPERM
    assert result.stderr_text().endswith(": not allowed\n")


@pytest.mark.parametrize("args", [["user", "deletE"], ["user", ""], ["user", "deep", "delete"]])
def test_other_ways_to_say_it_lead_nowhere(server: RemctldServer, args: list[str]) -> None:
    assert run(server, None, *args).status == os.EX_USAGE


def test_other_acls_for_a_test_take_the_place_of_the_declared_ones(remctld: Any) -> None:
    server = remctld(backend_commands(BACKEND, acl=("princ:nobody@REMCTL.TEST", f"princ:{USER}")))
    for args, _ in RIGHTS:
        assert run(server, None, *args).stdout == b"done\n"


# -- Help -----------------------------------------------------------------------------------------


def test_help_shows_what_the_caller_may_run(wide: RemctldServer, ccaches: dict[str, Any]) -> None:
    for user, ccache in ccaches.items():
        with remctl.Remctl(wide.host, wide.port, ccache=ccache, timeout=30) as session:
            listed = session.run(["account", "help", "user"]).stdout_text()
            assert "account user show" in listed
            assert ("account user delete" in listed) is (user == OTHER)
            everything = session.run(["account", "help"]).stdout_text()
            assert "account user show" in everything
            assert ("account password reset" in everything) is (user == USER)
            asked = session.run(["account", "help", "user", "delete"])
            if user == OTHER:
                assert asked.stdout_text().startswith("usage: account user delete")
            else:
                denied = b"account: not allowed\n"
                assert asked == remctl.RemctlSimpleResult(None, denied, os.EX_NOPERM)


def test_remctlds_own_help_shows_the_same(server: RemctldServer, ccaches: dict[str, Any]) -> None:
    for user, ccache in ccaches.items():
        with remctl.Remctl(server.host, server.port, ccache=ccache, timeout=30) as session:
            listed = session.run(["help"]).stdout_text()
            assert "account user show" in listed
            for line, allowed in (
                ("account user delete", OTHER),
                ("account user deep er drop", OTHER),
                ("account password reset", USER),
                ("account stop", OTHER),
            ):
                assert (line in listed) is (user == allowed), listed


# -- Without a server -----------------------------------------------------------------------------


def test_without_a_user_nobody_in_particular_is_let_in() -> None:
    assert BACKEND.invoke(["user", "show", "x"]).stdout == b"done\n"
    for args in (["user", "delete", "x"], ["password", "set", "x"]):
        result = BACKEND.invoke(args)
        assert result.status == os.EX_NOPERM
        assert "REMOTE_USER is not set" in result.stderr_text()
    assert BACKEND.invoke(["user", "delete", "x"], user=OTHER).stdout == b"done\n"
    assert BACKEND.invoke(["help"]).stdout_text().count("account user") == 4, "to read by hand"


def test_an_anonymous_caller_is_not_any_user(tmp_path: Path) -> None:
    backend = Backend("test")
    group = backend.group("g")
    group.command("open", acl="anyuser:anonymous")(lambda: None)
    group.command("closed", acl="ANYUSER")(lambda: None)
    assert backend.invoke(["g", "open"], user=ANONYMOUS).status == 0
    assert backend.invoke(["g", "closed"], user=ANONYMOUS).status == os.EX_NOPERM
    assert backend.rules()[0]["acl"] == ("anyuser:anonymous", "ANYUSER")
