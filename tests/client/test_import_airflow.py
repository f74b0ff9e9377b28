"""`jobcloud import-airflow`: DAG files as jobs and workflows. tests/data/airflow_*.json has the answers of Airflow."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.test_apply import Shell
from tests.whole_kit import ROOT

from jobcloud.client.import_airflow import reading
from jobcloud.client.import_airflow.conversion import Converted, convert
from jobcloud.client.import_airflow.report import Report
from jobcloud.client.import_cron.report import Action, Kind, Options, configured_job
from jobcloud.errors import ConfigError

DATA = ROOT / "tests" / "data"
FILES = sorted((DATA / "airflow").glob("*.py"))
ANSWERS = [json.loads(path.read_text()) for path in sorted(DATA.glob("airflow_*.json"))]
DOC = (ROOT / "docs" / "migration.md").read_text()

OPTIONS = Options("tools")
_HEAD = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.models import Variable
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.sensors.filesystem import FileSensor
from airflow.utils.task_group import TaskGroup
from airflow.datasets import Dataset
from airflow.decorators import dag, task
"""


def converted(body: str) -> list[Converted]:
    return list(convert((_HEAD + body).encode(), "dag.py", OPTIONS))


def indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in body.strip().splitlines())


def one(body: str, of_dag: str = "schedule='@daily', catchup=False") -> Converted:
    """The only DAG of a file whose `with` block has these lines."""
    (found,) = converted(f"with DAG('d', {of_dag}) as d:\n{indented(body)}")
    return found


def bash(name: str = "a", more: str = "") -> str:
    return f"{name} = BashOperator(task_id='{name}', bash_command='run {name}'{more and ', '}{more})\n"


def job_of(more: str = "", of_dag: str = "schedule='@daily', catchup=False") -> dict[str, Any]:
    found = one(bash("a", more), of_dag)
    assert found.item.action is not Action.REFUSED, [item.reason for item in found.items()]
    return found.tasks["a"].job


def reasons(found: list[Converted]) -> str:
    return "\n".join(item.reason for one in found for item in one.items())


# What Airflow finds


@pytest.fixture(scope="module")
def imported() -> dict[str, Converted]:
    return {one.item.text: one for path in FILES for one in convert(path.read_bytes(), str(path), OPTIONS)}


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["version"])
def test_tasks_and_their_order_are_those_of_airflow(answer: Any) -> None:
    found = {dag.id: dag for path in FILES for dag in reading.read(path.read_bytes()).dags}
    assert set(found) == set(answer["dags"])
    for name, wanted in answer["dags"].items():
        assert not found[name].problems
        ours = {task.id: sorted(task.upstream) for task in found[name].tasks.values()}
        assert ours == {task: one["upstream"] for task, one in wanted["tasks"].items()}, name


@pytest.mark.airflow
@pytest.mark.skipif(
    "JOBCLOUD_TEST_AIRFLOW" not in os.environ, reason="JOBCLOUD_TEST_AIRFLOW names no Python with Airflow"
)
def test_recorded_answers_are_those_of_the_installed_airflow() -> None:
    recorder = ROOT / "tests" / "oracles" / "record_airflow.py"
    printed = subprocess.run([os.environ["JOBCLOUD_TEST_AIRFLOW"], recorder, *FILES], capture_output=True, check=True)
    found = json.loads(printed.stdout)
    assert found in ANSWERS, f"Airflow {found['version']} has other answers"


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["version"])
def test_jobs_have_the_values_of_airflow(answer: Any, imported: dict[str, Converted]) -> None:
    for name, wanted in answer["dags"].items():
        assert imported[name].item.action is not Action.REFUSED, imported[name].item.reason
        for task, values in wanted["tasks"].items():
            job = imported[name].tasks[task].job
            command = shlex.split(job["scriptCommandLine"])
            if values["operator"] == "EmptyOperator":
                assert command == ["true"]
            else:
                assert command[:2] == ["bash", "-c"]
                assert command[2].endswith(values["command"].strip())
            assert job.get("retryCount", 0) == values["retries"]
            if values["retries"]:
                assert job["retryDelaySeconds"] == job["retryMaxDelaySeconds"] == values["delay"]
            assert job.get("timeoutSeconds") == values["timeout"]
            owner = re.search(r"owner=(\w+)", job.get("labels", "owner=airflow"))
            assert owner is not None
            assert owner[1] == values["owner"]


