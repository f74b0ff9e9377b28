"""Free ports for servers on this machine that start later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below the range from which Linux takes ports for connections, and for servers that ask for any port (32768 and up). So
# no connection and no other server takes a port between the search and the start of the server.
_PORTS = range(12_000, 32_000)
_MAX_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Different free ports. They are random, so concurrent callers rarely get the same port. Raises OSError."""
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
