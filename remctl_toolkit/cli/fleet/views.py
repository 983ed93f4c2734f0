"""Show the output of hosts: gathered, live, as JSON, or as remctl(1) does."""

from __future__ import annotations

import base64
import difflib
import json
from typing import Any

import remctl
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.fleet import Host, OnOutput, Outcome
from remctl_toolkit.hosts import fold

from .screen import BLUE, BOLD, GREEN, RED, YELLOW, Outlet, Screen
from .words import (
    advice,
    detail,
    fate,
    headline,
    is_interrupted,
    kind,
    output,
)

__all__ = ["Diff", "Gathered", "Json", "Live", "Raw", "View"]


_Streams = tuple[bytes, bytes]  # standard output and standard error


class View:
    """Base class: a way to show the output of hosts.

    Attributes:
        on_output: called with output as it arrives, if not None.
    """

    on_output: OnOutput | None = None

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def finished(self, outcome: Outcome) -> None:
        """Handle the outcome of a host."""

    def end(self) -> None:
        """Show what can be shown only at the end."""


class Gathered(View):
    """At the end, show hosts with the same output together, the largest group first."""

    def __init__(self, screen: Screen, hosts: list[Host]) -> None:
        super().__init__(screen)
        self._place = {host: place for place, host in enumerate(hosts)}
        self._hosts: dict[_Streams, list[Host]] = {}

    def finished(self, outcome: Outcome) -> None:
        found = output(outcome)
        streams = (found.stdout or b"", found.stderr or b"")
        if any(streams):
            self._hosts.setdefault(streams, []).append(outcome.host)

    def end(self) -> None:
        for streams, names in self._groups():
            self._show_both(streams, names)

    def _groups(self) -> list[tuple[_Streams, str]]:
        """Return each output and the names of its hosts, the most common output first."""
        for hosts in self._hosts.values():
            hosts.sort(key=self._place.__getitem__)
        groups = sorted(
            self._hosts.items(), key=lambda item: (-len(item[1]), self._place[item[1][0]])
        )
        return [(streams, fold(hosts)) for streams, hosts in groups]

    def _show_both(self, streams: _Streams, names: str) -> None:
        self._show(self._screen.out, names, streams[0], "")
        self._show(self._screen.err, names, streams[1], YELLOW)

    def _show(self, outlet: Outlet, names: str, octets: bytes, colour: str) -> None:
        lines = octets.removesuffix(b"\n").split(b"\n")
        if len(lines) == 1:
            if octets:
                outlet.line(f"{names}: ", lines[0], BOLD, colour)
            return
        outlet.line(f"{names}:", b"", BOLD)
        for line in lines:
            outlet.line("  ", line, "", colour)


class Diff(Gathered):
    """At the end, show the most common output, and how the others differ from it."""

    def finished(self, outcome: Outcome) -> None:
        super().finished(outcome)
        found = output(outcome)
        if outcome.result is not None and not (found.stdout or found.stderr):
            self._hosts.setdefault((b"", b""), []).append(outcome.host)  # No output differs, too.

    def end(self) -> None:
        first, *others = self._groups() or [((b"", b""), "")]
        self._show_both(*first)
        for streams, names in others:
            self._compare(self._screen.out, first[1], first[0][0], names, streams[0])
            self._compare(self._screen.err, first[1], first[0][1], names, streams[1])

    def _compare(
        self, outlet: Outlet, old_names: str, old: bytes, new_names: str, new: bytes
    ) -> None:
        """Show a unified diff of the output of two groups of hosts."""
        if old == new:
            return
        outlet.line("", f"--- {old_names}".encode(), "", BOLD)
        outlet.line("", f"+++ {new_names}".encode(), "", BOLD)
        changes = difflib.diff_bytes(difflib.unified_diff, _lines(old), _lines(new), lineterm=b"")
        for change in list(changes)[2:]:  # The first two lines are file names.
            colour = {b"-": RED, b"+": GREEN, b"@": BLUE}.get(change[:1], "")
            for line in change.split(b"\n"):
                outlet.line("", line, "", colour)


def _lines(octets: bytes) -> list[bytes]:
    *lines, last = octets.split(b"\n")
    # diff(1) prints this on a separate line.
    return [*lines, last + b"\n\\ No newline at end of file"] if last else lines


