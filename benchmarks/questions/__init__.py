"""The questions: one file for each row of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..place import Place
from ..report import Answer

__all__ = ["QUESTIONS", "Question"]


@dataclass(frozen=True)
class Question:
    """A file of this folder: it has ask(), which measures."""

    name: str
    title: str
    """Short description."""

    def ask(self, place: Place) -> Answer:
        """Measure."""
        ask: Callable[[Place], Answer] = import_module(f"{__name__}.{self.name}").ask
        return ask(place)


QUESTIONS = (
    Question("commands", "commands a second in one open session"),
    Question("connects", "connect, one command, close: how often a second"),
    Question("refused", "commands that the server refuses: asyncio and the synchronous interface"),
    Question("noops", "noop round trips a second"),
    Question("bulk", "a command with much output: speed and client CPU"),
    Question("memory", "the memory for large output"),
    Question("upload", "a command with much input: speed and memory"),
    Question("instructions", "instructions of the processor per noop and per token"),
    Question("threads", "64 threads with a session each"),
    Question("sessions", "1,000 sessions in one process"),
    Question("fleet", "64 hosts at once: connect, one command, close"),
    Question("hosts", "2,000 hosts: time for each"),
    Question("lists", "a list of 20,000 hosts: time and memory"),
    Question("silent", "200 hosts of which some are silent"),
    Question("waiting", "1,000 sessions that wait, on one event loop"),
    Question("importing", "import remctl"),
    Question("backend", "a command of a small backend, in Python and in Perl"),
    Question("machine", "a whole machine: commands, functions, files, tunnels"),
    Question("ansible", "a playbook of Ansible, over remctl and over ssh"),
    Question("delay", "20 ms of network delay: round trips"),
)
