"""Guarantees that rely on Kerberos: the server's identity, integrity and confidentiality."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer, Peer
from support.wire import Flag
from support.wiretap import Wiretap, change_flags

import remctl
from hostile.faults import kerberos_error

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

pytestmark = pytest.mark.once

LIMIT = 20.0
SECRET = "correct-horse-battery-staple"
COMMAND = ["test", "echo", SECRET]


# -- Who the server is ----------------------------------------------------------------------------


def test_anybody_can_send_an_error_of_kerberos(remctl_realm: Realm) -> None:
    """Kerberos errors are not protected by a key; their texts are the library's."""

    def reject(peer: Peer) -> None:
        peer.read_hello()
        peer.read_token()
        peer.send_token(Flag.CONTEXT | Flag.PROTOCOL, kerberos_error(12))

    with (
        FakeServer(remctl_realm.keytab, reject) as server,
        pytest.raises(remctl.RemctlAuthenticationError, match="policy rejects"),
    ):
        remctl.remctl("localhost", server.port, command=COMMAND, timeout=LIMIT)


# -- Flags that are requested from GSS-API --------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <gssapi/gssapi.h>
#include <stdlib.h>

OM_uint32
gss_init_sec_context(OM_uint32 *minor, gss_cred_id_t cred, gss_ctx_id_t *context, gss_name_t name,
                     gss_OID mech, OM_uint32 wanted, OM_uint32 time, gss_channel_bindings_t bind,
                     gss_buffer_t in, gss_OID *actual, gss_buffer_t out, OM_uint32 *flags,
                     OM_uint32 *left)
{
    OM_uint32 (*real)(OM_uint32 *, gss_cred_id_t, gss_ctx_id_t *, gss_name_t, gss_OID, OM_uint32,
                      OM_uint32, gss_channel_bindings_t, gss_buffer_t, gss_OID *, gss_buffer_t,
                      OM_uint32 *, OM_uint32 *);
    OM_uint32 major;

    *(void **) &real = dlsym(RTLD_NEXT, "gss_init_sec_context");
    major = real(minor, cred, context, name, mech, wanted, time, bind, in, actual, out, flags,
                 left);
    if (flags != NULL)
        *flags &= ~(OM_uint32) atoi(getenv("MISSING_GSS_FLAGS"));
    return major;
}
"""

PROGRAM = """
import sys, remctl
try:
    remctl.remctl("localhost", sys.argv[1], command=["test"], timeout=20)
    print("result")
except remctl.RemctlError as error:
    print(type(error).__name__, error)
"""

MUTUAL, CONF, INTEG = 2, 16, 32  # RFC 2744, appendix A


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that removes flags from those that GSS-API reports.

    With MIT Kerberos a server cannot do this, because the client alone decides.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and LD_PRELOAD")
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    linking = ["-Wl,--no-as-needed", "-lgssapi_krb5", "-ldl"]  # so that RTLD_NEXT finds it
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, *linking], check=True)
    return library


def run_without(flags: int, port: int, shim: Path) -> str:
    """Run a program with some flags removed, and return its output."""
    environ = {**os.environ, "LD_PRELOAD": str(shim), "MISSING_GSS_FLAGS": str(flags)}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(port)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    return done.stdout.strip()


REFUSED = "RemctlAuthenticationError server did not negotiate acceptable GSS-API flags"


@pytest.mark.parametrize("missing", [MUTUAL, CONF, INTEG])
@pytest.mark.parametrize("version", [2, 3])
def test_context_without_a_flag_is_refused(
    remctl_realm: Realm, shim: Path, version: int, missing: int
) -> None:
    with FakeServer(remctl_realm.keytab, protocol=version) as server:
        assert run_without(0, server.port, shim) == "result", "the shim does no other harm"
        assert run_without(missing, server.port, shim) == REFUSED
        assert server.commands == [[b"test"]], "not only the first command"


def test_flags_are_not_looked_at_with_protocol_1(remctl_realm: Realm, shim: Path) -> None:
    """MIT Kerberos sets them in any case."""
    with FakeServer(remctl_realm.keytab, protocol=1) as server:
        assert run_without(MUTUAL | CONF | INTEG, server.port, shim) == "result"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_context_has_every_protection(remctl_realm: Realm, version: int) -> None:
    """The server also sees sequence and replay detection, which libremctl does not require."""
    seen = []

    def look(peer: Peer) -> None:
        peer.accept(version)
        seen.append({flag.name for flag in peer.context.actual_flags})
        peer.read_command()
        peer.stall()

    with (
        FakeServer(remctl_realm.keytab, look) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as connection,
    ):
        connection.command(["some", "command"])
    assert seen[0] >= {
        "mutual_authentication",
        "confidentiality",
        "integrity",
        "replay_detection",
        "out_of_sequence_detection",
    }


# -- Attacks on the network -----------------------------------------------------------------------


def without_protocol_while_opening(flags: int) -> int:
    return flags & ~Flag.PROTOCOL if flags & Flag.CONTEXT else flags


@pytest.fixture
def downgraded(remctl_server: RemctldServer) -> Iterator[Wiretap]:
    """A network that makes both sides believe that the other speaks only protocol 1."""
    drop = change_flags(lambda flags: flags & ~Flag.PROTOCOL)
    with Wiretap("127.0.0.1", remctl_server.port, change=drop) as tap:
        yield tap


def test_network_can_force_protocol_1_which_protects_as_well(downgraded: Wiretap) -> None:
    with remctl.Remctl("localhost", downgraded.port, timeout=LIMIT) as session:
        assert SECRET in session.run(COMMAND).stdout_text()
        assert session.noop() is False
        refused = session.run(["nonsense", "x"])
    assert (refused.stdout, refused.status) == (b"Unknown command\n", 255)
    assert SECRET.encode() not in downgraded.to_server + downgraded.to_client


def test_flags_that_change_in_the_middle_are_noticed(remctl_realm: Realm) -> None:
    """A network that downgrades only the client gains nothing."""
    drop = change_flags(without_protocol_while_opening)
    with (
        FakeServer(remctl_realm.keytab) as server,
        Wiretap("127.0.0.1", server.port, change=drop) as tap,
        pytest.raises(remctl.RemctlProtocolError),
    ):
        remctl.remctl("localhost", tap.port, command=COMMAND, timeout=LIMIT)
    assert server.commands == []
