"""The benchmarks' harness: statistics, interleaving, table and command line. Nothing is timed."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # benchmarks is not installed

from benchmarks import __main__ as command_line  # noqa: E402
from benchmarks.figures import Sample, Spread, Target, compact, ratios  # noqa: E402
from benchmarks.peers.callgrind import self_cost  # noqa: E402
from benchmarks.pictures import bars_as_svg  # noqa: E402
from benchmarks.place import Place  # noqa: E402
from benchmarks.questions import QUESTIONS, Question  # noqa: E402
from benchmarks.race import Race, count_for, run  # noqa: E402
from benchmarks.report import (  # noqa: E402
    Answer,
    Bar,
    Row,
    as_json,
    as_markdown,
    between_markers,
    excerpt,
    put_between_markers,
)
from benchmarks.workers import Worker, WorkerError  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.nightly]


class FakeRunner:
    """Takes the time that the test sets, and records its turns."""

    def __init__(self, name: str, seconds: list[float], turns: list[str]) -> None:
        self._name = name
        self._seconds = iter(seconds)
        self._turns = turns

    def go(self, count: int) -> Sample:
        self._turns.append(self._name)
        return Sample(next(self._seconds) * count, cpu=0.5 * count)


def fake_race() -> Race:
    turns: list[str] = []
    runners = {
        "fast": FakeRunner("fast", [1.0, 2.0, 4.0], turns),
        "slow": FakeRunner("slow", [2.0, 6.0, 4.0], turns),
    }
    race = run(runners, {"fast": 10, "slow": 5}, 3, lambda text: None)
    assert turns == ["fast", "slow"] * 3
    return race


# --- Statistics ---


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]).median == 2.5
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 (1.00 to 3.00)"
    assert str(Spread.of([7.0])) == "7.00"


def test_ratios_are_pair_by_pair():
    """The median of the ratios, which is not the ratio of the medians."""
    assert ratios([1.0, 10.0, 3.0], [1.0, 5.0, 6.0]) == Spread(1.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567.4, "1,234,567"), (894.2, "894"), (22.68, "22.7"), (0.9512, "0.951")],
)
def test_compact(value: float, text: str):
    assert compact(value) == text


def test_targets():
    assert Target(30).reached(30)
    assert not Target(30).reached(29.9)
    assert Target(1.1, at_least=False).reached(1.1)
    assert not Target(1.1, at_least=False).reached(1.2)


# --- Rounds ---


def test_rounds_are_interleaved_and_compared_by_rate():
    race = fake_race()
    assert race.rates("fast") == [1.0, 0.5, 0.25]
    assert race.rate("slow") == Spread(0.25, 1 / 6, 0.5)
    assert race.ratio("fast", "slow") == Spread(2.0, 1.0, 3.0)
    assert race.cpu("slow") == [0.5, 0.5, 0.5]
    assert race.cpu_ratio("fast", "slow") == Spread(1.0, 1.0, 1.0)


def test_count_for_a_time():
    assert count_for(FakeRunner("", [0.01] * 10, []), 1.0) == 100
    assert count_for(FakeRunner("", [5.0] * 10, []), 1.0) == 1
    assert count_for(FakeRunner("", [5.0] * 10, []), 1.0, least=30) == 30


# --- Workers ---


def echo_worker(tmp_path: Path, code: str) -> Worker:
    script = tmp_path / "worker.py"
    script.write_text(code)
    return Worker([sys.executable, "-u", str(script)], {"PYTHONPATH": str(ROOT)}, tmp_path)


def test_a_worker_answers_and_ends(tmp_path: Path):
    code = """
import sys
from benchmarks.peers.worker import Action, serve
class Fake(Action):
    def prepare(self):
        print("noise, which is no answer", file=sys.stderr)
    def go(self, count):
        if count == 13:
            raise ValueError("bad luck")
