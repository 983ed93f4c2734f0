"""The connection plugin remctl.toolkit.remctl: a host's tasks run over remctl instead of ssh."""

from __future__ import annotations

DOCUMENTATION = """
name: remctl
short_description: run tasks over remctl, with Kerberos tickets
description:
  - Connects to the host's remctld with the Kerberos tickets of the user who runs Ansible.
  - The host needs no SSH server. Its C(remctl.conf) needs one line for each account, or two, which
    make tasks faster, as described in U(https://pypi.org/project/python-remctl/).
version_added: "4.0.0"
author: The python-remctl authors
extends_documentation_fragment: [connection_pipelining]
options:
  remote_addr:
    description: Name or address of the host.
    default: inventory_hostname
    type: string
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_remctl_host
  port:
    description: Port of remctld. Without one, the port is 4373.
    type: int
    vars:
      - name: ansible_port
      - name: ansible_remctl_port
    keyword:
      - name: port
  principal:
    description: Kerberos principal of the server. Without one, it is host/HOST.
    type: string
    vars:
      - name: ansible_remctl_principal
  remote_user:
    description:
      - Account to run tasks as. The commands for account USER are C(python-USER) and C(sh-USER), or
        C(python) and C(sh) if these run as USER.
      - Without one, the commands are C(python) and C(sh), whatever account they run as.
    type: string
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
      - name: ansible_remctl_user
    cli:
      - name: user
    keyword:
      - name: remote_user
  python:
    description: Name of the remctl command that runs Python.
    default: python
    type: string
    vars:
      - name: ansible_remctl_python
  shell:
    description: Name of the remctl command that runs sh. It is used if the host has it.
    default: sh
    type: string
    vars:
      - name: ansible_remctl_shell
  ccache:
    description: Kerberos credential cache with the tickets. Without one, it is the user's default.
    type: string
    vars:
      - name: ansible_remctl_ccache
  timeout:
    description:
      - Seconds that each step of connecting may take, and that C(become) may take to ask for a
        password.
      - A task's own time is limited by its keyword C(timeout), which ends its command on the host.
    default: 10
    type: int
    ini:
      - section: defaults
        key: timeout
    env:
      - name: ANSIBLE_TIMEOUT
    vars:
      - name: ansible_remctl_timeout
    cli:
      - name: timeout
notes:
  - There are no terminals over remctl. C(become) with C(sudo) and a password works, as sudo reads
    it from standard input. Methods that need a terminal, such as C(su), are refused by Ansible.
  - Tasks with O(pipelining) are fastest.
"""

import contextlib
import os
import selectors
import tempfile
from collections.abc import Iterator
from subprocess import PIPE
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

import remctl
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.machine import ChannelProcess
from remctl_toolkit.machine.base.accounts import connect
from remctl_toolkit.machine.files import fetch, put
from remctl_toolkit.machine.process.popen import Process

_display = Display()


@contextlib.contextmanager
def _ansible_errors(what: str) -> Iterator[None]:
    """Raise Ansible's exceptions instead of ours: AnsibleConnectionFailure is "unreachable"."""
    try:
        yield
    except remctl.RemctlError as error:
        raise AnsibleConnectionFailure("\n".join([what, *explained(str(error), error)])) from None
    except (OSError, TypeError, ValueError) as error:
        raise AnsibleError(f"{what} {error}") from None


