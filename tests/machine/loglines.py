"""A logger for commands, which keeps its records."""

from __future__ import annotations


class Lines:
    """A logger with no more than remoto's README asks for."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def debug(self, text: str) -> None:
        self.lines.append(("DEBUG", text))

    def error(self, text: str) -> None:
        self.lines.append(("ERROR", text))

    def of(self, level: str) -> list[str]:
        return [text for each, text in self.lines if each == level]
