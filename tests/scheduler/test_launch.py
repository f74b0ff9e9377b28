"""The content of an ACCEPT: the executor's description and identity, and the shares of tasks and executors."""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import ARTIFACTS, Desk, make_app, make_job, make_offer, payload_of

from jobcloud.config import App, Isolation, JobKind, Package, Resources
from jobcloud.executor.payload import read_app, read_task
from jobcloud.messages import Kind, Trigger
from jobcloud.model import Cause, Execution, Executor, JobState, Share, Task, changed, content_of
from jobcloud.scheduler import sharding
from jobcloud.scheduler.cluster import InsufficientResources, Pool, amounts
from jobcloud.scheduler.launch import plan_executor, task_shares
from jobcloud.server.records import decode, encode


def spec_of(app: App) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan_executor(app, ARTIFACTS).spec)
    return found


def make_task(**fields: Any) -> Task:
    given = {"resources": Resources(1000, 128_000)} | fields
    return Task("t", "f", "report", 0, 1, Execution.READY, "a1", "h", "shop", "e", created_ms=7, **given)


#: what a task of `make_task` needs, and its agent
NEED = Resources(1000, 128_000), "a1"
CHANGES = [
    {"package": Package("package:sha256:", "f" * 64)},
    {"package": Package("package:sha256:", f"{1:064x}", file="other.zip")},
    {"resources": Resources(2000, 128_000)},
    {"cache": False},
    {"sampling": 5},
    {"idle_timeout_ms": 5_000},
    {"max_parallel": 3},
    {"bootstrap_script": "bin/worker"},
    {"environment": ("REGION=eu",)},
    {"files": '{"a":"b"}'},
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_input_of_an_executor_changes_its_id(change: dict[str, Any]) -> None:
    assert plan_executor(replace(make_app(), **change), ARTIFACTS).id != plan_executor(make_app(), ARTIFACTS).id


@pytest.mark.parametrize("field", ["executor_sha256", "executor_file", "command"])
def test_new_executor_program_changes_the_executor_id(field: str) -> None:
    other = replace(ARTIFACTS, **{field: "x" * 64})
    assert plan_executor(make_app(), other).id != plan_executor(make_app(), ARTIFACTS).id


def test_same_content_from_another_address_has_another_id_and_equal_content() -> None:
    plan = plan_executor(make_app(), ARTIFACTS)
    there = plan_executor(make_app(), replace(ARTIFACTS, base_url="https://standby.test:8898"))
    assert (there.id, there.executor_id(()) != plan.executor_id(())) == (plan.id, True)
    assert content_of(there.executor_id(())) == content_of(plan.executor_id(())) == content_of(plan.id) == plan.id
    assert there.spec == plan.spec.replace("http://artifacts/", "https://standby.test:8898/")


def test_executor_that_fetches_its_files_itself_gets_a_shell_line_for_them() -> None:
    plan = plan_executor(make_app(), ARTIFACTS)
    own = plan_executor(make_app(), replace(ARTIFACTS, base_url="https://a.test:1", fetch="fetch 'the authorities'"))
    assert own.id == plan.id, "other authorities change no version of an app, so no shard starts again"
    assert own.executor_id(()) != plan.executor_id(()), "the description is another one"
    command = json.loads(own.spec)["command"]
    assert "uris" not in command
    words = shlex.split(command["value"].partition(" || exit 1; ")[0])
    executor = [f"https://a.test:1/{ARTIFACTS.executor_sha256}/{ARTIFACTS.executor_file}", ARTIFACTS.executor_file]
    assert words == ["fetch", "the authorities", *executor, f"https://a.test:1/{1:064x}/package.zip", "package.zip"]
    assert command["value"].endswith(f" || exit 1; {ARTIFACTS.command}")


def test_moved_package_with_the_same_hash_is_the_same_package() -> None:
    moved = replace(make_app(), package=Package("https://cdn.test/x", f"{1:064x}"))
    assert plan_executor(moved, ARTIFACTS) == plan_executor(make_app(), ARTIFACTS)


def test_description_of_an_app_changes_no_executor() -> None:
    assert plan_executor(make_app(description="new"), ARTIFACTS) == plan_executor(make_app(), ARTIFACTS)


def test_fetcher_unpacks_nothing_and_gets_the_hash() -> None:
    spec = spec_of(make_app())
    assert [(uri["extract"], uri["executable"]) for uri in spec["command"]["uris"]] == [(False, False)] * 2
    data = json.loads(base64.b64decode(spec["data"]))
    assert data["package"] == {"file": "package.zip", "sha256": f"{1:064x}"}
    assert plan_executor(make_app(), ARTIFACTS).id.endswith(data["appVersion"])


@pytest.mark.parametrize("url", ["package:sha256:", "https://cdn.test/x.tgz"])
def test_packages_are_fetched_from_our_artifact_listener_by_hash(url: str) -> None:
    app = replace(make_app(), package=Package(url, "a" * 64, "p.zip"))
    assert spec_of(app)["command"]["uris"][1]["value"] == f"http://artifacts/{'a' * 64}/p.zip"


def test_first_task_on_an_agent_pays_for_the_executor_and_the_next_one_joins_it() -> None:
    plan = plan_executor(make_app(), ARTIFACTS)
    pool = Pool([make_offer("o1", cpus=3, mem=384)])
    shares, executor = task_shares(pool, *NEED, None, plan, 7, gone=False)
    assert (amounts(shares), amounts(executor.shares)) == (Resources(1000, 128_000), plan.resources)
    assert executor == Executor(plan.executor_id(executor.shares), "a1", "shop", executor.shares, plan.spec, 7)
    again, same = task_shares(pool, *NEED, executor, plan, 8, gone=False)
    assert same is executor
    assert amounts(again) == Resources(1000, 128_000)
    with pytest.raises(InsufficientResources, match="cpus, mem"):
        task_shares(pool, *NEED, executor, plan, 9, gone=False)


def test_restarted_executor_is_allocated_again_with_the_same_id() -> None:
    plan = plan_executor(make_app(), ARTIFACTS)
    _, executor = task_shares(Pool([make_offer("o1", cpus=3, mem=384)]), *NEED, None, plan, 7, gone=False)
    pool = Pool([make_offer("o2", cpus=1, mem=192)])
    with pytest.raises(InsufficientResources, match="cpus"):
        task_shares(pool, *NEED, executor, plan, 8, gone=True)
    pool = Pool([make_offer("o3", cpus=3, mem=384)])
    _, same = task_shares(pool, *NEED, executor, plan, 8, gone=True)
    assert same is executor
    parts = zip(Resources(3000, 384_000), plan.resources, make_task().resources, strict=True)
    left = Resources(*(have - executor_takes - task_takes for have, executor_takes, task_takes in parts))
    assert amounts(pool.allocate(left)) == left
    with pytest.raises(InsufficientResources):
        pool.allocate(Resources(cpus=1))


def test_restarted_executor_needs_the_role_that_it_had() -> None:
    plan = plan_executor(make_app(), ARTIFACTS)
    first = Pool([make_offer("o1", cpus=3, mem=384, role="batch")])
    _, executor = task_shares(first, *NEED, None, plan, 7, gone=False)
    other = Pool([make_offer("o2", cpus=3, mem=384, role="web")])
    with pytest.raises(InsufficientResources, match="same role"):
        task_shares(other, *NEED, executor, plan, 8, gone=True)
    shares, same = task_shares(other, *NEED, executor, plan, 8, gone=False)
    assert same is executor  # a task of one role may join an executor of another
    assert {share.origin for share in shares} == {'{"allocation_info": {"role": "web"}}'}


def test_executors_with_shares_of_different_roles_have_different_ids() -> None:
    """Mesos refuses a task whose executor lives with other resources, also if the scheduler has forgotten it."""
    plan = plan_executor(make_app(), ARTIFACTS)
    pools = (Pool([make_offer("o", cpus=3, mem=384, role=role)]) for role in ("batch", "batch", "web"))
    batch, again, web = (task_shares(pool, *NEED, None, plan, 7, gone=False)[1] for pool in pools)
    assert batch == again
    assert (content_of(web.id), web.id != batch.id) == (plan.id, True)


def test_failed_allocation_leaves_the_pool_unchanged() -> None:
    pool = Pool([make_offer("o1", cpus=1, mem=128)])
    plan = plan_executor(make_app(), ARTIFACTS)
    with pytest.raises(InsufficientResources):
        task_shares(pool, *NEED, None, plan, 7, gone=False)
    assert amounts(pool.allocate(Resources(1000, 128_000))) == Resources(1000, 128_000)


@pytest.mark.parametrize(
    ("kind", "listener"),
    [(JobKind.TRANSIENT, ""), (JobKind.DAEMON, ""), (JobKind.TRANSIENT, "shop.jobs:Around")],
)
def test_payload_holds_the_jobs_fields_with_any_characters(kind: JobKind, listener: str) -> None:
    odd = '"}\\\n\u2028 ß€,{"a":[%s] \x7f'
    about: dict[str, Any] = {"parameter": odd, "shard_count": 2, "shard_parameters": '0="}{ß,1=\\n', "description": odd}
    job = make_job(kind=kind, firing_listener=listener, **about)
    firing = sharding.make_firing(job, JobState(0), Cause.CRON, 7_000, "unique", "prod")
    steps = ["before", "after"] if listener else []
    for item in range(len(firing.shards)):
        task = changed(make_task(), id=f'report@-@{item}@-@READY@-@"agent"@-@1-1', item=item)
        found = json.loads(sharding.payload(job, firing, task, fence=12).data)
        step = steps[item - 2] if item >= 2 else None
        assert found["shardingContext"] == {
            "jobName": "report", "taskId": task.id, "shardingTotalCount": 2, "jobParameter": odd,
            "shardingItem": item if step is None else 1 - item, "shardingParameter": ['"}{ß', "\\n", "", ""][item],
        }  # fmt: skip
        head = {key: found[key] for key in ("schema", "runId", "attempt", "fence", "fireTime", "executionType")}
        fire_ms = None if kind is JobKind.DAEMON else 7_000
        assert head == {"schema": 1, "runId": firing.id, "attempt": 1, "fence": 12, "fireTime": fire_ms,
                        "executionType": "READY"}  # fmt: skip
        assert found.get("step") == step
        assert found["job"]["jobExecutionType"] == kind


def test_ports_of_a_task_are_stored_and_told_to_its_executor() -> None:
    needs: dict[str, Any] = {"resources": Resources(1000, 128_000, ports=3000)}
    desk = Desk(
        make_app(resources=Resources(100, 32_000, ports=1000)), make_job(shard_count=2, **needs), make_job("plain")
    )
    for job in ("report", "plain"):
        desk.do(Trigger(desk.at, job))
    offer = make_offer("o1")
    ports = (Share("ports", 6_000, ranges=((31_000, 31_005),)), Share("ports", 4_000, "{}", True, ((100, 103),)))
    launched = {one.name: one for one in desk.launched(desk.offer(changed(offer, shares=(*offer.shares, *ports))))}
    told = {name: payload_of(one).get("ports") for name, one in launched.items()}
    # The executor's own port is the first of the reserved ones.
    assert told == {
        "report@-@0": [101, 102, 103], "report@-@1": [31_000, 31_001, 31_002], "plain@-@0": None,
    }  # fmt: skip
    stored = {task.job + str(task.item): task.ports for task in desk.stored.tasks.values()}
    assert stored == {"report0": (101, 102, 103), "report1": (31_000, 31_001, 31_002), "plain0": ()}
    for task in desk.stored.tasks.values():
        assert decode(Kind.TASK, task.id, encode(Kind.TASK, task)) == task


def test_variables_reach_the_executor_in_a_format_of_their_own() -> None:
    spec = spec_of(make_app(environment=("REGION=eu", "OPTIONS=-Da=b")))
    data = json.loads(base64.b64decode(spec["data"]))
    assert (data["schema"], data["environment"]) == (2, {"REGION": "eu", "OPTIONS": "-Da=b"})
    assert read_app(spec["data"]).environment == data["environment"]
    plain = json.loads(base64.b64decode(spec_of(make_app())["data"]))
    assert (plain["schema"], "environment" in plain) == (1, False)


@pytest.mark.parametrize("secrets", [(), ("KEY=secret:key",)])
def test_payload_of_a_job_with_variables_has_a_format_of_its_own(secrets: tuple[str, ...]) -> None:
    job = make_job(isolation=Isolation.PROCESS, environment=("REGION=eu",), secrets=secrets)
    firing = sharding.make_firing(job, JobState(0), Cause.CRON, 7_000, "unique", "prod")
    data = sharding.payload(job, firing, make_task(), fence=12).data
    assert json.loads(data)["schema"] == 3
    assert json.loads(data)["job"]["environment"] == {"REGION": "eu"}
    found = read_task(base64.b64encode(data).decode())
    assert (found.environment, len(found.secrets)) == ({"REGION": "eu"}, len(secrets))


def test_files_reach_the_executor_in_formats_of_their_own() -> None:
    spec = spec_of(make_app(environment=("REGION=eu",), files='{"conf/a":"b"}'))
    assert json.loads(base64.b64decode(spec["data"]))["schema"] == 3
    assert (read_app(spec["data"]).files, read_app(spec_of(make_app())["data"]).files) == ({"conf/a": "b"}, {})
    job = make_job(files='{"conf/a":"c {fire_time:%Y}"}', placeholders=("jobParameter",), secrets=("KEY=secret:key",))
    firing = sharding.make_firing(job, JobState(0), Cause.CRON, 7_000, "unique", "prod")
    data = sharding.payload(job, firing, make_task(), fence=12).data
    assert json.loads(data)["schema"] == 5
    found = read_task(base64.b64encode(data).decode())
    assert (found.files, len(found.secrets)) == ({"conf/a": "c {fire_time:%Y}"}, 1)
    assert found.for_execution(found.facts()).files == found.files, "placeholders in files stay as they are"
    assert "files" not in found.job
    plain = sharding.payload(make_job(), firing, make_task(), fence=12).data
    assert (json.loads(plain)["schema"], "files" in json.loads(plain)["job"]) == (1, False)
