"""The REST API over the real core: what each resource does, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from api_kit import ARTIFACTS, FakeLoop, app_body, client_of, job_body, make_api, package_bytes
from jobcloud.errors import NotFound, StoreError, StoreFull
from jobcloud.match import CompiledMatcher, PlainMatcher
from jobcloud.messages import Publish, Topic
from jobcloud.model import MAX_SHARDS
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.api import ApiOptions, LogChunk, LogRequest, Notices, views
from jobcloud.server.urls import UrlPolicy


@pytest.fixture
def loop() -> FakeLoop:
    loop = FakeLoop()
    loop.subscribe()
    return loop


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path) -> Client:
    return client_of(make_api(tmp_path, loop))


@pytest.fixture
def sha256(api: Client) -> str:
    answer = api.post("packages", content=package_bytes())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["sha256"])


@pytest.fixture
def demo(api: Client, sha256: str) -> str:
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    return "demo"


@pytest.fixture
def hello(api: Client, demo: str) -> str:
    assert api.post("jobs", json=job_body()).status_code == 201
    return "hello"


@pytest.fixture
def launched(api: Client, loop: FakeLoop, hello: str) -> list[str]:
    """Ids of the two tasks of the first firing."""
    loop.tick(6000)
    loop.offer()
    tasks = loop.tick()
    assert len(tasks) == 2
    return tasks


def issues(answer: Any, slug: str = "invalid") -> dict[str, str]:
    """Field → problem and fix, of an answer that is a problem document of this kind."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["type"] == f"urn:jobcloud:problem:{slug}", document
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return {issue["field"]: f"{issue['problem']} | {issue['fix']}" for issue in document["errors"]}


# ------------------------------------------------------------------------------------------------- apps and packages


def test_b33_a_partial_put_of_an_app_wipes_nothing(api: Client, demo: str, hello: str) -> None:
    before = api.get(f"apps/{demo}").json()
    answer = api.put(f"apps/{demo}", json={"appName": demo, "cpuCount": 2})
    assert answer.status_code == 422
    assert set(issues(answer)) == {"appURL"}
    assert api.put("apps/other", json={"appName": "other", "cpuCount": 2}).status_code in (404, 422)
    assert api.get(f"apps/{demo}").json() == before


def test_an_app_made_from_an_uploaded_package_is_shown_with_all_its_fields(api: Client, sha256: str) -> None:
    answer = api.post("apps", json=app_body(sha256, cpuCount=0.125, idleTimeoutSeconds=1.5))
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/apps/demo"
    assert answer.json() == api.get("apps/demo").json()
    assert answer.json()["config"] == {
        "appName": "demo",
        "appURL": f"package:sha256:{sha256}",
        "packageSha256": sha256,
        "bootstrapScript": "",
        "cpuCount": 0.125,
        "memoryMB": 64,
        "diskMB": 0,
        "gpuCount": 0,
        "portCount": 0,
        "appCacheEnable": True,
        "eventTraceSamplingCount": 0,
        "idleTimeoutSeconds": 1.5,
        "maxParallel": 0,
        "executors": 0,
        "description": "",
    }


def test_what_an_app_shows_as_its_configuration_can_be_put_back(api: Client, loop: FakeLoop, demo: str) -> None:
    config = api.get("apps/demo").json()["config"]
    loop.effects.clear()
    assert api.put("apps/demo", json=config).json()["config"] == config
    assert loop.effects == [], "nothing has changed, so nothing is done"


def test_executors_are_a_number_or_one_on_each_agent(api: Client, sha256: str) -> None:
    assert api.post("apps", json=app_body(sha256, executors="each")).json()["config"]["executors"] == "each"
    assert api.put("apps/demo", json=app_body(sha256, executors=3)).json()["config"]["executors"] == 3
    shown = api.get("apps/demo").json()
    assert (shown["warmExecutors"], shown["executorsLacking"]) == (0, "app demo has 0 of 3 warm executors")
    for given in ("every", True, 1.5, -1, 10**9, None, [2]):
        assert "executors" in issues(api.put("apps/demo", json=app_body(sha256, executors=given)))


