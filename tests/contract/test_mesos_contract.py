"""Behaviour of a Mesos master and its agents: recorded on a real Mesos 1.11, and the same on both clusters."""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.clusters import REGISTRATION_S
from tests.mesos_client import Cluster, Framework, Stream, amounts, post, request, total

EXECUTOR = Path(__file__).with_name("scripted_executor.py")
Frameworks = Callable[..., Framework]
Json = dict[str, Any]


def executor(framework: Framework, name: str = "e", **more: Any) -> Json:
    return {
        "type": "CUSTOM",
        "executor_id": {"value": name},
        "framework_id": framework.info["id"],
        "command": {"value": f"exec {sys.executable} {EXECUTOR}"},
        "resources": amounts(cpus=0.1, mem=32),
        **more,
    }


def task(name: str, offer: Json, info: Json, *commands: Json, **more: Any) -> Json:
    data = base64.b64encode(json.dumps(list(commands)).encode()).decode()
    return {
        "name": name,
        "task_id": {"value": name},
        "agent_id": offer["agent_id"],
        "executor": info,
        "resources": amounts(cpus=0.5, mem=64),
        "data": data,
        **more,
    }


def update_of(name: str, state: str = "TASK_RUNNING", **more: Any) -> Json:
    return {"update": name, "state": state, **more}


def launch(framework: Framework, name: str = "t", info: Json | None = None, *commands: Json) -> tuple[Json, Json]:
    """Launch a task on the next offer. Returns the offer and the acknowledged RUNNING update.

    `commands` are sent after the update: an executor's messages and its status updates arrive in any order.
    """
    offer, info = framework.offers(1)[0], info or executor(framework)
    framework.accept([offer], task(name, offer, info, update_of(name)))
    running = framework.update(name, "TASK_RUNNING")
    if commands:
        framework.command(offer["agent_id"], info["executor_id"]["value"], *commands)
    return offer, running


def summary(status: Json) -> tuple[Any, ...]:
    return tuple(status.get(key) for key in ("state", "source", "reason", "message"))


# ---- subscribe -------------------------------------------------------------------------------------------------


def test_subscription_is_answered_with_stream_of_framed_records(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    stream = framework.stream
    assert stream.status == 200
    assert stream.headers["content-type"] == "application/json"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert stream.stream_id
    first = stream.events[0]
    assert first["type"] == "SUBSCRIBED"
    assert first["subscribed"]["heartbeat_interval_seconds"] == 15.0
    assert first["subscribed"]["framework_id"]["value"]
    assert first["subscribed"]["master_info"]["version"].startswith("1.11")
    assert framework.next("HEARTBEAT", seconds=12) == {"type": "HEARTBEAT"}  # the first comes at once


def test_offers_name_agent_role_and_resources(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offers = framework.offers(2)
    assert len({one["agent_id"]["value"] for one in offers}) == 2
    for offer in offers:
        assert set(offer) == {"id", "framework_id", "agent_id", "hostname", "url", "resources", "allocation_info"}
        assert offer["framework_id"] == framework.info["id"]
        assert offer["allocation_info"] == {"role": "*"}
        assert all(one["allocation_info"] == {"role": "*"} and one["role"] == "*" for one in offer["resources"])
        assert total(offer["resources"]) == {"cpus": 4.0, "mem": 4096.0, "disk": 10000.0}
        ports = next(one for one in offer["resources"] if one["name"] == "ports")
        assert ports["ranges"] == {"range": [{"begin": 31000, "end": 31999}]}


def test_frameworks_with_refined_reservations_get_the_newer_resource_format(
    cluster: Cluster, frameworks: Frameworks
) -> None:
    framework = frameworks(cluster.master, "RESERVATION_REFINEMENT", roles=["batch"])
    offer = framework.offers(1)[0]
    assert offer["allocation_info"] == {"role": "batch"}
    assert all("role" not in one and one["allocation_info"] == {"role": "batch"} for one in offer["resources"])


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"role": "x"}, "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"),
        ({"roles": ["a", "a"]}, "'FrameworkInfo.roles' contains duplicate items: { a }"),
        ({"roles": ["/a"]}, None),
        ({"roles": [""]}, None),
        ({"roles": ["a b"]}, None),
    ],
)
def test_invalid_framework_gets_error_on_its_stream(cluster: Cluster, info: Json, message: str | None) -> None:
    stream = Stream(cluster.master, "/api/v1/scheduler", subscription(**info))
    stream.wait_end()
    stream.close()
    assert [event["type"] for event in stream.events] == ["ERROR"]
    if message is not None:
        assert stream.events[0]["error"]["message"] == message


def subscription(**info: Any) -> Json:
    made = {"user": "root", "name": "x", "capabilities": [{"type": "MULTI_ROLE"}], "roles": ["*"], **info}
    return {"type": "SUBSCRIBE", "subscribe": {"framework_info": made}}


def test_suppressed_role_must_be_one_of_its_roles(cluster: Cluster) -> None:
    call = subscription()
    call["subscribe"]["suppressed_roles"] = ["other"]
    stream = Stream(cluster.master, "/api/v1/scheduler", call)
    stream.wait_end()
    stream.close()
    assert stream.events[0]["error"]["message"] == "Suppressed role 'other' is not contained in the list of roles"


# ---- refused calls ---------------------------------------------------------------------------------------------


def test_bad_requests_have_their_status_codes(cluster: Cluster) -> None:
    path = "/api/v1/scheduler"
    subscribe = json.dumps(subscription())

    def status(method: str = "POST", body: str | None = subscribe, **headers: str) -> int:
        return request(cluster.master, method, path, body, **headers).status

    as_json = {"content_type": "application/json"}
    assert status("GET", None) == 405
    assert status() == 400  # no content type
    assert status(content_type="text/plain") == 415
    assert status(body="{", **as_json) == 400
    assert status(body="", **as_json) == 400
    assert status(body="[]", **as_json) == 400
    assert status(body="null", **as_json) == 400
    assert status(body='{"type": 7}', **as_json) == 400
    assert status(body='{"type": "NONSENSE"}', **as_json) == 400
    assert status(body='{"type": "SUBSCRIBE"}', **as_json) == 400
    assert status(body='{"type": "ACCEPT"}', **as_json) == 400
    assert status(body='{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"name": "x"}}}', **as_json) == 400
    assert status(accept="text/html", **as_json) == 406
    assert status(mesos_stream_id="x", **as_json) == 400
    named = subscription(id={"value": "a"})
    assert status(body=json.dumps(named), **as_json) == 400  # framework_info.id without framework_id


