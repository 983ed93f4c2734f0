"""The program remctl-rsh, which replaces ssh for programs that run ssh."""

from .main import main

__all__ = ["main"]
