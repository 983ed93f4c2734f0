"""A tool for operators as a user might write it; type checkers read it, and nothing runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict, assert_never, assert_type

import remctl
from remctl_toolkit.fleet import Host, Outcome, run_on_hosts


class Options(TypedDict, total=False):
    """Settings that all calls share."""

    timeout: float | None
    ccache: Path
    credentials: remctl.RemctlCredentials


class VaultCredentials:
    """Credentials need only the method."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ccache(self) -> str:
        return f"FILE:{self._folder / 'ccache'}"


@dataclass
class Account:
    name: str
    quota: int
    home: Path


def create(server: remctl.Remctl, account: Account) -> None:
    """Mix text, paths and numbers in one command."""
    server.run(["account", "create", account.name, account.quota, account.home]).check()


def wrapped(command: Iterable[str], options: Options) -> str:
    """Accept any iterable in a wrapper, and pass settings on."""
    return remctl.remctl("server.example.org", command=command, **options).stdout_text()


def copy_to(server: remctl.Remctl, source: Path, target: IO[bytes]) -> None:
    with source.open("rb") as file:
        server.run(("image", "convert"), input=file, stdout=target, stderr=sys.stderr.buffer)


def pieces(server: remctl.Remctl, command: Sequence[str | Path]) -> Iterator[bytes]:
    """Hand on the output; the command is ended when the caller stops early."""
    with server.stream(command, deadline=60) as tokens:
        for token in tokens:
            match token.type:
                case "output":
                    yield token.output
                case "status":
                    if token.status:
                        raise SystemExit(token.status)
                case _:
                    assert_never(token.type)


def count(tokens: Iterable[remctl.RemctlOutput]) -> Mapping[str, int]:
    """Use the class of all tokens if the type of a token does not matter."""
    found: dict[str, int] = {}
    for kind, _, stream, _, _ in tokens:
        name = kind if stream is None else stream.name
        found[name] = found.get(name, 0) + 1
    return found


def again(call: Callable[[], remctl.RemctlSimpleResult]) -> remctl.RemctlSimpleResult:
    """Retry a command that has certainly not run."""
    try:
        return call()
    except remctl.RemctlServerError as error:
        if error.code is remctl.RemctlErrorCode.ACCESS:
            print(error.advice or "ask for access", file=sys.stderr)
        raise
    except remctl.RemctlProtocolError as error:
        if error.may_have_run:
            raise
        return call()


def restart(names: list[str], credentials: remctl.RemctlCredentials) -> list[str]:
    failed: list[str] = []
    outcomes = run_on_hosts(
        [*names, Host("db1", 4444)],
        ["service", "restart", "nginx"],
        timeout=10,
        credentials=credentials,
        retries=2,
        concurrency=8,
        on_output=lambda host, stream, octets: print(host.name, stream.name, len(octets)),
    )
    for outcome in outcomes:
        assert_type(outcome, Outcome)
        if not outcome.ok:
            failed.append(f"{outcome.host}: {outcome.reason}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("hosts", nargs="+")
    hosts: list[str] = parser.parse_args().hosts
    credentials = VaultCredentials(Path("/run/vault"))
    with remctl.Remctl(hosts[0], connect=False, credentials=credentials) as server:
        create(server, Account("alice", 10, Path("/home/alice")))
        copy_to(server, Path("a.png"), sys.stdout.buffer)
        for piece in pieces(server, ["log", "show", Path("/var/log/syslog")]):
            sys.stdout.buffer.write(piece)
        print(count(server.stream(["log", "show"])))
        print(again(lambda: server.run(["log", "size"])).ok)
    print(wrapped(("account", "list"), {"timeout": 5, "credentials": credentials}))
    sys.exit("\n".join(restart(hosts, credentials)) or 0)


if __name__ == "__main__":
    main()
