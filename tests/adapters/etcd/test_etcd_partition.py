"""A member of etcd that is cut off from the network, while it leads the members and while it follows."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from tests import etcd_kit
from tests.mesos_kit import until
from tests.soak import partition

from jobcloud.adapters.etcd.client import NoAnswer
from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

pytestmark = pytest.mark.etcd


@pytest.fixture
def apart() -> Iterator[partition.Namespace | None]:
    """None if this machine allows no namespaces: then the member is suspended instead."""
    with ExitStack() as stack:
        made = None
        with suppress(partition.Impossible):
            made = stack.enter_context(partition.namespace())
        yield made


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_scheduler_leads_on_while_a_member_is_cut_off(
    tmp_path: Path, apart: partition.Namespace | None, leads: bool
) -> None:
    with etcd_kit.running(tmp_path, 3, apart=apart) as members:
        *others, cut_off = members
        wanted = cut_off if leads else others[0]
        if not wanted.leads():
            next(member for member in members if member.leads()).give_leadership_to(wanted)
            until(wanted.leads)
        # The member that will be cut off is asked first.
        prefix = f"test/{uuid.uuid4().hex}"
        client = etcd_kit.connect(etcd_kit.hosts([cut_off, *others]), prefix, 24.0)
        election = EtcdElection(client, "a")
        with closing(EtcdStore(client, candidacy=lambda: election.candidacy)) as store:
            assert election.wait(threading.Event(), lambda text: None)
            epoch = store.acquire()
            (apart.cut if apart else cut_off.pause)()
            store.write(epoch, [StoredWrite(Kind.TASK, "t", b"{}")])
            assert election.holds()
            with closing(etcd_kit.connect(cut_off.address, "x", 2.0)) as alone, pytest.raises(NoAnswer):
                alone.range(b"k")
            (apart.mend if apart else cut_off.resume)()
            cut_off.wait()
            with closing(EtcdStore(etcd_kit.connect(cut_off.address, prefix, 60.0))) as there:
                assert there.load().records[Kind.TASK] == {"t": b"{}"}
            store.write(epoch, [StoredWrite(Kind.TASK, "t", None)])
            assert election.holds()
            election.resign()
