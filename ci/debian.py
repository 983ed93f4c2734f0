"""Unpack other releases of Debian: an old one to build for, new ones to try wheels in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .shell import Failed, run, say

# Mounts in a namespace of the chroot's processes, which ends with the last of them.
_ENTER = """\
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$@"
"""

_POLICY = "#!/bin/sh\nexit 101\n"  # no service may start in a chroot


class Unavailable(Exception):
    """This system lacks a requirement, which the text names."""


def unpack(suite: str, packages: str, folder: Path) -> None:
    """Unpack a minimal Debian with some packages, unless it exists.

    Raises:
        Unavailable: this is not root, or debootstrap or a package is missing.
    """
    stamp = folder / ".unpacked"
    if stamp.exists() and stamp.read_text() == packages:
        return
    if os.geteuid() != 0:
        raise Unavailable("unpacking Debian needs root")
    if shutil.which("debootstrap") is None:
        raise Unavailable("debootstrap is not installed")
    say(f"unpacking Debian {suite}, which takes minutes")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    install = f"apt-get install --yes --no-install-recommends {packages}"
    try:
        run("debootstrap", "--variant=minbase", suite, folder)
        policy = folder / "usr/sbin/policy-rc.d"
        policy.write_text(_POLICY)
        policy.chmod(0o755)
        run(*inside(folder), "sh", "-c", f"DEBIAN_FRONTEND=noninteractive {install}")
    except Failed as error:
        raise Unavailable(f"Debian {suite} could not be unpacked: {error}") from None
    keep_links_inside(folder)
    stamp.write_text(packages)


def keep_links_inside(folder: Path) -> None:
    """Make links to libraries relative, because absolute ones would lead to this system's."""
    for link in folder.glob("usr/lib*/**/*.so*"):
        if link.is_symlink() and (target := os.readlink(link)).startswith("/"):
            link.unlink()
            link.symlink_to(os.path.relpath(f"{folder}{target}", link.parent.resolve()))


def inside(folder: Path) -> list[str]:
    """Return a command prefix that runs programs in an unpacked Debian."""
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh"]
    return [*enter, str(folder)]
