"""Sends a signal to a command and to all that it has started; standard input says "PID NUMBER".

It comes after far_supervise.py.
"""

import os

signal_family(*map(int, os.read(0, 100).split()))  # noqa: F821
