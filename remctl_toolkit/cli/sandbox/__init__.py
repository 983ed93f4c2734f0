"""The command remctl-sandbox: a shell (or one command) with a realm and a remctl server."""

from .main import main
from .options import parser

__all__ = ["main", "parser"]
