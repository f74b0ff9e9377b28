"""This build takes over the state and the executors of older builds, as recorded in tests/data/build_…

State in SQLite and ZooKeeper, and all messages, are those of build d78466f; state in etcd is that of build a65dd0d.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests.simulation.etcd import SimEtcd, SimEtcdClient
from tests.simulation.zookeeper import SimServer, SimSession

from jobcloud.adapters.etcd.client import EtcdClient, put
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.adapters.mesos.wire import dumps, launch_operation, read_common, read_status
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.config import DELIMITER, JobKind, Resources
from jobcloud.executor import protocol
from jobcloud.executor.execution import LOADING
from jobcloud.executor.execution import Execution as WorkerExecution
from jobcloud.executor.payload import read_app, read_task
from jobcloud.executor.workers import order
from jobcloud.messages import (
    Accept,
    Effect,
    Kill,
    Kind,
    Launch,
    OffersReceived,
    Reconcile,
    Save,
    ShutdownExecutor,
    Status,
    StatusReceived,
    Subscribed,
    Tick,
    Trigger,
    UndrainAgent,
)
from jobcloud.model import Execution, Offer, ShardState, Share, Task, TaskName, TaskState
from jobcloud.ports import Store, StoredRecords, StoredWrite
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.scheduler.launch import Artifacts, plan_executor
from jobcloud.scheduler.sharding import payload, placeholder_payload
from jobcloud.scheduler.tasks import parse_outcome
from jobcloud.server.records import Restored, decode, encode, restore

DATA = Path(__file__).parents[1] / "data"
FIRST, FIRST_ON_ETCD = "build_d78466f", "build_a65dd0d"
ENDED = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"}

Open = Callable[[], Store]


@cache
def recorded(name: str, build: str = FIRST) -> Any:
    return json.loads((DATA / build / name).read_text())


@dataclass(frozen=True, slots=True)
class Recording:
    """The records that a build stored, in one kind of store."""

    build: str
    store: Store

    @property
    def artifacts(self) -> Artifacts:
        """The recorded bundle, served by another leader."""
        bundle = recorded("bundle.json", self.build)
        return Artifacts("http://another-leader:8080", bundle["sha256"], bundle["file"], bundle["command"])

    def take_over(self) -> Scheduler:
        restored = restore(self.store.load())
        epoch = self.store.acquire()
        return Scheduler(Policy(self.artifacts), restored, epoch, last_instant(restored) + 1)


STORES = [
    "sqlite",
    "simulated zookeeper",
    "simulated etcd",
    pytest.param("zookeeper", marks=pytest.mark.zookeeper),
    pytest.param("etcd", marks=pytest.mark.etcd),
]


@pytest.fixture(params=STORES)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recording]:
    """The recorded state in each kind of store."""
    match request.param:
        case "sqlite":
            opened: Store = sqlite_store(tmp_path)
        case "simulated zookeeper":
            opened = simulated_zookeeper_store()
        case "simulated etcd":
            opened = etcd_store(simulated_etcd())
        case "zookeeper":
            opened = zookeeper_store(request.getfixturevalue("zookeeper_hosts"))
        case _:
            from tests import etcd_kit

            hosts = request.getfixturevalue("etcd_hosts")
            opened = etcd_store(etcd_kit.connect(hosts, f"test/{uuid.uuid4().hex}", 60.0))
    yield Recording(FIRST_ON_ETCD if "etcd" in request.param else FIRST, opened)
    opened.close()


@pytest.fixture
def store(recording: Recording) -> Store:
    return recording.store


def sqlite_store(folder: Path) -> Store:
    path = folder / "jobcloud.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"BEGIN;\n{(DATA / FIRST / 'jobcloud.sql').read_text()}COMMIT;")
    return SqliteStore(path)


def nodes() -> Iterator[tuple[str, bytes, int]]:
    """(path below the namespace, data, version) of each recorded node, parents first."""
    for node in recorded("zookeeper.json"):
        data = base64.b64decode(node["base64"]) if "base64" in node else node["text"].encode()
        yield node["path"], data, node["version"]


def simulated_zookeeper_store() -> Store:
    server = SimServer()
    world: Any = SimpleNamespace(zookeeper=server, now=0)
    session = SimSession(world)
    client = session._client
    for path, data, version in nodes():
        client.create(session.root + path, data)
        for _ in range(version):
            client.set(session.root + path, data)
    return ZooKeeperStore(session)


def zookeeper_store(hosts: str) -> Store:
    from kazoo.client import KazooClient
    from tests import zookeeper_kit

    namespace = f"test/{uuid.uuid4().hex}"
    client = KazooClient(hosts)
    client.start()
    client.ensure_path("/test")
    for path, data, version in nodes():
        client.create(f"/{namespace}{path}", data)
        for _ in range(version):
            client.set(f"/{namespace}{path}", data)
    client.stop()
    client.close()
    return ZooKeeperStore(zookeeper_kit.connect(hosts, namespace))


def simulated_etcd() -> EtcdClient:
    world: Any = SimpleNamespace(etcd=SimEtcd(), now=0, server=SimpleNamespace())
    return SimEtcdClient(world)


def etcd_store(client: EtcdClient) -> Store:
    for entry in recorded("etcd.json", FIRST_ON_ETCD):
        value = base64.b64decode(entry["base64"]) if "base64" in entry else entry["text"].encode()
        client.transact([], [put(client.key(entry["key"]), value)])
    return EtcdStore(client)


# ---- the state -----------------------------------------------------------------------------------------------


def test_recording_has_every_kind_of_record_and_the_states_that_matter(recording: Recording) -> None:
    stored = recording.store.load()
    newer = {Kind.ATTEMPT, Kind.PAUSE, Kind.BACKFILL, Kind.AD_HOC, Kind.APP_VERSION}
    newer |= {Kind.ALERT, Kind.ALERT_MESSAGE, Kind.SILENCE, Kind.POOL, Kind.CALENDAR}
    newer |= {Kind.WORKFLOW, Kind.WORKFLOW_RUN, Kind.NODE}
    newer |= {Kind.TEAM, Kind.ROLE, Kind.USER, Kind.ACCESS_TOKEN, Kind.SESSION}
    newer |= {Kind.SHARD} if recording.build == FIRST else set()
    assert {kind for kind in Kind if not stored.records[kind]} == {Kind.RESTORATION, *newer}
    restored = restore(stored)
    assert {task.state for task in restored.tasks.values()} >= {
        TaskState.STORED, TaskState.STARTING, TaskState.RUNNING, TaskState.UNREACHABLE,
    }  # fmt: skip
    shards = {shard.state for firing in restored.firings.values() for shard in firing.shards}
    assert shards == set(ShardState)
    assert any(task.kill_ms for task in restored.tasks.values())
    assert any(task.placeholder for task in restored.tasks.values())
    assert any(state.disabled for state in restored.job_states.values())
    assert any(state.skipped for state in restored.job_states.values())


def test_every_record_is_read_without_a_fault(store: Store) -> None:
    stored = store.load()
    restored = restore(stored)
    assert restored.faults == []
    assert restored.framework_id


def test_every_record_is_written_back_as_it_was(store: Store) -> None:
    for kind, key, value in entries(store.load()):
        recorded_ = json.loads(value)
        if kind in (Kind.APP, Kind.JOB):
            # Builds that know these fields write them, and older builds ignore them.
            recorded_["r"] |= {"team": "default", "constraints": [], "environment": [], "files": ""}
        if kind is Kind.JOB:
            recorded_["r"] |= {"ad_hoc": "", "labels": "", "late_after_ms": 0, "no_success_ms": 0, "secrets": []}
            recorded_["r"] |= {"placeholders": [], "parameter_schema": ""}
            recorded_["r"] |= {"webhook_secrets": [], "webhook_scheme": "standard", "webhook_parameters": []}
            recorded_["r"] |= {"thread_pool": "", "preferences": [], "avoid_after": 3}
            recorded_["r"] |= {"triggers": [], "start_time": "", "end_time": "", "blackouts": []}
            recorded_["r"] |= {"skip_on": [], "only_on": [], "on_excluded_day": "skip"}
            recorded_["r"] |= {"jitter_ms": 0, "start_deadline_ms": 0, "pools": [], "expected_by": ""}
            recorded_["r"] |= {"item_range": "", "gang_start": False}
        if kind is Kind.JOB_STATE:
            recorded_["r"] |= {"success_ms": 0, "success_fire_ms": 0}
        assert json.loads(encode(kind, decode(kind, key, value))) == recorded_, f"{kind}/{key}"


def test_scheduler_that_takes_over_changes_no_record(recording: Recording) -> None:
    scheduler = recording.take_over()
    before = {(kind, key): json.loads(value) for kind, key, value in entries(recording.store.load())}
    effects = scheduler.handle(Subscribed(now(scheduler), scheduler.framework_id, "master:5050"))
    changed = {
        (write.kind, write.key)
        for save in of(Save, effects)
        for write in save.writes
        if write.record is None or json.loads(encode(write.kind, write.record)) != before.get((write.kind, write.key))
    }
    assert changed == set()


def test_wide_firing_that_contains_its_shards_keeps_them_and_gets_the_present_form(recording: Recording) -> None:
    """The recordings have no such firing; this one is as build d78466f stored it."""
    store = recording.store
    stored = store.load()
    value = next(value for value in stored.records[Kind.TASK].values() if b'"state":"RUNNING"' in value)
    task = json.loads(value)["r"] | {"id": "count@-@7@-@READY@-@agent@-@1-9999", "firing_id": "count.trigger-1-9999"}
    task |= {"job": "count", "item": 7}
    active = {name: task[name] for name in ("agent_id", "hostname", "executor_id")}
    shards: list[dict[str, Any]] = [{} for _ in range(30)]
    shards[7] = {"state": "ACTIVE", "attempt": 1, "task_id": task["id"], **active}
    shards[8] = {
        "state": "FAILED",
        "attempt": 2,
        "ended_ms": 9,
        "message": "no luck",
        "outcome": {"cause": "exception"},
    }
    generation = json.loads(stored.records[Kind.JOB_STATE]["count"])["r"]["generation"]
    firing = {"id": task["firing_id"], "job": "count", "generation": generation, "cause": "trigger", "fire_ms": 5}
    wide = [(Kind.FIRING, firing["id"], firing | {"shards": shards}), (Kind.TASK, task["id"], task)]
    store.write(
        store.acquire(),
        [StoredWrite(kind, name, json.dumps({"v": 1, "r": record}).encode()) for kind, name, record in wide],
    )
    scheduler = recording.take_over()
    found = scheduler.firings[task["firing_id"]]
    assert [(item, shard.state.value) for item, shard in enumerate(found.shards) if shard.attempt] == [
        (7, "ACTIVE"), (8, "FAILED"),
    ]  # fmt: skip
    assert task["id"] in scheduler.tasks
    effects = scheduler.handle(Subscribed(now(scheduler), scheduler.framework_id, "master:5050"))
    batch = [
        StoredWrite(write.kind, write.key, encode(write.kind, write.record) if write.record is not None else None)
        for save in of(Save, effects)
        for write in save.writes
    ]
    assert {(write.kind, write.key) for write in batch} == {
        (Kind.FIRING, found.id), (Kind.SHARD, f"{found.id}/7"), (Kind.SHARD, f"{found.id}/8"),
    }  # fmt: skip
    store.write(scheduler.epoch, batch)
    written = store.load()
    assert json.loads(written.records[Kind.FIRING][found.id]) == {"v": 2, "r": firing | {"width": 30}}
    again = recording.take_over()
    assert again.firings == scheduler.firings


def test_stored_epoch_is_raised_and_fences_the_recorded_leader(store: Store) -> None:
    first = store.acquire()
    assert first >= 2
    assert store.acquire() == first + 1


def test_marks_in_etcd_name_the_records_of_a_damaged_segment() -> None:
    client = simulated_etcd()
    store = etcd_store(client)
    segments = [entry["key"] for entry in recorded("etcd.json", FIRST_ON_ETCD) if entry["key"].count("-") == 0]
    client.transact([], [put(client.key(segments[-1]), b"\xff")])
    (fault,) = store.load().faults
    assert re.search(r"is damaged .*: \d+ records that it changed are lost", fault.problem)


# ---- the running tasks ---------------------------------------------------------------------------------------


def test_running_tasks_are_adopted_and_none_is_started_twice(recording: Recording) -> None:
    scheduler = recording.take_over()
    adopted = dict(scheduler.tasks)
    at = now(scheduler)
    effects = scheduler.handle(Subscribed(at, scheduler.framework_id, "master:5050"))
    asked = {task_id for reconcile in of(Reconcile, effects) for task_id, _ in reconcile.tasks}
    assert asked == set(adopted)
    for task in adopted.values():
        effects += scheduler.handle(StatusReceived(at, reconciled(task)))
    effects += offer_everywhere(scheduler, at)
    scheduler.validate()

    assert set(adopted) <= set(scheduler.tasks)
    states = {task_id: scheduler.tasks[task_id].state for task_id in adopted}
    assert set(states.values()) == {TaskState.RUNNING, TaskState.STARTING, TaskState.UNREACHABLE}
    busy = {(task.firing_id, task.item) for task in adopted.values() if not task.placeholder}
    started = [TaskName.parse(one.task_id) for one in launches(effects)]
    assert busy.isdisjoint((scheduler.tasks[str(name)].firing_id, name.item) for name in started)
    assert not of(ShutdownExecutor, effects)
    ending = {task.id for task in adopted.values() if task.kill_ms}
    # A drain moves resident shards away, unless others of the job are down.
    down = {task.job for task in adopted.values() if task.state is TaskState.UNREACHABLE}
    moving = {
        task.id
        for task in adopted.values()
        if task.agent_id in scheduler.drains
        and scheduler.jobs[task.job].kind is JobKind.DAEMON
        and task.job not in down
    }
    assert {kill.task_id for kill in of(Kill, effects)} == ending | moving


def test_drained_agent_stays_drained(recording: Recording) -> None:
    scheduler = recording.take_over()
    at = now(scheduler)
    scheduler.handle(Subscribed(at, scheduler.framework_id, "master:5050"))
    for task in list(scheduler.tasks.values()):
        scheduler.handle(StatusReceived(at, reconciled(task)))
    scheduler.handle(Trigger(at, "count"))
    accepted = {accept.agent_id for accept in of(Accept, offer_everywhere(scheduler, at))}
    assert accepted
    assert len(scheduler.drains) == 1
    assert accepted.isdisjoint(scheduler.drains)


def test_shard_joins_a_living_executor_under_its_recorded_description(recording: Recording) -> None:
    """Mesos refuses a task whose ExecutorInfo differs in any byte from that of the executor that runs."""
    scheduler = recording.take_over()
    at = now(scheduler)
    scheduler.handle(Subscribed(at, scheduler.framework_id, "master:5050"))
    for task in list(scheduler.tasks.values()):
        scheduler.handle(StatusReceived(at, reconciled(task)))
    living = next(
        executor
        for executor in scheduler.executors.values()
        if executor.app == "shop" and reachable(scheduler, executor.agent_id)
    )
    for agent in list(scheduler.drains):
        scheduler.handle(UndrainAgent(at, agent))
    scheduler.handle(Trigger(at, "count"))
    scheduler.handle(OffersReceived(at, (offer(living.agent_id),)))
    effects = [effect for second in range(3) for effect in scheduler.handle(Tick(at + second))]
    joined = [launch for launch in launches(effects) if TaskName.parse(launch.task_id).job == "count"]
    assert [launch.executor for launch in joined] == [living] * 2

    operation = json.loads(dumps(launch_operation(joined, living.agent_id, scheduler.framework_id)))
    described = operation["launch"]["task_infos"][0]["executor"]
    assert described.keys() == recorded("executors.json", recording.build)[0].keys()
    for info in recorded("executors.json", recording.build):
        if info["framework_id"] == described["framework_id"] and info["executor_id"] == described["executor_id"]:
            assert without_shares(described) == without_shares(info)


def test_app_of_the_recorded_bundle_gives_the_recorded_executor_id(recording: Recording) -> None:
    restored = restore(recording.store.load())
    contents = {executor.id.rpartition(DELIMITER)[0] for executor in restored.executors.values()}
    planned = {plan_executor(app, recording.artifacts).id for app in restored.apps.values()}
    assert contents <= planned


# ---- what goes to executors ----------------------------------------------------------------------------------


def test_payloads_are_the_recorded_ones(tmp_path: Path) -> None:
    """Each launch of the recording whose firing is still stored, made again by this build."""
    restored = restore(load(sqlite_store(tmp_path)))
    compared = 0
    for info in recorded("launches.json"):
        wanted = json.loads(base64.b64decode(info["data"]))
        task = task_of(info, wanted, restored)
        firing = restored.firings.get(wanted["runId"])
        if task.placeholder:
            made = placeholder_payload(task, wanted["fence"])
        elif firing is not None:
            made = payload(restored.jobs[task.job], firing, task, wanted["fence"])
        else:
            continue  # the history keeps the last firings only
        assert json.loads(made.data) == wanted
        compared += 1
    assert compared >= 40


def test_daemon_reads_recorded_payloads() -> None:
    for info in recorded("executors.json"):
        app = read_app(info["data"])
        assert app.app_name == info["source"]
        assert app.app_version == info["executor_id"]["value"].split(DELIMITER)[1]
    kinds = set()
    for info in recorded("launches.json"):
        task = read_task(info["data"])
        assert task.context["taskId"] == info["task_id"]["value"]
        kinds.add((task.job["jobType"], task.resident, task.step))
    assert kinds >= {
        ("SIMPLE", False, None), ("SIMPLE", True, None), ("SIMPLE", False, "before"), ("SIMPLE", False, "after"),
        ("DATAFLOW", False, None), ("SCRIPT", False, None), ("SCRIPT", True, None), ("KEEPER", False, None),
    }  # fmt: skip


def test_recorded_lines_between_daemon_and_worker_are_of_the_protocol() -> None:
    """Workers of apps that speak the recorded protocol go on working."""
    shapes = {"worker": protocol.TO_WORKER, "daemon": protocol.FROM_WORKER}
    seen: dict[str, set[str]] = {line["to"]: set() for line in recorded("worker_lines.json")}
    for line in recorded("worker_lines.json"):
        message = protocol.decode(line["line"].encode(), shapes[line["to"]])
        assert protocol.encode(message) == line["line"].encode() + b"\n"
        seen[line["to"]].add(message["type"])
    assert seen["daemon"] == set(protocol.FROM_WORKER)
    assert seen["worker"] >= {"hello", "load", "run", "listen", "cancel"}


def test_orders_to_a_worker_are_the_recorded_ones() -> None:
    """The app's own workers get the same orders for the same payloads."""
    payloads = {info["task_id"]["value"]: read_task(info["data"]) for info in recorded("launches.json")}
    compared = set()
    for line in recorded("worker_lines.json"):
        wanted = json.loads(line["line"])
        if line["to"] == "worker" and wanted["type"] in ("load", "run", "listen"):
            made = payloads[wanted["task"]]
            firing = made.resident and wanted["run"] != LOADING
            facts = made.facts(wanted["facts"]["fireTime"] if firing else None)
            execution = WorkerExecution(wanted["task"], wanted["run"], made, facts, unused, unused, unused, unused)
            assert json.loads(protocol.encode(order(execution))) == wanted
            compared.add(wanted["type"])
    assert compared == {"load", "run", "listen"}


