"""Errors that type checkers must find; never run.

Both checkers must find an error on each line with a comment: tests/test_type_checkers.py fails if a
comment ignores nothing.
"""

import io
import uuid
from typing import assert_type

import _remctl

import remctl
from remctl_toolkit.fleet import run_on_hosts


def arguments_that_cannot_be_right(connection: remctl.Remctl, name: str | None) -> None:
    remctl.remctl(b"server.example.org", command=["test"])  # type: ignore[arg-type]
    remctl.remctl("server.example.org", 4373.5, command=["test"])  # type: ignore[arg-type]
    remctl.remctl("server.example.org", command=7)  # type: ignore[arg-type]
    remctl.remctl("server.example.org", command=["test"], timeout="5")  # type: ignore[arg-type]
    remctl.remctl("server.example.org", command=["test"], retries=5)  # type: ignore[call-arg]
    connection.run(["account", name])  # type: ignore[list-item]
    connection.run(["account", uuid.uuid4()])  # type: ignore[list-item]
    connection.run(["account"], input=7)  # type: ignore[arg-type]
    connection.run(["account"], b"input")  # type: ignore[call-arg]
    connection.run(["account"], stdout=io.StringIO())  # type: ignore[arg-type]
    connection.run(["account"], input=io.StringIO("text"))  # type: ignore[arg-type]
    connection.run(["account"], stdout="/dev/null")  # type: ignore[arg-type]
    connection.run(["account"], deadline="10")  # type: ignore[arg-type]
    connection.stream(["account"], stdout=io.BytesIO())  # type: ignore[call-arg]
    remctl.Remctl("server.example.org", keepalive="30")  # type: ignore[arg-type]
    connection.set_source_ip(None)  # type: ignore[arg-type]


def results_that_may_be_missing(result: remctl.RemctlSimpleResult) -> None:
    result.stdout.decode()  # type: ignore[union-attr]
    result.output()  # type: ignore[attr-defined]


def tokens_that_have_no_such_field(connection: remctl.Remctl) -> None:
    for token in connection.stream(["account"]):
        token.output.decode()  # type: ignore[union-attr]
        if token.type == "output":
            print(token.status + 1)  # type: ignore[operator]
        else:
            print(token.status + 1)
            len(token.output)  # type: ignore[arg-type]
    next(connection.stream(["account"])).text()  # type: ignore[union-attr]
    connection.stream(["account"]).send(None)  # type: ignore[attr-defined]


class NoCache(remctl.RemctlCredentials):
    """It does not have ccache()."""


class WrongCache:
    def ccache(self) -> bytes:
        return b"MEMORY:"


def credentials_that_are_none() -> None:
    remctl.RemctlCredentials()  # type: ignore[misc]
    NoCache()  # type: ignore[abstract]
    remctl.Remctl("server.example.org", credentials=WrongCache())  # type: ignore[arg-type]
    remctl.Remctl("server.example.org", credentials="MEMORY:")  # type: ignore[arg-type]


def what_cannot_be_set(error: remctl.RemctlError, token: remctl.RemctlOutput) -> None:
    error.value = "another reason"  # type: ignore[misc]
    token.status = 0  # type: ignore[misc]
    remctl.RemctlOutput("status", None, None, None, None)  # type: ignore[call-overload]
    assert_type(token.type == "stdout", bool)  # type: ignore[comparison-overlap]


def arguments_of_fleets() -> None:
    run_on_hosts(["web1"], ["test"], timeuot=5)  # type: ignore[call-arg]
    run_on_hosts(["web1"], ["test"], timeout="5")  # type: ignore[arg-type]
    run_on_hosts(["web1"], ["test"], credentials=WrongCache())  # type: ignore[arg-type]


def the_low_level_interface(handle: _remctl.Handle) -> None:
    _remctl.Handle(3)  # type: ignore[call-arg]
    _remctl.remctl_commandv(handle, ["test"])  # type: ignore[list-item]
    _remctl.remctl_commandv(handle=handle, command=[b"test"])  # type: ignore[call-arg]
    handle.fd = 3  # type: ignore[misc]