def test_a_second_app_of_a_name_is_a_conflict(api: Client, sha256: str, demo: str) -> None:
    answer = api.post("apps", json=app_body(sha256))
    assert answer.status_code == 409
    assert "update it" in issues(answer, "conflict")["appName"]


def test_replacing_an_unknown_app_is_refused(api: Client, sha256: str) -> None:
    answer = api.put("apps/demo", json=app_body(sha256))
    assert answer.status_code == 404
    issues(answer, "not-found")


def test_the_name_in_the_path_must_be_the_one_in_the_body(api: Client, sha256: str, hello: str) -> None:
    assert "appName" in issues(api.put("apps/demo", json=app_body(sha256, name="other")))
    assert "jobName" in issues(api.put("jobs/hello", json=job_body(name="other")))


def test_an_app_of_a_package_that_was_not_uploaded_is_refused(api: Client) -> None:
    assert "upload it first" in issues(api.post("apps", json=app_body("0" * 64)))["appURL"]
    assert api.get("apps").json() == {"items": []}


def test_an_app_goes_away_with_its_jobs_only_when_asked(api: Client, hello: str) -> None:
    assert api.delete("apps/demo").status_code == 409
    assert api.get("apps/demo").json()["jobs"] == ["hello"]
    assert api.delete("apps/demo", params={"jobs": "true"}).status_code == 204
    assert api.get("apps/demo").status_code == 404
    assert api.get("jobs/hello").status_code == 404


def test_a_disabled_app_disables_its_jobs(api: Client, hello: str) -> None:
    assert api.post("apps/demo/disable").json()["enabled"] is False
    job = api.get("jobs/hello").json()
    assert (job["enabled"], job["disabled"], job["nextFiring"]) == (False, False, None)
    assert api.post("apps/demo/enable").json()["enabled"] is True
    assert api.get("jobs/hello").json()["nextFiring"] is not None


def test_an_upload_that_is_no_archive_is_refused(api: Client) -> None:
    assert "package" in issues(api.post("packages", content=b"hello"))
    assert "package" in issues(api.post("packages", content=b""))
    assert "package" in issues(api.post("packages", content=package_bytes({"../x": "y"})))
    assert api.get("packages").json() == {"items": []}


def test_an_upload_that_changed_on_its_way_is_refused(api: Client) -> None:
    answer = api.post("packages", content=package_bytes(), params={"sha256": "1" * 64})
    assert "not what was sent" in issues(answer)["package"]


def test_packages_say_which_apps_they_make(api: Client, sha256: str, demo: str) -> None:
    assert api.get(f"packages/{sha256}").json()["apps"] == ["demo"]
    assert api.get("packages/" + "0" * 64).status_code == 404


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://files.example.org/a.zip", "host"),
        ("ftp://good.example.org/a.zip", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://user:secret@good.example.org/a.zip", "user"),
        ("http://good.example.org/a.zip#x", "fragment"),
        ("http://127.0.0.1/a.zip", "host"),
        ("http://2130706433/a.zip", "host"),
        ("http://0x7f.1/a.zip", "host"),
        ("http://[::ffff:127.0.0.1]/a.zip", "host"),
        ("http://169.254.169.254/a.zip", "host"),
        ("http://localhost./a.zip", "host"),
        ("http://good.example.org:99999/a.zip", "valid URL"),
        ("http://good.example.org/a.zip;rm", "plain URL"),
        ("http://good.example.org/$(id).zip", "plain URL"),
        ("http://good.example.org/a b.zip", "plain URL"),
        ("http://gööd.example.org/a.zip", "plain URL"),
        ("http:///a.zip", "host"),
        ("", "plain URL"),
        ("package:sha256:ABC", "SHA-256"),
    ],
)
def test_an_app_url_outside_the_allow_list_is_refused(loop: FakeLoop, tmp_path: Path, url: str, why: str) -> None:
    policy = UrlPolicy(hosts=("good.example.org", "*.0.0.1", "*[0-9]*", "[!fg]*"))
    api = client_of(make_api(tmp_path, loop, options=ApiOptions(urls=policy)))
    answer = api.post("apps", json=app_body("", appURL=url, packageSha256="a" * 64))
    assert why in issues(answer)["appURL"]


