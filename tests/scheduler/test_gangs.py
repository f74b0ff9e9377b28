"""Gang start: all shards of a run start or none, room is held back for a gang that waits, and reasons with numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_ad_hoc_job, make_app, make_job, make_offer, of

from jobcloud.config import Job, JobKind, Resources
from jobcloud.errors import ConfigError
from jobcloud.messages import (
    CancelRun,
    Decline,
    ExecutorLost,
    OffersReceived,
    PutAccess,
    PutJob,
    PutPool,
    Revive,
    RunAdHoc,
    SetPaused,
    Trigger,
)
from jobcloud.model import Pool, Quota, ShardState, Team, Terms
from jobcloud.scheduler import Policy
from jobcloud.scheduler.cluster import Request
from jobcloud.server.api.convert import read_job
from jobcloud.server.urls import UrlPolicy

AGE, HOLD = POLICY.gang_age_ms, POLICY.gang_hold_ms


def gang(name: str = "wide", shards: int = 4, **fields: Any) -> Job:
    return make_job(name, shard_count=shards, gang_start=True, **fields)


def desk_of(*jobs: Job, policy: Policy = POLICY, **app: Any) -> Desk:
    """A desk with an app, and jobs that are triggered in their order."""
    desk = Desk(make_app(**app), policy=policy)
    for job in jobs:
        add(desk, job)
    return desk


def add(desk: Desk, job: Job) -> None:
    desk.do(PutJob(desk.at, job))
    desk.do(Trigger(desk.at, job.key))


def offer(desk: Desk, **cpus: int) -> list[str]:
    """Offer CPUs on agents: one for each shard, and one for the executor. Returns the jobs of the new tasks, sorted."""
    offers = [make_offer(f"o{len(desk.all)}{agent}", agent, number, 64_000) for agent, number in cpus.items()]
    return jobs_of(desk, desk.offer(*offers))


def jobs_of(desk: Desk, effects: list[Any]) -> list[str]:
    return sorted(one.task_id.partition("@-@")[0] for one in desk.launched(effects))


def finish(desk: Desk, job: str) -> None:
    for task_id in desk.running(job):
        desk.status(task_id, "TASK_FINISHED")


def why(desk: Desk, job: str) -> list[tuple[str, str]]:
    return [(one.case, one.text) for one in desk.scheduler.explain(job, desk.at).reasons if one.code == "gang"]


def aged() -> Desk:
    """A desk on which a gang of four has waited for its age. The offers that it found have been declined."""
    desk = desk_of(make_job("first", shard_count=2))
    assert offer(desk, a1=3) == ["first"] * 2
    add(desk, gang())
    assert offer(desk, a2=3) == []
    desk.run_until_idle(AGE)
    return desk


# ------------------------------------------------------------------------------------------------ all or none


def test_all_shards_of_a_run_start_together_or_none_does() -> None:
    desk = desk_of(gang())
    assert offer(desk, a1=4) == []
    text = "all 4 shards start together, and all agents seen so far hold at most 3, even if they were empty"
    assert why(desk, "wide") == [("never", text)]
    assert desk.scheduler.cluster.claim_count() == (0, 0)
    assert offer(desk, a2=2) == ["wide"] * 4
    assert {task.agent_id for task in desk.scheduler.tasks.values()} == {"a1", "a2"}


def test_gang_without_room_takes_none_from_the_shards_behind_it() -> None:
    desk = desk_of(gang(), make_job("narrow", shard_count=2))
    assert offer(desk, a1=4) == ["narrow"] * 2


def test_gang_takes_its_turn_by_priority() -> None:
    desk = desk_of(make_job("narrow", shard_count=4), gang(priority=5))
    assert offer(desk, a1=6) == ["narrow", *["wide"] * 4]


def test_two_gangs_never_share_a_room_that_fits_one() -> None:
    desk = desk_of(gang("one"), gang("two"))
    assert offer(desk, a1=4, a2=4) == ["one"] * 4
    assert why(desk, "two") == [("", "all 4 shards start together, and 2 fit now")]


def test_shard_that_is_repeated_after_the_start_starts_alone() -> None:
    desk = desk_of(gang(failover=True))
    assert offer(desk, a1=5) == ["wide"] * 4
    lost = desk.running("wide")[0]
    desk.status(lost, "TASK_LOST")
    desk.at += 60_000
    assert offer(desk, a1=1, a2=2) == ["wide"]


def test_shards_that_a_trigger_leaves_out_are_not_waited_for() -> None:
    desk = desk_of()
    desk.do(PutJob(desk.at, gang()))

    desk.do(Trigger(desk.at, "wide", Terms(items=(1, 3))))
    assert offer(desk, a1=3) == ["wide"] * 2


def test_listener_is_called_before_the_gang_and_after_it() -> None:
    desk = desk_of(gang(shards=2, firing_listener="shop:Stage"))
    assert offer(desk, a1=2) == ["wide"]
    finish(desk, "wide")
    assert offer(desk, a1=1) == []
    assert offer(desk, a1=2) == ["wide"] * 2
    finish(desk, "wide")
    assert offer(desk, a1=2) == ["wide"]


def test_ad_hoc_run_and_exclusive_shards_start_together() -> None:
    desk = desk_of()
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("wide", shard_count=2, gang_start=True, constraints=("exclusive host",))))
    assert offer(desk, a1=8) == []
    assert len(offer(desk, a2=8)) == 2


def test_limits_of_a_cycle_and_of_a_call_do_not_divide_a_gang() -> None:
    desk = desk_of(gang(), make_job("narrow"), policy=replace(POLICY, cycle_limit=2, accept_tasks=2))
    assert offer(desk, a1=20) == ["wide"] * 4
    assert offer(desk, a1=20) == ["narrow"]


def test_gang_is_put_back_if_the_offers_hold_less_than_the_matcher_had_counted() -> None:
    """The executor on a1 is gone. It would start again with the same shares, which the matcher counts as reserved."""
    desk = desk_of(make_job("first"), gang(shards=5))
    assert offer(desk, a1=2) == ["first"]
    (task,) = desk.scheduler.tasks.values()

    desk.do(ExecutorLost(desk.at, "a1", task.executor_id))
    assert offer(desk, a1=3, a2=3) == []
    (firing,) = desk.firings("wide")
    assert {shard.state for shard in firing.shards} == {ShardState.WAITING}
    desk.at += 5_001
    assert offer(desk, a2=6) == ["wide"] * 5


def test_gang_stays_together_over_a_change_of_leader() -> None:
    desk = desk_of(gang())
    assert offer(desk, a1=3) == []
    desk.restart()
    assert offer(desk, a1=3) == []
    assert offer(desk, a2=3) == ["wide"] * 4
    desk.restart()
    assert len(desk.running("wide")) == 4


def test_dry_run_of_a_cycle_places_no_part_of_a_gang() -> None:
    desk = desk_of(gang())
    offer(desk, a1=3)
    assert [agent for _, _, agent in desk.scheduler.plan(desk.at)] == [None] * 4
    stepped = desk_of(gang(firing_listener="shop:Stage"))
    stepped.do(OffersReceived(stepped.at, (make_offer("o", "a1", 3),)))
    assert [agent for _, _, agent in stepped.scheduler.plan(stepped.at)] == ["a1"], "the call of the listener starts"


# ------------------------------------------------------------------------------------------------ limits


def test_quota_and_pool_have_room_for_all_shards_or_the_gang_waits() -> None:
    desk = desk_of()
    desk.do(PutAccess(desk.at, Team("default", quota=Quota(shards=5))))
    desk.do(PutPool(desk.at, "db", Pool(6)))
    for job in (make_job("first", shard_count=2, pools=("db",)), gang(pools=("db",)), make_job("narrow")):
        add(desk, job)
    assert offer(desk, a1=20) == ["first", "first", "narrow"]
    (reason,) = why(desk, "wide")
    assert reason == (
        "quota",
        "all 4 shards start together and need 4 shards: the quota of team default is 5, used are 3",
    )
    desk.do(PutAccess(desk.at, Team("default", quota=Quota(shards=9))))
    desk.do(PutPool(desk.at, "db", Pool(5)))
    assert offer(desk, a1=20) == []
    (reason,) = why(desk, "wide")
    assert reason == ("slots", "all 4 shards start together and need 4 slots of pool db: it has 5, used are 2")
    finish(desk, "first")
    assert offer(desk, a1=20) == ["wide"] * 4


def test_free_slots_are_kept_for_a_gang() -> None:
    desk = desk_of()
    desk.do(PutPool(desk.at, "db", Pool(4)))
    for job in (make_job("first", pools=("db",)), gang(pools=("db",)), make_job("narrow", pools=("db",))):
        add(desk, job)
    assert offer(desk, a1=20) == ["first"]
    finish(desk, "first")
    assert offer(desk, a1=20) == ["wide"] * 4


def test_quota_without_room_for_the_executors_of_a_gang_keeps_it_waiting() -> None:
    desk = desk_of(gang())
    desk.do(PutAccess(desk.at, Team("default", quota=Quota(cpus=5_000))))
    assert offer(desk, a1=3, a2=3) == []
    assert desk.scheduler.cluster.claim_count() == (0, 0)
    assert offer(desk, a3=8) == []  # a1 and a2 still come first
    desk.do(PutAccess(desk.at, Team("default", quota=Quota(cpus=6_000))))
    assert len(offer(desk, a3=8)) == 4


def test_shards_of_its_team_wait_for_an_aged_gang_that_lacks_quota() -> None:
    desk = desk_of()
    desk.do(PutAccess(desk.at, Team("default", quota=Quota(shards=4))))
    for job in (make_job("first", shard_count=2), gang()):
        add(desk, job)
    assert offer(desk, a1=3) == ["first"] * 2
    assert offer(desk, a2=3) == []
    desk.at += AGE
    add(desk, make_job("narrow"))
    assert offer(desk, a2=3) == []
    assert why(desk, "narrow")[0][0] == "behind"
    finish(desk, "first")
    assert offer(desk, a2=9) == ["wide"] * 4


# ------------------------------------------------------------------------------------------------ ageing


def test_room_is_held_back_for_a_gang_that_has_waited_for_long() -> None:
    desk = aged()
    add(desk, make_job("narrow", shard_count=2))
    assert offer(desk, a3=1) == []
    assert [case for case, _ in why(desk, "wide")] == ["held"]
    assert [case for case, _ in why(desk, "narrow")] == ["behind"]
    assert not of(Decline, desk.run_until_idle(HOLD // 2)), "offers are kept"
    finish(desk, "first")
    assert offer(desk, a1=2, a2=3) == ["wide"] * 4
    assert offer(desk, a4=9) == ["narrow"] * 2


def test_declined_offers_are_asked_for_again_when_room_is_held_back() -> None:
    desk = desk_of(gang())
    offer(desk, a1=3, a2=1)
    desk.at += AGE - 1
    desk.tick()
    assert of(Decline, desk.last)
    desk.at += 1
    assert of(Revive, desk.offer(make_offer("new", "a2", 1, 64_000))) == []
    assert why(desk, "wide")[0][0] == "never"
    desk.at += AGE - 1
    desk.tick()
    assert of(Decline, desk.last)
    desk.at += 1
    assert of(Revive, desk.offer(make_offer("more", "a2", 3, 64_000)))


def test_shards_ahead_of_the_gang_start_while_room_is_held_back() -> None:
    desk = aged()
    assert offer(desk, a2=3) == []
    add(desk, make_job("urgent", priority=9))
    assert jobs_of(desk, desk.run_until_idle()) == ["urgent"]


def test_hold_ends_and_the_others_have_a_turn_of_the_same_length() -> None:
    desk = aged()
    add(desk, make_job("narrow"))
    assert offer(desk, a2=3) == []
    assert jobs_of(desk, desk.run_until_idle(HOLD)) == ["narrow"]
    add(desk, make_job("later"))
    desk.at += HOLD - 1_000
    assert offer(desk, a4=2) == ["later"]
    add(desk, make_job("last"))
    desk.at += 1_000 + AGE
    assert offer(desk, a5=2) == []


def test_hold_keeps_no_agents_that_cannot_take_a_shard_of_the_gang() -> None:
    desk = desk_of(make_job("first", shard_count=2))
    assert offer(desk, a1=3) == ["first"] * 2
    add(desk, gang(resources=Resources(2_000, 128_000), constraints=("host != host-a3",)))
    assert offer(desk, a2=9) == ["wide"] * 4
    add(desk, gang("other", constraints=("host == host-a1",), shards=2))
    offer(desk, a2=1)
    desk.at += AGE
    add(desk, make_job("narrow"))
    assert offer(desk, a1=1, a2=1) == ["narrow"]
    assert desk.running("narrow")[0].split("@-@")[3] == "a2"


def test_gang_that_never_fits_holds_nothing_back() -> None:
    desk = desk_of(gang(shards=9))
    offer(desk, a1=3)
    desk.at += AGE
    add(desk, make_job("narrow"))
    assert offer(desk, a1=3) == ["narrow"]
    assert why(desk, "wide")[0][0] == "never"


def test_cycle_compares_one_gang_with_all_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of(make_job("first", shard_count=4))
    assert offer(desk, a1=5) == ["first"] * 4
    for name, shards in (("huge", 90), ("great", 80), ("wide", 4)):
        add(desk, gang(name, shards))
    assert offer(desk, a2=2) == []
    cluster, compared = desk.scheduler.cluster, list[int]()
    compare = cluster.holds_at_most

    def counted(request: Request, number: int) -> int:
        compared.append(number)
        return compare(request, number)

    monkeypatch.setattr(cluster, "holds_at_most", counted)
    desk.at += AGE
    for _ in range(3):
        assert offer(desk, a2=2) == []
    assert compared == [90, 80, 4]
    assert why(desk, "wide")[0][0] == "held"


@pytest.mark.parametrize("how", ["cancelled", "paused"])
def test_hold_ends_if_the_gang_waits_no_longer(how: str) -> None:
    desk = aged()
    add(desk, make_job("narrow"))
    assert offer(desk, a2=3) == []
    (firing,) = desk.firings("wide")
    desk.do(CancelRun(desk.at, firing.id) if how == "cancelled" else SetPaused(desk.at, True, "wide"))
    assert jobs_of(desk, desk.run_until_idle()) == ["narrow"]


def test_one_gang_at_a_time_has_room_held_back() -> None:
    desk = desk_of(make_job("first", shard_count=4))
    assert offer(desk, a1=5) == ["first"] * 4
    for name in ("one", "two"):
        add(desk, gang(name))
    assert offer(desk, a2=2) == []
    desk.at += AGE
    assert offer(desk, a2=2) == []
    assert [[case for case, _ in why(desk, name)] for name in ("one", "two")] == [["held"], ["", "behind"]]
    finish(desk, "first")
    assert offer(desk, a1=4) == ["one"] * 4


def test_hold_of_a_gang_that_could_not_start_goes_to_another_gang_next() -> None:
    desk = aged()
    add(desk, gang("next"))
    assert offer(desk, a2=3) == []
    assert why(desk, "wide")[0][0] == "held"
    desk.run_until_idle(HOLD)
    desk.at += HOLD
    assert offer(desk, a2=3) == []
    assert [why(desk, name)[0][0] for name in ("wide", "next")] == ["", "held"]


@pytest.mark.parametrize("limit", ["quota", "pool", "executor"])
def test_gang_that_needs_more_than_its_limit_has_keeps_no_shard_of_its_team_back(limit: str) -> None:
    desk = desk_of()
    desk.do(PutPool(desk.at, "db", Pool(4)))
    add(desk, gang(pools=("db",)))
    if limit == "pool":
        desk.do(PutPool(desk.at, "db", Pool(3)))
    else:
        quota = Quota(shards=3) if limit == "quota" else Quota(cpus=4_500)
        desk.do(PutAccess(desk.at, Team("default", quota=quota)))
    assert offer(desk, a1=20) == []
    desk.at += AGE
    add(desk, make_job("narrow", pools=("db",)))
    assert offer(desk, a1=20) == ["narrow"]


# ------------------------------------------------------------------------------------------------ registration


def test_gang_that_can_never_start_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gangStart.*TRANSIENT"):
        make_job(kind=JobKind.DAEMON, gang_start=True)
    desk = desk_of(max_parallel=3)
    desk.do(PutPool(desk.at, "db", Pool(3)))
    with pytest.raises(ConfigError, match="all 2 shards start together and need 4 slots of pool db, which has 3"):
        desk.do(PutJob(desk.at, gang(shards=2, pools=("2 of db",))))
    with pytest.raises(ConfigError, match=r"at most 3 shards at once .maxParallel., not 4"):
        desk.do(PutJob(desk.at, gang()))
    desk.do(PutJob(desk.at, gang(constraints=("at most 2 per host",))))
    desk.do(PutJob(desk.at, gang("one", 1, pools=("db",))))


def test_example_of_the_document_starts_together() -> None:
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
    (example,) = re.findall(r"```json\n(\{[^`]*gangStart[^`]*\})\n```", text)
    given = read_job(json.loads(example), UrlPolicy(hosts=("*",)))
    desk = Desk(make_app("learn"))
    add(desk, given)
    assert offer(desk, a1=8 * 4 - 1) == []
    assert why(desk, given.key)[0][1].startswith("all 8 shards start together")
    assert offer(desk, a2=5) == [given.key] * 8
