"""The tutorial of docs/workflows.md does what it says, on a dev cluster."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from functools import partial

import pytest
from tests.whole_kit import ROOT, Product, until

DOC = (ROOT / "docs" / "workflows.md").read_text()
TUTORIAL = DOC.partition("## Tutorial")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
LINES = [shlex.split(line) for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
PIPELINE = ROOT / "examples" / "pipeline"


def test_workflow_in_the_document_is_that_of_the_example() -> None:
    (shown,) = [text for language, text in BLOCKS if language == "toml"]
    assert shown == (PIPELINE / "workflow.toml").read_text()


def test_workflow_in_python_is_that_of_the_example() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    assert shown == (PIPELINE / "workflow.py").read_text()


@pytest.mark.dev_cluster
def test_tutorial_works_on_a_dev_cluster(dev: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dev.folder)
    results = dev.folder / "results"
    results.mkdir()
    app = dev.folder / "examples" / "pipeline"
    shutil.copytree(PIPELINE, app)
    manifest = app / "jobcloud.toml"
    manifest.write_text(manifest.read_text().replace("/tmp/jobcloud-pipeline", str(results)))
    dev.start("dev", "--data", str(dev.data), "--port", str(dev.port), "--agents", "1")
    until(dev.healthy, "a healthy server")
    run, wanted = "", ["SUCCEEDED"] * 3
    for program, *arguments in LINES:
        given = [run if word == "RUN" else word.replace("/tmp/jobcloud-pipeline", str(results)) for word in arguments]
        if program == "touch":
            (results / "closed").touch()
            wanted = ["SUCCEEDED", "SUCCEEDED", "FAILED"]
        elif program == "rm":
            (results / "closed").unlink()
            wanted = ["SUCCEEDED"] * 3
        else:
            if given[:2] == ["workflow", "run"]:
                until(partial(ended_as, dev, run, wanted), f"{run} as {wanted}")
            printed = dev.run(*given)
            if given[:2] == ["workflow", "trigger"]:
                run = printed.split()[1]
                assert printed == f"run {run} began\n"
    assert "   └─ load" in dev.run("workflow", "run", run)
    with closing(sqlite3.connect(results / "sales.db")) as database:
        (found,) = database.execute("SELECT count(*) FROM sales").fetchone()
    assert found >= 2
    past = until(partial(runs_of_backfill, dev), "runs of the backfill")
    assert {one["workflow"] for one in past} == {"sales"}


def ended_as(dev: Product, run: str, wanted: list[str]) -> bool:
    shown = dev.get(f"workflow-runs/{run}")
    return bool(shown["endedAt"]) and [node["state"] for node in shown["nodes"]] == wanted


def runs_of_backfill(dev: Product) -> list[dict[str, str]]:
    """The runs of the workflow with fire times on the full hour, as those of the backfill have."""
    found = dev.get("workflows/sales/runs")["items"]
    return [one for one in found if one["firedAt"].endswith(":00:00.000Z")]
