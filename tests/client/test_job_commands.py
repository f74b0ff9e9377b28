"""`jobcloud job update`, `diff`, `enable` and `disable`: names, patterns, files, and what they say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tests.client.test_apply import APP, JOB, Shell

from jobcloud.client.commands import jobs
from jobcloud.client.http import Client, Json


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    found = Shell(tmp_path, monkeypatch, capsys)
    more = "".join(JOB.replace("hello\n", f"{name}\n", 1) for name in ("report-a", "report-b"))
    assert found("app", "add", found.app(text=APP + more))[0] == 0
    return found


def running(shell: Shell) -> None:
    shell.loop.tick(6_000)
    shell.loop.offer()
    for task in shell.loop.tick():
        shell.loop.update(task, "TASK_RUNNING")


def test_jobs_are_disabled_and_enabled_by_names_and_patterns(shell: Shell) -> None:
    running(shell)
    code, out, _ = shell("job", "disable", "report-*", "hello")
    assert code == 0
    assert out.count("is disabled; 2 attempts are being killed") == 3
    assert [job["disabled"] for job in shell.client.jobs()] == [True] * 3
    assert "job hello was disabled already" in shell("job", "disable", "hello")[1]
    code, out, _ = shell("job", "enable", "report-?", "--json")
    assert [job["jobName"] for job in json.loads(out)] == ["report-a", "report-b"]
    assert "job hello is enabled; next run" in shell("job", "enable", "hello")[1]
    shell("job", "disable", "hello")
    shell("app", "disable", "demo")
    assert "its app is disabled" in shell("job", "enable", "hello")[1]
    assert json.loads(shell("job", "disable", "hello", "--json")[1])["disabled"] is True


def test_name_without_a_job_changes_nothing(shell: Shell) -> None:
    for arguments in (("hello", "none-*"), ("hello", "none"), ("other:*",)):
        assert shell("job", "disable", *arguments)[0] == 4
        assert shell("job", "update", *arguments, "--set", "priority=5")[0] == 4
    assert not any(job["disabled"] for job in shell.client.jobs())
    assert {job["config"]["priority"] for job in shell.client.jobs()} == {0}


def test_update_says_what_changes_and_what_is_killed(shell: Shell) -> None:
    running(shell)
    code, out, _ = shell("job", "update", "hello", "--set", "priority=5", "--set", "retryDelaySeconds=1m")
    assert (code, "job hello is updated; running work continues" in out) == (0, True)
    assert "priority: 0 → 5" in out
    assert "retryDelaySeconds: 10 → 60" in out
    code, out, _ = shell("job", "update", "report-*", "--set", "jobParameter=x")
    assert out.count("is updated; 2 attempts are being killed") == 2
    assert 'jobParameter: "" → "x"' in out
    assert "job hello: nothing to change" in shell("job", "update", "hello", "--set", "priority=5")[1]


def test_update_and_diff_take_what_show_prints_and_manifests(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.loads(shell("job", "show", "hello", "--json")[1])
    file = shell.folder / "job.json"
    file.write_text(json.dumps(shown))
    assert shell("job", "update", "hello", file)[:2] == (0, "job hello: nothing to change\n")
    assert shell("job", "diff", "hello", file)[:2] == (0, "job hello: no difference\n")
    shown["config"]["cpuCount"] = 0.5
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(shown)))
    code, out, _ = shell("job", "diff", "hello", "-")
    assert (code, out) == (1, "    cpuCount: 0.1 → 0.5\n")
    assert shell.loop.scheduler.jobs["hello"].resources.cpus == 100
    manifest = shell.app(text=APP.replace("memoryMB: 32", "memoryMB: 48")) / "jobcloud.yaml"
    assert "memoryMB: 32 → 48" in shell("job", "update", "hello", manifest)[1]
    code, _, err = shell("job", "update", "report-*", manifest)
    assert (code, "has no job report-a" in err) == (2, True)
    assert shell("job", "diff", "hello", "--set", "cron=never")[0] == 1
    assert shell("job", "diff", "hello")[0] == shell("job", "update", "hello")[0] == 2
    assert json.loads(shell("job", "diff", "hello", "--set", "priority=1", "--json")[1])["action"] == "changed"


def test_update_of_a_job_that_has_changed_meanwhile_is_refused(shell: Shell) -> None:
    shown = json.loads(shell("job", "show", "hello", "--json")[1])
    file = shell.folder / "job.json"
    shown["config"]["cpuCount"] = 0.5
    file.write_text(json.dumps(shown))
    assert shell("job", "update", "hello", "--set", "priority=5")[0] == 0
    code, _, err = shell("job", "update", "hello", file)
    assert (code, "job hello has changed since you read it (read it again" in err) == (1, True)
    assert shell.client.job("hello")["config"]["priority"] == 5
    shown["revision"] = shell.client.job("hello")["revision"]
    file.write_text(json.dumps(shown))
    assert shell("job", "update", "hello", file)[0] == 0


def test_update_is_refused_if_another_one_comes_first(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job changes after the command has read it."""
    matching, priorities = jobs._matching, [7, 8]

    def read(ctx: Any, client: Client, patterns: list[str]) -> dict[str, Json]:
        found = matching(ctx, client, patterns)
        client.patch_job("hello", {"priority": priorities.pop()})
        return found

    monkeypatch.setattr(jobs, "_matching", read)
    file = shell.app() / "jobcloud.yaml"
    for arguments in (["--set", "priority=1"], [file]):
        assert shell("job", "update", "hello", *arguments)[0] == 1
    assert shell.client.job("hello")["config"]["priority"] == 7


def test_field_set_to_null_gets_its_default(shell: Shell) -> None:
    assert shell("job", "update", "hello", "--set", "priority=5")[0] == 0
    assert shell("job", "diff", "hello", "--set", "priority=null")[:2] == (1, "    priority: 5 → 0\n")
    assert shell("job", "update", "hello", "--set", "priority=null")[0] == 0
    assert shell.client.job("hello")["config"]["priority"] == 0


def test_jobs_of_a_file_are_added_together_or_not_at_all(shell: Shell) -> None:
    given = json.loads(shell("job", "show", "hello", "--json")[1])["config"]
    jobs = [given | {"jobName": name} for name in ("a", "b")]
    file = shell.folder / "jobs.json"
    file.write_text(json.dumps([*jobs, given]))
    code, _, err = shell("job", "add", file)
    assert (code, "job hello exists" in err) == (1, True)
    file.write_text(json.dumps([*jobs, given | {"jobName": "c", "cpuCount": -1}]))
    code, _, err = shell("job", "add", file)
    assert (code, "job c: cpuCount" in err) == (1, True), err
    file.write_text(json.dumps([*jobs, jobs[0]]))
    assert shell("job", "add", file)[0] == 2
    assert not {"a", "b", "c"} & set(shell.loop.scheduler.jobs)
    file.write_text(json.dumps(jobs))
    assert shell("job", "add", file, "--disabled")[0] == 0
    assert [shell.loop.scheduler.job_states[name].disabled for name in ("a", "b")] == [True, True]


def test_kill_of_a_job_takes_what_runs(shell: Shell) -> None:
    running(shell)
    job = next(iter(shell.loop.scheduler.tasks.values())).job
    active = [task.id for task in shell.loop.scheduler.tasks.values() if task.job == job]
    last = active.pop()
    shell.loop.update(last, "TASK_FAILED")
    code, out, _ = shell("kill", job)
    assert (code, sorted(out.splitlines())) == (0, sorted(f"task {task} is being killed" for task in active))
    assert all(task.kill_ms for task in shell.loop.scheduler.tasks.values() if task.job == job)
