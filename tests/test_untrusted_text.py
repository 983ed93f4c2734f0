"""Foreign text on every way to a terminal, a log or an uncaught exception.

A server, a remote account, a KDC and a file each say `EVIL`.  Each way runs on a pseudo-terminal:
nothing that is not printable may get there, and no line may be made up.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.fakeserver import FakeServer, Peer
from support.terminal import Terminal
from support.wire import Error

from remctl_toolkit.testing import Command, RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

EVIL = (
    "\x1b]0;PWNED\x07\x1b]52;c;cHduZWQ=\x07\x1b[2J\x1bc\b\x7f\x00\x0e\v\f"
    "\x9b31m\x90q\x85"  # C1
    "\u202e\u2066\u2069\u200e\u200f\u061c\u2028\u2029\ufeff\u00ad\u200b\U000e0001\ue000"
    "evil\rweb2: all is well\nFORGED: a line\x1b]0;PWNED\x07"
).encode() + b"\x9b31m\xc0\x9b\xed\xa0\x80\xff end\n"
FORGED = b"\nFORGED"

# Where a NUL and octets that are not UTF-8 cannot be, or a newline.
TEXT = EVIL.decode(errors="ignore").replace("\0", "")
LINE = TEXT.replace("\n", " ").replace("\r", " ").strip()

LIAR = f"""#!{sys.executable} -IS
import sys
sys.stdout.buffer.write({EVIL!r})
sys.stdout.flush()
sys.stderr.buffer.write({EVIL!r})
sys.exit(3)
"""


class Place(NamedTuple):
    """The addresses of the servers, for the programs below."""

    port: int
    refusing_port: int
    folder: Path
    environ: dict[str, str]


def refuse(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_error(Error.ACCESS, EVIL)


@pytest.fixture(scope="module")
def place(remctl_realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("untrusted")
    commands = (Command("liar", script=LIAR), *machine_commands())
    with ExitStack() as stack:
        server = stack.enter_context(RemctldServer(remctl_realm, commands))
        refusing = stack.enter_context(FakeServer(remctl_realm.keytab, refuse))
        environ = {**os.environ, **remctl_realm.env, "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        environ.pop("PYTHONWARNINGS", None)
        yield Place(server.port, refusing.port, folder, environ)


def shown_by(place: Place, arguments: list[str], typed: str = "") -> bytes:
    """Run a program on a terminal, and return what is shown."""
    with Terminal(arguments, {**place.environ, "TERM": "xterm"}) as terminal:
        if typed:
            terminal.expect("> ")
            terminal.type(typed)
        terminal.wait()
        return terminal.octets


def check_shown(octets: bytes, *, forgeable: bool = False) -> None:
    """Check that there is an escape for what is not printable, and nothing of it as it is."""
    text = octets.decode()  # It is UTF-8.
    text = re.sub(r"(?m)^\x1b\[31m|\x1b\[0m(?=\r\n)", "", text)  # the colour of standard error
    left = {character for character in text if not (character.isprintable() or character in "\r\n")}
    assert not left, text
    assert "\r" not in text.replace("\r\n", ""), text
    assert r"\x1b]0;PWNED\x07" in re.sub(r"\r\n {4,}", "", text), text
    assert forgeable or FORGED not in octets, text


def program(name: str, *arguments: str) -> list[str]:
    runner = f"import sys; from remctl_toolkit.cli.{name} import main; sys.exit(main())"
    return [sys.executable, "-c", runner, *arguments]


# -- Commands -------------------------------------------------------------------------------------

HOSTS = {
    "a group": f"@x{LINE}",
    "a source of groups": f"@{LINE}:y",
    "a range": f"a[1-2]{LINE}[3",
    "the inside of a range": f"web[1-{LINE}]",
    "a name": LINE,
    "a port": f"web1:{LINE}",
    "an address": f"[{LINE}]:22",
    "the scope of an address": f"fe80::1%{LINE.replace(',', '')}",
    "a host that is left out": f"web1,-{LINE}",
}


@pytest.mark.parametrize("item", HOSTS.values(), ids=HOSTS.keys())
def test_a_file_of_hosts(place: Place, item: str) -> None:
    path = place.folder / "hosts"
    path.write_bytes(item.encode())
    check_shown(shown_by(place, program("fleet", "-f", str(path), "--", "liar", "x")))


FLEET = {
    "gathered": ["--gather", "liar"],
    "live": ["--live", "liar"],
    "the log": ["--debug", "--gather", "liar"],
    "a refusal, gathered": ["--gather", "refused"],
    "a refusal, live": ["--live", "refused"],
    "a refusal of one host": ["refused"],
}


@pytest.mark.parametrize("arguments", FLEET.values(), ids=FLEET.keys())
def test_remctl_fleet(place: Place, arguments: list[str]) -> None:
    *options, command = arguments
    port = place.refusing_port if command == "refused" else place.port
    argv = program("fleet", "-q", *options, "-p", str(port), "localhost", command)
    check_shown(shown_by(place, argv))


def test_remctl_fleet_as_json(place: Place) -> None:
    octets = shown_by(
        place, program("fleet", "-q", "--json", "-p", str(place.port), "localhost", "liar")
    )
    assert octets.isascii()
    assert b"\x1b" not in octets
    assert b"exit status 3" in octets


def test_a_refusal_in_the_shell(place: Place) -> None:
    argv = program("fleet", "-q", "--shell", f"localhost:{place.refusing_port}")
    check_shown(shown_by(place, argv, "any thing\nexit\n"))


ONE_HOST = {
    "one host": (["localhost:{port}", "liar"], ""),
    "the first that answers": (["--any", "localhost:{port}", "liar"], ""),
    "the shell": (["-q", "--shell", "localhost:{port}"], "liar\nexit\n"),
}


@pytest.mark.parametrize(("arguments", "typed"), ONE_HOST.values(), ids=ONE_HOST.keys())
def test_output_of_one_host(place: Place, arguments: list[str], typed: str) -> None:
    argv = program("fleet", *(each.format(port=place.port) for each in arguments))
    check_shown(shown_by(place, argv, typed), forgeable=True)


def test_output_of_one_host_reaches_a_pipe_as_it_is(place: Place) -> None:
    for arguments, typed in ONE_HOST.values():
        argv = program("fleet", *(each.format(port=place.port) for each in arguments))
        done = subprocess.run(argv, env=place.environ, input=typed.encode(), capture_output=True)
        assert (done.stdout, done.stderr) == (EVIL, EVIL)


def test_remctl_rsh_where_there_is_no_python(place: Place) -> None:
    argv = program("rsh", "-p", str(place.port), "--python", "liar", "localhost", "true")
    check_shown(shown_by(place, argv))


# -- Programs -------------------------------------------------------------------------------------

BEGINNING = """
import logging, sys
import remctl
port, refusing, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
"""
MACHINE = """
from remctl_toolkit.machine import Machine, process
m = Machine("localhost", port)
"""

# An exception that is not caught, unless there is something else.
PROGRAMS = {
    "a refusal": "remctl.remctl('localhost', refusing, command=['x'])",
    "a refusal in a log": """
