"""Helpers for the tests of remctl-fleet: named hosts, and the command with or without a terminal.

web1 to web4 are remctlds, which run the commands below; n1 to n200 lead to them too.  deny1 to
deny4 allow nothing, dead1 to dead4 are ports that nobody listens on, silent1 to silent4 never
answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from support.preload import preloaded
from support.proxy import SilentServer, refused_port
from support.terminal import COLUMNS, Terminal
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.testing import Command, Realm, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

# The arguments, one a line, in hexadecimal.
OCTETS = """shift; for each; do printf '%s' "$each" | od -An -v -tx1 | tr -d ' \\n'; echo; done"""

# What a help may say; the commands in it are account create, account show and mail.
HELP = r"""
account create USER      make an account
account show USER        say what there is
  mail [--quota N]       look at mail
$(touch evil)            a trap
`touch` evil
account $(touch) x
account show;touch evil  another
account sh\033[2Jow      another
account -rf              another
UPPER is a value
"""

COMMANDS = [
    Command("name", "show", script='echo "I am $NAME"'),
    Command("lines", "show", script="printf 'one\\ntwo\\n'; echo 'look out' >&2"),
    Command("third", "fails", script='[ "$NAME" != web3 ] || { echo "disk full" >&2; exit 4; }'),
    Command("octets", "show", script="printf '\\377\\0\\033[31mx\\n'"),
    Command("octets", "take", script=OCTETS),
    Command("crlf", "show", script="printf 'line\\r\\n'"),
    Command("shy", "show", script='[ "$NAME" = web3 ] || printf "one\\ntwo\\nthree"'),
    Command("odd", "show", script='printf "one\\n%s\\nthree\\n" "${NAME#web[13]}"'),
    Command(
        *("mixed", "show"),
        script="""case $NAME in
        web3) echo so far; exec sleep 600 ;;
        web4) printf '\\033[2Jodd\\n\\377'; echo '--- web1' >&2; exit 3 ;;
        *) echo fine ;;
        esac""",
    ),
    Command("session", "show", script='echo "session $PPID"'),  # a process for each connection
    Command("slow", "lines", script="printf 'a\\nbe'; sleep 0.2; printf 'gin\\nend'"),
    Command("input", "count", script="wc -c", stdin="last"),
    Command("endless", "show", script="echo so far; exec sleep 600"),
    Command("input", "show", script="cat", stdin="last"),
    Command("account", script=f"printf '{HELP}'", summary="summary"),
    *SAMPLE_COMMANDS,
]

RUNNER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # It may be ignored where the tests run.
for name in os.environ.get("FLEET_WITHOUT", "").split():
    sys.modules[name] = None
if "FLEET_INTERVAL" in os.environ:
    from remctl_toolkit.cli.fleet import progress
    progress.LINE_INTERVAL = float(os.environ["FLEET_INTERVAL"])
from remctl_toolkit.cli.fleet import main
sys.exit(main())
"""
ARGUMENTS = [sys.executable, "-W", "error", "-c", RUNNER]


_NOT_INHERITED = ("NO_COLOR", "COLUMNS", "LINES", "TERM", "REMCTL_FLEET_OPTIONS")


class Hosts:
    """Servers, as a context manager.

    Args:
        realm: the realm of the servers and of the user.
        folder: a folder for files.
        places: addresses and ports of other hosts, by name.
    """

    def __init__(
        self, realm: Realm, folder: Path, places: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.realm = realm
        self._others = places or {}
        self._folder = folder
        self.servers: dict[str, RemctldServer] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for number in range(1, 5):
            self._add(f"web{number}", f"127.0.0.{number + 1}")
        servers = [self._places[f"web{number}"] for number in range(1, 5)]
        self._places.update({f"n{number}": servers[number % 4] for number in range(1, 201)})
        self._add("deny1", "127.0.0.6", default_acl="princ:nobody@REMCTL.TEST")
        dead = self._stack.enter_context(refused_port())
        self._places.update(dead1=("127.0.0.1", dead), dead2=("127.0.0.1", dead))
        self._places["silent1"] = self._stack.enter_context(SilentServer()).address
        for kind in ("deny", "dead", "silent"):
            self._places.update({f"{kind}{n}": self._places[f"{kind}1"] for n in range(2, 5)})
        self._places.update(self._others)
        hosts = " ".join(f"{name}={host}@{port}" for name, (host, port) in self._places.items())
        with preloaded("resolver", self._folder, FAKE_HOSTS=hosts):
            names = ("LD_PRELOAD", "FAKE_HOSTS")
            self._names = {name: os.environ[name] for name in names}
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _add(self, name: str, address: str, default_acl: str | None = None) -> None:
        server = RemctldServer(
            self.realm, COMMANDS, address=address, env={"NAME": name}, default_acl=default_acl
        )
        self.servers[name] = self._stack.enter_context(server)
        self._places[name] = (address, server.port)

    def arguments(self, *arguments: str) -> list[str]:
        """Return the command line, in which all hosts have the same principal."""
        return [*ARGUMENTS, "--principal", self.realm.host_principal, *arguments]

    def environ(self, **variables: str) -> dict[str, str]:
        """Return an environment in which the names resolve."""
        # Colours, the width of the page and the user's defaults are the test's business.
        variables = {"XDG_CONFIG_HOME": str(self._folder), **variables}
        kept = python_environ(**{**self.realm.env, **self._names, **variables})
        return {
            name: value
            for name, value in kept.items()
            if name in variables or name not in _NOT_INHERITED
        }

    def run(
        self, *arguments: str, typed: str | bytes = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command without a terminal."""
        octets = typed.encode() if isinstance(typed, str) else typed
        done = subprocess.run(
            self.arguments(*arguments),
            env=self.environ(**variables),
            input=octets,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def terminal(self, *arguments: str, columns: int = COLUMNS, **variables: str) -> Terminal:
        """Run the command on a terminal."""
        environ = {"TERM": "xterm-256color", **self.environ(**variables)}
        return Terminal(self.arguments(*arguments), environ, columns)
