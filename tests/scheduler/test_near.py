"""`near JOB`: shards that run next to those of another job."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job
from tests.scheduler.test_spread import ZONES, by_agent, by_zone, hold

from jobcloud.config import Resources
from jobcloud.errors import ConfigError
from jobcloud.messages import PutJob, RemoveJob, RunAdHoc, Trigger
from jobcloud.scheduler import fit, places

LARGE = Resources(5_000, 128_000)


def desk_with(*constraints: str, **job: Any) -> Desk:
    """A job that runs near the job `cache`, which has a shard on a3, in the zone b."""
    desk = Desk(make_app(), make_job("cache", constraints=("host == host-a3",)))
    desk.do(PutJob(desk.at, make_job(constraints=constraints, **{"shard_count": 9, **job})))
    desk.do(Trigger(desk.at, "cache"))
    hold(desk, "a3")
    desk.run_until_idle()
    assert by_agent(desk, "cache") == {"a3": 1}
    return desk


def start(desk: Desk) -> None:
    desk.do(Trigger(desk.at, "report"))
    hold(desk)
    desk.run_until_idle()


def test_shards_start_on_the_agent_of_the_other_job() -> None:
    desk = desk_with("near cache")
    start(desk)
    assert by_agent(desk) == {"a3": 8}, "the executor runs already"


def test_example_of_the_document_runs_near_the_other_job() -> None:
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
    (example,) = re.findall(r"```json\n(\{.*near cache.*\})\n```", text)
    given = json.loads(example)
    desk = desk_with(*given["constraints"], preferences=tuple(given["preferences"]))
    start(desk)
    assert set(by_agent(desk)) == {"a3"}


def test_shards_start_in_the_zone_of_the_other_job() -> None:
    desk = Desk(make_app(), make_job("cache", constraints=("host == host-a1",)))
    desk.do(PutJob(desk.at, make_job(constraints=("near cache per zone",), shard_count=12)))
    desk.do(Trigger(desk.at, "cache"))
    start(desk)
    assert by_zone(desk) == {"a": 12}
    assert set(by_agent(desk)) == {"a1", "a2"}


def test_job_waits_for_the_other_one_and_starts_with_it() -> None:
    desk = Desk(
        make_app(), make_job("cache", constraints=("zone == b",)), make_job(constraints=("near cache",), priority=9)
    )
    start(desk)
    assert by_agent(desk) == {}
    assert desk.scheduler.explain("report", desk.at).reasons[0].text == "5 agents: 5 are excluded by near cache"
    desk.do(Trigger(desk.at, "cache"))
    hold(desk)
    desk.run_until_idle()
    hold(desk, "a3")
    desk.run_until_idle()
    assert (by_agent(desk, "cache"), by_agent(desk)) == ({"a3": 1}, {"a3": 1})


def test_shards_that_run_when_the_rule_comes_count() -> None:
    desk = Desk(make_app(), make_job("cache", constraints=("host == host-a4",)))
    desk.do(Trigger(desk.at, "cache"))
    hold(desk)
    desk.run_until_idle()
    desk.do(PutJob(desk.at, make_job(constraints=("near cache",))))
    start(desk)
    assert by_agent(desk) == {"a4": 1}
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once", constraints=("near cache",))))
    hold(desk)
    desk.run_until_idle()
    assert Counter(task.agent_id for task in desk.scheduler.tasks.values()) == {"a4": 3}


@pytest.mark.parametrize(("rule", "agents"), [("near cache", {"a3"}), ("near cache per zone", {"a1", "a2"})])
def test_new_leader_knows_where_the_other_job_runs(rule: str, agents: set[str]) -> None:
    """With zones, the agent of the other job is full and has no offer."""
    target = "a3" if rule == "near cache" else "a1"
    desk = Desk(make_app(), make_job("cache", constraints=(f"host == host-{target}",)))
    desk.do(PutJob(desk.at, make_job(constraints=(rule,), shard_count=20)))
    desk.do(Trigger(desk.at, "cache"))
    hold(desk, target)
    desk.run_until_idle()
    desk.restart()
    desk.do(Trigger(desk.at, "report"))
    hold(desk, *(("a3", "a4") if target == "a3" else ("a2", "a4")))
    desk.run_until_idle()
    assert set(by_agent(desk)) == agents - ({"a1"} if target == "a1" else set())


def test_end_of_the_other_job_starts_nothing_more_and_ends_nothing() -> None:
    desk = desk_with("near cache", resources=LARGE)
    start(desk)
    assert by_agent(desk) == {"a3": 1}
    (task,) = desk.running("cache")
    for state in ("TASK_RUNNING", "TASK_FINISHED"):
        desk.status(task, state)
    hold(desk)
    desk.run_until_idle()
    assert by_agent(desk) == {"a3": 1}


def test_removed_other_job_leaves_a_reason() -> None:
    desk = desk_with("near cache")
    (task,) = desk.running("cache")
    desk.do(RemoveJob(desk.at, "cache"))
    desk.status(task, "TASK_KILLED")
    desk.tick(desk.policy.sweep_ms + 1)
    start(desk)
    assert by_agent(desk) == {}
    assert "excluded by near cache" in desk.scheduler.explain("report", desk.at).reasons[0].text
    desk.do(PutJob(desk.at, make_job("cache")))
    desk.do(Trigger(desk.at, "cache"))
    hold(desk)
    desk.run_until_idle()
    (agent,) = by_agent(desk, "cache")
    hold(desk, agent)
    desk.run_until_idle()
    assert set(by_agent(desk)) == {agent}


def test_without_the_rule_nothing_is_counted() -> None:
    desk = desk_with("near cache")
    assert set(desk.scheduler._state.near) == {"cache"}
    desk.do(PutJob(desk.at, make_job(shard_count=9), replace=True))
    assert desk.scheduler._state.near == {}
    desk.do(
        PutJob(desk.at, make_job(shard_count=9, preferences=("near cache", "2: near other per zone")), replace=True)
    )
    assert set(desk.scheduler._state.near) == {"cache", "other"}
    desk.do(RemoveJob(desk.at, "report"))
    assert desk.scheduler._state.near == {}


def test_preference_for_the_other_job_is_no_condition() -> None:
    desk = desk_with(preferences=("100: near cache",), resources=LARGE, shard_count=3)
    start(desk)
    assert by_agent(desk)["a3"] == 1
    assert len(by_agent(desk)) == 3


def test_fit_counts_agents_near_the_other_job() -> None:
    desk = desk_with("near cache per zone", "at most 2 per host")
    hold(desk)
    found = fit.answer(desk.scheduler.fit_question("report", 9, desk.at))
    assert {share.agent_id: share.shards for share in found.shares} == {"a3": 2}
    assert "4 are excluded by near cache per zone" in found.reasons[0].text


def test_other_job_belongs_to_the_same_team() -> None:
    apps = make_app(), make_app(team="billing")
    desk = Desk(
        *apps,
        make_job("cache", constraints=("host == host-a3",)),
        make_job("cache", team="billing", constraints=("host == host-a4",)),
    )
    desk.do(PutJob(desk.at, make_job(team="billing", constraints=("near cache",))))
    for job in ("cache", "billing:cache", "billing:report"):
        desk.do(Trigger(desk.at, job))
    for _ in range(2):
        hold(desk, *ZONES)
        desk.run_until_idle()
    assert by_agent(desk, "billing:report") == {"a4": 1}


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ("near report", "names the job itself"),
        ("near", "is not a constraint"),
        ("near billing:cache", "is not a constraint"),
        ("near a b", "is not a constraint"),
    ],
)
def test_invalid_neighbour_is_refused(constraint: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        places.check(make_job(constraints=(constraint,)))
    with pytest.raises(ConfigError, match="counts the shards"):
        places.check(make_app(constraints=("near cache",)))
    places.check(make_job(constraints=("near == x", "near in a, b", "near other", "near third per zone")))