try:
    remctl.remctl('localhost', refusing, command=['x'])
except remctl.RemctlServerError as error:
    logging.error("it failed: %s", error)
""",
    "a refusal, token by token": """
with remctl.Remctl('localhost', refusing) as session:
    list(session.stream(['x']))
""",
    "a refusal, with asyncio": """
import asyncio
from remctl_toolkit.aio import aremctl
asyncio.run(aremctl('localhost', refusing, command=['x']))
""",
    "a refusal, in a fleet": """
from remctl_toolkit.fleet import check_all, run_on_hosts
outcomes = list(run_on_hosts(['localhost'], ['x'], port=refusing))
print(*outcomes)
check_all(outcomes)
""",
    "a refusal, in a pool": """
from remctl_toolkit.pool import Pool
with Pool('localhost', refusing) as pool:
    print(*pool.map([['x']]))
with Pool('localhost', refusing) as pool:
    pool.run(['x'])
""",
    "the last line": "print(remctl.remctl('localhost', port, command=['liar']).last_line)",
    "words of a command in the log": """
logging.basicConfig(level=logging.DEBUG)
remctl.remctl('localhost', port, command=['liar', TEXT])
""",
    "a host in the log": """
logging.basicConfig(level=logging.DEBUG)
remctl.Remctl(TEXT.replace(' ', ''), connect=False).run(['x'])
""",
    "a host in an exception": "remctl.remctl(TEXT, 9, command=['x'])",
    "a host in a repr": "print(remctl.Remctl(TEXT, connect=False))",
    "a principal": "remctl.remctl('localhost', port, 'host/' + TEXT, ['x'])",
    "a credential cache": "remctl.remctl('localhost', port, command=['x'], ccache=TEXT)",
    "tickets": """
