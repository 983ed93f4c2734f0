"""The benchmarks' command line: python -m benchmarks, or ./run bench.

Exit status: 0 when every question was answered, whether or not its target was reached: figures are
reported, not asserted; 1 when a question failed, or its answer could not be written; 2 when the
command line is wrong; 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from stress.report import check_outputs

from .environment import describe
from .pictures import bars_as_svg
from .place import Effort, Place
from .questions import QUESTIONS, Question
from .questions._contests import EXISTING
from .report import Answer, as_json, as_markdown, excerpt, put_between_markers


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description="Measures the bindings and alternatives."
        " All questions together take about a quarter of an hour.",
    )
    names = [question.name for question in QUESTIONS]
    parser.add_argument("--quick", action="store_true", help="a first look: about two minutes")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="these questions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table in that page")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="put the comparison with the old binding there"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write SVG files there")
    parser.add_argument("--list", action="store_true", help="list the questions and exit")
    options = parser.parse_args(arguments)
    pages, files = [options.docs, options.readme], [options.json, options.markdown]
    check_outputs(parser, "figures", pages, files)
    return options


def _progress(text: str) -> None:
    """Show progress, on a terminal in one line that changes; without a text, clear the line."""
    if sys.stderr.isatty():
        line = f"  {text}" if text else ""
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _ask(question: Question, place: Place, number: str) -> Answer:
    print(f"{number} {question.name}: {question.title}", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        return question.ask(place)
    finally:
        _progress("")
        print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _ask_all(questions: list[Question], place: Place) -> tuple[dict[str, Answer], dict[str, str]]:
    """Ask every question, even if one fails."""
    answers: dict[str, Answer] = {}
    failures: dict[str, str] = {}
    for number, question in enumerate(questions, 1):
        try:
            answers[question.name] = _ask(question, place, f"[{number}/{len(questions)}]")
        except Exception as error:
            failures[question.name] = f"{type(error).__name__}: {error}"
            print(f"  failed: {failures[question.name]}", file=sys.stderr, flush=True)
    return answers, failures


def _write(options: argparse.Namespace, answers: dict[str, Answer], table: str) -> None:
    if options.markdown:
        options.markdown.write_text(table)
    if options.docs:
        put_between_markers(options.docs, table)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for name, answer in answers.items():
            if answer.bars:
                picture = bars_as_svg(answer.axis, answer.bars)
                (options.pictures / f"{name}.svg").write_text(picture)
    if options.readme:
        put_between_markers(options.readme, excerpt(table, EXISTING))


def main(arguments: list[str]) -> int:
    """Ask the questions, write the answers, and return the exit status."""
    options = _parse(arguments)
    if options.list:
        for question in QUESTIONS:
            print(f"{question.name:14}{question.title}")
        return 0
    questions = [q for q in QUESTIONS if not options.only or q.name in options.only]
    # Workers inherit the limit: a thousand sessions need a thousand descriptors.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    environment = describe()
    with Place(Effort.of(options.quick), _progress) as place:
        answers, failures = _ask_all(questions, place)
    if options.quick:
        environment["effort"] = "--quick: few and short rounds, so do not quote these"
    table = as_markdown(answers, failures, environment)
    print(table)
    if options.json:
        found = as_json(answers, failures, environment)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    try:
        _write(options, answers, table)
    except (OSError, ValueError) as error:
        print(f"cannot write all results: {error}", file=sys.stderr)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
