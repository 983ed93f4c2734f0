"""The program remctl-sandbox, which runs a shell or command with a realm and a remctl server."""

from .main import main
from .options import parser

__all__ = ["main", "parser"]