class Live(View):
    """Show each line as soon as it is complete, prefixed with its host."""

    def __init__(self, screen: Screen, hosts: list[Host]) -> None:
        super().__init__(screen)
        self.on_output = self._take
        self._begun: dict[tuple[Host, remctl.RemctlStream], list[bytes]] = {}
        self._width = max(len(str(host)) for host in hosts)

    def _take(self, host: Host, stream: remctl.RemctlStream, octets: bytes) -> None:
        # Each host has one thread, so its lines need no lock.
        first, *others = octets.split(b"\n")
        begun = self._begun.setdefault((host, stream), [])
        begun.append(first)
        for line in others:
            self._line(host, stream, b"".join(begun))
            begun[:] = [line]

    def finished(self, outcome: Outcome) -> None:
        for stream in remctl.RemctlStream:
            begun = b"".join(self._begun.pop((outcome.host, stream), []))
            if begun:
                self._line(outcome.host, stream, begun)
        if not outcome.ok and not is_interrupted(outcome):
            err = self._screen.err
            words = ": ".join(filter(None, (headline(outcome), detail(outcome))))
            err.say(err.paint(f"{self._label(err, outcome.host)}failed: {words}", RED))

    def _line(self, host: Host, stream: remctl.RemctlStream, octets: bytes) -> None:
        if stream == remctl.RemctlStream.STDOUT:
            self._screen.out.line(self._label(self._screen.out, host), octets, BLUE)
        else:
            self._screen.err.line(self._label(self._screen.err, host), octets, BLUE, YELLOW)

    def _label(self, outlet: Outlet, host: Host) -> str:
        return f"{host}: ".ljust(self._width + 2) if outlet.terminal else f"{host}: "


class Json(View):
    """Print a JSON object per host, one per line, as hosts finish."""

    def finished(self, outcome: Outcome) -> None:
        found = output(outcome)
        fields: dict[str, Any] = {
            "host": outcome.host.name,
            "port": outcome.host.port,
            "ok": outcome.ok,
            "status": found.status,
            **_text("stdout", found.stdout),
            **_text("stderr", found.stderr),
            "error": None if outcome.error is None else _error(outcome),
            "may_have_run": outcome.may_have_run,
            "advice": advice(outcome),
            "seconds": round(outcome.seconds, 3),
            "attempts": outcome.attempts,
        }
        # ASCII depends on no locale, and has no control characters for the terminal.
        self._screen.out.say(json.dumps(fields), whole=True)


def _text(name: str, octets: bytes | None) -> dict[str, str | None]:
    try:
        return {name: (octets or b"").decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(octets or b"").decode()}


def _error(outcome: Outcome) -> dict[str, Any]:
    code = getattr(outcome.error, "code", None)
    return {
        "kind": kind(outcome),
        "type": type(outcome.error).__name__,
        "text": outcome.reason,
        "code": code if code is None else int(code),
    }


class Raw(View):
    """Pass on the output of one host as it comes, like remctl(1).

    Args:
        named: whether errors start with the host's name, as several may be tried.
        prompt: whether to print the exit status for a user at a prompt.

    Attributes:
        status: the exit status, as from remctl(1).
    """

    def __init__(self, screen: Screen, *, named: bool = False, prompt: bool = False) -> None:
        super().__init__(screen)
        self._named = named
        self._prompt = prompt
        self._outlets = {
            remctl.RemctlStream.STDOUT: screen.out,
            remctl.RemctlStream.STDERR: screen.err,
        }
        self.on_output = self._take
        self.status = 1

    def _take(self, host: Host, stream: remctl.RemctlStream, octets: bytes) -> None:
        self._outlets[stream].piece(octets)

    def end(self) -> None:
        for outlet in self._outlets.values():
            outlet.piece(b"", last=True)

    def finished(self, outcome: Outcome) -> None:
        self.end()
        if outcome.result is not None:
            self.status = outcome.result.status or 0
            if self.status and self._prompt:
                err = self._screen.err
                err.say(err.paint(f"exit status {self.status}", YELLOW))
        elif isinstance(outcome.error, remctl.RemctlServerError):
            self.status = 255
            self._screen.err.line("", outcome.reason.encode())
        else:
            self.status = 1
            text, label = outcome.reason, "remctl-fleet: "
            if self._named:
                text = ": ".join(filter(None, (kind(outcome), detail(outcome))))
                label += f"{outcome.host}: "
            if outcome.may_have_run:
                text += f"; the command {fate(outcome)}"
            for line in explained(text, outcome.error):
                self._screen.err.line(label, line.encode())
