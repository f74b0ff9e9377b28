"""Elastic-Job-Cloud's API: its effects on apps and jobs, its limits to one team, and its answers from a history."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from httpx import Client, Response
from tests.api_kit import START, FakeLoop, app_body, client_of, job_body, make_api, package_bytes
from tests.elastic_job_kit import ROUTES
from tests.origin_kit import Server

from jobcloud.errors import StoreFull, Unavailable
from jobcloud.history.elastic_job import (
    Execution,
    Found,
    Interval,
    Period,
    Sample,
    StatusTrace,
    TaskResult,
    TraceQuery,
)
from jobcloud.messages import Reconcile
from jobcloud.model import Task
from jobcloud.server.api import Access, ApiOptions, ElasticJobOptions
from jobcloud.server.urls import UrlPolicy

URL = "http://127.0.0.1/api"
TOKEN = "t0ken-of-the-test"
OF_3 = {"accessToken": "any"}
HALF = "half of a pair: \ud800, and all of é"


def old_job(name: str = "foo_job", **changes: Any) -> dict[str, Any]:
    return {
        "jobName": name,
        "appName": "demo",
        "jobClass": "hello:Hello",
        "jobType": "SIMPLE",
        "jobExecutionType": "TRANSIENT",
        "cron": "0/5 * * * * ?",
        "shardingTotalCount": 2,
        "cpuCount": 0.1,
        "memoryMB": 64.0,
    } | changes


def text_of(answer: Response, status: int = 500) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text


# ---------------------------------------------------------------------------------------------------------- changes


def test_new_job_gets_the_time_zone_of_the_setting(ej: Client, loop: FakeLoop) -> None:
    assert ej.post("job/register", json=old_job()).status_code == 204
    assert loop.scheduler.jobs["foo_job"].zone == "Asia/Shanghai"


def test_item_parameters_that_only_elastic_job_takes_become_the_value_that_it_uses(ej: Client, loop: FakeLoop) -> None:
    answer = ej.post("job/register", json=old_job(shardingTotalCount=2, shardingItemParameters="0=a,0=b,7=x,"))
    assert answer.status_code == 204, answer.text
    (job,) = loop.scheduler.jobs.values()
    assert job.shard_parameters == "0=b"
    assert "shardingItemParameters" in answer.headers["warning"]
    refused = ej.post("job/register", json=old_job(jobName="other", shardingItemParameters="0="))
    assert refused.status_code == 500
    assert "is not an item=value pair" in refused.text


def test_update_keeps_the_fields_that_elastic_job_lacks(ej: Client, api: Client, loop: FakeLoop) -> None:
    given = job_body(
        timeZone="Europe/Berlin", concurrency="allow", jobProperties={"job_exception_handler": "ignore"}, misfire=True
    )
    assert api.post("jobs", json=given).status_code == 201
    shown = ej.get("job/jobs/hello").json()
    assert shown["jobProperties"]["job_exception_handler"] == "ignore"
    assert ej.put("job/update", json=shown | {"shardingTotalCount": 3}).status_code == 204
    assert ej.put("job/update", json=old_job("hello", shardingTotalCount=3)).status_code == 204
    job = loop.scheduler.jobs["hello"]
    assert (job.zone, job.concurrency, job.error_handler, job.shard_count) == ("Europe/Berlin", "allow", "ignore", 3)
    assert not job.misfire, "a field of Elastic-Job that is left out gets its default"


def test_shown_configuration_can_be_sent_back_and_changes_nothing(ej: Client, api: Client, loop: FakeLoop) -> None:
    jobs = [
        job_body(shardingItemParameters={"0": "a=b,c"}, description="as it was"),
        job_body("daily", jobType="DATAFLOW", streamingProcess=True),
        job_body("report", jobType="SCRIPT", jobClass="", scriptCommandLine="bin/run.sh"),
        job_body("resident", jobExecutionType="DAEMON", beanName="b", applicationContext="hello:Hello"),
    ]
    for body in jobs:
        assert api.post("jobs", json=body).status_code == 201
    before = dict(loop.scheduler.jobs)
    for headers in ({}, OF_3):
        for shown in ej.get("job/jobs", headers=headers).json():
            assert ej.put("job/update", json=shown, headers=headers).status_code in (200, 204), shown
        assert loop.scheduler.jobs == before
    app = ej.get("app/demo").json()
    apps = dict(loop.scheduler.apps)
    assert ej.put("app", json=app).status_code == 204
    assert loop.scheduler.apps == apps


def test_job_of_another_type_loses_the_fields_of_its_former_type(demo: str, loop: FakeLoop, tmp_path: Path) -> None:
    uri = {"http.uri": "http://orders.test/close", "http.method": "POST", "http.read.timeout.milliseconds": "700"}
    body = {name: value for name, value in old_job().items() if name not in ("jobType", "jobClass")}
    options = ApiOptions(job_urls=UrlPolicy(("orders.test",)))
    ej = client_of(make_api(tmp_path / "other", loop, options=options), url=URL)
    assert ej.post("job/register", json=body | {"props": uri}).status_code == 204
    job = loop.scheduler.jobs["foo_job"]
    assert (job.type, job.http_uri, job.http_method, job.http_read_timeout_ms) == ("HTTP", uri["http.uri"], "POST", 700)
    assert ej.get("job/jobs/foo_job", headers=OF_3).json()["props"].items() >= uri.items()
    assert ej.put("job/update", json=old_job()).status_code == 204
    assert (loop.scheduler.jobs["foo_job"].type, loop.scheduler.jobs["foo_job"].http_uri) == ("SIMPLE", "")


def test_job_of_version_3_is_a_script_if_its_properties_say_so(ej: Client, loop: FakeLoop) -> None:
    body = {name: value for name, value in old_job().items() if name not in ("jobType", "jobClass")}
    body |= {"props": {"script.command.line": "bin/run.sh"}, "jobErrorHandlerType": "THROW", "monitorExecution": True}
    answer = ej.post("job/register", json=body, headers=OF_3)
    assert (answer.status_code, answer.text) == (200, "true")
    assert "monitorExecution" in answer.headers["warning"]
    job = loop.scheduler.jobs["foo_job"]
    assert (job.type, job.script, job.error_handler) == ("SCRIPT", "bin/run.sh", "fail")


def test_job_of_version_3_needs_an_app_with_a_worker_of_its_own(ej: Client, loop: FakeLoop) -> None:
    body = {name: value for name, value in old_job().items() if name not in ("jobType", "jobClass")}
    assert "bootstrapScript" in text_of(ej.post("job/register", json=body))
    assert "no worker for Java" in text_of(ej.post("job/register", json=old_job(jobClass="com.example.Settle")))
    assert ej.put("app", json={"appName": "demo", "bootstrapScript": "java -jar worker.jar"}).status_code == 204
    assert ej.post("job/register", json=body | {"jobName": "4-times.daily"}).status_code == 204
    assert loop.scheduler.jobs["4-times.daily"].job_class == "_4_times_daily"
    assert ej.post("job/register", json=old_job(jobClass="com.example.Settle")).status_code == 204


def test_all_problems_of_a_configuration_are_named_line_by_line(ej: Client) -> None:
    text = text_of(ej.post("job/register", json=old_job(cron="daily", shardingTotalCount=0, cpuCount=-1)))
    assert {line.partition(":")[0] for line in text.splitlines()} == {"cpuCount", "cron", "shardingTotalCount"}


def test_removed_app_takes_its_jobs_along(ej: Client, loop: FakeLoop, hello: str) -> None:
    assert ej.delete("app/demo").status_code == 204
    assert not loop.scheduler.apps
    assert not loop.scheduler.jobs


def test_trigger_of_a_disabled_job_is_an_error(ej: Client, hello: str) -> None:
    assert ej.post("app/demo/disable").status_code == 204
    assert "is disabled" in text_of(ej.post("job/trigger", content="hello"))
    assert ej.get("job/hello/disable").text == "true"


def test_trigger_accepts_a_name_in_quotes(ej: Client, loop: FakeLoop, hello: str) -> None:
    for body in (b"hello", b'"hello"', b"hello\n", b"\xef\xbb\xbfhello"):
        assert ej.post("job/trigger", content=body, headers={"content-type": "application/json"}).status_code == 204
    assert sum(firing.job == "hello" for firing in loop.scheduler.firings.values()) == 4


def test_reconciliation_asks_mesos(ej: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.effects.clear()
    assert ej.post("operate/reconcile/explicit").status_code == 204
    (asked,) = [effect for effect in loop.effects if isinstance(effect, Reconcile)]
    assert sorted(task for task, _ in asked.tasks) == sorted(launched)


def test_answer_is_503_if_there_is_no_leader(ej: Client, loop: FakeLoop, hello: str) -> None:
    loop.failure = Unavailable("no leader here", fix="try again in a few seconds")
    text_of(ej.post("job/trigger", content="hello"), 503)
    loop.failure = StoreFull("full")
    text_of(ej.put("job/update", json=old_job("hello")), 507)


# --------------------------------------------------------------------------------------------------------- packages


@pytest.fixture
def files() -> Iterator[Server]:
    server = Server({"/app.zip": package_bytes({"one.py": "1"})})
    yield server
    server.close()


def downloading(tmp_path: Path, loop: FakeLoop) -> Client:
    options = ApiOptions(urls=UrlPolicy(("127.0.0.1",)))
    return client_of(make_api(tmp_path / "downloads", loop, options=options), url=URL)


def test_package_keeps_the_content_that_its_url_had_at_the_registration(
    tmp_path: Path, loop: FakeLoop, files: Server
) -> None:
    ej = downloading(tmp_path, loop)
    assert ej.post("app", json={"appName": "shop", "appURL": f"{files.url}/app.zip"}).status_code == 204
    first = loop.scheduler.apps["shop"].package
    assert first.sha256 == hashlib.sha256(package_bytes({"one.py": "1"})).hexdigest()
    files.pages["/app.zip"] = package_bytes({"two.py": "2"})
    assert ej.put("app", json={"appName": "shop", "memoryMB": 256}).status_code == 204
    assert loop.scheduler.apps["shop"].package == first
    assert ej.put("app", json={"appName": "shop", "appURL": f"{files.url}/app.zip"}).status_code == 204
    second = loop.scheduler.apps["shop"].package
    assert second.sha256 == hashlib.sha256(package_bytes({"two.py": "2"})).hexdigest()
    assert loop.scheduler.apps["shop"].resources.mem == 256_000
    assert ej.get("app/shop").json()["appURL"] == f"{files.url}/app.zip"


def test_package_is_fetched_only_for_a_valid_new_app(tmp_path: Path, loop: FakeLoop, files: Server, demo: str) -> None:
    ej = downloading(tmp_path, loop)
    for body in ({"appName": "demo"}, {"appName": "a/b"}, {"appName": "shop", "cpuCount": -1}):
        text_of(ej.post("app", json=body | {"appURL": f"{files.url}/app.zip"}))
    assert files.asked == []


def test_package_comes_from_listed_hosts_only(ej: Client, files: Server) -> None:
    text = text_of(ej.post("app", json={"appName": "shop", "appURL": f"{files.url}/app.zip"}))
    assert "packages.hosts" in text
    assert files.asked == []


# ------------------------------------------------------------------------------------------------------------ teams


@pytest.fixture
def billing(api: Client, sha256: str, loop: FakeLoop, hello: str) -> str:
    """An app, a job and running tasks of the team billing, next to those of the team default."""
    assert api.post("apps", json=app_body(sha256, "ledger", team="billing")).status_code == 201
    assert api.post("jobs", json=job_body("close", "ledger", team="billing")).status_code == 201
    loop.tick(6000)
    loop.offer()
    assert len(loop.tick()) == 4
    return "billing:close"


def test_other_teams_are_out_of_reach(ej: Client, loop: FakeLoop, billing: str) -> None:
    before = dict(loop.scheduler.jobs), dict(loop.scheduler.job_states), len(loop.scheduler.firings)
    for name in ("billing:close", "default:hello"):
        for method, path in (
            ("POST", f"job/{name}/disable"),
            ("DELETE", f"job/{name}/disable"),
            ("POST", f"job/{name}/enable"),
            ("DELETE", f"job/{name}/deregister"),
            ("POST", f"app/{name}/disable"),
            ("DELETE", f"app/{name}"),
        ):
            answer = ej.request(method, path)
            assert answer.status_code in (200, 204)
            assert "there is no" in answer.headers["warning"]
        assert "there is no" in ej.post("job/trigger", content=name).headers["warning"]
        assert ej.request("DELETE", "job/deregister", content=name).status_code == 204
        assert ej.get(f"job/jobs/{name}").status_code == ej.get(f"app/{name}").status_code == 404
        assert ej.get(f"job/{name}/disable").text == "true"
        text_of(ej.put("job/update", json=old_job(name)))
        text_of(ej.put("app", json={"appName": name, "appCacheEnable": False}))
        text_of(ej.post("job/register", json=old_job(f"{name}2")))
    assert ej.get("app/billing:ledger").status_code == 404
    assert ej.get("operate/sandbox?appName=billing:ledger").text == "[]"
    assert (dict(loop.scheduler.jobs), dict(loop.scheduler.job_states), len(loop.scheduler.firings)) == before
    assert "team" in ej.post("job/register", json=old_job(team="billing")).headers["warning"]
    assert loop.scheduler.jobs["foo_job"].team == "default"


def test_lists_and_counts_are_those_of_the_team_default(ej: Client, loop: FakeLoop, billing: str) -> None:
    assert [app["appName"] for app in ej.get("app/list").json()] == ["demo"]
    assert [job["jobName"] for job in ej.get("job/jobs").json()] == ["hello"]
    assert {task["metaInfo"]["jobName"] for task in ej.get("job/tasks/running").json()} == {"hello"}
    assert ej.get("job/statistics/tasks/running?since=lastWeek").json()[0]["runningCount"] == 2
    assert ej.get("job/statistics/jobs/running?since=lastWeek").json()[0]["runningCount"] == 1
    assert ej.get("job/statistics/jobs/register").json()[0]["registeredCount"] == 1
    assert ej.get("job/statistics/jobs/type").json()["simpleJobCount"] == 1
    assert ej.get("job/statistics/jobs/executionType").json()["transientJobCount"] == 1
    for job in ("hello", "billing:close"):
        task = next(task for task in loop.scheduler.tasks.values() if task.job == job)
        loop.update(task.id, "TASK_ERROR")
    loop.tick(6000)
    for path in ("job/tasks/failover", "job/tasks/ready"):
        assert "billing" not in ej.get(path).text


def test_placeholders_and_calls_of_listeners_are_no_running_tasks(ej: Client, api: Client, loop: FakeLoop) -> None:
    config = api.get("apps/demo").json()["config"]
    assert api.put("apps/demo", json=config | {"executors": 1}).status_code == 200
    listened = job_body(distributedListener={"class": "hello:Hello"})
    assert api.post("jobs", json=listened).status_code == 201
    assert ej.post("job/trigger", content="hello").status_code == 204
    loop.offer()
    launched = loop.tick()
    assert len(launched) == 2, "a placeholder, and the call before the run"
    assert ej.get("job/tasks/running").json() == []
    assert ej.get("job/statistics/tasks/running?since=lastWeek").json()[0]["runningCount"] == 0


# ---------------------------------------------------------------------------------------------------------- history


class History:
    """A history with two rows of each kind. It remembers the last question."""

    def __init__(self) -> None:
        self.asked: TraceQuery | None = None

    def executions(self, query: TraceQuery) -> Found[Execution]:
        self.asked = query
        task = "hello@-@0@-@READY@-@a1@-@1-2"
        ended = Execution("1", "hello", task, "h", "10.0.0.1", 0, "NORMAL_TRIGGER", False, "boom", START, START + 1000)
        return Found(7, [ended, ended._replace(id="2", success=True, failure_cause="", complete_ms=0)])

    def status_traces(self, query: TraceQuery) -> Found[StatusTrace]:
        self.asked = query
        row = StatusTrace(
            "1", "hello", "", "t", "a1", "CLOUD_SCHEDULER", "READY", "[0]", "TASK_RUNNING", HALF, START + 7 * 3_600_000
        )
        return Found(1, [row])

    def results_of_day(self) -> Sequence[TaskResult]:
        return [TaskResult(4, 3, 1, Interval.MINUTE, START, START + 60_000)]

    def result(self, period: Period) -> TaskResult:
        return TaskResult(5, 30, len(period), Interval.DAY, START, START)

    def running_tasks_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        return [Sample(1, 11, START, START), Sample(2, 12, START, START)]

    def running_jobs_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        return [Sample(1, 21, START, START)]

    def registered_jobs(self) -> Sequence[Sample]:
        return [Sample(1, 31, START, START)]


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def recorded(loop: FakeLoop, tmp_path: Path, history: History) -> Client:
    options = ApiOptions(elastic_job=ElasticJobOptions(zone="Asia/Shanghai"))
    app = make_api(tmp_path, loop, options=options, traces=history, statistics=history, clock=lambda: loop.now)
    return client_of(app, url=URL)


def test_executions_are_found_in_the_history(recorded: Client, history: History) -> None:
    found = recorded.get(
        "job/events/executions",
        params={
            "per_page": "20",
            "page": "3",
            "sort": "startTime",
            "order": "DESC",
            "startTime": "2023-11-15 06:13:20",
            "endTime": "2023-11-15 06:13:21",
            "jobName": "hello",
            "isSuccess": "0",
            "ip": "",
            "_": "1700000000000",
        },
    )
    assert history.asked == TraceQuery(
        40, 20, "start_ms", True, START, START + 1000, {"job_name": "hello", "success": False}
    )
    assert found.json() == {
        "total": 7,
        "rows": [
            {
                "id": "1",
                "hostname": "h",
                "ip": "10.0.0.1",
                "taskId": "hello@-@0@-@READY@-@a1@-@1-2",
                "jobName": "hello",
                "source": "NORMAL_TRIGGER",
                "shardingItem": 0,
                "startTime": "Nov 15, 2023 6:13:20 AM",
                "completeTime": "Nov 15, 2023 6:13:21 AM",
                "success": False,
                "failureCause": {"plainText": "boom"},
            },
            {
                "id": "2",
                "hostname": "h",
                "ip": "10.0.0.1",
                "taskId": "hello@-@0@-@READY@-@a1@-@1-2",
                "jobName": "hello",
                "source": "NORMAL_TRIGGER",
                "shardingItem": 0,
                "startTime": "Nov 15, 2023 6:13:20 AM",
                "success": True,
            },
        ],
    }
    of_3 = recorded.get("job/events/executions", headers=OF_3).json()["rows"]
    assert (of_3[0]["failureCause"], of_3[1]["failureCause"], of_3[1]["completeTime"]) == ("boom", None, None)


def test_status_traces_are_found_in_the_history(recorded: Client, history: History) -> None:
    found = recorded.get("job/events/statusTraces?slaveId=a1&source=CLOUD_SCHEDULER&state=TASK_RUNNING&ip=x")
    assert history.asked == TraceQuery(equal={"slave_id": "a1", "source": "CLOUD_SCHEDULER", "state": "TASK_RUNNING"})
    (row,) = found.json()["rows"]
    assert (row["creationTime"], row["shardingItems"]) == ("Nov 15, 2023 1:13:20 PM", "[0]")
    assert row["message"] == HALF


@pytest.mark.parametrize("query", ["jobName=billing:close", "jobName=default:hello"])
def test_events_of_other_teams_are_not_found(recorded: Client, history: History, query: str) -> None:
    for path in ("executions", "statusTraces"):
        assert recorded.get(f"job/events/{path}?{query}").json() == {"total": 0, "rows": []}
    assert history.asked is None


@pytest.mark.parametrize(
    "query",
    [
        "per_page=0",
        "per_page=1001",
        "per_page=-1",
        "per_page=ten",
        "per_page=٣",
        "per_page=99999999999999999999",
        "page=0",
        "page=1000000000",
        "sort=id;drop",
        "sort=job_name",
        "sort=id&order=UP",
        "startTime=yesterday",
        "endTime=2023-11-15T06:13:20Z",
        "startTime=0000-00-00 00:00:00",
        "jobName=" + "x" * 1001,
        "jobName=%00",
    ],
)
def test_wrong_search_is_refused(recorded: Client, history: History, query: str) -> None:
    field = "order" if "order" in query else query.partition("=")[0]
    for path in ("executions", "statusTraces"):
        assert text_of(recorded.get(f"job/events/{path}?{query}")).startswith(f"{field}: ")
    assert history.asked is None
    assert "neither 1 nor 0" in text_of(recorded.get("job/events/executions?isSuccess=maybe"))


def test_statistics_come_from_the_history(recorded: Client) -> None:
    times = {"statisticsTime": "Nov 15, 2023 6:13:20 AM", "creationTime": "Nov 15, 2023 6:13:20 AM"}
    get = recorded.get
    (minute,) = get("job/statistics/tasks/results?since=last24hours").json()
    assert minute == {"id": 4, "successCount": 3, "failedCount": 1, "statisticInterval": "MINUTE"} | times | {
        "creationTime": "Nov 15, 2023 6:14:20 AM"
    }
    assert get("job/statistics/tasks/results?since=lastYear").json() == []
    for period in ("online", "lastWeek", "lastHour", "lastMinute"):
        assert get(f"job/statistics/tasks/results/{period}").json()["failedCount"] == len(period)
    assert get("job/statistics/tasks/results/lastYear").json()["successCount"] == 0
    tasks = get("job/statistics/tasks/running?since=lastWeek").json()
    assert tasks == [{"id": 1, "runningCount": 11} | times, {"id": 2, "runningCount": 12} | times]
    assert get("job/statistics/jobs/running?since=lastWeek").json() == [{"id": 1, "runningCount": 21} | times]
    now = {"id": 2, "registeredCount": 0} | times
    assert get("job/statistics/jobs/register").json() == [{"id": 1, "registeredCount": 31} | times, now]


# ----------------------------------------------------------------------------------------------------------- access


def guarded(tmp_path: Path, loop: FakeLoop, **access: Any) -> Any:
    return make_api(tmp_path, loop, options=ApiOptions(access=Access(token=TOKEN, **access)))


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {TOKEN}"}, {"accessToken": TOKEN}, basic("root", TOKEN), basic("", TOKEN)]
)
def test_token_is_accepted_in_the_forms_that_old_clients_can_send(
    tmp_path: Path, loop: FakeLoop, headers: dict[str, str]
) -> None:
    app = guarded(tmp_path, loop)
    assert client_of(app, url=URL).get("app/list", headers=headers).text == "[]"
    own = client_of(app).get("apps", headers=headers).status_code
    assert own == (200 if headers.get("Authorization", "").startswith("Bearer") else 401)


def test_password_with_a_colon_is_the_whole_rest(tmp_path: Path, loop: FakeLoop) -> None:
    app = make_api(tmp_path, loop, options=ApiOptions(access=Access(token="a:b")))
    assert client_of(app, url=URL).get("app/list", headers=basic("root", "a:b")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accessToken": ""},
        {"accessToken": "wrong"},
        {"accessToken": f"Bearer {TOKEN}"},
        basic("root", "wrong"),
        basic(TOKEN, ""),
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Basic \xff"},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Bearer wrong", "accessToken": TOKEN},
        basic("root", TOKEN) | {"accessToken": "wrong"},
    ],
)
def test_every_route_but_the_login_needs_the_token(tmp_path: Path, loop: FakeLoop, headers: dict[str, str]) -> None:
    ej = client_of(guarded(tmp_path, loop), url=URL)
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for route in ROUTES:
        method, path = route.split()
        if path == "/api/login":
            continue
        answer = ej.request(method, "http://127.0.0.1" + path.replace("{", "").replace("}", ""), headers=sent)
        assert answer.status_code == 401, route
        assert answer.json()["message"] == "Unauthorized."
        assert TOKEN not in answer.text


def test_login_hands_out_the_token_for_itself_only(tmp_path: Path, loop: FakeLoop) -> None:
    ej = client_of(guarded(tmp_path, loop), url=URL)
    assert ej.post("login", json={"username": "root", "password": TOKEN}).json() == {"accessToken": TOKEN}
    for password in ("pwd", "", None, 1, [TOKEN], f"{TOKEN} "):
        answer = ej.post("login", json={"username": "root", "password": password})
        assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized.")
        assert TOKEN not in answer.text


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_local_client_needs_no_token_if_the_setting_says_so(tmp_path: Path, loop: FakeLoop, address: str) -> None:
    app = guarded(tmp_path, loop, elastic_job_without_token=True)
    assert asked_from(app, address).get("/api/app/list").status_code == 200
    assert asked_from(app, address).get("/api/v1/apps").status_code == 401
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert asked_from(app, address).get("/api/app/list", headers={header: "127.0.0.1"}).status_code == 401
    strict = guarded(tmp_path / "strict", loop)
    assert asked_from(strict, address).get("/api/app/list").status_code == 401


@pytest.mark.parametrize("address", ["10.0.0.1", "128.0.0.1", "1270.0.0.1", "::2", "::ffff:10.0.0.1", ""])
def test_remote_client_always_needs_the_token(tmp_path: Path, loop: FakeLoop, address: str) -> None:
    app = guarded(tmp_path, loop, elastic_job_without_token=True)
    assert asked_from(app, address).get("/api/app/list").status_code == 401


def asked_from(app: Any, address: str) -> Client:
    """A client at an address."""

    async def from_there(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": (address, 4711) if address else None}, receive, send)

    return client_of(from_there, url="http://127.0.0.1")


def test_page_of_another_origin_cannot_act(tmp_path: Path, loop: FakeLoop, demo: str) -> None:
    ej = client_of(guarded(tmp_path, loop, elastic_job_without_token=True), url=URL)
    for headers in ({"origin": "http://evil.test"}, {"host": "evil.test"}):
        assert ej.delete("app/demo", headers=headers).status_code in (403, 421)
    assert "demo" in loop.scheduler.apps


def test_routes_can_be_left_out(tmp_path: Path, loop: FakeLoop) -> None:
    app = make_api(tmp_path, loop, options=ApiOptions(elastic_job=ElasticJobOptions(enabled=False)))
    ej = client_of(app, url=URL)
    for route in ROUTES:
        method, path = route.split()
        assert ej.request(method, "http://127.0.0.1" + path.replace("{", "").replace("}", "")).status_code == 404
