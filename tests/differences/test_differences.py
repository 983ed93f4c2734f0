"""Compare the existing binding and this one fact by fact.

probe.py runs under both, with the same servers.  A difference must be fixed or explained: rows.py
names the row of docs/coming-from-pyremctl.md for each one.  Unused explanations fail, too.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import _remctl
import pytest
from support.ccache import expire
from support.fakeserver import FakeServer, Peer
from support.proxy import refused_port
from support.waiting import PATIENCE

import remctl
from differences.facts import Place
from differences.probe import GROUPS
from differences.rows import ABSENT, ELSEWHERE, ROWS, Row
from remctl_toolkit.testing import Command
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS
from remctl_toolkit.testing.server import RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

SYSTEM_PYTHON = "/usr/bin/python3"
PROBE = Path(__file__).with_name("probe.py")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from-pyremctl.md"
LIMIT = 50 * PATIENCE  # seconds for a run of the probe

COMMANDS = (
    *SAMPLE_COMMANDS,
    Command("session", script="echo $PPID"),
    Command("denied", script="echo hello", acl="princ:nobody@EXAMPLE.ORG"),
)


def send_beginning(peer: Peer) -> None:
    """Answer a command with the beginning of an output, then hang up."""
    peer.accept()
    peer.read_command()
    peer.send_output(b"the beginning")


@pytest.fixture(scope="module")
def place(remctl_realm: Realm) -> Iterator[Place]:
    """The servers for the probe, and tickets of several kinds."""
    realm = remctl_realm
    with ExitStack() as stack:
        server = stack.enter_context(RemctldServer(realm, COMMANDS))
        fakes = [
            stack.enter_context(FakeServer(realm.keytab, script, protocol=protocol))
            for script, protocol in ((send_beginning, 3), (None, 1), (None, 2))
        ]
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        expired = realm.kinit(ccache=realm.new_ccache())
        expire(expired)
        garbage = Path(realm.tmpdir) / "garbage"
        garbage.write_text("no credential cache")
        yield Place(
            host=server.host,
            port=server.port,
            principal=server.principal,
            closed_port=stack.enter_context(refused_port()),
            silent_port=silent.getsockname()[1],
            gone_port=fakes[0].port,
            protocol1_port=fakes[1].port,
            protocol2_port=fakes[2].port,
            unknown_principal=realm.principal("host/unknown.example.org"),
            other_principal=realm.add_principal("host/probe.example.org"),
            ccache=realm.ccache,
            expired_ccache=expired,
            garbage_ccache=f"FILE:{garbage}",
            missing_ccache=f"FILE:{realm.tmpdir}/missing",
        )


def run_probe(python: list[str], group: str, place: Place, folder: Path) -> dict[str, str]:
    """Return the facts of a group under one binding."""
    paths = {str(Path(str(module.__file__)).parent) for module in (remctl, _remctl)}
    done = subprocess.run(
        [*python, str(PROBE), group, json.dumps(place._asdict())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sorted(paths))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    facts = dict(line.split(" = ", 1) for line in done.stdout.splitlines())
    facts["exit status of the program"] = str(done.returncode)
    last = done.stderr.strip().splitlines()[-1:]
    facts["standard error ends with"] = last[0] if last and done.returncode > 0 else ""
    return facts


@pytest.fixture(scope="module", autouse=True)
def _the_existing_binding_is_there() -> None:
    command = [SYSTEM_PYTHON, "-I", "-c", "import remctl"]
    if subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode != 0:
        reason = "the existing binding is not installed: apt-get install python3-pyremctl"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def rows_of_page() -> set[str]:
    """Return the first cells of the tables of differences."""
    text = PAGE.read_text().partition("\n## Differences\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| *(.*?) *\|", text, re.MULTILINE)
    return {line for line in lines if line.strip("-")}


@pytest.mark.parametrize("group", GROUPS)
def test_every_difference_has_a_row(group: str, place: Place, tmp_path: Path) -> None:
    theirs = run_probe([SYSTEM_PYTHON, "-I"], group, place, tmp_path)
    ours = run_probe([sys.executable], group, place, tmp_path)
    unused = set(ROWS.get(group, ()))
    unexplained = []
    for key in sorted({*theirs, *ours}):
        old, new = (facts.get(key, ABSENT) for facts in (theirs, ours))
        if old == new:
            continue
        rows = [row for row in ROWS.get(group, ()) if row.explains(key, old, new)]
        unused.difference_update(rows)
        if not rows:
            unexplained.append(f"{key}\n    existing binding: {old}\n    here: {new}")
    problems = [*unexplained, *(f"explains nothing: {row}" for row in sorted(unused))]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_every_explanation_is_on_the_page_and_the_page_says_no_more() -> None:
    named = {row.row for rows in ROWS.values() for row in rows} | ELSEWHERE.keys()
    page = rows_of_page()
    assert sorted(named - page) == [], "these are not on the page"
    assert sorted(page - named) == [], "these are on the page, and no test names them"


def test_what_other_tests_hold_is_in_those() -> None:
    tests = PROBE.parent.parent
    missing = [name for name in ELSEWHERE.values() if not (tests / name).is_file()]
    assert missing == []


def test_groups_of_rows_are_groups_of_facts() -> None:
    assert ROWS.keys() <= GROUPS.keys()


def test_an_explanation_covers_only_what_it_names() -> None:
    row = Row("a row", "after *: error()", "no error*", "*timed out")
    assert row.explains("after open: error()", "it timed out", "no error")
    assert not row.explains("after open: error()", "it timed out", "another")
    assert not row.explains("after open: error()", "refused", "no error")
    assert not row.explains("after open: opened", "it timed out", "no error")
    assert not row.explains("then after open: error()", "it timed out", "no error")
