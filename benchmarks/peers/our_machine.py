"""The contestant remctl_toolkit.machine, and equivalent plain remctl commands."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import remctl
from remctl_toolkit.machine import Channel, Connection, Machine

from .worker import Action, serve

_HOST = os.environ["REMCTL_HOST"]
_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_REQUEST = b"twenty octets of it."


def _machine(host: str = _HOST, shell: str | None = "sh") -> Machine:
    return Machine(host, _PORT, _PRINCIPAL, shell=shell)


def _check(right: bool) -> None:
    if not right:
        raise RuntimeError("wrong output")


class _Machine(Action):
    """Base of the actions of a machine."""

    shell: str | None = "sh"

    def prepare(self) -> None:
        self.machine = _machine(shell=self.shell)
        self.connection: Connection = self.machine.connection

    def quit(self) -> None:
        self.machine.close()


class _True(_Machine):
    """The command true, by plumbum's command object."""

    def prepare(self) -> None:
        super().prepare()
        self.true = self.machine["true"]

    def go(self, count: int) -> None:
        for _ in range(count):
            self.true()


class _Bare(Action):
    """The same program, as a remctl command."""

    command: tuple[str, ...] = ("true",)

    def prepare(self) -> None:
        self.session = remctl.Remctl(_HOST, _PORT, _PRINCIPAL)

    def go(self, count: int) -> None:
        for _ in range(count):
            self.session.run(self.command).check()

    def quit(self) -> None:
        self.session.close()


class _BareShell(_Bare):
    """The same program, by the line for sh."""

    command = ("sh", "-c", "exec true", "")


class _BarePython(_Bare):
    """Python that does nothing, by its line."""

    command = ("python", "-IS", "-c", "pass", "")


class _Call(_Machine):
    """A function that does nothing, called on the server."""

    def prepare(self) -> None:
        super().prepare()
        self.go(1)

    def go(self, count: int) -> None:
        for _ in range(count):
            _check(self.machine.call(abs, -1) == 1)


class _CallPython(_Call):
    shell = None


class _Plain(_Machine):
    """COUNT octets of output, by one plain command."""

    def go(self, count: int) -> None:
        octets = 0
        with self.connection.stream(["head", "-c", count, "/dev/zero"]) as tokens:
            for token in tokens:
                if token.type == "output":
                    octets += len(token.output)
        _check(octets == count)


class _PlainUp(_Machine):
    """COUNT octets of input, for plain commands."""

    piece = bytes(8 << 20)

    def go(self, count: int) -> None:
        for start in range(0, count, len(self.piece)):
            piece = self.piece[: count - start]
            self.connection.run(["sh", "-c", "cat > /dev/null"], input=piece).check()


class _Channel(_Machine):
    """The same by a channel."""

    def go(self, count: int) -> None:
        octets = 0
        with Channel(self.connection, ["head", "-c", str(count), "/dev/zero"]) as channel:
            while got := channel.read(1 << 20):
                octets += len(got)
        _check(octets == count)


class _Files(_Machine):
    """A file of COUNT octets, created on the first call."""

    def prepare(self) -> None:
        super().prepare()
        self.folder = tempfile.TemporaryDirectory(prefix="remctl-bench-")
        self.source = Path(self.folder.name, "source")
        self.target = Path(self.folder.name, "target")

    def make(self, count: int) -> None:
        if not self.source.exists() or self.source.stat().st_size != count:
            self.source.write_bytes(os.urandom(count))

    def quit(self) -> None:
        self.folder.cleanup()
        super().quit()


class _Upload(_Files):
    def go(self, count: int) -> None:
        self.make(count)
        self.machine.upload(self.source, str(self.target))
        _check(self.target.stat().st_size == count)


class _Download(_Files):
    def go(self, count: int) -> None:
        self.make(count)
        self.machine.download(str(self.source), self.target)
        _check(self.target.stat().st_size == count)


class _Echo(threading.Thread):
    """A server that returns its input."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(ConnectionError):  # The tunnel ends when we are done.
            while octets := connection.recv(4096):
                connection.sendall(octets)


class _Tunnel(_Machine):
    """A request of 20 octets through a tunnel, and its answer."""

    def prepare(self) -> None:
        super().prepare()
        echo = _Echo()
        echo.start()
        self.tunnel = self.machine.tunnel(0, echo.listener.getsockname()[1], dhost="127.0.0.1")
        self.socket = socket.create_connection(("127.0.0.1", self.tunnel.lport))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.go(1)

    def go(self, count: int) -> None:
        for _ in range(count):
            self.socket.sendall(_REQUEST)
            got = b""
            while len(got) < len(_REQUEST):
                got += self.socket.recv(4096)
            _check(got == _REQUEST)

    def quit(self) -> None:
        self.socket.close()
        self.tunnel.close()
        super().quit()


class _Many(Action):
    """COUNT machines at once: connect, and run a command and a function on each."""

    def go(self, count: int) -> None:
        ready = threading.Barrier(count)

        def work(number: int) -> bool:
            with _machine(f"127.0.1.{number + 1}") as machine:
                ready.wait(60)
                return bool(machine["echo"]("x") == "x\n" and machine.call(abs, -2) == 2)

        with ThreadPoolExecutor(count) as pool:
            _check(all(pool.map(work, range(count))))


if __name__ == "__main__":
    serve(
        {
            "true": _True,
            "bare": _Bare,
            "bare-shell": _BareShell,
            "bare-python": _BarePython,
            "call": _Call,
            "call-python": _CallPython,
            "plain": _Plain,
            "plain-up": _PlainUp,
            "channel": _Channel,
            "upload": _Upload,
            "download": _Download,
            "tunnel": _Tunnel,
            "many": _Many,
        }
    )
