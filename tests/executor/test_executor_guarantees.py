"""The table of guarantees in docs/executor.md: each cell has a test here."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import (
    PACKAGE,
    ExecutorProcess,
    FakeAgent,
    Start,
    app_payload,
    interpreters,
    living_in,
    wait_until,
)

from jobcloud.config import Isolation, Job, JobKind, JobType, Resources
from jobcloud.errors import ConfigError

pytest_plugins = ["tests.executor_kit.fixtures"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "executor.md"
# How a job runs, and the heading of its column in the table.
COLUMNS = {
    "shared": "SIMPLE, DATAFLOW, isolation `shared`",
    "process": "SIMPLE, DATAFLOW, isolation `process`",
    "script": "SCRIPT, HTTP (a process per execution)",
}
ROWS: dict[str, str] = {}
Test = Callable[..., None]


def row(title: str) -> Callable[[Test], Test]:
    """Make a test for each cell of that row, from one with the argument `how`."""

    def mark(test: Test) -> Test:
        ROWS[title] = test.__name__
        return pytest.mark.parametrize("how", COLUMNS)(test)

    return mark


def test_every_cell_of_the_documented_table_has_a_test() -> None:
    section = DOCUMENT.read_text().partition("## What is guaranteed")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, _, *body = table
    assert head[1:] == list(COLUMNS.values())
    assert [cells[0] for cells in body] == list(ROWS)
    assert all(len(cells) == len(COLUMNS) + 1 and all(cells) for cells in body)


class Rig:
    """One executor for all tests of the file: a test that leaves something behind fails the next one."""

    def __init__(self, agent: FakeAgent, executor: ExecutorProcess) -> None:
        self.agent, self.executor = agent, executor
        self._tasks = 0

    def launch(self, how: str, job: str = "wait_for_kill", **more: Any) -> str:
        """Start a job of the kit's app (for scripts: the arguments of bin/behave.py). Returns its task."""
        self._tasks += 1
        task = f"t{self._tasks}"
        if how == "script":
            fields = {"jobType": "SCRIPT", "scriptCommandLine": f"bin/behave.py {job}"}
        else:
            fields = {"jobClass": f"shop.jobs:{job}", "isolation": how}
        self.agent.launch(task, **{**fields, **more})
        return task

    def siblings(self) -> dict[str, str]:
        """Start a waiting shard of each kind. Returns the tasks by kind."""
        tasks = {how: self.launch(how) for how in COLUMNS}
        for task in tasks.values():
            wait_until(lambda task=task: self.executor.output(task), f"{task} runs")  # type: ignore[misc]
        return tasks

    def dismiss(self, *tasks: str) -> None:
        """Check that the tasks ran undisturbed until now, and end them."""
        for task in tasks:
            assert self.agent.states(task) == ["TASK_RUNNING"]
            self.agent.kill(task, grace_s=60)
        for task in tasks:
            assert self.agent.end(task).state == "TASK_KILLED"

    def processes(self) -> list[int]:
        return living_in(self.executor.sandbox / "app")

    def worker(self) -> int:
        """The pid of the shared worker."""
        return int(self.agent.end(self.launch("shared", "Settle")).data["result"]["pid"])


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    agent = FakeAgent(app_payload(PACKAGE))
    executor = ExecutorProcess(agent, tmp_path_factory.mktemp("rig") / "sandbox", PACKAGE, interpreters()[0])
    yield Rig(agent, executor)
    executor.stop()
    agent.close()


@pytest.fixture
def rig(shared_rig: Rig) -> Iterator[Rig]:
    yield shared_rig
    worker = shared_rig.worker()
    wait_until(lambda: shared_rig.processes() == [worker], "nothing but the shared worker is left")


@row("exception, import error, exit in a job")
def test_failing_job_affects_its_shard_only(rig: Rig, how: str) -> None:
    siblings, worker = rig.siblings(), rig.worker()
    wrong = {"Raises": "exception", "Missing": "import", "exits": "exit_code"}
    if how == "script":
        wrong = {"raise": "exit_code", "import": "exit_code", "exit 3": "exit_code"}
    tasks = {job: rig.launch(how, job, item=3) for job in wrong}
    for job, cause in wrong.items():
        end = rig.agent.end(tasks[job])
        assert (end.state, end.cause) == ("TASK_FAILED", cause), end
    assert rig.worker() == worker
    rig.dismiss(*siblings.values())


