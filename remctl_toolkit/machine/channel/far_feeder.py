"""Writes to the FIFOs of keepers, where there is no command for sh to do it faster."""

import posix as os  # It is there in any Python; to import os itself takes time with each feed.

NO_READER = 4
NO_FOLDER = 3


def open_fifo(path):
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # Without a reader, it fails.
    except FileNotFoundError:
        os._exit(NO_FOLDER)
    except OSError:
        os._exit(NO_READER)
    os.set_blocking(fd, True)
    return fd


def feed(folder, end):
    fd = open_fifo(folder + b"/data")
    try:
        while True:
            piece = os.read(0, 1 << 16)
            if not piece:
                break
            while piece:
                piece = piece[os.write(fd, piece) :]
    except BrokenPipeError:
        os._exit(NO_READER)
    if end:
        tell([folder], b"e")
    os._exit(0)


def tell(folders, words):
    for folder in folders:
        try:
            fd = os.open(folder + b"/control", os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, words + b"\n")
        except OSError:
            continue  # It has just ended.
        os.close(fd)
    os._exit(0)
