"""Free ports for servers on this machine that start later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Linux gives connections, and servers that ask for any port, ports from 32768 on. The ports in this range are lower, so
# Linux gives none of them away between the search and the start of the server.
_PORTS = range(12_000, 32_000)
_MAX_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """`count` different free ports. They are random, so concurrent callers rarely share one. Raises OSError."""
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
