"""`jobcloud plan` on the command line: answers, formats and errors."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.api_kit import FakeLoop, make_api, serving

from jobcloud.client import cli
from jobcloud.client.planning import hosts_of_cluster
from jobcloud.errors import ConfigError
from jobcloud.server.api import Access, ApiOptions

HOSTS = "id,cpus,mem_mb,attr_zone,count\na,64,262144,east,3\nb,64,262144,west,3\n"
TASKS = "id,job,cpus,mem_mb,constraint,count\nr,report,4,8192,max_per_host=8,40\ns,settle,1,16384,,60\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hosts.csv").write_text(HOSTS)
    (tmp_path / "tasks.csv").write_text(TASKS)
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """The output of a plan that exits with `code`: standard output, or from code 2 on standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", "--seconds", "1", *map(str, arguments)])
    said = capsys.readouterr()
    assert (ended.value.code or 0) == code, said.out + said.err
    assert "Traceback" not in said.err
    return said.err if code > 1 else said.out


def test_plan_answers_fit_minimum_failures_and_room_for_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(
        capsys, "--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv", "--more", "report", "--fail", 1
    )
    assert "fits: all 100 tasks on 6 hosts" in text
    assert "5 of 6 hosts used" in text
    assert "5 hosts suffice, 4 cannot (" in text
    assert "zone east" in text
    assert "8 more tasks of report fit in addition, 9 do not" in text
    where = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv")
    text = plan(capsys, *where, "--fail", 7, "--fail-by", "rack")
    assert "7 hosts cannot fail; there are only 6" in text
    assert "no host has the attribute rack" in text


def test_json_and_placement_agree_and_respect_capacity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "placed.csv"
    tables = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv")
    found = json.loads(plan(capsys, *tables, "--placement", out, "--json"))
    assert (found["fits"], found["tasks"], found["peak"]) == (True, 100, None)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["task"] for row in rows}) == 100
    for host in {row["host"] for row in rows}:
        jobs = [row["job"] for row in rows if row["host"] == host]
        assert jobs.count("report") <= 8
        assert 4 * jobs.count("report") + jobs.count("settle") <= 64
        assert 8_192 * jobs.count("report") + 16_384 * jobs.count("settle") <= 262_144


def test_placement_names_each_task_of_equal_and_unequal_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tasks.csv").write_text("id,job,cpus,mem_mb,disk_mb\na,j,1,1,0\nb,k,1,1,0\nc,j,2,1,0\nd,j,1,1,0\n")
    tables = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv")
    plan(capsys, *tables, "--placement", folder / "placed.csv")
    with (folder / "placed.csv").open() as file:
        rows = {(row["job"], row["task"]) for row in csv.DictReader(file)}
    assert rows == {("j", "a"), ("k", "b"), ("j", "c"), ("j", "d")}


def test_demand_that_does_not_fit_exits_with_1_and_the_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tasks.csv").write_text("id,cpus,mem_mb,count\nlarge,65,1,2\nmany,32,1,13\n")
    text = plan(capsys, "--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv", code=1)
    assert "does not fit: 3 of 15 tasks refused" in text
    assert "larger than any host: 65 cpus of at most 64" in text
    assert "6 lack cpus" in text


def test_tasks_not_tried_in_time_exit_with_1_and_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcloud.planning.packing._SURE_LOOKS", 0)
    monkeypatch.setattr("jobcloud.planning.packing._Clock.end", 0.0)
    (folder / "tasks.csv").write_text("id,cpus,mem_mb,count\na,8,1,2\nb,4,1,13\n")
    tables = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv", "--seconds", "0.1")
    text = plan(capsys, *tables, code=1)
    assert "13 of 15 tasks were not tried within 0.1 seconds" in text
    assert "tasks tried in time; " in text
    assert "refused" not in text