@pytest.mark.parametrize("answer", [one for one in ANSWERS if one["version"] == "2.10.5"], ids=["2.10.5"])
def test_fire_times_are_those_of_airflow(answer: Any, imported: dict[str, Converted]) -> None:
    for name, wanted in answer["dags"].items():
        jobs = [item.job for item in imported[name].tasks.values()]
        starts = [job for job in jobs if job.get("cron") != NEVER]
        assert len(starts) == bool(wanted["times"]), name
        if not starts:
            continue
        (start,) = starts
        times = configured_job(start).times()
        first, *others = wanted["times"]
        instant, found = _instant(first), []
        for _ in others:
            instant = times.next_after(instant) or 0
            found.append(f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}")
        assert found == others, name


NEVER = "0 0 0 30 2 ?"


def _instant(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


# DAGs


def test_several_first_tasks_start_with_the_run_of_one() -> None:
    found = one(bash("a") + bash("b") + bash("c") + "[a, b] >> c")
    assert found.workflow == {"workflowName": "d", "start": "a"}
    assert [node.get("after") for node in found.nodes] == [None, None, ["a", "b"]]
    assert [item.job["cron"] for item in found.tasks.values()] == ["@daily", NEVER, NEVER]


def test_single_task_needs_no_workflow() -> None:
    found = one(bash())
    assert (found.workflow, found.nodes, found.tasks["a"].name) == ({}, [], "d")


def test_sensor_waits_for_an_event_and_gets_a_start_if_it_is_first() -> None:
    sensor = "s = FileSensor(task_id='s', filepath='/x', timeout=600)\n"
    found = one(sensor + bash() + "s >> a")
    assert found.nodes == [
        {"name": "start"},
        {"name": "s", "waitFor": "event", "event": "d.s", "deadlineSeconds": 600},
        {"name": "a", "after": ["s"]},
    ]
    assert found.workflow["start"] == "start"
    assert found.tasks["start"].job["cron"] == "@daily"
    assert "s" not in [node["name"] for node in found.graph() if "job" in node]
    assert "waits for the event d.s, which a program must send" in found.tasks["s"].changes[0]
    assert "the first tasks only wait, so start begins a run" in found.item.changes[0]
    behind = one(bash() + sensor + "a >> s")
    assert (behind.workflow["start"], behind.nodes[1]["deadlineSeconds"]) == ("a", 600)
    assert "soft_fail" in reasons([one(sensor.replace("timeout=600", "soft_fail=True") + bash() + "s >> a")])


def test_dag_with_a_refused_task_is_refused_as_a_whole() -> None:
    found = one(bash() + "b = PythonOperator(task_id='b', python_callable=print)\na >> b")
    assert found.item.reason == "tasks are refused: b; a DAG is converted as a whole"
    assert found.tasks["b"].reason == (
        "PythonOperator is not converted; write the function as a SIMPLE job: docs/executor.md"
    )
    assert (found.tasks["a"].action, found.tasks["a"].job) == (Action.SKIPPED, {})
    assert (found.workflow, found.nodes) == ({}, [])


@pytest.mark.parametrize(
    ("of_dag", "fields"),
    [
        ("schedule='*/5 * * * *', catchup=False", {"cron": "*/5 * * * *", "cronDialect": "unix", "catchUp": "once"}),
        ("schedule_interval='@hourly', catchup=True", {"cron": "@hourly", "catchUp": "all", "catchUpLimit": 100}),
        ("schedule=None", {"cron": NEVER, "catchUp": None}),
        ("schedule='@once'", {"cron": NEVER}),
        ("start_date=datetime(2026, 1, 1)", {"cron": NEVER, "startTime": None}),
        (
            "schedule=timedelta(minutes=90), start_date=datetime(2026, 1, 1, 6), end_date=datetime(2027, 1, 1)",
            {"triggers": ["@every 5400s"], "startTime": "2026-01-01T06:00:00", "endTime": "2027-01-01T00:00:00"},
        ),
        ("schedule='@daily', max_active_runs=1", {"misfire": True, "concurrency": None}),
        ("schedule='@daily', max_active_runs=500", {"concurrency": "allow", "concurrencyLimit": 100}),
        (
            "schedule='@daily', default_args={'owner': 'x', 'depends_on_past': True}",
            {"misfire": True, "labels": "owner=x"},
        ),
        ("schedule='@daily', tags=['a', 'b c']", {"labels": "a=tag"}),
    ],
)
def test_arguments_of_a_dag_become_fields(of_dag: str, fields: dict[str, Any]) -> None:
    job = job_of("", of_dag)
    assert {name: job.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ("execution_timeout=timedelta(seconds=30)", {"timeoutSeconds": 30}),
        ("retries=2", {"retryCount": 2, "retryDelaySeconds": 300, "retryMaxDelaySeconds": 300, "retryJitter": 0}),
        ("retries=2, retry_delay=timedelta(0)", {"retryDelaySeconds": 0.1}),
        (
            "retries=1, retry_delay=60, retry_exponential_backoff=True, max_retry_delay=timedelta(minutes=9)",
            {"retryDelaySeconds": 60, "retryMaxDelaySeconds": 540, "retryJitter": None},
        ),
        ("env={'A': '1'}", {"environment": ["A=1"]}),
        ("cwd='/x y'", {"scriptCommandLine": shlex.join(["bash", "-c", "cd '/x y' || exit\nrun a"])}),
        ("owner='me'", {"labels": "owner=me"}),
        ("max_active_tis_per_dag=1", {"misfire": True}),
    ],
)
def test_arguments_of_a_task_become_fields(more: str, fields: dict[str, Any]) -> None:
    job = job_of(more)
    assert {name: job.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("body", "of_dag", "said"),
    [
        (bash("a", "email=['x'], pool='p', sla=timedelta(1), queue='q'"), "", "pool: it is left out; see pools"),
        (bash("a", "env={'A': '1'}"), "", "env: the command also gets"),
        (bash("a", "outlets=[Dataset('x')]"), "", "outlets: it is left out"),
        (bash("a", "depends_on_past=True"), "", "but not for its success"),
        (bash(), ", dagrun_timeout=timedelta(hours=1)", "dagrun_timeout: it is left out"),
        (bash() + bash("b"), ", dagrun_timeout=timedelta(hours=1)", "dagrun_timeout: an alert opens"),
        (bash() + bash("b"), ", max_active_runs=1", "runs of the workflow may overlap"),
        (bash(), ", catchup=True", "at most the last 100 missed firings run"),
        (bash(), ", default_args={'email': 'x', 'email_on_failure': True}", "email: nobody gets mail"),
        (bash(), ", tags=['b c']", "b c=tag cannot be a label"),
    ],
)
def test_difference_is_named(body: str, of_dag: str, said: str) -> None:
    found = one(body, "schedule='@daily'" + of_dag)
    assert said in "\n".join(change for item in found.items() for change in item.changes)
    assert Action.CHANGED in {item.action for item in found.items()}