@pytest.mark.parametrize(
    "kind", ["ACCEPT", "DECLINE", "KILL", "SHUTDOWN", "ACKNOWLEDGE", "RECONCILE", "MESSAGE", "REQUEST"]
)
def test_call_without_its_part_is_refused(cluster: Cluster, frameworks: Frameworks, kind: str) -> None:
    framework = frameworks(cluster.master)
    answer = framework.call(kind)
    assert (answer.status, answer.body) == (
        400,
        f"Failed to validate scheduler::Call: Expecting '{kind.lower()}' to be present",
    )


def test_call_needs_the_right_stream_and_framework(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    call = {"type": "REVIVE", "framework_id": framework.info["id"]}
    path = "/api/v1/scheduler"
    missing = post(cluster.master, path, call)
    assert missing.status == 400
    assert missing.body == "All non-subscribe calls should include the 'Mesos-Stream-Id' header"
    wrong = post(cluster.master, path, call, mesos_stream_id="nonsense")
    assert wrong.status == 400
    assert wrong.body.startswith("The stream ID 'nonsense' included in this request didn't match")
    unknown = post(cluster.master, path, {**call, "framework_id": {"value": "nobody"}}, mesos_stream_id="x")
    assert (unknown.status, unknown.body) == (400, "Framework cannot be found")
    nameless = post(cluster.master, path, {"type": "REVIVE"}, mesos_stream_id="x")
    assert nameless.status == 400
    assert framework.call("REVIVE").status == 202


def test_rare_calls_are_accepted(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, roles=["one"])
    offers = framework.offers(2)
    assert framework.call("REQUEST", {"requests": []}).status == 202
    assert framework.call("ACCEPT_INVERSE_OFFERS", {"inverse_offer_ids": [{"value": "none"}]}).status == 202
    assert framework.call("DECLINE_INVERSE_OFFERS", {"inverse_offer_ids": [{"value": "none"}]}).status == 202
    renamed = {"framework_info": {**framework.info, "roles": ["two"]}}
    assert framework.call("UPDATE_FRAMEWORK", renamed).status == 200
    rescinded = [framework.next("RESCIND")["rescind"]["offer_id"]["value"] for _ in offers]
    assert set(rescinded) == {one["id"]["value"] for one in offers}
    assert {one["allocation_info"]["role"] for one in framework.offers(2)} == {"two"}
    other_principal = {"framework_info": {**framework.info, "principal": "other"}}
    assert framework.call("UPDATE_FRAMEWORK", other_principal).status == 400
    other_user = {"framework_info": {**framework.info, "user": "nobody"}}
    assert framework.call("UPDATE_FRAMEWORK", other_user).status == 400


@pytest.mark.parametrize(
    ("field", "kept", "value"), [("user", "root", "nobody"), ("checkpoint", True, False), ("checkpoint", False, True)]
)
def test_changed_user_or_checkpointing_is_ignored_without_a_word(
    cluster: Cluster, frameworks: Frameworks, field: str, kept: Any, value: Any
) -> None:
    framework = frameworks(cluster.master, **{field: kept})
    changed = {**framework.info, field: value}
    refused = framework.call("UPDATE_FRAMEWORK", {"framework_info": changed})
    old, new = (str(one).lower() for one in (kept, value))
    assert refused.status == 400
    told = refused.body.removeprefix(
        f"FrameworkInfo update is not valid: Updating 'FrameworkInfo.{field}' is unsupported"
    )
    assert told == f"; attempted to update from '{old}' to '{new}'"
    framework.stream.close()
    framework.info = changed
    framework.subscribe()
    assert framework.stream.events[0]["type"] == "SUBSCRIBED"
    state = request(cluster.master, "GET", "/state").json()["frameworks"]
    assert next(one for one in state if one["id"] == framework.id)[field] == kept
    assert framework.call("UPDATE_FRAMEWORK", {"framework_info": {**changed, field: kept}}).status == 200


def test_changed_principal_is_refused(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    changed = {**framework.info, "principal": "other"}
    refused = framework.call("UPDATE_FRAMEWORK", {"framework_info": changed})
    assert refused.status == 400
    assert refused.body.endswith("Changing framework's principal is not allowed.")
    again = Framework(cluster.master)
    again.info = changed
    again.subscribe()
    assert again.stream.events[0] == {
        "type": "ERROR",
        "error": {"message": "Changing framework's principal is not allowed."},
    }
    again.stream.close()
    assert framework.call("REVIVE").status == 202  # the first one is still subscribed


def test_update_of_an_unchanged_framework_changes_nothing(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offers = framework.offers(2)
    assert framework.call("UPDATE_FRAMEWORK", {"framework_info": framework.info}).status == 200
    framework.expect_none("RESCIND", "OFFERS", seconds=1)
    framework.accept([offers[0]], task("t", offers[0], executor(framework), update_of("t")))
    assert framework.update("t")["state"] == "TASK_RUNNING"


def test_wrong_types_in_a_call_change_nothing(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = framework.offers(2)
    assert framework.call("DECLINE", {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": "soon"}}).status == 400
    assert framework.call("DECLINE", {"offer_ids": "all"}).status == 400
    assert (
        framework.call("ACKNOWLEDGE", {"agent_id": offer["agent_id"], "task_id": {"value": "t"}, "uuid": "%"}).status
        == 400
    )
    short = {"agent_id": offer["agent_id"], "task_id": {"value": "t"}, "uuid": "AAAA"}
    assert framework.call("ACKNOWLEDGE", short).status == 400
    assert framework.call("KILL", {"task_id": "t"}).status == 400
    framework.accept([offer], task("t", offer, executor(framework), update_of("t")))  # the offer is still there
    assert framework.update("t")["state"] == "TASK_RUNNING"


# ---- accept ----------------------------------------------------------------------------------------------------


def test_task_runs_and_its_update_has_every_field(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, status = launch(framework)
    assert set(status) == {
        "task_id",
        "state",
        "source",
        "agent_id",
        "executor_id",
        "timestamp",
        "uuid",
        "container_status",
    }
    assert status["source"] == "SOURCE_EXECUTOR"
    assert status["agent_id"] == offer["agent_id"]
    assert status["executor_id"] == {"value": "e"}
    assert set(status["container_status"]) == {"container_id", "network_infos", "executor_pid"}


def test_executor_gets_its_infos_and_its_task(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    info = executor(framework, labels={"labels": [{"key": "a", "value": "b"}]})
    info["command"]["uris"] = [{"value": "/etc/hostname"}]
    framework.accept([offer], task("t", offer, info))
    subscribed = framework.reported("SUBSCRIBED")["event"]["subscribed"]
    assert set(subscribed) == {"executor_info", "framework_info", "agent_info", "container_id"}
    assert subscribed["framework_info"]["id"] == framework.info["id"]
    assert subscribed["executor_info"]["labels"] == {"labels": [{"key": "a", "value": "b"}]}
    command = subscribed["executor_info"]["command"]
    assert (command["shell"], command["uris"]) == (True, [{"value": "/etc/hostname", "extract": True}])
    assert (subscribed["framework_info"]["checkpoint"], subscribed["framework_info"]["failover_timeout"]) == (
        False,
        600,
    )
    assert subscribed["agent_info"]["id"] == offer["agent_id"]
    told = framework.reported("LAUNCH")["event"]["launch"]["task"]
    assert told["task_id"] == {"value": "t"}
    assert told["agent_id"] == offer["agent_id"]
    assert told["executor"]["executor_id"] == {"value": "e"}
    assert all(one["allocation_info"] == {"role": "*"} for one in told["resources"])


def test_executor_environment_has_variables_of_mesos(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, checkpoint=True)
    info = executor(framework)
    info["command"]["environment"] = {"variables": [{"name": "OWN", "value": "1"}]}
    info["shutdown_grace_period"] = {"nanoseconds": 3_000_000_000}
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, info, {"environment": True}))
    told = framework.reported("environment")
    variables = told["variables"]
    agent = offer["agent_id"]["value"]
    fixed = {
        "MESOS_FRAMEWORK_ID": framework.id,
        "MESOS_EXECUTOR_ID": "e",
        "MESOS_SLAVE_ID": agent,
        "MESOS_CHECKPOINT": "1",
        "MESOS_AGENT_ENDPOINT": cluster.agent(agent),
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "3secs",
        "MESOS_HTTP_COMMAND_EXECUTOR": "0",
        "OWN": "1",
    }
    assert {name: variables.get(name) for name in fixed} == fixed
    assert variables["MESOS_SANDBOX"] == variables["MESOS_DIRECTORY"] == told["directory"]
    assert {"MESOS_RECOVERY_TIMEOUT", "MESOS_SUBSCRIPTION_BACKOFF_MAX", "MESOS_SLAVE_PID", "PATH"} <= set(variables)
    assert {"stdout", "stderr"} <= set(told["files"])


def test_executor_environment_shows_missing_checkpointing(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework), {"environment": True}))
    variables = framework.reported("environment")["variables"]
    assert variables["MESOS_CHECKPOINT"] == "0"
    assert "MESOS_RECOVERY_TIMEOUT" not in variables
    assert "MESOS_SUBSCRIPTION_BACKOFF_MAX" not in variables


def test_executor_is_charged_once_for_two_tasks(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    info = executor(framework)
    first, status = launch(framework, "t1", info)
    framework.call("REVIVE")
    agent = first["agent_id"]["value"]
    offer = framework.offers(1, agent=agent)[0]
    assert total(offer["resources"]) == {"cpus": 3.4, "mem": 4000.0, "disk": 10000.0}
    assert offer["executor_ids"] == [{"value": "e"}]
    framework.accept([offer], task("t2", offer, info, update_of("t2")))
    second = framework.update("t2")
    assert second["container_status"] == status["container_status"]
    framework.call("REVIVE")
    rest = framework.offers(1, agent=agent)[0]
    assert total(rest["resources"]) == {"cpus": 2.9, "mem": 3936.0, "disk": 10000.0}
    framework.decline([rest], 600)
    framework.command(first["agent_id"], "e", update_of("t1", "TASK_FINISHED"))
    framework.update("t1", "TASK_FINISHED")
    framework.call("REVIVE")
    assert total(framework.offers(1, agent=agent)[0]["resources"])["cpus"] == 3.4


def test_executor_info_may_omit_framework_id(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    info = executor(framework)
    del info["framework_id"]
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, info, update_of("t")))
    assert (
        framework.reported("SUBSCRIBED")["event"]["subscribed"]["executor_info"]["framework_id"] == framework.info["id"]
    )


def test_several_tasks_of_one_accept_are_launched_in_order(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    info = executor(framework)
    offer = framework.offers(1)[0]
    names = [f"t{n}" for n in range(5)]
    framework.accept([offer], *[task(name, offer, info, update_of(name)) for name in names])
    assert [framework.update()["task_id"]["value"] for _ in names] == names


def test_several_offers_of_one_agent_are_used_together(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t1")  # leaves 3.4 cpus
    agent = offer["agent_id"]["value"]
    framework.call("REVIVE")
    rest = framework.offers(1, agent=agent)[0]
    framework.command(offer["agent_id"], "e", update_of("t1", "TASK_FINISHED"))
    framework.update("t1", "TASK_FINISHED")  # its 0.5 cpus come as an offer of their own
    freed = framework.offers(1, agent=agent)[0]
    assert total(freed["resources"]) == {"cpus": 0.5, "mem": 64.0}
    big = task("t2", offer, executor(framework), update_of("t2"), resources=amounts(cpus=3.8, mem=64))
    framework.accept([rest, freed], big)
    assert framework.update("t2")["state"] == "TASK_RUNNING"


def test_offers_of_two_agents_cannot_be_accepted_together(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offers = framework.offers(2)
    framework.accept(offers, task("t", offers[0], executor(framework)))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS")
    assert status["message"].startswith(
        "Task launched with invalid offers: Aggregated offers must belong to one single agent."
    )
    assert "uuid" not in status
    assert len(framework.offers(2)) == 2  # they are offered again, without a filter


@pytest.mark.parametrize(("capability", "state"), [("PARTITION_AWARE", "TASK_DROPPED"), ("GPU_RESOURCES", "TASK_LOST")])
def test_launch_on_an_unknown_offer_is_dropped(
    cluster: Cluster, frameworks: Frameworks, capability: str, state: str
) -> None:
    framework = frameworks(cluster.master, capability)
    offer = framework.offers(1)[0]
    offer["id"] = {"value": "no-such-offer"}
    assert framework.accept([offer], task("t", offer, executor(framework))).status == 202
    assert summary(framework.update("t")) == (
        state,
        "SOURCE_MASTER",
        "REASON_INVALID_OFFERS",
        "Task launched with invalid offers: Offer no-such-offer is no longer valid",
    )


def test_offer_can_be_used_once(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework)
    framework.accept([offer], task("t2", offer, executor(framework)))
    assert summary(framework.update("t2"))[:3] == ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS")
    framework.call("REVIVE")
    fresh = framework.offers(1, agent=offer["agent_id"]["value"])[0]
    framework.accept([fresh, fresh], task("t3", offer, executor(framework)))
    assert framework.update("t3")["message"] == (
        f"Task launched with invalid offers: Duplicate offer {fresh['id']['value']} in offer list"
    )


def test_accept_without_offers_drops_its_tasks(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([], task("t", offer, executor(framework)))
    assert framework.update("t")["message"] == "Task launched with invalid offers: No offers specified"


def test_offer_of_another_framework_is_refused(cluster: Cluster, frameworks: Frameworks) -> None:
    owner = frameworks(cluster.master)
    offer = owner.offers(1)[0]
    other = frameworks(cluster.master)
    other.accept([offer], task("t", offer, executor(other)))
    status = other.update("t")
    assert summary(status)[:3] == ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS")
    assert "has invalid framework" in status["message"]


def bad_tasks() -> Iterator[tuple[str, Callable[[Json], Json], str]]:
    """A name, a function that makes a task invalid, and the beginning of Mesos' message."""

    def put(**fields: Any) -> Callable[[Json], Json]:
        return lambda one: {**one, **fields}

    def put_executor(**fields: Any) -> Callable[[Json], Json]:
        return lambda one: {**one, "executor": {**one["executor"], **fields}}

    def drop(name: str) -> Callable[[Json], Json]:
        return lambda one: {key: value for key, value in one.items() if key != name}

    negative = {"nanoseconds": -1}
    yield "more than offered", put(resources=amounts(cpus=40, mem=64)), "Total resources "
    yield "no resources", drop("resources"), "Task uses no resources"
    yield "another agent", put(agent_id={"value": "elsewhere"}), "Task uses invalid agent elsewhere while agent "
    yield "a slash in its id", put(task_id={"value": "a/b"}), ""
    yield "an empty id", put(task_id={"value": ""}), ""
    yield "an id that is too long", put(task_id={"value": "x" * 300}), ""
    yield "neither command nor executor", drop("executor"), "Task should have at least one (but not both)"
    yield "command and executor", put(command={"value": "true"}), "Task should have at least one (but not both)"
    yield "negative grace", put(kill_policy={"grace_period": negative}), "Task's 'kill_policy.grace_period' must be"
    yield "negative time", put(max_completion_time=negative), "Task's `max_completion_time` must be non-negative"
    yield "executor of another framework", put_executor(framework_id={"value": "other"}), "ExecutorInfo has an invalid"
    yield "executor without command", put_executor(command=None), "'ExecutorInfo.command' must be set"
    yield "executor type", put_executor(type="DEFAULT"), ""
    yield "executor id", put_executor(executor_id={"value": "a/b"}), ""
    yield "executor grace", put_executor(shutdown_grace_period=negative), "ExecutorInfo's 'shutdown_grace_period' must"
    yield "executor resources", put_executor(resources=amounts(mem=99999)), "Total resources "
    bare = {"variables": [{"name": "A"}]}
    yield (
        "variable",
        put_executor(command={"value": "true", "environment": bare}),
        "Executor's `CommandInfo` is invalid",
    )


@pytest.mark.parametrize(("change", "message"), [pytest.param(s, m, id=n) for n, s, m in bad_tasks()])
def test_invalid_task_is_an_error_and_its_offer_stays_usable(
    cluster: Cluster, frameworks: Frameworks, change: Callable[[Json], Json], message: str
) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    bad = change(task("t", offer, executor(framework)))
    bad["executor"] = {k: v for k, v in bad["executor"].items() if v is not None} if "executor" in bad else None
    bad = {key: value for key, value in bad.items() if value is not None}
    good = task("good", offer, executor(framework), update_of("good"))
    framework.accept([offer], bad, good)
    status = framework.update()
    assert status["task_id"] == bad["task_id"]
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert status["message"].startswith(message)
    assert "uuid" not in status
    assert framework.update("good")["state"] == "TASK_RUNNING"


PORTS: Json = {"name": "ports", "type": "RANGES"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": -1}}, "Invalid scalar resource: value <= 0"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.0001}}, "Invalid scalar resource: value <= 0"),
        ({"name": "cpus", "type": "SCALAR"}, "Invalid scalar resource"),
        ({**PORTS, "ranges": {"range": [{"begin": 9, "end": 8}]}}, "Invalid ranges resource: begin > end"),
        (
            {**PORTS, "ranges": {"range": [{"begin": 1, "end": 8}, {"begin": 8, "end": 9}]}},
            "Invalid ranges resource: overlapping ranges",
        ),
    ],
)
def test_invalid_resources_fail_whole_operation(
    cluster: Cluster, frameworks: Frameworks, entry: Json, message: str
) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    info = executor(framework)
    bad = task("bad", offer, info, resources=[entry])
    framework.accept([offer], task("good", offer, info, update_of("good")), bad)
    for name in ("good", "bad"):
        status = framework.update(name)
        assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
        assert status["message"].startswith("Resource '")
        assert status["message"].endswith(f"' is invalid: {message}")


def test_resource_of_amount_zero_is_ignored(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    made = task("t", offer, executor(framework), update_of("t"), resources=amounts(cpus=0, mem=64))
    framework.accept([offer], made)
    assert framework.update("t")["state"] == "TASK_RUNNING"


def test_task_id_in_use_is_refused_and_reusable_after_end(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.call("REVIVE")
    agent = offer["agent_id"]["value"]
    framework.accept(framework.offers(1, agent=agent), task("t", offer, executor(framework)))
    assert summary(framework.update("t")) == (
        "TASK_ERROR",
        "SOURCE_MASTER",
        "REASON_TASK_INVALID",
        "Task has duplicate ID: t",
    )
    framework.command(offer["agent_id"], "e", update_of("t", "TASK_FINISHED"))
    framework.update("t", "TASK_FINISHED")
    position = framework.seen
    framework.reported("ACKNOWLEDGED")
    framework.seen = position  # the offer may come before or after that report
    framework.call("REVIVE")
    framework.accept(framework.offers(1, agent=agent), task("t", offer, executor(framework), update_of("t")))
    assert framework.update("t")["state"] == "TASK_RUNNING"


def test_incompatible_executor_is_an_error(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t1")
    framework.call("REVIVE")
    again = framework.offers(1, agent=offer["agent_id"]["value"])
    other = executor(framework, resources=amounts(cpus=0.2, mem=32))
    framework.accept(again, task("t2", offer, other))
    status = framework.update("t2")
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert status["message"].startswith(
        "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID."
    )


def test_executors_are_compared_by_meaning(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t1")
    framework.call("REVIVE")
    again = framework.offers(1, agent=offer["agent_id"]["value"])
    same = executor(framework)
    same["resources"].reverse()
    same["command"]["shell"] = True
    framework.accept(again, task("t2", offer, same, update_of("t2")))
    assert framework.update("t2")["state"] == "TASK_RUNNING"


def test_rest_of_accepted_offer_returns_after_filter(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    begin = time.monotonic()
    info = executor(framework)
    framework.accept([offer], task("t", offer, info, update_of("t")), filters={"refuse_seconds": 1.5})
    rest = framework.offers(1, agent=offer["agent_id"]["value"])[0]
    assert time.monotonic() - begin >= 1.4
    assert total(rest["resources"])["cpus"] == 3.4


# ---- decline, suppress, revive ---------------------------------------------------------------------------------


def test_decline_hides_offer_for_duration_of_filter(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    short, long = framework.offers(2)
    begin = time.monotonic()
    framework.decline([long], 600)
    framework.decline([short], 1.5)
    back = framework.offers(1)[0]
    assert time.monotonic() - begin >= 1.4
    assert back["agent_id"] == short["agent_id"]
    framework.expect_none("OFFERS", seconds=0.5)
    framework.call("REVIVE")  # forgets the filters
    assert framework.offers(1)[0]["agent_id"] == long["agent_id"]


def test_decline_without_filter_hides_for_five_seconds(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offers = framework.offers(2)
    begin = time.monotonic()
    framework.decline(offers)
    framework.offers(1)
    assert time.monotonic() - begin >= 4.9


def test_offer_declined_for_zero_seconds_returns(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offers = framework.offers(2)
    framework.decline(offers, 0)
    assert len(framework.offers(2)) == 2


def test_decline_of_unknown_offer_is_accepted(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    assert framework.decline([{"id": {"value": "no-such-offer"}}], 1).status == 202


def test_suppressed_roles_get_no_offers_until_revived(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, roles=["one", "two"])
    offers = framework.offers(2)
    framework.call("SUPPRESS")
    framework.decline(offers, 0)
    framework.expect_none("OFFERS", seconds=0.5)
    framework.call("REVIVE", {"roles": ["two"]})
    offers = framework.offers(2)
    assert {one["allocation_info"]["role"] for one in offers} == {"two"}
    assert framework.call("SUPPRESS", {"roles": ["foreign"]}).status == 202  # accepted, without effect
    framework.decline(offers, 0)
    assert len(framework.offers(2)) == 2


def test_role_can_be_suppressed_at_subscription(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = Framework(cluster.master, "PARTITION_AWARE").subscribe(suppressed_roles=["*"])
    try:
        framework.expect_none("OFFERS", seconds=0.5)
        framework.call("REVIVE")
        assert len(framework.offers(2)) == 2
    finally:
        framework.teardown()


def test_two_frameworks_share_agents(cluster: Cluster, frameworks: Frameworks) -> None:
    first = frameworks(cluster.master)
    held = first.offers(2)
    second = frameworks(cluster.master)
    first.decline(held, 0)
    mine = second.offers(1)
    first.offers(1)
    assert len(mine) == 1


# ---- status updates --------------------------------------------------------------------------------------------


def test_updates_come_in_order_and_repeat_until_acknowledged(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    begin = time.monotonic()
    commands = [update_of("t", "TASK_STARTING"), update_of("t"), update_of("t", "TASK_FINISHED", message="done")]
    framework.accept([offer], task("t", offer, executor(framework), *commands))
    first = framework.update("t", acknowledge=False)
    assert first["state"] == "TASK_STARTING"
    framework.expect_none("UPDATE", seconds=0.5)  # the second waits for the first's acknowledgement
    wrong = {**first, "uuid": base64.b64encode(bytes.fromhex("aaaaaaaaaaaa4aaa8aaaaaaaaaaaaaaa")).decode()}
    assert framework.acknowledge(wrong).status == 202
    again = framework.update("t", acknowledge=False)
    assert time.monotonic() - begin >= 9.5
    assert again["uuid"] == first["uuid"]
    framework.acknowledge(again)
    assert framework.update("t")["state"] == "TASK_RUNNING"
    last = framework.update("t")
    assert (last["state"], last["message"]) == ("TASK_FINISHED", "done")


def test_reconciliation_answers_with_last_sent_state_until_acknowledgement(
    cluster: Cluster, frameworks: Frameworks
) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework), update_of("t"), update_of("t", "TASK_FINISHED")))
    status = framework.update("t", acknowledge=False)
    framework.reported("ACKNOWLEDGED")
    framework.reported("ACKNOWLEDGED")
    framework.call("RECONCILE", {"tasks": []})
    answer = framework.update("t", acknowledge=False)
    assert answer["state"] == "TASK_RUNNING"  # the state sent last, not the newest one
    framework.acknowledge(status)
    assert framework.update("t")["state"] == "TASK_FINISHED"


def test_executor_keeps_its_tasks_over_resubscription(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.reported("ACKNOWLEDGED")
    framework.command(offer["agent_id"], "e", {"resubscribe": True})
    framework.reported("SUBSCRIBED")
    framework.command(offer["agent_id"], "e", update_of("t", "TASK_FINISHED"))
    assert framework.update("t")["state"] == "TASK_FINISHED"


def test_undelivered_task_is_dropped(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework)))
    framework.reported("LAUNCH")
    framework.command(offer["agent_id"], "e", {"resubscribe": "forgetful"})
    assert summary(framework.update("t")) == (
        "TASK_DROPPED",
        "SOURCE_AGENT",
        "REASON_AGENT_RESTARTED",
        "Task launched during agent restart",
    )


def test_executor_update_is_acknowledged_at_once(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework), update_of("t")))
    status = framework.update("t", acknowledge=False)
    assert framework.reported("ACKNOWLEDGED")["event"]["acknowledged"]["uuid"] == status["uuid"]
    framework.acknowledge(status)


def test_bad_executor_calls_have_their_status_codes(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    agent = cluster.agent(offer["agent_id"]["value"])
    base: Json = {"framework_id": framework.info["id"], "executor_id": {"value": "e"}}
    status = {"task_id": {"value": "t"}, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR"}
    uuid = base64.b64encode(bytes.fromhex("bbbbbbbbbbbb4bbb8bbbbbbbbbbbbbbb")).decode()

    def update(**fields: Any) -> int:
        call = {**base, "type": "UPDATE", "update": {"status": {**status, "uuid": uuid, **fields}}}
        return post(agent, "/api/v1/executor", call).status

    def status_of(call: Any) -> int:
        return post(agent, "/api/v1/executor", call).status

    assert status_of({**base, "type": "SUBSCRIBE"}) == 400
    assert status_of({"type": "SUBSCRIBE", "subscribe": {}}) == 400
    assert status_of({**base, "type": "SUBSCRIBE", "subscribe": {}, "framework_id": {"value": "x"}}) == 400
    assert status_of({**base, "type": "SUBSCRIBE", "subscribe": {}, "executor_id": {"value": "x"}}) == 400
    assert status_of({**base, "type": "UPDATE", "update": {"status": status}}) == 400  # no uuid
    assert status_of({**base, "type": "MESSAGE"}) == 400
    assert status_of({**base, "type": "NONSENSE"}) == 400
    assert update(uuid="AAAA") == 400
    assert update(uuid=base64.b64encode(b"\x00" * 16).decode()) == 400  # sixteen bytes of no known version
    assert update(source="SOURCE_AGENT") == 400
    assert update(state="TASK_STAGING") == 400
    assert update(executor_id={"value": "other"}) == 400
    assert request(agent, "POST", "/api/v1/executor", "{", content_type="application/json").status == 400
    assert request(agent, "POST", "/api/v1/executor", "{}", content_type="text/plain").status == 415
    assert request(agent, "GET", "/api/v1/executor").status == 405
    assert update() == 202
    assert framework.update("t")["uuid"] == uuid


def test_messages_pass_in_both_directions(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.command(offer["agent_id"], "e", {"environment": True})
    event = framework.next("MESSAGE", where=lambda e: b"environment" in base64.b64decode(e["message"]["data"])[-400:])
    assert event["message"]["agent_id"] == offer["agent_id"]
    assert event["message"]["executor_id"] == {"value": "e"}
    assert framework.command({"value": "nowhere"}, "e", {}).status == 202
    assert framework.command(offer["agent_id"], "nobody", {}).status == 202


# ---- kill, exit, crash -----------------------------------------------------------------------------------------


def test_kill_reaches_executor_with_policy(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    policy = {"grace_period": {"nanoseconds": 5}}
    framework.call("KILL", {"task_id": {"value": "t"}, "agent_id": offer["agent_id"], "kill_policy": policy})
    assert framework.reported("KILL")["event"]["kill"] == {"task_id": {"value": "t"}, "kill_policy": policy}
    framework.call("KILL", {"task_id": {"value": "t"}})  # without the agent: the master knows it
    framework.reported("KILL")
    framework.call("KILL", {"task_id": {"value": "t"}, "agent_id": {"value": "elsewhere"}})  # ignored
    framework.command(offer["agent_id"], "e", update_of("t", "TASK_KILLED"))
    assert framework.update("t")["state"] == "TASK_KILLED"


def test_kill_of_unknown_task_is_answered_like_reconciliation(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.call("KILL", {"task_id": {"value": "t"}, "agent_id": offer["agent_id"]})
    assert summary(framework.update("t")) == (
        "TASK_GONE",
        "SOURCE_MASTER",
        "REASON_RECONCILIATION",
        "Reconciliation: Task is unknown to the agent",
    )


def test_task_killed_before_executor_subscribes_does_not_run(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    slow = executor(framework)
    slow["command"]["value"] = f"sleep 1; {slow['command']['value']}"
    framework.accept([offer], task("t", offer, slow, update_of("t")))
    framework.call("KILL", {"task_id": {"value": "t"}, "agent_id": offer["agent_id"]})
    status = framework.update("t")
    assert summary(status) == (
        "TASK_KILLED",
        "SOURCE_AGENT",
        "REASON_TASK_KILLED_DURING_LAUNCH",
        "Killed before delivery to the executor",
    )
    assert "uuid" in status
    failure = framework.next("FAILURE")["failure"]  # an executor that subscribes without a task is shut down
    assert failure["executor_id"] == {"value": "e"}


@pytest.mark.parametrize(("command", "status"), [({"exit": 0}, 0), ({"exit": 3}, 768), ({"signal": 9}, 9)])
def test_executor_exit_fails_its_tasks(cluster: Cluster, frameworks: Frameworks, command: Json, status: int) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.command(offer["agent_id"], "e", command)
    failure = framework.next("FAILURE", "UPDATE")  # FAILURE comes first
    assert failure["failure"] == {"agent_id": offer["agent_id"], "executor_id": {"value": "e"}, "status": status}
    last = framework.update("t")
    assert summary(last)[:3] == ("TASK_FAILED", "SOURCE_AGENT", "REASON_EXECUTOR_TERMINATED")
    assert last["message"] == "Executor terminated"


def test_executor_that_does_not_subscribe_is_killed(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework, command={"value": "exec sleep 60"})))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_FAILED", "SOURCE_AGENT", "REASON_EXECUTOR_REGISTRATION_TIMEOUT")
    assert status["message"] == f"Executor did not register within {REGISTRATION_S}secs"


def test_failed_fetch_fails_tasks(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    info = executor(framework)
    info["command"]["uris"] = [{"value": "file:///no/such/file", "extract": False}]
    framework.accept([offer], task("t", offer, info))
    failure = framework.next("FAILURE", "UPDATE")
    assert failure["failure"]["status"] == 9
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_FAILED", "SOURCE_AGENT", "REASON_CONTAINER_LAUNCH_FAILED")
    assert status["message"].startswith("Failed to launch container: Failed to fetch all URIs for container ")


def test_uri_options_control_fetch(cluster: Cluster, frameworks: Frameworks, tmp_path: Path) -> None:
    import zipfile

    plain, archive = tmp_path / "plain.txt", tmp_path / "packed.zip"
    plain.write_text("text")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("inside.txt", "packed text")
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    info = executor(framework)
    info["command"]["uris"] = [
        {"value": str(plain), "output_file": "renamed.txt", "executable": True},
        {"value": f"file://{archive}", "extract": True},
        {"value": str(archive), "extract": False, "output_file": "sub/kept.zip", "cache": True},
    ]
    framework.accept([offer], task("t", offer, info, {"environment": True}))
    files = framework.reported("environment")["files"]
    assert {"renamed.txt", "inside.txt", "packed.zip", "sub"} <= set(files)


def test_shutdown_ends_one_executor(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": offer["agent_id"]})
    framework.reported("SHUTDOWN")
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_FAILED", "SOURCE_AGENT", "REASON_EXECUTOR_TERMINATED")


def test_executor_that_ignores_shutdown_is_killed(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t", None, {"deaf": True})
    framework.reported("deaf")
    framework.call("SHUTDOWN", {"executor_id": {"value": "e"}, "agent_id": offer["agent_id"]})
    begin = time.monotonic()
    status = framework.update("t")
    assert time.monotonic() - begin >= 0.8
    assert summary(status)[:3] == ("TASK_FAILED", "SOURCE_AGENT", "REASON_EXECUTOR_TERMINATED")


# ---- reconcile -------------------------------------------------------------------------------------------------


def test_explicit_reconciliation_answers_for_each_task(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, running = launch(framework, "known")
    asked = [
        {"task_id": {"value": "known"}, "agent_id": offer["agent_id"]},
        {"task_id": {"value": "unknown-here"}, "agent_id": offer["agent_id"]},
        {"task_id": {"value": "unknown-agent"}, "agent_id": {"value": "nowhere"}},
        {"task_id": {"value": "no-agent"}},
    ]
    framework.call("RECONCILE", {"tasks": asked})
    answers = [framework.update() for _ in asked]
    assert [summary(one) for one in answers] == [
        ("TASK_RUNNING", "SOURCE_MASTER", "REASON_RECONCILIATION", "Reconciliation: Latest task state"),
        ("TASK_GONE", "SOURCE_MASTER", "REASON_RECONCILIATION", "Reconciliation: Task is unknown to the agent"),
        ("TASK_UNKNOWN", "SOURCE_MASTER", "REASON_RECONCILIATION", "Reconciliation: Task is unknown"),
        ("TASK_UNKNOWN", "SOURCE_MASTER", "REASON_RECONCILIATION", "Reconciliation: Task is unknown"),
    ]
    assert answers[0]["container_status"] == running["container_status"]
    assert answers[0]["executor_id"] == {"value": "e"}
    assert all("uuid" not in one for one in answers)
    assert "agent_id" not in answers[3]


def test_reconciliation_without_partition_awareness_answers_task_lost(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, "GPU_RESOURCES")
    offer = framework.offers(1)[0]
    asked = [{"task_id": {"value": "a"}, "agent_id": offer["agent_id"]}, {"task_id": {"value": "b"}}]
    framework.call("RECONCILE", {"tasks": asked})
    assert [framework.update()["state"] for _ in asked] == ["TASK_LOST", "TASK_LOST"]


def test_implicit_reconciliation_answers_for_all_tasks(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    info = executor(framework)
    framework.accept([offer], *[task(name, offer, info, update_of(name)) for name in ("a", "b")])
    framework.update("a")
    framework.update("b")
    framework.call("RECONCILE", {"tasks": []})
    answers = {one["task_id"]["value"]: summary(one)[:3] for one in (framework.update(), framework.update())}
    assert answers == dict.fromkeys(("a", "b"), ("TASK_RUNNING", "SOURCE_MASTER", "REASON_RECONCILIATION"))
    framework.expect_none("UPDATE", seconds=0.3)


def test_staging_task_reconciles_as_staging(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework)))
    framework.reported("LAUNCH")
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t"}}]})
    assert framework.update("t")["state"] == "TASK_STAGING"


# ---- re-subscribe, teardown ------------------------------------------------------------------------------------


def wait_until_refused(framework: Framework, status: int) -> str:
    """The text of the refusal with `status`, which comes when the master has noticed that the stream is closed."""
    deadline = time.monotonic() + 60
    while (answer := framework.call("REVIVE")).status != status:
        assert time.monotonic() < deadline, answer.status
        time.sleep(0.02)
    return answer.body


def test_framework_resubscribes_with_its_id(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t")
    framework.stream.close()
    assert wait_until_refused(framework, 403) == "Framework is not subscribed"
    old = framework.id
    framework.subscribe()
    assert framework.id == old
    framework.command(offer["agent_id"], "e", update_of("t", "TASK_FINISHED"))
    assert framework.update("t")["state"] == "TASK_FINISHED"


def test_new_scheduler_of_framework_replaces_old_one(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    launch(framework, "t")
    old = framework.stream
    framework.subscribe()
    old.wait_end()
    old.close()
    assert old.events[-1] == {"type": "ERROR", "error": {"message": "Framework failed over"}}
    call = {"type": "REVIVE", "framework_id": framework.info["id"]}
    answer = post(cluster.master, "/api/v1/scheduler", call, mesos_stream_id=old.stream_id)
    assert answer.status == 400
    assert answer.body.startswith(f"The stream ID '{old.stream_id}' included in this request didn't match")
    assert framework.call("REVIVE").status == 202
    framework.call("RECONCILE", {"tasks": []})
    assert framework.update("t")["state"] == "TASK_RUNNING"


def test_updates_wait_for_disconnected_scheduler(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    slow = executor(framework)
    slow["command"]["value"] = f"sleep 0.5; {slow['command']['value']}"
    framework.accept([offer], task("t", offer, slow, update_of("t")))
    framework.stream.close()
    framework.subscribe()
    assert framework.update("t")["state"] == "TASK_RUNNING"


def test_unknown_framework_id_is_accepted(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, id={"value": "of-another-master"})
    assert framework.id == "of-another-master"
    assert len(framework.offers(2)) == 2


def test_torn_down_framework_cannot_resubscribe(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    launch(framework, "t")
    assert framework.call("TEARDOWN").status == 202
    framework.stream.wait_end()
    assert framework.call("REVIVE").status == 400
    framework.stream.close()
    framework.subscribe()
    assert framework.stream.events == [{"type": "ERROR", "error": {"message": "Framework has been removed"}}]
    framework.stream.wait_end()


def test_teardown_ends_executors_and_frees_agents(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    launch(framework, "t")
    framework.call("TEARDOWN")
    framework.stream.wait_end()
    heir = frameworks(cluster.master)
    assert [total(one["resources"])["cpus"] for one in heir.offers(2)] == [4.0, 4.0]


def test_framework_without_failover_timeout_ends_with_its_stream(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, failover_timeout=0.0)
    launch(framework, "t")
    framework.stream.close()
    wait_until_refused(framework, 400)  # the framework is removed
    heir = frameworks(cluster.master)
    assert [total(one["resources"])["cpus"] for one in heir.offers(2)] == [4.0, 4.0]
    framework.subscribe()
    assert framework.stream.events[0]["error"]["message"] == "Framework has been removed"
    framework.stream.wait_end()


def test_framework_can_change_name_and_roles_but_not_principal(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, roles=["one"])
    framework.offers(2)
    framework.stream.close()
    framework.info.update(name="renamed", roles=["two"])
    framework.subscribe()
    assert {one["allocation_info"]["role"] for one in framework.offers(2)} == {"two"}
    framework.stream.close()
    framework.info["principal"] = "other"
    framework.subscribe()
    assert framework.stream.events[0]["error"]["message"] == "Changing framework's principal is not allowed."
    framework.stream.wait_end()
    framework.stream.close()
    del framework.info["principal"]
    framework.subscribe()


# ---- state and files -------------------------------------------------------------------------------------------


def test_state_shows_frameworks_tasks_and_agents(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master, name="shown")
    offer, _ = launch(framework, "t")
    for path in ("/state", "/master/state"):
        state = request(cluster.master, "GET", path).json()
        mine = next(one for one in state["frameworks"] if one["id"] == framework.id)
        assert (mine["name"], mine["active"], mine["connected"]) == ("shown", True, True)
        assert [(one["id"], one["state"], one["slave_id"], one["executor_id"]) for one in mine["tasks"]] == [
            ("t", "TASK_RUNNING", offer["agent_id"]["value"], "e")
        ]
        assert mine["tasks"][0]["resources"] == {"disk": 0.0, "mem": 64.0, "gpus": 0.0, "cpus": 0.5}
        assert [one["executor_id"] for one in mine["executors"]] == ["e"]
        assert mine["used_resources"]["cpus"] == pytest.approx(0.6)
        agent = next(one for one in state["slaves"] if one["id"] == offer["agent_id"]["value"])
        assert agent["used_resources"]["cpus"] == pytest.approx(0.6)
        assert agent["resources"]["ports"] == "[31000-31999]"
    slaves = request(cluster.master, "GET", "/slaves").json()["slaves"]
    assert {one["id"] for one in slaves} == {one["id"] for one in state["slaves"]}
    for address in (cluster.master, cluster.agent(offer["agent_id"]["value"])):
        assert request(address, "GET", "/version").json()["version"].startswith("1.11.")
        assert request(address, "GET", "/nothing").status == 404
    assert request(cluster.master, "GET", "/health").status == 200
    assert request(cluster.agent(offer["agent_id"]["value"]), "GET", "/health").status == 200


def test_operator_api_answers(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, running = launch(framework, "t")

    def ask(kind: str) -> Any:
        answer = post(cluster.master, "/api/v1", {"type": kind})
        assert answer.status == 200
        assert answer.json()["type"] == kind
        return answer.json()[kind.lower()]

    assert ask("GET_HEALTH") == {"healthy": True}
    assert len(ask("GET_AGENTS")["agents"]) == 2
    mine = [one for one in ask("GET_FRAMEWORKS")["frameworks"] if one["framework_info"]["id"] == framework.info["id"]]
    assert (mine[0]["active"], mine[0]["connected"], mine[0]["recovered"]) == (True, True, False)
    tasks = [one for one in ask("GET_TASKS")["tasks"] if one["framework_id"] == framework.info["id"]]
    assert [(one["state"], one["agent_id"], one["status_update_uuid"]) for one in tasks] == [
        ("TASK_RUNNING", offer["agent_id"], running["uuid"])
    ]
    assert {"get_tasks", "get_executors", "get_frameworks", "get_agents"} <= set(ask("GET_STATE"))
    assert post(cluster.master, "/api/v1", {"type": "NONSENSE"}).status == 400
    assert post(cluster.master, "/api/v1", {"type": "MARK_AGENT_GONE"}).status == 400
    gone = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "nowhere"}}}
    assert post(cluster.master, "/api/v1", gone).status == 404


def test_task_output_can_be_read_from_agent(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t", None, {"environment": True})
    directory = framework.reported("environment")["directory"]
    agent = cluster.agent(offer["agent_id"]["value"])
    virtual = f"/frameworks/{framework.id}/executors/e/runs/latest"
    for folder in (directory, virtual):
        answer = request(agent, "GET", f"/files/read?path={folder}/stdout&offset=0")
        assert answer.status == 200
        assert answer.json()["data"].startswith("scripted executor ")
        length = request(agent, "GET", f"/files/read?path={folder}/stdout").json()
        assert length == {"data": "", "offset": len(answer.json()["data"])}
        part = request(agent, "GET", f"/files/read?path={folder}/stdout&offset=9&length=8").json()
        assert part == {"data": "executor", "offset": 9}
        listed = request(agent, "GET", f"/files/browse?path={folder}").json()
        assert {"stdout", "stderr"} <= {one["path"].rpartition("/")[2] for one in listed}
        assert set(listed[0]) == {"path", "size", "mode", "mtime", "nlink", "uid", "gid"}
        assert request(agent, "GET", f"/files/read?path={folder}/nothing&offset=0").status == 404
        assert request(agent, "GET", f"/files/read?path={folder}/..%2f..%2f..&offset=0").status in (400, 404)
    assert request(agent, "GET", "/files/read?path=/etc/passwd&offset=0").status == 404
    assert request(agent, "GET", "/files/read").status == 400


def test_agent_operator_api_lists_and_reads_binary_files(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "t", None, {"environment": True})
    directory = framework.reported("environment")["directory"]
    (Path(directory) / "odd").write_bytes(b"\xff\x00" * 5)
    agent = cluster.agent(offer["agent_id"]["value"])

    def ask(kind: str, **body: Any) -> Any:
        answer = post(agent, "/api/v1", {"type": kind, kind.lower(): body})
        return answer.json()[kind.lower()] if answer.status == 200 else answer.status

    virtual = f"/frameworks/{framework.id}/executors/e/runs/latest"
    for folder in (directory, virtual):
        listed = {one["path"]: one["size"] for one in ask("LIST_FILES", path=folder)["file_infos"]}
        assert listed[f"{folder}/odd"] == 10
        part = ask("READ_FILE", path=f"{folder}/odd", offset=1, length=3)
        assert part == {"size": 10, "data": base64.b64encode(b"\x00\xff\x00").decode()}
        assert ask("READ_FILE", path=f"{folder}/odd", offset=11, length=3) == {"size": 10, "data": ""}
        assert ask("READ_FILE", path=f"{folder}/nothing", offset=0) == 404
        assert ask("LIST_FILES", path=f"{folder}/nothing") == 404
    assert ask("READ_FILE", path="/etc/passwd", offset=0) == 404
    assert ask("NONSENSE") == 400
    shown = request(agent, "GET", "/state").json()
    (mine,) = (one for one in shown["frameworks"] if one["id"] == framework.id)
    assert [(one["id"], one["directory"]) for one in mine["executors"]] == [("e", directory)]


def test_connection_serves_many_requests(cluster: Cluster) -> None:
    host, _, port = cluster.master.partition(":")
    link = http.client.HTTPConnection(host, int(port), timeout=20)
    for _ in range(3):
        link.request("GET", "/health")
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200
    link.close()
