"""Forward ports to the remote host, and ports of the remote host to this program."""

from .tunnel import Tunnel, TunnelError, connect_sock

__all__ = [
    "Tunnel",
    "TunnelError",
    "connect_sock",
]