from _remctl_hints import describe_tickets
print(describe_tickets(TEXT, TEXT, None))
""",
    "a list of hosts": """
from remctl_toolkit.hosts import HostList
HostList(TEXT)
""",
    "a test realm": """
from remctl_toolkit.testing import RealmError
raise RealmError(f"krb5kdc ended: {TEXT}")
""",
    "output of a call": MACHINE + "m.call(print, TEXT)",
    "output of a program of a call": MACHINE + """
from remctl_toolkit.machine import helpers
m.call(helpers.check_output, ["sh", "-c", "printf '%s\\n' \\"$0\\" >&2", LINE])
""",
    "an exception of a call": MACHINE + """
def far(text): raise ValueError(text)
m.call(far, TEXT)
""",
    "a result of a call that is no data": MACHINE + """
def far(text): return type(text, (), {})()
m.call(far, LINE)
""",
    "an interpreter that ends": MACHINE + """
from remctl_toolkit.machine.call import Interpreter
from remctl_toolkit.machine.channel import Channel
class Liar(Interpreter):
    def _start(self, *arguments):
        return Channel(m.connection, ["sh", "-c", "printf %s \\"$0\\" >&2; exit 3", LINE])
Liar(m.connection).call(len, 'x')
""",
    "a machine without Python": """
from remctl_toolkit.machine import Machine
Machine('localhost', port, python='liar')
""",
    "lines of a process in the log": MACHINE + """
logging.basicConfig(level=logging.DEBUG)
process.run(m, ["printf", "%s", TEXT])
""",
    "a process that cannot run": MACHINE + "process.run(m, ['/none/' + LINE])",
    "plumbum's exception": MACHINE + """
m["sh"]("-c", "printf %s \\"$0\\" >&2; exit 3", TEXT)
""",
    "plumbum's exception, of a session": MACHINE + """
with m.session() as shell:
    shell.run(f"printf %s '{LINE}' >&2; (exit 3)")
""",
    "a pickled exception of plumbum": MACHINE + """
import pickle
try:
    m["sh"]("-c", "printf %s \\"$0\\" >&2; exit 3", TEXT)
except OSError as error:
    assert error.stderr == TEXT
    raise pickle.loads(pickle.dumps(error))
""",
    "standard error of a gateway": MACHINE + """
import execnet
from remctl_toolkit.machine.gateway import open_gateway
group = execnet.Group()
channel = open_gateway(m.connection, group=group).remote_exec(
    "import sys; sys.stderr.write(channel.receive()); sys.stderr.flush()"
)
channel.send(TEXT.replace("\\n", " "))
channel.waitclose()
group.terminate()
""",
    "a gateway that does not start": MACHINE + """
