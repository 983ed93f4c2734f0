"""Takes what one command of an upload brings, and remembers for the next how far it came."""

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
    receiver.replaces = spec["replaces"]
    if receiver.into and receiver.replaces is not None:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if path.endswith("/") and not receiver.into:
        receiver.kinds = b"d"
    return receiver


def resumed(spec):
    path, into, name, folders, part = marshal.loads(spec["state"])
    receiver = Receiver(Place(path), name, spec["token"])
    receiver.replaces, receiver.into, receiver.begun = spec["replaces"], into, True
    for place, (entry, made, file) in enumerate(folders):
        if place:
            receiver.attempt(Receiver.enter, entry, made)
        if identity(os.fstat(receiver.folders[-1])) != file:
            raise OSError(errno.ESTALE, MOVED, receiver.where)
    if part is not None and spec["abandon"] is None:
        receiver.where = receiver.path(part[0])
        receiver.part = Part(receiver.folders[-1], part[0], spec["token"])
        receiver.attempt(lambda receiver: receiver.part.resume(part, spec["position"]))
    return receiver


def state_of(receiver):
    part = None
    if receiver.part is not None:
        part = receiver.attempt(lambda receiver: receiver.part.state())
    stack = [("", False), *receiver.stack]
    files = [identity(os.fstat(folder)) for folder in receiver.folders]
    folders = [(*entry, file) for entry, file in zip(stack, files)]
    return marshal.dumps((receiver.place.path, receiver.into, receiver.name, folders, part))


def remove_late(folder, token, patience):
    # The command that makes it may be on its way still: nobody has its answer.
    deadline = time.monotonic() + patience
    while not remove(Part(folder, "", token).part_name, folder) and time.monotonic() < deadline:
        time.sleep(0.01)


def receive(spec):
    def do():
        receiver = resumed(spec) if spec["state"] else begun(spec)
        if spec["abandon"] is not None:
            remove_late(receiver.folders[-1], spec["token"], spec["abandon"])
            return 0, b"removed"

        def take(letter, number, octets):
            if letter == b"z":
                receiver.ended = True
            else:
                receiver.take(letter, number, octets)

        frames = Frames(take, b"dulfbhcaz", LONGEST)
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