@row("the process dies (`os._exit`, signal, out of memory)")
@pytest.mark.parametrize("job", ["dies", "segfaults", "killed"])
def test_process_that_dies_affects_its_own_shards_only(rig: Rig, how: str, job: str) -> None:
    siblings, worker = rig.siblings(), rig.worker()
    end = rig.agent.end(rig.launch(how, job))
    lost = {"dies": "exit_code", "segfaults": "signal", "killed": "signal"}[job]
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost" if how == "shared" else lost), end
    if how == "shared":
        sibling = rig.agent.end(siblings.pop("shared"))
        assert (sibling.state, sibling.cause) == ("TASK_FAILED", "worker_lost")
        assert rig.worker() != worker
    else:
        assert end.data["exitCode"] == {"dies": 9, "segfaults": -11, "killed": -9}[job]
        assert rig.worker() == worker
    rig.dismiss(*siblings.values())


@row("working directory, environment, `sys.modules`, memory")
def test_changes_to_a_process_are_seen_only_by_shards_in_it(rig: Rig, how: str) -> None:
    changed = ["/", "1", "changed"]
    assert rig.agent.end(rig.launch(how, "changes_process")).state == "TASK_FINISHED"
    seen = {other: _seen(rig, other) for other in COLUMNS}
    fresh = [str(rig.executor.sandbox / "app"), None, None]
    assert seen == {other: changed if other == how == "shared" else fresh for other in COLUMNS}
    if how == "shared":
        rig.agent.end(rig.launch("shared", "dies"))


def _seen(rig: Rig, how: str) -> list[Any]:
    task = rig.launch(how, "sees_process")
    end = rig.agent.end(task)
    seen: list[Any] = json.loads(rig.executor.output(task)) if how == "script" else end.data["result"][:3]
    return seen


@row("output")
def test_output_of_shards_is_kept_apart(rig: Rig, how: str) -> None:
    tasks = [rig.launch(how, "prints_with_child") for _ in range(2)]
    for task in tasks:
        assert rig.agent.end(task).state == "TASK_FINISHED"
        child = [] if how == "shared" else ["from a child"]
        assert sorted(rig.executor.output(task).splitlines()) == [*child, f"from {task}"]
    worker = rig.executor.sandbox / "worker" / "stdout"
    if how == "shared":
        wait_until(
            lambda: worker.exists() and "from a child" in worker.read_text(),
            "the child's output is in the worker's own log",
        )


@row("kill, first")
def test_killed_shard_is_first_asked_to_stop(rig: Rig, how: str) -> None:
    siblings = rig.siblings()
    task = rig.launch(how, "polite")
    wait_until(lambda: rig.executor.output(task), "it runs")
    rig.agent.kill(task, grace_s=600)
    end = rig.agent.end(task)
    assert (end.state, end.cause) == ("TASK_KILLED", "killed")
    assert rig.executor.output(task).splitlines()[-1] == "bye"
    rig.dismiss(*siblings.values())


@row("kill, after the grace period")
def test_shard_that_does_not_stop_is_ended_by_force(rig: Rig, how: str) -> None:
    siblings, worker = rig.siblings(), rig.worker()
    mortal = rig.launch("shared", "never_returns")
    task = rig.launch(how, "never_returns")
    for one in (mortal, task):
        rig.agent.state(one, "TASK_RUNNING")
    rig.agent.kill(task, grace_s=0.3)
    if how == "shared":
        # The worker is retired: new shards get another worker while the old one still runs.
        wait_until(lambda: rig.worker() != worker, "new shards go to a new worker")
        rig.agent.kill(siblings.pop("shared"))
        end = rig.agent.end(mortal)
        assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    end = rig.agent.end(task)
    assert (end.state, end.cause) == ("TASK_KILLED", "killed")
    if how != "shared":
        assert rig.worker() == worker
        rig.agent.end(rig.launch("shared", "dies"))
        rig.agent.end(mortal)
        rig.agent.end(siblings.pop("shared"))
    rig.dismiss(*siblings.values())


