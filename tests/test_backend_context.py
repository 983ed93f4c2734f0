"""The caller of a backend's command, and his permissions."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.calling import call

import remctl
from remctl_toolkit.backend import Context, names_in

pytestmark = pytest.mark.once

# -- Who calls ------------------------------------------------------------------------------------


def test_what_remctld_tells() -> None:
    told = {
        "REMOTE_USER": "alice/admin@EXAMPLE.ORG",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_HOST": "client.example.org",
        "REMOTE_EXPIRES": "1900000000",
        "REMCTL_COMMAND": "quota",
    }
    context = Context(told, ("show",))
    assert context.user == "alice/admin@EXAMPLE.ORG"
    assert (context.components, context.realm) == (("alice", "admin"), "EXAMPLE.ORG")
    assert context.instance == "admin"
    assert (context.address, context.untrusted_host) == ("192.0.2.1", "client.example.org")
    assert context.expires == datetime(2030, 3, 17, 17, 46, 40, tzinfo=UTC)
    assert (context.command, context.path) == ("quota", ("show",))
    assert repr(context) == "<Context 'show' for alice/admin@EXAMPLE.ORG from 192.0.2.1>"


def test_what_remctld_does_not_tell() -> None:
    context = Context({"REMOTE_EXPIRES": "0"})
    assert (context.user, context.realm, context.instance) == (None, None, None)
    assert context.components == ()
    assert (context.address, context.untrusted_host, context.expires) == (None, None, None)


@pytest.mark.parametrize(
    ("principal", "components", "realm"),
    [
        ("alice@R", ("alice",), "R"),
        ("a/b/c@R", ("a", "b", "c"), "R"),
        ("alice", ("alice",), None),
        (r"alice\@EVIL@R", ("alice@EVIL",), "R"),
        (r"a\/admin@R", ("a/admin",), "R"),
        (r"a\nb\\@R", ("a\nb\\",), "R"),
        ("alice@R@S", ("alice",), "R@S"),
        ("@R", ("",), "R"),
    ],
)
def test_principals(principal: str, components: tuple[str, ...], realm: str | None) -> None:
    context = Context({"REMOTE_USER": principal})
    assert (context.components, context.realm) == (components, realm)


def allows(user: str | None, *args: Any, **keywords: Any) -> bool:
    return Context({"REMOTE_USER": user} if user else {}).allows(*args, **keywords)


def test_who_is_allowed() -> None:
    assert allows("a@R", "a@R")
    assert allows("a@R", ["b@R", "a@R"])
    assert allows("a@R", realm="R")
    assert allows("a/admin@R", realm={"R", "S"}, instance="admin")
    assert allows("a/admin@R", "a/admin@R", realm="R")


def test_who_is_not_allowed() -> None:
    assert not allows("a@R", "a")
    assert not allows("a@R", "xa@R"), "a text is one name"
    assert not allows("a@R", [])
    assert not allows("a@R", realm="r")
    assert not allows("a@R", realm="R", instance="admin")
    assert not allows("a/admin/x@R", realm="R", instance="admin")
    assert not allows("a/admin@S", realm="R", instance="admin")
    assert not allows(r"a\/admin@R", realm="R", instance="admin")
    assert not allows("a@R", "a@R", realm="S"), "all that is given must hold"
    assert not allows(None, "a@R")
    assert not allows(None, realm=[None, "R"])


def test_a_question_that_asks_nothing_is_a_mistake() -> None:
    for keywords in ({}, {"instance": "admin"}, {"principal": None}):
        with pytest.raises(TypeError, match="give principal, realm"):
            allows("a@R", **keywords)
    with pytest.raises(TypeError, match="realm"):
        allows("a/admin@R", "b@R", instance="admin")


def test_a_denial() -> None:
    def run(context: Context) -> str:
        context.require(realm="ELSEWHERE", message="for others")
        return "secret"

    result = call(run)
    assert result == remctl.RemctlSimpleResult(None, b"test run: for others\n", os.EX_NOPERM)


def test_a_file_of_names(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_bytes(b"# us\n\n  alice@R\nb\xff@R\n")
    assert names_in(file) == {"alice@R", "b\udcff@R"}
