"""Makes files and folders of frames, see transfer_send.py.  It runs on either side: there for an
upload, in several commands; here for a download, where who sends is not to be trusted.  For most
of a large upload there is transfer_piece.py.

Each name is that of an entry of the folder that is open, and no link is ever followed: nothing
can be made elsewhere.
"""

from __future__ import annotations

import errno
import os
import time
from zlib import crc32

PIECE = 1 << 18
DEEPEST = 256
LONGEST = 1 << 14  # octets that a frame may have which is not a file's octets

NO_LINK = "A symbolic link is in its place, and is not followed"
NO_PARENT = "No such folder: make it first"
NO_FOLDER = "No such folder, and what is to be put there is a file"

# To work in a folder needs no permission to list it.
ANY_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
OWN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Malformed(Exception):
    pass


def place(destination: str, name: str) -> tuple[str, str, bytes]:
    # Returns the folder to work in, the name of the top in it, and what the top may be.  A folder
    # gets a new entry; all else is to become the destination, through links: its user named these.
    if os.path.isdir(destination):
        return destination, name, b"df"
    parent, last = os.path.split(os.path.realpath(destination))
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, NO_PARENT, parent)
    return parent, last, b"d" if destination.endswith("/") else b"df"


def identity(status):
    return status.st_dev, status.st_ino, status.st_uid


