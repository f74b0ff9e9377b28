"""The network of a client, by which limits count."""

from __future__ import annotations

import contextlib
import ipaddress


def network_of(address: str) -> str:
    """The address, or the /64 network of an IPv6 address: one client has all addresses of such a network."""
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and not found.ipv4_mapped:
            return str(ipaddress.ip_network((int(found), 64), strict=False))
    return address