# ---- what comes from executors -------------------------------------------------------------------------------


def test_recorded_updates_are_read_on_both_ways() -> None:
    for update in recorded("updates.json"):
        record = json.dumps({"type": "UPDATE", "update": {"status": update}}).encode()
        assert read_common(record, ("*",)) == read_status(update)


def test_recorded_outcomes_are_read() -> None:
    causes, results = set(), []
    for update in recorded("updates.json"):
        status = read_status(update)
        if status.state not in ENDED or status.source != "SOURCE_EXECUTOR":
            continue
        outcome, wanted = parse_outcome(status.data), json.loads(status.data)
        assert outcome.cause == (wanted["cause"] or "")
        assert (json.loads(outcome.result) if outcome.result else None) == wanted.get("result")
        causes.add(outcome.cause)
        results.append(outcome.result)
    assert causes >= {"", "exception", "exit_code", "timeout", "import", "killed", "listener", "worker_lost"}
    assert any(results)


# ---- helpers -------------------------------------------------------------------------------------------------


def unused(*_: object) -> None:
    raise AssertionError("only the order is made")


def load(store: Store) -> StoredRecords:
    stored = store.load()
    store.close()
    return stored


def entries(stored: StoredRecords) -> Iterator[tuple[Kind, str, bytes]]:
    for kind, records in stored.records.items():
        for key, value in records.items():
            yield kind, key, value


