"""Workflows in the API: their graphs, their runs, and the reasons of nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import ARTIFACTS, FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.messages import CancelWorkflowRun, PutWorkflow, RemoveWorkflow
from jobcloud.model import Workflow
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.workflow_graph import MAX_NODES
from jobcloud.sentences import Words
from jobcloud.server.api.changes import change_of, look
from jobcloud.server.api.node_reasons import text_of

_NAMES = ("extract", "transform", "load", "alarm")
_GRAPH = [
    {"job": "extract"},
    {"job": "transform", "after": ["extract"]},
    {"job": "load", "after": [{"node": "transform"}]},
    {
        "job": "alarm",
        "after": [{"node": "transform", "on": "failure"}, {"node": "load", "on": "failure"}],
        "join": "any",
    },
]


@pytest.fixture
def etl(api: Client, demo: str) -> str:
    for name in _NAMES:
        body = job_body(name, cron="0 0 0 1 1 ?", shardingTotalCount=1, retryCount=0)
        assert api.post("jobs", json=body).status_code == 201
    assert api.put("workflows/etl", json={"nodes": _GRAPH}).status_code == 201
    return "etl"


def begin(api: Client) -> dict[str, Any]:
    """Trigger the start; returns the run of the workflow."""
    assert api.post("jobs/extract/trigger").status_code == 202
    return newest(api)


def newest(api: Client) -> dict[str, Any]:
    found: dict[str, Any] = api.get("workflows/etl/runs").json()["items"][0]
    return found


def end(loop: FakeLoop, state: str = "TASK_FINISHED") -> None:
    """Launch the only task that can start, and end it."""
    loop.offer(f"agent-{loop.now}")
    (task,) = loop.tick(1_000)
    loop.update(task, state, "broke" if state != "TASK_FINISHED" else "")
    loop.tick(1_000)


def states(run: dict[str, Any]) -> list[str]:
    return [node["state"] for node in run["nodes"]]


def test_workflow_is_made_shown_listed_and_removed(api: Client, etl: str) -> None:
    made = api.get("workflows/etl").json()
    assert (made["workflow"], made["team"], made["start"], made["skipped"]) == ("etl", "default", "extract", 0)
    assert made["lastRun"] is None
    assert [node["name"] for node in made["nodes"]] == list(_NAMES)
    assert made["nodes"][1]["after"] == [{"node": "extract", "on": "success", "result": ""}]
    assert made["nodes"][3] == {
        "name": "alarm", "job": "alarm", "join": "any", "waitFor": None, "event": "", "deadlineSeconds": 0,
        "after": [{"node": name, "on": "failure", "result": ""} for name in ("transform", "load")],
    }  # fmt: skip
    assert api.get("workflows").json()["items"] == [made]
    # What the API shows can be sent again, and then changes nothing.
    again = api.put("workflows/etl", json={name: made[name] for name in ("nodes", "start", "description")})
    assert (again.status_code, again.json()) == (200, made)
    assert api.delete("workflows/etl").status_code == 204
    assert "there is no workflow etl" in str(issues(api.get("workflows/etl"), "not-found"))
    assert issues(api.delete("workflows/etl"), "not-found")
    assert issues(api.get("workflows/etl/runs"), "not-found")


def listed(api: Client, **query: Any) -> list[str]:
    answer = api.get("workflows", params=query)
    assert answer.status_code == 200, answer.text
    found = [one["workflow"] for one in answer.json()["items"]]
    assert answer.json()["total"] == len(found)
    return found


def test_workflows_are_searched_and_sorted(api: Client, loop: FakeLoop, etl: str) -> None:
    for name, job in (("alarms", "alarm"), ("billing", "load")):
        assert api.put(f"workflows/{name}", json={"nodes": [{"job": job}], "description": "Sums of a day"}).is_success
    assert listed(api) == ["alarms", "billing", "etl"]
    assert listed(api, sort="-name") == ["etl", "billing", "alarms"]
    assert listed(api, q="sums OF") == listed(api, q="L", sort="name")[:2] == ["alarms", "billing"]
    assert listed(api, job="load") == ["billing", "etl"]
    assert listed(api, job="transform", q="etl") == ["etl"]
    assert listed(api, job="absent") == listed(api, job="beta:load") == listed(api, team="beta") == []
    begin(api)
    end(loop, "TASK_FAILED")
    loop.now += 1_000
    assert api.post("jobs/alarm/trigger").status_code == 202
    assert listed(api, sort="last") == ["etl", "alarms", "billing"]
    assert listed(api, sort="-last") == ["alarms", "etl", "billing"]
    assert listed(api, state="FAILED") == ["etl"]
    assert listed(api, state=["RUNNING", "FAILED"]) == ["alarms", "etl"]
    assert listed(api, state="SUCCEEDED") == []
    begin(api)
    assert listed(api, state="FAILED") == [], "the newest run counts"
    assert issues(api.get("workflows", params={"state": "DEAD"}))


@pytest.mark.parametrize("sort", ["name", "-name", "last", "-last"])
def test_pages_of_workflows_have_each_workflow_once(api: Client, etl: str, sort: str) -> None:
    assert api.put("workflows/alarms", json={"nodes": [{"job": "alarm"}]}).is_success
    assert api.put("workflows/loads", json={"nodes": [{"job": "load"}]}).is_success
    begin(api)
    found, cursor = [], ""
    for _ in range(3):
        page = api.get("workflows", params={"limit": 1, "sort": sort, "cursor": cursor}).json()
        assert page["total"] == 3
        found += [one["workflow"] for one in page["items"]]
        cursor = page["nextCursor"]
    assert cursor == ""
    assert found == listed(api, sort=sort)
    other = "name" if sort != "name" else "-name"
    wrong = api.get("workflows", params={"limit": 1, "sort": sort}).json()["nextCursor"]
    assert "is not a cursor of this list" in str(issues(api.get("workflows", params={"sort": other, "cursor": wrong})))


def test_revision_of_a_workflow_does_not_change_with_its_runs(api: Client, loop: FakeLoop, etl: str) -> None:
    first = api.get("workflows/etl")
    begin(api)
    second = api.get("workflows/etl", headers={"If-None-Match": first.headers["etag"]})
    assert (second.status_code, second.json()["revision"]) == (200, first.json()["revision"])
    tag = {"If-Match": first.headers["etag"]}
    changed = api.put("workflows/etl", json={"nodes": _GRAPH[:2]}, headers=tag)
    assert changed.status_code == 200
    assert changed.json()["revision"] != first.json()["revision"]
    assert "has changed" in str(
        issues(api.put("workflows/etl", json={"nodes": _GRAPH}, headers=tag), "precondition-failed")
    )
    assert issues(api.delete("workflows/etl", headers=tag), "precondition-failed")
    assert issues(api.put("workflows/other", json={"nodes": _GRAPH}, headers=tag), "precondition-failed")


@pytest.mark.parametrize(
    ("nodes", "field", "problem"),
    [
        ([{"job": "absent"}], "nodes.0.job", "there is no job absent"),
        ([{"job": "beta:extract"}], "nodes.0.job", "is not a valid name"),
        ([{"job": "extract"}, {"job": "extract"}], "nodes.1.name", "extract is given twice"),
        ([{"job": "extract"}, {"job": "load"}], "start", "2 nodes have no condition"),
        ([{"job": "extract", "after": ["load"]}, {"job": "load", "after": ["extract"]}], "nodes", "is a cycle"),
        ([{"job": "extract"}, {"job": "load", "after": ["x"]}], "nodes.1.after.0", "there is no node x"),
        ([{"job": "extract"}, {"job": "load", "after": [7]}], "nodes.1.after.0", ""),
        ([{"job": "extract"}, {"job": "load", "after": [{"node": "x", "on": "end"}]}], "nodes.1.after.0.on", ""),
        ([{"job": "extract", "x": 1}], "nodes.0.x", "Extra inputs are not permitted"),
        ([], "nodes", ""),
        ([{"job": "extract"}] * (MAX_NODES + 1), "nodes", ""),
    ],
)
def test_wrong_graph_is_refused_with_its_field(
    api: Client, etl: str, nodes: list[dict[str, Any]], field: str, problem: str
) -> None:
    found = issues(api.put("workflows/new", json={"nodes": nodes}))
    assert problem in found[field]
    assert api.get("workflows/new").status_code == 404


def test_start_must_be_a_node_without_a_condition(api: Client, etl: str) -> None:
    body = {"nodes": _GRAPH, "start": "load"}
    assert "is not a node without a condition" in issues(api.put("workflows/etl", json=body))["start"]
    assert "description" in issues(api.put("workflows/etl", json={"nodes": _GRAPH, "description": "a\tb"}))


def test_job_of_a_workflow_cannot_be_removed(api: Client, etl: str) -> None:
    assert "workflow etl has a node of job load" in str(issues(api.delete("jobs/load"), "conflict"))


def test_run_shows_each_node_with_its_run(api: Client, loop: FakeLoop, etl: str) -> None:
    run = begin(api)
    assert (run["workflow"], run["state"], run["endedAt"]) == ("etl", "RUNNING", None)
    shown = api.get(f"workflow-runs/{run['id']}").json()
    assert states(shown) == ["RUNNING", "WAITING", "WAITING", "WAITING"]
    assert shown["nodeStates"] == {"RUNNING": 1, "WAITING": 3}
    end(loop)
    end(loop)
    end(loop)
    shown = api.get(f"workflow-runs/{run['id']}").json()
    assert states(shown) == ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SKIPPED"]
    assert shown["state"] == newest(api)["state"] == api.get("workflows/etl").json()["lastRun"]["state"] == "SUCCEEDED"
    assert shown["nodes"][3]["reason"] == {
        "code": "node_skipped",
        "parameters": {"node": "transform", "state": "SUCCEEDED", "on": "failure"},
        "text": "it starts when node transform fails, and node transform is SUCCEEDED",
    }
    for node in shown["nodes"][:3]:
        job_run = api.get(f"runs/{node['runId']}").json()
        assert job_run["jobName"] == node["jobName"] == node["name"]
        assert job_run["firedAt"] == run["firedAt"]
        assert job_run["workflowNodes"] == [{"run": run["id"], "node": node["name"]}]
        assert node["reason"] is None
        assert node["startedAt"]
        assert node["endedAt"]


def test_ready_node_tells_why_it_cannot_start(api: Client, loop: FakeLoop, etl: str) -> None:
    run = begin(api)
    assert api.post("jobs/transform/disable").is_success
    end(loop)
    node = api.get(f"workflow-runs/{run['id']}").json()["nodes"][1]
    assert (node["state"], node["runId"], node["startedAt"]) == ("READY", "", None)
    assert node["reason"]["text"] == "job transform or its app is disabled"


def test_failed_run_is_retried_from_its_failed_node(api: Client, loop: FakeLoop, etl: str) -> None:
    run = begin(api)
    end(loop)
    end(loop, "TASK_FAILED")
    end(loop)
    path = f"workflow-runs/{run['id']}"
    shown = api.get(path).json()
    assert states(shown) == ["SUCCEEDED", "FAILED", "SKIPPED", "SUCCEEDED"]
    assert shown["state"] == "FAILED"
    again = api.post(f"{path}/retry")
    assert again.status_code == 202
    assert states(again.json())[:3] == ["SUCCEEDED", "RUNNING", "WAITING"]
    end(loop)
    end(loop)
    assert api.get(path).json()["state"] == "SUCCEEDED"
    assert "no node of" in str(issues(api.post(f"{path}/retry"), "conflict"))


def test_cancelled_run_starts_no_further_node(api: Client, loop: FakeLoop, etl: str) -> None:
    run = begin(api)
    done = api.post(f"workflow-runs/{run['id']}/cancel")
    assert (done.status_code, done.json()["state"], done.json()["cancelled"]) == (202, "CANCELLED", True)
    assert set(states(done.json())) == {"CANCELLED"}
    assert "has ended" in str(issues(api.post(f"workflow-runs/{run['id']}/cancel"), "conflict"))


def test_the_run_of_a_removed_workflow_goes_on(api: Client, etl: str) -> None:
    run = begin(api)
    assert api.delete("workflows/etl").status_code == 204
    assert api.get(f"workflow-runs/{run['id']}").json()["state"] == "RUNNING"
    assert api.get("workflows/etl/runs").status_code == 404


def test_runs_come_newest_first_in_pages(api: Client, loop: FakeLoop, etl: str) -> None:
    ids: list[str] = []
    for _ in range(3):
        loop.tick(1_000)
        ids.insert(0, begin(api)["id"])
    assert api.post(f"workflow-runs/{ids[1]}/cancel").is_success
    first = api.get("workflows/etl/runs", params={"limit": 2}).json()
    assert [run["id"] for run in first["items"]] == ids[:2]
    rest = api.get("workflows/etl/runs", params={"limit": 2, "cursor": first["nextCursor"]}).json()
    assert ([run["id"] for run in rest["items"]], rest["nextCursor"]) == (ids[2:], "")
    found = api.get("workflows/etl/runs", params={"state": ["CANCELLED", "FAILED"]}).json()["items"]
    assert [run["id"] for run in found] == [ids[1]]
    assert issues(api.get("workflows/etl/runs", params={"state": "READY"}))
    assert "no run x of a workflow" in str(issues(api.get("workflow-runs/x"), "not-found"))


def test_list_of_workflows_is_read_by_team_and_in_pages(api: Client, etl: str) -> None:
    for name in ("a", "b"):
        assert api.put(f"workflows/{name}", json={"nodes": _GRAPH}).status_code == 201
    first = api.get("workflows", params={"limit": 2}).json()
    rest = api.get("workflows", params={"cursor": first["nextCursor"]}).json()
    assert [one["workflow"] for one in (*first["items"], *rest["items"])] == ["a", "b", "etl"]
    assert len(api.get("workflows", params={"team": "default"}).json()["items"]) == 3
    assert api.get("workflows", params={"team": "beta"}).json()["items"] == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (Words("node_run_lost", {"run": "a.1"}), "its run a.1 no longer has a record"),
        (Words("no_job", {"job": "a"}), "there is no job a"),
        (Words("resident_node", {"job": "a"}), "job a is resident: its runs do not end"),
        (Words("job_fault", {"job": "a"}), "the stored record of job a cannot be read"),
        (Words("job_paused", {"job": "a"}), "job a, its app or everything is paused"),
        (Words("runs_waiting", {"runs": 9, "job": "a"}), "9 runs of job a have not ended"),
        (
            Words("queue_quota", {"team": "t", "waiting": 8, "most": 9, "more": 2}),
            "quota of team t: 8 of 9 shards wait already, and 2 would be added",
        ),
        (Words("of_a_newer_version", {}), "of_a_newer_version"),
    ],
)
def test_reason_of_a_node_is_told_in_english(words: Words, text: str) -> None:
    assert text_of(words) == text


def test_audit_log_tells_the_changes_of_a_workflow(api: Client, loop: FakeLoop, etl: str) -> None:
    (seen,) = look(RemoveWorkflow(loop.now, etl), loop.scheduler)
    change = change_of(seen)
    assert (change.command, change.key, change.after) == ("RemoveWorkflow", "etl", None)
    assert change.before is not None
    assert [node["name"] for node in change.before["nodes"]] == list(_NAMES)
    known = loop.scheduler.workflows[etl]
    (seen,) = look(PutWorkflow(loop.now, Workflow("etl", known.nodes, "extract", "new")), loop.scheduler)
    assert (change_of(seen).before, change_of(seen).after) == ({}, {"description": "new"})
    assert [one.key for one in look(CancelWorkflowRun(loop.now, "etl.1"), loop.scheduler)] == ["etl.1"]


def test_skipped_run_is_counted_and_changes_no_revision(tmp_path: Path) -> None:
    loop = FakeLoop()
    loop.scheduler = Scheduler(replace(Policy(ARTIFACTS), max_waiting=1), Stored(), epoch=1, at=loop.now)
    loop.subscribe()
    api = client_of(make_api(tmp_path, loop))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    for name in _NAMES[:2]:
        body = job_body(name, cron="0 0 0 1 1 ?", shardingTotalCount=1)
        assert api.post("jobs", json=body).status_code == 201
    made = api.put("workflows/etl", json={"nodes": _GRAPH[:2]}).json()
    run = begin(api)
    end(loop)
    loop.offer("last")
    assert begin(api) == run
    shown = api.get("workflows/etl").json()
    assert (shown["skipped"], shown["revision"]) == (1, made["revision"])


@pytest.mark.parametrize("condition", [True, False])
def test_change_meanwhile_is_seen_by_the_scheduler(
    api: Client, loop: FakeLoop, etl: str, monkeypatch: pytest.MonkeyPatch, condition: bool
) -> None:
    tag = api.get("workflows/etl").headers["etag"]
    nodes, command = loop.scheduler.workflows[etl].nodes, loop.command
    made: list[Any] = []

    def late(make: Any, timeout: float = 10) -> None:
        if not made:
            loop.feed(PutWorkflow(loop.now, Workflow("etl", nodes, "extract", "of another sender")))
        made.append(make)
        command(make, timeout)

    monkeypatch.setattr(loop, "command", late)
    answer = api.put("workflows/etl", json={"nodes": _GRAPH[:2]}, headers={"If-Match": tag} if condition else {})
    assert (answer.status_code, len(made)) == ((412, 1) if condition else (200, 2))
    assert len(loop.scheduler.workflows[etl].nodes) == (4 if condition else 2)


@pytest.fixture
def gate(api: Client, etl: str) -> dict[str, Any]:
    """A run of a workflow whose nodes wait for answers."""
    nodes = [
        {"job": "extract"},
        {"name": "approve", "waitFor": "approval", "deadlineSeconds": 60},
        {"name": "told", "waitFor": "callback", "after": ["approve"]},
        {"waitFor": "event", "event": "orders"},
        {"job": "load", "after": [{"node": "orders", "result": "full"}]},
    ]
    body = {"nodes": nodes, "deadlineSeconds": 3_600}
    assert api.put("workflows/etl", json=body).status_code == 200
    return begin(api)


def test_nodes_wait_for_answers(api: Client, gate: dict[str, Any]) -> None:
    route = f"workflow-runs/{gate['id']}"
    run = api.get(route).json()
    assert (run["deadlineSeconds"], run["nodes"][1]["deadlineSeconds"]) == (3_600, 60)
    assert states(run)[1:] == ["RUNNING", "WAITING", "RUNNING", "WAITING"]
    early = api.post(f"{route}/nodes/told/answer", json={"result": "done"})
    assert (early.status_code, early.json()["nodes"][2]["state"]) == (202, "WAITING")
    approved = api.post(f"{route}/nodes/approve/answer", json={"note": "go on"}).json()
    assert states(approved)[1:3] == ["SUCCEEDED", "SUCCEEDED"]
    answer = approved["nodes"][1]["answer"]
    assert (answer["succeeded"], answer["note"]) == (True, "go on")
    assert answer["by"]
    assert answer["at"]
    assert "has been decided" in str(issues(api.post(f"{route}/nodes/approve/answer", json={}), "conflict"))
    assert "has no node x" in str(issues(api.post(f"{route}/nodes/x/answer", json={}), "not-found"))
    assert issues(api.post("workflow-runs/none/nodes/x/answer", json={}), "not-found")


def test_an_event_answers_the_nodes_that_wait_for_it(api: Client, gate: dict[str, Any]) -> None:
    assert api.post("workflow-events", json={"event": "other"}).json() == {"answered": 0}
    later = {"event": "orders", "fireTime": 1}
    assert api.post("workflow-events", json=later).json() == {"answered": 0}
    assert api.post("workflow-events", json={"event": "orders", "result": "full"}).json() == {"answered": 1}
    run = api.get(f"workflow-runs/{gate['id']}").json()
    assert states(run)[3:] == ["SUCCEEDED", "READY"] or states(run)[3:] == ["SUCCEEDED", "RUNNING"]


def test_a_run_is_paused_and_resumed(api: Client, gate: dict[str, Any]) -> None:
    route = f"workflow-runs/{gate['id']}"
    assert api.post(f"{route}/pause").json()["paused"] is True
    api.post("workflow-events", json={"event": "orders", "result": "full"})
    load = api.get(route).json()["nodes"][4]
    assert (load["state"], load["reason"]["code"]) == ("READY", "node_paused")
    assert load["reason"]["text"] == "the run of the workflow is paused"
    assert api.post(f"{route}/resume").json()["paused"] is False
    assert issues(api.post("workflow-runs/none/pause"), "not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"event": "a b"}, "event"),
        ({}, "event"),
        ({"event": "orders", "note": "a\nb"}, "note"),
        ({"event": "orders", "result": "x" * 201}, "result"),
        ({"event": "orders", "fireTime": -1}, "fireTime"),
    ],
)
def test_a_wrong_event_is_refused(api: Client, demo: str, body: dict[str, Any], field: str) -> None:
    assert list(issues(api.post("workflow-events", json=body), "invalid")) == [field]


def test_what_the_api_shows_of_answers_can_be_sent_again(api: Client, gate: dict[str, Any]) -> None:
    made = api.get("workflows/etl").json()
    again = {name: made[name] for name in ("nodes", "start", "description", "deadlineSeconds")}
    changed = api.put("workflows/etl", json=again)
    assert (changed.status_code, changed.json()["revision"]) == (200, made["revision"])
