"""What a type checker must object to; never run.

Each line expects one error.  mypy --strict, in ./run lint, fails where an expected error does not
come: the comment is an unused one then.
"""

import io
import uuid
from typing import assert_type

import _remctl

import remctl


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
    connection.set_source_ip(None)  # type: ignore[arg-type]


def results_that_may_be_missing(result: remctl.RemctlSimpleResult) -> None:
    result.stdout.decode()  # type: ignore[union-attr]
    result.output()  # type: ignore[attr-defined]


def what_cannot_be_set(error: remctl.RemctlError, token: remctl.RemctlOutput) -> None:
    error.value = "another reason"  # type: ignore[misc]
    token.status = 0  # type: ignore[misc]
    assert_type(token.type == "stdout", bool)  # type: ignore[comparison-overlap]


def the_low_level_interface(handle: _remctl.Handle) -> None:
    _remctl.Handle(3)  # type: ignore[call-arg]
    _remctl.remctl_commandv(handle, ["test"])  # type: ignore[list-item]
    _remctl.remctl_commandv(handle=handle, command=[b"test"])  # type: ignore[call-arg]
    handle.fd = 3  # type: ignore[misc]
