"""One Kerberos in the process, whose credential caches all share; ./run wheel tries wheels so."""

import os
import re
from pathlib import Path

import gssapi
import pytest

import remctl
from remctl_toolkit.testing import Realm, RemctldServer


def loaded(name: str) -> set[str]:
    """Return the files of a library that this process has loaded; auditwheel adds a checksum."""
    maps = Path("/proc/self/maps").read_text()
    return set(re.findall(rf"\S*/{name}(?:-\w+)?\.so[.\w]*", maps))


def test_command_with_tickets_that_python_gssapi_put_into_memory(
    remctl_realm: Realm, remctl_server: RemctldServer
) -> None:
    """A wheel with a Kerberos of its own would not find them: MEMORY is the library's memory."""
    tickets = gssapi.Credentials(usage="initiate", store={"ccache": remctl_realm.ccache})
    tickets.store({"ccache": "MEMORY:shared"}, usage="initiate", overwrite=True)
    result = remctl.remctl(
        remctl_server.host,
        remctl_server.port,
        command=["test", "env"],
        ccache="MEMORY:shared",
    )
    assert remctl_realm.user.encode() in (result.check().stdout or b"")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is loaded")
def test_kerberos_is_loaded_once() -> None:
    for library in ("libkrb5", "libgssapi_krb5"):
        assert len(loaded(library)) == 1
    # Said by ./run wheel, of wheels that have libremctl inside.
    if os.environ.get("REMCTL_LINKED") == "statically":
        assert loaded("libremctl") == set()
