"""Receive an upload."""

from __future__ import annotations

import _signal  # Importing signal itself takes long.
import errno
import os

from ..wire.both_frames import FrameError, Frames
from .both_place import Place
from .both_receive import LONGEST, Receiver
from .far_answer import answer


def stop(*_):
    raise SystemExit(1)


def receive(destination, name, token, replaces):
    def do():
        path = os.fsdecode(destination)
        receiver = Receiver(Place(path), os.fsdecode(name), token)
        receiver.replaces = replaces
        if receiver.into and replaces is not None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        frames = Frames(receiver.take, b"dulfbhcaz", LONGEST)
        try:
            while not receiver.ended:
                octets = os.read(0, 1 << 20)
                if not octets:
                    raise FrameError("it is incomplete")
                frames.write(octets)
        finally:
            receiver.discard()
        return int(receiver.into), b"complete"

    _signal.signal(_signal.SIGTERM, stop)  # stop() makes do() remove the temporary file.
    answer(do, destination)
