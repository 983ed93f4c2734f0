"""Frames: a letter, a number, a length, and the octets.  This runs on both sides."""

HEAD = 9  # octets of a frame's header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class FrameError(ValueError):
    """A malformed frame: it was probably written by another program."""


def frame(letter: bytes, number: int = 0, octets: bytes = b"") -> bytes:
    """Return a frame; `number` and the length take four octets."""
    return letter + number.to_bytes(4, "big") + len(octets).to_bytes(4, "big") + octets


class Frames:
    """Parse frames as they arrive; this is a binary file for `remctl.Remctl.run()`.

    `take` is called with the letter, the number and the octets of each frame.
    """

    def __init__(
        self, take: "Callable[[bytes, int, bytes], object]", letters: bytes, limit: int
    ) -> None:
        self._take = take
        self._letters = letters
        self._limit = limit
        self._pieces: list[bytes] = []
        self._have = 0  # octets in the pieces
        self._need = HEAD  # octets needed to continue parsing

    def write(self, octets: bytes) -> int:
        """Parse the next octets; raise FrameError if they are malformed."""
        self._pieces.append(octets)
        self._have += len(octets)
        if self._have >= self._need:
            self._take_apart()
        return len(octets)

    def _take_apart(self) -> None:
        octets = b"".join(self._pieces)
        place, size = 0, len(octets)
        end = HEAD
        while size - place >= HEAD:
            letter = octets[place : place + 1]
            length = int.from_bytes(octets[place + 5 : place + HEAD], "big")
            if letter not in self._letters or length > self._limit:
                raise FrameError(f"{octets[place : place + HEAD]!r} does not begin a frame")
            end = place + HEAD + length
            if end > size:
                break
            number = int.from_bytes(octets[place + 1 : place + 5], "big")
            self._take(letter, number, octets[place + HEAD : end])
            place, end = end, end + HEAD
        rest = octets[place:]
        self._pieces = [rest] if rest else []
        self._have, self._need = size - place, end - place
