"""The logger of connections that were not given one."""

from __future__ import annotations

import logging


def logger_of(host: str) -> logging.Logger:
    """Return the logger named after a host; what it gets is shown, unless logging was set up."""
    logging.basicConfig()  # Does nothing if it was.
    logger = logging.getLogger(host)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.DEBUG)
    return logger
