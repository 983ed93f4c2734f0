"""Backends in the pytest fixture: which can be run by a server, and with which ACL."""

from __future__ import annotations

from typing import Any

import pytest
from support import samplebackend

import remctl
from remctl_toolkit.backend import Backend, launch
from remctl_toolkit.testing import Command, Realm, backend_commands

BACKEND = samplebackend.backend
PRIVATE = Backend("private")


@PRIVATE.command()
def ping() -> str:
    return "pong"


def test_one_backend_and_several(remctld: Any) -> None:
    for commands in (BACKEND, [BACKEND], (c for c in [Command("x", program="/bin/echo"), BACKEND])):
        server = remctld(commands)
        result = remctl.remctl(server.host, server.port, command=["sample", "echo", "x"])
        assert result.check().stdout == b"x\n"


def test_declared_acls_count_unless_others_are_given(remctld: Any) -> None:
    nobody = backend_commands(BACKEND, acl="princ:nobody@REMCTL.TEST")
    assert {command.acl for command in nobody} == {("princ:nobody@REMCTL.TEST",)}
    assert {command.acl for command in backend_commands(BACKEND)} == {("ANYUSER",)}
    server = remctld(nobody)
    with pytest.raises(remctl.RemctlServerError, match="Access denied"):
        remctl.remctl(server.host, server.port, command=["sample", "echo", "x"])


def test_a_backend_without_acls_is_for_the_realms_user(remctld: Any, remctl_realm: Realm) -> None:
    server = remctld(PRIVATE)
    call = {"host": server.host, "port": server.port, "command": ["private", "ping"]}
    assert remctl.remctl(**call).stdout == b"pong\n"
    remctl_realm.add_principal("another", password="secret")
    ccache = remctl_realm.kinit("another", password="secret", ccache=remctl_realm.new_ccache())
    with pytest.raises(remctl.RemctlServerError, match="Access denied"):
        remctl.remctl(**call, ccache=ccache)


def test_a_backend_that_another_process_cannot_find(remctld: Any) -> None:
    backend = Backend("hidden")
    with pytest.raises(ValueError, match="at the top level of its file"):
        remctld(backend)


def test_launching_finds_a_backend_by_its_name() -> None:
    assert launch.find(samplebackend.__file__, "sample").name == "sample"
    with pytest.raises(LookupError, match="no backend 'other'"):
        launch.find(samplebackend.__file__, "other")
