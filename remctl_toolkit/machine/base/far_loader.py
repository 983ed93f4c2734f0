"""Loads programs; what takes as long to compile as Python to start is compiled once for each host.

Standard input has a dictionary, after its length; what follows is left for the program.  Its
"programs" are lists of a file's name, the text, and what this Python has made of the text before:
b"" if nothing, None if that is not worth keeping.  If there is something, the text is compressed.
"""

import marshal
import sys

VERSION = sys.version.encode() + b"\0"


def load(programs):
    """Return the code of each program, and what to keep of it, by its place."""
    codes, made = [], {}
    for place, (name, text, kept) in enumerate(programs):
        if kept and kept.startswith(VERSION):
            code = marshal.loads(kept[len(VERSION) :])
        else:
            if kept:  # Python is another one by now.
                import zlib

                text = zlib.decompress(text)
            code = compile(text, name, "exec")
            if kept is not None:
                made[place] = VERSION + marshal.dumps(code)
        codes.append(code)
    return codes, made


spec = marshal.loads(r(int(r(8), 16)))  # noqa: F821  # r() is that of PYTHON_LOADER.
codes, made = load(spec["programs"])
exec(codes[0])
