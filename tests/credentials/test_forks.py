"""Credentials in forked children."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from credentials.places import LIMIT, Place
from support.waiting import PATIENCE, eventually

from remctl_toolkit import credentials as module
from remctl_toolkit.credentials import KeytabCredentials


def fork(work: Callable[[], object]) -> int:
    """Run a function in a forked child; return its process id."""
    child = os.fork()
    if child:
        return child
    signal.alarm(round(LIMIT * PATIENCE))  # This ends a child that hangs.
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def check_child(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_the_tickets_and_renews_them_itself(place: Place) -> None:
    credentials = place.credentials()
    ccache = credentials.ccache()

    def work() -> None:
        assert credentials.ccache() == ccache
        assert place.user(credentials) == credentials.principal
        module._renewal._RENEWED_LEFT = 1  # They are due for renewal now, but valid.
        eventually(lambda: credentials.ccache() != ccache, LIMIT)
        assert place.user(credentials) == credentials.principal

    check_child(fork(work))
    assert place.user(credentials) == credentials.principal


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_it_does_not_have(place: Place) -> None:
    path = place.file()
    principal = place.daemon()
    credentials = KeytabCredentials(place.keytab(principal), principal, path)
    place.realm.freeze_kdc()
    waiting = threading.Thread(target=credentials.ccache, daemon=True)
    waiting.start()
    eventually(lambda: credentials._attempt)

    def work() -> None:
        assert credentials.ccache() == f"FILE:{path}"

    with credentials._lock:
        child = fork(work)
    place.realm.thaw_kdc()
    check_child(child)
    waiting.join(LIMIT)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_the_names_of_caches(place: Place) -> None:
    credentials = place.credentials()
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with module._caches._names.lock:
            held.set()
            forked.wait(LIMIT)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(LIMIT)
    child = fork(credentials.ccache)
    forked.set()
    holder.join()
    check_child(child)
