"""docs/errors.md: its trees are those of the code, and it has every text that has a note."""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer, Peer, stall_after_output

import _remctl_hints
import remctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

pytestmark = [pytest.mark.once, pytest.mark.nightly]

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "errors.md").read_text()
LINE = re.compile(r"^( *)(?:\+-- )?(\w+Error)(?: {2,}\w.*)?$")
TIMEOUT = 20  # seconds

Tree = dict[str, str]  # the name of each class, and that of the class it derives from


def trees() -> list[Tree]:
    """Those that the page shows, in its order; what stands at the top derives from itself."""
    found = []
    for block in re.findall(r"^```text\n(RemctlError\b.*?)^```$", TEXT, re.M | re.S):
        lines = [LINE.match(line) for line in block.splitlines()]
        if None in lines or len(lines) == 1:
            continue
        tree: Tree = {}
        above: list[tuple[int, str]] = []
        for depth, name in ((len(line[1]), line[2]) for line in lines if line):
            above = [each for each in above if each[0] < depth]
            tree[name] = above[-1][1] if above else name
            above.append((depth, name))
        found.append(tree)
    return found


def tree_of(kinds: set[type[BaseException]]) -> Tree:
    tree = {kind.__name__: kind.__bases__[0].__name__ for kind in kinds}
    return {**tree, "RemctlError": "RemctlError"}


def public_errors(package: str) -> set[type[BaseException]]:
    """The exceptions of remctl's tree that a module, or a module of a package, offers."""
    modules = [importlib.import_module(package)]
    for each in pkgutil.iter_modules(getattr(modules[0], "__path__", ())):
        if not each.name.startswith("_"):
            modules.append(importlib.import_module(f"{package}.{each.name}"))
    offered = [getattr(each, name) for each in modules for name in getattr(each, "__all__", ())]
    kinds = {each for each in offered if isinstance(each, type)}
    return {kind for kind in kinds if issubclass(kind, remctl.RemctlError)}


def test_the_trees_are_those_of_the_code() -> None:
    ours, toolkit = trees()
    bindings = public_errors("remctl")
    assert ours == tree_of(bindings)
    added = public_errors("remctl_toolkit.machine") | public_errors("remctl_toolkit.fleet")
    assert toolkit == tree_of(added - bindings)


def test_the_sections_are_in_the_order_of_the_tree() -> None:
    ours, _ = trees()
    headings = re.findall(r"^## (Remctl\w+)$", TEXT, re.MULTILINE)
    assert headings == list(ours)


def test_every_text_that_has_a_note_is_on_the_page() -> None:
    hints = (*_remctl_hints._AUTHENTICATION_HINTS, *_remctl_hints._DISCONNECTED_HINTS)
    texts = [part for part, _ in hints]
    assert [text for text in texts if text.removeprefix(": ") not in TEXT] == []


def test_every_code_of_a_server_is_on_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in remctl.RemctlErrorCode]


# -- "Did the command run?" -----------------------------------------------------------------------


def falls_silent(peer: Peer) -> None:
    peer.accept()
    peer.stall(reading=False)


def hangs_up_at_hello(peer: Peer) -> None:
    peer.read_hello()


def hangs_up_after_the_command(peer: Peer) -> None:
    peer.accept()
    peer.read_command()


def talks_nonsense(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_message(b"\2\xff")


@pytest.mark.parametrize(
    ("script", "kind", "sent"),
    [
        (falls_silent, remctl.RemctlTimeoutError, False),
        (hangs_up_at_hello, remctl.RemctlAuthenticationError, False),
        (hangs_up_after_the_command, remctl.RemctlDisconnectedError, True),
        (talks_nonsense, remctl.RemctlAnswerError, True),
    ],
)
def test_partial_tells_whether_the_command_was_sent(
    script: object, kind: type[remctl.RemctlError], sent: bool, remctl_realm: Realm
) -> None:
    """The first server does not read, and the command is longer than what the kernels hold."""
    command = ["test", "cat", b"x" * (20 << 20 if script is falls_silent else 1)]
    timeout = 1 if script is falls_silent else TIMEOUT
    with FakeServer(remctl_realm.keytab, script) as server, pytest.raises(kind) as caught:
        remctl.remctl("localhost", server.port, command=command, timeout=timeout)
    assert (caught.value.partial is not None) is sent
    assert bool(server.commands) is sent


def test_partial_of_a_call_that_was_closed(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, stall_after_output) as server:
        connection = remctl.Remctl("localhost", server.port)
        closer = threading.Thread(target=connection.close)

        class Output(io.BytesIO):
            def write(self, octets: Buffer, /) -> int:
                closer.start()  # By now the call reads; before, it might have been sending.
                return super().write(octets)

        with pytest.raises(remctl.RemctlNotOpenedError) as caught:
            connection.run(["test"], stdout=Output())
        closer.join()
    assert caught.value.partial == remctl.RemctlSimpleResult()
