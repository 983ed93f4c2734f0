"""Ports that stay reserved while nothing listens on them."""

from __future__ import annotations

import socket

import pytest

from remctl_toolkit.testing.kdc import _reserve_port
from remctl_toolkit.testing.ports import ReservedPort

pytestmark = pytest.mark.once


@pytest.fixture
def port() -> ReservedPort:
    return ReservedPort("127.0.0.1")


def test_reserved_port_refuses_connections_and_is_nobody_elses(port: ReservedPort) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((port.address, port.number), timeout=5)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((port.address, port.number))
    port.close()
    port.close()
    with socket.socket() as other:
        other.bind((port.address, port.number))


def test_listens_again_and_again(port: ReservedPort) -> None:
    for _ in range(3):
        with port.listen() as listener:
            assert listener.getsockname() == (port.address, port.number)
            with socket.create_connection((port.address, port.number), timeout=5):
                pass
    port.close()


def test_two_cannot_listen(port: ReservedPort) -> None:
    with port.listen(), pytest.raises(OSError, match="in use"):
        port.listen()
    port.close()


def test_sees_that_the_datagram_port_is_taken() -> None:
    port = _reserve_port()  # Another socket may use the UDP port of a reserved TCP port.
    with socket.socket(type=socket.SOCK_DGRAM) as taker:
        taker.bind((port.address, port.number))
        assert not port.free()
    port.close()


def test_chosen_port(port: ReservedPort) -> None:
    number = port.number
    with port.listen(), pytest.raises(OSError, match="in use"):
        ReservedPort(port.address, number)
    port.close()
    again = ReservedPort(port.address, number)
    assert again.number == number
    again.close()


def test_one_of_two_that_chose_the_same_port_listens(port: ReservedPort) -> None:
    other = ReservedPort(port.address, port.number)
    with port.listen(), pytest.raises(OSError, match="in use"):
        other.listen()
    other.close()
    port.close()


def test_foreign_address_is_an_os_error() -> None:
    with pytest.raises(OSError, match="assign"):
        ReservedPort("192.0.2.1")  # for documentation, RFC 5737: nobody has it
