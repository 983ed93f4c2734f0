"""Turns a file or a tree into frames.  It runs on either side: there for a download, here for an
upload.

A frame is one octet for its kind, four for the length of its body, and the body:
  d  mode name                      a folder begins
  u  mode atime mtime               it ends
  l  atime mtime name NUL target    a symbolic link
  f  name                           a file begins
  b  octets                         more of it
  h  length                         so many zeros more, which took no space
  c  length crc mode atime mtime    the file is complete
  a                                 it is not, and will not be
  t  octets                         how much there is in all
  x  errno text NUL path            something is left out
  e  errno text NUL path            nothing can be sent
  z                                 the end
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
SHORTER = "It became shorter while it was read"
TOO_DEEP = f"More than {DEEPEST} folders deep"

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def header(kind: bytes, length: int) -> bytes:
    return kind + length.to_bytes(4, "big")


def times(status):
    return b"%d %d" % (status.st_atime_ns, status.st_mtime_ns)


def mode_of(status):
    # Who may do what; set-user-ID and the like are not for another machine's users.
    return status.st_mode & 0o777


def total(top: str) -> int:
    octets = os.stat(top).st_size if os.path.isfile(top) else 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue  # It will be missed when its turn comes.
            if stat.S_ISREG(status.st_mode):
                octets += status.st_size
    return octets


class Sender:
    # Yields frames as pairs of kind and body.  `left_out` is called with an OSError for each entry
    # of a tree that cannot be read; what is wrong with the top is raised.

    def __init__(
        self,
        left_out: Callable[[OSError], object],
        sparse: bool = True,
        folders: bool = True,
    ) -> None:
        self.left_out = left_out
        self.sparse = sparse
        self.folders = folders
        self.where = ""

    def frames(self, top: str) -> Any:
        status = os.stat(top)
        if not stat.S_ISDIR(status.st_mode):
            return self.file(top, None, top)
        if not self.folders:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), top)
        return self.tree(top)

    def tree(self, top):
        stack = []
        try:
            stack.append(self.folder(top, None, top))
            yield b"d", b"%o ." % mode_of(stack[0][2])
            while stack:
                descriptor, names, status, path = stack[-1]
                if not names:
                    yield b"u", b"%o %b" % (mode_of(status), times(status))
                    os.close(stack.pop()[0])
                    continue
                name = names.pop()
                where = path + "/" + name
                try:
                    kind = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
                    if stat.S_ISDIR(kind):
                        if len(stack) >= DEEPEST:
                            raise OSError(errno.ENAMETOOLONG, TOO_DEEP)
                        stack.append(self.folder(name, descriptor, where))
                        yield b"d", b"%o %b" % (mode_of(stack[-1][2]), os.fsencode(name))
                    elif stat.S_ISLNK(kind):
                        yield b"l", self.link(name, descriptor)
                    else:
                        yield from self.file(name, descriptor, where)
                except OSError as error:
                    self.left_out(OSError(error.errno, error.strerror, where))
        finally:
            for entry in stack:
                os.close(entry[0])

    def folder(self, name, above, path):
        flags = FOLDER if above is not None else FOLDER & ~os.O_NOFOLLOW
        descriptor = os.open(name, flags, dir_fd=above)
        try:
            names = sorted(os.listdir(descriptor), reverse=True)
            return descriptor, names, os.fstat(descriptor), path
        except BaseException:
            os.close(descriptor)
            raise

    def link(self, name, above):
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        target = os.readlink(name, dir_fd=above)
        return b"%b %b\0%b" % (times(status), os.fsencode(name), os.fsencode(target))

    def file(self, name, above, path):
        self.where = path
        # Not to wait for the other end of a pipe.
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if above is None else os.O_NOFOLLOW)
        kind = os.stat(name, dir_fd=above, follow_symlinks=above is None).st_mode
        if not stat.S_ISREG(kind):  # To open some devices does something.
            raise OSError(errno.EINVAL, SPECIAL, path)
        descriptor = os.open(name, flags, dir_fd=above)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, SPECIAL, path)
            yield b"f", os.fsencode(name) if above is not None else b"."
            try:
                yield from self.content(descriptor, status)
            except OSError:
                yield b"a", b""
                raise
        finally:
            os.close(descriptor)

    def content(self, descriptor, status):
        # What a file had when it was opened, and no more: some grow as fast as they are read.
        # Those of /proc say that they have nothing.
        size, done, crc = status.st_size, 0, 0
        holes = self.sparse and hasattr(os, "SEEK_DATA") and status.st_blocks * 512 < size
        end = 0
        while done < size or not size:
            if holes and done >= end:
                begin, end = extent(descriptor, done, size)
                if begin > done:
                    yield b"h", b"%d" % (begin - done)
                    done = begin
                    continue
            limit = end if holes else size
            octets = os.read(descriptor, min(PIECE, limit - done) if size else PIECE)
            if not octets:
                break
            crc = crc32(octets, crc)
            done += len(octets)
            yield b"b", octets
        # Those of /sys say that they have more than they have, and keep to it.
        if done < size and os.fstat(descriptor).st_size < size:
            raise OSError(errno.ESTALE, SHORTER)
        yield b"c", b"%d %d %o %b" % (done, crc, mode_of(status), times(status))


def extent(descriptor, start, size):
    try:
        begin = os.lseek(descriptor, start, os.SEEK_DATA)
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        os.lseek(descriptor, begin, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.ENXIO:  # There is nothing but a hole up to the end.
            raise
        return size, size
    return min(begin, size), min(end, size)


class Output:
    def __init__(self):
        self.pieces = []
        self.size = 0

    def add(self, kind, body):
        self.pieces += (header(kind, len(body)), body)
        self.size += len(body) + 5
        if self.size >= PIECE:
            self.flush()

    def flush(self):
        view = memoryview(b"".join(self.pieces))
        self.pieces, self.size = [], 0
        while view:
            try:
                view = view[os.write(1, view) :]
            except OSError:
                os._exit(1)  # Nobody reads it any more.


def failure(error):
    name = errno.errorcode.get(error.errno or 0, "EIO").encode()
    text = (error.strerror or "").encode("utf-8", "replace")
    return b"%b %b\0%b" % (name, text, os.fsencode(error.filename or ""))


def send(spec):
    output = Output()
    sender = Sender(lambda error: output.add(b"x", failure(error)), spec["sparse"], spec["folders"])
    top = os.fsdecode(spec["source"])
    try:
        if spec["total"]:
            output.add(b"t", b"%d" % total(top))
        for kind, body in sender.frames(top):
            output.add(kind, body)
        output.add(b"z", b"")
    except OSError as error:
        output.add(b"e", failure(OSError(error.errno, error.strerror, error.filename or top)))
    output.flush()
