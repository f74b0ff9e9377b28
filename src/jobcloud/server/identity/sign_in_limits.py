"""Limits of sign-ins by password: of each user, of each address, and of all together.

Each has a bucket of tries, which fills again over time (token bucket). So no flood locks a person out for longer than
it lasts. While it lasts, a person can sign in from an address from which the same person has signed in before: such a
pair of user and address has a bucket of its own.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from jobcloud.server.networks import network_of


class Rate(NamedTuple):
    """The size of a bucket, and the seconds until it has one more try."""

    tries: int
    refill_s: float


PER_ADDRESS = Rate(10, 6.0)
PER_USER = Rate(20, 10.0)
#: A check of a password takes about 50 ms of one core, so all sign-ins together take at most a tenth of a core.
IN_TOTAL = Rate(20, 0.5)
#: the maximum number of buckets of one kind, and of pairs of user and address
MAX_BUCKETS = 10_000


class SignInLimits:
    """Counts tries to sign in. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._addresses = Buckets(PER_ADDRESS, monotonic)
        self._users = Buckets(PER_USER, monotonic)
        self._total = Buckets(IN_TOTAL, monotonic)
        self._pairs = Buckets(PER_ADDRESS, monotonic)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, user: str, address: str) -> bool:
        """Whether a try may be made now. It counts even if it then succeeds."""
        network = network_of(address)
        with self._lock:
            if (user, network) in self._known:
                return self._pairs.take((user, network))
            return self._addresses.take(network) and self._users.take(user) and self._total.take(None)

    def succeeded(self, user: str, address: str) -> None:
        """Remember from where a user has signed in."""
        pair = (user, network_of(address))
        with self._lock:
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > MAX_BUCKETS:
                self._known.popitem(last=False)


class Buckets:
    """At most MAX_BUCKETS buckets. The one that was not used for the longest time makes room. Not thread-safe."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._monotonic = monotonic
        #: (tries left, at this time)
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def has(self, key: Hashable) -> bool:
        """Whether `take` would succeed."""
        return self._left(key, self._monotonic()) >= 1

    def take(self, key: Hashable) -> bool:
        now = self._monotonic()
        left = self._left(key, now)
        admitted = left >= 1
        self._buckets[key] = (left - 1 if admitted else left, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return admitted

    def _left(self, key: Hashable, now: float) -> float:
        left, then = self._buckets.get(key, (float(self._rate.tries), now))
        return min(self._rate.tries, left + (now - then) / self._rate.refill_s)
