"""Constraints: the agents on which the shards of a job start, and the explanation of what excludes the others."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import MAX_CONSTRAINT_BYTES, MAX_CONSTRAINTS, JobKind, Resources
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import parse
from jobcloud.messages import AgentLost, OffersReceived, Publish, PutApp, PutJob, Topic, Trigger
from jobcloud.model import Offer, TaskState, changed
from jobcloud.scheduler import fit, places
from jobcloud.scheduler.masks import Masks
from jobcloud.scheduler.places import Where

DOC = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()


def offer_of(agent: str, cpus: int = 8, mem: int = 8_192, **attributes: str) -> Offer:
    offer = make_offer(f"o-{agent}", agent, cpus=cpus, mem=mem)
    return changed(offer, attributes=tuple(attributes.items()))


def zones(desk: Desk, *names: str) -> None:
    """Hold one offer in each of these zones, of the agents a1, a2, …"""
    offers = tuple(offer_of(f"a{number}", zone=name) for number, name in enumerate(names, 1))
    desk.do(OffersReceived(desk.at, offers))


def triggered(*constraints: str, app: tuple[str, ...] = (), **job: Any) -> Desk:
    desk = Desk(make_app(constraints=app), make_job(constraints=constraints, **job))
    desk.do(Trigger(desk.at, "report"))
    return desk


def agents_of(desk: Desk, job: str = "report") -> list[str]:
    return sorted(task.agent_id for task in desk.scheduler.tasks.values() if task.job == job)


def first_reason(desk: Desk, job: str = "report") -> str:
    return desk.scheduler.explain(job, desk.at).reasons[0].text


# ------------------------------------------------------------------------------------------------------ where it runs


@pytest.mark.parametrize(
    ("constraints", "agents"),
    [
        (["zone == b"], {"a2"}),
        (["zone != b"], {"a1", "a3", "a4"}),
        (["zone in a, c"], {"a1", "a3"}),
        (["zone not in a, c"], {"a2", "a4"}),
        (["host == host-a3"], {"a3"}),
        (["host !~ host-a[12]"], {"a3", "a4"}),
        (["cores >= 16"], {"a1", "a3"}),
        (["cores < 16"], {"a2"}),
        (["zone != b", "cores >= 16", "host ~ *3"], {"a3"}),
    ],
)
def test_shards_start_only_on_agents_that_meet_all_constraints(constraints: list[str], agents: set[str]) -> None:
    desk = triggered(*constraints, shard_count=28)
    rows = (("a1", "a", "16"), ("a2", "b", "8"), ("a3", "c", "16.50"))
    known = [offer_of(agent, zone=zone, cores=cores) for agent, zone, cores in rows]
    desk.offer(*known, offer_of("a4"))
    assert set(agents_of(desk)) == agents
    assert len(agents_of(desk)) == 7 * len(agents)


def test_constraints_of_an_app_hold_for_all_of_its_jobs() -> None:
    desk = Desk(
        make_app(constraints=("zone == a",)),
        make_job(shard_count=10),
        make_job("other", constraints=("host != host-a1",)),
    )
    for job in ("report", "other"):
        desk.do(Trigger(desk.at, job))
    zones(desk, "a", "b", "a")
    desk.run_until_idle()
    assert set(agents_of(desk)) == {"a1", "a3"}
    assert agents_of(desk, "other") == ["a3"]


def test_job_without_a_suitable_agent_waits_and_delays_no_other() -> None:
    desk = triggered("zone == z", priority=9)
    desk.do(PutJob(desk.at, make_job("plain")))
    desk.do(Trigger(desk.at, "plain"))
    zones(desk, "a")
    desk.run_until_idle()
    assert (agents_of(desk), agents_of(desk, "plain")) == ([], ["a1"])
    zones(desk, "a", "z")
    desk.run_until_idle()
    assert agents_of(desk) == ["a2"]


def test_agent_that_comes_later_is_used() -> None:
    desk = triggered("zone == b")
    desk.offer(offer_of("a1", zone="a"))
    assert agents_of(desk) == []
    desk.offer(offer_of("a2", zone="b"))
    assert agents_of(desk) == ["a2"]


def test_changed_attributes_of_an_agent_are_followed() -> None:
    desk = triggered("zone == b", shard_count=2, resources=Resources(5_000, 128_000))
    desk.offer(offer_of("a1", zone="a"))
    assert agents_of(desk) == []
    desk.offer(offer_of("a1", zone="b"))
    assert agents_of(desk) == ["a1"]
    desk.offer(offer_of("a1", zone="a"))
    assert agents_of(desk) == ["a1"], "a running shard stays, and no further one starts"


def test_changed_host_name_of_an_agent_is_followed() -> None:
    desk = triggered("host == new")
    desk.offer(offer_of("a1"))
    assert agents_of(desk) == []
    desk.offer(changed(offer_of("a1"), hostname="new"))
    assert agents_of(desk) == ["a1"]


def test_slot_of_a_forgotten_agent_does_not_pass_its_attributes_on() -> None:
    desk = triggered("zone != b", shard_count=2)
    desk.offer(offer_of("a1", zone="b"))
    desk.do(AgentLost(desk.at, "a1"))
    desk.tick(desk.policy.sweep_ms + 1)
    assert "a1" not in desk.scheduler.cluster.agents
    desk.offer(offer_of("a2", zone="a"))
    assert agents_of(desk) == ["a2", "a2"]


def test_shard_that_avoids_an_agent_keeps_its_constraints() -> None:
    desk = triggered("zone == a", failover=True)
    zones(desk, "a", "b")
    desk.run_until_idle()
    (task,) = desk.running()
    desk.status(task, "TASK_LOST", reason="REASON_AGENT_REMOVED")
    desk.at += 2_000
    desk.offer(*(offer_of(f"a{number}", zone=zone) for number, zone in enumerate("abb", 1)))
    assert agents_of(desk) == [], "a1 is avoided, and the others fail the constraint"
    desk.at += 120_000
    desk.offer(*(offer_of(f"a{number}", zone=zone) for number, zone in enumerate("abb", 1)))
    assert agents_of(desk) == ["a1"]


def test_new_leader_keeps_constraints() -> None:
    desk = triggered("zone == b")
    desk.restart()
    zones(desk, "a", "b")
    desk.run_until_idle()
    assert agents_of(desk) == ["a2"]


def test_dry_run_follows_constraints() -> None:
    desk = triggered("zone == b", shard_count=2)
    zones(desk, "a", "b")
    assert {agent for _, _, agent in desk.scheduler.plan(desk.at)} == {"a2"}


# ------------------------------------------------------------------------------------------------------- preferences


@pytest.mark.parametrize(
    ("preferences", "agents"),
    [
        (["zone == c"], ["a3"]),
        (["zone == b", "2: zone == c"], ["a3"]),
        (["zone == b", "zone == c", "host == host-a3"], ["a3"]),
        (["3: zone == b", "zone == c", "host == host-a3"], ["a2"]),
        (["100: zone == nowhere", "1: host ~ *a2"], ["a2"]),
    ],
)
def test_shard_starts_on_the_agent_that_fails_the_least_weight(preferences: list[str], agents: list[str]) -> None:
    desk = triggered(preferences=tuple(preferences))
    zones(desk, "a", "b", "c")
    desk.run_until_idle()
    assert agents_of(desk) == agents


def test_preferred_agent_without_room_leaves_the_others() -> None:
    desk = triggered("zone != c", preferences=("100: zone == b",), shard_count=20)
    zones(desk, "a", "b", "c")
    desk.run_until_idle()
    assert agents_of(desk) == ["a1"] * 7 + ["a2"] * 7


def test_preferences_follow_new_and_changed_agents() -> None:
    desk = triggered(preferences=("100: zone == b",), shard_count=2, resources=Resources(5_000, 128_000))
    desk.offer(offer_of("a1", zone="a"))
    assert agents_of(desk) == ["a1"]
    desk.offer(offer_of("a1", zone="a"), offer_of("a2", zone="b"))
    assert agents_of(desk) == ["a1", "a2"]
    desk = triggered(preferences=("100: zone == b",))
    desk.do(PutJob(desk.at, make_job("other", preferences=("100: zone == b",), constraints=("zone == z",))))
    desk.do(Trigger(desk.at, "other"))
    desk.do(OffersReceived(desk.at, (offer_of("a1", zone="b"), offer_of("a2", zone="c"))))
    desk.do(OffersReceived(desk.at, (offer_of("a1", zone="c"), offer_of("a2", zone="b"))))
    desk.run_until_idle()
    assert agents_of(desk) == ["a2"]


def test_change_of_preferences_replaces_no_resident_shard() -> None:
    about: dict[str, Any] = {"kind": JobKind.DAEMON, "cron": "0 * * * * ?"}
    desk = Desk(make_app(), make_job(**about))
    zones(desk, "a")
    desk.run_until_idle()
    (task,) = desk.running()
    desk.status(task, "TASK_RUNNING")
    desk.do(PutJob(desk.at, make_job(**about, preferences=("zone == b",)), replace=True))
    assert not desk.scheduler.tasks[task].kill_ms


@pytest.mark.parametrize("text", ["0: zone == a", "101: zone == a", "1000000: zone == a", "1:", "1: zone", "x: y"])
def test_invalid_preference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as found:
        places.check(make_job(preferences=(text,)))
    assert found.value.field == "preferences"
    places.check(make_job(preferences=("100: zone == a", " 7 :zone ~ a:b", "time == 10:30")))


def test_largest_penalties_are_accepted() -> None:
    desk = triggered(preferences=tuple(f"100: zone == {n}" for n in range(MAX_CONSTRAINTS)))
    zones(desk, "z")
    desk.run_until_idle()
    assert agents_of(desk) == ["a1"]


# ----------------------------------------------------------------------------------------------------------- changes


def test_running_shards_stay_and_later_ones_use_the_new_constraints() -> None:
    desk = triggered("zone == a", shard_count=2, resources=Resources(5_000, 128_000))
    zones(desk, "a", "b")
    desk.run_until_idle()
    assert agents_of(desk) == ["a1"]
    job = desk.scheduler.jobs["report"]
    new = make_job(constraints=("zone == b",), shard_count=2, resources=job.resources)
    zones(desk, "a", "b")
    desk.do(PutJob(desk.at, new, replace=True))
    desk.run_until_idle()
    assert agents_of(desk) == ["a1", "a2"]
    assert {task.kill_ms for task in desk.scheduler.tasks.values()} == {0}


@pytest.mark.parametrize("of_app", [False, True])
def test_resident_shards_are_replaced_when_constraints_change(of_app: bool) -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, cron="0 * * * * ?"))
    zones(desk, "a", "b")
    desk.run_until_idle()
    (task,) = desk.running()
    desk.status(task, "TASK_RUNNING")
    before = agents_of(desk)
    where = ("zone == b",) if before == ["a1"] else ("zone == a",)
    if of_app:
        desk.do(PutApp(desk.at, make_app(constraints=where), replace=True))
    else:
        daemon = make_job(kind=JobKind.DAEMON, cron="0 * * * * ?", constraints=where)
        desk.do(PutJob(desk.at, daemon, replace=True))
    assert desk.scheduler.tasks[task].kill_ms
    desk.status(task, "TASK_KILLED")
    zones(desk, "a", "b")
    desk.run_until_idle()
    assert agents_of(desk) == [{"a1": "a2", "a2": "a1"}[before[0]]]


def test_warm_executors_follow_the_constraints_of_their_app() -> None:
    desk = Desk(make_app(executors=-1, constraints=("zone != b",)))
    zones(desk, "a", "b", "c")
    desk.run_until_idle()
    found = {task.agent_id: task for task in desk.scheduler.tasks.values()}
    assert sorted(found) == ["a1", "a3"]
    for task in found.values():
        desk.status(task.id, "TASK_RUNNING")
    desk.do(OffersReceived(desk.at, (offer_of("a1", zone="b"),)))
    desk.run_until_idle()
    ends = {task.agent_id for task in desk.scheduler.tasks.values() if task.kill_ms}
    assert ends == {"a1"}, "the agent was reconfigured"


def test_new_leader_keeps_warm_executors_on_agents_without_an_offer_so_far() -> None:
    desk = Desk(make_app(executors=-1, constraints=("zone == a",)))
    zones(desk, "a")
    desk.run_until_idle()
    (task,) = desk.scheduler.tasks
    desk.status(task, "TASK_RUNNING")
    desk.restart()
    desk.run_until_idle()
    assert desk.scheduler.tasks[task].state is TaskState.RUNNING
    assert not desk.scheduler.tasks[task].kill_ms


# ------------------------------------------------------------------------------------------------------- explanations


def test_explanation_counts_the_agents_that_each_constraint_excludes() -> None:
    """The example in docs/placement.md."""
    desk = triggered("zone == a", resources=Resources(1_000, 9_000_000))
    offers = [offer_of(f"a{number}", zone="b") for number in range(9)]
    offers += [offer_of(f"b{number}", zone="a") for number in range(3)]
    desk.offer(*offers)
    (text,) = re.findall(r"```text\n(.*)\n```", DOC)
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    assert (reason.code, reason.text, reason.hosts) == ("constraints", text, 9)
    assert not reason.waiting_helps, "no agent is large enough"


def test_agent_counts_for_the_first_constraint_that_it_fails() -> None:
    desk = triggered("disk == ssd", "zone == a")
    desk.offer(offer_of("a1", zone="b", disk="hdd"), offer_of("a2", zone="b", disk="ssd"), offer_of("a3", zone="a"))
    assert first_reason(desk) == "3 agents: 2 fail disk == ssd, 1 fail zone == a"
    notices = [one for one in of(Publish, desk.all) if one.topic is Topic.REFUSED]
    assert [(one.reason, one.text) for one in notices] == [("constraints", first_reason(desk))]


def test_explanation_of_busy_agents_says_that_waiting_helps() -> None:
    desk = triggered("zone == a", shard_count=2, resources=Resources(5_000, 128_000))
    zones(desk, "a", "b")
    desk.run_until_idle()
    zones(desk, "b", "b")
    desk.run_until_idle()
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    assert reason.code == "constraints"


def test_only_some_explanations_are_made_in_a_cycle_and_the_others_when_somebody_asks() -> None:
    jobs = [make_job(f"j{number}", constraints=(f"zone == {number}",)) for number in range(60)]
    desk = Desk(make_app(), *jobs)
    for job in jobs:
        desk.do(Trigger(desk.at, job.key))
    zones(desk, "a")
    desk.run_until_idle()
    refusals = desk.scheduler.refusals
    assert {reasons[0].code for reasons in refusals.values()} == {"constraints"}
    assert sum("1 agents: " in reasons[0].text for reasons in refusals.values()) == 50
    assert {first_reason(desk, job.key) for job in jobs} == {f"1 agents: 1 fail zone == {n}" for n in range(60)}


def test_fit_counts_only_agents_that_meet_the_constraints() -> None:
    desk = Desk(make_app(), make_job(constraints=("zone == a",)))
    zones(desk, "a", "b", "a")
    found = fit.answer(desk.scheduler.fit_question("report", 20, desk.at))
    assert {share.agent_id: share.shards for share in found.shares} == {"a1": 7, "a3": 7}
    assert found.reasons[0].text == "3 agents: 1 fail zone == a, 2 have too little cpus"
    assert found.waiting_helps


def test_fit_without_a_suitable_agent_says_so() -> None:
    desk = Desk(make_app(), make_job(constraints=("zone == z",)))
    zones(desk, "a", "b")
    found = fit.answer(desk.scheduler.fit_question("report", 1, desk.at))
    assert (found.fits, [reason.text for reason in found.reasons]) == (0, ["2 agents: 2 fail zone == z"])
    assert not found.waiting_helps


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (("zone",), "is not a constraint"),
        (("zone ==",), "needs a value"),
        (("cores >= many",), "needs a number"),
        (("zone in a,,b",), "needs a value"),
    ],
)
@pytest.mark.parametrize("make", [make_app, make_job])
def test_invalid_constraint_is_refused_with_its_form(constraints: tuple[str, ...], says: str, make: Any) -> None:
    with pytest.raises(ConfigError, match=says) as found:
        places.check(make(constraints=constraints))
    assert (found.value.field, "zone == a" in found.value.fix) == ("constraints", True)


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (("zone == a",) * (MAX_CONSTRAINTS + 1), "21 entries"),
        ((f"zone == {'é' * (MAX_CONSTRAINT_BYTES // 2)}",), "entry 1 is too long"),
        (("zone == a", "zone == \n"), "entry 2"),
    ],
)
@pytest.mark.parametrize("make", [make_app, make_job])
def test_list_of_constraints_is_bounded(constraints: tuple[str, ...], says: str, make: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        make(constraints=constraints)
    make(constraints=(f"zone == {'x' * (MAX_CONSTRAINT_BYTES - 8)}",) * MAX_CONSTRAINTS)


@pytest.mark.parametrize("of_app", [False, True])
def test_constraint_of_a_newer_build_faults_its_job_alone(of_app: bool) -> None:
    odd = ("zone beside a",)
    app = make_app(constraints=odd if of_app else (), executors=1)
    desk = Desk(app, make_job(constraints=() if of_app else odd), make_app("other"), make_job("plain", app="other"))
    for job in ("report", "plain"):
        desk.do(Trigger(desk.at, job))
    zones(desk, "a")
    desk.run_until_idle()
    assert (agents_of(desk), agents_of(desk, "plain")) == ([], ["a1"])
    assert "is not a constraint" in desk.scheduler.faults["report"]
    desk.tick(desk.policy.sweep_ms + 1)


# -------------------------------------------------------------------------------------------------------------- masks


def test_masks_agree_with_each_constraint_on_each_agent() -> None:
    values = [None, "", "a", "b", "a b", "7", "7.0", "-1e3", "nan", "B"]
    texts = ["x == a", "x != a", "x in a, b", "x not in a, 7", "x ~ [ab]*", "x !~ ?", "x >= 7", "x < 7", "x > -1e4"]
    masks = Masks()
    agents: list[dict[str, str]] = [{} if value is None else {"x": value} for value in values]
    for slot, attributes in enumerate(agents):
        masks.put(slot + (slot > 3), attributes)  # slot 4 stays empty
    for text in texts:
        constraint = parse(text)
        expected = [constraint.holds(attributes) for attributes in agents]
        expected.insert(4, False)
        assert masks.allowed(Where((constraint,))).tolist() == expected, text


def test_equal_conditions_are_equal_and_may_be_pickled() -> None:
    one, other = (Where((parse(text),)) for text in ("zone == a", "zone == b"))
    assert one == pickle.loads(pickle.dumps(one)) != other
    assert hash(one) == hash(Where((parse("zone == a"),)))


def test_example_of_the_document_is_valid() -> None:
    example, _ = re.findall(r"```json\n(\{.*?\n\})\n```", DOC, re.DOTALL)
    constraints = tuple(json.loads(example)["constraints"])
    (weighted,) = re.findall(r"```json\n(\{\"preferences\".*)\n```", DOC)
    preferences = tuple(json.loads(weighted)["preferences"])
    places.check(make_job(constraints=constraints, preferences=preferences))
    desk = triggered(*constraints)
    desk.offer(
        offer_of("a1", zone="a", cores="8"), offer_of("a2", zone="a", cores="16"), offer_of("a3", zone="b", cores="16")
    )
    assert agents_of(desk) == ["a2"]
