"""Settings for commands on many hosts, and checks of numbers."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import remctl

_PAUSE_LIMIT = 10.0  # seconds between two attempts to connect, at most
_MAX_SECONDS = 10**15  # for an int, which may be too large for a float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of connections to many hosts, and their concurrency; can be pickled.

    Attributes:
        port, principal, timeout, ccache, source_ip, credentials, keepalive: see `remctl.Remctl`.
        connect_timeout: seconds that the network may be silent until a command is sent, if
            `timeout` allows more; None is no limit of its own.
        retries: the number of further attempts to connect.
        backoff: seconds before the first of these; they double each time, up to ten.
        concurrency: the number of hosts to run on in parallel.
        limit: time limit for each host, including connecting; None is for ever.
        deadline: time limit for all hosts together; None is for ever.
        first: the number of canaries: hosts that have to succeed before the others are started.
        stop_after: the number of failures after which no other host is started; None is no limit.

    Raises:
        TypeError, ValueError: one of them is invalid.
    """

    port: int | str | None = None
    principal: str | None = None
    timeout: float | None = None
    ccache: str | os.PathLike[str] | None = None
    source_ip: str | None = None
    credentials: remctl.RemctlCredentials | None = None
    keepalive: float | None = None
    connect_timeout: float | None = None
    retries: int = 0
    backoff: float = 0.5
    concurrency: int = 64
    limit: float | None = None
    deadline: float | None = None
    first: int = 0
    stop_after: int | None = None

    def __post_init__(self) -> None:
        check_count("retries", self.retries, least=0)
        check_seconds("backoff", self.backoff, zero=True)
        check_count("concurrency", self.concurrency, least=1)
        check_count("first", self.first, least=0)
        if self.stop_after is not None:
            check_count("stop_after", self.stop_after, least=1)
        for name in ("connect_timeout", "limit", "deadline"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))
        self.connection("localhost")

    def connection(
        self, name: str, port: int | None = None, principal: str | None = None
    ) -> remctl.Remctl:
        """Return a connection to a host, not yet open; None for a port or principal is ours."""
        return remctl.Remctl(
            name,
            self.port if port is None else port,
            principal or self.principal,
            timeout=self.timeout,
            ccache=self.ccache,
            source_ip=self.source_ip,
            credentials=self.credentials,
            keepalive=self.keepalive,
            connect=False,
        )

    def pause(self, attempts: int) -> float:
        """Return the seconds to wait after a number of attempts to connect."""
        pause = min(self.backoff * 2.0 ** min(attempts - 1, 100), _PAUSE_LIMIT)
        # Random, so that hosts that failed together are not retried together.
        return pause * random.uniform(0.5, 1)


def check_count(name: str, value: Any, *, least: int) -> None:
    """Check a whole number.

    Raises:
        TypeError, ValueError: it is not a whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def check_seconds(name: str, value: Any, *, zero: bool = False) -> None:
    """Check a number of seconds; `zero` allows 0.

    Raises:
        TypeError, ValueError: it is not a number, or too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if isinstance(value, int) and value > _MAX_SECONDS:
        raise ValueError(f"{name} must be less than {_MAX_SECONDS:,}, or inf")
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'}, not {value}")
