"""The pytest plugin, in a separate pytest: fixtures, missing programs, and import cost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from testing.processes import TIMEOUT, python_environ

pytestmark = pytest.mark.once

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing-with-a-realm.md"

CONFTEST = """
import os
before = dict(os.environ)

def pytest_unconfigure(config):
    changed = {name for name in {*before, *os.environ} if name.startswith("KRB5")
               and before.get(name) != os.environ.get(name)}
    print(f"\\nchanged in the environment: {sorted(changed)}")
"""

# Makes all programs missing.
BARE_CONFTEST = """
import os
from remctl_toolkit.testing import programs
os.environ["PATH"] = "/nonexistent"
programs._EXTRA_DIRECTORIES = programs._HOMEBREW_DIRECTORIES = ()
"""

USES_ALL = """
def test_all(remctl_realm, remctl_server, remctld):
    pass
"""


def run_pytest(
    folder: Path,
    test: str,
    *options: str,
    conftest: str = CONFTEST,
    with_plugin: bool = True,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test file, with this plugin and no other installed one."""
    (folder / "test_it.py").write_text(test)
    (folder / "conftest.py").write_text(conftest)
    settings = folder / "pytest.ini"
    if not settings.exists():
        settings.write_text("[pytest]\n")
    plugin = ["-p", "remctl_toolkit.testing.plugin"] if with_plugin else []
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": "", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-rA", "-Werror", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *plugin, *options, "test_it.py"],
        cwd=folder,
        env=python_environ(**{**environ, **variables}),
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the numbers in pytest's last line, by outcome."""
    lines = [line for line in done.stdout.splitlines() if re.search(r" in [\d.]+s", line)]
    assert lines, done.stdout + done.stderr
    pairs = re.findall(r"(\d+) (passed|failed|errors?|skipped)", lines[-1])
    return {outcome.rstrip("s"): int(count) for count, outcome in pairs}


def test_fixtures_work(tmp_path: Path) -> None:
    test = """
import os, subprocess
import pytest
from remctl_toolkit.testing import Command, ServerError

stopped = []

def run(server, *command):
    arguments = ["remctl", "-p", str(server.port), server.host, *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=20).stdout

def test_realm(remctl_realm):
    assert os.environ["KRB5_CONFIG"] == remctl_realm.krb5_conf
    assert remctl_realm.user in subprocess.check_output(["klist"], text=True)

def test_server(remctl_server, remctl_realm):
    assert remctl_server.realm is remctl_realm
    assert run(remctl_server, "test", "echo", "hello") == "hello\\n"

def test_server_is_the_same(remctl_server):
    assert "test echo hello" in remctl_server.log

def test_factory(remctld, remctl_server):
    one = remctld([Command("who", program="/bin/echo")])
    other = remctld(config="who ALL /bin/echo ANYUSER", env={"A": "b"})
    assert len({one.port, other.port, remctl_server.port}) == 3
    for server in (one, other):
        assert run(server, "who", "me") == "me\\n"
        stopped.append((server, server.pid))
    one.stop()

def test_factory_has_stopped():
    assert len(stopped) == 2
    for server, pid in stopped:
        assert not server.running
        assert not os.path.exists(f"/proc/{pid}")
        with pytest.raises(ServerError):  # The port is released.
            server.port
"""
    done = run_pytest(tmp_path, test)
    assert outcomes(done) == {"passed": 5}, done.stdout
    assert "changed in the environment: []" in done.stdout


def test_environment_that_was_set_is_restored(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, USES_ALL, KRB5CCNAME="FILE:/somewhere", KRB5_KTNAME="/a/keytab")
    assert outcomes(done) == {"passed": 1}, done.stdout
    assert "changed in the environment: []" in done.stdout


def test_environment_is_restored_after_a_failure(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, f"{USES_ALL}    import sys; sys.exit(3)\n")
    assert "changed in the environment: []" in done.stdout


def test_workers_have_realms_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    test = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(remctl_server, number):
    print(remctl_server.realm.kdc_port)
"""
    done = run_pytest(tmp_path, test, "-p", "xdist", "-n", "2")
    assert outcomes(done) == {"passed": 6}, done.stdout
    ports = re.findall(r"^\d+$", done.stdout, re.MULTILINE)
    assert len(ports) == 6
    assert len(set(ports)) == 2


# Missing programs


def test_missing_programs_skip_with_the_packages_to_install(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, USES_ALL, conftest=BARE_CONFTEST)
    assert outcomes(done) == {"skipped": 1}, done.stdout
    for text in ("krb5kdc: install krb5-kdc", "remctld: install remctl-server"):
        assert text in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["CI", "flag", "setting"])
def test_missing_programs_fail_where_they_are_required(how: str, tmp_path: Path) -> None:
    if how == "setting":
        (tmp_path / "pytest.ini").write_text("[pytest]\nremctl_required = true\n")
    options = ["--remctl-required"] if how == "flag" else []
    ci = "true" if how == "CI" else ""
    done = run_pytest(tmp_path, USES_ALL, *options, conftest=BARE_CONFTEST, CI=ci)
    assert outcomes(done) == {"error": 1}, done.stdout
    assert "krb5kdc: install krb5-kdc" in done.stdout
    assert done.returncode == 1


def test_ci_that_is_off_does_not_count(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, USES_ALL, conftest=BARE_CONFTEST, CI="false")
    assert outcomes(done) == {"skipped": 1}, done.stdout


# Cost without its use


def test_nothing_is_imported_until_a_fixture_is_asked_for(tmp_path: Path) -> None:
    """With the bindings installed, every pytest run of any project loads the plugin."""
    test = "def test_it():\n    import sys; print('modules:', *sorted(sys.modules))\n"
    imported = {}
    for with_plugin in (True, False):
        done = run_pytest(tmp_path, test, conftest="", with_plugin=with_plugin)
        (line,) = re.findall(r"^modules: (.*)$", done.stdout, re.MULTILINE)
        imported[with_plugin] = set(line.split())
    assert imported[True] - imported[False] == {
        "remctl_toolkit",
        "remctl_toolkit.testing",
        "remctl_toolkit.testing.plugin",
    }


def test_help_tells_about_it(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "", "--help")
    assert "--remctl-required" in done.stdout
    assert "remctl_required (bool)" in done.stdout
    fixtures = run_pytest(tmp_path, "", "--fixtures", "-v").stdout
    for name in ("remctl_realm", "remctl_server", "remctld"):
        assert re.search(rf"^{name}\b", fixtures, re.MULTILINE)
    assert "test echo WORDS" in fixtures


def test_page_has_all_fixtures_and_their_scopes(tmp_path: Path) -> None:
    listed = run_pytest(tmp_path, "", "--fixtures", "-v").stdout
    found = re.findall(r"^(\w+)(?: \[(\w+) scope\])? -- \S*plugin\.py", listed, re.MULTILINE)
    ours = {(name, scope or "function") for name, scope in found if "remctl" in name}
    rows = re.findall(r"^\| `(\w+)` \| (session|function) \|", PAGE.read_text(), re.MULTILINE)
    assert len(ours) == 3
    assert set(rows) == ours
