"""Reads and changes one file, in as many commands as it takes."""

from __future__ import annotations

import errno
import os
import stat
import time
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PIECE = 1 << 20

NO_PARENT = "No such folder: make it first"
REPLACED = "It was replaced by another file meanwhile"


class Malformed(Exception):
    pass


def identity(status):
    return status.st_dev, status.st_ino


def beside(real, token):
    return os.path.join(os.path.dirname(real), f".remctl-{token}.part")


# Reading.


def look(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return {"size": status.st_size, "file": identity(status)}
    finally:
        os.close(descriptor)


def give(octets):
    view = memoryview(octets)
    while view:
        try:
            view = view[os.write(1, view) :]
        except OSError:
            os._exit(1)  # Nobody reads it any more.


def range_of(path, position, length, file):
    # The octets, then what there is to say of them and the length of that.
    descriptor = os.open(path, os.O_RDONLY)
    done = crc = 0
    try:
        if file is not None and identity(os.fstat(descriptor)) != file:
            raise OSError(errno.ESTALE, REPLACED, path)
        if position:
            os.lseek(descriptor, position, os.SEEK_SET)
        while length is None or done < length:
            octets = os.read(descriptor, PIECE if length is None else min(PIECE, length - done))
            if not octets:
                break
            crc = crc32(octets, crc)
            done += len(octets)
            give(octets)
    finally:
        os.close(descriptor)
    told = ascii({"length": done, "crc": crc}).encode()
    give(told + b"%08x" % len(told))


# Changing.


def begin(path, token, mode, new):
    # Returns where to write, and what that is to become.  What cannot be replaced by a new file
    # that is the same but for its octets is written to where it is: devices, what has other names,
    # what is in /proc or in a folder where nothing can be made, what is somebody else's.
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except FileNotFoundError:
        return new_file(real, token, mode)
    if new:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        try:
            kept = stat.S_IMODE(status.st_mode) if mode is None else mode
            return successor(real, token, kept, status)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
                raise
    os.close(os.open(real, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK))
    return {"path": os.fsencode(real), "final": None}


def new_file(real, token, mode):
    if not os.path.isdir(os.path.dirname(real)):
        raise FileNotFoundError(errno.ENOENT, NO_PARENT, os.path.dirname(real))
    if mode is None:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    try:
        return successor(real, token, mode, None)
    except OSError as error:
        raise OSError(error.errno, error.strerror, real) from None


def successor(real, token, mode, status):
    path = beside(real, token)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        if status is not None:
            found = os.fstat(descriptor)
            if (found.st_uid, found.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(descriptor, status.st_uid, status.st_gid)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return {"path": os.fsencode(path), "final": os.fsencode(real), "mode": mode}


def take(length):
    pieces = []
    while length:
        octets = os.read(0, length)
        if not octets:
            raise Malformed("standard input ends too early")
        pieces.append(octets)
        length -= len(octets)
    return b"".join(pieces)


def put(path, position, length, expected):
    # position None: at the end, wherever that is by then.
    flags = os.O_WRONLY | os.O_NONBLOCK
    if position is None:
        flags |= os.O_APPEND | os.O_CREAT
    descriptor = os.open(path, flags, 0o666)
    crc = 0
    try:
        os.set_blocking(descriptor, True)
        if position:
            os.lseek(descriptor, position, os.SEEK_SET)
        while length:
            octets = take(min(length, PIECE))  # Files in /proc take what one write has.
            length -= len(octets)
            crc = crc32(octets, crc)
            view = memoryview(octets)
            while view:
                view = view[os.write(descriptor, view) :]
        if crc != expected:
            raise Malformed("what arrived is not what was sent")
        return {"size": os.fstat(descriptor).st_size, "file": identity(os.fstat(descriptor))}
    finally:
        os.close(descriptor)


def commit(path, final, mode, new):
    os.chmod(path, mode)
    if new:
        os.link(path, final)
        os.unlink(path)
    else:
        os.rename(path, final)


def drop(path, token, patience):
    # The command that makes it may be on its way still: nobody has its answer.
    deadline = time.monotonic() + patience
    while True:
        try:
            return os.unlink(beside(os.path.realpath(path), token))
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                return None
        time.sleep(0.01)


def truncate(path, size):
    os.truncate(path, size)


def size_of(path):
    return {"size": os.stat(path).st_size}


def write(path, token, mode, length, crc):
    target = begin(path, token, mode, False)
    place = os.fsdecode(target["path"])
    try:
        put(place, 0, length, crc)
        if target["final"] is not None:
            commit(place, os.fsdecode(target["final"]), target["mode"], False)
    except BaseException:
        if target["final"] is not None:
            os.unlink(place)
        raise


VERBS: dict[str, Callable[..., Any]] = {
    "look": look,
    "size": size_of,
    "range": range_of,
    "begin": begin,
    "put": put,
    "commit": commit,
    "drop": drop,
    "truncate": truncate,
    "write": write,
}


def main(verb, shown, *arguments):
    given = [os.fsdecode(a) if isinstance(a, bytes) else a for a in arguments]
    stream = 2 if verb == "range" else 1
    try:
        reply = VERBS[verb](*given) or {}
    except Malformed as error:
        reply = {"malformed": str(error)}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        # Our temporary names mean nothing to anybody.
        own = ".remctl-" in (error.filename or ".remctl-")
        path = shown if own else os.fsencode(error.filename)
        reply = {"error": (name, error.strerror, path)}
    if stream == 1 or reply:
        os.write(stream, ascii(reply).encode())
        os._exit(3 if stream == 2 else 0)