@row("`timeoutSeconds` is over")
def test_execution_over_its_time_limit_is_killed_and_fails(rig: Rig, how: str) -> None:
    siblings = rig.siblings()
    end = rig.agent.end(rig.launch(how, timeoutSeconds=0.2))
    assert (end.state, end.cause) == ("TASK_FAILED", "timeout")
    rig.dismiss(*siblings.values())


@row("the end is reported")
def test_code_no_longer_runs_when_its_end_is_reported(rig: Rig, how: str) -> None:
    task = rig.launch(how, "beats", parameter=f"beats-{how}")
    beats = rig.executor.sandbox / "app" / f"beats-{how}"
    wait_until(beats.exists, "it runs")
    before = rig.processes()
    rig.agent.kill(task, grace_s=600)
    assert rig.agent.end(task).state == "TASK_KILLED"
    count = beats.stat().st_size
    if how != "shared":
        assert len(rig.processes()) == len(before) - 1
    time.sleep(0.1)
    assert beats.stat().st_size == count


@row("children of the process, with `setsid` or without")
@pytest.mark.parametrize("session", ["own", "same"])
def test_children_end_with_their_process(rig: Rig, how: str, session: str) -> None:
    worker, before = rig.worker(), len(rig.processes())
    task = rig.launch(how, "leaves_children", parameter=f"600{'' if session == 'own' else '.0'}")
    wait_until(lambda: len(rig.processes()) == before + 1 + (how != "shared"), "its child runs")
    rig.agent.kill(task)
    assert rig.agent.end(task).state == "TASK_KILLED"
    if how == "shared":
        assert len(rig.processes()) == before + 1, "it lives as long as the worker"
        end = rig.agent.end(rig.launch("shared", "dies"))
        assert end.cause == "worker_lost"
        # A killed process stays in the process table until the kernel has run it once more.
        wait_until(lambda: not rig.processes(), "its child is gone")
    else:
        wait_until(lambda: rig.processes() == [worker], "its child is gone")


@row("`memoryLimitMB`, `cpuLimitSeconds`, `openFilesLimit`")
@pytest.mark.parametrize(
    ("limit", "job", "says"),
    [
        ({"memoryLimitMB": 512}, "takes_memory", "MemoryError"),
        ({"cpuLimitSeconds": 1}, "burns_cpu", "SIGXCPU"),
        ({"openFilesLimit": 64}, "opens_files", "Too many open files"),
    ],
)
def test_limits_hold_for_isolated_shards_and_are_refused_for_shared_ones(
    rig: Rig, how: str, limit: dict[str, int], job: str, says: str
) -> None:
    if how == "shared":
        names = {"memoryLimitMB": "memory_limit_mb", "cpuLimitSeconds": "cpu_limit_s"}
        (field, amount), *_ = limit.items()
        wanted: Any = {names.get(field, "open_files_limit"): amount, "job_class": "m:C", "isolation": Isolation.SHARED}
        with pytest.raises(ConfigError, match=field):
            Job("j", "a", JobKind.TRANSIENT, JobType.SIMPLE, "0 0 0 * * ?", 1, Resources(100, 1000), **wanted)
        return
    siblings = rig.siblings()
    end = rig.agent.end(rig.launch(how, job, parameter="600", **limit))
    assert end.state == "TASK_FAILED"
    assert says in end.message, end
    if job == "takes_memory" and how == "process":
        assert end.cause == "out_of_memory"
    rig.dismiss(*siblings.values())


@row("the daemon is killed (SIGKILL)")
def test_daemon_leaves_no_process(agent: FakeAgent, start: Start, how: str) -> None:
    executor = start()
    rig = Rig(agent, executor)
    for job in ("never_returns", "leaves_children"):
        rig.launch(how, job, parameter="600")
    wait_until(lambda: len(rig.processes()) == (2 if how == "shared" else 3), "they run, a child too")
    os.kill(executor.process.pid, 9)
    wait_until(lambda: not rig.processes(), "they end")
