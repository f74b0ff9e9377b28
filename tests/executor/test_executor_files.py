"""Files of apps and jobs: each attempt of the real executor reads them in a folder of its own."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import (
    EVERY_SECOND,
    PACKAGE,
    ExecutorProcess,
    FakeAgent,
    PostServer,
    Start,
    app_payload,
    task_payload,
    wait_until,
)

from jobcloud.executor.files import JobFiles, merged
from jobcloud.executor.payload import PayloadError, read_app, read_task
from jobcloud.wire import encode_data

pytest_plugins = ["tests.executor_kit.fixtures"]

OF_APP = {"conf/app.ini": "app", "conf/log.ini": "app"}
OF_JOB = {"conf/log.ini": "{item} \u00e9\r\n", "own": ""}
SEEN = {
    "conf": ["0o700", ""], "conf/app.ini": ["0o600", "app"], "conf/log.ini": ["0o600", "{item} \u00e9\n"],
    "own": ["0o600", ""],
}  # fmt: skip
READS: dict[str, Any] = {"jobClass": "shop.jobs:reads_files"}
WAITS: dict[str, Any] = {"jobClass": "shop.jobs:reads_files_until_killed"}
SCRIPT = "sh -c 'pwd; echo $JOBCLOUD_FILES; stat -c %a $JOBCLOUD_FILES $JOBCLOUD_FILES/own; cat $JOBCLOUD_FILES/conf/*'"


def launch(agent: FakeAgent, task: str, files: dict[str, str] | None = OF_JOB, **job: Any) -> None:
    given = task_payload(task, **job)
    if files is not None:
        given = {**given, "schema": 5, "job": {**given["job"], "files": files}}
    agent.launch(task, given)


def with_app(agent: FakeAgent, **app: Any) -> None:
    agent.executor_data = app_payload(PACKAGE, schema=3, files=OF_APP, **app)


def seen(executor: ExecutorProcess, task: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(executor.output(task).splitlines()[0])
    return found


def left(executor: ExecutorProcess) -> list[str]:
    return os.listdir(executor.sandbox / "files")


def test_script_reads_files_of_its_app_and_in_place_of_them_its_own(
    agent: FakeAgent, start: Start, python: str
) -> None:
    with_app(agent)
    executor = start(python=python)
    launch(agent, "s1", jobType="SCRIPT", scriptCommandLine=SCRIPT)
    assert agent.end("s1").state == "TASK_FINISHED", executor.log()
    directory, folder, *modes, content = executor.output("s1").splitlines()
    assert (modes, content) == (["700", "600"], "app{item} \u00e9")
    assert Path(folder).parent == executor.sandbox / "files"
    assert not Path(folder).is_relative_to(directory), "the package is shared by all shards"
    wait_until(lambda: left(executor) == [], "the removal of the folders")


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_python_job_finds_its_files_by_the_context(agent: FakeAgent, start: Start, python: str, isolation: str) -> None:
    with_app(agent)
    executor = start(python=python)
    launch(agent, "j1", isolation=isolation, **READS)
    assert agent.end("j1").state == "TASK_FINISHED", executor.log()
    wait_until(lambda: executor.output("j1"), "the output")
    found = seen(executor, "j1")
    assert (found["files"], found["mode"]) == (SEEN, "0o700")
    assert found["variable"] == (None if isolation == "shared" else found["folder"])
    wait_until(lambda: left(executor) == [], "the removal of the folders")


def test_job_without_files_gets_those_of_its_app_and_none_without_an_app_with_files(
    agent: FakeAgent, start: Start
) -> None:
    with_app(agent)
    executor = start()
    launch(agent, "j1", None, **READS)
    assert agent.end("j1").state == "TASK_FINISHED", executor.log()
    wait_until(lambda: executor.output("j1"), "the output")
    assert set(seen(executor, "j1")["files"]) == {"conf", *OF_APP}


def test_task_without_files_makes_no_folder(agent: FakeAgent, start: Start) -> None:
    executor = start()
    launch(agent, "s1", None, jobType="SCRIPT", scriptCommandLine="sh -c 'echo [$JOBCLOUD_FILES]'")
    assert agent.end("s1").state == "TASK_FINISHED"
    assert executor.output("s1").strip() == "[]"
    assert not (executor.sandbox / "files").exists()


def test_two_attempts_at_once_in_one_worker_have_a_folder_each(agent: FakeAgent, start: Start) -> None:
    executor = start()
    for task in ("a", "b"):
        launch(agent, task, {"who": task}, **WAITS)
    for task in ("a", "b"):
        wait_until(lambda task=task: executor.output(task).count("\n"), "the files")  # type: ignore[misc]
    one, other = seen(executor, "a"), seen(executor, "b")
    assert (one["files"]["who"][1], other["files"]["who"][1]) == ("a", "b")
    agent.kill("a")
    assert agent.end("a").state == "TASK_KILLED"
    wait_until(lambda: not Path(one["folder"]).exists(), "the removal of the folder")
    assert Path(other["folder"], "who").read_text() == "b"


def test_shard_of_a_resident_job_keeps_its_folder_for_all_executions(agent: FakeAgent, start: Start) -> None:
    executor = start()
    launch(agent, "d1", jobExecutionType="DAEMON", timer=EVERY_SECOND, **READS)
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 2, "two executions")
    wait_until(lambda: executor.output("d1").count("\n") >= 2, "the output")
    first, second = executor.output("d1").splitlines()[:2]
    assert json.loads(first) == json.loads(second)


def test_listener_of_the_runs_of_a_script_reads_the_files_of_its_job(agent: FakeAgent, start: Start) -> None:
    executor = start()
    given = task_payload("before", jobType="SCRIPT", scriptCommandLine="x", distributedListener="shop.jobs:ReadsFiles",
                         files=OF_JOB)  # fmt: skip
    agent.launch("before", {**given, "schema": 5, "step": "before", "firing": {}, "timeoutSeconds": 0})
    assert agent.end("before").state == "TASK_FINISHED", executor.log()
    wait_until(lambda: executor.output("before"), "the output")
    assert set(seen(executor, "before")["files"]) == {"conf", *OF_JOB}


def test_http_job_gets_no_files_of_its_app(agent: FakeAgent, start: Start) -> None:
    server = PostServer()
    with_app(agent)
    executor = start()
    launch(agent, "h1", None, jobType="HTTP", httpUri=server.url, httpMethod="POST")
    assert agent.end("h1").state == "TASK_FINISHED"
    assert not (executor.sandbox / "files").exists()
    server.close()


def test_worker_that_does_not_know_files_gets_no_job_with_files(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand="bin/worker.py")
    executor = start()
    launch(agent, "j1", jobClass="com.example.Settle")
    end = agent.end("j1")
    assert (end.state, end.data["cause"]) == ("TASK_FAILED", "command")
    assert "no files" in end.message
    assert 'isolation "process"' in end.message
    launch(agent, "j2", None, jobClass="com.example.Settle")
    assert agent.end("j2").state == "TASK_FINISHED"
    launch(agent, "j3", jobClass="com.example.Settle", isolation="process")
    assert agent.end("j3").state == "TASK_FINISHED", "its process has the variable"
    wait_until(lambda: left(executor) == [], "the removal of the folders")


def test_planted_link_in_place_of_the_folder_fails_only_attempts_with_files(
    agent: FakeAgent, start: Start, tmp_path: Path
) -> None:
    executor, elsewhere = start(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    plant = f"sh -c 'ln -s {elsewhere} {executor.sandbox}/files'"
    launch(agent, "s1", None, jobType="SCRIPT", scriptCommandLine=plant)
    assert agent.end("s1").state == "TASK_FINISHED"
    assert (executor.sandbox / "files").is_symlink()
    launch(agent, "j1", **READS)
    end = agent.end("j1")
    assert (end.state, end.data["cause"]) == ("TASK_FAILED", "worker_lost")
    assert "cannot write the files of the job" in end.message
    assert list(elsewhere.iterdir()) == []
    launch(agent, "j2", None, jobClass="shop.jobs:plain")
    assert agent.end("j2").state == "TASK_FINISHED"


def test_full_disk_leaves_nothing_of_the_attempt_and_all_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, plain = JobFiles(str(tmp_path)), os.open
    files.write("first", OF_APP, OF_JOB)

    def full(path: str, flags: int, *mode: int, **more: Any) -> int:
        if path == "own":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, flags, *mode, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left"):
            files.write("second", OF_APP, OF_JOB)
    assert files.folder("second") == ""
    assert os.listdir(tmp_path / "files") == [os.path.basename(files.folder("first"))]
    assert Path(files.folder("first"), "conf/log.ini").read_bytes() == OF_JOB["conf/log.ini"].encode()


def test_folder_is_removed_without_following_links_that_the_job_left(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    files = JobFiles(str(tmp_path))
    files.write("t", {}, OF_JOB)
    os.symlink(tmp_path / "kept", Path(files.folder("t"), "link"))
    files.remove("t")
    assert os.listdir(tmp_path / "files") == []
    assert (tmp_path / "kept" / "file").read_text() == "x"


def test_file_of_the_job_replaces_those_of_the_app_that_cannot_exist_beside_it() -> None:
    of_app = {"a": "app", "b/c": "app", "b/d": "app", "e": "app", "a.b": "app"}
    assert merged(of_app, {"a/x": "job", "b": "job", "e": "job"}) == {
        "a/x": "job", "b": "job", "e": "job", "a.b": "app",
    }  # fmt: skip


HOSTILE = ["/etc/x", "../x", "a/../../x", ".", "..", "", "a//b", "a/", "a\0", "a\n", "-a", "a b", "a/."]


@pytest.mark.parametrize("files", [*({path: "x"} for path in HOSTILE), {"a": 1}, ["a"]], ids=repr)
def test_data_with_files_that_could_leave_the_folder_are_refused(files: Any) -> None:
    app = {**app_payload(None), "schema": 3, "files": files}
    with pytest.raises(PayloadError, match="files"):
        read_app(encode_data(json.dumps(app).encode()))
    task = {**task_payload("t", jobClass="m:C", files=files), "schema": 5}
    with pytest.raises(PayloadError, match="files"):
        read_task(encode_data(json.dumps(task).encode()))
