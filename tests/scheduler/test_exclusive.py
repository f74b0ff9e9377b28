"""`exclusive host`: shards that have an agent to themselves."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job
from tests.scheduler.test_spread import ZONES, by_agent, hold

from jobcloud.config import Concurrency, JobKind, Resources
from jobcloud.errors import ConfigError
from jobcloud.messages import Apply, DrainAgent, Kind, PutApp, PutJob, RemoveJob, RunAdHoc, Trigger
from jobcloud.scheduler import fit, places
from jobcloud.server import records

RULE = "exclusive host"
LARGE = Resources(5_000, 128_000)


def desk_with(*constraints: str, shards: int = 2, **job: Any) -> Desk:
    """The exclusive job `night`, and the ordinary job `report` of the same app."""
    night = make_job("night", constraints=(RULE, *constraints), shard_count=shards, **job)
    return Desk(make_app(), make_job(shard_count=12), night)


def start(desk: Desk, *jobs: str, agents: tuple[str, ...] = ()) -> None:
    for job in jobs:
        desk.do(Trigger(desk.at, job))
    hold(desk, *agents)
    desk.run_until_idle()


def end(desk: Desk, job: str) -> None:
    for task in [task for task in desk.scheduler.tasks.values() if task.job == job]:
        for state in ("TASK_RUNNING", "TASK_FINISHED"):
            desk.status(task.id, state)


def check(desk: Desk) -> None:
    """No other shard runs on the agent of an exclusive shard."""
    on: dict[str, list[Any]] = defaultdict(list)
    for task in desk.scheduler.tasks.values():
        if not task.placeholder:
            on[task.agent_id].append(task)
    assert all(len(tasks) == 1 for tasks in on.values() if any(task.exclusive for task in tasks)), on


# ------------------------------------------------------------------------------------------------------ where it runs


def test_each_shard_has_an_agent_to_itself_within_one_cycle() -> None:
    """Both jobs wait when the offers come, and the exclusive one is first."""
    desk = Desk(make_app(), make_job(shard_count=12), make_job("night", constraints=(RULE,), shard_count=2, priority=9))
    start(desk, "report", "night")
    check(desk)
    assert len(by_agent(desk, "night")) == 2
    assert not by_agent(desk, "night").keys() & by_agent(desk).keys()
    assert sum(by_agent(desk).values()) == 12, "the other agents have room"


def test_exclusive_job_gets_only_agents_that_others_leave_in_the_same_cycle() -> None:
    desk = Desk(make_app(), make_job(shard_count=4, constraints=("at most 1 per host",), priority=9),
                make_job("night", constraints=(RULE,), shard_count=2))  # fmt: skip
    start(desk, "report", "night")
    check(desk)
    assert (len(by_agent(desk)), len(by_agent(desk, "night"))) == (4, 1)


def test_two_exclusive_jobs_do_not_share_an_agent() -> None:
    desk = desk_with(shards=3)
    desk.do(PutJob(desk.at, make_job("other", constraints=(RULE,), shard_count=3)))
    start(desk, "night", "other")
    check(desk)
    assert sum(by_agent(desk, "night").values()) + sum(by_agent(desk, "other").values()) == len(ZONES)


def test_exclusive_shard_waits_for_an_empty_agent_and_gets_it_when_the_last_shard_ends() -> None:
    desk = desk_with("host == host-a1")
    start(desk, "report", agents=("a1",))
    assert by_agent(desk) == {"a1": 7}
    start(desk, "night", agents=("a1",))
    assert by_agent(desk, "night") == {}
    desk.do(RemoveJob(desk.at, "report"))
    for task in desk.scheduler.tasks.values():
        assert task.kill_ms
    end(desk, "report")
    hold(desk, "a1")
    desk.run_until_idle()
    check(desk)
    assert by_agent(desk, "night") == {"a1": 1}, "the second shard waits, also for its own job"


def test_others_get_the_agent_after_the_end_of_the_exclusive_shard() -> None:
    desk = desk_with(shards=5)
    start(desk, "night")
    start(desk, "report")
    assert by_agent(desk) == {}
    end(desk, "night")
    hold(desk)
    desk.run_until_idle()
    assert sum(by_agent(desk).values()) == 12


def test_offer_that_is_held_when_the_exclusive_shard_ends_is_used() -> None:
    desk = desk_with("host == host-a1", shards=1)
    start(desk, "night", agents=("a1",))
    desk.do(Trigger(desk.at, "report"))
    hold(desk, "a1", cpus=6)  # Mesos offers the rest while the shard runs
    desk.run_until_idle()
    assert by_agent(desk) == {}
    end(desk, "night")
    desk.run_until_idle()
    assert by_agent(desk).keys() == {"a1"}


def test_warm_executors_may_stay_and_start_beside_exclusive_shards() -> None:
    desk = Desk(make_app(executors=5), make_job("night", constraints=(RULE,), shard_count=5))
    hold(desk)
    desk.run_until_idle()
    start(desk, "night")
    assert len(by_agent(desk, "night")) == 5
    desk.do(PutApp(desk.at, make_app("other", executors=5)))
    hold(desk)
    desk.run_until_idle()
    warm = [task for task in desk.scheduler.tasks.values() if task.placeholder and task.app == "other"]
    assert len(warm) == 5
    check(desk)


def test_resident_shards_count_and_may_be_exclusive() -> None:
    resident = make_job("night", kind=JobKind.DAEMON, constraints=(RULE,), shard_count=2)
    desk = Desk(make_app(), make_job(shard_count=40), resident)
    start(desk)
    assert len(by_agent(desk, "night")) == 2
    start(desk, "report")
    check(desk)
    assert len(by_agent(desk)) == 3


def test_drained_agent_gets_no_exclusive_shard() -> None:
    desk = desk_with(shards=5)
    hold(desk)
    desk.do(DrainAgent(desk.at, "a1"))
    start(desk, "night")
    assert set(by_agent(desk, "night")) == ZONES.keys() - {"a1"}


def test_change_of_the_job_holds_for_later_shards() -> None:
    desk = desk_with("host == host-a1", shards=1)
    start(desk, "night", agents=("a1",))
    desk.do(PutJob(desk.at, make_job("night", concurrency=Concurrency.ALLOW), replace=True))
    start(desk, "report", "night")
    check(desk)
    assert "a1" not in by_agent(desk)


@pytest.mark.parametrize("same_epoch", [False, True])
def test_new_leader_keeps_others_away_from_exclusive_shards(same_epoch: bool) -> None:
    """The job has lost its rule in the meantime, so that only the record of the task knows it."""
    desk = desk_with("host == host-a1", shards=1)
    start(desk, "night", agents=("a1",))
    desk.do(PutJob(desk.at, make_job("night"), replace=True))
    desk.restart(same_epoch)
    start(desk, "report")
    check(desk)
    assert by_agent(desk)
    assert "a1" not in by_agent(desk)


def test_new_leader_starts_no_exclusive_shard_beside_others() -> None:
    desk = desk_with("host in host-a1, host-a2")
    start(desk, "report", agents=("a1",))
    desk.restart()
    start(desk, "night", agents=("a1", "a2"))
    check(desk)
    assert by_agent(desk, "night") == {"a2": 1}


def test_record_of_another_shard_has_the_form_of_older_builds() -> None:
    desk = desk_with("host == host-a1", shards=1)
    start(desk, "night", "report")
    forms = {task.job: records.encode(Kind.TASK, task) for task in desk.scheduler.tasks.values()}
    assert b'"exclusive":true' in forms["night"]
    assert b"exclusive" not in forms["report"]


def test_agents_that_no_offer_has_shown_are_not_counted_in_the_reason() -> None:
    desk = desk_with("host in host-a1, host-a2", shards=1)
    start(desk, "report", agents=("a1", "a2"))
    desk.restart()
    start(desk, "night", agents=("a1",))
    assert desk.scheduler.explain("night", desk.at).reasons[0].text == "1 agents: 1 are excluded by exclusive host"


def test_lost_record_of_a_task_is_made_again_as_exclusive() -> None:
    desk = desk_with("host == host-a1", shards=1)
    start(desk, "night", agents=("a1",))
    desk.stored.tasks.clear()
    desk.restart()
    start(desk, "report")
    check(desk)
    assert "a1" not in by_agent(desk)


def test_ad_hoc_run_may_be_exclusive() -> None:
    desk = desk_with()
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once", constraints=(RULE,))))
    start(desk, "report")
    check(desk)
    assert sum(task.exclusive for task in desk.scheduler.tasks.values()) == 1


def test_example_of_the_document_starts_alone() -> None:
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
    (example,) = re.findall(r"```json\n(\{.*exclusive host.*\})\n```", text)
    desk = Desk(make_app(), make_job(shard_count=12), make_job("night", **_constraints(json.loads(example))))
    start(desk, "report", "night")
    check(desk)


def _constraints(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) for name, value in given.items()}


@pytest.mark.parametrize("seed", range(8))
def test_dry_run_and_cycle_agree_and_nothing_is_shared(seed: int) -> None:
    dice = random.Random(seed)
    jobs = [
        make_job(f"j{n}", shard_count=dice.randint(1, 4), priority=dice.randint(0, 3),
                 constraints=(RULE,) if dice.random() < 0.5 else ())
        for n in range(5)
    ]  # fmt: skip
    desk = Desk(make_app(), *jobs)
    for _ in range(12):
        for job in dice.sample(jobs, 2):
            desk.do(Trigger(desk.at, job.name))
        hold(desk, *dice.sample(sorted(ZONES), 3), cpus=dice.randint(1, 4))
        planned = {(firing, item): agent for firing, item, agent in desk.scheduler.plan(desk.at) if agent}
        before = set(desk.scheduler.tasks)
        desk.run_until_idle()
        started = {
            (task.firing_id, task.item): task.agent_id
            for task in desk.scheduler.tasks.values() if task.id not in before
        }  # fmt: skip
        assert started == planned
        check(desk)
        desk.scheduler.validate()
        for task in list(desk.scheduler.tasks.values()):
            if dice.random() < 0.4:
                for state in ("TASK_RUNNING", "TASK_FINISHED"):
                    desk.status(task.id, state)


# ------------------------------------------------------------------------------------------------------------- reasons


def test_exclusive_job_tells_how_many_agents_have_shards() -> None:
    desk = desk_with("zone == a")
    start(desk, "report", agents=("a1", "a2"))
    start(desk, "night", agents=("a1", "a2"))
    hold(desk)
    desk.run_until_idle()
    assert set(by_agent(desk)) == {"a1", "a2"}
    reason = desk.scheduler.explain("night", desk.at).reasons[0]
    assert (reason.code, reason.text) == ("constraints", "5 agents: 3 fail zone == a, 2 are excluded by exclusive host")
    assert reason.waiting_helps


def test_other_jobs_tell_how_many_agents_are_taken() -> None:
    desk = desk_with(shards=5)
    start(desk, "night")
    start(desk, "report")
    hold(desk)
    desk.run_until_idle()
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    assert (reason.code, reason.parameters) == ("exclusive", {"agents": 5})
    assert reason.text == "5 agents run shards of jobs with `exclusive host` and take no others"
    assert reason.waiting_helps


def test_fit_counts_empty_agents_once() -> None:
    desk = desk_with(shards=4)
    start(desk, "report", agents=("a1", "a2"))
    hold(desk)
    found = fit.answer(desk.scheduler.fit_question("night", 4, desk.at))
    assert found.fits == 3
    assert [share.shards for share in found.shares] == [1, 1, 1]
    assert found.reasons[0].text == "5 agents: 5 are excluded by exclusive host"


def test_fit_of_another_job_leaves_out_taken_agents() -> None:
    desk = desk_with(shards=4)
    start(desk, "night")
    hold(desk)
    found = fit.answer(desk.scheduler.fit_question("report", 12, desk.at))
    assert [share.agent_id for share in found.shares] == sorted(ZONES.keys() - by_agent(desk, "night").keys())
    assert found.reasons[-1].code == "exclusive"


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("constraints", "preferences", "says"),
    [
        ([RULE, "at most 2 per host"], [], "at most 2 per host has no meaning with exclusive host"),
        ([RULE, "near cache"], [], "near cache has no meaning with exclusive host"),
        ([RULE], ["near cache"], "near cache has no meaning with exclusive host"),
        ([], ["3: exclusive host"], "exclusive host is no preference"),
    ],
)
def test_combinations_without_a_meaning_are_refused(constraints: list[str], preferences: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        places.check(make_job(constraints=tuple(constraints), preferences=tuple(preferences)))


def test_rule_of_an_app_is_refused() -> None:
    with pytest.raises(ConfigError, match="exclusive host counts the shards of one job"):
        places.check(make_app(constraints=(RULE,)))


def test_job_near_an_exclusive_one_is_refused_and_the_other_way_round() -> None:
    desk = desk_with()
    says = "near night of job report finds no agent, because night has exclusive host"
    near = make_job(constraints=("near night",))
    for command in (PutJob(desk.at, near, replace=True), Apply(desk.at, (), (near,))):
        with pytest.raises(ConfigError, match=says):
            desk.do(command)
    desk.do(PutJob(desk.at, make_job(constraints=("near night per zone",), preferences=("near night",)), replace=True))
    desk.do(PutJob(desk.at, make_job("night"), replace=True))
    desk.do(PutJob(desk.at, near, replace=True))
    with pytest.raises(ConfigError, match=says):
        desk.do(PutJob(desk.at, make_job("night", constraints=(RULE,)), replace=True))
    desk.do(Apply(desk.at, (), (make_job(), make_job("night", constraints=(RULE,)))))
