"""Send the files of a download."""

from __future__ import annotations

import os

from ..wire.both_frames import frame
from .both_send import PIECE, Sender, total
from .far_answer import answer, failure, send


def send_files(path, single, wants_total):
    frames = []  # Small frames are written together.

    def add(letter, number, octets):
        frames.append(frame(letter, number, octets))
        if len(octets) == PIECE or len(frames) == 256:
            flush()

    def flush():
        send(b"".join(frames))
        frames.clear()

    def do():
        top = os.fsdecode(path)
        if wants_total:
            add(b"t", 0, b"%d" % total(top))
        sender = Sender(lambda error: add(b"x", 0, failure(error, path)), single)
        try:
            for each in sender.frames(top):
                add(*each)
        finally:
            flush()
        return 0, b""

    answer(do, path)
