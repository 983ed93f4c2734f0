"""Whatever goes wrong with remctl is a RemctlError, and names of files are what they are."""

from __future__ import annotations

import asyncio
import os
import pathlib
import resource
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from support.subprocesses import in_child

import remctl
from remctl_toolkit.aio import aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]
NOT_UTF8 = os.fsdecode(b"\xff")
Call = Callable[..., remctl.RemctlSimpleResult]


def call_once(port: int, **keywords: Any) -> remctl.RemctlSimpleResult:
    given = {"host": "localhost", "command": ECHO, "timeout": LIMIT, **keywords}
    return remctl.remctl(port=port, **given)


def call_async(port: int, **keywords: Any) -> remctl.RemctlSimpleResult:
    given = {"host": "localhost", "command": ECHO, "timeout": LIMIT, **keywords}
    return asyncio.run(aremctl(port=port, **given))


calls = pytest.mark.parametrize("call", [call_once, call_async])


# -- Credential caches whose names are not UTF-8 --------------------------------------------------


@pytest.fixture
def odd_ccache(remctl_realm: Realm) -> str:
    name = os.fsencode(remctl_realm.tmpdir) + b"/cache-\xff\xe9"
    shutil.copy(os.fsencode(remctl_realm.ccache.removeprefix("FILE:")), name)
    return os.fsdecode(name)


class Named(remctl.RemctlCredentials):
    """Credentials that name one cache."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ccache(self) -> str:
        return self.name


@calls
@pytest.mark.parametrize("kind", ["str", "FILE:", "path", "credentials"])
def test_a_credential_cache_whose_name_is_not_utf8(
    remctl_server: RemctldServer, odd_ccache: str, call: Call, kind: str
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "str": {"ccache": odd_ccache},
        "FILE:": {"ccache": f"FILE:{odd_ccache}"},
        "path": {"ccache": pathlib.Path(odd_ccache)},
        "credentials": {"credentials": Named(odd_ccache)},
    }
    assert call(remctl_server.port, **kinds[kind]).stdout == b"hello\n"


def test_set_ccache(remctl_server: RemctldServer, odd_ccache: str) -> None:
    with remctl.Remctl(timeout=LIMIT) as session:
        session.set_ccache(odd_ccache)
        session.open("localhost", remctl_server.port)
        assert session.run(ECHO).stdout == b"hello\n"


def test_a_missing_credential_cache_whose_name_is_not_utf8(remctl_server: RemctldServer) -> None:
    with pytest.raises(remctl.RemctlAuthenticationError) as caught:
        call_once(remctl_server.port, ccache=f"/nonexistent/{NOT_UTF8}")
    str(caught.value).encode("utf-8", "surrogateescape")


@calls
def test_a_ccache_that_cannot_be_a_name(call: Call) -> None:
    with pytest.raises(ValueError, match=r"credential cache|surrogate"):
        call(1, ccache="\ud800")
    with pytest.raises(ValueError, match="credential cache"):
        call(1, ccache="a\0b")


# -- Arguments that no server could use -----------------------------------------------------------


@calls
@pytest.mark.parametrize("host", ["a..b", "x" * 300, NOT_UTF8, "\ud800", "h\u00e9", "a b", "."])
def test_a_host_name_that_cannot_be_one(call: Call, host: str) -> None:
    with pytest.raises((remctl.RemctlConnectError, ValueError)) as caught:
        call(1, host=host)
    assert not isinstance(caught.value, UnicodeError)


@calls
@pytest.mark.parametrize("principal", [NOT_UTF8, "\ud800", "a@b@c", "@", "h\u00e9/x"])
def test_a_principal_that_cannot_be_one(
    remctl_server: RemctldServer, call: Call, principal: str
) -> None:
    with pytest.raises((remctl.RemctlAuthenticationError, ValueError)) as caught:
        call(remctl_server.port, principal=principal)
    assert not isinstance(caught.value, UnicodeError)


@calls
def test_a_source_address_that_is_not_ours(remctl_server: RemctldServer, call: Call) -> None:
    with pytest.raises(remctl.RemctlConnectError):
        call(remctl_server.port, source_ip="192.0.2.1")


# -- Resources that are used up -------------------------------------------------------------------


def run_out_of_descriptors(port: int) -> list[str]:
    """Open with ever more free descriptors; the names of the exceptions, until it works."""
    kept = [os.open(os.devnull, os.O_RDONLY)]
    call_once(port)  # What is imported and loaded has been.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = []
    for free in range(30):
        limit = max(map(int, os.listdir("/proc/self/fd"))) + 1 + free
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            call_once(port)
            break
        except Exception as error:
            kind = remctl.RemctlError if isinstance(error, remctl.RemctlError) else type(error)
            found.append(kind.__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.close(kept[0])
    return found


def test_no_descriptor_is_left(remctl_server: RemctldServer) -> None:
    assert set(in_child(run_out_of_descriptors, remctl_server.port)) == {"RemctlError"}
