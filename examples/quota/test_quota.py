"""Tests of the quota service: most without a server, some with the client and a real one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import quota
from quota_client import QuotaServer

import remctl
from remctl_toolkit.testing import Realm
from remctl_toolkit.testing.plugin import ServerFactory

ADMIN = "alice/admin@REMCTL.TEST"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the quotas of two users."""
    path = tmp_path / "quotas.json"
    path.write_text(json.dumps({"user": 10, "bob": 20}))
    monkeypatch.setenv("QUOTA_STORE", str(path))
    return path


def run(*args: str, user: str = ADMIN, input: str | None = None) -> remctl.RemctlSimpleResult:
    return quota.backend.invoke(args, user=user, input=input)


def test_own_quota() -> None:
    assert run("show", user="bob@REMCTL.TEST").stdout == b"bob: 20 GB\n"


def test_own_quota_of_another_realm_is_not_ours() -> None:
    assert run("show", user="bob@ELSEWHERE").stderr == b"quota show: whose quota?\n"


def test_other_quotas_are_for_administrators() -> None:
    denied = run("show", "user", user="bob@REMCTL.TEST")
    assert (denied.status, denied.stderr) == (77, b"quota show: for administrators only\n")
    assert run("show", "user").check().stdout == b"user: 10 GB\n"


@pytest.mark.parametrize("command", [["list"], ["set", "x", "1"], ["delete", "user"], ["import"]])
def test_changes_are_for_administrators(command: list[str], store: Path) -> None:
    before = store.read_text()
    assert run(*command, user="bob@REMCTL.TEST", input="x 1").status != 0
    assert store.read_text() == before


def test_unknown_user() -> None:
    assert run("show", "carol").status == quota.NO_SUCH_USER


def test_set_and_list() -> None:
    run("set", "carol", "30").check()
    assert run("list").stdout_text() == "bob: 20\ncarol: 30\nuser: 10\n"
    assert run("list", "--at-least=20", "--json").stdout == b'{"bob": 20, "carol": 30}\n'


@pytest.mark.parametrize("args", [["../etc", "1"], ["bob", "-1"], ["bob", "many"], ["bob"]])
def test_wrong_arguments(args: list[str]) -> None:
    assert run("set", *args).status == 64


def test_import_is_all_or_nothing(store: Path) -> None:
    before = store.read_text()
    assert run("import", input="a 1\nb\n").status == 65
    assert store.read_text() == before
    assert run("import", input="a 1\nb 2\n").stdout == b"2 quotas set\n"


def test_delete() -> None:
    assert run("delete", "bob", "carol").stdout == b"bob: deleted\ncarol: had none\n"


def test_configuration_is_as_declared() -> None:
    assert quota.backend.check(Path(quota.__file__).with_name("remctl.conf")) == []


# With a server


@pytest.fixture
def admin(remctld: ServerFactory, remctl_realm: Realm, store: Path) -> Iterator[QuotaServer]:
    """A connection of an administrator to the test's server."""
    server = remctld(quota.backend, env={"QUOTA_STORE": str(store)})
    remctl_realm.add_principal("alice/admin", password="secret")
    ccache = remctl_realm.kinit("alice/admin", password="secret", ccache=remctl_realm.new_ccache())
    with QuotaServer(server.host, server.port, ccache) as connection:
        yield connection


def test_client(admin: QuotaServer) -> None:
    assert admin.quota("user") == 10
    admin.set({"carol": 30})
    assert admin.quotas() == {"bob": 20, "carol": 30, "user": 10}
    with pytest.raises(remctl.RemctlStatusError) as caught:
        admin.quota("dave")
    assert caught.value.last_line.endswith("no such user: dave")


def test_client_without_the_right(remctld: ServerFactory, store: Path) -> None:
    server = remctld(quota.backend, env={"QUOTA_STORE": str(store)})
    with QuotaServer(server.host, server.port) as user:
        assert user.quota("user") == 10
        with pytest.raises(remctl.RemctlStatusError) as caught:
            user.quotas()
    assert caught.value.last_line.endswith("for administrators only")
