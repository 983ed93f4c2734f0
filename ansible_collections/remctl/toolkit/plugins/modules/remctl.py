"""The documentation of the module remctl.toolkit.remctl; plugins/action/remctl.py is its code."""

from __future__ import annotations

DOCUMENTATION = """
module: remctl
short_description: run one remctl command, with the controller's Kerberos tickets
description:
  - Runs a command that a remctld offers, and returns what it wrote and its exit status.
  - It is the controller that connects, with the Kerberos tickets of the user who runs Ansible. The
    host's connection is not used, so the host needs remctld and nothing else.
version_added: "4.0.0"
author: The python-remctl authors
options:
  argv:
    description: The command as a list of words, such as C([accounts, show, alice]).
    type: list
    elements: str
    required: true
  stdin:
    description:
      - Added to the command as its last argument, which commands with C(stdin=last) in
        C(remctl.conf) read from standard input. It is not logged.
      - This is the place for a password.
    type: str
  host:
    description: Name or address of the server. Without one, it is the address of the task's host.
    type: str
  port:
    description: Port of remctld. Without one, the port is 4373.
    type: int
  principal:
    description: Kerberos principal of the server. Without one, it is host/HOST.
    type: str
  ccache:
    description: Kerberos credential cache with the tickets. Without one, it is the user's default.
    type: str
  deadline:
    description: Seconds that all of it may take. Without one, it may take any time.
    type: float
attributes:
  check_mode:
    support: partial
    description: In check mode, the arguments are checked, and the command is skipped.
  async:
    support: none
    description: The command runs on the controller.
notes:
  - A status other than 0 is a failure unless C(failed_when) says otherwise. C(changed) is always
    true after a command has run. Use C(changed_when) to say what a change is.
  - A command that only reads can be run in check mode with C(check_mode=false).
  - The result holds the output of the command and no argument. Use C(no_log) to hide the output.
"""

EXAMPLES = """
- name: Show a quota
  remctl.toolkit.remctl:
    argv: [fs, quota, show, /home/alice]
    host: files.example.org
  register: quota
  changed_when: false
  check_mode: false

- name: Set a password
  remctl.toolkit.remctl:
    argv: [kadmin, password, alice]
    stdin: "{{ new_password }}"
  changed_when: "'unchanged' not in result.stdout"
  register: result
"""

RETURN = """
stdout:
  description: Standard output of the command, without line breaks at its end.
  returned: the command ran
  type: str
stdout_lines:
  description: The lines of it.
  returned: the command ran
  type: list
  elements: str
stderr:
  description: Standard error of the command, without line breaks at its end.
  returned: the command ran
  type: str
stderr_lines:
  description: The lines of it.
  returned: the command ran
  type: list
  elements: str
rc:
  description: Exit status of the command.
  returned: the command ran
  type: int
error_code:
  description: Code with which the server refused the command, such as 5 for an unknown command.
  returned: the server refused the command
  type: int
"""