@pytest.mark.parametrize(
    ("catchup", "named"), [("", True), (", catchup=None", True), (", catchup=False", True), (", catchup=True", False)]
)
def test_interval_that_airflow_counts_from_another_time_is_named(catchup: str, named: bool) -> None:
    found = one(bash(), f"schedule=timedelta(hours=6), start_date=datetime(2026, 1, 1, 2, 30){catchup}")
    assert ("an interval counts from start_date" in "\n".join(found.item.changes)) is named
    assert found.item.action is Action.CHANGED


def test_deadline_of_a_run_is_that_of_the_workflow() -> None:
    found = one(bash() + bash("b"), "schedule=None, dagrun_timeout=timedelta(hours=1), description='a\\nb'")
    assert (found.workflow["deadlineSeconds"], found.workflow["description"]) == (3_600, "a b")


# Refusals


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (bash("a", "retries=Variable.get('r')"), "retries is no literal that is known here: Variable.get('r')"),
        (bash("a", "retries=True"), "retries is no literal"),
        (bash("a", "**EXTRA"), "its arguments have **"),
        (bash("a", "trigger_rule=choose"), "trigger_rule is no literal"),
        (bash("a", "env={'A': '{{ ds }}'}"), "env: A has the template {{ ds }}; jobs have placeholders"),
        (bash("a", "env={'LD_PRELOAD': 'x'}"), "LD_PRELOAD cannot be set"),
        (bash("a", "execution_timeout=timedelta(days=-1)"), "execution_timeout is negative"),
        (bash("a", "execution_timeout=timedelta(days=99)"), "timeoutSeconds"),
        ("BashOperator(task_id='a', bash_command='x {{ ds }}')", "bash_command has the template {{ ds }}"),
        ("BashOperator(task_id='a', bash_command='x {% raw %}')", "bash_command has the template {% raw %}"),
        ("BashOperator(task_id='a', bash_command='/srv/x.sh')", "reads /srv/x.sh as a template"),
        ("BashOperator(task_id='a', bash_command=build())", "is not followed"),
        ("BashOperator(task_id='a')", "bash_command is no literal text"),
        ("BashOperator(task_id=f'a{x}', bash_command='x')", "needs task_id as a literal text"),
        ("EmptyOperator(task_id='a')\nEmptyOperator(task_id='a')", "has the task_id 'a' of another task"),
        ("EmptyOperator(task_id='a b')", "task_id"),
        ("for n in range(3):\n    EmptyOperator(task_id='a')", "line 13: `for n in range(3):` is not followed"),
        ("if x:\n    EmptyOperator(task_id='a')", "is not followed"),
        ("with TaskGroup('g'):\n    EmptyOperator(task_id='a')", "is not followed"),
        ("[EmptyOperator(task_id=n) for n in 'ab']", "is not followed"),
        ("helper(d)", "`helper(d)` is not followed"),
        ("a = EmptyOperator(task_id='a')\na >> unknown", "`a >> unknown` is not followed"),
        ("a = EmptyOperator(task_id='a')\n[a] >> [a]", "is not followed"),
        ("a = EmptyOperator(task_id='a')\na.trigger_rule = 'one_failed'", "is not followed"),
        ("a = EmptyOperator(task_id='a')\na >> a", "it has a cycle: a > a"),
        (bash() + bash("b") + "a >> b >> a", "it has a cycle"),
        ("BashOperator.partial(task_id='a').expand(bash_command=['x'])", "is not followed"),
        ("pass", "it has no task"),
        ("\n".join(f"EmptyOperator(task_id='a{n}')" for n in range(201)), "a workflow has at most 200"),
    ],
)
def test_dag_that_is_not_understood_is_refused(body: str, said: str) -> None:
    found = one(body)
    assert found.item.action is Action.REFUSED
    assert said in reasons([found])
    assert not any(item.job for item in found.items())


