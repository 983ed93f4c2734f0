"""The text that the sandbox prints before its shell starts."""

from __future__ import annotations

from remctl_toolkit.hosts import fold
from remctl_toolkit.testing import Realm

from .servers import DEFAULT_PORT, FAULTS, Servers

__all__ = ["banner"]

_ABOUT = """\
You have a Kerberos realm and a remctl server of your own.

  server     {host}, port {port}{why}
  principal  {principal}
  you are    {user}, with a ticket
{hosts}
Try:

  remctl {options}help
  remctl {options}account show alice
{fleet}  python3
  >>> import remctl
  >>> remctl.remctl({arguments}, command=["test", "echo", "hello"])

Leave with "exit" or Ctrl-D, which also stops the realm and the server.
"""
_FLEET = "  remctl-fleet --hosts-file $REMCTL_HOSTS --timeout 2 -- account show alice\n"


def banner(realm: Realm, servers: Servers) -> str:
    """Return the text: names and ports, and commands to try."""
    server = servers.main
    usual = server.port == DEFAULT_PORT
    return _ABOUT.format(
        host=server.host,
        port=server.port,
        why="" if usual else f", as {DEFAULT_PORT} is in use",
        principal=server.principal,
        user=realm.user,
        hosts=_hosts(servers),
        options=f"{server.host} " if usual else f"-p {server.port} {server.host} ",
        arguments=f'"{server.host}"' if usual else f'"{server.host}", {server.port}',
        fleet=_FLEET if servers.hosts else "",
    )


def _hosts(servers: Servers) -> str:
    """Return the lines about the hosts of ``--hosts``."""
    if not servers.hosts:
        return ""
    names = {str(host): host for host in servers.hosts}
    lines = [f"  hosts      {len(names)}, in the file $REMCTL_HOSTS"]
    if len({host.name for host in servers.hosts}) == len(names):
        lines.append(f"             {_folded(servers, None)}")
        for fault in FAULTS.values():
            if any(host.fault == fault for host in servers.hosts):
                lines.append(f"             {_folded(servers, fault)}: {fault}")
    else:
        lines.append("             some refuse connections, never answer or deny every command")
    return "\n".join(lines) + "\n"


def _folded(servers: Servers, fault: str | None) -> str:
    """Return the hosts with this fault as a pattern; None means all hosts."""
    return fold([host.name for host in servers.hosts if fault in (None, host.fault)])
