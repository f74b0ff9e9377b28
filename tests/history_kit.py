"""Traces and databases for tests of the history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, text
from tests.core_world import POLICY, START, Desk, make_app, make_job, make_offer, of

from jobcloud.config import Resources
from jobcloud.history.database import Database
from jobcloud.history.rows import Describe, Event
from jobcloud.history.samples import Sample, Sampled, TeamNumbers
from jobcloud.history.tables import WRITTEN
from jobcloud.messages import AttemptTraced, RunTraced, Trigger
from jobcloud.model import Cause, Execution, Firing, Outcome, Shard, ShardState, Task, shards_of
from jobcloud.scheduler import revisions
from jobcloud.server.api.convert import config_json

TRACED = replace(POLICY, traced=True)
DESCRIBE = Describe(revisions.of_record, config_json)
#: opens the database of a test, each time a new object
OpenDatabase = Callable[..., Any]


def make_attempt(number: int = 0, **changes: Any) -> AttemptTraced:
    """The end of an attempt that started at START and ended `number` seconds and one later."""
    given: dict[str, Any] = {
        "job": "report", "app": "shop", "state": "SUCCEEDED", "item": 0, "attempt": 1, "message": "", "cause": "",
        "result": "", "at": START + 1_000 * (number + 1), "started_ms": START, "queued_ms": 200, "run": "",
        "ended": True, "cpus": 500, "mem": 64_000, "hostname": "host-a1", "run_cause": "cron",
        "execution": Execution.READY, "previous": "", "agent_id": "agent-1",
        "created_ms": START - 50,
    } | changes  # fmt: skip
    run = given["run"] or f"{given['job']}.run@test"
    task = Task(
        id=f"{given['job']}@-@{given['item']}@-@{given['execution']}@-@agent-1@-@1-{number}", firing_id=run,
        job=given["job"], item=given["item"], attempt=given["attempt"], execution=given["execution"],
        agent_id=given["agent_id"], hostname=given["hostname"], app=given["app"], executor_id="executor-1",
        resources=Resources(given["cpus"], given["mem"]), created_ms=given["created_ms"],
        started_ms=given["started_ms"],
    )  # fmt: skip
    return AttemptTraced(
        given["at"], task, given["state"], given["run_cause"], START - 100, "", given["queued_ms"], given["previous"],
        "", given["ended"], given["message"], Outcome(given["cause"], given["result"]),
    )  # fmt: skip


def make_run(
    number: int = 0,
    state: ShardState = ShardState.FINISHED,
    job: str = "report",
    app: str = "shop",
    since: int = START,
) -> RunTraced:
    """A run of two shards that fired `number` seconds after `since`. The second shard ended in `state`."""
    fire_ms = since + 1_000 * number
    shards = shards_of(Shard(state=ShardState.FINISHED, attempt=1), Shard(state=state, attempt=1))
    firing = Firing(f"{job}.{fire_ms}@test", job, 1, Cause.CRON, fire_ms, shards, ended_ms=fire_ms + 500)
    return RunTraced(firing, app)


def make_sample(at: int, running: int, **teams: TeamNumbers) -> Sampled:
    """The sample of the minute of `at`: running shards of the team `default`, which use half of the CPUs."""
    own = TeamNumbers(5, 2, min(running, 1), running, 3, 2, Resources(4_000, 64_000))
    return Sampled(at - at % 60_000, Sample(3, Resources(8_000, 640_000), {"default": own} | teams))


def played() -> list[Event]:
    """The traces of a job that fails once and then succeeds, as the core makes them."""
    desk = Desk(make_app(), make_job(retry_count=1), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    (first,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(first.task_id, "TASK_RUNNING")
    desk.at += 1_234
    desk.status(first.task_id, "TASK_FAILED", message="broke\x00 ☃", data='{"cause":"exception"}')
    desk.at += 600_000
    (second,) = desk.launched(desk.offer(make_offer("o2")))
    desk.status(second.task_id, "TASK_RUNNING")
    desk.at += 2_500
    desk.status(second.task_id, "TASK_FINISHED", data='{"result":"é"}')
    return [effect for effect in desk.all if isinstance(effect, AttemptTraced | RunTraced)]


def analyse(database: Database) -> None:
    """Count the rows of the tables, so that the plans of queries fit them."""
    names = ", ".join(table.name for table in WRITTEN.values())
    statement = {"sqlite": "ANALYZE", "postgresql": "VACUUM ANALYZE", "mariadb": f"ANALYZE TABLE {names}"}
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement[database.kind])


def plan(database: Database, statement: Select[Any]) -> str:
    """The plan of a statement, in the words of the database."""
    # `text` doubles the signs again.
    sql = str(statement.compile(database.engine, compile_kwargs={"literal_binds": True})).replace("%%", "%")
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN", "mariadb": "EXPLAIN"}[database.kind]
    with database.engine.connect() as connection:
        if database.kind == "postgresql":
            # It would read the whole table, or sort, because a test has few rows.
            connection.exec_driver_sql("SET enable_bitmapscan = off")
            connection.exec_driver_sql("SET random_page_cost = 1.1")
        return "\n".join(str(tuple(row)) for row in connection.execute(text(f"{explain} {sql}".replace(":", "\\:"))))


def assert_no_sort(found: str) -> None:
    for word in ("TEMP B-TREE", "Sort", "filesort", "Seq Scan", "SCAN h"):
        assert word not in found, found


__all__ = [
    "DESCRIBE", "START", "OpenDatabase", "analyse", "assert_no_sort", "make_attempt", "make_run", "make_sample", "of",
    "plan", "played",
]  # fmt: skip