def test_number_of_hosts_is_found_for_each_type(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = "name=small,cpus=16,mem_mb=65536,price=100", "name=large,cpus=64,mem_mb=262144,price=300"
    text = plan(capsys, "--host", small, "--host", large, "--tasks", folder / "tasks.csv")
    assert "small (16 cpus, 65,536 mem_mb): " in text
    assert "large (64 cpus, 262,144 mem_mb): 5 hosts suffice, 4 cannot" in text
    assert "price 1,500.00" in text
    text = plan(capsys, "--host", "name=small,vCPU=16,Memory=64 GiB", "--tasks", folder / "tasks.csv")
    assert "small (16 cpus, 65,536 mem_mb): " in text


def test_types_of_which_too_few_hosts_exist_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv")
    (folder / "hosts.csv").write_text("id,cpus,mem_mb,count\nlarge,60,240000,1\nsmall,24,96000,30\n")
    (folder / "tasks.csv").write_text("id,cpus,mem_mb,count\na,20,1000,4\nb,12,1000,6\n")
    text = plan(capsys, *tables)
    assert "5 of 31 hosts used" in text
    assert re.search(r"large \(.*\): 3 hosts suffice, .*; there is only 1 of them", text)
    assert "only 30" not in text
    found = json.loads(plan(capsys, *tables, "--json"))
    assert [(need["hostType"], need["existing"]) for need in found["needs"]] == [("small", 30), ("large", 1)]
    for each in found["mix"]["hosts"]:
        assert each["existing"] == {"small": 30, "large": 1}[each["hostType"]]


def test_lost_and_drained_agents_of_the_cluster_are_left_out() -> None:
    agents = [
        {"hostname": name, "lost": lost, "drain": drain, "whole": {"cpuCount": 1}, "attributes": {}}
        for name, lost, drain in (("a", False, None), ("b", True, None), ("c", False, {"since": "now"}))
    ]
    client: Any = SimpleNamespace(cluster=lambda: {"agents": agents})
    assert [kind.name for kind in hosts_of_cluster(client).kinds] == ["a"]
    del agents[0]
    with pytest.raises(ConfigError, match="the cluster has no agents"):
        hosts_of_cluster(client)


def test_jobs_of_a_manifest_are_planned_at_their_peak(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "app").mkdir()
    job = (
        '[[jobs]]\njobName = "{0}"\njobClass = "m:J"\njobType = "SIMPLE"\njobExecutionType = "TRANSIENT"\n'
        'cron = "{1}"\nshardingTotalCount = 10\ncpuCount = 1\nmemoryMB = 64\n'
    )
    manifest = '[app]\nappName = "shop"\ncpuCount = 1\nmemoryMB = 64\n' + job.format("a", "0 0 2 * * ?")
    (folder / "app" / "jobcloud.toml").write_text(manifest + job.format("b", "0 30 2 * * ?"))
    (folder / "times.csv").write_text("job,seconds\na,3600\n")
    times = ("--manifest", folder / "app", "--run-times", folder / "times.csv", "--run-time", 60)
    text = plan(capsys, "--host", "cpus=11,mem_mb=4096", *times, "--day", "2026-03-02")
    assert "peak at Mon 2026-03-02 02:30:00 UTC, 20 tasks at once" in text
    assert "2 hosts suffice, 1 cannot" in text
    found = json.loads(plan(capsys, "--host", "cpus=11,mem_mb=4096", *times, "--all-at-once", "--json"))
    assert (found["tasks"], found["peak"]) == (20, None)


def test_warm_executors_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent keeps one executor per app, so three need three hosts; "each" needs room on every host."""
    (folder / "app").mkdir()
    manifest = (
        '[app]\nappName = "shop"\ncpuCount = 1\nmemoryMB = 64\nexecutors = {}\n'
        '[[jobs]]\njobName = "a"\njobClass = "m:J"\njobType = "SIMPLE"\njobExecutionType = "DAEMON"\n'
        'cron = "0 0 2 * * ?"\nshardingTotalCount = 10\ncpuCount = 1\nmemoryMB = 64\n'
    )
    for executors, hosts in ((0, 1), (3, 3), ('"each"', 2)):
        (folder / "app" / "jobcloud.toml").write_text(manifest.format(executors))
        host = "cpus=11,mem_mb=4096" if executors == 0 else "cpus=10.5,mem_mb=4096"
        found = json.loads(plan(capsys, "--host", host, "--manifest", folder / "app", "--json"))
        assert found["needs"][0]["hosts"] == hosts, executors
        assert found["fits"]
    (folder / "app" / "jobcloud.toml").write_text(manifest.format('"many"'))
    said = plan(capsys, "--host", "cpus=11,mem_mb=4096", "--manifest", folder / "app", code=2)
    assert "executors" in said


def test_running_cluster_is_planned_with_its_registered_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "demo"
    app.mkdir()
    (app / "hello.py").write_text("class Hello: ...\n")
    (app / "jobcloud.toml").write_text(
        '[app]\nappName = "demo"\ncpuCount = 0.5\nmemoryMB = 64\n'
        '[[jobs]]\njobName = "hello"\njobClass = "hello:Hello"\njobType = "SIMPLE"\njobExecutionType = "DAEMON"\n'
        'cron = "0 * * * * ?"\nshardingTotalCount = 4\ncpuCount = 0.5\nmemoryMB = 32\n'
    )
    loop = FakeLoop()
    loop.subscribe()
    options = ApiOptions(access=Access(token="t0ken"))
    with serving(make_api(tmp_path, loop, options=options)) as url:
        monkeypatch.setenv("JOBCLOUD_SERVER", url)
        monkeypatch.setenv("JOBCLOUD_TOKEN", "t0ken")
        assert "there are no jobs" in plan(capsys, "--host", "cpus=8,mem_mb=8192", "--jobs", code=2)
        for team in ("default", "billing"):
            with pytest.raises(SystemExit):
                cli.main(["--team", team, "app", "add", str(app)])
        capsys.readouterr()
        assert "the cluster has no agents" in plan(capsys, "--cluster", "--jobs", code=2)
        loop.tick(6_000)
        loop.offer()
        text = plan(capsys, "--cluster", "--jobs", "--more", "billing:hello")
        assert "fits: all 8 tasks on 1 host" in text
        loop.tick(60_000)  # unused offers were declined; the size of the agent is still known
        assert not any(loop.scheduler.agents()[0].offered)
        assert plan(capsys, "--cluster", "--jobs", "--more", "billing:hello") == text


@pytest.mark.parametrize(
    ("hosts", "tasks", "said"),
    [
        ("id,cpus,mem_mb\na,1,2,3\n", TASKS, "hosts.csv, line 2"),
        ("id,cpus,mem_mb\na,x,1\n", TASKS, "hosts.csv, line 2, column cpus"),
        ("id,cpus,mem_mb\na,nan,1\n", TASKS, "hosts.csv, line 2, column cpus"),
        ("id,cpus,mem_mb\na,-1,1\n", TASKS, "hosts.csv, line 2, column cpus"),
        ("id,cpus,mem_mb\na,1,1\na,2,1\n", TASKS, "hosts.csv, line 3, column id"),
        ("id,cpus\na,1\n", TASKS, "hosts.csv, line 1, column mem_mb"),
        ("", TASKS, "hosts.csv"),
        ("id,cpus,mem_mb\na,1,1\n", "id,cpus,mem_mb\na,1,1\nb\n", "tasks.csv, line 3"),
        ("id,cpus,mem_mb\na,1,1\n", "id,cpus,mem_mb,gpus\na,1,1,1\n", "gpus"),
        (HOSTS, "id,cpus,mem_mb,constraint\na,1,1,anti:b<=x\n", "tasks.csv, line 2, column constraint"),
        (HOSTS, "id,cpus,mem_mb,count\na,1,1,1e9\n", "tasks.csv, line 2, column count"),
    ],
)
def test_error_in_a_table_is_reported_with_file_line_and_column(
    folder: Path, capsys: pytest.CaptureFixture[str], hosts: str, tasks: str, said: str
) -> None:
    (folder / "hosts.csv").write_text(hosts)
    (folder / "tasks.csv").write_text(tasks)
    text = plan(capsys, "--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv", code=2)
    assert said in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--hosts, --host, --cluster: one of them is required"),
        (("--host", "cpus=1", "--cluster"), "exclude each other"),
        (("--host", "cpus=1"), "--tasks, --manifest, --jobs: one of them is required"),
        (("--host", "cpus", "--tasks", "tasks.csv"), "not a host type"),
        (("--host", "cpus=1,vCPU=2", "--tasks", "tasks.csv"), "--host, cpus: is given twice"),
        (("--host", "cpus=1,count=5", "--tasks", "tasks.csv"), "--host, count: does not describe a type of host"),
        (("--host", "name=,cpus=1", "--tasks", "tasks.csv"), "--host, name: is empty"),
        (("--host", "attr_=x,cpus=1", "--tasks", "tasks.csv"), "not a host type"),
        (("--hosts", "-", "--tasks", "-"), "both are standard input"),
        (("--host", "cpus=9,mem_mb=9", "--tasks", "tasks.csv", "--placement", "none/p.csv"), "there is no directory"),
        (
            ("--host", "cpus=9,mem_mb=9", "--tasks", "tasks.csv", "--placement", "."),
            "cannot be written (name a file in a writable directory)",
        ),
        (("--host", "cpus=many", "--tasks", "tasks.csv"), "--host, cpus"),
        (("--host", "cpus=1,mem_mb=1", "--tasks", "tasks.csv", "--plot", "out.gif"), "unknown ending"),
        (("--host", "cpus=1,mem_mb=1", "--tasks", "tasks.csv", "--zone", "Mars/Olympus"), "--zone"),
        (("--host", "cpus=1,mem_mb=1", "--tasks", "tasks.csv", "--day", "tomorrow"), "--day"),
        (("--host", "cpus=9,mem_mb=99999", "--tasks", "none.csv"), "none.csv"),
    ],
)
def test_wrong_options_are_reported(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    assert said in " ".join(plan(capsys, *arguments, code=2).split())


def test_unknown_job_is_reported_with_a_suggestion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv")
    assert "did you mean 'report'" in plan(capsys, *where, "--more", "reprt", code=4)


def test_answer_is_printed_before_a_full_disk_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--hosts", str(folder / "hosts.csv"), "--tasks", str(folder / "tasks.csv"), "--placement", "/dev/full")
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", "--seconds", "1", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "No space left on device" in said.err
    assert "fits: all 100 tasks on 6 hosts" in said.out


def test_plot_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = folder / "plan.svg"
    plan(capsys, "--hosts", folder / "hosts.csv", "--tasks", folder / "tasks.csv", "--plot", out)
    assert out.read_text().startswith("<?xml")


def test_output_of_the_solver_is_discarded(capfd: pytest.CaptureFixture[str]) -> None:
    from jobcloud.client.plan_report import solver_silenced

    with solver_silenced():
        os.write(1, b"a line of the solver\n")
    os.write(1, b"the answer\n")
    assert capfd.readouterr().out == "the answer\n"


def test_buffered_output_of_the_solver_is_discarded() -> None:
    code = (
        "import ctypes; from jobcloud.client.plan_report import solver_silenced\n"
        "with solver_silenced(): ctypes.CDLL(None).puts(b'a line of the solver')\n"
        "print('the answer')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (said.stdout, said.stderr) == ("the answer\n", "")


def test_importing_planning_loads_neither_server_nor_solver() -> None:
    code = "import sys; from jobcloud.client import planning; print(*sys.modules)"
    loaded: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"scipy", "matplotlib", "fastapi", "pymesos", "kazoo"} & set(loaded.split())


def limited_app(folder: Path) -> Path:
    """Two jobs of ten shards that overlap on weekdays; one of them skips the days of a calendar."""
    (folder / "app").mkdir()
    job = (
        '[[jobs]]\njobName = "{0}"\njobClass = "m:J"\njobType = "SIMPLE"\njobExecutionType = "TRANSIENT"\n'
        'cron = "0 0 2 * * ?"\nshardingTotalCount = 10\ncpuCount = 1\nmemoryMB = 64\npools = {1}\n{2}\n'
    )
    (folder / "app" / "jobcloud.toml").write_text(
        '[app]\nappName = "shop"\ncpuCount = 1\nmemoryMB = 64\n'
        + job.format("a", '["orders-db"]', "")
        + job.format("b", '["2 of orders-db"]', 'skipOn = ["closed"]')
    )
    return folder / "app"


def test_pools_and_calendars_of_files_bound_what_runs_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed.ics").write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20260101T000000Z\r\n"
        "DTSTART;VALUE=DATE:20260101\r\nRRULE:FREQ=WEEKLY;BYDAY=SA,SU\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    calendar = ("--calendar", f"closed={folder / 'closed.ics'}")

    def tasks(*more: object, day: str = "2027-03-06") -> tuple[int, list[str]]:  # a Saturday
        asked = ("--manifest", limited, "--run-time", 60, "--day", day, "--json", *more)
        found = json.loads(plan(capsys, "--host", "cpus=11,mem_mb=4096", *asked))
        return found["tasks"], found["ignored"]

    limited = limited_app(folder)
    unknown, notes = tasks()
    assert unknown == 20
    assert ["calendar closed" in notes[0], "pool orders-db" in notes[1], len(notes)] == [True, True, 2]
    assert tasks(*calendar)[0] == 10
    assert tasks(*calendar, day="2027-03-05")[0] == 20
    assert tasks("--pool", "orders-db=25", *calendar, day="2027-03-05") == (10 + 7, [])
    assert tasks("--pool", "orders-db=5", *calendar) == (5, [])
    notes = tasks("--pool", "orders-db=1", *calendar)[1]
    assert notes == ["job b does not count: a shard needs 2 slots, pool orders-db has 1"]
    assert tasks("--pool", "orders-db=5", "--all-at-once")[0] == 20
    said = plan(capsys, "--host", "cpus=11,mem_mb=4096", "--manifest", limited, "--pool", "orders-db=x", code=2)
    assert "such as orders-db=5" in said
    doc = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    (example,) = re.findall(r"^jobcloud plan (.*--pool.*)$", doc, re.MULTILINE)
    manifest = (limited / "jobcloud.toml").read_text()
    declared = '[[pools]]\npoolName = "orders-db"\nslots = 5\n[[calendars]]\ncalendarName = "closed"\n{}\n'
    (limited / "jobcloud.toml").write_text(manifest + declared.format('days = ["2027-03-06"]'))
    assert tasks() == (5, [])
    assert tasks("--pool", "orders-db=50") == (10, [])
    (limited / "jobcloud.toml").write_text(manifest + declared.format('days = ["x"]'))
    said = plan(capsys, "--host", "cpus=11,mem_mb=4096", "--manifest", limited, code=2)
    assert "calendar closed: days" in said
    (limited / "jobcloud.toml").write_text(manifest)
    monkeypatch.chdir(folder)
    limited.rename("shop")
    assert json.loads(plan(capsys, *shlex.split(example), "--json"))["ignored"] == []


def test_pools_and_calendars_of_the_server_bound_what_runs_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments])
        assert not ended.value.code, capsys.readouterr().err
        capsys.readouterr()

    app = limited_app(folder)
    (app / "m.py").write_text("class J: ...\n")
    with serving(make_api(folder, loop := FakeLoop(), options=ApiOptions(access=Access(token="t0ken")))) as url:
        loop.subscribe()
        monkeypatch.setenv("JOBCLOUD_SERVER", url)
        monkeypatch.setenv("JOBCLOUD_TOKEN", "t0ken")
        run("pool", "set", "orders-db", "5")
        run("calendar", "put", "closed", "--day", "2027-03-06")
        run("app", "add", str(app))
        for day, tasks in (("2027-03-06", 5), ("2027-03-05", 5)):
            asked = ("--host", "cpus=11,mem_mb=4096", "--jobs", "--day", day, "--json")
            found = json.loads(plan(capsys, *asked))
            assert (found["tasks"], found["ignored"]) == (tasks, [])
        found = json.loads(plan(capsys, *asked, "--pool", "orders-db=100"))
        assert found["tasks"] == 20


def workflow_app(folder: Path) -> Path:
    """An app whose workflow has two branches behind its start; one of them runs on failure."""
    (folder / "app").mkdir()
    job = (
        '[[jobs]]\njobName = "{0}"\njobClass = "m:J"\njobType = "SIMPLE"\njobExecutionType = "TRANSIENT"\n'
        'cron = "{1}"\nshardingTotalCount = {2}\ncpuCount = 2\nmemoryMB = 64\n'
    )
    never = "0 0 0 30 2 ?"
    (folder / "app" / "m.py").write_text("class J: ...\n")
    (folder / "app" / "jobcloud.toml").write_text(
        '[app]\nappName = "shop"\ncpuCount = 1\nmemoryMB = 64\n'
        + job.format("extract", "0 0 2 * * ?", 3)
        + "".join(job.format(name, never, shards) for name, shards in (("transform", 8), ("check", 4), ("mail", 5)))
        + '[[workflows]]\nworkflowName = "sales"\n[[workflows.nodes]]\njob = "extract"\n'
        + '[[workflows.nodes]]\njob = "transform"\nafter = ["extract"]\n'
        + '[[workflows.nodes]]\njob = "check"\nafter = ["extract"]\n'
        + '[[workflows.nodes]]\njob = "mail"\nafter = [{node = "extract", on = "failure"}]\n'
    )
    return folder / "app"


def test_nodes_of_a_workflow_that_may_run_at_once_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = workflow_app(folder)
    asked = ("--host", "cpus=11,mem_mb=4096", "--manifest", app, "--day", "2026-03-02")
    text = plan(capsys, *asked)
    assert "peak at Mon 2026-03-02 02:00:00 UTC, 12 tasks at once" in text
    said = " ".join(text.split())
    assert "workflow sales: at most transform and check at once: 12 tasks, 24 cpus; for the whole run, because " in said
    (folder / "times.csv").write_text("job,seconds\nextract,60\ntransform,60\ncheck,60\nmail,60\n")
    known = (*asked, "--run-times", folder / "times.csv")
    assert "peak at Mon 2026-03-02 02:01:00 UTC, 12 tasks at once" in plan(capsys, *known)
    found = json.loads(plan(capsys, *known, "--json"))
    assert found["workflows"] == [
        {
            "workflows": ["sales"],
            "nodes": ["transform", "check"],
            "tasks": 12,
            "runsAtOnce": 1,
            "unknownRunTimes": [],
            "exact": True,
        }
    ]
    text = plan(capsys, *asked, "--all-at-once")
    assert "workflow sales: at most transform and check at once: 12 tasks, 24 cpus\n" in text
    manifest = (app / "jobcloud.toml").read_text()
    (app / "jobcloud.toml").write_text(manifest.replace('job = "check"', 'job = "absent"'))
    assert json.loads(plan(capsys, *known, "--json"))["ignored"] == [
        "workflow sales: its job absent is not among the jobs; such nodes need nothing"
    ]
    (app / "jobcloud.toml").write_text(manifest.replace('after = ["extract"]', 'after = ["absent"]', 1))
    said = plan(capsys, *asked, code=2)
    assert "jobcloud.toml: workflow sales: nodes.1.after: there is no node 'absent'" in " ".join(said.split())


def test_workflows_of_the_server_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = workflow_app(folder)
    with serving(make_api(folder, loop := FakeLoop(), options=ApiOptions(access=Access(token="t0ken")))) as url:
        loop.subscribe()
        monkeypatch.setenv("JOBCLOUD_SERVER", url)
        monkeypatch.setenv("JOBCLOUD_TOKEN", "t0ken")
        with pytest.raises(SystemExit) as ended:
            cli.main(["app", "add", str(app)])
        assert not ended.value.code, capsys.readouterr().err
        capsys.readouterr()
        found = json.loads(plan(capsys, "--host", "cpus=11,mem_mb=4096", "--jobs", "--json"))
    assert (found["tasks"], found["workflows"][0]["nodes"]) == (12, ["transform", "check"])
