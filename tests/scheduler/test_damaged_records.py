"""Damaged records: readable but wrong. Such a record must not affect a leader or another job."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, apply, copy_of, make_ad_hoc_job, make_app, make_job, make_offer, of

from jobcloud import model
from jobcloud.config import CatchUp, JobKind, PartitionPolicy, team_of
from jobcloud.messages import (
    AgentLost,
    BackfillJob,
    DrainAgent,
    Event,
    Kind,
    PutAccess,
    PutCalendar,
    PutPool,
    PutSilence,
    PutWorkflow,
    RemoveApp,
    RemoveWorkflow,
    RunAdHoc,
    Save,
    SetPaused,
    Status,
    StatusReceived,
    Subscribed,
    Trigger,
)
from jobcloud.model import (
    AccessToken,
    After,
    Calendar,
    CalendarSource,
    Condition,
    Join,
    Member,
    Node,
    On,
    Pool,
    Quota,
    Restoration,
    Role,
    Session,
    ShardState,
    Silence,
    TaskState,
    Team,
    User,
    Workflow,
)
from jobcloud.ports import StoredRecords
from jobcloud.scheduler.state import AlertChannel
from jobcloud.server import records
from jobcloud.server.records import Restored
from jobcloud.triggers import parse_days

ALERTING = replace(POLICY, alert_channels=(AlertChannel("ops"),))
Values = dict[tuple[Kind, str], Any]  # JSON
UPDATES = ("TASK_RUNNING", "TASK_STARTING", "TASK_FAILED", "TASK_UNREACHABLE", "TASK_RUNNING", "TASK_LOST")
NUMBERS = (-(2**63), -(10**12), -1, 0, 1, 2, 3, 100, 2**31, 10**9, 10**12, 2**53, 2**63 - 1, 2**63, 10**30)
TEXTS = ("", "x", "a@-@b", "@-@@-@@-@", "\0", "/", "x" * 5_000, *TaskState, *ShardState, "FAILOVER", "daemon", "cron")


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The firings of 6 shards are wide."""
    monkeypatch.setattr(model, "MAX_NARROW", 5)


