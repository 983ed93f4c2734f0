"""Lets ``python -m remctl_toolkit.cli.rsh`` run the command."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
