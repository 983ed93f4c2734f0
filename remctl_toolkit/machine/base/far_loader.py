"""Loads programs; what takes as long to compile as Python to start is compiled once for each host.

Standard input has a dictionary.  Its "programs" are lists of a file's name, the text, and what
this Python has made of the text before: b"" if nothing, None if that is not worth keeping.
"""

import marshal
import os
import sys

VERSION = sys.version.encode() + b"\0"


def load(programs):
    """Return the code of each program, and what to keep of it, by its place."""
    codes, made = [], {}
    for place, (name, text, kept) in enumerate(programs):
        if kept and kept.startswith(VERSION):
            code = marshal.loads(kept[len(VERSION) :])
        else:
            code = compile(text, name, "exec")
            if kept is not None:
                made[place] = VERSION + marshal.dumps(code)
        codes.append(code)
    return codes, made


def read_all():
    pieces = []  # type: list[bytes]
    while not pieces or pieces[-1]:
        pieces.append(os.read(0, 1 << 20))
    return b"".join(pieces)


spec = marshal.loads(read_all())
codes, made = load(spec["programs"])
exec(codes[0])
