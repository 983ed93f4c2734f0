"""Change a credential cache, to simulate expired tickets and wrong clocks.

The format is that of the files of MIT's and Heimdal's libraries, version 4: a header, the name of
the principal, and the tickets. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from remctl_toolkit.testing import RealmError

__all__ = ["expire", "skew"]

_LONG_AGO = 3 * 24 * 60 * 60  # seconds; a ticket lives for a day

_VERSION = b"\5\4"
_OFFSET_TAG = 1  # of the header's field with the difference to the KDC's clock
_TIMES = struct.Struct(">4I")  # authtime, starttime, endtime, renew_till; 0 means unset


class _Reader:
    """A reader of a cache's fields."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.place = 0

    def at_end(self) -> bool:
        return self.place >= len(self._octets)

    def skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self._octets):
            raise ValueError("it ends in the middle of a field")

    def number(self, length: int) -> int:
        start = self.place
        self.skip(length)
        return int.from_bytes(self._octets[start : self.place], "big")

    def skip_counted(self) -> None:
        """Skip a field that begins with its length."""
        self.skip(self.number(4))

    def skip_principal(self) -> None:
        self.skip(4)  # its type
        for _ in range(self.number(4) + 1):  # the parts of its name, and the realm
            self.skip_counted()

    def skip_typed_list(self) -> None:
        """Skip addresses, or authorization data: each has a type and a length."""
        for _ in range(self.number(4)):
            self.skip(2)
            self.skip_counted()


def expire(ccache: str) -> None:
    """Make all tickets in a credential cache appear expired for days.

    Args:
        ccache: name of a cache in a file, as Realm.kinit() and Realm.new_ccache() return it.

    Raises:
        RealmError: it is not a file with a credential cache in it.
    """
    _change_file(ccache, lambda octets: _move_times(octets, -_LONG_AGO))


def skew(ccache: str, seconds: float) -> None:
    """Set the clock of the clients that use a credential cache wrong.

    The Kerberos library keeps the difference to the KDC's clock in the cache, and adds it to the
    time of day. If the cache has a ticket for the server, the server detects the wrong clock;
    otherwise the KDC does.

    Args:
        ccache: name of a cache in a file, as Realm.kinit() and Realm.new_ccache() return it.
        seconds: how far the clock is ahead; negative means behind.

    Raises:
        RealmError: it is not a file with a credential cache in it.
    """
    _change_file(ccache, lambda octets: _set_clock_offset(octets, round(seconds)))


def _change_file(ccache: str, change: Callable[[bytes], bytes]) -> None:
    """Rewrite a credential cache.

    Args:
        ccache: ``FILE:PATH``, or the path.
        change: gets the content of the file, and returns the new content.

    Raises:
        RealmError: there is no such file, or it is not a credential cache.
    """
    path = Path(ccache.removeprefix("FILE:"))
    try:
        path.write_bytes(change(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise RealmError(f"cannot change the credential cache {ccache}: {error}") from None


def _move_times(octets: bytes, seconds: int) -> bytes:
    """Return a cache with the times of all tickets moved by some seconds.

    Raises:
        ValueError: it is not a cache.
    """
    moved = bytearray(octets)
    for place in _times(octets):
        times = _TIMES.unpack_from(octets, place)
        _TIMES.pack_into(moved, place, *(time and time + seconds for time in times))
    return bytes(moved)


def _set_clock_offset(octets: bytes, seconds: int) -> bytes:
    """Return a cache with a header that sets the offset of the KDC's clock.

    Raises:
        ValueError: it is not a cache.
    """
    field = struct.pack(">HHii", _OFFSET_TAG, 8, seconds, 0)
    body = octets[_after_header(octets).place :]
    return _VERSION + struct.pack(">H", len(field)) + field + body


def _after_header(octets: bytes) -> _Reader:
    if not octets.startswith(_VERSION):
        raise ValueError("it does not begin as one of version 4 does")
    reader = _Reader(octets)
    reader.skip(len(_VERSION))
    reader.skip(reader.number(2))
    return reader


def _times(octets: bytes) -> Iterator[int]:
    """Yield the offset of each ticket's times."""
    reader = _after_header(octets)
    reader.skip_principal()
    while not reader.at_end():
        reader.skip_principal()  # the client
        reader.skip_principal()  # the server
        reader.skip(2)  # the type of the key
        reader.skip_counted()
        yield reader.place
        reader.skip(_TIMES.size + 1 + 4)  # whether it has a second ticket, and flags
        reader.skip_typed_list()  # addresses
        reader.skip_typed_list()  # authorization data
        reader.skip_counted()  # the ticket
        reader.skip_counted()  # the second ticket
