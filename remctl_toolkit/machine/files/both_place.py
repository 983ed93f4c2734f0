"""Find the place for a new entry, and write the temporary file that becomes it.  This runs on both
sides: on the remote host for uploads and write(), locally for downloads.

Other users who can write in a folder must not choose which file is written.  So folders are kept
open, and entries are opened relative to them.  The only symbolic links that are followed are those
in the path that the caller named, and only if they belong to the caller or to root.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_REPLACED = "It is a device, pipe or socket, which is not replaced"
NO_PARENT = "No such folder: make it first"
NO_LINK = "It is a symbolic link, which is not followed"
OTHERS_LINK = "Symbolic links of other users are not followed: name its target instead"
CHANGED = "The temporary file was changed by another process"
MOST_LINKS = 40

# Using a folder takes no permission to list it.
ANY_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
OLD_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # A pipe may have no reader.


def check_name(name: str) -> str:
    # This is the only check of names from the other side.
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a valid file name")
    return name


def write_all(descriptor, octets):
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def identity(status):
    return status.st_dev, status.st_ino, status.st_uid


class Place:
    # The entry `name` of the open folder `path`.  If the path leads to a folder, that is the folder
    # that is open, and the name is ".".

    def __init__(self, path: str) -> None:
        self.path = "/" if path.startswith("/") else "."
        self.name = "."
        self.status: os.stat_result | None = None  # of the entry, if there is one
        self.folder = os.open(self.path, ANY_FOLDER)
        try:
            self.walk(path.split("/")[::-1])
        except OSError as error:
            os.close(self.folder)
            where = os.path.normpath(os.path.join(self.path, self.name))
            raise OSError(error.errno, error.strerror, where) from None
        self.kinds = b"d" if path.endswith("/") and self.name != "." else b"df"  # see Receiver

    def walk(self, left):
        links = 0
        while left:
            self.name = left.pop()
            if self.name in ("", "."):
                continue
            try:
                self.status = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
            except FileNotFoundError:
                if any(left):
                    raise FileNotFoundError(errno.ENOENT, NO_PARENT) from None
                self.status = None
                return
            if stat.S_ISLNK(self.status.st_mode):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = self.link_target()
                left += target.split("/")[::-1]
                if target.startswith("/"):
                    self.enter("/")
            elif left or stat.S_ISDIR(self.status.st_mode):
                self.enter(self.name)
            else:
                return
        self.name = "."

    def link_target(self):
        target = os.readlink(self.name, dir_fd=self.folder)
        status, before = os.lstat(self.name, dir_fd=self.folder), self.status
        same = (status.st_ino, status.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
        if not same or status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, OTHERS_LINK)
        return target

    def enter(self, name):
        below = os.open(name, ANY_FOLDER, dir_fd=self.folder)
        os.close(self.folder)
        self.folder = below
        self.path = os.path.join(self.path, name)


class Part:
    # A temporary file that is renamed to `name` when it is complete.  Its name cannot be guessed,
    # and only its owner may read it.

    def __init__(self, folder: int, name: str, token: str) -> None:
        self.folder, self.name = folder, name
        self.part_name: Any = f".remctl-{token}.part"  # None: the entry itself is written
        self.descriptor = -1
        self.position = 0
        self.mode: int | None = None

    def make(self):
        self.descriptor = os.open(self.part_name, NEW_FILE, 0o600, dir_fd=self.folder)

    def replace(self, status, mode):
        # Replacing an existing file keeps its owner, and its mode unless another is given.  Files
        # that cannot be replaced are written in place: devices, files with several names or of
        # other users, files in /proc or in folders where no file can be made.
        if status is None:
            self.mode = 0o666 & ~umask() if mode is None else mode
            return self.make()
        self.mode = status.st_mode & 0o777 if mode is None else mode
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            try:
                self.make()
                found = os.fstat(self.descriptor)
                if (found.st_uid, found.st_gid) != (status.st_uid, status.st_gid):
                    os.fchown(self.descriptor, status.st_uid, status.st_gid)
                return None
            except OSError as error:
                self.drop()
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
                    raise
        self.part_name = None
        self.descriptor = os.open(self.name, OLD_FILE | os.O_TRUNC, dir_fd=self.folder)
        os.set_blocking(self.descriptor, True)
        return None

    def write(self, octets):
        write_all(self.descriptor, octets)
        self.position += len(octets)

    def skip(self, length):
        if length < 0:
            raise ValueError("negative length of a hole")
        self.position = os.lseek(self.descriptor, length, os.SEEK_CUR)

    def check(self):
        # Nobody may have replaced the temporary file, or given it a second name.
        status = os.fstat(self.descriptor)
        if self.part_name is not None and (
            identity(os.lstat(self.part_name, dir_fd=self.folder)) != identity(status)
            or status.st_nlink != 1
        ):
            raise OSError(errno.ESTALE, CHANGED)

    def commit(self, mode, times, new):
        if self.part_name is not None:
            os.ftruncate(self.descriptor, self.position)  # It may end with a hole.
            os.fchmod(self.descriptor, mode)
            if times:
                os.utime(self.descriptor, ns=times)
            self.check()
            if new:
                folders = {"src_dir_fd": self.folder, "dst_dir_fd": self.folder}
                os.link(self.part_name, self.name, follow_symlinks=False, **folders)
                remove(self.part_name, self.folder)
            else:
                self.move()
        os.close(self.descriptor)

    def move(self):
        # A device such as /dev/null must never be replaced by a file.
        try:
            kind = os.lstat(self.name, dir_fd=self.folder).st_mode
        except FileNotFoundError:
            kind = stat.S_IFREG
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EEXIST, NOT_REPLACED)
        os.rename(self.part_name, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def make_link(self, target, times):
        os.symlink(target, self.part_name, dir_fd=self.folder)
        try:
            os.utime(self.part_name, ns=times, dir_fd=self.folder, follow_symlinks=False)
            self.move()
        except BaseException:
            remove(self.part_name, self.folder)
            raise

    def drop(self):
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            if self.part_name is not None:
                remove(self.part_name, self.folder)


def remove(name, folder):
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass


def umask() -> int:
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    found = os.umask(0o077)  # New files of other threads are private for a moment.
    os.umask(found)
    return found
