"""Read, write, open and copy files of the remote host."""

from .paths import append, open, read, write
from .transfer import Progress, TransferError, Transferred, download, fetch, put, upload

__all__ = [
    "Progress",
    "TransferError",
    "Transferred",
    "append",
    "download",
    "fetch",
    "open",
    "put",
    "read",
    "upload",
    "write",
]
