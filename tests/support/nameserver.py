"""A name server for SRV records, on loopback."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset


@contextmanager
def name_server(records: Mapping[str, Sequence[str]]) -> Iterator[int]:
    """Answer questions for SRV records; the value is the port.

    Args:
        records: for each name, with its final dot, "PRIORITY WEIGHT PORT TARGET" of each record.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            octets, back = self.request
            answer = dns.message.make_response(dns.message.from_wire(octets))
            name = answer.question[0].name
            found = records.get(name.to_text())
            if found is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *found))
            back.sendto(answer.to_wire(), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def resolver(port: int) -> dns.resolver.Resolver:
    """Return a resolver that asks only this server."""
    asking = dns.resolver.Resolver(configure=False)
    asking.nameservers = ["127.0.0.1"]
    asking.port = port
    asking.lifetime = 30
    return asking
