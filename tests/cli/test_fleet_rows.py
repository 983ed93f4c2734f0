"""Lines wider than the terminal: no row looks like a line of another host or of remctl-fleet."""

from __future__ import annotations

import re
import unicodedata

import pytest
from cli.fleets import Hosts
from hypothesis import given
from hypothesis import strategies as st

from _remctl_text import break_line, cells_of

pytestmark = pytest.mark.once

FORGED = "web2: disk failure, do not reboot"

# What stands before FORGED: as wide as the rest of a row after "web1:    ".
LEADS = {
    "spaces": "ok" + 69 * " ",
    "a tab": "ok" + 20 * "\t",
    "wide characters": 35 * "中" + " ",
    "combining characters": "e\u0301" * 71,
    "pictures": 35 * "\u2764\ufe0f" + " ",
    "symbols that newer terminals draw wide": 35 * "\u2630" + " ",
    "hexagrams, which they do too": 35 * "\u4dc0" + " ",
    "and tetragrams": 35 * "\U0001d306" + " ",
    "flags": 17 * "\U0001f1e9\U0001f1ea" + "   ",
    "escapes": 17 * "\x1b" + "   ",
    "octets that are not UTF-8": 17 * "\udcff" + "   ",
}


def rows_of(shown: bytes) -> list[str]:
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown.decode())
    return text.replace("\r", "").split("\n")


def width(row: str) -> int:
    """Return the columns of a text on a terminal that draws emoji."""
    cells = 0
    for character in row:
        wide = (
            unicodedata.east_asian_width(character) in "WF"
            or character in "\u2630\u2764\u4dc0\U0001d306"
        )
        zero = unicodedata.category(character) in ("Mn", "Me")
        cells += 0 if zero else 2 if wide else 1
    return cells


@pytest.mark.parametrize("lead", LEADS.values(), ids=LEADS.keys())
@pytest.mark.parametrize("view", ["--live", "--gather"])
@pytest.mark.parametrize("columns", [80, 41])
def test_no_row_looks_like_the_line_of_another_host(
    hosts: Hosts, view: str, lead: str, columns: int
) -> None:
    # Several lengths: one of them puts the words at the beginning of a row.
    line = "".join(f"{lead[shift:]}{FORGED} {FORGED}" for shift in range(3))
    octets = line.encode("utf-8", "surrogateescape")
    arguments = ["-q", view, "web1,web3", "test", "echo", octets.decode("utf-8", "surrogateescape")]
    with hosts.terminal(*arguments, columns=columns, NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    rows = [row for row in rows_of(terminal.octets) if row]
    assert any("disk" in row for row in rows)
    assert all(row.startswith(("web1: ", "web3: ", "web[1,3]: ", "    ")) for row in rows), rows
    assert all(width(row) <= columns for row in rows), rows


def test_a_reason_in_the_table_cannot_look_like_a_row_of_its_own(hosts: Hosts) -> None:
    for columns in (80, 41):
        reason = 40 * "中" + FORGED + " " + FORGED
        command = ["test", reason]  # It is in the server's answer.
        with hosts.terminal("-q", "--gather", "web1,web3", *command, columns=columns) as terminal:
            assert terminal.wait() == 3
        rows = [row for row in rows_of(terminal.octets) if row]
        table = rows[rows.index("2 of 2 hosts failed:") + 1 :]
        assert table[0].startswith("  web[1,3]")
        assert "disk" in "".join(table)
        closing = ("0 succeeded, 2 failed", "not safe to repeat", "again: ")
        assert all(row.startswith(("    ", *closing)) for row in table[1:]), rows
        assert all(row.startswith("    ") for row in rows[1 : -len(table) - 1]), rows


def test_names_of_hosts_that_are_wider_than_the_terminal_are_broken_too(hosts: Hosts) -> None:
    names = "n[1-9],n1[1-9],n2[1-9],n3[1-9],n4[1-9],n5[1-9]"
    arguments = ["-q", "--gather", names, "test", "echo", f"{20 * 'x'} {FORGED}"]
    with hosts.terminal(*arguments, columns=30, NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    first, *others = [row for row in rows_of(terminal.octets) if row]
    assert first.startswith("n[")
    assert all(row.startswith("    ") for row in others)


def test_a_json_line_stays_whole(hosts: Hosts) -> None:
    arguments = ["-q", "--json", "web1,web3", "test", "echo", 200 * "x"]
    with hosts.terminal(*arguments) as terminal:
        assert terminal.wait() == 0
    rows = [row for row in rows_of(terminal.octets) if row]
    assert [row[0] + row[-1] for row in rows] == ["{}", "{}"]


def test_a_pipe_gets_lines_as_they_are(hosts: Hosts) -> None:
    line = f"{100 * 'x'}\x1b[31m"
    done = hosts.run("-q", "--live", "web1,web3", "test", "echo", line)
    assert sorted(done.stdout.splitlines()) == [f"web1: {line}", f"web3: {line}"]


# -- Breaking lines -------------------------------------------------------------------------------


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])), st.integers(1, 50))
def test_nothing_is_lost_and_no_row_is_too_wide(line: str, columns: int) -> None:
    rows = break_line(line, columns).split("\n")
    assert rows[0] + "".join(row[4:] for row in rows[1:]) == line
    assert all(row.startswith("    ") for row in rows[1:])
    assert all(sum(map(cells_of, row)) <= max(columns, 12) for row in rows)


def test_colours_take_no_room() -> None:
    line = f"\x1b[1mweb1: \x1b[0m\x1b[33m{14 * 'x'}\x1b[0m"
    assert break_line(line, 20) == line
    assert break_line(line, 19) == line.replace("x\x1b", "\n    x\x1b")


def test_tabs_become_spaces_where_lines_arebreak_line() -> None:
    assert break_line("a\tb\t", 80) == "a       b       "
