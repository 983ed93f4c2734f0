"""The program remctl-fleet, which runs one command on many hosts."""

from .main import main

__all__ = ["main"]
