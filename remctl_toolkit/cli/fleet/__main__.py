"""Run remctl-fleet by ``python -m remctl_toolkit.cli.fleet``."""

import sys

from .main import main

sys.exit(main())
