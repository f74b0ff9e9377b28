"""Jobs without a cluster: `run-local` and the app that `app init` writes."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from jobcloud.client import cli
from jobcloud.client.local import run_local
from jobcloud.client.pack import read_manifest
from jobcloud.errors import ConfigError
from jobcloud.server.api.convert import check

ROOT = Path(__file__).parents[2]

JOBS = """
import contextlib, os
from jobcloud.job import DataflowJob, ErrorHandler, FiringListener, JobListener, SimpleJob

class Around(JobListener, FiringListener):
    def before_job_executed(self, ctx):
        print("before", ctx.sharding_item)
    async def after_job_executed(self, ctx, error):
        print("after", ctx.sharding_item, error)
    def before_firing(self, ctx):
        print("opening", ctx.sharding_total_count)
    def after_firing(self, ctx):
        print("closing", ctx.outcomes)

class Deals(ErrorHandler):
    def handle(self, ctx, error):
        return ctx.sharding_item == 0

class Fails(SimpleJob):
    def execute(self, ctx):
        raise ValueError("no stock")

class Flow(DataflowJob):
    def __init__(self):
        self.left = [[1], [2], []]
    def fetch_data(self, ctx):
        return self.left.pop(0)
    async def process_data(self, ctx, data):
        ctx.progress(data[0], 2)

class Where(SimpleJob):
    def execute(self, ctx):
        return [os.getcwd(), ctx.job_parameter, ctx.sharding_parameter]

@contextlib.contextmanager
def context():
    print("opened")
    yield {"where": Where()}
    print("closed")
"""
MANIFEST = """
[app]
team = "billing"
[[jobs]]
jobName = "fails"
jobClass = "local_jobs:Fails"
[[jobs]]
jobName = "listened"
jobClass = "local_jobs:Fails"
shardingTotalCount = 2
listener = ["local_jobs:Around"]
distributedListener = { class = "local_jobs:Around" }
jobProperties = { job_exception_handler = "IGNORE" }
[[jobs]]
jobName = "handled"
jobClass = "local_jobs:Fails"
shardingTotalCount = 2
jobProperties = { job_exception_handler = "local_jobs:Deals" }
[[jobs]]
jobName = "unheard"
jobClass = "local_jobs:Fails"
listener = ["local_jobs:Nobody"]
[[jobs]]
jobName = "flow"
jobType = "DATAFLOW"
streamingProcess = true
jobClass = "local_jobs:Flow"
[[jobs]]
jobName = "where"
applicationContext = "local_jobs:context"
beanName = "where"
shardingTotalCount = 3
shardingItemParameters = "1=b"
jobParameter = "all"
[[jobs]]
jobName = "script"
jobType = "SCRIPT"
scriptCommandLine = "sh -c 'echo $JOBCLOUD_TEAM/$JOBCLOUD_JOB_NAME; exit 3'"
[[jobs]]
jobName = "private"
jobType = "SCRIPT"
scriptCommandLine = 'sh -c "cat $JOBCLOUD_SHARDING_CONTEXT_FILE; echo; echo $0"'
shardingTotalCount = 2
[jobs.shardingItemParameters]
1 = "a=b,c"
[[jobs]]
jobName = "missing"
jobClass = "local_jobs:Missing"
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "local_jobs", raising=False)
    (tmp_path / "local_jobs.py").write_text(JOBS)
    (tmp_path / "jobcloud.toml").write_text(MANIFEST)
    return tmp_path


