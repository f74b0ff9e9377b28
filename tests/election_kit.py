"""Candidates in the elections of ZooKeeper and etcd, each with a store and a thread that waits for the leadership."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from kazoo.client import KazooClient
from tests import etcd_kit, zookeeper_kit

from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.ports import LastingStore, Leadership


class Candidate:
    """A scheduler as seen by the store: it waits on its own thread and then leads.

    `place` is a prefix or namespace.
    """

    #: runs servers
    kit: ClassVar[ModuleType]
    #: the session timeout of a candidate that outlives a restart of its server
    patient_s: ClassVar[float]

    election: Leadership
    store: LastingStore

    def __init__(self, hosts: str, place: str, name: str, timeout_s: float = 60.0) -> None:
        self._open(hosts, place, name, timeout_s)
        self.heard: list[str] = []
        self.stop = threading.Event()
        self.epoch = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _open(self, hosts: str, place: str, name: str, timeout_s: float) -> None:
        """Make the election and the store."""
        raise NotImplementedError

    def _run(self) -> None:
        if self.election.wait(self.stop, self.heard.append):
            self.epoch = self.store.acquire()

    def waits(self) -> bool:
        return self.heard[-1:] != [] and self.heard[-1].endswith(" leads")

    def leads(self) -> bool:
        return self.epoch > 0 and self.election.holds()

    def expire(self) -> None:
        """End its session or lease, as the servers do after a silence."""
        raise NotImplementedError

    def remove(self) -> None:
        """Delete its node or key in the election."""
        raise NotImplementedError

    def entry(self) -> object:
        """Changes if it has entered the election again. False in between."""
        raise NotImplementedError

    def connected(self) -> bool:
        return True

    def close(self) -> None:
        self.stop.set()
        self._thread.join(60)
        self.store.close()


class EtcdCandidate(Candidate):
    kit: ClassVar[ModuleType] = etcd_kit
    patient_s = 30.0
    election: EtcdElection
    store: EtcdStore

    def _open(self, hosts: str, place: str, name: str, timeout_s: float) -> None:
        self.client = etcd_kit.connect(hosts, place, timeout_s)
        self.election = election = EtcdElection(self.client, name)
        self.store = EtcdStore(self.client, name=name, candidacy=lambda: election.candidacy, resign=election.resign)

    def expire(self) -> None:
        self.client.revoke(self.election._lease)

    def remove(self) -> None:
        assert self.election.candidacy is not None
        self.client.transact([], [{"request_delete_range": {"key": self.election.candidacy.key}}])

    def entry(self) -> object:
        return self.election._lease


class ZooKeeperCandidate(Candidate):
    kit: ClassVar[ModuleType] = zookeeper_kit
    patient_s = 60.0
    election: ZooKeeperElection
    store: ZooKeeperStore

    def _open(self, hosts: str, place: str, name: str, timeout_s: float) -> None:
        self.session = zookeeper_kit.connect(hosts, place, timeout_s)
        self.election = election = ZooKeeperElection(self.session, name)
        self.store = ZooKeeperStore(self.session, name=name, candidate=lambda: election.node)

    def expire(self) -> None:
        """Another connection takes the session over and closes it.

        https://cwiki.apache.org/confluence/display/HADOOP2/ZooKeeper+FAQ, "Is there an easy way to expire a session".
        """
        thief = KazooClient(self.session.hosts, client_id=self.session._client.client_id)
        thief.start(60)
        thief.stop()
        thief.close()

    def remove(self) -> None:
        def request(client: KazooClient) -> Any:
            return client.delete_async(self.election.node)

        self.session.ask(request)

    def entry(self) -> object:
        return self.session.losses

    def connected(self) -> bool:
        return self.session.connected


_C = TypeVar("_C", bound=Candidate)


@contextmanager
def joining(kind: type[_C], hosts: str, place: str) -> Iterator[Callable[[str], _C]]:
    """A function that adds a candidate with a name. All are closed at the end of the block."""
    with ExitStack() as stack:

        def make(name: str) -> _C:
            candidate = kind(hosts, place, name)
            stack.callback(candidate.close)
            return candidate

        yield make
