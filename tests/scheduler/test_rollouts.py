"""Roll-outs: resident shards get a new configuration or app version a few at a time, after their old task has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import JobKind, PartitionPolicy, Resources, UpdateStrategy
from jobcloud.messages import (
    AgentLost,
    Disconnected,
    DrainAgent,
    Kill,
    KillTask,
    PutApp,
    PutJob,
    SetJobEnabled,
    Subscribed,
)
from jobcloud.model import ShardState, TaskState
from jobcloud.scheduler import revisions

SECOND = 1_000
MINUTE = 60_000
OLD, NEW = "old", "new"


class Roll:
    """A resident job whose shards all run on four agents."""

    def __init__(self, shards: int = 5, **fields: Any) -> None:
        self.fields = fields
        self.version: dict[str, str] = {}
        self.desk = Desk(make_app(), self.job(OLD, shards))
        self.shards = shards
        self.serve()

    def job(self, parameter: str, shards: int, **fields: Any) -> Any:
        given: dict[str, Any] = {"kind": JobKind.DAEMON, "shard_count": shards, "parameter": parameter,
                                 "resources": Resources(100, 1000)}  # fmt: skip
        return make_job(**(given | self.fields | fields))

    def update(self, parameter: str = NEW, shards: int | None = None, **fields: Any) -> None:
        self.shards = self.shards if shards is None else shards
        self.desk.do(PutJob(self.desk.at, self.job(parameter, self.shards, **fields), replace=True))

    def launch(self) -> list[str]:
        """Make offers with room for all that may start. Returns the launches since the last call."""
        self.desk.offer(make_offer(f"o{len(self.desk.all)}", cpus=64, mem=65_536))
        launched = [one for one in self.desk.launched(self.desk.all) if one.task_id not in self.version]
        for one in launched:
            self.version[one.task_id] = payload_of(one)["shardingContext"]["jobParameter"]
        return [one.task_id for one in launched]

    def run(self, *tasks: str) -> None:
        for task in tasks:
            self.desk.status(task, "TASK_RUNNING")
        self.desk.run_until_idle()

    def serve(self) -> list[str]:
        tasks = self.launch()
        self.run(*tasks)
        return tasks

    def asked(self) -> list[str]:
        """The tasks that are killed and have not ended, by item."""
        tasks = [task for task in self.desk.scheduler.tasks.values() if task.kill_ms]
        assert tasks == [task for task in self.desk.stored.tasks.values() if task.kill_ms], "not stored"
        return [task.id for task in sorted(tasks, key=lambda task: task.item)]

    def end(self, *tasks: str, state: str = "TASK_KILLED") -> None:
        for task in tasks:
            self.desk.status(task, state)
        self.desk.run_until_idle()

    def versions(self) -> list[str]:
        """The version that each item runs, or "" if it does not run."""
        (firing,) = [one for one in self.desk.firings() if not one.ended_ms]
        tasks = self.desk.scheduler.tasks
        runs = [name in tasks and tasks[name].state is TaskState.RUNNING for name in (s.task_id for s in firing.shards)]
        return [self.version[shard.task_id] if run else "" for run, shard in zip(runs, firing.shards, strict=True)]

    def codes(self) -> list[str]:
        return [reason.code for reason in self.desk.scheduler.explain("report", self.desk.at).reasons]


def items(tasks: list[str]) -> list[int]:
    return [int(task.split("@-@")[1]) for task in tasks]


# ------------------------------------------------------------------------------------------------ desired state


def test_each_missing_resident_shard_restarts_on_its_own() -> None:
    roll = Roll(3)
    lost = roll.desk.running()[1]
    roll.end(lost, state="TASK_LOST")
    assert roll.versions() == [OLD, "", OLD]
    roll.desk.at += 2 * SECOND
    assert items(roll.serve()) == [1]
    assert of(Kill, roll.desk.all) == []


def test_killed_shard_restarts_after_its_job_is_enabled_again() -> None:
    roll = Roll(3)
    roll.desk.do(SetJobEnabled(roll.desk.at, "report", enabled=False))
    tasks = roll.asked()
    roll.end(tasks[0])
    roll.desk.do(SetJobEnabled(roll.desk.at, "report", enabled=True))
    assert items(roll.launch()) == [0]
    roll.end(*tasks[1:])
    assert items(roll.launch()) == [1, 2]
    assert len(roll.desk.firings()) == 1


# ---------------------------------------------------------------------------------------------------- one by one


@pytest.mark.parametrize("what", ["job", "app"])
@pytest.mark.parametrize("restarted", [False, True])
def test_roll_out_replaces_one_shard_after_the_other(what: str, restarted: bool) -> None:
    roll = Roll(4)
    if what == "job":
        roll.update()
    else:
        roll.desk.do(PutApp(roll.desk.at, make_app(version=2), replace=True))
    for item in range(4):
        (old,) = roll.asked()
        assert items([old]) == [item]
        assert roll.launch() == [], "the old one has not ended"
        if restarted:
            roll.desk.restart()
            assert roll.asked() == [old], "the next leader kills no other"
            assert old in {kill.task_id for kill in of(Kill, roll.desk.run_until_idle())}
            roll.run(*(task for task in roll.desk.running() if task != old))
            assert roll.asked() == [old]
        roll.end(old)
        (new,) = roll.launch()
        assert items([new]) == [item]
        assert roll.asked() == [], "the new one does not run yet"
        if restarted:
            roll.desk.restart()
            roll.run(*(task for task in roll.desk.running() if task != new))
            assert roll.asked() == [], "nor for the next leader"
        roll.run(new)
    assert roll.asked() == []
    assert roll.desk.scheduler.indexes()["rollouts"] == {}
    assert len(of(Kill, roll.desk.all)) >= 4
    if what == "job":
        assert roll.versions() == [NEW] * 4
    assert len({task.executor_id for task in roll.desk.scheduler.tasks.values()}) == 1
    assert len(roll.desk.firings()) == 1


def test_roll_out_takes_max_unavailable_shards_down_at_once() -> None:
    roll = Roll(7, max_unavailable=3)
    roll.update()
    assert items(roll.asked()) == [0, 1, 2]
    roll.end(roll.asked()[1])
    assert items(roll.asked()) == [0, 2]
    roll.serve()
    assert items(roll.asked()) == [0, 2, 3]


def test_shards_down_for_other_reasons_count_and_are_replaced_first() -> None:
    roll = Roll(4)
    roll.end(roll.desk.running()[2], state="TASK_LOST")
    roll.update()
    assert roll.asked() == []
    assert items(roll.launch()) == [2], "the new version does not wait for the back-off of the old one"
    roll.run(roll.desk.running()[-1])
    assert items(roll.asked()) == [0]


def test_stale_shard_that_never_ran_is_replaced_at_once() -> None:
    roll = Roll(1)
    roll.desk.do(PutJob(roll.desk.at, roll.job("second", 3, independent_shards=True), replace=True))
    started = roll.launch()
    assert items(started) == [1, 2]
    roll.update(shards=3, independent_shards=True)
    assert set(started) <= set(roll.asked())


def test_change_of_scheduling_fields_replaces_no_shard() -> None:
    roll = Roll(3)
    neutral = {"max_unavailable": 2, "update_strategy": UpdateStrategy.RECREATE, "priority": 3, "description": "x",
               "partition": PartitionPolicy.REPLACE, "independent_shards": True}  # fmt: skip
    for field, value in neutral.items():
        roll.fields[field] = value
        roll.update(OLD)
        assert roll.asked() == []
    roll.update(OLD, cron="0 0 0 1 1 ? 2098")  # a resident job fires by itself
    assert len(roll.asked()) == 3


# ------------------------------------------------------------------------------------- versions that do not run


@pytest.mark.parametrize("restarted", [False, True])
def test_version_that_does_not_run_stops_its_roll_out(restarted: bool) -> None:
    roll = Roll(4)
    roll.update()
    roll.end(*roll.asked())
    for _ in range(5):
        roll.desk.at += 2 * MINUTE
        (broken,) = roll.launch()
        roll.desk.status(broken, "TASK_FAILED", message="no module named shop", reason="REASON_EXECUTOR_TERMINATED")
        roll.desk.run_until_idle()
        if restarted:
            roll.desk.restart()
            roll.run(*roll.desk.running())
    assert roll.versions() == ["", OLD, OLD, OLD]
    explained = roll.desk.scheduler.explain("report", roll.desk.at)
    assert explained.reasons[0].code == "rollout_stopped"
    assert "no module named shop" in explained.headline
    assert "3 of the job's 4 shards run with an earlier configuration" in explained.headline


def test_version_that_runs_only_briefly_stops_its_roll_out() -> None:
    roll = Roll(6)
    roll.update()
    roll.end(*roll.asked())
    crashes = 0
    for _ in range(8):
        roll.desk.at += 2 * MINUTE
        for task in roll.serve():
            roll.end(task, state="TASK_FAILED")
            crashes += 1
        roll.end(*roll.asked())
    assert crashes >= 8
    assert roll.versions().count(OLD) >= 4, "a shard that crashed must run for a while before the next is replaced"
    roll.desk.at += 2 * MINUTE
    fine = roll.serve()
    assert roll.asked() == []
    roll.desk.run_until_idle(MINUTE)
    assert len(roll.asked()) == 1, "now it has"
    assert fine


def test_rollback_to_the_previous_version_leaves_its_running_shards_alone() -> None:
    roll = Roll(4)
    before = roll.desk.running()
    roll.update()
    roll.end(*roll.asked())
    roll.end(*roll.launch(), state="TASK_FAILED")
    roll.update(OLD)
    assert items(roll.serve()) == [0], "at once: the back-off belonged to the version that failed"
    assert roll.asked() == []
    assert set(before[1:]) < set(roll.desk.running())


def test_second_update_continues_a_roll_out_in_progress() -> None:
    roll = Roll(3)
    roll.update()
    roll.end(*roll.asked())
    roll.serve()
    roll.update("newer")
    for _ in range(3):
        roll.end(*roll.asked())
        roll.serve()
    assert roll.versions() == ["newer"] * 3


# ------------------------------------------------------------------------------------------------ who is not there


def test_roll_out_waits_for_a_master_and_its_answers() -> None:
    roll = Roll(3)
    roll.desk.do(Disconnected(roll.desk.at))
    roll.update()
    assert roll.asked() == []
    roll.desk.do(Subscribed(roll.desk.at, "framework-1"))
    roll.desk.run_until_idle()
    assert roll.asked() == [], "any of them may have ended meanwhile"
    roll.run(*roll.desk.running())
    assert items(roll.asked()) == [0]


def test_unreachable_shard_counts_as_down_and_is_replaced_only_by_its_policy() -> None:
    roll = Roll(3)
    away = roll.desk.running()[2]
    roll.desk.status(away, "TASK_UNREACHABLE")
    roll.update()
    assert roll.asked() == []
    assert roll.codes()[:2] == ["unreachable", "rolling"]
    roll.run(away)
    assert items(roll.asked()) == [0]
    roll.end(*roll.asked())
    roll.serve()
    roll.end(*roll.asked())
    roll.serve()
    assert roll.asked() == [away], "reachable again, it still has its old start time"


def test_killed_task_that_is_lost_restarts_on_another_agent() -> None:
    roll = Roll(2)
    roll.update()
    (old,) = roll.asked()
    roll.desk.do(AgentLost(roll.desk.at, "a1"))
    roll.end(old, state="TASK_LOST")
    roll.desk.at += 2 * SECOND
    assert items(roll.serve()) == [0]
    assert roll.desk.firings()[0].shards[0].failures == 1


def test_drains_and_roll_outs_share_one_limit() -> None:
    roll = Roll(4)
    roll.desk.do(DrainAgent(roll.desk.at, "a1", roll.desk.at + 20 * MINUTE))
    roll.desk.run_until_idle()
    (moving,) = [kill.task_id for kill in of(Kill, roll.desk.all)]
    roll.update()
    assert roll.asked() == [moving]
    assert len(of(Kill, roll.desk.all)) == 1
    roll.end(moving)
    assert roll.asked() == []


def test_task_killed_by_an_operator_restarts_with_the_current_configuration() -> None:
    roll = Roll(3)
    roll.update()
    other = roll.desk.running()[2]
    roll.desk.do(KillTask(roll.desk.at, other))
    roll.end(other)
    roll.desk.at += 2 * SECOND
    roll.serve()
    assert roll.versions() == [OLD, OLD, NEW]
    assert items(roll.asked()) == [0]


# ------------------------------------------------------------------------------------------------------ re-sharding


def test_changed_shard_count_ends_all_shards_before_new_ones_start() -> None:
    roll = Roll(3)
    old = roll.desk.running()
    roll.update(OLD, shards=5)
    assert set(roll.asked()) == set(old)
    for task in old:
        assert roll.launch() == []
        roll.end(task)
    assert items(roll.serve()) == [0, 1, 2, 3, 4]
    assert len(roll.desk.scheduler.tasks) == 5


@pytest.mark.parametrize("restarted", [False, True])
def test_resizing_independent_shards_starts_added_and_ends_removed_ones_only(restarted: bool) -> None:
    roll = Roll(3, independent_shards=True)
    before = roll.desk.running()
    roll.update(OLD, shards=5)
    assert items(roll.serve()) == [3, 4]
    assert roll.asked() == []
    roll.update(OLD, shards=2)
    assert items(roll.asked()) == [2, 3, 4]
    if restarted:
        roll.desk.restart()
        roll.desk.run_until_idle()
        assert items(roll.asked()) == [2, 3, 4]
    roll.end(*roll.asked())
    assert roll.launch() == []
    assert roll.desk.running() == before[:2]
    (firing,) = roll.desk.firings()
    assert [shard.state for shard in firing.shards[2:]] == [ShardState.KILLED] * 3
    assert not firing.ended_ms


def test_re_added_item_ends_before_it_starts_again() -> None:
    roll = Roll(3, independent_shards=True)
    roll.update(OLD, shards=2)
    (old,) = roll.asked()
    roll.update(OLD, shards=3)
    assert roll.launch() == []
    roll.end(old)
    (new,) = roll.serve()
    assert items([new]) == [2]
    assert roll.desk.scheduler.tasks[new].attempt == 2


def test_removed_waiting_items_do_not_start_and_keep_their_attempt_count() -> None:
    roll = Roll(3, independent_shards=True)
    roll.end(roll.desk.running()[2], state="TASK_LOST")
    roll.update(OLD, shards=2)
    roll.desk.at += MINUTE
    assert roll.launch() == []
    roll.update(OLD, shards=3)
    (again,) = roll.launch()
    assert roll.desk.scheduler.tasks[again].attempt == 2


def test_shards_that_lose_independence_end_before_new_ones_start() -> None:
    roll = Roll(2, independent_shards=True)
    roll.update(OLD, shards=3)
    roll.serve()
    roll.update(OLD, independent_shards=False)
    assert items(roll.asked()) == [0, 1, 2]
    roll.end(*roll.asked()[:2])
    assert roll.launch() == []


def test_changed_shard_parameter_replaces_only_its_shard() -> None:
    roll = Roll(3, shard_parameters="0=Berlin,1=Paris,2=Rome")
    roll.update(OLD, shard_parameters="0=Berlin,1=Oslo,2=Rome")
    assert items(roll.asked()) == [1]
    roll.end(*roll.asked())
    roll.serve()
    assert roll.asked() == []


@pytest.mark.parametrize("fields", [{"update_strategy": UpdateStrategy.RECREATE}, {"kind": JobKind.TRANSIENT}])
def test_recreate_ends_all_shards_before_the_first_new_one_starts(fields: dict[str, Any]) -> None:
    roll = Roll(3)
    old = roll.desk.running()
    roll.update(**fields)
    assert set(roll.asked()) == set(old)
    roll.end(*old[:2])
    assert roll.launch() == []
    roll.end(old[2])
    assert len(roll.launch()) == (0 if "kind" in fields else 3)


def test_recreate_during_a_roll_out_ends_old_and_new_shards() -> None:
    roll = Roll(3)
    roll.update()
    roll.end(*roll.asked())
    roll.serve()
    roll.update("newest", update_strategy=UpdateStrategy.RECREATE)
    assert items(roll.asked()) == [0, 1, 2]
    assert roll.launch() == []
    roll.end(*roll.asked())
    assert items(roll.serve()) == [0, 1, 2]
    assert roll.versions() == ["newest"] * 3


# ------------------------------------------------------------------------------------------------------- revisions


def test_revision_depends_on_the_shards_configuration_only() -> None:
    job, app = make_job(kind=JobKind.DAEMON, shard_count=2), make_app()
    first = revisions.of_shards(job, app)
    assert len(set(first)) == 1
    neutral: tuple[dict[str, Any], ...] = (
        {"priority": 1}, {"description": "x"}, {"max_unavailable": 2}, {"failover": True},
    )  # fmt: skip
    for change in neutral:
        assert revisions.of_shards(replace(job, **change), app) == first
    assert revisions.of_shards(replace(job, shard_count=3), app)[:2] == first
    assert revisions.of_shards(job, replace(app, description="x", executors=3)) == first
    for change in ({"parameter": "x"}, {"cron": "* * * * * ?"}, {"resources": Resources(1, 1000)}, {"app": "bank"}):
        assert not set(revisions.of_shards(replace(job, **change), app)) & set(first)
    for changed in (make_app(version=2), make_app(max_parallel=3), make_app(resources=Resources(1))):
        assert not set(revisions.of_shards(job, changed)) & set(first)
    given = revisions.of_shards(replace(job, shard_parameters="1=x"), app)
    assert given == revisions.of_shards(replace(job, shard_parameters='{"1":"x"}'), app), "the form does not matter"
    assert (given[0] == first[0], given[1] == first[1]) == (True, False)


def test_revisions_do_not_change_with_the_program_version() -> None:
    """A change of these values would restart every resident shard of every user with an upgrade."""
    job = make_job(kind=JobKind.DAEMON, shard_count=2, shard_parameters="1=x", parameter="p", timeout_ms=5_000)
    assert revisions.of_shards(job, make_app()) == ("2f05f04accdc6fe7", "11c609bc1e290e01")
