"""Check that a wheel works; cibuildwheel runs this without a KDC: python ci/smoke.py."""

import os
import socket
import sys
import sysconfig

import _remctl

import remctl

# The extension and the module belong together, and come from the wheel.
assert remctl.__version__ == _remctl.VERSION
for module in (remctl, _remctl):
    assert str(module.__file__).startswith(sysconfig.get_paths()["platlib"]), module.__file__

# Connect to a port without a listener: this runs only our own code.
with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    try:
        remctl.remctl("127.0.0.1", unused.getsockname()[1], command=["test"])
    except remctl.RemctlConnectError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise SystemExit("connecting to a closed port succeeded")

# Connect to a server that hangs up: this runs libremctl and Kerberos, which has no tickets.
os.environ["KRB5CCNAME"] = "FILE:/nonexistent/tickets"
with socket.create_server(("127.0.0.1", 0)) as server:
    try:
        remctl.remctl("127.0.0.1", server.getsockname()[1], command=["test"], timeout=10)
    except remctl.RemctlError as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise SystemExit("a command ran without tickets")

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    assert not getattr(sys, "_is_gil_enabled")()  # noqa: B009  (mypy knows 3.11, which has none)
print(f"python-remctl {remctl.__version__} works with Python {sys.version.split()[0]}")
