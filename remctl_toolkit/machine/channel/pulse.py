"""The sign of life for the far side: one for all channels of a connection."""

from __future__ import annotations

import os
import threading
import time
import weakref

import remctl

from ..base.connection import Connection
from .feeding import tell
from .keeping import Keeper

_pulses: weakref.WeakKeyDictionary[Connection, Pulse] = weakref.WeakKeyDictionary()
_pulses_lock = threading.Lock()


def _forked() -> None:
    # The parent's threads are not here, and one of them may have held the lock.
    global _pulses_lock
    _pulses_lock = threading.Lock()
    _pulses.clear()


os.register_at_fork(after_in_child=_forked)


def pulse_of(connection: Connection) -> Pulse:
    """Return the pulse of a connection."""
    with _pulses_lock:
        return _pulses.setdefault(connection, Pulse())


class Pulse:
    """Beats for the keepers that joined, from a thread that there is as long as any of them.

    A beat is a command over there.  The first comes after one period: a channel that is not used
    for longer costs none.
    """

    def __init__(self) -> None:
        """Have no keepers, and no thread."""
        self._changed = threading.Condition()
        self._members: dict[Keeper, tuple[float, float]] = {}
        self._thread: threading.Thread | None = None

    def join(self, keeper: Keeper, beat: float, patience: float) -> None:
        """Beat for a keeper every `beat` seconds; without a beat it ends after `patience`."""
        with self._changed:
            self._members[keeper] = (beat, patience)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="remctl-pulse", daemon=True)
                self._thread.start()
        keeper.when_done(self.leave)

    def leave(self, keeper: Keeper) -> None:
        """Beat for it no more."""
        with self._changed:
            self._members.pop(keeper, None)
            self._changed.notify_all()

    def _beat(self) -> None:
        arrived = time.monotonic()  # when the last beat did
        while (keepers := self._wait()) is not None:
            live = [keeper for keeper in keepers if not keeper.ended]
            if not live:
                continue
            patience = min(keepers[keeper][1] for keeper in live)
            sent = time.monotonic()
            try:
                tell(live[0].connection, [keeper.folder for keeper in live], b"b", patience)
                arrived = sent
            except remctl.RemctlError as error:
                silence = time.monotonic() - arrived
                for keeper in live:
                    if keeper.connection.closed or silence > keepers[keeper][1]:
                        keeper.fail(error)

    def _wait(self) -> dict[Keeper, tuple[float, float]] | None:
        """Wait until a beat is due, and return for whom; None as soon as there is nobody."""
        with self._changed:
            start = time.monotonic()
            while self._members:
                due = start + min(beat for beat, _ in self._members.values())
                left = due - time.monotonic()
                if left <= 0:
                    return dict(self._members)
                self._changed.wait(left)
            self._thread = None
            return None
