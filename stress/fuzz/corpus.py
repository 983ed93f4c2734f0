"""The corpus: a text file with an input in each line; and its first inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from . import inputs as how
from .inputs import NEXT_TOKEN, RAW, Call, put_together

__all__ = ["CORPUS", "read", "seeds", "unpack", "write"]

CORPUS = Path(__file__).with_name("corpus.txt")

_HEADING = (
    "# Inputs for player.py, in hexadecimal; python -m stress.fuzz --keep writes this file.\n"
)


def read(path: Path = CORPUS) -> list[bytes]:
    """Return the inputs."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [bytes.fromhex(line) for line in lines if line and not line.startswith("#")]


def write(inputs: Iterable[bytes], path: Path = CORPUS) -> None:
    """Write the inputs, the short ones first."""
    ordered = sorted(set(inputs), key=lambda octets: (len(octets), octets))
    path.write_text(_HEADING + "".join(f"{octets.hex()}\n" for octets in ordered))


def unpack(inputs: Iterable[bytes], folder: Path) -> None:
    """Write each input to a separate file for libFuzzer."""
    for octets in inputs:
        (folder / hashlib.sha1(octets).hexdigest()).write_bytes(octets)


def seeds() -> list[bytes]:
    """Return valid exchanges of each protocol, and a few invalid ones."""
    opened = _token(0x42, b"ok")
    old = _token(0x02, b"ok")
    output = _data(b"\2\3\1\0\0\0\5hello")
    errors = _data(b"\2\3\2\0\0\0\3err")
    status = _data(b"\2\4\xc8")
    refusal = _data(b"\2\5\0\0\0\6\0\0\0\2no")
    noop, version = _data(b"\3\7"), _data(b"\2\6\2")
    mic = _token(0x08, b"MIC")
    result = _token(0x04, b"\0\0\0\1\0\0\0\2hi")
    asking = _token(0x24, b"\0\0\0\1\0\0\0\2hi")
    full = NEXT_TOKEN.join([output, errors, status])
    return [
        put_together(0, [Call.RUN], [opened, full]),
        put_together(0, [Call.RUN, Call.RUN], [opened, full, refusal]),
        put_together(how.AT_ONCE, [Call.COMMAND, Call.OUTPUT, Call.OUTPUT], [b"", output]),
        put_together(how.END, [Call.NOOP, Call.NOOP, Call.ERROR], [opened, noop, version]),
        put_together(0, [Call.LARGE_COMMAND, Call.OUTPUT], [opened, b"", status]),
        put_together(how.NO_CONFIDENTIALITY, [Call.RUN], [opened]),
        put_together(
            how.PIECES | how.SMALL_BUFFERS, [Call.RUN, Call.CLOSE, Call.OPEN], [opened, full]
        ),
        put_together(0, [Call.RUN, Call.RUN], [old, NEXT_TOKEN.join([mic, result])]),
        put_together(
            how.BY_PRINCIPAL, [Call.RUN, Call.OUTPUT], [old, NEXT_TOKEN.join([mic, asking])]
        ),
        put_together(0, [Call.RUN], [_token(0x42, b"\xcc"), opened, full]),
        put_together(0, [Call.RUN], [_token(0x42, b"\xee")]),
        put_together(0, [Call.RUN], [opened, _token(0x44, b"\xee")]),
        put_together(0, [Call.RUN], [opened, RAW + b"\x44\0\0\0\x20\2\3\1"]),
        put_together(how.END, [Call.RUN], [opened, RAW + b"\x44\0\0\0\x20\2\3\1"]),
        put_together(0, [Call.RUN], [opened, RAW + b"\x44\xff\xff\xff\xff\2\3\1"]),
    ]


def _token(flags: int, payload: bytes) -> bytes:
    return bytes([flags]) + payload


def _data(message: bytes) -> bytes:
    return _token(0x44, message)