def last_instant(restored: Restored) -> int:
    return max(
        *(task.created_ms for task in restored.tasks.values()),
        *(firing.ended_ms for firing in restored.firings.values()),
        *(state.considered_ms for state in restored.job_states.values()),
    )


def now(scheduler: Scheduler) -> int:
    return max(task.created_ms for task in scheduler.tasks.values()) + 1_000


def of(type_: type[Any], effects: Iterable[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, type_)]


def launches(effects: Iterable[Effect]) -> list[Launch]:
    return [launch for accept in of(Accept, effects) for launch in accept.launches]


def reconciled(task: Task) -> Status:
    """Mesos' answer about a task: it is as recorded; a launch without an answer has taken effect."""
    state = TaskState.RUNNING if task.state is TaskState.STORED else task.state
    return Status(task.id, task.agent_id, f"TASK_{state}", reason="REASON_RECONCILIATION")


def reachable(scheduler: Scheduler, agent_id: str) -> bool:
    states = {task.state for task in scheduler.tasks.values() if task.agent_id == agent_id}
    return TaskState.RUNNING in states and TaskState.UNREACHABLE not in states


def offer(agent_id: str) -> Offer:
    origin = '{"allocation_info":{"role":"*"}}'
    shares = (
        Share("cpus", 16_000, origin), Share("mem", 16_000_000, origin), Share("disk", 100_000_000, origin),
        Share("ports", 1_000_000, origin, ranges=((31_000, 31_999),)),
    )  # fmt: skip
    return Offer(f"offer-{agent_id}", agent_id, "agent.localhost", "127.0.0.1:5051", shares)


def offer_everywhere(scheduler: Scheduler, at: int) -> list[Effect]:
    agents = sorted({task.agent_id for task in scheduler.tasks.values()} | {"new-agent"})
    effects = scheduler.handle(OffersReceived(at, tuple(map(offer, agents))))
    for step in range(5):
        effects += scheduler.handle(Tick(at + 1_000 * step))
    return effects


def without_shares(info: dict[str, Any]) -> dict[str, Any]:
    """An executor's shares are cut from the offers of its agent."""
    return {name: value for name, value in info.items() if name != "resources"}


def task_of(info: dict[str, Any], wanted: dict[str, Any], restored: Restored) -> Task:
    name = TaskName.parse(info["task_id"]["value"])
    placeholder = wanted["job"]["jobType"] == "KEEPER"
    contexts = tuple(wanted["job"]["contexts"]) if placeholder else ()
    return Task(
        str(name), "" if placeholder else wanted["runId"], name.job, name.item, wanted["attempt"],
        Execution(wanted["executionType"]), name.agent_id, "", "", info["executor"], Resources(), 0, contexts=contexts,
    )  # fmt: skip
