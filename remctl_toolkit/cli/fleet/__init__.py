"""The command remctl-fleet: one command on many hosts, and what came of it."""

from .main import main

__all__ = ["main"]