class Connection(ConnectionBase):  # type: ignore[misc]
    """A host of the inventory, over remctl."""

    transport = "remctl.toolkit.remctl"
    has_pipelining = True
    has_tty = False
    _connected = False

    def _connect(self) -> Connection:
        if not self._connected:
            host = self.get_option("remote_addr")
            _display.vvv("ESTABLISH REMCTL CONNECTION", host=host)
            try:
                with _ansible_errors(f"Failed to connect to {host} over remctl:"):
                    self._machine = connect(
                        host,
                        self.get_option("remote_user"),
                        port=self.get_option("port"),
                        principal=self.get_option("principal"),
                        python=self.get_option("python"),
                        shell=self.get_option("shell") or None,
                        connect_timeout=self.get_option("timeout"),
                        ccache=self.get_option("ccache"),
                    )
            except AnsibleConnectionFailure:
                raise
            except AnsibleError as error:  # No name of a host: ssh is as unreachable with it.
                raise AnsibleConnectionFailure(str(error)) from None
            self._connected = True
        return self

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int | None, bytes, bytes]:
        """Run a shell's command line; return its status and what it wrote.

        An exception, such as that of the task's timeout, ends it on the host.
        """
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        _display.vvv(f"EXEC {cmd}", host=self.get_option("remote_addr"))
        argv = ["/bin/sh", "-c", to_bytes(cmd, errors="surrogate_or_strict")]
        become = self.become if sudoable else None
        with _ansible_errors("The command was lost:"):
            if become and become.expect_prompt():
                status, stdout, stderr = self._run_with_password(argv, in_data, become)
            else:
                status, stdout, stderr = self._run(argv, in_data)
        if become and become.success and not become.check_success(stdout):
            if become.check_incorrect_password(stdout + stderr):
                raise AnsibleError(f"Incorrect {become.name} password")
            if become.check_missing_password(stdout + stderr):
                raise AnsibleError(f"Missing {become.name} password")
        return status, stdout, stderr

    def _run(
        self, argv: list[str | bytes], in_data: bytes | None
    ) -> tuple[int | None, bytes, bytes]:
        """Run a command whose input is known."""
        streams: Any = {"stdout": PIPE, "stderr": PIPE}
        with tempfile.TemporaryFile() as file:
            file.write(in_data or b"")
            file.seek(0)
            with Process(
                self._machine, argv, stdin=file, label="ansible", whole=True, **streams
            ) as process:
                stdout, stderr = process.communicate()
                return process.returncode, stdout or b"", stderr or b""

    def _run_with_password(
        self, argv: list[str | bytes], in_data: bytes | None, become: Any
    ) -> tuple[int | None, bytes, bytes]:
        """Run a command whose sudo may ask for a password, which comes before the input."""
        streams: Any = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
        process: Any
        with ChannelProcess(self._machine, argv, label="ansible", **streams) as process:
            seen = {process.stdout: b"", process.stderr: b""}
            answered = False
            with selectors.DefaultSelector() as selector:
                for file in seen:
                    selector.register(file, selectors.EVENT_READ)
                while selector.get_map() and not become.check_success(seen[process.stdout]):
                    for file, octets in seen.items():
                        if become.check_password_prompt(octets):
                            if answered:
                                raise AnsibleError(f"Incorrect {become.name} password")
                            answered = True
                            seen[file] = b""
                            process.stdin.write(to_bytes(become.get_option("become_pass")) + b"\n")
                            process.stdin.flush()
                    ready = selector.select(self.get_option("timeout"))
                    if not ready:
                        raise AnsibleConnectionFailure(f"Timeout waiting for {become.name}")
                    for key, _ in ready:
                        octets = os.read(key.fd, 1 << 16)
                        seen[key.fileobj] += octets
                        if not octets:
                            selector.unregister(key.fileobj)
            stdout, stderr = process.communicate(in_data)
            return process.returncode, seen[process.stdout] + stdout, seen[process.stderr] + stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file to the host."""
        super().put_file(in_path, out_path)
        _display.vvv(f"PUT {in_path} TO {out_path}", host=self.get_option("remote_addr"))
        if not os.path.exists(to_bytes(in_path, errors="surrogate_or_strict")):
            raise AnsibleFileNotFound(f"file or module does not exist: {in_path}")
        with _ansible_errors(f"failed to transfer file to {out_path}:"):
            put(self._machine, in_path, out_path)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file from the host."""
        super().fetch_file(in_path, out_path)
        _display.vvv(f"FETCH {in_path} TO {out_path}", host=self.get_option("remote_addr"))
        with _ansible_errors(f"failed to transfer file from {in_path}:"):
            fetch(self._machine, in_path, out_path)

    def reset(self) -> None:
        """Close the connection; the next command opens another."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connected:
            self._machine.close()
            self._connected = False