@pytest.mark.parametrize(
    ("of_dag", "said"),
    [
        ("schedule='0 0 0 * * *'", "schedule: "),
        ("schedule='0 0 */2 * 1'", "Airflow fires on days that match */2 or 1, the Unix dialect if both match"),
        ("schedule=[Dataset('x')]", "schedule is neither a cron expression nor a timedelta: a list"),
        ("schedule=timedelta(hours=1)", "needs whole seconds, and a literal start_date"),
        ("schedule='@daily', start_date=days_ago(1)", "start_date is no literal"),
        ("schedule='@daily', start_date=datetime(2026, 1, 1, tzinfo='Mars')", "Mars"),
        ("schedule='@daily', default_args=load()", "default_args is no literal"),
        ("**common", "its arguments have **"),
        ("schedule='@daily', catchup=x", "catchup is no literal"),
    ],
)
def test_schedule_that_is_not_understood_is_refused(of_dag: str, said: str) -> None:
    (found,) = converted(f"with DAG('d', {of_dag}) as d:\n    {bash()}")
    assert said in found.item.reason


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("@dag(schedule='@daily')\ndef flow():\n    pass\nflow()", "@dag flow: DAGs of TaskFlow are not converted"),
        ("for n in 'ab':\n    DAG(n)", "line 12: `for n in 'ab':` is not followed"),
        ("def make(n):\n    return DAG(n)\nglobals()['x'] = make('x')", "line 14: `make('x')` is not followed"),
        ("EmptyOperator(task_id='a')", "belongs to no DAG of this file"),
        ("with DAG(NAME):\n    EmptyOperator(task_id='a')", "dag_id is no literal text"),
        ("with DAG('a b'):\n    EmptyOperator(task_id='a')", "dag_id"),
        (
            "with DAG('d'):\n    @task\n    def f(): ...\n    f()",
            "@task is not converted; write the function as a SIMPLE",
        ),
        (
            "with DAG('d'):\n    a = EmptyOperator(task_id='a')\nwith DAG('e'):\n    a >> EmptyOperator(task_id='b')",
            "a and b belong to different DAGs",
        ),
        ("with DAG('d') as d:\n    EmptyOperator(task_id='a')\nfor x in y:\n    d.f(x)", "line 14: `for x in y:`"),
    ],
)
def test_part_that_may_make_dags_is_refused(body: str, said: str) -> None:
    assert said in reasons(converted(body))