sys.argv.append("fake")
serve({"fake": Fake})
"""
    worker = echo_worker(tmp_path, code)
    try:
        worker.prepare()
        sample = worker.go(1)
        assert sample.seconds >= 0
        assert sample.cpu >= 0
        with pytest.raises(WorkerError, match="ValueError: bad luck"):
            worker.go(13)
    finally:
        worker.end()


def test_a_worker_that_ends_is_noticed(tmp_path: Path):
    worker = echo_worker(tmp_path, "")
    try:
        with pytest.raises(WorkerError, match="it ended"):
            worker.prepare()
    finally:
        worker.end()


# --- The report ---


def fake_answer() -> Answer:
    race = fake_race()
    what = "things/s"
    rows = [
        Row(what, "slow", race.rate("fast"), race.rate("slow"), race.ratio("fast", "slow")),
        Row(what, "good", compared=Spread.of([2.0]), target=Target(1.5)),
        Row(what, "bad", compared=Spread.of([1.0]), target=Target(1.5)),
        Row(what, "absent", target=Target(1.5), note="absent is not installed"),
    ]
    return Answer(rows, [Bar("fast", race.rate("fast"), ours=True)], "things", ["A fact."])


def test_table():
    table = as_markdown({"fake": fake_answer()}, {"other": "Error: no"}, {"kernel": "Linux"})
    lines = table.splitlines()
    assert lines[2] == (
        "| things/s | 0.500 (0.250 to 1.00) | slow | 0.250 (0.167 to 0.500)"
        " | 2.00 (1.00 to 3.00) x |  | reported |"
    )
    assert lines[3] == "| things/s |  | good |  | 2.00 x | at least 1.50 x | reached |"
    assert lines[4].endswith("| 1.00 x | at least 1.50 x | **not reached** |")
    assert lines[5].endswith("| at least 1.50 x | absent is not installed |")
    assert "- A fact." in lines
    assert "- other failed: Error: no" in lines
    assert "- kernel: Linux" in lines


def test_excerpt():
    """The rows of one contestant, with the columns in the order of time, and its place."""
    environment = {"date": "today", "kernel": "Linux", "slow": "slow 1.0", "effort": "little"}
    report = as_markdown({"fake": fake_answer()}, {}, environment)
    assert excerpt(report, "slow").splitlines() == [
        "| measured | slow | this binding | compared |",
        "| --- | --- | --- | --- |",
        "| things/s | 0.250 (0.167 to 0.500) | 0.500 (0.250 to 1.00) | 2.00 (1.00 to 3.00) x |",
        "",
        "Measured with date: today; slow: slow 1.0; effort: little.",
    ]
    with pytest.raises(ValueError, match="no line against 'nobody'"):
        excerpt(report, "nobody")


def test_excerpt_keeps_what_looks_like_a_cells_end():
    answer = Answer([Row("a | b", "slow", compared=Spread.of([2.0]))])
    assert "| a \\| b |  |  | 2.00 x |" in excerpt(as_markdown({"fake": answer}, {}, {}), "slow")


def test_json():
    found = json.loads(json.dumps(as_json({"fake": fake_answer()}, {}, {"kernel": "Linux"})))
    rows = found["answers"]["fake"]["rows"]
    assert [row["reached"] for row in rows] == [None, True, False, None]
    assert rows[0]["compared"] == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_table_in_a_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    put_between_markers(page, "new")
    expected = "before\n<!-- figures -->\n\nnew\n<!-- end of figures -->\nafter\n"
    assert page.read_text() == expected
    assert between_markers(page) == "new\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="lacks"):
        put_between_markers(page, "new")


def test_picture_is_xml_with_every_bar():
    bars = [Bar("a < b", Spread(2.0, 1.0, 3.0), ours=True), Bar("c", Spread.of([0.0]))]
    root = ET.fromstring(bars_as_svg("things & more", bars))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["things & more", "a < b", "2.00", "c", "0"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 2


def test_self_cost_of_a_profile(tmp_path: Path):
    profile = tmp_path / "callgrind.out"
    profile.write_text(
        "events: Ir\n"
        "ob=(1) /usr/lib/one.so\nfn=(1) f\n10 5\n+2 7\n"
        "cob=(2) /usr/lib/two.so\ncfn=(2) g\ncalls=3 20\n12 900\n"
        "ob=(2)\nfn=(2)\n20 30\n* 4\nob=(1)\nfn=(1)\n-3 1\n"
    )
    assert self_cost(profile) == Counter({"one.so": 13, "two.so": 34})


# --- The command line ---


def test_list():
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == [q.name for q in QUESTIONS]


def test_every_question_has_a_file_and_every_file_a_question():
    folder = ROOT / "benchmarks" / "questions"
    files = {path.stem for path in folder.glob("[!_]*.py")}
    assert files == {question.name for question in QUESTIONS}


def test_an_unknown_question_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--only", "nonsense"])
    assert ended.value.code == 2
    assert "nonsense" in capsys.readouterr().err


class FakeQuestion(Question):
    def ask(self, place: Place) -> Answer:
        if self.name == "bad":
            raise RuntimeError("no luck")
        return fake_answer()


def test_a_question_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    questions = (FakeQuestion("bad", "fails"), FakeQuestion("good", "works"))
    monkeypatch.setattr(command_line, "QUESTIONS", questions)
    monkeypatch.setattr(command_line, "EXISTING", "slow")
    page, readme = tmp_path / "page.md", tmp_path / "README.md"
    for path in (page, readme):
        path.write_text("<!-- figures -->\n<!-- end of figures -->\n")
    files = [
        *("--docs", str(page)),
        *("--readme", str(readme)),
        *("--json", str(tmp_path / "found.json")),
        *("--markdown", str(tmp_path / "table.md")),
        *("--pictures", str(tmp_path / "pictures")),
    ]
    assert command_line.main(files) == 1
    assert command_line.main(["--only", "good"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["answers"]) == ["good"]
    assert found["failures"] == {"bad": "RuntimeError: no luck"}
    assert "bad failed: RuntimeError: no luck" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "pictures" / "good.svg").exists()
    assert between_markers(readme) == excerpt(between_markers(page), "slow")
    assert "| things/s |" in capsys.readouterr().out


def test_what_could_not_be_written_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "page.md"
    page.write_text("no markers")
    missing = tmp_path / "missing" / "found.json"
    for arguments in (["--docs", str(page)], ["--json", str(missing)]):
        with pytest.raises(SystemExit) as ended:
            command_line.main(arguments)
        assert ended.value.code == 2
        assert arguments[1] in capsys.readouterr().err
