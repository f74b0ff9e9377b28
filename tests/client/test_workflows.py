"""`jobcloud workflow` and its commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.api_kit import app_body, job_body, package_bytes
from tests.client.test_apply import Shell

from jobcloud.client import workflow_files
from jobcloud.client.workflow_tables import after, tree
from jobcloud.errors import ConfigError

_FILE = """
workflowName: etl
description: the sales of each hour
nodes:
- job: extract
- job: transform
  after: [extract]
- job: load
  after: [{node: transform, on: either}]
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in ("JOBCLOUD_SERVER", "JOBCLOUD_TOKEN", "JOBCLOUD_TEAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    shell = Shell(tmp_path, monkeypatch, capsys)
    package = tmp_path / "package.zip"
    package.write_bytes(package_bytes())
    sha256 = shell.client.upload(package)["sha256"]
    for team in ("default", "beta"):
        shell.client.create_app(app_body(sha256, team=team))
        for name in ("extract", "transform", "load"):
            shell.client.create_job(job_body(name, team=team, cron="0 0 0 1 1 ?", shardingTotalCount=1, retryCount=0))
    return shell


def written(shell: Shell, text: str = _FILE, name: str = "etl.yaml") -> Path:
    path = shell.folder / name
    path.write_text(text)
    return path


def end(shell: Shell, state: str = "TASK_FINISHED") -> None:
    shell.loop.offer(f"agent-{shell.loop.now}")
    (task,) = shell.loop.tick(1_000)
    shell.loop.update(task, state)
    shell.loop.tick(1_000)


def began(shell: Shell) -> str:
    """Trigger the workflow; returns the id of its run."""
    code, out, _ = shell("workflow", "trigger", "etl")
    assert (code, out.startswith("run etl."), out.endswith(" began\n")) == (0, True, True)
    return out.split()[1]


def test_workflow_is_set_listed_shown_and_removed(shell: Shell) -> None:
    assert shell("workflow", "list")[1].strip() == "there are no workflows"
    assert shell("workflow", "set", written(shell))[:2] == (0, "workflow etl starts with extract; nodes: 3\n")
    lines = shell("workflow", "list")[1].splitlines()
    assert lines[1].split()[:4] == ["etl", "3", "extract", "-"]
    shown = shell("workflow", "show", "etl")[1]
    assert "└─ transform" in shown
    assert "any end of transform" in shown
    assert shell("workflow", "rm", "etl")[1] == "workflow etl is removed\n"
    assert shell("workflow", "show", "etl")[0] != 0


def test_printed_workflow_can_be_set_again_unless_it_has_changed(shell: Shell) -> None:
    shell("workflow", "set", written(shell))
    printed = shell("workflow", "show", "etl", "--json")[1]
    path = written(shell, printed.replace("each hour", "each day"), "etl.json")
    (made,) = json.loads(shell("workflow", "set", path, "--json")[1])
    assert made["description"] == "the sales of each day"
    code, _, err = shell("workflow", "set", path)
    assert (code != 0, "has changed" in err) == (True, True)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_file_holds_several_workflows(shell: Shell, form: str) -> None:
    tables = [{"workflowName": name, "nodes": [{"job": "extract"}]} for name in ("a", "b")]
    tables[1]["team"] = "beta"
    toml = "".join(
        "[[workflows]]\n"
        + "".join(f"{key} = {json.dumps(one)}\n" for key, one in table.items() if key != "nodes")
        + '[[workflows.nodes]]\njob = "extract"\n'
        for table in tables
    )
    text = toml if form == "toml" else json.dumps({"workflows": tables})
    assert shell("workflow", "set", written(shell, text, f"two.{form}"))[0] == 0
    assert set(shell.loop.scheduler.workflows) == {"a", "beta:b"}
    assert shell("--team", "beta", "workflow", "list")[1].splitlines()[1].split()[0] == "beta:b"


def test_team_of_the_command_is_that_of_the_workflow(shell: Shell) -> None:
    assert shell("--team", "beta", "workflow", "set", written(shell))[0] == 0
    assert set(shell.loop.scheduler.workflows) == {"beta:etl"}
    assert shell("--team", "beta", "workflow", "trigger", "etl")[1].startswith("run beta:etl.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("workflows: []", "holds no workflow"),
        ("[1]", "has the wrong layout"),
        ("workflows: [1]", "etl.yaml:1: has the wrong layout"),
        ("nodes: []", "workflowName: is missing"),
        (
            "workflows:\n- {workflowName: a, nodes: []}\n- {workflowName: a, nodes: []}",
            "etl.yaml:3: workflow a: is given twice, also in ",
        ),
        (
            "{workflowName: a, team: 5, nodes: []}",
            "etl.yaml:1: workflow 5:a: team: 5 is not a text (write it in quotes)",
        ),
        (
            "workflowName: a\nnodes:\n- job: b\n  after: c",
            'etl.yaml:4: workflow a: nodes.0.after: is not a list (write ["c"])',
        ),
        (
            "workflows:\n- workflowName: a\n  nodes:\n  - job: b\n    after: {node: c}",
            "etl.yaml:5: workflow a: nodes.0.after: is not a list (write the condition in brackets: [ ])",
        ),
    ],
)
def test_wrong_file_is_refused(shell: Shell, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        workflow_files.read(written(shell, text))
    assert problem in str(error.value)


def test_refusal_of_the_server_names_the_line(shell: Shell) -> None:
    text = _FILE + "- job: load\n  name: again\n  after:\n  - absent\n"
    code, _, err = shell("workflow", "set", written(shell, text))
    assert code != 0
    assert "etl.yaml:13: workflow etl: nodes.3.after.0: there is no node absent" in " ".join(err.split())


def test_several_workflows_are_set_together_or_none(shell: Shell) -> None:
    text = "workflows:\n- workflowName: a\n  nodes: [{job: extract}]\n- workflowName: b\n  nodes: [{job: load}]\n"
    wrong = text + "  start: absent\n- workflowName: c\n  nodes: [{job: load, join: x}]\n"
    code, _, err = shell("workflow", "set", written(shell, wrong))
    assert code != 0
    said = " ".join(err.split())
    assert "etl.yaml:6: workflow b: start: absent is not a node" in said
    assert "etl.yaml:8: workflow c: nodes.0.join: 'x' is not a valid value" in said
    assert not shell.loop.scheduler.workflows
    code, out, _ = shell("workflow", "set", written(shell, text))
    assert out == "workflow a starts with extract; nodes: 1\nworkflow b starts with load; nodes: 1\n"
    printed = [json.loads(shell("workflow", "show", name, "--json")[1]) for name in ("a", "b")]
    path = written(shell, json.dumps({"workflows": printed}), "etl.json")
    assert shell("workflow", "set", path)[0] == 0
    printed[0]["description"] = "new"
    path = written(shell, json.dumps({"workflows": printed}), "etl.json")
    assert shell("workflow", "set", path)[0] == 0
    assert "has changed" in shell("workflow", "set", path)[2]


def test_wrong_workflow_in_files_of_apply_is_refused(shell: Shell) -> None:
    text = "workflows:\n- workflowName: a\n  nodes:\n  - job: extract\n  - job: load\n    after: extract\n"
    code, _, err = shell("apply", "-f", written(shell, text))
    assert code != 0
    assert 'etl.yaml:6: workflow a: nodes.1.after: is not a list (write ["extract"])' in " ".join(err.split())


def test_run_is_shown_as_a_tree_and_retried(shell: Shell) -> None:
    shell("workflow", "set", written(shell))
    run = began(shell)
    end(shell)
    end(shell, "TASK_FAILED")
    end(shell)
    shown = shell("workflow", "run", run)[1]
    assert [line.split()[0] for line in shown.splitlines() if "─" in line] == ["└─", "└─"]
    assert "1 FAILED" in shown
    line = next(line for line in shell("workflow", "runs", "etl")[1].splitlines() if run in line)
    assert line.split()[1] == "FAILED"
    assert shell("workflow", "retry", run)[1] == f"run {run} is RUNNING\n"
    assert shell("workflow", "cancel", run)[1] == f"run {run} is cancelled\n"
    found = json.loads(shell("workflow", "runs", "etl", "--state", "cancelled,FAILED", "--json")[1])
    assert [one["id"] for one in found] == [run]
    assert json.loads(shell("workflow", "run", run, "--json")[1])["nodeStates"]["CANCELLED"] >= 1


def test_trigger_that_begins_no_run_is_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("workflow", "set", written(shell))
    (run,) = json.loads(shell("workflow", "trigger", "etl", "--json")[1])
    assert run["nodes"][0]["state"] == "RUNNING"
    client = type(shell.client)
    monkeypatch.setattr(client, "run_state", lambda self, run_id: {"id": run_id, "workflowNodes": []})
    code, _, err = shell("workflow", "trigger", "etl")
    assert (code != 0, "began no run of the workflow" in err) == (True, True)


def node(name: str, *conditions: str, on: str = "success", join: str = "all") -> dict[str, Any]:
    return {"name": name, "after": [{"node": one, "on": on} for one in conditions], "join": join}


def test_node_stands_once_under_the_last_of_those_that_it_waits_for() -> None:
    nodes = [node("report", "c", "b"), node("a"), node("b", "a"), node("c", "a"), node("d", "c"), node("z")]
    assert [text for text, _ in tree(nodes)] == ["a", "├─ b", "└─ c", "   ├─ report", "   └─ d", "z"]
    long = [node("0"), *(node(str(number), str(number - 1)) for number in range(1, 200))]
    assert len(list(tree(long))) == 200


def test_conditions_that_the_tree_does_not_tell_are_in_words() -> None:
    assert after(node("a")) == after(node("b", "a")) == ""
    assert after(node("b", "a", on="failure")) == "failure of a"
    assert after(node("c", "a", "b", join="any")) == "any of: a, b"
