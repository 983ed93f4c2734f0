"""A callback plugin that writes each task's result to a file, as a line of JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: collect
type: aggregate
short_description: write results to the file that the environment variable COLLECT_TO names
description: One line of JSON for each result.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Writes the results."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "collect"

    def _write(self, outcome: str, result: Any) -> None:
        line = {"outcome": outcome, "host": result._host.name, "task": result._task.name}
        values = json.loads(self._dump_results(result._result))
        with open(os.environ["COLLECT_TO"], "a") as file:
            file.write(json.dumps({**line, "result": values}) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write("unreachable", result)
