"""Tests of SECURITY.md's promises about the network; and that each promise has a test."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import ClientGone, FakeServer, Peer, serve
from support.wire import HEADER, Flag, tokens_in
from support.wiretap import Wiretap, flip_octet

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hunter2-hunter2-hunter2"
ECHO = ["test", "echo", SECRET]
SLACK = 0.5  # seconds of silence after which a token whose length was changed is given up


# -- The server is who it should be ---------------------------------------------------------------

CONTEXT = Flag.CONTEXT | Flag.PROTOCOL
NEGOTIATION = [Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, CONTEXT]


def claim_to_be_done(peer: Peer) -> None:
    peer.send_token(CONTEXT, b"")


def answer_with_nonsense(peer: Peer) -> None:
    peer.send_token(CONTEXT, os.urandom(100))


def answer_with_data(peer: Peer) -> None:
    peer.send_token(Flag.DATA | Flag.PROTOCOL, b"\3\7")


def send_its_own_back(peer: Peer, received: bytes) -> None:
    peer.send_token(CONTEXT, received)


@pytest.mark.parametrize(
    "answer", [claim_to_be_done, answer_with_nonsense, answer_with_data, send_its_own_back]
)
def test_no_octet_of_a_command_goes_to_who_cannot_prove_to_be_the_server(
    remctl_realm: Realm, answer: Callable[..., None]
) -> None:
    later: list[bytes] = []

    def pretend(peer: Peer) -> None:
        peer.read_hello()
        received = peer.read_token().payload
        arguments = (received,) if answer is send_its_own_back else ()
        answer(peer, *arguments)
        with pytest.raises(ClientGone):
            later.append(peer.read_token().payload)

    with (
        FakeServer(remctl_realm.keytab, pretend) as server,
        Wiretap("127.0.0.1", server.port) as tap,
        pytest.raises(remctl.RemctlAuthenticationError),
    ):
        remctl.remctl("localhost", tap.port, command=ECHO, timeout=20)
    assert [flags for flags, _ in tokens_in(tap.to_server)] == NEGOTIATION
    assert later == []
    assert server.errors == []


def test_the_proof_of_an_earlier_session_proves_nothing(
    remctl_realm: Realm, remctl_server: RemctldServer
) -> None:
    with Wiretap("127.0.0.1", remctl_server.port) as earlier:
        assert remctl.remctl("localhost", earlier.port, command=ECHO).status == 0

    def replay(peer: Peer) -> None:
        peer.read_hello()
        peer.read_token()
        peer.send_raw(bytes(earlier.to_client))
        with pytest.raises(ClientGone):
            peer.read_token()

    with (
        FakeServer(remctl_realm.keytab, replay) as server,
        Wiretap("127.0.0.1", server.port) as tap,
        pytest.raises(remctl.RemctlAuthenticationError),
    ):
        remctl.remctl("localhost", tap.port, command=ECHO, timeout=20)
    assert [flags for flags, _ in tokens_in(tap.to_server)] == NEGOTIATION
    assert server.errors == []


def test_another_host_of_the_realm_is_not_the_server(
    remctl_realm: Realm, remctl_server: RemctldServer
) -> None:
    other = remctl_realm.add_principal("host/other.example.org")
    with (
        Wiretap("127.0.0.1", remctl_server.port) as tap,
        pytest.raises(remctl.RemctlAuthenticationError),
    ):
        remctl.remctl("localhost", tap.port, other, ECHO, timeout=20)
    assert [flags for flags, _ in tokens_in(tap.to_server)] == NEGOTIATION


# -- What passes is nobody else's -----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_commands_input_and_output_cannot_be_read_on_the_way(
    remctl_realm: Realm, protocol: int
) -> None:
    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        assert command[2:] == [SECRET.encode(), SECRET.encode()]
        return command[2][::-1], command[3][::-1], 0

    with (
        FakeServer(remctl_realm.keytab, serve(handler=answer), protocol=protocol) as server,
        Wiretap("127.0.0.1", server.port) as tap,
    ):
        result = remctl.remctl("localhost", tap.port, command=ECHO, input=SECRET, timeout=20)
    output = (result.stdout or b"") + (result.stderr or b"")
    assert output == 2 * SECRET[::-1].encode()
    assert server.errors == []
    assert len(tokens_in(tap.to_server)) > len(NEGOTIATION)
    for octets in (tap.to_server, tap.to_client):
        assert SECRET.encode() not in octets
        assert SECRET[::-1].encode() not in octets


def test_an_octet_that_was_changed_on_the_way_is_found(remctl_server: RemctldServer) -> None:
    target: dict[str, Any] = {"principal": remctl_server.principal, "timeout": 20}
    with Wiretap("127.0.0.1", remctl_server.port) as tap:
        assert remctl.remctl("localhost", tap.port, command=ECHO, **target).status == 0
        _, *answer = tokens_in(tap.to_client)
    for place in range(sum(HEADER.size + len(payload) for _, payload in answer)):
        with (
            Wiretap("127.0.0.1", remctl_server.port, change=flip_octet(place)) as tap,
            remctl.Remctl("localhost", tap.port, **target) as session,
        ):
            session.set_timeout(SLACK)
            with pytest.raises(remctl.RemctlProtocolError) as caught:
                session.run(ECHO)
        assert not isinstance(caught.value, remctl.RemctlServerError), place
        partial = caught.value.partial
        assert partial is not None
        assert partial.status is None
        assert partial.stdout in (None, f"{SECRET}\n".encode()), place


# -- SECURITY.md ----------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / "stress").exists(), reason="an sdist lacks some of them")
def test_each_promise_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    promises = text.partition("## What is promised")[2].partition("\n## ")[0]
    paragraphs = re.split(r"\n(?=\d+\. )", promises)[1:]
    assert len(paragraphs) >= 16
    for paragraph in paragraphs:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", " ".join(paragraph.split()))
        assert named, paragraph
        for file, function in named:
            assert f"def {function}(" in (ROOT / file).read_text(), (file, function)


def test_each_page_that_is_named_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text)
    assert len(links) > 10
    for file, anchor in links:
        page = (ROOT / (file or "SECURITY.md")).read_text()
        titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, (file, anchor)
