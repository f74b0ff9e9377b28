"""Stored records: encoding, damage, other versions."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core_world import make_app, make_job

from jobcloud.config import App, CatchUp, Isolation, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import Kind, Record
from jobcloud.model import (
    AccessToken,
    After,
    Alert,
    AlertMessage,
    AppVersion,
    Attempt,
    Backfill,
    Calendar,
    CalendarSource,
    Cause,
    Condition,
    Drain,
    End,
    Execution,
    Executor,
    Firing,
    JobState,
    Join,
    Member,
    Node,
    NodeRun,
    NodeState,
    On,
    Outcome,
    Pause,
    Pool,
    Quota,
    Restoration,
    Role,
    Session,
    Shard,
    ShardState,
    Share,
    Silence,
    Task,
    TaskState,
    Team,
    User,
    Workflow,
    WorkflowRun,
    changed,
    shards_of,
    untried,
)
from jobcloud.ports import StoredFault, StoredRecords
from jobcloud.sentences import Words
from jobcloud.server.records import Unreadable, decode, encode, restore

APP = App("app", Package("http://host/p.zip", "a" * 64), resources=Resources(500, 64_000, 0, 0, 1000))
JOB = Job(
    "job",
    "app",
    JobKind.TRANSIENT,
    JobType.SCRIPT,
    "0/5 * * * * ?",
    4,
    Resources(100, 32_000),
    script="bin/run.sh",
    zone="Europe/Berlin",
    catch_up=CatchUp.ONCE,
)
STATE = JobState(1_700_000_000_000, generation=3, disabled=True)
FIRING = Firing("job.1", "job", 3, Cause.CRON, 1_700_000_000_000, shards_of(Shard(), Shard(ShardState.FINISHED, 2)))
WIDE = Firing("job.2", "job", 3, Cause.CRON, 1_700_000_000_000, untried(10_000))
SHARD = Shard(ShardState.FAILED, 2, message="no luck", outcome=Outcome("exception"))
TASK = Task(
    "t", "job.1", "job", 0, 1, Execution.FAILOVER, "agent", "host", "app", "exec", Resources(1), 5, TaskState.RUNNING
)
EXECUTOR = Executor("exec", "agent", "app", (Share("ports", 2000, ranges=((31000, 31001),)),), "{}", 7)
ATTEMPT = Attempt(1, "t0", "agent", "host", "exec", Execution.READY, End.LOST, 3, 4, "gone", Outcome("", "7"))
ALERT = Alert(Condition.LATE, "job", 5, "it is late", 6, 7, 2, "job.1", "alice", ("ops", "web"), ("web",))
NODES = (Node("first", "web:a"), Node("second", "web:b", (After("first", On.EITHER),), Join.ANY))
WORKFLOW_RUN = WorkflowRun("web:etl.r-1-1", "web:etl", NODES, "first", 5, 6, 7, True, NodeState.FAILED)
SAMPLES: list[tuple[Kind, str, Record]] = [
    (Kind.APP, "app", APP),
    (Kind.JOB, "job", JOB),
    (Kind.APP, "billing:app", replace(APP, team="billing")),
    (Kind.JOB, "billing:job", replace(JOB, team="billing")),
    (Kind.JOB_STATE, "job", STATE),
    (Kind.DISABLED_APP, "app", True),
    (Kind.FIRING, "job.1", FIRING),
    (Kind.FIRING, "job.2", WIDE),
    (Kind.SHARD, "job.2/7", SHARD),
    (Kind.TASK, "t", TASK),
    (Kind.EXECUTOR, "agent/exec", EXECUTOR),
    (Kind.FRAMEWORK, "id", "b1c2-0001"),
    (Kind.DRAIN, "agent", Drain("agent", 5, 7, "disk")),
    (Kind.PAUSE, "job/report", Pause(5)),
    (Kind.BACKFILL, "report", Backfill((5, 7), 2)),
    (Kind.APP_VERSION, "app/3", AppVersion(3, 5, APP, "user:ann")),
    (Kind.RESTORATION, "last", Restoration(5, 7, settled=True)),
    (Kind.ATTEMPT, "job.1/1/1", ATTEMPT),
    (Kind.AD_HOC, "job~2-17", replace(JOB, cron="", ad_hoc="2-17")),
    (Kind.ALERT, "late/job", ALERT),
    (Kind.ALERT_MESSAGE, "ops-3-1", AlertMessage("ops", 5, (ALERT,), 1, 2, 9, "503")),
    (Kind.TEAM, "web", Team("web", (Member("user:ann", "admin"),), Quota(cpus=4_000, shards=9), 3)),
    (Kind.ROLE, "caller", Role("caller", ("trigger", "view"))),
    (Kind.USER, "ann", User("ann", 5, "$argon2id$", disabled=True)),
    (Kind.ACCESS_TOKEN, "t1", AccessToken("t1", "ci", "00ff", "user:ann", 5, 9, (("web", "viewer"),), "user:ann", 7)),
    (Kind.SESSION, "s1", Session("s1", "00ff", "user:ann", "password", 5, 6, 7, ("ops",))),
    (
        Kind.CALENDAR,
        "web:closed",
        Calendar("web:closed", ("2026-12-24", "2026-12-28/2027-01-01"), "2030-12-31", CalendarSource(("2026-12-24",))),
    ),
    (Kind.SILENCE, "s1", Silence(5, 7, Condition.LATE, "j*", comment="a known problem")),
    (Kind.POOL, "*:db", Pool(5, "the database of orders")),
    (Kind.WORKFLOW, "web:etl", Workflow("web:etl", NODES, "first", "orders", 5, 1)),
    (
        Kind.WORKFLOW_RUN,
        "web:etl.r-1-1",
        WorkflowRun("web:etl.r-1-1", "web:etl", NODES, "first", 5, 6, 7, True, NodeState.FAILED),
    ),
    (Kind.NODE, "web:etl.r-1-1/second", NodeRun(NodeState.SKIPPED, ended_ms=7, reason=Words("node_skipped"))),
]


def stored(*entries: tuple[Kind, str, bytes]) -> StoredRecords:
    records = StoredRecords()
    for kind, key, value in entries:
        records.records[kind][key] = value
    return records


@pytest.mark.parametrize(("kind", "key", "record"), SAMPLES, ids=lambda part: str(part)[:20])
def test_each_kind_of_record_survives_encoding(kind: Kind, key: str, record: Record) -> None:
    assert decode(kind, key, encode(kind, record)) == record


def test_samples_contain_every_kind() -> None:
    assert {kind for kind, _, _ in SAMPLES} == set(Kind)


def test_stored_value_is_json_with_a_format_number() -> None:
    assert json.loads(encode(Kind.JOB_STATE, JobState(5))) == {
        "v": 1,
        "r": {
            "considered_ms": 5,
            "generation": 1,
            "disabled": False,
            "skipped": 0,
            "skipped_reason": "",
            "success_ms": 0,
            "success_fire_ms": 0,
        },
    }


def test_words_are_stored_only_if_there_are_some() -> None:
    words = Words("misfire_limit", {"waiting": 2})
    state = JobState(5, skipped=1, skipped_reason="2 firings wait already", skipped_words=words)
    stored_form = json.loads(encode(Kind.JOB_STATE, state))
    assert stored_form["v"] == 1, "older builds read it too"
    assert stored_form["r"].pop("skipped_words") == {"code": "misfire_limit", "parameters": {"waiting": 2}}
    assert decode(Kind.JOB_STATE, "job", encode(Kind.JOB_STATE, state)) == state
    older = decode(Kind.JOB_STATE, "job", json.dumps(stored_form).encode())
    assert older == changed(state, skipped_words=msgspec.UNSET)
    assert "words" not in json.loads(encode(Kind.ALERT, ALERT))["r"]
    told = changed(ALERT, words=Words("misfire"))
    assert json.loads(encode(Kind.ALERT, told))["r"]["words"] == {"code": "misfire"}
    assert decode(Kind.ALERT, "late/job", encode(Kind.ALERT, told)) == told


def test_app_version_of_a_build_that_stored_no_sender_is_read() -> None:
    stored_form = json.loads(encode(Kind.APP_VERSION, AppVersion(3, 5, APP, "user:ann")))
    assert stored_form["v"] == 1, "older builds read it too"
    del stored_form["r"]["by"]
    assert decode(Kind.APP_VERSION, "app/3", json.dumps(stored_form).encode()) == AppVersion(3, 5, APP)


def test_firings_and_tasks_are_stored_without_default_values() -> None:
    shards = shards_of(Shard(), Shard(ShardState.FINISHED, 2, outcome=Outcome("", "7")))
    firing = Firing("job.f", "job", 3, Cause.CRON, 5, shards)
    value = encode(Kind.FIRING, firing)
    assert json.loads(value)["r"] == {
        "id": "job.f",
        "job": "job",
        "generation": 3,
        "cause": "cron",
        "fire_ms": 5,
        "shards": [{}, {"state": "FINISHED", "attempt": 2, "outcome": {"result": "7"}}],
    }
    assert decode(Kind.FIRING, "job.f", value) == firing


def test_everything_is_restored_by_its_key() -> None:
    restored = restore(stored(*((kind, key, encode(kind, record)) for kind, key, record in SAMPLES)))
    assert restored.apps == {"app": APP, "billing:app": replace(APP, team="billing")}
    assert restored.jobs == {"job": JOB, "billing:job": replace(JOB, team="billing")}
    assert restored.job_states == {"job": STATE}
    assert restored.disabled_apps == {"app"}
    assert restored.firings == {"job.1": FIRING, "job.2": WIDE}
    assert restored.shards == {"job.2/7": SHARD}
    assert restored.tasks == {"t": TASK}
    assert restored.executors == {"agent/exec": EXECUTOR}
    assert restored.attempts == {"job.1/1/1": ATTEMPT}
    assert restored.framework_id == "b1c2-0001"
    assert restored.faults == []


def test_lost_record_of_a_shard_counts_as_damaged() -> None:
    wide = changed(WIDE, shards=untried(20))
    found = stored(
        (Kind.FIRING, wide.id, encode(Kind.FIRING, wide)), (Kind.SHARD, "job.2/7", encode(Kind.SHARD, SHARD))
    )
    assert restore(found).shards == {"job.2/7": SHARD}
    found.lost = lambda kind, key: (kind, key) in {(Kind.SHARD, "job.2/3"), (Kind.SHARD, "job.2/7")}
    assert restore(found).shards == {"job.2/7": SHARD, "job.2/3": None}


@pytest.mark.parametrize("key", ["job.2/7", "job.2/7/01", "job.2/-1/1", "job.2/7/2", "job.2/7/x", "7/1", ""])
def test_attempt_under_a_wrong_key_is_damaged_and_affects_nothing_else(key: str) -> None:
    good = (Kind.ATTEMPT, "job.2/3/1", encode(Kind.ATTEMPT, ATTEMPT))
    restored = restore(stored((Kind.FIRING, "job.2", encode(Kind.FIRING, WIDE)), good, (Kind.ATTEMPT, key, good[2])))
    assert restored.attempts == {"job.2/3/1": ATTEMPT}
    assert [fault.path for fault in restored.faults] == [f"attempt/{key}"]


def test_attempts_of_an_unreadable_firing_are_left() -> None:
    attempt = encode(Kind.ATTEMPT, ATTEMPT)
    restored = restore(stored((Kind.FIRING, "other", b"?"), (Kind.ATTEMPT, "other/1/1", attempt)))
    assert restored.attempts == {}
    assert [fault.path for fault in restored.faults] == ["firing/other"]


def test_unreadable_record_of_a_shard_is_damaged_and_those_of_an_unreadable_firing_are_left() -> None:
    found = stored(
        (Kind.FIRING, "job.2", encode(Kind.FIRING, WIDE)), (Kind.SHARD, "job.2/7", b"?"), (Kind.SHARD, "job.2", b"?"),
        (Kind.FIRING, "other", b"?"), (Kind.SHARD, "other/1", encode(Kind.SHARD, SHARD)), (Kind.SHARD, "f/01", b"?"),
        (Kind.SHARD, "job.2/-1", encode(Kind.SHARD, SHARD)),
    )  # fmt: skip
    restored = restore(found)
    assert restored.shards == {"job.2/7": None}
    assert {fault.path for fault in restored.faults} >= {"shard/job.2/7", "shard/job.2", "firing/other", "shard/f/01"}


def test_fields_missing_in_an_older_record_take_their_defaults() -> None:
    assert decode(Kind.JOB_STATE, "j", b'{"v":1,"r":{"considered_ms":5}}') == JobState(5)
    assert decode(Kind.APP, "app", encode(Kind.APP, APP).replace(b'"team":"default",', b"")) == APP
    assert decode(Kind.TASK, "t", encode(Kind.TASK, TASK).replace(b"[1,0,0,0,0]", b"[1,0]")) == TASK


def test_fields_of_a_later_release_of_the_same_format_are_ignored() -> None:
    assert decode(Kind.JOB_STATE, "j", b'{"v":1,"w":2,"r":{"considered_ms":5,"colour":"red"}}') == JobState(5)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"null", "damaged"),
        (b'{"v":1}', "damaged"),
        (b'{"v":1,"r":null}', "damaged"),
        (b'{"v":"1","r":{}}', "damaged"),
        (b'{"v":1,"r":{"name":"job"}}', "missing required field"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"v":3,"r":{}}', "format 3; this version reads formats 1 and 2"),
        (encode(Kind.JOB, JOB).replace(b'"shard_count":4', b'"shard_count":0'), "shardingTotalCount"),
        (encode(Kind.JOB, JOB).replace(b"0/5 *", b"9/x *"), "cron"),
        (encode(Kind.JOB, JOB).replace(b"Europe/Berlin", b"Europe/Nowhere"), "cron"),
        (encode(Kind.JOB, JOB).replace(b'"TRANSIENT"', b'"SOMETIMES"'), "SOMETIMES"),
        (encode(Kind.JOB, replace(JOB, name="other")), "holds the record of 'other'"),
        (encode(Kind.JOB, replace(JOB, team="other")), "holds the record of 'other:job'"),
        (encode(Kind.JOB, JOB).replace(b'"default"', b'"Other:team"'), "is not a valid name of a team"),
        (encode(Kind.JOB, JOB).replace(b'"default"', b'""'), "is not a valid name of a team"),
        (encode(Kind.JOB, JOB).replace(b'"name":"job"', b'"name":"default:job"'), "is not a valid name"),
    ],
)
def test_damaged_or_newer_job_is_a_fault_and_affects_no_other(value: bytes, problem: str) -> None:
    other = replace(JOB, name="good")
    restored = restore(stored((Kind.JOB, "job", value), (Kind.JOB, "good", encode(Kind.JOB, other))))
    assert restored.jobs == {"good": other}
    assert [fault.path for fault in restored.faults] == ["job/job"]
    assert problem in restored.faults[0].problem


def test_faults_of_the_store_are_passed_on() -> None:
    records = StoredRecords(faults=[StoredFault("quota/q", "unknown")])
    assert restore(records).faults == [StoredFault("quota/q", "unknown")]


@settings(max_examples=300)
@given(st.sampled_from(SAMPLES), st.data())
def test_random_damage_of_a_record_is_only_a_fault(sample: tuple[Kind, str, Record], data: st.DataObject) -> None:
    kind, key, record = sample
    value = bytearray(encode(kind, record))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    restored = restore(stored((kind, key, bytes(value))))
    assert all(fault.path == f"{kind}/{key}" for fault in restored.faults)


@given(st.sampled_from(list(Kind)), st.binary(max_size=60))
def test_arbitrary_values_raise_only_unreadable(kind: Kind, value: bytes) -> None:
    with suppress(Unreadable):
        decode(kind, "k", value)


def test_record_of_another_kind_is_not_encoded() -> None:
    with pytest.raises(TypeError, match="cannot be a Task"):
        encode(Kind.JOB, TASK)


def test_job_with_secrets_has_a_format_that_earlier_builds_refuse() -> None:
    job = make_job(secrets=("PASSWORD=secret:db-password",))
    for kind, record in (
        (Kind.JOB, job),
        (Kind.JOB, make_job(gang_start=True)),
        (Kind.AD_HOC, replace(job, cron="", ad_hoc="1-1")),
    ):
        stored = encode(kind, record)
        assert json.loads(stored)["v"] == 2
        assert decode(kind, record.key, stored) == record
    assert json.loads(encode(Kind.JOB, make_job()))["v"] == 1
    with pytest.raises(Unreadable, match="format 2"):
        decode(Kind.TASK, TASK.id, encode(Kind.TASK, TASK).replace(b'"v":1', b'"v":2', 1))


@pytest.mark.parametrize("field", ["constraints", "environment", "files"])
def test_field_that_must_not_be_ignored_has_a_format_that_earlier_builds_refuse(field: str) -> None:
    given: dict[str, Any] = {
        "constraints": ("zone == a",), "environment": ("REGION=eu",), "files": '{"a": "b"}',
    }  # fmt: skip
    app, job = make_app(**{field: given[field]}), make_job(isolation=Isolation.PROCESS, **{field: given[field]})
    for kind, record in ((Kind.APP, app), (Kind.JOB, job)):
        stored = encode(kind, record)
        assert json.loads(stored)["v"] == 2
        assert decode(kind, record.key, stored) == record
    assert json.loads(encode(Kind.JOB, make_job(placeholders=("jobParameter",))))["v"] == 2
    assert json.loads(encode(Kind.APP, make_app()))["v"] == 1


@pytest.mark.parametrize(
    "record",
    [
        NodeRun(NodeState.WAITING),
        NodeRun(NodeState.RUNNING, "job.1", 5, 6),
        NodeRun(NodeState.SUCCEEDED, "job.1", 5),
    ],
)
def test_a_damaged_node_counts_as_failed_so_that_it_does_not_start_twice(record: NodeRun) -> None:
    key = "web:etl.r-1-1/second"
    restored = restore(stored((Kind.NODE, key, encode(Kind.NODE, record))))
    assert restored.nodes[key].state is NodeState.FAILED
    assert [fault.path for fault in restored.faults] == [f"node/{key}"]


@pytest.mark.parametrize(
    ("nodes", "start"),
    [((), "first"), (NODES, "second"), (NODES[1:], "second"), ((Node("first", "a", (After("first"),)),), "first")],
)
def test_a_workflow_whose_graph_is_damaged_is_not_read(nodes: tuple[Node, ...], start: str) -> None:
    with pytest.raises(Unreadable, match="is damaged"):
        decode(Kind.WORKFLOW, "web:etl", encode(Kind.WORKFLOW, Workflow("web:etl", nodes, start)))
