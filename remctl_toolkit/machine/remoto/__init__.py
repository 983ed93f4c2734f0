"""What programs that use remoto import in its place.

Instead of ``import remoto`` and ``from remoto.process import run, check`` it is::

    import remctl_toolkit.machine.remoto as remoto
    from remctl_toolkit.machine.remoto.process import run, check
"""

from . import backends, connection, exc, file_sync, process
from .connection import Connection
from .file_sync import rsync

__all__ = ["Connection", "backends", "connection", "exc", "file_sync", "process", "rsync"]
__version__ = "1.2.1"  # that of the remoto whose functions are here
