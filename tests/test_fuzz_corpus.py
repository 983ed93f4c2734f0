"""The fuzzer's corpus: every input that once led somewhere is played again, with the usual build.

Replaying needs a C compiler only; the fuzzer itself, clang: see docs/stress.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # stress is not installed

from stress.fuzz import corpus  # noqa: E402
from stress.fuzz.inputs import Call, put_together, take_apart  # noqa: E402
from stress.fuzz.replay import build, environment, replay  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.nightly]

MOST_INPUTS = 400
MOST_OCTETS = 200_000


def test_the_corpus_plays_through(capfd: pytest.CaptureFixture[str]) -> None:
    status = replay([])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    assert printed.out == f"{len(corpus.seeds() + corpus.read())} inputs played\n"


def test_the_corpus_stays_small() -> None:
    assert 50 < len(corpus.read()) < MOST_INPUTS
    assert corpus.CORPUS.stat().st_size < MOST_OCTETS


# A program with the same peer, in which a rule is broken: the rules are looked at.
BREAK = """
from stress.fuzz import corpus, player
{mistake}
for octets in corpus.seeds():
    player.play(octets)
"""

# Here something is left for good, which needs no long wait; calls have all their time.
IMPATIENT = (
    "wait_until = player.wait_until; "
    "player.wait_until = lambda condition, limit: wait_until(condition, 1.0); "
)
MISTAKES = {
    "a descriptor is leaked": IMPATIENT + "real = player._open; "
    "player._open = lambda game: (player.os.dup(0), real(game))[1]",
    "the GSS-API's objects are leaked": IMPATIENT + "handles = []; real = player._open; "
    "player._open = lambda game: handles.append(player._remctl.remctl_new()) or "
    "player._remctl.remctl_open(handles[-1], '127.0.0.1', 1)",
    "seconds": "player.LIMIT = 1e-9",
    "a failure without a reason": "player._remctl.remctl_error = lambda handle: ''",
}


@pytest.mark.parametrize("says", MISTAKES)
def test_what_breaks_a_rule_is_found(says: str, tmp_path: Path) -> None:
    code = BREAK.format(mistake=MISTAKES[says])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(build(tmp_path)),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert says in done.stderr


def test_an_input_is_taken_apart_as_it_was_put_together() -> None:
    calls = [Call.RUN, Call.CLOSE]
    octets = put_together(5, calls, [b"\x42abc", b"=raw", b"\x44x\xfe\xfe\x45yz", b""])
    moments = [b"\x42\0\0\0\3abc", b"raw", b"\x44\0\0\0\1x\x45\0\0\0\2yz", b""]
    assert take_apart(octets) == (5, 4, calls, moments)
    assert take_apart(b"") == (0, 1, [], [b""])


def test_the_corpus_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    corpus.write([b"\0\1\xff", b"b", b"\0\1\xff"], path)
    assert corpus.read(path) == [b"b", b"\0\1\xff"]
    assert path.read_text().startswith("# ")
    assert corpus.read(tmp_path / "none") == []