class Receiver:
    # `kinds` are the frames that the top may begin with.  `state` is what finish() has returned in
    # the command before.

    def __init__(
        self,
        parent: str,
        name: str,
        token: str,
        kinds: bytes = b"df",
        state: dict[str, object] | None = None,
    ) -> None:
        self.parent, self.name, self.kinds = parent, name, kinds
        self.part_name = f".remctl-{token}.part"
        self.begun = state is not None and state["begun"]
        self.ended = False
        self.where = parent
        self.head = bytearray()  # of a frame that has not come to its end
        self.need = 5  # octets of it, for now
        self.left = 0  # octets of a file that its frame still has
        self.held: list[bytes] = []
        self.holding = 0
        self.part = -1  # the descriptor of the temporary file, if there is one
        self.position = self.crc = 0
        self.stack: list[tuple[str, bool]] = []  # names, and whether they were made by us
        self.folders = [os.open(parent, ANY_FOLDER)]
        if state is not None:
            try:
                self.resume(state)
            except BaseException:
                self.close()
                raise

    def resume(self, state):
        for name, made in state["stack"]:
            self.enter(os.fsdecode(name), made)
        if state["part"] is not None:
            name, self.position, self.crc, file = state["part"]
            self.file_name = os.fsdecode(name)
            self.where = self.path(self.file_name)
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            self.part = os.open(self.part_name, flags, dir_fd=self.folder)
            # Others may be allowed to write in the folder, but not to choose what is written to.
            status = os.fstat(self.part)
            alone = identity(status) == file and status.st_nlink == 1
            if not alone or os.lseek(self.part, 0, os.SEEK_END) != self.position:
                raise Malformed("the temporary file is not as it was left")

    @property
    def folder(self):
        return self.folders[-1]

    def path(self, name):
        names = [entry[0] for entry in self.stack if entry[0] != "."]
        return os.path.join(self.parent, *names, name)

    # Frames.

    def write(self, octets: bytes, /) -> int:
        size = len(octets)
        if size < self.left:  # As nearly always.
            self.left -= size
            self.hold(octets)
            return size
        at = 0
        while at < size:
            if self.left:
                taken = octets[at : at + self.left]
                self.left -= len(taken)
                self.hold(taken)
            else:
                taken = octets[at : at + self.need - len(self.head)]
                self.head += taken
                if len(self.head) == self.need:
                    self.dispatch()
            at += len(taken)
        return size

    def dispatch(self):
        # Called when a header is complete, and when its body is.
        kind, length = bytes(self.head[:1]), int.from_bytes(self.head[1:5], "big")
        if self.need == 5:
            self.check(kind, length)
            if kind == b"b":
                self.left = length
                self.head.clear()
                return
            self.need += length
        if len(self.head) == self.need:
            body = bytes(self.head[5:])
            self.head.clear()
            self.need = 5
            self.attempt(self.handlers[kind], body)

    def check(self, kind, length):
        if self.ended:
            raise Malformed("something comes after the end")
        if kind not in self.handlers or (self.part >= 0) != (kind in b"bhca"):
            raise Malformed(f"{kind!r} is out of turn")
        if length > LONGEST and kind != b"b":
            raise Malformed(f"{kind!r} is too long")

    def attempt(self, function, *arguments):
        try:
            function(self, *arguments)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.where) from None
        except (IndexError, OverflowError, ValueError) as error:
            raise Malformed(str(error)) from None

    def take_name(self, name, kind):
        if self.stack:
            name = os.fsdecode(name)
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise Malformed(f"{name!r} is no name of an entry")
        elif self.begun:
            raise Malformed("a second top")
        else:
            name = self.name
        self.where = self.path(name)
        if not self.begun and kind not in self.kinds:
            if kind == b"f":
                raise OSError(errno.ENOENT, NO_FOLDER)
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        self.begun = True
        return name

    # Folders and links.

    def begin_folder(self, body):
        mode, name = body.split(b" ", 1)
        name = self.take_name(name, b"d")
        if len(self.stack) >= DEEPEST:
            raise Malformed("too many folders in each other")
        try:
            os.mkdir(name, int(mode, 8) & 0o777 | 0o700, dir_fd=self.folder)
        except FileExistsError:
            self.enter(name, False)
        else:
            self.enter(name, True)

    def enter(self, name, made):
        self.where = self.path(name)
        flags = OWN_FOLDER if made else ANY_FOLDER | os.O_NOFOLLOW
        try:
            descriptor = os.open(name, flags, dir_fd=self.folder)
        except OSError:
            if os.path.islink(self.where):
                raise OSError(errno.ENOTDIR, NO_LINK) from None
            raise
        self.folders.append(descriptor)
        self.stack.append((name, made))

    def end_folder(self, body):
        mode, atime, mtime = body.split(b" ")
        made = self.stack[-1][1]
        self.where = self.path("").rstrip("/") or "/"
        if made:  # Those that were there stay as they are.
            kept = os.fstat(self.folder).st_mode & 0o7000
            os.utime(self.folder, ns=(int(atime), int(mtime)))
            os.chmod(self.folder, int(mode, 8) & 0o777 | kept)
        os.close(self.folders.pop())
        self.stack.pop()

    def make_link(self, body):
        atime, mtime, rest = body.split(b" ", 2)
        name, target = rest.split(b"\0")
        name = self.take_name(name, b"l")
        os.symlink(target, os.fsencode(self.part_name), dir_fd=self.folder)
        try:
            when = int(atime), int(mtime)
            os.utime(self.part_name, ns=when, dir_fd=self.folder, follow_symlinks=False)
            self.move(name)
        except BaseException:
            os.unlink(self.part_name, dir_fd=self.folder)
            raise

    def move(self, name):
        os.rename(self.part_name, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    # Files.

    def begin_file(self, name):
        self.file_name = self.take_name(name, b"f")
        self.part = os.open(self.part_name, NEW_FILE, 0o600, dir_fd=self.folder)
        self.position = self.crc = 0

    def hold(self, octets):
        self.held.append(octets)
        self.holding += len(octets)
        if self.holding >= PIECE:
            self.attempt(Receiver.flush)

    def flush(self):
        if not self.holding:
            return
        octets = b"".join(self.held)
        self.held, self.holding = [], 0
        view = memoryview(octets)
        while view:
            view = view[os.write(self.part, view) :]
        self.crc = crc32(octets, self.crc)
        self.position += len(octets)
        self.came(octets, len(octets))

    def came(self, octets, length):
        pass

    def leave_hole(self, body):
        length = int(body)
        if length < 0:
            raise Malformed("a hole of less than nothing")
        self.flush()
        self.position = os.lseek(self.part, length, os.SEEK_CUR)
        self.came(None, length)

    def end_file(self, body):
        self.flush()
        length, crc, mode, atime, mtime = body.split(b" ")
        if (int(length), int(crc)) != (self.position, self.crc):
            raise Malformed("what arrived is not what was sent")
        os.ftruncate(self.part, self.position)  # It may end with a hole.
        os.fchmod(self.part, int(mode, 8) & 0o777)
        os.utime(self.part, ns=(int(atime), int(mtime)))
        self.move(self.file_name)
        os.close(self.part)
        self.part = -1

    def drop_file(self, body=b""):
        self.held, self.holding = [], 0
        os.close(self.part)
        self.part = -1
        try:
            os.unlink(self.part_name, dir_fd=self.folder)
        except FileNotFoundError:
            pass  # It is what was wanted.

    def end(self, body):
        if self.stack:
            raise Malformed("the end comes within a folder")
        self.ended = True

    handlers: dict[bytes, object] = {  # noqa: RUF012
        b"b": None,  # Not kept until it is complete.
        b"d": begin_folder,
        b"u": end_folder,
        b"l": make_link,
        b"f": begin_file,
        b"h": leave_hole,
        b"c": end_file,
        b"a": drop_file,
        b"z": end,
    }

    # The end of a command, or of all.

    def finish(self) -> dict[str, object]:
        if self.head or self.left:
            raise Malformed("it ends within a frame")
        part = None
        if self.part >= 0:
            self.attempt(Receiver.flush)
            self.attempt(Receiver.extend)
            file = identity(os.fstat(self.part))
            part = os.fsencode(self.file_name), self.position, self.crc, file
        stack = [(os.fsencode(name), made) for name, made in self.stack]
        self.close()
        return {"stack": stack, "part": part, "begun": self.begun}

    def extend(self):
        os.ftruncate(self.part, self.position)

    def discard(self) -> None:
        if self.part >= 0:
            self.drop_file()
        self.close()

    def close(self) -> None:
        if self.part >= 0:
            os.close(self.part)
            self.part = -1
        while self.folders:
            os.close(self.folders.pop())


def remove_part(receiver, patience):
    # The command that makes it may be on its way still: nobody has its answer.
    deadline = time.monotonic() + patience
    while True:
        try:
            return os.unlink(receiver.part_name, dir_fd=receiver.folder)
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                return None
        time.sleep(0.01)


def answer(spec):
    parent, name, kinds = os.fsdecode(spec["parent"]), os.fsdecode(spec["name"]), b"df"
    if spec["state"] is None:
        parent, name, kinds = place(parent, name)
    receiver = Receiver(parent, name, spec["token"], kinds, spec["state"])
    try:
        if spec["abandon"] is not None:
            remove_part(receiver, spec["abandon"])
        while True:
            octets = os.read(0, 4 * PIECE)
            if not octets:
                break
            receiver.write(octets)
        state = receiver.finish()
    except BaseException:
        receiver.discard()
        raise
    return {"state": state, "parent": os.fsencode(parent), "name": os.fsencode(name)}


def receive(spec):
    try:
        reply = answer(spec)
    except Malformed as error:
        reply = {"malformed": str(error)}
    except OSError as error:
        path = os.fsencode(error.filename or spec["parent"])
        reply = {"error": (errno.errorcode.get(error.errno or 0, "EIO"), error.strerror, path)}
    os.write(1, ascii(reply).encode())
