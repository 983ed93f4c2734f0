"""The identity of a host: one host has one, however its name is spelled."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import Any

import _remctl_core as _core
import remctl

_LONGEST = 255  # characters of a name, in DNS
_IPV4 = re.compile(r"[0-9][0-9a-fx.]*")  # also the short and the octal forms: inet_aton(3)


@dataclass(frozen=True, order=True, slots=True)
class Host:
    """A host, with a port or a principal of its own if it needs one.

    Hosts are equal, and are sorted, by their identity: the case of the name, a final dot, the
    spelling of an international name or of an IP address make no difference, nor does naming
    the default port.  The principal does: with two principals, a host is two entries.

    Attributes:
        name: its name, as it was written; this is what is shown and connected to.
        port: its port; None is what the fleet uses.
        principal: its Kerberos principal; None is what the fleet uses.
        identity: what is compared: the canonical name, the port (0 is the default one), and the
            principal ("" is the fleet's).

    Raises:
        TypeError, ValueError: one of them is invalid.
    """

    name: str = field(compare=False)
    port: int | None = field(default=None, compare=False)
    principal: str | None = field(default=None, compare=False)
    identity: tuple[str, int, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        port: Any = self.port
        if port is not None:
            if isinstance(port, bool) or not isinstance(port, int):
                raise TypeError(f"port must be a whole number, not {port!r}")
            if port < 1:
                raise ValueError(f"port must be 1 or more, not {port}")
        number = _core.check_port(self.port)
        principal = _core.check_principal(self.principal) or ""
        default = number == remctl.PORT
        identity = (canonical_name(self.name), 0 if default else number, principal)
        object.__setattr__(self, "identity", identity)

    def __str__(self) -> str:
        if self.port is None:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def canonical_name(name: str) -> str:
    """Return the one spelling by which names are compared; it is not for connecting.

    Args:
        name: a host name, or an IP address, which may have a scope.

    Raises:
        TypeError, ValueError: it is neither.
    """
    written, name = name, _core.check_host(name)
    if len(written) > _LONGEST or not written.isprintable():
        # Python's tables of international names take characters that change the direction of
        # text, or that nobody sees.
        text = f"host name is too long, or has characters that cannot be seen: {written!a}"
        raise ValueError(text)
    if ":" in name:
        try:
            address = ipaddress.IPv6Address(name)
        except ValueError:
            return name.lower()
        return str(address.ipv4_mapped or address)
    name = name.lower()
    name = name.removesuffix(".") or name
    if _IPV4.fullmatch(name):
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(name))
    return name
