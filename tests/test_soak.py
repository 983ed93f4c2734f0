"""The soak in its short form: each storm blows for a few seconds; and its judgement can fail."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # stress is not installed

from stress.soak import __main__ as command_line  # noqa: E402
from stress.soak.figures import Outcome  # noqa: E402
from stress.soak.held import Held  # noqa: E402
from stress.soak.report import as_json, as_markdown, as_text  # noqa: E402
from stress.soak.run import Run  # noqa: E402
from stress.soak.storms import STORMS, Storm  # noqa: E402
from stress.soak.weather import StormError, Weather  # noqa: E402

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = [pytest.mark.once, pytest.mark.nightly]

BEFORE = Held(heap=1_000_000, resident=9_000_000, descriptors=5, threads=1)
GOOD = Outcome("some", 1000, 1.5, BEFORE, BEFORE, replies=1000, lost=0, swapped=0)


@pytest.fixture(scope="module")
def weather(remctl_realm: Realm) -> Iterator[Weather]:
    with Weather(remctl_realm) as weather:
        yield weather


@pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.name)
def test_storm_leaves_everything_flat_and_loses_no_reply(weather: Weather, storm: Storm) -> None:
    steps: list[int] = []
    outcome = weather.blow(storm, lambda done, _: steps.append(done), quick=True)
    assert outcome.faults() == []
    assert outcome.steps == storm.quick_steps
    assert steps == sorted(steps)


def test_storm_that_hangs_is_ended_and_says_where(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(done: int, steps: int) -> None:
        """Let the storm wait, which has begun: from then on it can say where it is."""
        weather.server.freeze()
        monkeypatch.setattr("stress.soak.weather._SILENCE", 0.2)

    try:
        with pytest.raises(StormError, match=r"(?s)^commands ended with -6:.*most recent call fi"):
            weather.blow(STORMS[0], hang)
    finally:
        weather.server.thaw()


# The judgement


def leaking(octets: int, steps: int) -> Outcome:
    after = BEFORE._replace(heap=1_000_000 + octets * steps)
    return dataclasses.replace(GOOD, after=after, steps=steps)


def test_what_is_flat_is_good() -> None:
    assert GOOD.faults() == []
    assert leaking(10, 1000).faults() == []


@pytest.mark.parametrize("steps", [400, 1000, 100_000])
def test_a_leak_of_100_octets_a_step_is_seen(steps: int) -> None:
    (fault,) = leaking(100, steps).faults()
    assert fault.startswith("memory grew by ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"after": BEFORE._replace(descriptors=6)}, "descriptors grew from 5 to 6"),
        ({"after": BEFORE._replace(threads=2)}, "threads grew from 1 to 2"),
        ({"lost": 1}, "1 commands were lost"),
        ({"swapped": 2}, "2 commands got the reply of another"),
        ({"replies": 0}, "no command got its reply"),
        ({"failures": ["a child ended with -9"]}, "a child ended with -9"),
    ],
)
def test_whatever_is_wrong_is_a_fault(change: dict[str, object], says: str) -> None:
    bad = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert bad.faults() == [says]
    assert f"some FAILED: {says}" in as_text([bad], {})
    assert f"- some FAILED: {says}" in as_markdown([bad], {}, {})
    assert json.loads(json.dumps(as_json([bad], {}, {})))["storms"][0]["faults"] == [says]


def test_a_reply_is_lost_swapped_or_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stress.soak.run.held", lambda: BEFORE)  # Not this process is judged.
    run = Run("some", 1, 1, 1)
    run.judge(lambda count: None)
    for octets in (b"7\n", None, b"6\n", b"7"):
        run.reply(7, octets)
    outcome = run.outcome()
    assert (outcome.replies, outcome.lost, outcome.swapped) == (1, 1, 2)
    assert outcome.failures == [
        "command 7 got no reply",
        "command 7 got b'6\\n'",
        "command 7 got b'7'",
    ]


@dataclasses.dataclass
class Forecast:
    """Stands in for the weather: it knows already what each storm will find."""

    outcome: Outcome

    def __enter__(self) -> Forecast:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def blow(self, storm: Storm, progress: object, *, quick: bool) -> Outcome:
        return dataclasses.replace(self.outcome, name=storm.name)


@pytest.mark.parametrize(("lost", "status"), [(0, 0), (1, 1)])
def test_exit_status_says_whether_all_was_good(
    lost: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    outcome = dataclasses.replace(GOOD, lost=lost)
    monkeypatch.setattr(command_line, "Weather", lambda: Forecast(outcome))
    page, numbers = tmp_path / "page.md", tmp_path / "numbers.json"
    page.write_text("before\n<!-- soak -->\nold\n<!-- end of soak -->\nbehind\n")
    options = ["--only", "opens", "--docs", str(page), "--json", str(numbers)]
    assert command_line.main(options) == status
    assert capsys.readouterr().out.splitlines()[1].startswith("opens ")
    assert "| opens | 1,000 |" in page.read_text()
    assert "old" not in page.read_text()
    assert [storm["name"] for storm in json.loads(numbers.read_text())["storms"]] == ["opens"]
