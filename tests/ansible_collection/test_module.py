"""The module: the controller runs remctl commands."""

from __future__ import annotations

import pytest
from ansible_collection.controller import SECRET, Controller

from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once

FAILURES = {
    "status": "non-zero return code",
    "unknown": "Unknown command",
    "elsewhere": "Connection refused",
    "ccache": "credential",
    "deadline": "deadline",
    "text": "argv must be a list of words",
    "empty": "argv must be a list of words",
    "option": "Unsupported parameters",
    "time": "deadline",
    "not a number": "deadline",
}


def test_commands(controller: Controller, server: RemctldServer) -> None:
    results = controller.run("commands.yml")
    failed = {
        name: result.values["msg"] for name, result in results.items() if result.outcome == "failed"
    }
    assert {name: text for name, text in FAILURES.items() if text not in failed.get(name, "")} == {}
    assert failed.keys() == FAILURES.keys()

    words = results["words"].values
    assert words["stdout"] == "a  b 5 é\"'$HOME"
    assert words["stdout_lines"] == [words["stdout"]]
    assert (words["rc"], words["changed"]) == (0, False)
    streams = results["streams"].values
    assert (streams["stdout"], streams["stderr"]) == ("this is stdout", "this is stderr")
    assert streams["stderr_lines"] == ["this is stderr"]
    assert streams["changed"]
    assert results["stdin"].values["stdout"] == "private é"
    assert results["status"].values["rc"] == 3
    assert results["status allowed"].outcome == "ok"
    assert results["unknown"].values["error_code"] == 5
    assert "private" not in server.log
    assert results["hidden"].values["censored"]
    assert SECRET not in controller.output


def test_check_mode(controller: Controller, server: RemctldServer) -> None:
    """Arguments are checked; what is not said to be harmless does not run."""
    results = controller.run("commands.yml", None, "--check")
    assert {name for name, result in results.items() if result.outcome == "ok"} == {"reading"}
    failed = {name for name, result in results.items() if result.outcome == "failed"}
    assert failed == {"text", "empty", "option", "not a number"}
    assert results["reading"].values["stdout"] == "seen"
