"""Teams: apps and jobs of the same names run side by side, and share nothing. Ids of runs name team and cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.core_world import POLICY, START, Desk, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import JobKind, Package
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import (
    Kind,
    Publish,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Retry,
    Save,
    SetAppEnabled,
    SetJobEnabled,
    ShutdownExecutor,
    Trigger,
)
from jobcloud.model import Cause, Shard, ShardState, Task, TaskName, changed, content_of
from jobcloud.scheduler import Stored
from jobcloud.scheduler.recovery import numbers_used
from jobcloud.scheduler.sharding import firing_id
from jobcloud.server.records import decode, encode

BROKEN: dict[str, Any] = {"data": json.dumps({"schema": 1, "cause": "package"}), "message": "no zip"}
MINUTELY = "0 * * * * ?"


def two_teams(**fields: Any) -> Desk:
    """A desk with an app and a job of the same names in the teams `default` and `billing`."""
    teams: tuple[dict[str, Any], ...] = ({}, {"team": "billing"})
    return Desk(*(make_app(**team) for team in teams), *(make_job(**team, **fields) for team in teams))


def run_both(desk: Desk) -> dict[str, Any]:
    """Trigger both jobs; returns the launch of each by the job of its task."""
    for job in ("report", "billing:report"):
        desk.do(Trigger(desk.at, job))
    return {TaskName.parse(one.task_id).job: one for one in desk.launched(desk.offer(make_offer(f"o{desk.at}")))}


def test_jobs_of_two_teams_with_equal_names_run_side_by_side_in_executors_of_their_own() -> None:
    desk = two_teams(parameter="p")
    launches = run_both(desk)
    assert launches.keys() == {"report", "billing:report"}
    executors = {job: one.executor for job, one in launches.items()}
    assert {job: executor.app for job, executor in executors.items()} == {
        "report": "shop", "billing:report": "billing:shop",
    }  # fmt: skip
    assert content_of(executors["report"].id) != content_of(executors["billing:report"].id)
    # The path of the sandbox, which lists of paths name, contains the id.
    assert not any(":" in executor.id for executor in executors.values())
    payloads = {job: payload_of(one) for job, one in launches.items()}
    # Data of the default team keeps the form that it had before teams.
    assert {job: found["job"].get("team") for job, found in payloads.items()} == {
        "report": None, "billing:report": "billing",
    }  # fmt: skip
    assert {found["shardingContext"]["jobName"] for found in payloads.values()} == {"report"}
    assert len({found["runId"] for found in payloads.values()}) == 2
    for one in launches.values():
        desk.status(one.task_id, "TASK_RUNNING")
        desk.status(one.task_id, "TASK_FINISHED")
    assert [len(desk.firings(job)) for job in launches] == [1, 1]
    assert all(firing.ended_ms for firing in desk.scheduler.firings.values())


def test_app_and_job_of_a_team_survive_a_restart_with_their_work() -> None:
    desk = two_teams(kind=JobKind.DAEMON)
    launches = {TaskName.parse(one.task_id).job: one for one in desk.launched(desk.offer(make_offer("o1")))}
    for one in launches.values():
        desk.status(one.task_id, "TASK_RUNNING")
    desk.restart()
    assert desk.running("report") == [launches["report"].task_id]
    assert desk.running("billing:report") == [launches["billing:report"].task_id]
    assert not desk.launched(desk.offer(make_offer("o2")))


def test_disabled_app_and_job_of_a_team_leave_the_others_enabled() -> None:
    desk = two_teams()
    desk.do(SetAppEnabled(desk.at, "billing:shop", False))
    assert [desk.scheduler.enabled(job) for job in ("report", "billing:report")] == [True, False]
    assert desk.stored.disabled_apps == {"billing:shop"}
    desk.do(SetAppEnabled(desk.at, "billing:shop", True))
    desk.do(SetJobEnabled(desk.at, "report", False))
    assert [desk.scheduler.enabled(job) for job in ("report", "billing:report")] == [False, True]


def test_circuit_breaker_of_a_team_blocks_only_its_own_app() -> None:
    desk = two_teams(retry_count=3)
    launches = run_both(desk)
    desk.status(launches["billing:report"].task_id, "TASK_FAILED", **BROKEN)
    reasons = {job: desk.scheduler.explain(job, desk.at).reasons for job in launches}
    assert any(reason.code == "start_failed" for reason in reasons["billing:report"])
    assert not any(reason.code == "start_failed" for reason in reasons["report"])
    desk.status(launches["report"].task_id, "TASK_FINISHED")
    assert "report" in run_both(desk)


def test_packages_and_warm_executors_belong_to_one_team() -> None:
    desk = two_teams()
    app = make_app(team="billing", executors=1)
    desk.do(PutApp(desk.at, replace(app, package=Package("package:sha256:", "f" * 64)), replace=True))
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    assert launched.executor.app == "billing:shop"
    assert "f" * 64 in launched.executor.spec
    assert desk.scheduler.apps["shop"].package.sha256 != "f" * 64
    notices = [notice for notice in of(Publish, desk.all) if notice.task_id == launched.task_id]
    assert {(notice.job, notice.app, notice.team) for notice in notices} == {("", "billing:shop", "billing")}


def test_removed_app_of_a_team_takes_only_its_own_jobs_and_executors_along() -> None:
    desk = two_teams()
    for one in run_both(desk).values():
        desk.status(one.task_id, "TASK_FINISHED")
    desk.do(RemoveApp(desk.at, "billing:shop", jobs=True))
    assert (set(desk.scheduler.apps), set(desk.scheduler.jobs)) == ({"shop"}, {"report"})
    assert [call.executor_id.partition("@")[0] for call in of(ShutdownExecutor, desk.last)] == ["billing~shop"]


def test_job_needs_an_app_of_its_own_team() -> None:
    desk = Desk(make_app())
    with pytest.raises(NotFound, match="there is no app billing:shop"):
        desk.do(PutJob(desk.at, make_job(team="billing")))
    desk.do(PutApp(desk.at, make_app(team="billing")))
    desk.do(PutJob(desk.at, make_job(team="billing")))
    with pytest.raises(Conflict, match="job billing:report exists"):
        desk.do(PutJob(desk.at, make_job(team="billing")))


def test_records_of_the_default_team_keep_the_keys_that_they_had_before_teams() -> None:
    desk = two_teams()
    run_both(desk)
    writes = [write for save in of(Save, desk.all) for write in save.writes]
    keys = {
        kind: {write.key for write in writes if write.kind is kind} for kind in (Kind.APP, Kind.JOB, Kind.JOB_STATE)
    }
    assert keys[Kind.APP] == {"shop", "billing:shop"}
    assert keys[Kind.JOB] == keys[Kind.JOB_STATE] == {"report", "billing:report"}
    for write in writes:
        if write.record is not None:
            assert decode(write.kind, write.key, encode(write.kind, write.record)) == write.record


def test_longest_ids_fit_the_limit_of_mesos() -> None:
    team, name, agent = "t" * 32, "n" * 100, f"{'8' * 8}-{'4' * 4}-{'4' * 4}-{'4' * 4}-{'c' * 12}-S1234567890"
    wide: dict[str, Any] = {"shard_count": 10_000}
    desk = Desk(make_app(name, team=team, executors=1), make_job(name, app=name, team=team, **wide))
    desk.scheduler._state.epoch, desk.scheduler._state._sequence = 9_000_000, 999_900_000
    desk.do(Trigger(desk.at, f"{team}:{name}"))
    launches = desk.launched(desk.offer(make_offer("o1", agent, cpus=20_000, mem=2_000_000)))
    assert len(launches) > 900
    longest = max(len(one.task_id) for one in launches) + len("9999") - len("999") + len("FAILOVER") - len("READY")
    assert longest <= 255
    assert max(len(one.executor.id) for one in launches) <= 255


# ---- ids of runs ---------------------------------------------------------------------------------------------


def test_id_of_a_run_names_team_job_and_cluster() -> None:
    assert (
        firing_id(make_job(team="billing"), Cause.CRON, START, "7-1", "prod") == "billing:report.20260101T000000Z@prod"
    )
    assert firing_id(make_job(), Cause.TRIGGER, START, "7-1", "prod") == "report.trigger-7-1@prod"


def test_runs_of_two_clusters_and_two_teams_never_have_the_same_id() -> None:
    found = []
    for cluster in ("north", "south"):
        desk = two_teams(cron=MINUTELY)
        desk.policy = replace(POLICY, cluster=cluster)
        desk.restart(same_epoch=True)
        desk.run_until_idle(60_000)
        for job in ("report", "billing:report"):
            desk.do(Trigger(desk.at, job))
        found += list(desk.scheduler.firings)
    assert len(found) == 8
    assert len(set(found)) == len(found)
    assert {name.rpartition("@")[2] for name in found} == {"north", "south"}


def rename(desk: Desk, cluster: str) -> None:
    desk.policy = replace(desk.policy, cluster=cluster)
    desk.restart()


def ended(desk: Desk) -> list[str]:
    for one in desk.launched(desk.offer(make_offer(f"o{desk.at}-{len(desk.all)}"))):
        desk.status(one.task_id, "TASK_FINISHED")
    return sorted(firing.id for firing in desk.firings() if firing.ended_ms)


@pytest.mark.parametrize("old_form", [False, True])
def test_fire_time_fires_once_if_the_cluster_is_renamed_and_the_clock_set_back(old_form: bool) -> None:
    desk = Desk(make_app(), make_job(cron=MINUTELY))
    desk.run_until_idle(60_000)
    before = ended(desk)
    assert before == ["report.20260101T000100Z@jobcloud"]
    if old_form:  # as older builds stored it
        for name in before:
            firing = desk.stored.firings.pop(name)
            short = name.removesuffix("@jobcloud")
            desk.stored.firings[short] = changed(firing, id=short)
        before = ["report.20260101T000100Z"]
    considered = desk.stored.job_states["report"]
    desk.stored.job_states["report"] = changed(considered, considered_ms=START)
    rename(desk, "other")
    desk.run_until_idle()
    assert sorted(firing.id for firing in desk.firings()) == before, "a fire time was repeated"
    desk.run_until_idle(60_000)
    assert [name for name in ended(desk) if name not in before] == ["report.20260101T000200Z@other"], "one was lost"


def test_run_of_an_older_build_is_retried_under_its_id() -> None:
    desk = Desk(make_app(), make_job())
    state = desk.stored.job_states["report"]
    failed = Shard(ShardState.FAILED, attempt=1, ended_ms=5, message="no luck")
    desk.do(Trigger(desk.at, "report"))
    (new,) = desk.firings()
    old = changed(new, id="report.trigger-1-77", generation=state.generation, shards=(failed,), ended_ms=5)
    del desk.stored.firings[new.id]
    desk.stored.firings[old.id] = old
    rename(desk, "prod")
    desk.do(Retry(desk.at, old.id))
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    assert payload_of(launched)["runId"] == old.id
    desk.status(launched.task_id, "TASK_FINISHED")
    assert desk.scheduler.firings[old.id].shards[0].state is ShardState.FINISHED


def test_leader_with_the_same_epoch_makes_no_id_twice() -> None:
    desk = two_teams()
    desk.do(Trigger(desk.at, "billing:report"))
    desk.restart(same_epoch=True)
    desk.do(Trigger(desk.at, "report"))
    assert len({firing.id.partition("trigger")[2] for firing in desk.scheduler.firings.values()}) == 2


def test_job_name_that_looks_like_a_number_of_the_epoch_hides_no_number() -> None:
    stored = Stored()
    ids = ("x-1-0@-@0@-@READY@-@a1@-@1-57", "a-1:b-1-9@-@0@-@READY@-@a1@-@1-58", "x-1-99.trigger-1-56@prod-1-70")
    for task_id in ids:
        stored.tasks[task_id] = cast(Task, None)
    assert numbers_used(stored, 1) == 58


def test_removed_job_leaves_no_index_behind() -> None:
    desk = two_teams(cron=MINUTELY)
    desk.run_until_idle(60_000)
    for one in desk.launched(desk.offer(make_offer("o1"))):
        desk.status(one.task_id, "TASK_FINISHED")
    for job in ("report", "billing:report"):
        desk.do(RemoveJob(desk.at, job))
    assert not desk.scheduler.indexes()["latest"]