def whole() -> tuple[Values, int]:
    """The records of a scheduler with work of every kind, and the time of their storage."""
    desk = Desk(
        make_app(), make_app("other", executors=1),
        make_job("resident", kind=JobKind.DAEMON, shard_count=3),
        make_job("often", cron="0/5 * * * * ?", misfire=True, shard_count=6, failover=True, retry_count=3,
                 timeout_ms=60_000, catch_up=CatchUp.ALL,
                 labels="owner=alice", late_after_ms=1_000, no_success_ms=2_000),
        make_job("staged", cron="0/7 * * * * ?", firing_listener="shop:Stage", shard_count=2),
        make_job("away", app="other", cron="0/9 * * * * ?", partition=PartitionPolicy.REPLACE),
        policy=ALERTING,
    )  # fmt: skip
    desk.tick(10_000)
    desk.offer(make_offer("first", "a1", cpus=3))
    desk.offer(make_offer("second", "a2", cpus=8))
    for number, task in enumerate(list(desk.scheduler.tasks)):
        desk.status(task, UPDATES[number % len(UPDATES)])
    desk.do(DrainAgent(desk.at, "a1", desk.at + 1_000))
    desk.do(Trigger(desk.at, "often"))
    desk.do(SetPaused(desk.at, True, job="staged"))
    desk.do(BackfillJob(desk.at, "often", (desk.at - 60_000, desk.at - 55_000)))
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("waits", app="other")))
    desk.do(AgentLost(desk.at, "a9"))
    desk.do(
        PutSilence(desk.at, "s1", Silence(desk.at, desk.at + 60_000, Condition.LATE, "of*", "default", "a*", "known"))
    )
    desk.do(PutPool(desk.at, "*:db", Pool(3, "orders")))
    nodes = Node("first", "often"), Node("second", "staged", (After("first", On.EITHER),), Join.ANY)
    desk.do(PutWorkflow(desk.at, Workflow("etl", nodes, "first", "orders")))
    desk.do(Trigger(desk.at, "often"))
    calendar = Calendar(
        "closed", ("2026-12-24", "2026-12-28/2027-01-01"), "2030-12-31", CalendarSource(country="DE"), "holidays 1",
        description="closed",
    )  # fmt: skip
    desk.do(PutCalendar(desk.at, calendar, parse_days(calendar.days)))
    for record in (
        Team("web", (Member("user:ann", "admin"),), Quota(cpus=4_000), 2),
        Role("caller", ("trigger",)),
        User("ann", desk.at, "hash"),
        AccessToken("t1", "ci", "hash", "user:ann", desk.at, desk.at + 60_000, (("web", "viewer"),), "user:ann"),
        Session("c1", "hash", "user:ann", "password", desk.at, desk.at, desk.at + 60_000, ("ops",)),
    ):
        desk.do(PutAccess(desk.at, record, create=True))
    desk.run_until_idle(ALERTING.alert_wait_ms)
    tables: dict[Kind, dict[str, Any]] = {
        Kind.APP: desk.stored.apps, Kind.JOB: desk.stored.jobs, Kind.JOB_STATE: desk.stored.job_states,
        Kind.FIRING: desk.stored.firings, Kind.TASK: desk.stored.tasks, Kind.EXECUTOR: desk.stored.executors,
        Kind.DRAIN: desk.stored.drains, Kind.FRAMEWORK: {"id": desk.stored.framework_id},
        Kind.SHARD: desk.stored.shards, Kind.ATTEMPT: desk.stored.attempts, Kind.PAUSE: desk.stored.pauses,
        Kind.BACKFILL: desk.stored.backfills, Kind.AD_HOC: desk.stored.ad_hoc,
        Kind.APP_VERSION: desk.stored.app_versions,
        Kind.ALERT: desk.stored.alerts, Kind.ALERT_MESSAGE: desk.stored.alert_messages,
        Kind.SILENCE: desk.stored.silences, Kind.POOL: desk.stored.pools,
        Kind.TEAM: desk.stored.teams, Kind.ROLE: desk.stored.roles, Kind.USER: desk.stored.users,
        Kind.ACCESS_TOKEN: desk.stored.access_tokens, Kind.SESSION: desk.stored.sessions,
        Kind.CALENDAR: desk.stored.calendars,
        Kind.WORKFLOW: desk.stored.workflows, Kind.WORKFLOW_RUN: desk.stored.workflow_runs,
        Kind.NODE: desk.stored.nodes,
        Kind.RESTORATION: {"last": Restoration(desk.at - 9_000, desk.at - 5_000, settled=True)},
    }  # fmt: skip
    found = {
        (kind, key): json.loads(records.encode(kind, record))["r"]
        for kind, table in tables.items()
        for key, record in table.items()
    }
    assert {kind for kind, _ in found} == set(Kind) - {Kind.DISABLED_APP}
    return found, desk.at


class Heir(Desk):
    """A new leader of the stored records. Each of its writes must be readable."""

    def __init__(self, values: Values, at: int) -> None:
        stored = StoredRecords()
        for (kind, key), value in values.items():
            version = 2 if kind is Kind.FIRING and "width" in value else 1
            stored.records[kind][key] = json.dumps({"v": version, "r": value}).encode()
        super().__init__(policy=ALERTING, subscribed=False)
        self.at, self.epoch = at, 2
        self.restored: Restored = records.restore(stored)
        self.stored = self.restored
        self.scheduler = self._new()
        self.do(Subscribed(at, self.stored.framework_id or "framework-1"))

    def do(self, event: Event) -> list[Any]:
        effects = self.scheduler.handle(event)
        for save in of(Save, effects):
            apply(self.stored, save.writes)
            for write in save.writes:
                if write.record is not None:
                    records.decode(write.kind, write.key, records.encode(write.kind, write.record))
        self.scheduler.validate()
        self.all += effects
        self.last = effects
        return effects

    def faults(self) -> list[str]:
        return [fault.path for fault in self.restored.faults]


