"""Jobs and workers that misbehave: correct outcomes, nothing left behind, siblings unaffected as documented."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import (
    PACKAGE,
    Ended,
    ExecutorProcess,
    FakeAgent,
    Start,
    app_payload,
    little_memory,
    living_in,
    wait_until,
)

from jobcloud.executor import bundle
from jobcloud.executor.output import TIMES_BYTES, TIMES_SUFFIX
from jobcloud.executor.processes import oom_kills

pytest_plugins = ["tests.executor_kit.fixtures"]

WAIT = "shop.jobs:wait_for_kill"


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_error_in_a_finalizer_changes_no_outcome(agent: FakeAgent, start: Start, isolation: str) -> None:
    start()
    for task in ("t1", "t2"):
        agent.launch(task, jobClass="shop.jobs:BadFarewell", isolation=isolation)
        assert agent.end(task).state == "TASK_FINISHED"


STUBBORN = ["masks_signals", "deadlocks", "never_returns", "burns_cpu"]


@pytest.mark.parametrize("job", STUBBORN)
def test_shard_that_ignores_the_kill_ends_with_its_worker(agent: FakeAgent, start: Start, job: str) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:" + job)
    agent.state("t1", "TASK_RUNNING")
    agent.kill("t1", grace_s=0.2)
    assert agent.end("t1").state == "TASK_KILLED"
    assert not living_in(executor.sandbox / "app")
    agent.launch("t2", jobClass="shop.jobs:works_on")
    assert agent.end("t2").state == "TASK_FINISHED"


@pytest.mark.parametrize("job", STUBBORN)
def test_isolated_shard_that_ignores_the_kill_is_ended(agent: FakeAgent, start: Start, job: str) -> None:
    executor = start()
    agent.launch("sibling", jobClass=WAIT)
    agent.launch("t1", jobClass="shop.jobs:" + job, isolation="process")
    for task in ("sibling", "t1"):
        agent.state(task, "TASK_RUNNING")
    agent.kill("t1", grace_s=0.2)
    assert agent.end("t1").state == "TASK_KILLED"
    assert agent.states("sibling") == ["TASK_RUNNING"]
    assert len(living_in(executor.sandbox / "app")) == 1


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_many_forked_children_with_their_own_sessions_end_with_their_shard(
    agent: FakeAgent, start: Start, isolation: str
) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:forks_much", isolation=isolation)
    wait_until(lambda: len(living_in(executor.sandbox / "app")) == 61, "its children run")
    if isolation == "process":
        agent.kill("t1")
        assert agent.end("t1").state == "TASK_KILLED"
    else:
        agent.launch("t2", jobClass="shop.jobs:dies")
        assert agent.end("t1").cause == "worker_lost"
    assert not living_in(executor.sandbox / "app")


@pytest.mark.parametrize("session", ["own", "same"])
def test_child_that_forks_again_and_again_is_caught(agent: FakeAgent, start: Start, session: str) -> None:
    executor = start()
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="bin/hops.py", parameter=session)
    wait_until(lambda: executor.output("s1"), "it hops")
    agent.kill("s1", grace_s=0.1)
    assert agent.end("s1").state == "TASK_KILLED"
    assert not living_in(executor.sandbox / "app")


FLOOD = 64 << 20


@pytest.mark.parametrize("how", ["shared", "process", "script"])
def test_flood_of_output_is_bounded_and_blocks_no_other_task(agent: FakeAgent, start: Start, how: str) -> None:
    executor = start()
    job: dict[str, Any] = {"jobClass": "shop.jobs:floods", "isolation": how, "parameter": str(FLOOD)}
    if how == "script":
        job = {"jobType": "SCRIPT", "scriptCommandLine": f"sh -c 'head -c {FLOOD} /dev/zero'"}
    agent.launch("flood", **job)
    agent.state("flood", "TASK_RUNNING")
    for number in range(3):
        agent.launch(f"t{number}", jobClass="shop.jobs:Settle")
        assert agent.end(f"t{number}").state == "TASK_FINISHED"
    assert agent.end("flood").state == "TASK_FINISHED"
    folder = executor.sandbox / "tasks" / "flood"
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.pop("stdout" + TIMES_SUFFIX) <= TIMES_BYTES
    assert len(sizes) == 2
    assert max(sizes.values()) <= 10 << 20
    (before,) = (int(name.rpartition(".")[2]) for name in sizes if name != "stdout")
    assert before + sizes["stdout"] == FLOOD, "the predecessor's name says how many bytes precede"


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_job_that_closes_its_output_descriptors_does_not_affect_the_next(
    agent: FakeAgent, start: Start, isolation: str
) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:closes_descriptors", isolation=isolation)
    assert agent.end("t1").state == "TASK_FINISHED"
    agent.launch("t2", jobClass="shop.jobs:Settle", isolation=isolation)
    assert agent.end("t2").state == "TASK_FINISHED"
    assert executor.output("t2") == "settling 0 \n"


def test_streams_that_one_job_replaced_and_closed_are_restored_for_the_next(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:replaces_streams")
    agent.end("t1")
    agent.launch("t2", jobClass="shop.jobs:Settle")
    agent.launch("t3", jobClass="shop.jobs:Raises")
    assert agent.end("t2").state == "TASK_FINISHED"
    assert executor.output("t2") == "settling 0 \n"
    assert agent.end("t3").message.startswith("ValueError: no stock")
    assert "no stock" in executor.output("t3", "stderr")


def test_exit_in_one_job_leaves_standard_input_open_for_the_next(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:exits_like_a_script")
    assert agent.end("t1").state == "TASK_FINISHED"
    agent.launch("t2", jobClass="shop.jobs:reads_input")
    end = agent.end("t2")
    assert (end.state, end.message) == ("TASK_FINISHED", "")
    assert executor.output("t2") == "'' '' b''\n"


@pytest.mark.parametrize("isolation", ["shared", "process"])
@pytest.mark.parametrize(
    ("code", "reported"), [(2**31, 255), (2**32, 255), (-(2**31), 255), (2**64, 255), (2**31 - 1, 255), (256 + 7, 7)]
)
def test_exit_code_that_is_no_c_int_is_a_failure(
    agent: FakeAgent, start: Start, isolation: str, code: int, reported: int
) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:exits_with_a_number", parameter=str(code), isolation=isolation)
    end = agent.end("t1")
    assert (end.state, end.data["cause"], end.data["exitCode"]) == ("TASK_FAILED", "exit_code", reported)


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_binary_output_is_kept_unchanged(agent: FakeAgent, start: Start, isolation: str) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:not_utf8", isolation=isolation)
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="printf '\\377\\376'")
    for task in ("t1", "s1"):
        agent.end(task)
        assert (executor.sandbox / "tasks" / task / "stdout").read_bytes() == b"\xff\xfe"


def limited(tmp_path: Path, command: str) -> str:
    """An interpreter that runs a shell command first."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\n{command}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def test_file_size_limit_costs_only_output(agent: FakeAgent, start: Start, tmp_path: Path) -> None:
    # Units of 512 bytes, or of 1,024. CPython 3.11 cannot read a compiled module that it could not write as a whole.
    executor = start(python=limited(tmp_path, "ulimit -f 256"))
    agent.launch("t1", jobClass="shop.jobs:prints_much")
    agent.launch("t2", jobClass="shop.jobs:prints_much", isolation="process")
    for task in ("t1", "t2"):
        assert agent.end(task).state == "TASK_FINISHED"
        assert 0 < len(executor.output(task)) <= 256 * 1024
    assert executor.process.poll() is None


