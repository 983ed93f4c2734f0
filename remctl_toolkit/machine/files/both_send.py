"""Turn a file or a tree into frames.  This runs on both sides: on the remote host for downloads,
locally for uploads.

A frame has a letter, a number (0 where the table has none) and octets:
  d  mode    name                           a folder begins
  u  mode    atime mtime                    the folder ends
  l          atime mtime name NUL target    a symbolic link
  f          name                           a file begins
  b  CRC-32  octets                         data of the file
  h          length                         a hole of that length
  c  mode    length atime mtime             the file is complete
  a                                         the file is aborted
  t          octets                         the total size
  x          errno text NUL path            an entry is left out
"""

from __future__ import annotations

import errno
import os
import stat
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PIECE = 1 << 18
DEEPEST = 256  # Each level takes a descriptor on both sides.

SPECIAL = "Neither a file nor a folder nor a symbolic link"
SHORTER = "The file shrank while it was read"
TOO_DEEP = f"More than {DEEPEST} folders deep"


def times(status):
    return b"%d %d" % (status.st_atime_ns, status.st_mtime_ns)


def mode_of(status):
    # Set-user-ID and similar bits are not copied: users of the other host differ.
    return status.st_mode & 0o777


def total(top: str) -> int:
    octets = os.stat(top).st_size if os.path.isfile(top) else 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue  # Sending it will report the error.
            if stat.S_ISREG(status.st_mode):
                octets += status.st_size
    return octets


class Sender:
    # `left_out` is called with an OSError for each entry of a tree that cannot be read; an error of
    # the top is raised.  With `single`, only a file is accepted, and its holes are sent as octets.

    def __init__(self, left_out: Callable[[OSError], object], single: bool) -> None:
        self.left_out = left_out
        self.single = single
        self.where = ""

    def frames(self, top: str) -> Any:
        if not stat.S_ISDIR(os.stat(top).st_mode):
            return self.file(top, None, top)
        if self.single:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), top)
        return self.folder(top, None, top, 1)

    def folder(self, name, above, path, depth):
        if depth > DEEPEST:
            raise OSError(errno.ENAMETOOLONG, TOO_DEEP)
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if above is None else os.O_NOFOLLOW)
        descriptor = os.open(name, flags, dir_fd=above)
        try:
            names, status = sorted(os.listdir(descriptor)), os.fstat(descriptor)
            yield b"d", mode_of(status), os.fsencode(name) if above is not None else b"."
            for entry in names:
                where = path + "/" + entry
                try:
                    yield from self.entry(entry, descriptor, where, depth)
                except OSError as error:
                    self.left_out(OSError(error.errno, error.strerror, where))
            yield b"u", mode_of(status), times(status)
        finally:
            os.close(descriptor)

    def entry(self, name, above, path, depth):
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield from self.folder(name, above, path, depth + 1)
        elif stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=above))
            yield b"l", 0, b"%b %b\0%b" % (times(status), os.fsencode(name), target)
        else:
            yield from self.file(name, above, path)

    def file(self, name, above, path):
        self.where = path
        # O_NONBLOCK avoids waiting for the other end of a pipe.
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if above is None else os.O_NOFOLLOW)
        kind = os.stat(name, dir_fd=above, follow_symlinks=above is None).st_mode
        if not stat.S_ISREG(kind):  # Opening some devices has side effects.
            raise OSError(errno.EINVAL, SPECIAL, path)
        descriptor = os.open(name, flags, dir_fd=above)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, SPECIAL, path)
            yield b"f", 0, os.fsencode(name) if above is not None else b"."
            try:
                yield from self.content(descriptor, status)
            except OSError:
                yield b"a", 0, b""
                raise
        finally:
            os.close(descriptor)

    def content(self, descriptor, status):
        # Read up to the size at opening: some files grow as fast as they are read.  Files in /proc
        # have size 0, and are read to their end.
        size, done, end = status.st_size, 0, 0
        holes = not self.single and hasattr(os, "SEEK_DATA") and status.st_blocks * 512 < size
        while done < size or not size:
            if holes and done >= end:
                begin, end = extent(descriptor, done, size)
                if begin > done:
                    yield b"h", 0, b"%d" % (begin - done)
                    done = begin
                    continue
            limit = end if holes else size
            octets = os.read(descriptor, min(PIECE, limit - done) if size else PIECE)
            if not octets:
                break
            done += len(octets)
            yield b"b", crc32(octets), octets
        # Files in /sys report a size that is larger than their contents, and does not change.
        if done < size and os.fstat(descriptor).st_size < size:
            raise OSError(errno.ESTALE, SHORTER)
        yield b"c", mode_of(status), b"%d %b" % (done, times(status))


def extent(descriptor, start, size):
    try:
        begin = os.lseek(descriptor, start, os.SEEK_DATA)
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        os.lseek(descriptor, begin, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: the rest of the file is a hole.
            raise
        return size, size
    return min(begin, size), min(end, size)
