"""The module remctl.toolkit.remctl: the controller runs one remctl command."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action import ActionBase

import remctl
from remctl_toolkit.cli.cures import explained

_OPTIONS: dict[str, dict[str, Any]] = {
    "argv": {"type": "list", "elements": "str", "required": True},
    "stdin": {"type": "str", "no_log": True},
    "host": {"type": "str"},
    "port": {"type": "int"},
    "principal": {"type": "str"},
    "ccache": {"type": "str"},
    "deadline": {"type": "float"},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """See plugins/modules/remctl.py for what it does."""

    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the command of the task; return the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(_OPTIONS)
        if not isinstance(self._task.args["argv"], list) or not options["argv"]:
            # Ansible would split a string at its commas.
            return {**result, "failed": True, "msg": "argv must be a list of words, and not empty"}
        if self._task.check_mode:
            text = "Command would have run if not in check mode"
            return {**result, **_output(0, b"", b""), "skipped": True, "msg": text}
        return {**result, **_run(options, options["host"] or self._play_context.remote_addr)}


def _run(options: dict[str, Any], host: str) -> dict[str, Any]:
    stdin = options["stdin"]
    try:
        done = remctl.remctl(
            host,
            options["port"],
            options["principal"],
            options["argv"],
            input=None if stdin is None else stdin.encode("utf-8", "surrogateescape"),
            deadline=options["deadline"],
            ccache=options["ccache"],
        )
    except remctl.RemctlServerError as error:
        return {"failed": True, "msg": f"{host}: {error}", "error_code": error.code}
    except (remctl.RemctlError, OSError, TypeError, ValueError) as error:
        return {"failed": True, "msg": "\n".join(explained(f"{host}: {error}", error))}
    result = {**_output(done.status, done.stdout, done.stderr), "changed": True}
    return result if done.ok else {**result, "failed": True, "msg": "non-zero return code"}


def _output(status: int | None, stdout: bytes | None, stderr: bytes | None) -> dict[str, Any]:
    result: dict[str, Any] = {"rc": status}
    for name, octets in (("stdout", stdout), ("stderr", stderr)):
        text = to_text(octets or b"").rstrip("\r\n")
        result |= {name: text, f"{name}_lines": text.splitlines()}
    return result