def open_files_of(executor: ExecutorProcess) -> int:
    return len(os.listdir(f"/proc/{executor.process.pid}/fd"))


WAITING = "sh -c 'until test -e go; do sleep 0.02; done'"


def test_daemon_raises_its_descriptor_limit_and_children_get_the_original(
    agent: FakeAgent, start: Start, tmp_path: Path
) -> None:
    executor = start(python=limited(tmp_path, "ulimit -S -n 64"))
    agent.launch("s0", jobType="SCRIPT", scriptCommandLine="sh -c 'ulimit -n'")
    agent.end("s0")
    assert executor.output("s0") == "64\n"
    wait_until(lambda: open_files_of(executor) < 64, "its output is closed")
    before = open_files_of(executor)
    tasks = [agent.launch(f"s{number}", jobType="SCRIPT", scriptCommandLine=WAITING) for number in range(1, 41)]
    wait_until(lambda: open_files_of(executor) > 64, "all of them run")
    (executor.sandbox / "app" / "go").touch()
    assert {agent.end(task).state for task in tasks} == {"TASK_FINISHED"}
    wait_until(lambda: open_files_of(executor) <= before, "nothing of them stays open")


def test_execution_without_free_descriptors_fails_as_worker_lost(
    agent: FakeAgent, start: Start, tmp_path: Path
) -> None:
    executor = start(python=limited(tmp_path, "ulimit -n 40"))
    agent.launch("t0", jobClass="shop.jobs:works_on")
    assert agent.end("t0").state == "TASK_FINISHED"
    before = open_files_of(executor)
    kinds: list[dict[str, Any]] = [
        {"jobType": "SCRIPT", "scriptCommandLine": WAITING},
        {"jobClass": "shop.jobs:until_file", "parameter": "go", "isolation": "process"},
    ]
    tasks = [agent.launch(f"t{number}", **kinds[number % 2]) for number in range(1, 25)]
    wait_until(lambda: any(agent.states(task)[-1:] == ["TASK_FAILED"] for task in tasks), "there is no more room")
    (executor.sandbox / "app" / "go").touch()
    ends = [agent.end(task) for task in tasks]
    assert {(end.state, end.cause) for end in ends} == {("TASK_FINISHED", None), ("TASK_FAILED", "worker_lost")}
    assert "Too many open files" in next(end.message for end in ends if end.cause)
    wait_until(lambda: open_files_of(executor) <= before, "their descriptors are closed")
    agent.launch("last", jobClass="shop.jobs:works_on", isolation="process")
    assert agent.end("last").state == "TASK_FINISHED"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk that is small enough to be full")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_costs_only_output(agent: FakeAgent, small_disk: Path) -> None:
    executor = ExecutorProcess(agent, small_disk / "sandbox", PACKAGE, sys.executable)
    try:
        agent.launch("t1", jobClass="shop.jobs:prints_much")
        assert agent.end("t1").state == "TASK_FINISHED"
        full = shutil.disk_usage(small_disk)
        assert full.free < 100_000
        for task, isolation in (("t2", "shared"), ("t3", "process")):
            agent.launch(task, jobClass="shop.jobs:Settle", isolation=isolation)
            assert agent.end(task).state == "TASK_FINISHED"
        agent.launch("t4", jobClass="shop.jobs:fills_disk")
        end = agent.end("t4")
        assert (end.state, end.cause) == ("TASK_FAILED", "exception")
        assert "No space left" in end.message
        assert executor.process.poll() is None
    finally:
        executor.stop()