def test_values_of_plain_code_are_followed() -> None:
    body = """
import os
HOME = os.environ.get("HOME")
COUNT = 2
ARGS = {"email": None} | dict(retries=COUNT + 1, retry_delay=timedelta(seconds=10) * 2)
ARGS["owner"] = "me"
print("loaded", HOME)
NAME: str = "d"
with DAG(NAME, default_args=ARGS, schedule=None) as d:
    a = BashOperator(task_id="a", bash_command=f"run {COUNT} " "times", on_failure_callback=lambda c: print(c))
    ARGS["retries"] = 9
    d.doc_md = __doc__
"""
    (found,) = converted(body)
    job = found.tasks["a"].job
    assert (job["scriptCommandLine"], job["retryCount"]) == ("bash -c 'run 2 times'", 3)
    assert (job["retryDelaySeconds"], job["labels"]) == (20, "owner=me")


# Hostile files


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"x = (", "line 1: it is no Python of this version"),
        (b"\0", "it is no Python"),
        (b"\xff\xfe", "it is no Python"),
        (b"x = " + b"(" * 5_000, "it is no Python"),
        (b"x = " + b"-" * 50_000 + b"1", "it is nested"),
        (b"x = 1" + b"+1" * 50_000, "it is nested"),
        (b"x = " + b"9" * 10_000, "it is no Python"),
        (b"x = [" + b"1," * 200_000 + b"]", "it is too large"),
        (b"a" + b".b" * 200, "it is nested more than 100 deep"),
    ],
)
def test_hostile_file_is_refused_as_a_whole(data: bytes, said: str) -> None:
    (found,) = convert(data, "dag.py", OPTIONS)
    assert (found.item.kind, found.item.action) == (Kind.FILE, Action.REFUSED)
    assert said in found.item.reason


def test_texts_and_numbers_cannot_explode() -> None:
    doubled = "\n".join(["t = 'x' * 9", "t = 'xxxxxxxx'", "n = 9", *(["t = t + t", "n = n * n", "l = [t, t]"] * 60)])
    (found,) = converted(f"{doubled}\nwith DAG('d', schedule=t):\n    EmptyOperator(task_id='a', retries=n)\n")
    assert found.item.action is Action.REFUSED


def test_dependencies_and_tasks_are_bounded() -> None:
    names = [f"t{n}" for n in range(200)]
    body = "with DAG('d'):\n" + "".join(f"    {name} = EmptyOperator(task_id='{name}')\n" for name in names)
    whole = ", ".join(names)
    assert "more than 20,000 dependencies" in reasons(
        converted(f"{body}    t0 >> [{whole}]\n" + f"    t1 >> [{whole}]\n" * 101)
    )
    many = "with DAG('d'):\n" + "    EmptyOperator(task_id='a')\n" * 10_001
    assert "more than 10,000 tasks" in reasons(converted(many))
    assert "more than 1,000 DAGs" in reasons(converted("DAG('d')\n" * 1_001))


_LINES = [*(_HEAD + bash() + "a >> [a] << d\nchain(a, *x)\nx = {**y, 'a': -1}\nwith DAG('d') as d: a\n").splitlines()]


@given(st.lists(st.sampled_from(_LINES) | st.text(max_size=20), max_size=20))
def test_arbitrary_lines_give_items(lines: list[str]) -> None:
    for found in convert("\n".join(lines).encode(errors="replace"), "dag.py", OPTIONS):
        assert found.item.action in Action


def test_file_is_never_run(tmp_path: Path) -> None:
    text = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()\n" + _HEAD
    Report.of([_written(tmp_path, text)], OPTIONS)
    assert not (tmp_path / "ran").exists()


def _written(folder: Path, text: str, name: str = "dag.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# The whole command


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, monkeypatch, capsys)


def block(name: str) -> str:
    """The block of docs/migration.md that begins with this line."""
    found = re.search(rf"```\w*\n({re.escape(name)}.*?)```", DOC, re.DOTALL)
    assert found, name
    return found[1]