def lives_on(heir: Heir, dice: random.Random) -> None:
    """Send updates, offers and ticks, answer reconciliations, and remove everything at the end."""
    for states in (UPDATES, ("TASK_RUNNING", "TASK_LOST", "TASK_FINISHED")):
        heir.run_until_idle()
        for task in list(heir.scheduler.tasks.values()):
            heir.do(StatusReceived(heir.at, Status(task.id, task.agent_id, dice.choice(states), "u")))
        heir.offer(*(make_offer(f"{states[1]}-{agent}", agent, cpus=20) for agent in ("a1", "a2", "a3")))
        heir.run_until_idle(30_000)
        for name in heir.scheduler.jobs:
            heir.scheduler.explain(name, heir.at)
        heir.scheduler.plan(heir.at)
    for name in list(heir.scheduler.workflow_runs):
        list(heir.scheduler.nodes_of(heir.scheduler.workflow_runs[name]))
    for name in list(heir.scheduler.workflows):
        heir.do(RemoveWorkflow(heir.at, name))
    for name in list(heir.scheduler.apps):
        heir.do(RemoveApp(heir.at, name, jobs=True))
    heir.run_until_idle(5_000)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def damaged(value: Any, dice: random.Random, keys: list[str]) -> Any:
    """The value with one part replaced by one that no version writes."""
    path = dice.choice(places(value))
    holder = parent = {"": value}
    last: Any = ""
    for key in path:
        parent, last = parent[last], key
    old = parent[last]
    if isinstance(old, bool):
        parent[last] = not old
    elif isinstance(old, int):
        parent[last] = dice.choice(NUMBERS)
    elif isinstance(old, str):
        parent[last] = dice.choice((*TEXTS, *keys))
    elif isinstance(old, list):
        parent[last] = dice.choice(([], old * 2, old[:1], old[1:], old * 50))
    elif dice.random() < 0.5:  # fields that are left out at their default
        old[dice.choice(("attempt", "kill_ms", "started_ms", "ended_ms", "not_before_ms"))] = dice.choice(NUMBERS)
    else:
        old[dice.choice(("state", "task_id", "cause", "execution"))] = dice.choice((*TEXTS, *keys))
    return holder[""]


def test_hand_edited_records_stop_no_leader(seed: int) -> None:
    values, at = whole()
    text = {place: json.dumps(value) for place, value in values.items()}
    for number in range(60):
        dice = random.Random(f"{seed} {number}")
        values[Kind.RESTORATION, "last"]["settled"] = number % 3 > 0
        text[Kind.RESTORATION, "last"] = json.dumps(values[Kind.RESTORATION, "last"])
        changed = {place: json.loads(value) for place, value in text.items()}
        for place in dice.sample(sorted(changed), dice.choice((1, 1, 1, 2, 3))):
            if dice.random() < 0.1:
                del changed[place]
            else:
                changed[place] = damaged(changed[place], dice, [key for _, key in text])
        try:
            lives_on(Heir(changed, at + dice.choice((0, 1_000, 3_600_000, -3_600_000))), dice)
        except Exception as error:
            wrong = {str(place): changed.get(place) for place in text if json.dumps(changed.get(place)) != text[place]}
            raise AssertionError(f"seed {seed}, case {number}: {error!r}: {json.dumps(wrong)[:3_000]}") from error


def of_job(values: Values, kind: Kind, job: str) -> tuple[str, Any]:
    """The first record of a kind that belongs to a running job."""
    for (found, key), value in sorted(values.items(), key=lambda one: one[0]):
        lives = found is kind and value["job"] == job and not value.get("ended_ms")
        if lives and (kind is Kind.FIRING or value["state"] == "RUNNING"):
            return key, value
    raise AssertionError("there is none")


@pytest.mark.parametrize("number", [-1, 10_002, 10**9, 2**63, 10**30])
def test_impossible_item_is_a_fault_of_its_record(number: int) -> None:
    values, at = whole()
    key, task = of_job(values, Kind.TASK, "resident")
    task["item"] = number
    heir = Heir(values, at)
    assert heir.faults() == [f"task/{key}"]
    assert key in heir.scheduler.tasks, "its shard still names it"


