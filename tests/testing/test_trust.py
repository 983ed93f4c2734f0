"""Cross-realm trust: users of one realm at a server of another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testing.processes import remctl

from remctl_toolkit.testing import Command, Realm, RealmError, RemctldServer

pytestmark = pytest.mark.once

WHO = "echo $REMOTE_USER"


@pytest.fixture
def realms() -> Iterator[tuple[Realm, Realm]]:
    with Realm("ONE.TEST") as one, Realm("OTHER.EXAMPLE") as other:
        yield one, other


def serve(realm: Realm, *users: str) -> RemctldServer:
    """Make a server that lets users run "who am-i"."""
    acl = tuple(f"princ:{user}" for user in users)
    return RemctldServer(realm, [Command("who", script=WHO, acl=acl)])


def test_users_of_each_realm_may_use_servers_of_the_other(realms: tuple[Realm, Realm]) -> None:
    one, other = realms
    one.trust(other)
    one.add_principal("alice")
    alice = one.kinit("alice", ccache=one.new_ccache())
    for theirs, ours in ((one, other), (other, one)):
        with serve(theirs, theirs.user, ours.user) as server:
            for realm in (theirs, ours):
                assert remctl(server, "who", "am-i", realm=realm).stdout == f"{realm.user}\n"
    with serve(other, one.user) as server:
        assert remctl(server, "who", "am-i", realm=one, ccache=alice).returncode != 0


def test_without_trust_there_is_no_way_in(realms: tuple[Realm, Realm]) -> None:
    one, other = realms
    with serve(other, one.user) as server:
        assert remctl(server, "who", "am-i", realm=one).returncode != 0


def test_it_outlives_a_restart_of_the_kdcs(realms: tuple[Realm, Realm]) -> None:
    one, other = realms
    one.trust(other)
    for realm in realms:
        realm.stop_kdc()
        realm.start_kdc()
        realm.kinit()
    with serve(other, one.user) as server:
        assert remctl(server, "who", "am-i", realm=one).stdout == "user@ONE.TEST\n"


def test_one_realm_may_trust_several(realms: tuple[Realm, Realm]) -> None:
    one, other = realms
    with Realm("THIRD.TEST") as third:
        for realm in (other, third):
            one.trust(realm)
        with serve(one, other.user, third.user) as server:
            for realm in (other, third):
                assert remctl(server, "who", "am-i", realm=realm).stdout == f"{realm.user}\n"
        with serve(third, other.user) as server:  # trust is not passed on
            assert remctl(server, "who", "am-i", realm=other).returncode != 0


def test_it_ends_with_a_realm() -> None:
    one, other = Realm("ONE.TEST"), Realm("OTHER.TEST")
    for _ in range(2):
        with one, other:
            one.trust(other)
            with serve(other, one.user) as server:
                assert remctl(server, "who", "am-i", realm=one).stdout == f"{one.user}\n"


def test_mistakes_are_errors(realms: tuple[Realm, Realm]) -> None:
    one, other = realms
    with pytest.raises(RealmError, match=r"two realms ONE\.TEST.*name"):
        one.trust(Realm("ONE.TEST"))
    with pytest.raises(RealmError, match=r"start\(\)"):
        one.trust(Realm("THIRD.TEST"))
    one.trust(other)
    for first, second in ((one, other), (other, one)):
        with pytest.raises(RealmError, match="already exists"):
            first.trust(second)
