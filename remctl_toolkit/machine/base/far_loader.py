"""Load programs; long ones are compiled only once for each host, as that takes long.

Standard input has the length of a dictionary, the dictionary, and the program's own input.  Its
"programs" are lists of a file name, the text, and its byte code if this host has compiled it
before: b"" if not, None if it is not worth keeping.  With byte code, the text is compressed.
"""

import marshal
import sys

VERSION = sys.version.encode() + b"\0"


def load(programs):
    """Return the code of each program, and new byte code to keep, by the program's index."""
    codes, made = [], {}
    for place, (name, text, kept) in enumerate(programs):
        if kept and kept.startswith(VERSION):
            code = marshal.loads(kept[len(VERSION) :])
        else:
            if kept:  # The host has another Python by now.
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