def test_all_shards_run_in_the_app_directory_with_one_context(app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = Path.cwd(), list(sys.path)
    results = [run.result for run in run_local(app, "where")]
    assert results == [[str(app), "all", parameter] for parameter in ("", "b", "")]
    assert capfd.readouterr().out == "opened\nclosed\n"
    assert (Path.cwd(), sys.path) == before


def test_single_shard_can_be_run(app: Path) -> None:
    assert [(run.item, run.result[2]) for run in run_local(app, "where", 1)] == [(1, "b")]
    with pytest.raises(ConfigError, match="0 to 2"):
        list(run_local(app, "where", 3))


def test_streaming_job_runs_to_its_end_and_prints_its_progress(app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [run.failed for run in run_local(app, "flow")] == [False]
    assert capfd.readouterr().out == "progress: 1 of 2\nprogress: 2 of 2\n"


@pytest.mark.parametrize("relative", [False, True])
def test_all_shards_run_and_the_traceback_of_a_failed_one_begins_in_the_app(
    app: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    manifest = app / "jobcloud.toml"
    manifest.write_text(manifest.read_text().replace('jobName = "fails"', 'jobName = "fails"\nshardingTotalCount = 2'))
    assert [(run.item, run.failed, str(run.error)) for run in run_local(app, "fails")] == [
        (0, True, "no stock"),
        (1, True, "no stock"),
    ]
    monkeypatch.chdir(app.parent)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run-local", app.name if relative else str(app), "fails"])
    assert ended.value.code == 1
    printed = capfd.readouterr()
    assert printed.out.count("failed: ValueError: no stock") == 2
    assert printed.err.count("Traceback") == 2
    frames = [line for line in printed.err.splitlines() if line.startswith("  File")]
    assert frames
    assert all(str(app) in line for line in frames), printed.err


def test_listeners_and_error_handlers_are_called_as_in_a_cluster(app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [run.handled for run in run_local(app, "listened")] == ["ValueError: no stock"] * 2
    around = [f"before {item}\nafter {item} no stock\n" for item in (0, 1)]
    assert capfd.readouterr().out == f"opening 2\n{''.join(around)}closing {{'FINISHED': 2}}\n"
    first, second = run_local(app, "handled")
    assert first.handled
    assert str(second.error) == "no stock"
    with pytest.raises(ConfigError, match="there is no 'Nobody'"):
        list(run_local(app, "unheard"))


def test_failing_script_is_reported_with_its_exit_code(app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run-local", str(app), "script"])
    assert ended.value.code == 1
    out = capfd.readouterr().out
    assert "billing/script\n" in out
    assert "shard 0 failed: 3" in out


def test_script_gets_its_parameters_in_a_file_and_not_as_an_argument(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert [run.failed for run in run_local(app, "private", 1)] == [False]
    context, argument = map(json.loads, capfd.readouterr().out.splitlines())
    assert (context["shardingParameter"], context["ports"]) == ("a=b,c", [])
    assert argument["shardingItem"] == 1
    assert "shardingParameter" not in argument


@pytest.mark.parametrize(("job", "says"), [("nothing", "jobs: fails"), ("missing", "there is no 'Missing'")])
def test_missing_job_or_class_is_a_usage_error(
    app: Path, job: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run-local", str(app), job])
    assert ended.value.code == 2
    assert says in capfd.readouterr().err


def test_app_written_by_init_works_and_its_test_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "my-app.2"
    cli.cli(["app", "init", str(directory)], standalone_mode=False)
    assert sorted(path.name for path in directory.iterdir()) == [
        "jobcloud.toml",
        "my_app_2_jobs.py",
        "test_my_app_2_jobs.py",
    ]
    cli.cli(["run-local", str(directory), "hello"], standalone_mode=False)
    assert "shard 1 finished: {'greeting': 'Hello, Paris'}" in capfd.readouterr().out
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for name in (tmp_path, tmp_path / "mine", tmp_path / "not a name"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["app", "init", str(name)])
        assert ended.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_example_takes_secrets_from_variables_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    example = ROOT / "examples" / "secrets"
    with pytest.raises(ConfigError, match="there is no value for SIGNING_KEY"):
        list(run_local(example, "sign"))
    monkeypatch.setenv("SIGNING_KEY", "k")
    signature = hmac.new(b"k", b"hello", hashlib.sha256).hexdigest()
    assert [run.result for run in run_local(example, "sign")] == [{"signature": signature}]
    monkeypatch.setenv("DB_PASSWORD", "12345")
    monkeypatch.setenv("JOBCLOUD_SECRET_FILES", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no value for client\.key"):
        list(run_local(example, "connect"))
    (tmp_path / "client.key").write_text("1234")
    (tmp_path / "client.key").chmod(0o600)
    assert [run.result for run in run_local(example, "connect")] == [0]
    assert "password of 5 characters, key of 4 bytes with mode 600" in capfd.readouterr().out


def test_example_of_the_document_gets_variables_of_its_app_and_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "executor.md").read_text()
    manifest, script = re.findall(r"```(?:toml|sh)\n([^`]*\bREGION\b[^`]*)```", text)
    (tmp_path / "jobcloud.toml").write_text(manifest)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "totals.sh").write_text(script)
    (tmp_path / "bin" / "totals.sh").chmod(0o755)
    assert [run.result for run in run_local(tmp_path, "totals")] == [0]
    printed = capfd.readouterr().out.strip()
    assert printed == "totals of eu from replica.eu.example.org"
    assert f"`{printed}`" in text
    assert "REGION" not in os.environ
    given = read_manifest(tmp_path)
    package = {"appURL": f"package:sha256:{'0' * 64}", "cpuCount": 0.1, "memoryMB": 64}
    check("app", json.dumps({**given.app, **package}).encode())
    check("job", json.dumps({**given.jobs[0], "appName": "sales"}).encode())


def test_example_of_the_document_gets_the_values_of_its_placeholders(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "executor.md").read_text()
    (manifest,) = re.findall(r"```toml\n([^`]*\bplaceholders = [^`]*)```", text)
    (tmp_path / "jobcloud.toml").write_text(manifest)
    assert [run.result for run in run_local(tmp_path, "load")] == [0, 0]
    printed = capfd.readouterr().out.splitlines()
    assert [re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|{.*}", "", line).split() for line in printed] == [
        ["load", "--day=", f"--part={item}/2"] for item in (0, 1)
    ]
    job = read_manifest(tmp_path).jobs[0]
    check("job", json.dumps({**job, "appName": "warehouse"}).encode())
    (tmp_path / "jobcloud.toml").write_text(manifest.replace("%Y", "%E"))
    with pytest.raises(ConfigError, match="%E is no directive"):
        list(run_local(tmp_path, "load"))


def test_example_of_the_document_divides_a_range(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "job-configuration.md").read_text()
    (manifest,) = re.findall(r"```toml\n([^`]*\bshardingItemRange = [^`]*)```", text)
    (tmp_path / "jobcloud.toml").write_text(manifest)
    script = tmp_path / "bin" / "reload.sh"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\ncat "$JOBCLOUD_SHARDING_CONTEXT_FILE"; echo\n')
    script.chmod(0o755)
    assert [run.result for run in run_local(tmp_path, "reload")] == [0, 0, 0]
    shown = [json.loads(line)["shardingParameter"] for line in capfd.readouterr().out.splitlines()]
    parts = [tuple(map(date.fromisoformat, part.split(".."))) for part in shown]
    assert [(last - first).days + 1 for first, last in parts] == [3, 2, 2]
    assert [(right[0] - left[1]).days for left, right in pairwise(parts)] == [1, 1]
    check("job", json.dumps({**read_manifest(tmp_path).jobs[0], "appName": "warehouse"}).encode())
    (tmp_path / "jobcloud.toml").write_text(manifest.replace("}-7d", "}-7x"))
    with pytest.raises(ConfigError, match="nor a date") as found:
        list(run_local(tmp_path, "reload"))
    assert found.value.field == "shardingItemRange"


def test_example_of_the_document_reads_the_files_of_its_app_and_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "executor.md").read_text()
    (manifest,) = re.findall(r"```toml\n([^`]*\[app\.files\][^`]*)```", text)
    (tmp_path / "jobcloud.toml").write_text(manifest)
    assert [run.result for run in run_local(tmp_path, "archive")] == [0]
    printed = capfd.readouterr().out.splitlines()
    assert printed == ["host = db.eu.example.org", "level = {debug}"]
    assert all(f"`{line}`" in text for line in printed)
    assert "JOBCLOUD_FILES" not in os.environ
    given = read_manifest(tmp_path)
    package = {"appURL": f"package:sha256:{'0' * 64}", "cpuCount": 0.1, "memoryMB": 64}
    check("app", json.dumps({**given.app, **package}).encode())
    check("job", json.dumps({**given.jobs[0], "appName": "orders"}).encode())
