"""Draws docs/pictures/remctl-fleet.svg, a terminal after a run of remctl-fleet on real servers.

    ./run docs --pictures

It is what the command wrote to a terminal, in its colours. It needs rich, and what tests need.
"""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

from remctl_toolkit.testing import Command, Realm, RemctldServer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.preload import preloaded  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "remctl-fleet.svg"
COLUMNS = 76  # as few as hold it: text is larger then
ARGUMENTS = ["--timeout", "1", "web[1-40]", "--", "service", "status", "nginx"]
SHOWN = "remctl-fleet --timeout 1 'web[1-40]' -- service status nginx"

SERVICE = """
case $NAME in
web7) echo "nginx is dead"; echo 'nginx: unknown directive "sserver_name"' >&2; exit 3 ;;
*) echo "nginx is running" ;;
esac"""
NOBODY = "princ:nobody@REMCTL.TEST"


class Place:
    """The hosts web1 to web40, while it is open: most of them are one server with many names."""

    def __init__(self, stack: ExitStack) -> None:
        self.realm = stack.enter_context(Realm())
        self.places: dict[str, tuple[str, int]] = {}
        good = self._serve(stack, "web1")
        for number in range(1, 41):
            self.places[f"web{number}"] = good
        self.places["web7"] = self._serve(stack, "web7")
        self.places["web23"] = self._serve(stack, "web23", NOBODY)
        silent, closed = (stack.enter_context(socket.socket()) for _ in range(2))
        for listener, name in ((silent, "web31"), (closed, "web38")):
            listener.bind(("127.0.0.1", 0))
            self.places[name] = listener.getsockname()
        silent.listen()

    def _serve(self, stack: ExitStack, name: str, acl: str | None = None) -> tuple[str, int]:
        server = RemctldServer(
            self.realm,
            [Command("service", "status", script=SERVICE)],
            env={"NAME": name},
            default_acl=acl,
        )
        stack.enter_context(server)
        return "127.0.0.1", server.port


def run(place: Place) -> tuple[str, int]:
    """Run remctl-fleet in a child, on a terminal; return what it wrote, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        be_fleet(place)
    written = b"".join(read_all(terminal))
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def be_fleet(place: Place) -> None:
    """Be remctl-fleet, where the names of the hosts are known and all are one principal."""
    hosts = " ".join(f"{name}={host}@{port}" for name, (host, port) in place.places.items())
    with (
        tempfile.TemporaryDirectory() as folder,
        preloaded("resolver", Path(folder), FAKE_HOSTS=hosts),
    ):
        environ = {
            **os.environ,
            **place.realm.env,
            "TERM": "xterm-256color",
            "COLUMNS": str(COLUMNS),
            "LINES": "30",
            "PYTHONPATH": str(ROOT),
            # A default, which is not shown.
            "REMCTL_FLEET_OPTIONS": f"--principal {place.realm.host_principal}",
        }
        environ.pop("NO_COLOR", None)
        words = [sys.executable, "-m", "remctl_toolkit.cli.fleet", *ARGUMENTS]
        status = subprocess.run(words, env=environ).returncode
    os._exit(status)


def read_all(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(terminal, 65536)
        except OSError:  # Linux has EIO for a terminal that nobody has open.
            return


def screen(written: str) -> str:
    """Return the lines that are left: the progress bar goes up and erases what it drew."""
    lines = [""]
    row = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b[?"):
            lines[row] += part
    return "\n".join(lines).rstrip()


def draw(text: str) -> str:
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(Text.from_ansi(text), soft_wrap=True)
    # No fonts from elsewhere: the reader's own will do.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    drawn = console.export_svg(title="remctl-fleet", code_format=form, unique_id="fleet")
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


def main() -> None:
    with ExitStack() as stack:
        written, status = run(Place(stack))
    if status != 1:
        raise SystemExit(
            f"remctl-fleet was to end with 1, some hosts failed; not {status}: {written}"
        )
    prompt = "\x1b[32m$\x1b[0m"
    PICTURE.write_text(draw(f"{prompt} {SHOWN}\n{screen(written)}\n{prompt} echo $?\n{status}"))
    print(PICTURE)


if __name__ == "__main__":
    main()