from remctl_toolkit.machine.gateway import open_gateway
open_gateway(m.connection, python=["sh", "-c", "printf %s \\"$0\\" >&2; exit 3", LINE])
""",
    "a file that is not there": MACHINE + "m.path('/none/' + LINE).read()",
    "a transfer": MACHINE + "m.download('/none/' + LINE, folder)",
}  # fmt: skip

# Tracebacks of the remote host have lines, and so has what Kerberos's programs say.
FORGEABLE = ("an exception of a call", "a test realm")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(place: Place, name: str) -> None:
    path = place.folder / "program.py"
    texts = f"TEXT, LINE = {TEXT!a}, {LINE!a}\n"
    path.write_text(f"{BEGINNING}{texts}{PROGRAMS[name]}\n")
    arguments = map(str, (place.port, place.refusing_port, place.folder))
    octets = shown_by(place, [sys.executable, str(path), *arguments])
    check_shown(octets, forgeable=name in FORGEABLE)


def test_a_long_line_of_a_machine_cannot_look_like_anothers(place: Place) -> None:
    path = place.folder / "program.py"
    words = "[web2] all is well. "
    lines = [f"{'x' * shift} {words * 20}" for shift in range(len(words))]
    path.write_text(f"{BEGINNING}{MACHINE}\nfor line in {lines!r}: m.call(print, line)\n")
    arguments = map(str, (place.port, place.refusing_port, place.folder))
    octets = shown_by(place, [sys.executable, str(path), *arguments])
    rows = octets.decode().splitlines()
    assert len(rows) > 5 * len(lines)
    assert all(row.startswith(("[localhost] ", "    ")) and len(row) <= 80 for row in rows)


# -- A KDC ----------------------------------------------------------------------------------------


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def general_string(text: bytes) -> bytes:
    return der(0x1B, text)


def integer(number: int) -> bytes:
    return der(0x02, bytes([number]))


def kerberos_error(realm: str, text: bytes) -> bytes:
    """Return KRB-ERROR (RFC 4120, 5.9.1): a generic error, which its text explains."""
    krbtgt = [general_string(part) for part in (b"krbtgt", realm.encode())]
    name = der(0x30, der(0xA0, integer(2)), der(0xA1, der(0x30, *krbtgt)))
    fields = {
        0: integer(5), 1: integer(30), 4: der(0x18, b"20260101000000Z"), 5: integer(0),
        6: integer(60), 9: general_string(realm.encode()), 10: name, 11: general_string(text),
    }  # fmt: skip
    return der(0x7E, der(0x30, *(der(0xA0 + number, field) for number, field in fields.items())))


@contextlib.contextmanager
def forging_kdc(answer: bytes) -> Iterator[int]:
    """Answer everything with one message, which takes no key; give the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kdc:
        kdc.bind(("127.0.0.1", 0))

        def run() -> None:
            while True:
                question, client = kdc.recvfrom(65536)
                if question == b"end":
                    return
                kdc.sendto(answer, client)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield kdc.getsockname()[1]
        finally:
            kdc.sendto(b"end", kdc.getsockname())
            thread.join()


def test_a_forged_error_of_a_kdc(place: Place, remctl_realm: Realm) -> None:
    answer = kerberos_error(remctl_realm.name, EVIL.replace(b"\0", b""))
    with forging_kdc(answer) as port:
        settings = Path(remctl_realm.env["KRB5_CONFIG"]).read_text()
        settings = re.sub(r"\bkdc = \S+", f"kdc = 127.0.0.1:{port}", settings)
        settings = settings.replace("[libdefaults]", "[libdefaults]\nudp_preference_limit = 32700")
        config = place.folder / "krb5.conf"
        config.write_text(settings)
        code = (
            "import remctl, sys; remctl.remctl('localhost', int(sys.argv[1]), 'host/other', ['x'])"
        )
        forged = place._replace(environ={**place.environ, "KRB5_CONFIG": str(config)})
        octets = shown_by(forged, [sys.executable, "-c", code, str(place.port)])
    assert b"RemctlAuthenticationError" in octets
    check_shown(octets)