def test_package_too_large_for_the_disk_fails_its_tasks_with_the_reason(agent: FakeAgent, small_disk: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(4 << 20))
    package = packed.getvalue()
    agent.executor_data = app_payload(package)
    executor = ExecutorProcess(agent, small_disk / "sandbox", package, sys.executable)
    try:
        agent.launch("t1", jobClass="jobs:Job")
        end = agent.end("t1")
        assert (end.state, end.cause) == ("TASK_FAILED", "package")
        assert "No space left" in end.message
        assert not list((small_disk / "sandbox").glob("app*"))
    finally:
        executor.stop()


@pytest.fixture
def small_group() -> Iterator[Path]:
    with little_memory() as group:
        yield group
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")


def test_process_killed_by_the_oom_killer_fails_with_cause_out_of_memory(
    agent: FakeAgent, start: Start, tmp_path: Path, small_group: Path
) -> None:
    executor = start(python=limited(tmp_path, f"echo $$ > {small_group}/cgroup.procs"))
    agent.launch("sibling", jobClass=WAIT)
    agent.state("sibling", "TASK_RUNNING")
    # The kernel kills the largest process: the one that asks for too much memory.
    agent.launch("t1", jobClass="shop.jobs:fills_memory", isolation="process", parameter="400")
    end = agent.end("t1")
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "out_of_memory", -9), end
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine=f"{sys.executable} -c 'x = b\"x\" * (400 << 20)'")
    assert agent.end("s1").cause == "out_of_memory"
    agent.launch("s2", jobType="SCRIPT", scriptCommandLine="sh -c 'kill -9 $$'")
    assert agent.end("s2").cause == "signal", "a SIGKILL from elsewhere is not the OOM killer's"
    assert agent.states("sibling") == ["TASK_RUNNING"]
    agent.launch("t2", jobClass="shop.jobs:fills_memory", parameter="400")
    for task in ("sibling", "t2"):
        end = agent.end(task)
        assert end.cause == "worker_lost"
        assert "because memory ran out" in end.message
    executor.stop()


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_memory_error_fails_with_cause_out_of_memory(agent: FakeAgent, start: Start, isolation: str) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:wants_memory", isolation=isolation)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "out_of_memory")
    assert end.message.startswith("MemoryError")


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "groups/a/b/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/a\n0::/\n",
                "groups/memory/a/memory.oom_control": "under_oom 0\noom_kill 5\n",
            },
            5,
        ),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": "pgfault 1\noom_kill 7\n"}, 7),
        ({"proc/self/cgroup": "nonsense\n"}, 0),
        ({}, 0),
    ],
)
def test_oom_kills_are_counted_in_the_control_group(tmp_path: Path, files: dict[str, str], count: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(str(tmp_path / "proc"), str(tmp_path / "groups")) == count


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, sys; os.write(int(sys.argv[-1]), b'hello\\n')", "broke the protocol"),
        ("import os, sys; os.close(int(sys.argv[-1])); __import__('time').sleep(600)", "closed its pipe"),
    ],
)
def test_worker_that_answers_wrongly_is_lost_with_the_reason(
    agent: FakeAgent, start: Start, worker: str, says: str
) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand=f'{sys.executable} -c "{worker}"')
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    assert says in end.message
    assert not living_in(executor.sandbox / "app")
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="true")
    assert agent.end("s1").state == "TASK_FINISHED"


