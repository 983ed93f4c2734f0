"""An sshd on a free loopback port, with its own keys and configuration."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from remctl_toolkit.testing.keeper import Keeper

__all__ = ["Sshd", "find_sshd"]

_TIMEOUT = 10.0  # seconds to start in

_SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
Subsystem sftp internal-sftp
UsePAM no
UseDNS no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
MaxStartups 1000
MaxSessions 1000
LogLevel ERROR
# A user's own shell start-up files would slow the peers down.
SetEnv HOME={folder}/home
"""

# For the peers that run ssh(1). bench-master shares a connection, bench does not.
_SSH_CONFIG = """\
Host bench bench-master
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
Host bench-master
    ControlMaster auto
    ControlPath {folder}/master
    ControlPersist 600
"""


def find_sshd() -> str | None:
    """Return the full path of sshd, which it requires for starting, or None."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Sshd:
    """The server, run as this user; it ends when this process does."""

    def __init__(self, program: str) -> None:
        """Make the keys, and start it."""
        self._keeper = Keeper()
        self.folder = self._keeper.folder
        try:
            self.port = _free_port()
            self._write_files()
            self._start(program)
        except BaseException:
            self.close()
            raise

    @property
    def env(self) -> dict[str, str]:
        """Environment variables for peers."""
        return {
            "BENCH_SSH_PORT": str(self.port),
            "BENCH_SSH_USER": getpass.getuser(),
            "BENCH_SSH_KEY": str(self.folder / "user_key"),
            "BENCH_SSH_KNOWN_HOSTS": str(self.folder / "known_hosts"),
            "BENCH_SSH_CONFIG": str(self.folder / "ssh_config"),
        }

    def _write_files(self) -> None:
        (self.folder / "home").mkdir()
        for name in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name],
                check=True,
            )
        key = (self.folder / "host_key.pub").read_text().split()
        (self.folder / "known_hosts").write_text(
            f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n127.0.0.1 {key[0]} {key[1]}\n"
        )
        settings = {"port": self.port, "folder": self.folder, "user": getpass.getuser()}
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format(**settings))
        (self.folder / "ssh_config").write_text(_SSH_CONFIG.format(**settings))

    def _start(self, program: str) -> None:
        if os.getuid() == 0:  # its privilege separation wants an empty folder
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        args = [program, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("wb") as log:
            daemon = self._keeper.launch(args, output=log, env={"PATH": os.environ["PATH"]})
        if not daemon.await_ready(self._answers, _TIMEOUT):
            raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text().strip()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            time.sleep(0.02)
            return False

    def close(self) -> None:
        """End it and remove its folder."""
        self._keeper.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
