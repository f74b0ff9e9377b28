"""Leader election in ZooKeeper: the candidate with the oldest node leads.

The recipe is ZooKeeper's own (https://zookeeper.apache.org/doc/r3.8.0/recipes.html#sc_leaderElection): each candidate
has an ephemeral node with a growing number, and watches the node before its own. kazoo's Election is not used: it waits
without a time limit while ZooKeeper is out of reach, and it does not tell a leader that the lead is lost. Here, the
leader keeps checking its own node. It trusts an answer for two thirds of the session timeout that the servers granted.
After that time, by its own clock, the scheduler no longer leads, even if ZooKeeper and kazoo report no loss. The
servers let the next candidate lead only later, when the session has expired.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from kazoo import exceptions as zk

from jobcloud.adapters.zookeeper.session import ZooKeeperSession
from jobcloud.errors import StoreError, StoreUnusable
from jobcloud.ports import Flag

_log = logging.getLogger("jobcloud.zookeeper")
_NODE = re.compile(r"([0-9a-f]{32})-(\d{10})")
_FOLDER = "ha/election"
# Watches report changes. This interval limits the delay if a watch is lost.
_RECHECK_S = 1.0
_TRUST = 2 / 3
_HEARTBEATS = 8


class ZooKeeperElection:
    """A `Leadership` in the namespace of `session`, which must outlive the election.

    `address` is the URL of this scheduler's API; standbys show this URL to users. `monotonic` counts seconds.
    """

    def __init__(
        self, session: ZooKeeperSession, address: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._address = address
        self._monotonic = monotonic
        self._token = uuid.uuid4().hex
        self._changed = threading.Event()
        self._own = ""
        self._losses = 0
        self._answered = float("-inf")
        self._lost = ""
        self._resigned = False
        self._leader = ""
        session.listen(self._changed.set)

    @property
    def leader(self) -> str:
        return self._leader

    @property
    def node(self) -> str:
        """The path of our node, which exists as long as we may lead; "" before we were elected."""
        return self._own

    def wait(self, stop: Flag, report: Callable[[str], None]) -> bool:
        reported = None
        while not stop.is_set():
            self._changed.clear()
            try:
                found = self._campaign()
            except StoreUnusable:
                raise
            except (StoreError, zk.KazooException) as error:
                found = f"waiting for ZooKeeper: {error}"
            if found is None:
                threading.Thread(target=self._watch, name="leadership", daemon=True).start()
                return True
            if found != reported:
                reported = found
                report(found)
            self._pause(stop)
        return False

    def holds(self) -> bool:
        if self._ended():
            return False
        if not self._lost and self._session.losses != self._losses:
            self._mark_lost("the session with ZooKeeper was lost")
        if not self._lost and self._monotonic() - self._answered > self._session.timeout_s * _TRUST:
            self._mark_lost(f"ZooKeeper has not answered for {self._session.timeout_s * _TRUST:.1f} s")
        return not self._lost and self._session.connected

    @property
    def lost(self) -> str:
        self.holds()
        return self._lost

    def resign(self) -> None:
        self._resigned = True
        if self._own:
            try:
                self._session.ask(lambda client: client.delete_async(self._own), _RECHECK_S)
            except (StoreError, zk.KazooException) as error:
                _log.info("could not delete the election node; it expires with the session: %r", error)

    def _campaign(self) -> str | None:
        """Become a candidate, if this scheduler is none. Returns None if it leads, otherwise a text for `report`.

        Raises StoreError, KazooException.
        """
        losses = self._session.losses
        if not self._session.connected:
            return "waiting for ZooKeeper: it is out of reach"
        folder = self._session.path(_FOLDER)
        self._session.prepare([folder])
        asked = self._monotonic()
        names = self._candidates(folder)
        own = next((name for name in names if name.startswith(self._token)), None)
        if own is None:
            data = json.dumps({"address": self._address}).encode()
            prefix = f"{folder}/{self._token}-"
            self._session.ask(lambda client: client.create_async(prefix, data, ephemeral=True, sequence=True))
            asked = self._monotonic()
            names = self._candidates(folder)
            own = next((name for name in names if name.startswith(self._token)), None)
            if own is None:
                return "waiting for ZooKeeper: the new session has already ended"
        if names[0] == own:
            late = self._monotonic() - asked
            if late > self._session.timeout_s * _TRUST / 2:
                # An answer counts from its request on. This late answer would soon expire, and the leadership with it.
                timeout = f"the session timeout is {self._session.timeout_s:g} s"
                return f"waiting for ZooKeeper: its last answer took {late:.1f} s, and {timeout}"
            self._own, self._losses, self._answered = f"{folder}/{own}", losses, asked
            self._leader = ""
            return None
        before = f"{folder}/{names[names.index(own) - 1]}"
        self._session.ask(lambda client: client.exists_async(before, watch=self._wake))
        data, _ = self._session.ask(lambda client: client.get_async(f"{folder}/{names[0]}"))
        self._leader = _address(data)
        return f"{self._leader or 'another scheduler'} leads"

    def _candidates(self, folder: str) -> list[str]:
        children: list[str] = self._session.ask(lambda client: client.get_children_async(folder))
        return sorted(filter(_NODE.fullmatch, children), key=lambda name: name.rpartition("-")[2])

    def _pause(self, stop: Flag) -> None:
        deadline = self._monotonic() + _RECHECK_S
        while not stop.is_set() and not self._changed.wait(0.05) and self._monotonic() < deadline:
            continue

    def _wake(self, event: Any) -> None:
        # kazoo calls this method on its own thread, and requires None as the result.
        self._changed.set()

    def _watch(self) -> None:
        """Check our own node regularly while we lead."""
        pause = threading.Event()
        while self._check_own_node():
            pause.wait(self._session.timeout_s / _HEARTBEATS)

    def _check_own_node(self) -> bool:
        """Check our own node once. False if no further check is needed."""
        if self._lost or self._ended():
            return False
        asked, limit = self._monotonic(), self._session.timeout_s * _TRUST
        try:
            if self._session.ask(lambda client: client.exists_async(self._own), limit) is None:
                self._mark_lost("our node in the election was removed")
            else:
                self._answered = max(self._answered, asked)
        except (StoreError, zk.KazooException) as error:
            if self._ended():
                return False
            _log.warning("ZooKeeper does not answer: %s", error)
        self.holds()
        return True

    def _ended(self) -> bool:
        return self._resigned or self._session.closed

    def _mark_lost(self, why: str) -> None:
        self._lost = self._lost or why
        _log.error("leadership lost: %s", why)


def _address(data: bytes) -> str:
    """The URL of a candidate's API; "" if its node does not tell."""
    try:
        return str(json.loads(data)["address"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""
