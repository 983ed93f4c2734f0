"""The command remctl-rsh: what takes ssh's place for programs that run ssh."""

from .main import main

__all__ = ["main"]
