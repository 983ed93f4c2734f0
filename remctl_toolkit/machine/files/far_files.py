"""Read and change one file; each command opens it anew."""

from __future__ import annotations

import errno
import os
import stat
from zlib import crc32

from ..wire.both_frames import FrameError, frame
from .both_place import Place, write_all
from .far_answer import answer, send

PIECE = 1 << 18
REPLACED = "The file was replaced by another one"


def octets_of(descriptor, length):
    while length is None or length > 0:
        octets = os.read(descriptor, PIECE if length is None else min(PIECE, length))
        if not octets:
            return
        if length is not None:
            length -= len(octets)
        yield octets


def use(path, mode, file, position, read, written, crc, size):
    # Open a file; fail if it is not `file`, a device and inode; seek, write, truncate and read, as
    # far as the arguments say; return its size, device and inode.
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "a": os.O_WRONLY | os.O_APPEND}[mode]
    folder = None
    if mode == "a" and file is None:
        place = Place(os.fsdecode(path))
        path, folder, flags = place.name, place.folder, flags | os.O_CREAT | os.O_NOFOLLOW
    if mode != "r" or read == 0:
        flags |= os.O_NONBLOCK  # Opening a pipe must not wait for its other end.
    descriptor = os.open(path, flags, 0o666, dir_fd=folder)
    os.set_blocking(descriptor, True)
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if file not in (None, (status.st_dev, status.st_ino)):
        raise OSError(errno.ESTALE, REPLACED)
    if position:
        os.lseek(descriptor, position, os.SEEK_SET)
    if written is not None:
        octets = b"".join(octets_of(0, written))
        if crc32(octets) != crc:
            raise FrameError("data is corrupt")
        write_all(descriptor, octets)  # In one write(), which keeps appended data together.
    if size is not None:
        os.ftruncate(descriptor, size)
    for octets in octets_of(descriptor, read):
        send(frame(b"b", crc32(octets), octets))
    return b"%d %d %d" % (os.fstat(descriptor).st_size, status.st_dev, status.st_ino)


def can_write(path, new):
    # Only what can be known before writing is checked here.
    place = Place(os.fsdecode(path))
    if place.name == ".":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if new and place.status is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    for name in (".", place.name):
        if os.access(name, os.W_OK, dir_fd=place.folder):
            return b""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def main(verb, path, *arguments):
    answer(lambda: (0, verb(path, *arguments)), path)
