"""Offers of several roles: one ACCEPT holds offers of one role."""

from __future__ import annotations

from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import Resources
from jobcloud.messages import Accept, ExecutorLost, OffersReceived, Publish, Topic, Trigger
from jobcloud.model import ShardState


def test_accept_holds_offers_of_one_role() -> None:
    desk = Desk(make_app(), make_job(shard_count=6))
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=4, role="batch"), make_offer("o2", cpus=3, role="web"))))
    desk.tick()
    accepts = of(Accept, desk.last)
    assert [accept.offer_ids for accept in accepts] == [("o1",), ("o2",)]
    # The executor takes one of the four cpus of the first role. Tasks of the second role join it.
    assert [len(accept.launches) for accept in accepts] == [3, 3]
    executors = {launch.executor for accept in accepts for launch in accept.launches}
    assert {share.origin for one in executors for share in one.shares} == {'{"allocation_info": {"role": "batch"}}'}
    for accept, role in zip(accepts, ("batch", "web"), strict=True):
        origins = {share.origin for launch in accept.launches for share in launch.shares}
        assert origins == {f'{{"allocation_info": {{"role": "{role}"}}}}'}


def test_task_that_fits_no_role_alone_is_refused_once() -> None:
    desk = Desk(make_app(), make_job(resources=Resources(5000, 128_000)))
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=4, role="batch"), make_offer("o2", cpus=4, role="web"))))
    desk.tick()
    assert of(Accept, desk.last) == []
    assert [notice.topic for notice in of(Publish, desk.last)].count(Topic.REFUSED) == 1
    desk.do(OffersReceived(desk.at, (make_offer("o3", cpus=2, role="web"),)))
    desk.tick()
    assert [accept.offer_ids for accept in of(Accept, desk.last)] == [("o2", "o3")]


def test_shard_that_fits_the_second_role_is_not_reported_as_refused() -> None:
    desk = Desk(make_app(), make_job(resources=Resources(5000, 128_000)))
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=1, role="batch"), make_offer("o2", cpus=8, role="web"))))
    desk.tick()
    assert [accept.offer_ids for accept in of(Accept, desk.last)] == [("o2",)]
    assert Topic.REFUSED not in {notice.topic for notice in of(Publish, desk.last)}


def test_shard_that_fits_no_role_waits_shortly_and_has_not_failed() -> None:
    """The matcher counts amounts. An executor that starts again needs the role that it had."""
    desk = Desk(make_app(), make_job(shard_count=2))
    desk.do(Trigger(desk.at, "report"))
    [first] = desk.launched(desk.offer(make_offer("o1", cpus=2, mem=512, role="batch")))
    desk.do(ExecutorLost(desk.at, "a1", first.executor.id))
    desk.offer(make_offer("o2", cpus=8, role="web"))
    [firing] = desk.firings()
    shard = firing.shards[1]
    assert "with the same role" in shard.message
    assert (shard.state, shard.failures, shard.not_before_ms - desk.at) == (ShardState.WAITING, 0, 5_000)


def test_agent_tells_the_roles_of_the_offers_that_are_held() -> None:
    desk = Desk(make_app(), make_job(cron="0 0 5 1 1 ?", resources=Resources(9_000, 32_000)))
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=4, role="web"), make_offer("o2", cpus=4, role="batch"))))
    (view,) = desk.scheduler.agents()
    assert view.roles == ("batch", "web")
