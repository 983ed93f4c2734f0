"""Programs that a function runs: ``machine.call(helpers.output_lines, ["ls", "-l"])``."""

from __future__ import annotations

from collections.abc import Callable

from .base.sources import functions_of

__all__ = ["check_output", "output_lines"]

_far = functions_of("call/far_helpers")

check_output: Callable[..., bytes] = _far["check_output"]
"""Run a program, and return what it wrote; other keywords are those of `subprocess.run()`."""
output_lines: Callable[..., list[str]] = _far["output_lines"]
"""The same, as lines of text."""
