"""A client of the quota service, for programs to use instead of the raw commands."""

import argparse
import json
import sys
from types import TracebackType
from typing import Self

import remctl


class QuotaServer:
    """A connection to the service; a context manager."""

    def __init__(self, host: str, port: int | None = None, ccache: str | None = None) -> None:
        self._connection = remctl.Remctl(host, port, timeout=30, ccache=ccache)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def _run(self, *args: str, input: str | None = None) -> str:
        data = None if input is None else input.encode()
        return self._connection.run(["quota", *args], input=data).check().stdout_text()

    def quota(self, user: str) -> int:
        """Return a user's quota in GB."""
        return int(self._run("show", user).split()[1])

    def quotas(self) -> dict[str, int]:
        """Return the quotas of all users."""
        found: dict[str, int] = json.loads(self._run("list", "--json"))
        return found

    def set(self, quotas: dict[str, int]) -> None:
        """Set quotas, all at once."""
        self._run("import", input="".join(f"{user} {size}\n" for user, size in quotas.items()))


def main() -> int:
    """Print the quotas of the users named, or of all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Show disk quotas.")
    parser.add_argument("host")
    parser.add_argument("users", nargs="*")
    parser.add_argument("-p", "--port", type=int)
    options = parser.parse_args()
    try:
        with QuotaServer(options.host, options.port) as server:
            asked = {user: server.quota(user) for user in options.users} or server.quotas()
    except remctl.RemctlError as error:
        print(f"{options.host}: {error}", file=sys.stderr)
        return 1
    for user, size in asked.items():
        print(f"{user:20}{size:6} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
