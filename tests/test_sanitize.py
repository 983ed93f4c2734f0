"""./run sanitize: it runs, it finds what it is for, and it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # stress is not installed

from stress.sanitize import modes  # noqa: E402
from stress.sanitize.__main__ import run_mode  # noqa: E402
from stress.sanitize.place import Broken, Place, runtime_library  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.nightly]

LIMIT = 200.0  # seconds


def sanitize(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stress.sanitize", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.fixture
def address_sanitizer() -> None:
    """Skip where the compiler has none."""
    try:
        runtime_library("libasan.so")
    except Broken as reason:
        pytest.skip(str(reason))


PLANTED = """
import ctypes, subprocess, sys

def test_planted():
    import _remctl
    assert "checkout" in _remctl.__file__, "the copy's extension, not the usual one"
    _remctl.remctl_new()
    ctypes.CDLL(None).strdup(b"x" * 4321)
    assert subprocess.run([sys.executable, "-c", OVERFLOW]).returncode != 0

OVERFLOW = '''
import ctypes
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
ctypes.string_at(malloc(8), 9)
'''
"""


@pytest.mark.timeout(LIMIT)
@pytest.mark.usefixtures("address_sanitizer")
def test_address_mode_finds_a_leak_and_what_a_child_does_wrong(tmp_path: Path) -> None:
    """The leak is one of a worker of pytest-xdist, as in a run over all tests."""
    test = tmp_path / "test_planted.py"
    test.write_text(PLANTED)
    work = str(tmp_path / "work")
    done = sanitize("address", "--folder", work, "--", "-q", "-n", "1", str(test))
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "4322 byte(s) leaked" in done.stdout
    assert "heap-buffer-overflow" in done.stdout
    assert "processes with findings: 2" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("status", "finding", "summary"),
    [
        (0, None, "clean"),
        (0, "a race", "pytest ended with 0, processes with findings: 1"),
        (1, None, "pytest ended with 1, processes with findings: 0"),
    ],
)
def test_summary(
    tmp_path: Path,
    status: int,
    finding: str | None,
    summary: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(place: Place, arguments: list[str]) -> int:
        if finding is not None:
            (place.reports / "thread.1").write_text(finding)
        return status

    clean, line = run_mode(modes.Mode("some", "a mode", run), tmp_path, [])
    assert line.startswith(f"some           {summary}; ")
    assert clean == (status == 0 and finding is None)
    assert finding is None or finding in capsys.readouterr().out


LEAK = """
==6213==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 32 byte(s) in 1 object(s) allocated from:
    #0 0x7f35698b89cf in __interceptor_malloc asan_malloc_linux.cpp:69
    #1 0x7f3569513b3c in {function} Modules/_threadmodule.c:1184
"""


def test_a_thread_at_work_is_no_finding(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    unseen = "==6213==Running thread 6211 was not suspended. False leaks are possible.\n"
    ours = LEAK.format(function="handle_new")
    for number, text in enumerate(
        (LEAK.format(function="thread_PyThread_start_new_thread"), ours, unseen + ours)
    ):
        (place.reports / f"address.{number}").write_text(text)
    assert place.findings() == [ours]


def test_modes_are_listed() -> None:
    done = sanitize("--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(modes.MODES)


def test_a_mode_that_is_not_there_is_refused() -> None:
    done = sanitize("adress")
    assert done.returncode == 2
    assert "choose from address" in done.stderr


def test_a_mode_that_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMCTL_FREE_THREADED", sys.executable)
    done = sanitize("free-threaded")
    assert done.returncode == 69
    assert "not run: no free-threaded Python" in done.stdout


def test_what_is_left_out_is_there() -> None:
    """A test that was renamed must not be looked for in vain."""
    for test in [test for tests in modes.NOT_MEANT_FOR.values() for test in tests]:
        path, _, name = test.partition("[")[0].partition("::")
        assert not name or f"def {name}(" in (ROOT / path).read_text()
        assert (ROOT / path).exists()


def test_the_copy_holds_no_build(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    assert (place.checkout / "_remctl.c").exists()
    assert list(place.checkout.glob("**/*.so")) == []
