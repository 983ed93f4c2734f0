"""Starts keeper.py, which takes as long to compile as Python to start: compiled where that was done
before by this very Python.
"""

import marshal
import os
import sys

pieces = []
while True:
    piece = os.read(0, 1 << 20)
    if not piece:
        break
    pieces.append(piece)
spec = marshal.loads(b"".join(pieces))
version = sys.version.encode()
compiled = spec.pop("compiled")
if compiled.startswith(version + b"\0"):
    code = marshal.loads(compiled[len(version) + 1 :])
    spec["compiled"] = b""
else:
    code = compile(spec["keeper"], "<keeper>", "exec")
    spec["compiled"] = version + b"\0" + marshal.dumps(code)
exec(code)
