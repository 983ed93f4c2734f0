"""Tells what a machine wants to know of the account it is to work in; see account.FarSide."""

import os
import pwd
import sys

try:
    account = pwd.getpwuid(os.getuid())
    name, home, shell = account.pw_name, account.pw_dir, account.pw_shell
except KeyError:
    name, home, shell = str(os.getuid()), "/", "/bin/sh"
# The same path is not the same folder where it cannot be entered.
if not os.access(home, os.X_OK):
    home = "/"
try:
    python = os.readlink("/proc/self/exe")  # sys.executable goes by argv[0], which has no folder.
except OSError:
    python = sys.executable
print(
    ascii(
        {
            "python_version": sys.version_info[:3],
            "python": python,
            "uid": os.getuid(),
            "user": name,
            "home": home,
            "shell": shell or "/bin/sh",
            "client": os.environ.get("REMOTE_ADDR", ""),
            "path": os.environ.get("PATH", os.defpath),
            "system": tuple(os.uname()),
        }
    )
)
