"""Leader election in etcd: the candidate with the oldest key leads.

Each candidate has a lease and a key with that lease; the key with the lowest create revision leads (the recipe of
etcd's own client, https://github.com/etcd-io/etcd/blob/v3.4.23/clientv3/concurrency/election.go). A candidate asks etcd
several times a second who leads. It sets no watch, because a silent watch proves nothing.

The leader keeps its lease alive. It trusts an answer for two thirds of the TTL, counted by its own clock from the
request on. After that time, the scheduler no longer leads, even if etcd still has its key. Each change of etcd's own
leader renews all leases, so the key of a dead scheduler can outlive its TTL by far. The next candidate leads when the
lease has expired, which is never before the TTL has passed.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobcloud.adapters.etcd.client import EtcdClient, KeyValue, Rejected, end_of, get, put, was_created_at
from jobcloud.errors import StoreError, StoreUnusable
from jobcloud.ports import Flag

_log = logging.getLogger("jobcloud.etcd")
FOLDER = "election/"
# How often a candidate asks who leads.
_POLL_S = 0.25
_TRUST = 2 / 3
_HEARTBEATS = 8
# The part of the TTL after which a heartbeat without an answer puts the leadership in doubt.
_PATIENCE = 1 / 4
_REVOKE_S = 3.0


def running_s() -> float:
    """Seconds that also count while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Candidacy:
    """Our key in the election and its create revision. As long as the key exists with this revision, we may lead."""

    key: bytes
    revision: int