def test_example_of_the_docs_gives_its_report_and_a_manifest_that_the_server_takes(
    shell: Shell, tmp_path: Path
) -> None:
    _written(tmp_path, block("# sales.py"), "sales.py")
    assert shell("app", "add", shell.app("tools", "app: {}\n"), "--no-jobs")[0] == 0
    command = shlex.split(block("jobcloud import-airflow").splitlines()[0])
    code, out, err = shell(*command[1:])
    assert (code, err) == (1, "")
    printed = re.sub(r" +\n", "\n", out)
    assert printed == block("PLACE        ACTION   JOB          "), printed
    assert shell("apply", "-f", "sales.yaml")[0] == 0
    assert sorted(shell.loop.scheduler.jobs) == ["sales.alarm", "sales.extract", "sales.load", "sales.sum"]
    (flow,) = shell.loop.scheduler.workflows.values()
    assert [node.name for node in flow.nodes] == ["extract", "sum", "load", "alarm"]


def test_all_recorded_dags_give_a_manifest_that_the_server_takes(shell: Shell) -> None:
    assert shell("app", "add", shell.app("tools", "app: {}\n"), "--no-jobs")[0] == 0
    code, out, _ = shell("import-airflow", DATA / "airflow", "--app", "tools", "-o", "all.json", "--json")
    assert (code, json.loads(out)["summary"]["refused"]) == (0, 0)
    code, _, err = shell("apply", "-f", "all.json")
    assert code == 0, err
    assert len(shell.loop.scheduler.workflows) == 4


def test_options_name_the_team_the_jobs_and_the_zone(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    _written(tmp_path / "dags", _HEAD + "with DAG('d', schedule='@daily'):\n" + indented(bash() + bash("b")))
    _written(tmp_path / "dags", "x = 1\n", "helper.py")
    arguments = ("--zone", "Asia/Tokyo", "--rename", "d.b=bee", "--cpus", "2", "--dry-run", "--json")
    code, out, _ = shell("--team", "ops", "import-airflow", "dags", "--app", "tools", *arguments)
    found = json.loads(out)
    assert code == 0
    assert [(item["kind"], item["action"]) for item in found["items"]] == [
        ("dag", "changed"),
        ("task", "taken"),
        ("task", "taken"),
        ("file", "skipped"),
    ]
    first, second = found["manifest"]["jobs"]
    assert (first["jobName"], first["team"], first["timeZone"], second["jobName"]) == (
        "d.a",
        "ops",
        "Asia/Tokyo",
        "bee",
    )
    (flow,) = found["manifest"]["workflows"]
    assert (flow["team"], flow["nodes"][1]) == ("ops", {"name": "b", "job": "bee"})


def test_second_dag_of_the_same_name_is_refused(tmp_path: Path) -> None:
    text = _HEAD + "with DAG('d', schedule=None):\n    EmptyOperator(task_id='a')\n"
    paths = [_written(tmp_path, text, name) for name in ("one.py", "two.py")]
    found = Report.of(paths, OPTIONS)
    assert [one.item.action for one in found.dags] == [Action.TAKEN, Action.REFUSED]
    assert found.dags[1].item.reason == f"dag_id is also that of {paths[0]}:12"
    twice = Report.of([_written(tmp_path, text + "DAG('d')\n", "three.py")], OPTIONS)
    assert "dag_id is also" in reasons(twice.dags)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dag.py", "--app", "tools"), "--out: is missing"),
        (("none.py", "--app", "tools", "--dry-run"), "cannot be read"),
        (("dag.py", "--app", "a b", "--dry-run"), "--app"),
        (("dag.py", "--app", "tools", "--zone", "Mars", "--dry-run"), "--zone"),
        (("dag.py", "--app", "tools", "--rename", "x=y", "--dry-run"), "no job has the name 'x'"),
        (("dag.py", "--app", "tools", "--out", "dag.py"), "dag.py cannot be written: File exists"),
    ],
)
def test_wrong_options_are_refused(shell: Shell, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    _written(tmp_path, _HEAD + "with DAG('d', schedule=None):\n    EmptyOperator(task_id='a')\n")
    code, _, err = shell("import-airflow", *arguments)
    assert code == 2
    assert said in err


def test_large_file_and_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = _written(tmp_path, "#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="is longer than 1,048,576 bytes"):
        Report.of([large], OPTIONS)
    monkeypatch.setattr("jobcloud.client.import_airflow.report.MAX_FILES", 1)
    _written(tmp_path, "", "b.py")
    with pytest.raises(ConfigError, match="more than 1 files"):
        Report.of([tmp_path], OPTIONS)