def test_worker_that_is_not_ready_in_time_is_lost(agent: FakeAgent, start: Start, tmp_path: Path) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand="sh -c 'sleep 600'")
    hasty = tmp_path / "python"
    hasty.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.path.insert(0, {bundle.FILE_NAME!r})\n"
        "from jobcloud.executor import workers\n"
        "from jobcloud.executor.__main__ import main\n"
        "workers.READY_WITHIN_S = 0.3\n"
        "sys.exit(main())\n"
    )
    hasty.chmod(0o755)
    executor = start(python=str(hasty))
    agent.launch("t1", jobClass="shop.jobs:works_on")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    assert "not ready in time" in end.message
    assert not living_in(executor.sandbox / "app")


def test_listener_that_hangs_during_creation_delays_only_its_own_jobs(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:works_on", listener=["shop.jobs:Hangs"])
    agent.state("t1", "TASK_RUNNING")
    agent.launch("t2", jobClass="shop.jobs:works_on", listener=["shop.jobs:Audits"])
    assert agent.end("t2").state == "TASK_FINISHED"
    agent.kill("t1", grace_s=0.1)
    assert agent.end("t1").state == "TASK_KILLED"


ANSWERS = """
import json, os, sys, time
say = lambda **message: os.write(int(sys.argv[-1]), json.dumps(message).encode() + bytes([10]))
lines = os.fdopen(int(sys.argv[-2]))
for order in map(json.loads, lines):
    if order["type"] == "hello":
        say(type="ready", protocol=2)
    elif order["type"] == "run":
        ids = {"task": order["task"], "run": order["run"]}
        end = {"state": "finished", "cause": None, "message": "", "exitCode": None, "result": None}
        say(type="started", **ids)
        say(**{"type": "ended", **ids, **end, **eval(order["context"]["shardingParameter"])})
    elif order["type"] == "stop":
        break
"""


@pytest.fixture
def answering(agent: FakeAgent, start: Start, tmp_path: Path) -> Callable[[str], Ended]:
    """Ends of tasks in a custom worker that answers with these fields."""
    (tmp_path / "worker.py").write_text(ANSWERS)
    agent.executor_data = app_payload(PACKAGE, workerCommand=f"{sys.executable} {tmp_path / 'worker.py'}")
    start()
    numbers = itertools.count()

    def end(fields: str) -> Ended:
        return agent.end(agent.launch(f"t{next(numbers)}", jobClass="any:thing", parameter=fields))

    return end


def test_results_of_a_custom_worker_have_the_same_limits(answering: Callable[[str], Ended]) -> None:
    results = {"[1]": [1], "float('nan')": None, "'x' * 5000": None, "[" * 40 + "]" * 40: None}
    for result, kept in results.items():
        end = answering(f"dict(result={result})")
        assert (end.state, end.data.get("result")) == ("TASK_FINISHED", kept)
        assert ("dropped" in end.message) == (kept is None)


@pytest.mark.parametrize(
    "fields",
    [
        "dict(state='killed')",
        "dict(state='lost')",
        "dict(cause='boredom')",
        "dict(run=2)",
        "dict(task='another')",
        "dict(message=None)",
        "dict(exitCode=1e999)",
        "dict(message='x' * 2_000_000)",
    ],
)
def test_invalid_end_breaks_the_protocol(answering: Callable[[str], Ended], fields: str) -> None:
    end = answering(fields)
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    assert "broke the protocol" in end.message
    assert answering("dict(result=1)").state == "TASK_FINISHED", "the next one gets a new worker"


def test_worker_that_never_answers_is_ended_when_the_grace_time_of_a_kill_is_over(
    agent: FakeAgent, start: Start
) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand="sh -c 'sleep 600'")
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    wait_until(lambda: living_in(executor.sandbox / "app"), "the worker runs")
    agent.kill("t1", grace_s=0.2)
    assert agent.end("t1").state == "TASK_KILLED"
    assert not living_in(executor.sandbox / "app")
