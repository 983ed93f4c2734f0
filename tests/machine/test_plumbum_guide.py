"""The examples of plumbum's guide to remote machines, with nothing changed but the connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from machine.tunnel_servers import serving

from remctl_toolkit.machine.plumbum.machine import Machine
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once


@pytest.fixture
def rem(server: RemctldServer) -> Iterator[Machine]:
    with Machine(server.host, server.port, server.principal) as rem:
        yield rem


@pytest.fixture
def eater() -> Iterator[int]:
    """The guide's sophisticated server, on a port of the remote localhost."""

    def eat(s2: socket.socket) -> None:
        while data := s2.recv(1000):
            s2.send(b"I eat " + data)

    with serving(eat) as port:
        yield port


def test_remote_machines(server: RemctldServer) -> None:
    rem = Machine(server.host, server.port, server.principal)
    rem.close()
    with Machine(server.host, server.port, server.principal) as rem:
        pass


def test_working_directory_and_environment(rem: Machine) -> None:
    desktop = f"Desktop-of-{os.urandom(8).hex()}"  # In the home folder, which is not ours alone.
    (rem.cwd / desktop).mkdir()
    try:
        with rem.cwd(rem.cwd / desktop):
            assert str(rem.cwd).endswith(f"/{desktop}")
    finally:
        (rem.cwd / desktop).rmdir()
    assert "/bin" in rem.env["PATH"]
    assert rem.which("ls").name == "ls"
    assert repr(rem.which("ls")).startswith("<RemotePath /")


def test_tunneling(rem: Machine, eater: int) -> None:
    tun = rem.tunnel(0, eater)
    tun.close()
    with rem.tunnel(0, eater) as tun, socket.create_connection(("localhost", tun.lport)) as s:
        s.send(b"carrot")
        assert s.recv(1000) == b"I eat carrot"


def test_a_tunnel_the_other_way(rem: Machine, eater: int) -> None:
    with (
        rem.tunnel(eater, 0, reverse=True) as tun,
        socket.create_connection(("localhost", tun.dport)) as s,
    ):
        s.send(b"carrot")
        assert s.recv(1000) == b"I eat carrot"


def test_remote_commands(rem: Machine) -> None:
    assert "ls" in repr(rem["ls"])
    assert str(rem["/usr/local/bin/python3.2"]) == "/usr/local/bin/python3.2"
    r_ls = rem["ls"]
    with rem.cwd("/"):
        assert "bin\n" in r_ls()
        assert "..\n" in r_ls("-a")


def test_nesting_commands(rem: Machine) -> None:
    # The guide has sudo; env does the same with its arguments.
    r_sudo = rem["env"]
    r_ifconfig = rem["ls"]
    assert r_sudo[r_ifconfig["-a"]]() == r_ifconfig("-a")


def test_piping(rem: Machine) -> None:
    r_grep = rem["grep"]
    r_ls = rem["ls"]["/"]
    assert "bin\n" in (r_ls | r_grep["b"])()
    from plumbum.cmd import grep

    assert "bin\n" in (r_ls | grep["b"])()


def test_what_the_guide_has_for_paramiko(rem: Machine, eater: int) -> None:
    s = rem.session()
    rc, out, err = s.run("ls / | grep b")
    assert (rc, err) == (0, "")
    assert "bin\n" in out
    s.close()
    with rem.connect_sock(eater) as sock:
        assert sock.send(b"carrot") == 6
        assert sock.recv(1000) == b"I eat carrot"
        assert sock.send(b"babies") == 6
        assert sock.recv(1000) == b"I eat babies"


def test_remote_paths(rem: Machine) -> None:
    p = rem.path("/bin")
    assert repr(p / "ls") == "<RemotePath /bin/ls>"
    assert (p / "ls").is_file()
    assert all(path.name.startswith("tt") for path in rem.path("/dev") // "tt*")
