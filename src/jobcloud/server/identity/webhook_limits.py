"""Limits of webhooks: of refused deliveries from an address, of accepted ones of a job, and of lines in the log.

An address that has delivered something valid is never cut off: other senders may share it, such as all repositories of
a hosted service, or all clients of a proxy.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from jobcloud.server.identity.sign_in_limits import MAX_BUCKETS, Buckets, Rate
from jobcloud.server.networks import network_of

REFUSED_PER_ADDRESS = Rate(20, 3.0)
PER_JOB = Rate(60, 1.0)
LOGGED = Rate(20, 3.0)


class WebhookLimits:
    """Counts deliveries. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._refused = Buckets(REFUSED_PER_ADDRESS, monotonic)
        self._jobs = Buckets(PER_JOB, monotonic)
        self._lines = Buckets(LOGGED, monotonic)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def admits(self, address: str) -> bool:
        """Whether the signature of a delivery from an address is checked at all."""
        network = network_of(address)
        with self._lock:
            return network in self._known or self._refused.has(network)

    def refused(self, address: str) -> bool:
        """Count a refused delivery. False if there were too many from its address."""
        with self._lock:
            return self._refused.take(network_of(address))

    def verified(self, address: str, job: str) -> bool:
        """Count a delivery that the key of a job has signed. False if there were too many of the job."""
        network = network_of(address)
        with self._lock:
            self._known[network] = None
            self._known.move_to_end(network)
            if len(self._known) > MAX_BUCKETS:
                self._known.popitem(last=False)
            return self._jobs.take(job)

    def logs(self) -> bool:
        """Whether the log takes another line about a refused delivery."""
        with self._lock:
            return self._lines.take(None)
