"""Stand-ins for sudo, docker and the like, and a server that finds them."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remctl_toolkit.testing import RemctldServer, machine_commands

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

PROGRAMS = {
    # Empty the environment, and leave the user as it is.
    "sudo": '[ "$1 $2" = "-n --" ] || exit 1; shift 2; '
    'exec env -i SUDO_USER=them PATH="$PATH" "$@"',
    "docker": 'echo "$@" >>"$0.log"; [ "$1 $2 $3 $4" = "exec -i -u me" ] && shift; '
    '[ "$3" = me ] && shift; [ "$3" = box ] || exit 1; shift 3; BOX=docker exec "$@"',
    "podman": '[ "$1 $2 $3" = "exec -i box" ] || exit 1; shift 3; BOX=podman exec "$@"',
    "kubectl": '[ "$1 $2 $3 $4 $5 $6 $7 $8" = "--context c exec -i -n n pod --" ] || exit 1; '
    'shift 8; BOX=kubectl exec "$@"',
    "oc": '[ "$1 $2 $3 $4" = "exec -i pod --" ] || exit 1; shift 4; BOX=oc exec "$@"',
}


def write_programs(folder: Path) -> Path:
    """Write the programs to a folder, and return it."""
    for name, script in PROGRAMS.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


@contextlib.contextmanager
def place_of(realm: Realm, programs: Path) -> Iterator[dict[str, Any]]:
    """Have a server; give its settings for a connection, which remoto's users do not need."""
    path = f"{programs}:/usr/bin:/bin"
    with RemctldServer(realm, machine_commands(), env={"PATH": path}) as server:
        yield {"port": server.port, "principal": server.principal}
