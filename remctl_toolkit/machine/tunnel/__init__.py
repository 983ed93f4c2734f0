"""Ports here that lead there, and the reverse."""

from .tunnel import Tunnel, TunnelError, connect_sock

__all__ = [
    "Tunnel",
    "TunnelError",
    "connect_sock",
]
