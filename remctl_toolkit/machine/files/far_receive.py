"""Receive one command of an upload, and return the state from which the next one resumes."""

from __future__ import annotations

import errno
import marshal
import os
import time

from ..wire.both_frames import FrameError, Frames
from .both_place import Part, Place, identity, remove
from .both_receive import LONGEST, Receiver
from .far_answer import answer

MOVED = "This folder is not the one that it was"


def begun(spec):
    path, name = os.fsdecode(spec["destination"]), os.fsdecode(spec["name"])
    receiver = Receiver(Place(path), name, spec["token"])
    if receiver.into and spec["replaces"] is not None:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return receiver


def resumed(spec):
    path, file, into, name, stack, part = marshal.loads(spec["state"])
    receiver = Receiver(Place(path), name, spec["token"])
    receiver.into, receiver.begun = into, True
    for entry in stack:
        receiver.attempt(Receiver.enter, *entry[:2])
    if (identity(os.fstat(receiver.place.folder)), receiver.stack) != (file, stack):
        raise OSError(errno.ESTALE, MOVED, receiver.where)
    if part is not None and spec["abandon"] is None:
        receiver.where = receiver.path(part[0])
        receiver.part = Part(receiver.folders[-1], part[0], spec["token"])
        receiver.attempt(lambda receiver: receiver.part.resume(part, spec["position"]))
    return receiver


def state_of(receiver):
    place, part = receiver.place, receiver.part and receiver.part.state()
    file = identity(os.fstat(place.folder))
    return marshal.dumps((place.path, file, receiver.into, receiver.name, receiver.stack, part))


def remove_late(folder, token, patience):
    # The command that makes the file may still be starting, because nobody waited for its reply.
    deadline = time.monotonic() + patience
    while not remove(Part(folder, "", token).part_name, folder) and time.monotonic() < deadline:
        time.sleep(0.01)


def receive(spec):
    def do():
        receiver = resumed(spec) if spec["state"] else begun(spec)
        receiver.replaces = spec["replaces"]
        if spec["abandon"] is not None:
            remove_late(receiver.folders[-1], spec["token"], spec["abandon"])
            return 0, b"removed"
        frames = Frames(receiver.take, b"dulfbhcaz", LONGEST)
        try:
            while True:
                octets = os.read(0, 1 << 20)
                if not octets:
                    break
                frames.write(octets)
            if not receiver.ended:
                raise FrameError("it ends before its end")
            return int(receiver.into), state_of(receiver)
        except BaseException:
            receiver.discard()
            raise

    answer(do, spec["destination"])
