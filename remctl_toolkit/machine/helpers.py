"""Programs that a function runs: ``machine.call(helpers.output_lines, ["ls", "-l"])``."""

from __future__ import annotations

from collections.abc import Callable

from . import far_helpers

__all__ = ["check_output", "output_lines"]

check_output: Callable[..., bytes] = far_helpers.check_output
"""Run a program, and return what it wrote; other keywords are those of `subprocess.run()`."""
output_lines: Callable[..., list[str]] = far_helpers.output_lines
"""The same, as lines of text."""
