"""Finding system programs, and the message about missing ones."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from testing.processes import TIMEOUT, python_environ

import remctl_toolkit.testing
from remctl_toolkit.testing import MissingPrograms, programs

pytestmark = pytest.mark.once

ALL_PROGRAMS = (
    *programs.REALM_PROGRAMS,
    *programs.SERVER_PROGRAMS,
    *programs.CLIENT_PROGRAMS,
)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a machine with only the programs in a directory."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_EXTRA_DIRECTORIES", ())
    monkeypatch.setattr(programs, "_HOMEBREW_DIRECTORIES", ())
    return tmp_path


def test_finds_daemons_that_are_not_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's PATH has no sbin directory."""
    monkeypatch.setenv("PATH", "/nonexistent")
    found = programs.find(*ALL_PROGRAMS)
    assert set(found) == set(ALL_PROGRAMS)
    assert all(Path(place).is_absolute() for place in found.values())


def test_path_comes_first(bare: Path) -> None:
    mine = bare / "kinit"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    assert programs.find("kinit") == {"kinit": str(mine)}


def test_one_message_names_all_that_is_missing(bare: Path) -> None:
    with pytest.raises(MissingPrograms) as caught:
        programs.find(*ALL_PROGRAMS)
    assert caught.value.missing == ALL_PROGRAMS
    message = str(caught.value)
    for name in ALL_PROGRAMS:
        assert f"{name}: install " in message
    for package in (
        *("krb5-kdc", "krb5-admin-server", "krb5-user", "remctl-server", "remctl-client"),
        *("krb5-server (Fedora)", "krb5-workstation (Fedora)", "krb5 (Homebrew)"),
        "remctl (Homebrew)",
    ):
        assert package in message


def test_what_is_there_is_not_named(bare: Path) -> None:
    (bare / "kinit").symlink_to("/bin/sh")
    with pytest.raises(MissingPrograms) as caught:
        programs.find("kinit", "klist")
    assert caught.value.missing == ("klist",)
    assert "kinit" not in str(caught.value)


def test_missing_programs_can_be_pickled() -> None:
    error = MissingPrograms(("kinit", "remctld"))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.missing, str(copy)) == (error.missing, str(error))


def test_programs_get_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sanitizer that is preloaded into the tests must not be preloaded into a KDC."""
    monkeypatch.setenv("LD_PRELOAD", "libsomething.so")
    monkeypatch.setenv("KRB5_TRACE", "/dev/stderr")
    environ = programs.tool_environ()
    assert "LD_PRELOAD" not in environ
    assert environ["LC_ALL"] == "C"
    assert environ["KRB5_TRACE"] == "/dev/stderr"


# The package's public names


def test_package_imports_nothing_until_asked() -> None:
    code = """if True:
        import __future__, sys, typing
        before = set(sys.modules)
        import remctl_toolkit.testing as testing
        assert set(testing.__all__) <= set(dir(testing))
        new = set(sys.modules) - before
        assert new == {"remctl_toolkit", "remctl_toolkit.testing"}, new
        testing.Realm, testing.RemctldServer
        assert "remctl_toolkit.testing.realm" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], env=python_environ(), check=True, timeout=TIMEOUT)


def test_every_public_name_can_be_imported() -> None:
    for name in remctl_toolkit.testing.__all__:
        assert getattr(remctl_toolkit.testing, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Relm"):
        remctl_toolkit.testing.Relm  # noqa: B018