@pytest.mark.parametrize("amount", [-1, 2**52, 2**63, 10**30])
@pytest.mark.parametrize("kind", [Kind.TASK, Kind.EXECUTOR])
def test_impossible_amount_is_a_fault_of_its_record(kind: Kind, amount: int) -> None:
    values, at = whole()
    key = min(key for found, key in values if found is kind)
    if kind is Kind.TASK:
        values[kind, key]["resources"][1] = amount
    else:
        values[kind, key]["shares"][0]["amount"] = amount
    heir = Heir(values, at)
    assert heir.faults() == [f"{kind}/{key}"]
    lives_on(heir, random.Random(1))


@pytest.mark.parametrize("field", ["firing_id", "item", "job"])
def test_task_belongs_to_the_shard_that_names_it(field: str) -> None:
    values, at = whole()
    key, task = of_job(values, Kind.TASK, "resident")
    item = task["item"]
    other = of_job(values, Kind.FIRING, "often")[0]
    task[field] = {"firing_id": other, "item": (item + 1) % 3, "job": "often"}[field]
    heir = Heir(values, at)
    assert heir.faults() == []
    found = heir.scheduler.tasks[key]
    assert (found.job, found.item, heir.scheduler.firings[found.firing_id].job) == ("resident", item, "resident")
    heir.do(StatusReceived(at, Status(key, found.agent_id, "TASK_LOST", "u")))
    heir.run_until_idle(2_000)
    again = [one.name for one in heir.launched(heir.offer(make_offer("third", "a3", cpus=20)))]
    assert f"resident@-@{item}" in again


def test_shard_that_names_another_shards_task_fails_and_a_resident_one_restarts() -> None:
    values, at = whole()
    _, firing = of_job(values, Kind.FIRING, "resident")
    active = [shard for shard in firing["shards"] if shard.get("state") == "ACTIVE"]
    firing["shards"] = [active[0]] * 3
    heir = Heir(values, at)
    heir.run_until_idle()
    heir.offer(make_offer("third", "a3", cpus=20))
    (found,) = heir.firings("resident")
    assert len({shard.task_id for shard in found.shards}) == 3


def test_shard_counts_for_the_team_of_its_job_if_the_records_of_task_and_job_are_gone() -> None:
    values, at = whole()
    key, task = of_job(values, Kind.TASK, "resident")
    del values[Kind.TASK, key], values[Kind.JOB, "resident"]
    heir = Heir(values, at)
    assert heir.scheduler.tasks[key].app == ""
    shards = [one for one in heir.scheduler.tasks.values() if one.firing_id and team_of(one.job) == "default"]
    assert heir.scheduler._quotas.usage("default").shards == len(shards)
    heir.do(StatusReceived(at, Status(key, task["agent_id"], "TASK_LOST", "u")))
    assert heir.scheduler._quotas.usage("default").shards == len(shards) - 1


def test_firing_without_shards_is_a_fault() -> None:
    values, at = whole()
    key, firing = of_job(values, Kind.FIRING, "staged")
    firing["shards"] = firing["shards"][:2]  # the shards of the listener's calls only
    assert Heir(values, at).faults() == [f"firing/{key}"]


def test_newer_of_two_tasks_of_one_shard_is_adopted() -> None:
    """The end of the older one may not have been stored."""
    desk = Desk(make_app(), make_job(failover=True, failover_delay_ms=100))
    desk.do(Trigger(desk.at, "report"))
    (first,) = desk.launched(desk.offer())
    before = copy_of(desk.stored)
    desk.status(first.task_id, "TASK_LOST")
    desk.tick(1_000)
    (second,) = desk.launched(desk.offer(make_offer("other", "a2")))
    desk.stored.tasks |= before.tasks
    desk.stored.firings |= before.firings
    desk.restart()
    assert desk.running() == [second.task_id]
