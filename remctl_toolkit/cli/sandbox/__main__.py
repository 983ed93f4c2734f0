"""Run remctl-sandbox by ``python -m remctl_toolkit.cli.sandbox``."""

import sys

from .main import main

sys.exit(main())