class EtcdElection:
    """A `Leadership` below the prefix of `client`, which must outlive the election.

    `address` is the URL of this scheduler's API; standbys show this URL to users. `monotonic` counts seconds.
    """

    def __init__(self, client: EtcdClient, address: str, *, monotonic: Callable[[], float] = running_s) -> None:
        self._client = client
        self._address = address
        self._monotonic = monotonic
        self._folder = client.key(FOLDER)
        self._lease = 0
        self._kept_alive = float("-inf")
        self._ttl_s = client.timeout_s
        self._own: Candidacy | None = None
        self._answered = float("-inf")
        self._doubtful = False
        self._lost = ""
        self._resigned = False
        self._leader = ""

    @property
    def leader(self) -> str:
        return self._leader

    @property
    def candidacy(self) -> Candidacy | None:
        """Our key, which every write must check; None before we were elected."""
        return self._own

    @property
    def ttl_s(self) -> float:
        """The TTL of the lease, which etcd may have raised."""
        return self._ttl_s

    def wait(self, stop: Flag, report: Callable[[str], None]) -> bool:
        reported = None
        pause = threading.Event()
        while not stop.is_set():
            try:
                found = self._campaign()
            except StoreUnusable:
                # For example, the rights allow only reads. Without this call, our lease would live for its whole TTL.
                self._revoke()
                raise
            except StoreError as error:
                found = f"waiting for etcd: {error}"
            if found is None:
                threading.Thread(target=self._look_after, name="leadership", daemon=True).start()
                return True
            if found != reported:
                reported = found
                report(found)
            pause.wait(_POLL_S)
        # Otherwise the next candidate would wait for the end of our lease.
        self._revoke()
        return False

    def holds(self) -> bool:
        if self._resigned:
            return False
        if not self._lost and self._monotonic() - self._answered > self._ttl_s * _TRUST:
            self._mark_lost(f"etcd has not answered for {self._ttl_s * _TRUST:.1f} s")
        return not self._lost and not self._doubtful

    @property
    def lost(self) -> str:
        self.holds()
        return self._lost

    def resign(self) -> None:
        if not self._resigned:
            self._resigned = True
            self._revoke()

    # ---------------------------------------------------------------------------------------------------- candidate

    def _campaign(self) -> str | None:
        """Become a candidate, if this scheduler is none. Returns None if it leads, otherwise a text for `report`.

        Raises StoreError.
        """
        asked = self._monotonic()
        candidates = self._candidates()
        if self._own_key(candidates) is None:
            self._enter()
            # Another candidate may have entered after the first answer, but before us.
            candidates = self._candidates()
        own = self._own_key(candidates)
        if own is None:
            return "waiting for etcd: our lease has already ended"
        leads = all(each.create_revision >= own.create_revision for each in candidates)
        if leads or self._monotonic() - self._kept_alive > self._ttl_s / _HEARTBEATS:
            asked = self._monotonic()
            if not self._client.keep_alive(self._lease):
                self._lease = 0
                return "waiting for etcd: our lease has ended"
            self._kept_alive = asked
        if not leads:
            self._leader = _address(min(candidates, key=lambda each: each.create_revision))
            return f"{self._leader or 'another scheduler'} leads"
        late = self._monotonic() - asked
        if late > self._ttl_s * _TRUST / 2:
            # An answer counts from its request on. This late answer would soon expire, and the leadership with it.
            return f"waiting for etcd: its last answer took {late:.1f} s, and the TTL of a lease is {self._ttl_s:g} s"
        self._own, self._answered, self._leader = Candidacy(own.key, own.create_revision), asked, ""
        return None

    def _candidates(self) -> list[KeyValue]:
        return self._client.range(self._folder, end_of(self._folder)).kvs

    def _own_key(self, candidates: Sequence[KeyValue]) -> KeyValue | None:
        return next((each for each in candidates if self._lease and each.key == self._key()), None)

    def _enter(self) -> None:
        """Create our key, with a new lease, behind the keys of all other candidates."""
        lease = secrets.randbits(62) + 1
        # Late duplicates of these requests change nothing: the id is never used again.
        try:
            self._ttl_s = float(self._client.grant(lease, max(1, round(self._client.timeout_s))))
        except Rejected:
            # An earlier request of ours has taken effect, and its answer was lost.
            self._ttl_s = float(self._client.keep_alive(lease) or self._ttl_s)
        self._lease, self._kept_alive = lease, float("-inf")
        key = self._key()
        data = json.dumps({"address": self._address}).encode()
        self._client.transact([was_created_at(key, 0)], [put(key, data, lease=str(lease))])

    def _key(self) -> bytes:
        return self._folder + b"%016x" % self._lease

    # ------------------------------------------------------------------------------------------------------- leader

    def _look_after(self) -> None:
        """Keep the lease alive while we lead."""
        pause = threading.Event()
        while self._beat():
            pause.wait(_POLL_S if self._doubtful else self._ttl_s / _HEARTBEATS)

    def _beat(self) -> bool:
        """Keep the lease alive, and check our key. False if no further check is needed."""
        if self._lost or self._ended():
            return False
        asked, limit = self._monotonic(), self._ttl_s * _PATIENCE
        own = self._own
        assert own is not None
        try:
            if not self._client.keep_alive(self._lease, limit):
                self._mark_lost("our lease in etcd has ended")
            elif not self._is_candidate(own, limit):
                self._mark_lost("our key in the election was removed")
            else:
                self._answered, self._doubtful = max(self._answered, asked), False
        except StoreError as error:
            if self._ended():
                return False
            self._doubtful = True
            _log.warning("etcd does not answer: %s", error)
        self.holds()
        return True

    def _is_candidate(self, own: Candidacy, limit_s: float) -> bool:
        # The reads make the answer linearizable. Without reads, even a member without quorum would answer.
        read = [get(own.key)]
        return self._client.transact([was_created_at(own.key, own.revision)], read, read, limit_s).succeeded

    def _ended(self) -> bool:
        return self._resigned

    def _revoke(self) -> None:
        lease, self._lease = self._lease, 0
        if lease:
            try:
                self._client.revoke(lease, _REVOKE_S)
            except Rejected:
                return  # it has ended already
            except StoreError as error:
                _log.info("could not end the lease in etcd; it expires by itself: %s", error)

    def _mark_lost(self, why: str) -> None:
        if not self._lost and not self._resigned:
            self._lost = why
            _log.error("leadership lost: %s", why)


def _address(candidate: KeyValue) -> str:
    """The URL of a candidate's API; "" if its key does not tell."""
    try:
        return str(json.loads(candidate.value)["address"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
