"""Free ports for servers on this machine that start later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# From 32768 on, Linux takes ports for connections and for servers that ask for any port. These ports are below, so no
# connection and no such server takes a port after it was found and before its server starts.
_PORTS = range(12_000, 32_000)
_MAX_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """`count` different free ports. They are random, so concurrent callers rarely get the same. Raises OSError."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, _MAX_TRIES):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("found no free port")


def free_port() -> int:
    """One free port. Raises OSError if there is none."""
    return free_ports(1)[0]
