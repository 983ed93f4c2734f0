"""Run remctl-rsh by ``python -m remctl_toolkit.cli.rsh``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
