"""Arguments of fleets that cannot be right: one clear error, before anything is sent."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from remctl_toolkit.fleet import Fleet, Host, run_on_hosts

pytestmark = pytest.mark.once

ECHO = ["test", "echo", "hello"]

BAD_HOSTS: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "no hosts"),
    ("web1", TypeError, "hosts must be several names, in a list say, not 'web1'"),
    (b"web1", TypeError, "hosts must be several names"),
    (None, TypeError, "hosts must be several names"),
    (Host("web1"), TypeError, "hosts must be several names"),
    ([1], TypeError, "a host must be a name or a Host, not 1"),
    (["web1", "db1", "web1"], ValueError, "host web1 is named twice"),
    (["web1", Host("web1")], ValueError, "host web1 is named twice"),
    ([""], ValueError, "invalid host name: ''"),
    (["we\0b"], ValueError, "invalid host name"),
    *(
        ([name], ValueError, "HostList reads ports, ranges and groups")
        for name in (
            *("web1:4444", "web[1-3]", "web1,web2", "@web", "web*", "[::1]:4444", "[::1]"),
            *("web1 ", "-web1", "web1;x", "user@web1", "http://web1"),
        )
    ),
]


@pytest.mark.parametrize(("hosts", "kind", "text"), BAD_HOSTS)
def test_bad_hosts(hosts: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text.replace("(", r"\(")):
        run_on_hosts(hosts, ECHO)


BAD_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"port": 70000}, ValueError, "invalid port number: 70000"),
    ({"port": "http"}, TypeError, "port must be a number: 'http'"),
    ({"principal": ""}, ValueError, "invalid principal: ''"),
    ({"timeout": -1}, ValueError, "invalid timeout -1"),
    ({"timeout": "1"}, TypeError, "timeout must be a number of seconds"),
    ({"ccache": ""}, ValueError, "invalid credential cache"),
    ({"source_ip": "web1"}, ValueError, "source address must be an IP address"),
    ({"credentials": 5}, TypeError, r"credentials must have ccache\(\)"),
    ({"connect_timeout": 0}, ValueError, "connect_timeout must be more than 0, not 0"),
    ({"connect_timeout": "1"}, TypeError, "connect_timeout must be a number of seconds"),
    ({"retries": -1}, ValueError, "retries must be 0 or more, not -1"),
    ({"retries": 1.5}, TypeError, "retries must be a whole number, not 1.5"),
    ({"retries": True}, TypeError, "retries must be a whole number"),
    ({"backoff": -0.1}, ValueError, "backoff must be 0 or more, not -0.1"),
    ({"backoff": float("nan")}, ValueError, "backoff must be 0 or more, not nan"),
    ({"concurrency": 0}, ValueError, "concurrency must be 1 or more, not 0"),
    ({"concurrency": None}, TypeError, "concurrency must be a whole number, not None"),
    ({"executor": 4}, TypeError, "not a concurrent.futures.Executor: 4"),
    ({"colour": 4}, TypeError, "colour"),
    ({"limit": 0}, ValueError, "limit must be more than 0, not 0"),
    ({"limit": "5"}, TypeError, "limit must be a number of seconds, not '5'"),
    ({"deadline": -1}, ValueError, "deadline must be more than 0, not -1"),
    ({"deadline": float("nan")}, ValueError, "deadline must be more than 0, not nan"),
    *(
        ({name: 10**400}, ValueError, f"{name} must be less than")
        for name in ("limit", "deadline", "connect_timeout", "backoff")
    ),
    ({"first": -1}, ValueError, "first must be 0 or more, not -1"),
    ({"first": "1"}, TypeError, "first must be a whole number, not '1'"),
    ({"stop_after": 0}, ValueError, "stop_after must be 1 or more, not 0"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD_SETTINGS, ids=str)
def test_bad_settings(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        run_on_hosts(["web1"], ECHO, **arguments)


@pytest.mark.parametrize(
    ("command", "input", "kind", "text"),
    [
        ("uptime", None, TypeError, "command must be a sequence or iterator"),
        (5, None, TypeError, "command must be a sequence or iterator"),
        ([], None, ValueError, "command must not be empty"),
        (["x", None], None, TypeError, "command must not contain None"),
        ([], lambda host: "y", ValueError, "command must not be empty"),
        (["x"], 5, TypeError, "input must be bytes, str or a binary file, not int"),
    ],
)
def test_bad_commands(command: Any, input: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        run_on_hosts(["web1"], command, input=input)


def test_bad_ports_and_principals_of_a_host() -> None:
    with pytest.raises(ValueError, match="port must be 1 or more, not 0"):
        Host("web1", 0)
    with pytest.raises(ValueError, match="invalid port number: 70000"):
        Host("web1", 70000)
    with pytest.raises(TypeError, match="port must be a whole number, not '4373'"):
        Host("web1", "4373")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid principal"):
        Host("web1", principal="")
    with pytest.raises(TypeError, match="host must be a str: 5"):
        Host(5)  # type: ignore[arg-type]


def test_output_cannot_be_seen_live_with_an_executor() -> None:
    with (
        ThreadPoolExecutor(1) as executor,
        Fleet(["web1"], executor=executor) as fleet,
        pytest.raises(ValueError, match="on_output works with the default executor only"),
    ):
        fleet.run(ECHO, on_output=print)


def test_run_on_hosts_takes_what_a_fleet_and_its_run_take() -> None:
    methods = [inspect.signature(Fleet.__init__), inspect.signature(Fleet.run)]
    expected = {**methods[0].parameters, **methods[1].parameters}
    del expected["self"]
    assert dict(inspect.signature(run_on_hosts).parameters) == expected