def test_an_allowed_url_needs_the_hash_of_its_package(loop: FakeLoop, tmp_path: Path) -> None:
    options = ApiOptions(urls=UrlPolicy(hosts=("good.example.org",)))
    api = client_of(make_api(tmp_path, loop, options=options))
    url = {"appURL": "https://good.example.org/x/app-1.2.tar.gz"}
    assert "missing" in issues(api.post("apps", json=app_body("") | url))["packageSha256"]


# -------------------------------------------------------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://evil.example.org/", "not allowed"),
        ("http://127.0.0.1/", "not allowed"),
        ("http://127.1/", "not allowed"),
        ("ftp://good.example.org/", "scheme"),
        ("http://user@good.example.org/", "user"),
        ("", "plain URL"),
    ],
)
def test_an_http_job_calls_only_what_the_server_allows(
    loop: FakeLoop, tmp_path: Path, uri: str, why: str, sha256: str
) -> None:
    options = ApiOptions(job_urls=UrlPolicy(hosts=("good.example.org", "*.1")))
    api = client_of(make_api(tmp_path, loop, options=options))
    api.post("apps", json=app_body(sha256))
    found = issues(api.post("jobs", json=job_body(jobType="HTTP", httpUri=uri, cron="x")))
    assert why in found["httpUri"]
    assert "cron" in found, "the rest is checked too"


def test_an_http_job_shows_what_it_was_told(loop: FakeLoop, tmp_path: Path, sha256: str) -> None:
    options = ApiOptions(job_urls=UrlPolicy(hosts=("good.example.org",)))
    api = client_of(make_api(tmp_path, loop, options=options))
    assert api.post("apps", json=app_body(sha256)).status_code in (200, 201, 409)
    told = {"jobType": "HTTP", "httpUri": "https://good.example.org/x", "httpMethod": "POST", "httpData": "ä"}
    answer = api.post("jobs", json=job_body(**told))
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"].items() >= told.items()


