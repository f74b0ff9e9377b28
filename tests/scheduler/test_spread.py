"""Rules that count the shards of a job by agent, zone or another attribute: at most n, and evenly."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job, make_offer

from jobcloud.config import JobKind, Resources
from jobcloud.errors import ConfigError
from jobcloud.messages import AgentLost, OffersReceived, PutJob, RunAdHoc, Trigger
from jobcloud.model import Offer, changed
from jobcloud.scheduler import fit, places

#: two agents in the zone a, one in each of b and c, and one without a zone
ZONES = {"a1": "a", "a2": "a", "a3": "b", "a4": "c", "a5": ""}


def offer_of(agent: str, zone: str = "", cpus: int = 8) -> Offer:
    return changed(make_offer(f"o-{agent}", agent, cpus=cpus), attributes=(("zone", zone),) if zone else ())


def hold(desk: Desk, *agents: str, cpus: int = 8) -> None:
    offers = tuple(offer_of(agent, ZONES[agent], cpus) for agent in agents or ZONES)
    desk.do(OffersReceived(desk.at, offers))


def triggered(*constraints: str, shards: int = 20, **job: Any) -> Desk:
    desk = Desk(make_app(), make_job(constraints=constraints, shard_count=shards, **job))
    desk.do(Trigger(desk.at, "report"))
    return desk


def by_agent(desk: Desk, job: str = "report") -> Counter[str]:
    return Counter(task.agent_id for task in desk.scheduler.tasks.values() if task.job == job)


def by_zone(desk: Desk, job: str = "report") -> Counter[str]:
    return Counter(ZONES[task.agent_id] for task in desk.scheduler.tasks.values() if task.job == job)


# ------------------------------------------------------------------------------------------------------ where it runs


def test_at_most_one_shard_starts_on_each_agent() -> None:
    desk = triggered("at most 1 per host")
    hold(desk)
    desk.run_until_idle()
    assert by_agent(desk) == dict.fromkeys(ZONES, 1)


def test_at_most_two_shards_start_in_each_zone_and_none_without_a_zone() -> None:
    desk = triggered("at most 2 per zone")
    hold(desk)
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 2, "b": 2, "c": 2}


def test_rules_hold_together() -> None:
    desk = triggered("at most 1 per host", "at most 1 per zone", "zone != c")
    hold(desk)
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 1, "b": 1}


def test_shards_are_divided_evenly_over_zones() -> None:
    desk = triggered("evenly over zone", shards=7)
    hold(desk)
    desk.run_until_idle()
    assert sorted(by_zone(desk).values()) == [2, 2, 3]
    assert "" not in by_zone(desk)


def test_zone_without_room_stops_the_others_when_shards_must_be_even() -> None:
    desk = triggered("evenly over zone", shards=7)
    hold(desk, "a1", "a3")
    desk.do(OffersReceived(desk.at, (offer_of("a4", "c", cpus=2),)))
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 2, "b": 2, "c": 1}


def test_lost_agent_does_not_count_as_a_zone_with_few_shards() -> None:
    desk = triggered("evenly over zone", shards=6)
    desk.do(OffersReceived(desk.at, (offer_of("a4", "c", cpus=1),)))
    desk.run_until_idle()
    desk.do(AgentLost(desk.at, "a4"))
    hold(desk, "a1", "a3")
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 3, "b": 3}


def test_shards_are_even_as_far_as_possible_when_it_is_a_preference() -> None:
    desk = triggered(shards=7, preferences=("20: evenly over zone",))
    hold(desk, "a1", "a3")
    desk.do(OffersReceived(desk.at, (offer_of("a4", "c", cpus=2),)))
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 3, "b": 3, "c": 1}


def test_other_jobs_do_not_count() -> None:
    desk = triggered("at most 1 per host", shards=5)
    desk.do(PutJob(desk.at, make_job("other", constraints=("at most 1 per host",), shard_count=5)))
    desk.do(Trigger(desk.at, "other"))
    hold(desk)
    desk.run_until_idle()
    assert by_agent(desk) == by_agent(desk, "other") == dict.fromkeys(ZONES, 1)


def test_end_of_a_shard_makes_room_for_the_next() -> None:
    desk = triggered("at most 1 per host", shards=6)
    hold(desk)
    desk.run_until_idle()
    first = desk.running()[0]
    agent = desk.scheduler.tasks[first].agent_id
    for state in ("TASK_RUNNING", "TASK_FINISHED"):
        desk.status(first, state)
    hold(desk)
    desk.run_until_idle()
    assert by_agent(desk) == dict.fromkeys(ZONES, 1)
    assert first not in desk.running()
    assert agent in by_agent(desk)


def test_instances_of_a_resident_job_keep_apart() -> None:
    desk = Desk(
        make_app(),
        make_job(kind=JobKind.DAEMON, cron="0 * * * * ?", shard_count=3, constraints=("at most 1 per zone",)),
    )
    hold(desk)
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 1, "b": 1, "c": 1}


def test_ad_hoc_run_obeys_rules() -> None:
    desk = Desk(make_app())
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job(shard_count=9, constraints=("at most 1 per host",))))
    hold(desk)
    desk.run_until_idle()
    assert Counter(task.agent_id for task in desk.scheduler.tasks.values()) == dict.fromkeys(ZONES, 1)


# ------------------------------------------------------------------------------------------------ changes and leaders


@pytest.mark.parametrize("rule", ["at most 1 per zone", "at most 1 per host"])
def test_new_leader_counts_shards_that_run_already(rule: str) -> None:
    """The agents of running shards have no offer yet: their records tell in which zones they are."""
    desk = triggered(rule, shards=9)
    hold(desk, "a1", "a3")
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 1, "b": 1}
    desk.restart()
    hold(desk, "a2", "a4")
    desk.run_until_idle()
    assert by_zone(desk) == ({"a": 1, "b": 1, "c": 1} if "zone" in rule else {"a": 2, "b": 1, "c": 1})
    hold(desk, "a1", "a3", "a2")
    desk.run_until_idle()
    assert by_zone(desk) == ({"a": 1, "b": 1, "c": 1} if "zone" in rule else {"a": 2, "b": 1, "c": 1})


def test_records_of_tasks_have_only_the_attributes_that_count() -> None:
    desk = triggered("at most 1 per zone", "at most 1 per host", shards=1)
    desk.do(PutJob(desk.at, make_job("plain", constraints=("zone == a",))))
    desk.do(Trigger(desk.at, "plain"))
    hold(desk, "a1")
    desk.run_until_idle()
    assert {task.job: task.attributes for task in desk.stored.tasks.values()} == {
        "report": (("zone", "a"),),
        "plain": (),
    }


def test_running_shards_count_from_the_update_that_adds_a_rule() -> None:
    desk = triggered(shards=3, resources=Resources(5_000, 128_000))
    hold(desk, "a1", "a3")
    desk.run_until_idle()
    assert by_agent(desk) == {"a1": 1, "a3": 1}
    new = make_job(shard_count=3, resources=Resources(5_000, 128_000), constraints=("at most 1 per host",))
    desk.do(PutJob(desk.at, new, replace=True))
    hold(desk, "a1", "a3")
    desk.run_until_idle()
    assert by_agent(desk) == {"a1": 1, "a3": 1}
    hold(desk, "a4")
    desk.run_until_idle()
    assert by_agent(desk) == {"a1": 1, "a3": 1, "a4": 1}


def test_reconfigured_agent_takes_its_shards_to_another_zone() -> None:
    desk = triggered("at most 1 per zone", shards=9)
    hold(desk, "a1")
    desk.run_until_idle()
    desk.do(OffersReceived(desk.at, (offer_of("a1", "b"), offer_of("a2", "a"), offer_of("a3", "b"))))
    desk.run_until_idle()
    assert by_agent(desk) == {"a1": 1, "a2": 1}


def test_rules_are_kept_over_the_sweep_and_released_with_their_job() -> None:
    desk = triggered("at most 1 per zone", shards=9)
    hold(desk)
    desk.run_until_idle()
    desk.tick(desk.policy.sweep_ms + 1)
    hold(desk)
    desk.run_until_idle()
    assert by_zone(desk) == {"a": 1, "b": 1, "c": 1}
    cluster = desk.scheduler.cluster
    assert (len(cluster._groups), list(cluster._counting)) == (1, ["zone"])
    desk.do(PutJob(desk.at, make_job(shard_count=9), replace=True))
    desk.tick(desk.policy.sweep_ms + 1)
    assert (cluster._groups, cluster._counting) == ({}, {})


# ----------------------------------------------------------------------------------------------- explanations and fit


def test_explanation_counts_the_agents_that_have_enough_shards() -> None:
    desk = triggered("zone != c", "at most 1 per host")
    hold(desk)
    desk.run_until_idle()
    hold(desk)
    desk.run_until_idle()
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    assert reason.text == "5 agents: 1 fail zone != c, 4 are excluded by at most 1 per host"
    assert reason.waiting_helps, "shards that end make room"


def test_fit_counts_by_the_rules() -> None:
    desk = Desk(make_app(), make_job(constraints=("at most 2 per zone", "at most 1 per host")))
    hold(desk)
    found = fit.answer(desk.scheduler.fit_question("report", 20, desk.at))
    assert {share.agent_id: share.shards for share in found.shares} == {"a1": 1, "a2": 1, "a3": 1, "a4": 1}
    text = "5 agents: 3 are excluded by at most 2 per zone, 4 are excluded by at most 1 per host"
    assert (found.reasons[0].code, found.fits) == ("constraints", 4)
    assert found.reasons[0].text == text


@pytest.mark.parametrize("seed", range(40))
def test_fit_equals_the_number_that_starts(seed: int) -> None:
    dice = random.Random(f"spread {seed}")
    rules = dice.sample(["at most 1 per host", "at most 3 per zone", "evenly over zone", "at most 2 per host"], k=1)
    desk = Desk(make_app(), make_job(constraints=tuple(rules), shard_count=dice.choice((3, 12))))
    desk.do(Trigger(desk.at, "report"))
    for _ in range(3):
        cpus = dice.choice((2, 4, 8))
        desk.do(OffersReceived(desk.at, tuple(offer_of(agent, zone, cpus) for agent, zone in ZONES.items())))
        waiting = sum(
            len(desk.scheduler.queue.startable(firing.id)) for firing in desk.firings() if not firing.ended_ms
        )
        if not waiting:
            return
        before = len(desk.running())
        found = fit.answer(desk.scheduler.fit_question("report", waiting, desk.at))
        desk.run_until_idle()
        assert found.fits == len(desk.running()) - before
        for task in desk.running():
            if dice.random() < 0.7:
                for state in ("TASK_RUNNING", "TASK_FINISHED"):
                    desk.status(task, state)


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("constraints", "preferences", "says"),
    [
        (["at most 0 per host"], [], "no valid number"),
        (["at most 10001 per host"], [], "no valid number"),
        (["at most one per host"], [], "is not a constraint"),
        (["at most 1 per host", "at most 2 per host"], [], "is the second one for host"),
        (["evenly over zone", "zone == a"], [], "has no meaning with zone == a"),
        ([f"at most 1 per x{n}" for n in range(17)], [], "17 rules"),
        ([], ["0: evenly over zone"], "no weight"),
    ],
)
def test_rules_without_a_meaning_are_refused(constraints: list[str], preferences: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        places.check(make_job(constraints=tuple(constraints), preferences=tuple(preferences)))


def test_example_of_the_document_keeps_shards_apart() -> None:
    text = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
    (example,) = re.findall(r"```json\n(\{.*at most 2 per zone.*\})\n```", text)
    desk = triggered(*json.loads(example)["constraints"])
    hold(desk)
    desk.run_until_idle()
    assert by_agent(desk) == {"a1": 1, "a2": 1, "a3": 1, "a4": 1}


def test_rule_of_an_app_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1 per host counts the shards of one job"):
        places.check(make_app(constraints=("at most 1 per host",)))


def test_rules_of_all_jobs_name_a_bounded_number_of_attributes() -> None:
    desk = Desk(make_app())
    for number in range(8):
        rules = tuple(f"at most 1 per x{number * 8 + n}" for n in range(8))
        desk.do(PutJob(desk.at, make_job(f"j{number}", constraints=rules)))
    desk.do(PutJob(desk.at, make_job("same", constraints=("at most 2 per x7",))))
    with pytest.raises(ConfigError, match="by 65 attributes"):
        desk.do(PutJob(desk.at, make_job("more", constraints=("at most 1 per zone",))))
    with pytest.raises(ConfigError, match="by 65 attributes"):
        desk.do(RunAdHoc(desk.at, make_ad_hoc_job(constraints=("at most 1 per zone",))))
