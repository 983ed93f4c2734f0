"""Credentials that renew themselves: tickets of a few seconds, a real KDC, a real remctld."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from credentials.places import LIFE, LIMIT, Error, Place, end, ended
from support.ccache import expire
from support.waiting import eventually

from remctl_toolkit import credentials as module
from remctl_toolkit.credentials import (
    KeytabCredentials,
    RenewedCredentials,
    _caches,
    whoami,
)
from remctl_toolkit.credentials._caches import Tickets

if TYPE_CHECKING:
    from _pytest.logging import LogCaptureFixture


# -- Renewal --------------------------------------------------------------------------------------


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew tickets after a quarter of their life, so that a stalled machine is not too late."""
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 3 / 4)


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tickets due for renewal at once."""
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 1)


@pytest.mark.usefixtures("early")
def test_sessions_go_on_over_renewals_in_threads(place: Place) -> None:
    credentials = place.credentials(LIFE)
    seen: set[Tickets] = set()
    stop = threading.Event()

    def work() -> int:
        opened = 0
        while not stop.is_set():
            assert place.user(credentials) == credentials.principal
            assert credentials._tickets is not None
            seen.add(credentials._tickets)
            opened += 1
        return opened

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work) for _ in range(4)]
        try:
            eventually(lambda: len(seen) > 2 * LIFE or any(future.done() for future in futures), 60)
        finally:
            stop.set()
        assert all(future.result() for future in futures)
    # The caches take turns: one is reused when its tickets have expired.
    assert 2 <= len({tickets.ccache for tickets in seen}) < len(seen)
    in_turn = sorted(seen, key=lambda tickets: tickets.since)
    assert all(new.since < old.until for old, new in pairwise(in_turn))


@pytest.mark.usefixtures("early")
def test_a_thread_renews_what_others_use(place: Place) -> None:
    fetched: list[str] = []

    class Noting(KeytabCredentials):
        def _fetch(self, ccache: str) -> float:
            fetched.append(ccache)
            return super()._fetch(ccache)

    path = place.file()
    principal = place.daemon(LIFE)
    with Noting(place.keytab(principal), principal, path) as credentials:
        ends: list[float | None] = []
        for _ in range(3):
            eventually(lambda: whoami(path).ends not in ends, LIMIT)
            found = whoami(path)
            assert found.left > 0
            ends.append(found.ends)
        # Inspecting tickets did not ask the KDC, though the library tends to if they expire soon.
        assert place.requests(principal) <= len(fetched)
        threads = [t.name for t in threading.enumerate()].count("remctl-tickets")
        credentials.start()  # A second call does nothing.
        assert [t.name for t in threading.enumerate()].count("remctl-tickets") == threads
    eventually(lambda: "remctl-tickets" not in [t.name for t in threading.enumerate()])
    credentials.close()
    assert credentials.ccache() == f"FILE:{path}"


def test_one_renewal_at_a_time(place: Place) -> None:
    credentials = place.credentials()
    barrier = threading.Barrier(20)

    def ask() -> str:
        barrier.wait(LIMIT)
        return credentials.ccache()

    with ThreadPoolExecutor(20) as pool:
        names = {future.result() for future in [pool.submit(ask) for _ in range(20)]}
    assert len(names) == 1
    assert place.requests(credentials.principal) == 1


def test_names_of_caches_in_memory_are_used_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Realms of other tests had a principal of the same name.
    monkeypatch.setattr(_caches._names, "_used", {})
    principal = place.daemon(LIFE)
    keytab = place.keytab(principal)

    def use_for_a_life() -> str:
        credentials = KeytabCredentials(keytab, principal)
        ccache = credentials.ccache()
        eventually(lambda: ended(credentials), LIMIT)
        return ccache

    assert use_for_a_life() == KeytabCredentials(keytab, principal).ccache()


def test_credentials_may_be_forgotten_at_any_moment(place: Place) -> None:
    # Garbage may be collected at any point of a thread, also while it takes a name.
    credentials = place.credentials()
    credentials.ccache()
    forgotten = threading.Event()

    def forget() -> None:
        nonlocal credentials
        with module._caches._names.lock:
            del credentials
            gc.collect()
        forgotten.set()

    threading.Thread(target=forget, daemon=True).start()
    assert forgotten.wait(LIMIT)


def test_the_reason_is_told_where_a_cache_is_used_again(place: Place) -> None:
    credentials = place.credentials(LIFE)
    ccache = credentials.ccache()
    credentials.renew()
    assert credentials.ccache() != ccache
    eventually(lambda: ended(credentials), LIMIT)
    place.realm.stop_kdc()
    with pytest.raises(Error, match="Cannot contact any KDC"):
        credentials.ccache()


def test_a_cache_that_was_removed_is_made_again(place: Place) -> None:
    path = place.file()
    credentials = place.credentials(ccache=path)
    assert place.user(credentials) == credentials.principal
    os.unlink(path)
    assert place.user(credentials) == credentials.principal


def test_no_thread_keeps_what_nobody_uses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def look(credentials: RenewedCredentials) -> float:
        looked.set()
        return 0.05

    monkeypatch.setattr(RenewedCredentials, "_next_look", look)
    credentials = place.credentials()
    credentials.start()
    assert looked.wait(LIMIT)
    del credentials
    eventually(lambda: "remctl-tickets" not in [t.name for t in threading.enumerate()])


# -- Failure --------------------------------------------------------------------------------------


def test_the_old_tickets_are_used_while_the_kdc_is_down(
    place: Place, caplog: LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = place.credentials()
    assert place.user(credentials) == credentials.principal
    ccache = credentials.ccache()
    place.realm.stop_kdc()
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 1)
    with caplog.at_level(logging.WARNING, "remctl"):
        while caplog.text.count("the old ones are valid for") < 2:
            assert place.user(credentials) == credentials.principal
            assert credentials.ccache() == ccache
    assert caplog.text.count("Cannot contact any KDC") == 2
    end(credentials)

    with pytest.raises(Error) as caught:
        place.user(credentials)
    text = str(caught.value)
    assert text.startswith(f"no tickets for {credentials.principal} from the keytab ")
    assert text.endswith(": Cannot contact any KDC for realm 'REMCTL.TEST'")
    cure, tickets, server = caught.value.__notes__
    assert cure.startswith("no KDC answers")
    assert tickets.startswith(f"tickets of {credentials.principal} in {ccache} ended 20")
    assert server == "the server was to be host/localhost"
    assert (caught.value.host, caught.value.port) == ("localhost", place.server.port)
    assert type(pickle.loads(pickle.dumps(caught.value))) is Error

    place.realm.start_kdc()
    assert place.user(credentials) == credentials.principal


def test_nobody_waits_for_a_kdc_while_there_are_tickets(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = place.credentials()
    assert place.user(credentials) == credentials.principal
    ccache = credentials.ccache()
    place.realm.freeze_kdc()
    monkeypatch.setattr(module._renewal, "_RENEWED_LEFT", 1)
    for _ in range(3):
        assert place.user(credentials) == credentials.principal
        assert credentials.ccache() == ccache
        assert credentials._attempt is not None
    place.realm.thaw_kdc()
    eventually(lambda: credentials.ccache() != ccache, LIMIT)


@pytest.mark.usefixtures("due")
def test_a_late_renewal_takes_half_of_what_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._renewal, "_LATE_LEFT", 1)

    def takes_half(life: int) -> bool:
        credentials = place.credentials(life)
        with contextlib.suppress(Error):  # They may expire if the machine stalls.
            first = credentials.ccache()
            place.realm.freeze_kdc()
            half = time.time() + credentials._left() / 2
            second = credentials.ccache()
            in_time = not ended(credentials)
            assert time.time() >= half
            place.realm.thaw_kdc()
            eventually(lambda: credentials.ccache() != first, LIMIT)
            return second == first and in_time
        place.realm.thaw_kdc()
        return False

    assert any(map(takes_half, (4, 20)))


def test_where_no_thread_can_be_had_it_does_without(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    credentials = place.credentials()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert credentials.ccache() == credentials.ccache()


def test_attempts_have_pauses_between_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    clock = SimpleNamespace(time=time.time, monotonic=lambda: now)
    monkeypatch.setattr(module._renewal, "time", clock)
    credentials = place.credentials()
    place.realm.stop_kdc()
    pauses = []
    for _ in range(9):
        with pytest.raises(Error):
            credentials.ccache()
        pauses.append(credentials._not_before - now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_thread_gets_tickets_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._renewal, "_LAST_PAUSE", 0.2)
    monkeypatch.setattr(module._renewal, "_LONGEST_WAIT", 0.2)  # Waiters notice the end.
    path = place.file()
    with place.credentials(ccache=path) as credentials:
        place.realm.stop_kdc()
        expire(path)
        end(credentials)
        eventually(lambda: credentials._failures > 3, LIMIT)
        assert ended(credentials)
        place.realm.start_kdc()
        eventually(lambda: not ended(credentials), LIMIT)


def test_good_tickets_in_a_shared_cache_do_without_a_kdc(place: Place) -> None:
    principal = place.daemon()
    keytab = place.keytab(principal)
    ccache = place.realm.kinit(principal, keytab=keytab, ccache=place.realm.new_ccache())
    other = place.realm.kinit(ccache=place.realm.new_ccache())
    place.realm.stop_kdc()
    assert KeytabCredentials(keytab, principal, ccache).ccache() == ccache
    with pytest.raises(Error):  # They belong to another principal.
        KeytabCredentials(keytab, principal, other).ccache()
    expire(ccache)
    with pytest.raises(Error):
        KeytabCredentials(keytab, principal, ccache).ccache()


SPOILS: dict[str, tuple[Callable[[Place, str, str], object], str]] = {
    "key": (lambda p, principal, _: p.realm.rotate_key(principal), "keytab out of date"),
    "principal": (lambda p, principal, _: p.realm.delete_principal(principal), "was it deleted"),
    "keytab": (lambda p, _, keytab: os.unlink(keytab), "does not exist"),
    "emptied": (lambda p, _, keytab: os.truncate(keytab, 0), ""),
    "other's": (lambda p, _, keytab: os.replace(p.keytab(p.daemon()), keytab), "has no key"),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_was_spoilt_is_told(place: Place, what: str) -> None:
    spoil, cure = SPOILS[what]
    principal = place.daemon()
    keytab = place.keytab(principal)
    credentials = KeytabCredentials(keytab, principal)
    spoil(place, principal, keytab)
    with pytest.raises(Error) as caught:
        place.user(credentials)
    assert str(caught.value).startswith(f"no tickets for {principal} from the keytab {keytab}: ")
    assert cure in f"{caught.value} {caught.value.__notes__[0]}"
    assert caught.value.__notes__[-2] == f"there were no earlier tickets of {principal}"


def test_a_cache_that_cannot_be_written_is_told(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    credentials = place.credentials(ccache=str(folder / "ccache"))
    folder.rmdir()
    with pytest.raises(Error, match="Failed to store credentials"):
        credentials.ccache()
