"""Hints name options of the command, never arguments of Python functions."""

from __future__ import annotations

import re

import pytest

import _remctl_hints
from remctl_toolkit.cli.cures import OPTIONS, explained
from remctl_toolkit.cli.fleet import options as fleet
from remctl_toolkit.cli.rsh import options as rsh

pytestmark = pytest.mark.once

KEYWORD = re.compile(r"\b\w+=")


def hints() -> list[str]:
    """Return all hints."""
    names = [name for name in dir(_remctl_hints) if name.endswith("_HINT")]
    lists = (_remctl_hints._AUTHENTICATION_HINTS, _remctl_hints._DISCONNECTED_HINTS)
    return [
        *_remctl_hints._CONNECT_HINTS.values(),
        *(getattr(_remctl_hints, name) for name in names),
        *(hint for pairs in lists for _, hint in pairs),
    ]


@pytest.mark.parametrize("hint", hints())
def test_a_hint_names_options_of_the_command(hint: str) -> None:
    error = ValueError("no")
    error.add_note(hint)
    found = explained("no", error)
    assert found[0] == "no"
    assert KEYWORD.findall(found[1]) == []
    assert "()" not in found[1]


def test_the_commands_have_these_options() -> None:
    for names in (
        set(fleet.parser()._option_string_actions),
        {name for option in rsh.OPTIONS for name in option.names},
    ):
        assert set(OPTIONS.values()) <= names


def test_an_error_without_a_hint_is_one_line() -> None:
    assert explained("no", None) == explained("no", ValueError()) == ["no"]