def test_what_a_job_shows_as_its_configuration_can_be_put_back(api: Client, loop: FakeLoop, hello: str) -> None:
    changed = api.get("jobs/hello").json()["config"] | {
        "cpuCount": 0.001,
        "shardingItemParameters": "0=a,1=b",
        "timeZone": "Europe/Berlin",
        "cron": "*/5 * * * *",
        "cronDialect": "unix",
        "dstGap": "skip",
        "dstFold": "both",
        "catchUp": "once",
        "priority": -7,
        "misfire": True,
        "beanName": "b",
        "applicationContext": "m:c",
    }
    assert api.put("jobs/hello", json=changed).json()["config"] == changed
    loop.effects.clear()
    assert api.put("jobs/hello", json=changed).status_code == 200
    assert loop.effects == []


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"jobNam": "x"}, "jobNam", "did you mean 'jobName'?"),
        ({"cronn": "x"}, "cronn", "did you mean 'cron'?"),
        ({"CPUCount": 1}, "CPUCount", "did you mean 'cpuCount'?"),
        ({"jobName": "a/b"}, "jobName", "no valid name"),
        ({"jobName": "a@-@b"}, "jobName", "no valid name"),
        ({"jobName": ""}, "jobName", "no valid name"),
        ({"jobName": None}, "jobName", "not null"),
        ({"cron": "bad"}, "cron", "fields"),
        ({"cron": 5}, "cron", "must be a string, not a number"),
        ({"timeZone": "Mars/Olympus"}, "timeZone", "Mars/Olympus"),
        ({"cronDialect": "cobol"}, "cronDialect", "'quartz' or 'unix'"),
        ({"shardingTotalCount": 0}, "shardingTotalCount", f"1 to {MAX_SHARDS}"),
        ({"shardingTotalCount": 2.0}, "shardingTotalCount", "whole number"),
        ({"shardingTotalCount": "2"}, "shardingTotalCount", "not a string"),
        ({"shardingTotalCount": True}, "shardingTotalCount", "not a boolean"),
        ({"shardingTotalCount": 10**29}, "shardingTotalCount", "less than"),
        ({"shardingItemParameters": "0:a"}, "shardingItemParameters", "item=value"),
        ({"shardingItemParameters": "2=a"}, "shardingItemParameters", "0 to 1"),
        ({"cpuCount": 0}, "cpuCount", "0.001"),
        ({"cpuCount": 0.0001}, "cpuCount", "three decimals"),
        ({"cpuCount": -1}, "cpuCount", "out of range"),
        ({"cpuCount": 1e20}, "cpuCount", "out of range"),
        ({"cpuCount": "1"}, "cpuCount", "must be a number, not a string"),
        ({"cpuCount": True}, "cpuCount", "must be a number, not a boolean"),
        ({"memoryMB": 0.5}, "memoryMB", "out of range"),
        ({"portCount": 1.5}, "portCount", "whole number"),
        ({"failover": "yes"}, "failover", "boolean"),
        ({"jobType": "simple"}, "jobType", "'SIMPLE', 'DATAFLOW', 'SCRIPT' or 'HTTP'"),
        ({"jobType": "SCRIPT"}, "scriptCommandLine", "needs a command"),
        ({"jobClass": ""}, "jobClass", "missing"),
        ({"jobClass": "a b"}, "jobClass", "Python object"),
        ({"beanName": "b"}, "applicationContext", "beanName"),
        ({"priority": 1001}, "priority", "-1000 to 1000"),
        ({"jobProperties": {"x": "y"}}, "jobProperties.x", "no field"),
        ({"jobProperties": {"job_exception_handler": "my handler"}}, "jobProperties.job_exception_handler", "Class"),
        ({"jobProperties": {"job_exception_handler": "webhook"}}, "jobProperties.job_exception_webhook", "needed"),
        (
            {"jobProperties": {"job_exception_handler": "webhook", "job_exception_webhook": "http://127.0.0.1/x"}},
            "jobProperties.job_exception_webhook",
            "http_jobs.hosts",
        ),
        ({"listener": "audit"}, "listener", "array"),
        ({"listener": ["shop:Audit", "a b"]}, "listener", "Class"),
        ({"listener": ["x"] * 21}, "listener", "20"),
        ({"distributedListener": {}}, "distributedListener.class", "missing"),
        (
            {"distributedListener": {"class": "s:S", "startedTimeout": 1}},
            "distributedListener.startedTimeout",
            "did you",
        ),
        (
            {"distributedListener": {"class": "s:S", "startedTimeoutMilliseconds": -1}},
            "distributedListener.startedTimeoutMilliseconds",
            "range",
        ),
        ({"distributedListener": {"class": "s:S"}, "jobExecutionType": "DAEMON"}, "distributedListener", "listener"),
        ({"jobProperties": []}, "jobProperties", "object"),
        ({"description": "x" * 70_000}, "description", "shorten"),
        ({"jobParameter": "a\0b"}, "jobParameter", "NUL"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix_and_nothing_is_stored(
    api: Client, demo: str, change: dict[str, Any], field: str, says: str
) -> None:
    found = issues(api.post("jobs", json=job_body(**change)))
    assert says in found[field]
    assert set(found) == {field}
    assert api.get("jobs").json() == {"items": []}


def test_everything_wrong_with_a_job_is_said_at_once(api: Client, demo: str) -> None:
    body = job_body(name="a b", cron="bad", cpuCount="x", priority=5000, timeZone="No/Where", jobz=1, failover=0)
    del body["jobType"]
    wrong = {"jobName", "cron", "cpuCount", "priority", "timeZone", "jobz", "failover", "jobType"}
    assert set(issues(api.post("jobs", json=body))) == wrong


def test_elastic_jobs_own_default_handlers_are_accepted(api: Client, demo: str) -> None:
    package = "com.dangdang.ddframe.job.executor.handler.impl"
    handlers = {
        "job_exception_handler": f"{package}.DefaultJobExceptionHandler",
        "executor_service_handler": f"{package}.DefaultExecutorServiceHandler",
    }
    assert api.post("jobs", json=job_body(jobProperties=handlers)).status_code == 201


def test_amounts_are_taken_exactly(api: Client, loop: FakeLoop, demo: str) -> None:
    body = b'{"jobName":"x","appName":"demo","jobClass":"m:C","jobType":"SIMPLE","jobExecutionType":"TRANSIENT",'
    body += b'"cron":"0 0 0 * * ?","shardingTotalCount":1,"cpuCount":4.35e-1,"memoryMB":1048576.001}'
    answer = api.post("jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert loop.scheduler.jobs["x"].resources[:2] == (435, 1_048_576_001)
    assert b'"cpuCount":0.435,"memoryMB":1048576.001' in api.get("jobs/x").content


def test_a_job_of_an_unknown_app_is_refused(api: Client) -> None:
    answer = api.post("jobs", json=job_body())
    assert answer.status_code == 404
    assert "appName" in issues(answer, "not-found")


def test_a_trigger_answers_with_the_run_it_made(api: Client, loop: FakeLoop, hello: str) -> None:
    answer = api.post("jobs/hello/trigger")
    assert answer.status_code == 202
    assert answer.json()["cause"] == "trigger"
    assert api.get(f"runs/{answer.json()['id']}").json()["state"] == "WAITING"


def test_a_dead_run_is_listed_and_can_be_put_back(api: Client, loop: FakeLoop, demo: str) -> None:
    body = job_body(retryCount=1, retryDelaySeconds=0.5, retryJitter=0, shardingTotalCount=1)
    assert api.post("jobs", json=body).status_code == 201
    run = api.post("jobs/hello/trigger").json()["id"]
    loop.subscribe()
    for wait in (0, 500):
        loop.offer()
        (task_id,) = loop.tick(wait)
        loop.update(task_id, "TASK_FAILED", "it broke")
    (found,) = api.get("runs", params={"state": "DEAD"}).json()["items"]
    (shard,) = found["shards"]
    assert (found["id"], found["state"], shard["state"], shard["retries"]) == (run, "DEAD", "DEAD", 1)
    assert api.get("jobs/hello").json()["deadRuns"] == 1
    assert [task["id"] for task in api.get("tasks", params={"state": "dead"}).json()["items"]] == [task_id]
    reasons = api.get("jobs/hello/explain").json()["reasons"]
    assert next(reason["code"] for reason in reasons) == "dead"
    answer = api.post(f"runs/{run}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "WAITING")
    assert api.get("jobs/hello").json()["deadRuns"] == 0
    assert "runId" in issues(api.post(f"runs/{run}/retry"), "conflict")
    assert "item" in issues(api.post(f"runs/{run}/retry", params={"item": 9}), "not-found")
    assert api.post(f"runs/{run}/retry", params={"item": "x"}).status_code == 422
    assert api.post("runs/nope/retry").status_code == 404


def test_resident_and_disabled_jobs_cannot_be_triggered(api: Client, hello: str) -> None:
    assert api.post("jobs", json=job_body("always", jobExecutionType="DAEMON")).status_code == 201
    assert api.post("jobs/always/trigger").status_code == 409
    assert api.post("jobs/hello/disable").json()["enabled"] is False
    assert api.post("jobs/hello/trigger").status_code == 409
    assert api.post("jobs/hello/enable").json()["enabled"] is True
    assert api.post("jobs/nope/trigger").status_code == 404
    assert api.post("jobs/hello/dance").status_code == 422


def test_jobs_are_listed_by_app(api: Client, sha256: str, hello: str) -> None:
    api.post("apps", json=app_body(sha256, name="other"))
    api.post("jobs", json=job_body("second", "other"))
    assert [job["jobName"] for job in api.get("jobs").json()["items"]] == ["hello", "second"]
    assert [job["jobName"] for job in api.get("jobs", params={"app": "other"}).json()["items"]] == ["second"]


def test_a_removed_job_is_gone(api: Client, hello: str) -> None:
    assert api.delete("jobs/hello").status_code == 204
    assert api.delete("jobs/hello").status_code == 404


# --------------------------------------------------------------------------------------------------- tasks and runs


def test_a_tasks_life_can_be_followed(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    first, second = launched
    loop.update(first, "TASK_RUNNING")
    assert {task["state"] for task in api.get("tasks").json()["items"]} == {"RUNNING", "STORED"}
    loop.update(first, "TASK_FINISHED")
    loop.update(second, "TASK_FAILED", "it broke")
    detail = api.get(f"tasks/{second}").json()
    assert (detail["state"], detail["active"]) == ("FAILED", False)
    assert "it broke" in detail["message"]
    assert detail["story"]
    run = api.get("runs").json()["items"][0]
    assert (run["state"], [shard["state"] for shard in run["shards"]]) == ("FAILED", ["FINISHED", "FAILED"])
    assert api.get("jobs/hello").json()["lastRun"]["state"] == "FAILED"


def test_tasks_are_filtered(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_FINISHED")

    def ids(**query: Any) -> list[str]:
        return [task["id"] for task in api.get("tasks", params=query).json()["items"]]

    assert ids() == launched
    assert ids(state="FINISHED") == ids(state="ended") == ids(item=0) == launched[:1]
    assert ids(state="active") == ids(item=1) == ids(prefix=launched[1][:-1], state="stored") == launched[1:]
    assert ids(job="nope") == ids(prefix="x") == ids(app="y") == []


def test_pages_neither_repeat_nor_hide_when_something_new_comes(
    api: Client, loop: FakeLoop, launched: list[str]
) -> None:
    for _ in range(4):
        api.post("jobs/hello/trigger")
        loop.now += 1
    known = [run["id"] for run in api.get("runs").json()["items"]]
    assert len(known) == 5
    seen: list[str] = []
    cursor = ""
    while True:
        page = api.get("runs", params={"limit": 2, "cursor": cursor}).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["nextCursor"]
        if not cursor:
            break
        api.post("jobs/hello/trigger")
        loop.now += 1
    assert seen == known


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "cursor=WzFd", "limit=0", "limit=1001", "limit=a", "stat=RUNNING", "item=-1", "cursor=" + "W1" * 400],
)
def test_bad_queries_are_refused(api: Client, query: str) -> None:
    issues(api.get(f"tasks?{query}"))


def test_a_task_can_be_killed(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_RUNNING")
    assert api.post(f"tasks/{launched[0]}/kill").status_code == 202
    assert api.get(f"tasks/{launched[0]}").json()["killAskedAt"] == "2023-11-14T22:13:26.000Z"
    loop.update(launched[0], "TASK_KILLED")
    assert api.get(f"tasks/{launched[0]}").json()["state"] == "KILLED"
    assert api.post(f"tasks/{launched[0]}/kill").status_code == 404
    assert api.post("tasks/nope/kill").status_code == 404


def test_a_task_known_to_be_dead_is_forgotten(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_RUNNING")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == 409
    loop.update(launched[0], "TASK_UNREACHABLE")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == 200
    shown = api.get(f"tasks/{launched[0]}").json()
    assert (shown["state"], shown["message"]) == ("FAILED", "an operator declared it dead")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == api.post("tasks/nope/forget").status_code == 404
    assert api.post(f"tasks/{launched[1]}/forget?force=true").status_code == 200


def test_logs_come_from_the_agent_in_pieces(loop: FakeLoop, tmp_path: Path) -> None:
    text = "".join(f"line {number} ä\n" for number in range(100)).encode()
    asked: list[LogRequest] = []

    def read(request: LogRequest) -> LogChunk:
        asked.append(request)
        offset = request.offset if request.offset >= 0 else max(0, len(text) + request.offset)
        return LogChunk(text[offset : offset + request.limit], offset, len(text))

    api = client_of(make_api(tmp_path, loop, read_log=read))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    loop.tick(6000)
    loop.offer()
    task_id = loop.tick()[0]
    whole, offset = "", 0
    while offset < len(text):
        piece = api.get(f"tasks/{task_id}/logs", params={"offset": offset, "limit": 7}).json()
        assert piece["nextOffset"] > offset
        whole, offset = whole + piece["text"], piece["nextOffset"]
    assert whole.encode() == text, "no character is cut in two"
    tail = api.get(f"tasks/{task_id}/logs", params={"tail": 2, "stream": "stderr"}).json()
    assert tail["text"] == "line 98 ä\nline 99 ä\n"
    assert (asked[-1].stream, asked[-1].agent_id, asked[-1].address) == ("stderr", "agent-1", "agent-1.test:5051")
    assert asked[-1].executors == (loop.scheduler.tasks[task_id].executor_id,)
    executor = loop.scheduler.tasks[task_id].executor_id
    loop.update(task_id, "TASK_FINISHED")
    loop.scheduler.executors.clear()
    assert api.get(f"tasks/{task_id}/logs").status_code == 200
    assert asked[-1].executors == (executor,), "an executor that has left is still known by its app"
    assert issues(api.get(f"tasks/{task_id}/logs", params={"tail": 2, "offset": 1}))
    assert api.get("tasks/nope/logs").status_code == 404


def test_a_task_that_has_written_nothing_has_empty_logs_while_it_runs(loop: FakeLoop, tmp_path: Path) -> None:
    def read(request: LogRequest) -> LogChunk:
        raise NotFound("there is no such output", field="taskId")

    api = client_of(make_api(tmp_path, loop, read_log=read))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    loop.tick(6000)
    loop.offer()
    task_id = loop.tick()[0]
    assert api.get(f"tasks/{task_id}/logs").json()["text"] == ""
    loop.update(task_id, "TASK_FINISHED")
    assert "no such output" in issues(api.get(f"tasks/{task_id}/logs"), "not-found")["taskId"]


def test_an_explanation_gives_numbers(api: Client, loop: FakeLoop, demo: str) -> None:
    api.post("jobs", json=job_body(cpuCount=64))
    loop.tick(6000)
    loop.offer(cpus=8000)
    loop.tick()
    found = api.get("jobs/hello/explain").json()
    assert (found["waiting"], found["active"]) == (2, 0)
    short = next(reason for reason in found["reasons"] if reason["resource"] == "cpus")
    assert short["asked"] >= 64
    assert short["available"] == 8
    assert api.get("jobs/nope/explain").status_code == 404


def test_the_cluster_is_shown_in_the_units_of_the_configuration(
    api: Client, loop: FakeLoop, launched: list[str]
) -> None:
    cluster = api.get("cluster").json()
    assert (cluster["frameworkId"], cluster["connected"], cluster["activeTasks"]) == ("framework-1", True, 2)
    assert cluster["agents"][0]["claimed"] == {
        "cpuCount": 0.7, "memoryMB": 128, "diskMB": 0, "gpuCount": 0, "portCount": 0,
    }  # fmt: skip
    executors = api.get("executors").json()["items"]
    assert [(executor["appName"], executor["tasks"]) for executor in executors] == [("demo", 2)]


def test_an_agent_is_emptied_and_given_back(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    (agent,) = api.get("cluster").json()["agents"]
    assert (agent["closed"], agent["drain"], agent["maintenance"], agent["tasks"]) == (False, None, None, 2)
    drained = api.post(f"agents/{agent['hostname']}/drain", params={"deadline": 120, "reason": "new disk"})
    assert drained.status_code == 200
    assert drained.json()["drain"] == {
        "since": "2023-11-14T22:13:26.000Z", "deadline": "2023-11-14T22:15:26.000Z", "reason": "new disk",
    }  # fmt: skip
    (agent,) = api.get("cluster").json()["agents"]
    assert agent["drain"]["reason"] == "new disk"
    assert api.post(f"agents/{agent['agentId']}/undrain").json()["drain"] is None
    assert api.post("agents/nope/drain").status_code == api.post("agents/nope/undrain").status_code == 404
    issues(api.post(f"agents/{agent['agentId']}/drain?deadline=-1"))
    issues(api.post(f"agents/{agent['agentId']}/drain?dead=1"))


def test_next_firings_are_computed_in_the_zone_asked_for(api: Client) -> None:
    query = {"cron": "0 30 2 * * ?", "zone": "Europe/Berlin", "after": 1_774_645_200_000, "count": 2}
    times = api.get("cron/next", params=query).json()["times"]
    assert times == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"]
    assert "cron" in issues(api.get("cron/next", params={"cron": "nope"}))
    assert "count" in issues(api.get("cron/next", params={"cron": "0 0 0 * * ?", "count": 101}))


# ----------------------------------------------------------------------------------------------------------- system


def test_a_teardown_must_name_the_framework(loop: FakeLoop, tmp_path: Path) -> None:
    torn: list[str] = []
    api = client_of(make_api(tmp_path, loop, teardown=lambda: torn.append("down")))
    for wrong in ({}, {"confirm": ""}, {"confirm": "framework-2"}, {"confirm": "framework-1", "x": 1}):
        assert "framework-1" in issues(api.post("framework/teardown", json=wrong))["confirm"]
    assert torn == []
    assert api.post("framework/teardown", json={"confirm": "framework-1"}).status_code == 202
    assert torn == ["down"]


def test_health_says_how_things_stand(api: Client, loop: FakeLoop) -> None:
    assert api.get("health").status_code == 200
    loop.well = False
    answer = api.get("health")
    assert (answer.status_code, answer.json()["status"]) == (503, "failing")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (StoreFull("disk"), 507),
        (StoreError("/secret/path"), 503),
        (TimeoutError(), 503),
        (NotFound("x"), 404),
    ],
)
def test_failures_of_the_loop_become_problems(
    api: Client, loop: FakeLoop, demo: str, failure: Exception, status: int
) -> None:
    loop.failure = failure
    answer = api.post("jobs", json=job_body())
    assert answer.status_code == status
    assert "/secret/path" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_defect_leaves_no_trace_outside(loop: FakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    api = client_of(make_api(tmp_path, loop), strict=False)
    loop.failure = RuntimeError("the secret plan")
    answer = api.delete("jobs/x")
    assert answer.status_code == 500
    assert "secret plan" not in answer.text
    assert "Traceback" not in answer.text
    issues(answer, "internal")
    assert "the secret plan" in caplog.text, "the log knows"


def test_unknown_paths_and_methods_are_problems(api: Client) -> None:
    issues(api.get("nothing/here"), "not-found")
    answer = api.patch("jobs/x")
    issues(answer, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_notices_are_numbered_events(loop: FakeLoop) -> None:
    import asyncio

    async def collect(notices: Notices, last_id: str, count: int) -> list[str]:
        stream = notices.stream(last_id)
        found = [await anext(stream) for _ in range(count)]
        notices.close()
        assert [event async for event in stream] == []
        return found

    notices = Notices(size=2)
    for number in range(3):
        notices.publish(Publish(loop.now, Topic.FIRED, f"n{number}", job="hello", firing_id="run"))
    notices.publish("not a notice")
    _, first, second = asyncio.run(collect(notices, "elsewhere-1", 3))
    assert "event: fired" in first
    assert '"text": "n1"' in first
    assert '"jobName": "hello", "runId": "run"' in first
    again = Notices()
    again.publish(Publish(loop.now, Topic.FIRED, "old"))
    assert asyncio.run(collect(again, "", 1)) == ["retry: 2000\n\n"]
    assert second.startswith("id: ")


# ---------------------------------------------------------------------------------------------------------- OpenAPI


def test_the_openapi_document_describes_every_route_and_refers_to_nothing_missing(api: Client) -> None:
    document = api.get("openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    references: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            references.extend(ref for key, ref in value.items() if key == "$ref" and isinstance(ref, str))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    missing = {ref for ref in references if ref.removeprefix("#/components/schemas/") not in schemas}
    assert not missing
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {"POST /api/v1/packages", "PUT /api/v1/jobs/{job}", "GET /api/v1/tasks/{task_id}/logs"} <= set(operations)
    assert all("application/problem+json" in o["responses"]["default"]["content"] for o in operations.values())
    assert len({o["operationId"] for o in operations.values()}) == len(operations)
    fields = {"appName", "appURL", "memoryMB", "jobName", "shardingTotalCount", "catchUp"}
    assert fields <= set(schemas["AppConfig"]["properties"]) | set(schemas["JobConfig"]["properties"])
    assert schemas["JobConfig"]["additionalProperties"] is False


def test_the_cluster_tells_which_matcher_is_in_use() -> None:
    for matcher, name in ((CompiledMatcher, "compiled"), (PlainMatcher, "plain")):
        assert views.take(Scheduler(Policy(ARTIFACTS), Stored(), epoch=1, at=0, matcher=matcher), 0).matcher == name
