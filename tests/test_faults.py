"""Every call of the C sources that can fail is made to fail: no crash, no leak, the right error."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # stress is not installed

from stress.faults import scan  # noqa: E402
from stress.faults.build import build  # noqa: E402
from stress.faults.calls import FALLIBLE, NEVER_FAIL  # noqa: E402
from stress.faults.driver import examine  # noqa: E402
from stress.faults.scenarios import SCENARIOS  # noqa: E402
from stress.faults.servers import servers  # noqa: E402

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = [pytest.mark.once, pytest.mark.nightly]


@pytest.fixture(scope="session")
def fault_build(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The extension whose calls can be made to fail, built by the first worker that wants it."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    folder = shared / "faults"
    with (shared / "faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def ports(remctl_realm: Realm) -> Iterator[dict[str, int]]:
    with servers(remctl_realm.keytab) as ports:
        yield ports


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_fails_is_told_and_leaves_nothing_behind(
    fault_build: Path, ports: dict[str, int], scenario: str
) -> None:
    report = examine(fault_build, scenario, ports)
    assert report.found == []
    assert len(report.sites) > 1, "nothing was made to fail"


def test_no_call_is_spared(fault_build: Path, ports: dict[str, int]) -> None:
    reached: set[str] = set()
    for _ in range(3):  # Which of two calls is made may depend on which of two threads is quicker.
        for name in SCENARIOS:
            reached.update(examine(fault_build, name, ports, count_only=True).sites)
        if not scan.spared(reached):
            break
    assert [f"{site} in {site.caller}" for site in scan.spared(reached)] == []


# How the calls are found


def test_a_call_that_nobody_has_judged_is_not_passed_over() -> None:
    code = "static void\nf(void)\n{\n    PyDict_New(0);\n}\n"
    assert "PyDict_New() is in neither table of calls.py" in scan.complaints(scan.calls([code]))


def test_what_is_not_called_any_more_is_struck_off() -> None:
    complaints = scan.complaints({"calloc"})
    assert "strdup() is in a table, but not called" in complaints
    assert not any("calloc" in complaint for complaint in complaints)


def test_comments_strings_and_own_functions_are_no_calls() -> None:
    code = """
#define TWICE(x) f(x)
/* calls one(), and
   two() */
static int
three(void)
{
    return h->four() + five("six()") + sizeof(int) + TWICE(three());
}
"""
    assert scan.calls([code]) == {"five"}


def test_no_function_is_in_both_tables() -> None:
    harmless = {name for names in NEVER_FAIL.values() for name in names.split()}
    assert not harmless & FALLIBLE.keys()


def test_a_call_is_found_with_all_its_lines(tmp_path: Path) -> None:
    source = tmp_path / "some.c"
    source.write_text("static void\nf(void)\n{\n    a = calloc(g(1),\n               2);\n}\n")
    (site,) = scan.sites(source)
    assert (str(site), site.caller) == ("calloc some.c:4", "f")
    assert site.is_named("calloc some.c:5")
    assert not site.is_named("calloc some.c:6")
    assert not site.is_named("calloc other.c:4")
