"""Send the reply of a command: frames, of which the last is one of these.
z  octets                 success, and its result
e  errno text NUL path    an error
m  text                   the command's input was malformed
"""

from __future__ import annotations

import errno
import os

from ..wire.both_frames import FrameError, frame
from .both_place import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def send(octets):
    try:
        write_all(1, octets)
    except OSError:
        os._exit(1)  # The client is gone.


def failure(error, path):
    name = errno.errorcode.get(error.errno or 0, "EIO").encode()
    text = (error.strerror or "").encode("utf-8", "replace")
    where = os.fsencode(error.filename or b"")  # The client needs an absolute path.
    return b"%b %b\0%b" % (name, text, where if where.startswith(b"/") else path)


def answer(do: Callable[[], tuple[int, bytes]], path: bytes) -> None:
    try:
        number, octets = do()
        last = frame(b"z", number, octets)
    except FrameError as error:
        last = frame(b"m", 0, str(error).encode("utf-8", "replace"))
    except OSError as error:
        last = frame(b"e", 0, failure(error, path))
    send(last)
    os._exit(0)
