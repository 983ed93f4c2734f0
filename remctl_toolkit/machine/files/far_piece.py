"""Writes a piece of a large file into the temporary file that transfer_receive.py has begun.

Pieces may come in any order, and several at once.  None of them makes a file: one that comes when
the upload has ended leaves nothing behind.
"""

from __future__ import annotations

import errno
import posix as os  # To import os itself takes a quarter of Python's start, for each piece.
from zlib import crc32

BUFFER = 1 << 18
ANY_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY


class Malformed(Exception):
    pass


def open_part(parent, names, part, file):
    # No link is followed, and the file has to be the one that was begun, under no other name: who
    # may write in the folder must not choose what is written to.
    folder = os.open(parent, ANY_FOLDER)
    try:
        for name in names:
            below = os.open(name, ANY_FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        descriptor = os.open(part, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    status = os.fstat(descriptor)
    found = status.st_dev, status.st_ino, status.st_uid
    if found != file or status.st_nlink != 1:
        os.close(descriptor)
        raise Malformed("the temporary file is not as it was left")
    return descriptor


def copy(descriptor, extents):
    # From standard input to where it belongs; returns the checksum of all.
    view = memoryview(bytearray(BUFFER))
    crc = 0
    for position, length in extents:
        end = position + length
        while position < end:
            size = os.readv(0, [view[: end - position]])
            if not size:
                raise Malformed("standard input ends too early")
            crc = crc32(view[:size], crc)
            done = 0
            while done < size:
                done += os.pwrite(descriptor, view[done:size], position + done)
            position += size
    return crc


def take(spec, extents, crc):
    try:
        descriptor = open_part(spec["parent"], spec["names"], spec["part"], spec["file"])
        try:
            if copy(descriptor, extents) != crc:
                raise Malformed("what arrived is not what was sent")
        finally:
            os.close(descriptor)
        reply = {"written": sum(length for _, length in extents)}
    except Malformed as error:
        reply = {"malformed": str(error)}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        reply = {"error": (name, error.strerror, spec["path"])}
    os.write(1, ascii(reply).encode())
    os._exit(0)
