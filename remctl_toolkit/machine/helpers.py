"""Functions that run programs: ``machine.call(helpers.output_lines, ["ls", "-l"])``."""

from __future__ import annotations

from collections.abc import Callable

from .facts import far_facts

__all__ = ["check_output", "output_lines"]

check_output: Callable[..., str] = far_facts.check_output
"""Run a program and return its output; other keywords are those of `subprocess.run()`."""
output_lines: Callable[..., list[str]] = far_facts.output_lines
"""Run a program and return the lines of its output; see `check_output`."""
