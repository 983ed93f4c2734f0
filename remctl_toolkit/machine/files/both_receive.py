"""Make files and folders from the frames of both_send.py.  This runs on both sides: on the remote
host for uploads; locally for downloads, whose sender is not trusted.
"""

from __future__ import annotations

import errno
import os
from zlib import crc32

from ..wire.both_frames import FrameError
from .both_place import ANY_FOLDER, NO_LINK, Part, Place, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST = 1 << 18  # octets of a frame
DEEPEST = 256

NO_FOLDER = "No such folder to put the file in"


class Receiver:
    # Receives one file or tree; `name` is its name if the destination is an existing folder.
    # Mode bits in `mask` are never set.  `mode` overrides the mode that the sender gives a file.
    # `on_data` is called with a file's octets, or None for a hole, and their number.

    def __init__(
        self,
        place: Place,
        name: str,
        token: str,
        mask: int = 0,
        mode: int | None = None,
        on_data: Callable[[bytes | None, int], object] = lambda octets, length: None,
    ) -> None:
        self.place, self.token = place, token
        self.mask, self.mode, self.on_data = mask, mode, on_data
        self.into = place.name == "."
        self.name = name if self.into else place.name
        self.replaces: tuple[bool, int | None] | None = None  # see Part.replace()
        self.begun = self.ended = False
        self.part: Part | None = None
        self.stack: list[tuple[str, bool]] = []  # folders, and whether they were made by us
        self.folders = [place.folder]
        self.where = self.path(self.name)

    def path(self, name):
        names = [entry[0] for entry in self.stack]
        return os.path.normpath(os.path.join(self.place.path, *names, name))

    def take(self, letter: bytes, number: int, octets: bytes) -> None:
        if self.ended:
            raise FrameError("data after the end")
        if (self.part is not None) != (letter in b"bhca") and letter != b"z":
            raise FrameError(f"unexpected frame {letter!r}")
        self.attempt(self.handlers[letter], number, octets)
        if letter in b"bh":
            self.on_data(*((octets, len(octets)) if letter == b"b" else (None, int(octets))))

    def attempt(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(self, *arguments)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.where) from None
        except (IndexError, OverflowError, ValueError) as error:
            raise FrameError(str(error)) from None

    def take_name(self, octets, kind):
        if not self.stack and self.begun:
            raise ValueError("a second top-level entry")
        name = check_name(os.fsdecode(octets)) if self.stack else self.name
        self.where = self.path(name)
        if not self.begun and kind not in self.place.kinds:
            if kind == b"f":
                raise OSError(errno.ENOENT, NO_FOLDER)
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        self.begun = True
        return name

    # Folders and links.

    def begin_folder(self, mode, octets):
        name = self.take_name(octets, b"d")
        if len(self.stack) >= DEEPEST:
            raise ValueError("folders are nested too deep")
        try:
            os.mkdir(name, mode & 0o777 & ~self.mask | 0o700, dir_fd=self.folders[-1])
            made = True
        except FileExistsError:
            made = False
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW if made else ANY_FOLDER
        try:
            self.folders.append(os.open(name, flags, dir_fd=self.folders[-1]))
        except OSError:
            if os.path.islink(self.where):
                raise OSError(errno.ENOTDIR, NO_LINK) from None
            raise
        self.stack.append((name, made))

    def end_folder(self, mode, octets):
        self.where = self.path("")
        if self.stack.pop()[1]:  # Existing folders keep their modes and times.
            atime, mtime = octets.split(b" ")
            kept = os.fstat(self.folders[-1]).st_mode & 0o7000
            os.utime(self.folders[-1], ns=(int(atime), int(mtime)))
            os.chmod(self.folders[-1], mode & 0o777 & ~self.mask | kept)
        os.close(self.folders.pop())

    def make_link(self, number, octets):
        atime, mtime, rest = octets.split(b" ", 2)
        name, target = rest.split(b"\0")
        part = Part(self.folders[-1], self.take_name(name, b"l"), self.token)
        part.make_link(os.fsdecode(target), (int(atime), int(mtime)))

    # Files.

    def begin_file(self, number, octets):
        part = Part(self.folders[-1], self.take_name(octets, b"f"), self.token)
        if self.replaces is None:
            part.make()
        else:
            part.replace(self.place.status, self.replaces[1])
        self.part = part

    def more(self, crc, octets):
        if crc32(octets) != crc:
            raise ValueError("data is corrupt")
        self.part.write(octets)

    def end(self, number, octets):
        self.ended = True

    def hole(self, number, octets):
        self.part.skip(int(octets))

    def end_file(self, mode, octets):
        length, *times = map(int, octets.split(b" "))
        if length != self.part.position or len(times) not in (0, 2):
            raise ValueError("data is corrupt")
        for chosen in (self.part.mode, self.mode):
            mode = mode if chosen is None else chosen
        new = self.replaces is not None and self.replaces[0]
        self.part.commit(mode & 0o777 & ~self.mask, tuple(times), new)
        self.part = None

    def drop_file(self, number=0, octets=b""):
        part, self.part = self.part, None
        part.drop()

    handlers = {  # noqa: RUF012
        b"d": begin_folder,
        b"u": end_folder,
        b"l": make_link,
        b"f": begin_file,
        b"b": more,
        b"h": hole,
        b"c": end_file,
        b"a": drop_file,
        b"z": end,
    }

    # The end.

    def complete(self) -> bool:
        return self.begun and not self.stack and self.part is None

    def discard(self) -> None:
        if self.part is not None:
            self.drop_file()
        while self.folders:
            os.close(self.folders.pop())
