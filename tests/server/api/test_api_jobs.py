"""Jobs in the API."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api

from jobcloud.config import MAX_SHARDS
from jobcloud.server.api import ApiOptions
from jobcloud.server.urls import UrlPolicy


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
def test_http_job_calls_allowed_hosts_only(loop: FakeLoop, tmp_path: Path, uri: str, why: str, sha256: str) -> None:
    options = ApiOptions(job_urls=UrlPolicy(hosts=("good.example.org", "*.1")))
    api = client_of(make_api(tmp_path, loop, options=options))
    api.post("apps", json=app_body(sha256))
    found = issues(api.post("jobs", json=job_body(jobType="HTTP", httpUri=uri, cron="x")))
    assert why in found["httpUri"]
    assert "cron" in found, "the rest is checked too"


def test_http_job_is_shown_with_its_request(loop: FakeLoop, tmp_path: Path, sha256: str) -> None:
    options = ApiOptions(job_urls=UrlPolicy(hosts=("good.example.org",)))
    api = client_of(make_api(tmp_path, loop, options=options))
    assert api.post("apps", json=app_body(sha256)).status_code in (200, 201, 409)
    told = {"jobType": "HTTP", "httpUri": "https://good.example.org/x", "httpMethod": "POST", "httpData": "ä"}
    told |= {"jobClass": ""}
    answer = api.post("jobs", json=job_body(**told))
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"].items() >= told.items()


def test_job_whose_class_is_not_in_the_package_is_refused(api: Client, loop: FakeLoop, demo: str) -> None:
    wrong = issues(api.post("jobs", json=job_body(jobClass="hello:Helo")))
    assert wrong["jobClass"].startswith("hello:Helo is not in the package of app demo: hello.py has no Helo")
    assert "names no module" in issues(api.post("jobs", json=job_body(jobClass="Hello")))["jobClass"]
    listener = job_body(listener=["hello:Hello", "hello:Absent"])
    assert "has no Absent" in issues(api.post("jobs", json=listener))["listener"]
    assert api.post("jobs", json=job_body(jobClass="installed.on.agents:Job")).status_code == 201
    assert "has no Helo" in issues(api.put("jobs/hello", json=job_body(jobClass="hello:Helo")))["jobClass"]
    assert api.get("jobs/hello").json()["config"]["jobClass"] == "installed.on.agents:Job"


def test_classes_of_a_worker_in_another_language_are_not_checked(
    api: Client, loop: FakeLoop, demo: str, sha256: str
) -> None:
    assert api.put("apps/demo", json=app_body(sha256, bootstrapScript="java -jar w.jar")).status_code == 200
    assert api.post("jobs", json=job_body(jobClass="Hello")).status_code == 201


def test_parameters_of_shards_are_shown_as_they_were_registered(api: Client, loop: FakeLoop, demo: str) -> None:
    given = {"1": "x=1,y=2", "0": ' "quoted" é '}
    assert api.post("jobs", json=job_body(shardingItemParameters=given)).status_code == 201
    config = api.get("jobs/hello").json()["config"]
    assert config["shardingItemParameters"] == given
    assert list(config["shardingItemParameters"]) == ["0", "1"]
    loop.effects.clear()
    assert api.put("jobs/hello", json=config).status_code == 200
    assert loop.effects == [], "nothing has changed"
    text = json.dumps(given)
    assert api.put("jobs/hello", json=config | {"shardingItemParameters": text}).status_code == 200
    assert loop.effects == [], "a text that holds the object is the same"
    changed = config | {"shardingItemParameters": "0=a,1=b"}
    assert api.put("jobs/hello", json=changed).json()["config"]["shardingItemParameters"] == "0=a,1=b"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"2": "x"}, "item 2 is out of range"),
        ({"x": "x"}, "'x' is not an item"),
        ({"-1": "x"}, "'-1' is not an item"),
        ({"0": "x", "00": "y"}, "item 0 is given twice | give it once"),
        ({"0": 7}, "an object of other values"),
        ({"0": None}, "an object of other values"),
        ({"0": "a\0b"}, "NUL"),
        (["a"], "not an array"),
        (7, "not a number"),
        (None, "not null"),
        ("{", "not an object from items to texts"),
        ('{"0": 7}', "not an object from items to texts"),
        ('{"0": "\\ud800"}', "not an object from items to texts"),
        ("{" * 60_000, "not an object from items to texts"),
    ],
)
def test_malformed_parameters_of_shards_are_refused(api: Client, demo: str, value: Any, says: str) -> None:
    assert says in issues(api.post("jobs", json=job_body(shardingItemParameters=value)))["shardingItemParameters"]


def test_configuration_shown_for_a_job_can_be_sent_back(api: Client, loop: FakeLoop, hello: str) -> None:
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
        "constraints": ["zone == a", "host !~ db-*"],
        "preferences": ["5: zone == a"],
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
        ({"jobName": "a/b"}, "jobName", "not a valid name"),
        ({"jobName": "a@-@b"}, "jobName", "not a valid name"),
        ({"jobName": ""}, "jobName", "not a valid name"),
        ({"jobName": None}, "jobName", "not null"),
        ({"cron": "bad"}, "cron", "1 field;"),
        ({"cron": 5}, "cron", "must be a string, not a number"),
        ({"timeZone": "Mars/Olympus"}, "timeZone", "Mars/Olympus"),
        ({"cronDialect": "cobol"}, "cronDialect", "'quartz' or 'unix'"),
        ({"shardingTotalCount": 0}, "shardingTotalCount", f"1 to {MAX_SHARDS}"),
        ({"shardingTotalCount": 2.5}, "shardingTotalCount", "whole number"),
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
        ({"jobType": "SCRIPT", "jobClass": ""}, "scriptCommandLine", "needs a command"),
        ({"jobClass": ""}, "jobClass", "missing"),
        ({"jobClass": "a b"}, "jobClass", "Python object"),
        ({"beanName": "b"}, "applicationContext", "beanName"),
        ({"priority": 1001}, "priority", "-1000 to 1000"),
        ({"jobProperties": {"x": "y"}}, "jobProperties.x", "known field"),
        ({"jobProperties": {"job_exception_handler": "my handler"}}, "jobProperties.job_exception_handler", "Class"),
        ({"jobProperties": {"job_exception_handler": "webhook"}}, "jobProperties.job_exception_webhook", "required by"),
        (
            {"jobProperties": {"job_exception_handler": "webhook", "job_exception_webhook": "http://127.0.0.1/x"}},
            "jobProperties.job_exception_webhook",
            "http_jobs.hosts",
        ),
        (
            {"jobProperties": {"executor_service_handler": "mine"}},
            "jobProperties.executor_service_handler",
            "thread pool",
        ),
        ({"timeoutSeconds": 2_592_000.5}, "timeoutSeconds", "2592000.5 is out of range | 0 to 2592000"),
        ({"retryMaxDelaySeconds": 5}, "retryMaxDelaySeconds", "less than retryDelaySeconds"),
        ({"listener": "audit"}, "listener", "array"),
        ({"listener": ["shop:Audit", "a b"]}, "listener", "Class"),
        ({"listener": ["x"] * 21}, "listener", "20"),
        ({"constraints": "zone == a"}, "constraints", "array"),
        ({"constraints": ["zone == a", "zone"]}, "constraints", "such as `zone == a`"),
        ({"constraints": ["zone == a"] * 21}, "constraints", "21 entries | at most 20"),
        ({"preferences": ["101: zone == a"]}, "preferences", "1 to 100"),
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
def test_invalid_field_is_named_with_a_fix_and_nothing_is_stored(
    api: Client, demo: str, change: dict[str, Any], field: str, says: str
) -> None:
    found = issues(api.post("jobs", json=job_body(**change)))
    assert says in found[field]
    assert set(found) == {field}
    assert api.get("jobs").json() == {"items": [], "nextCursor": "", "total": 0}


def test_all_problems_of_a_job_are_reported_at_once(api: Client, demo: str) -> None:
    body = job_body(name="a b", cron="bad", cpuCount="x", priority=5000, timeZone="No/Where", jobz=1, failover=0)
    del body["jobType"]
    wrong = {"jobName", "cron", "cpuCount", "priority", "timeZone", "jobz", "failover", "jobType"}
    assert set(issues(api.post("jobs", json=body))) == wrong


def test_job_with_only_a_wrong_trigger_does_not_lack_a_cron_expression(api: Client, demo: str) -> None:
    body = job_body(triggers=["@after 0s"])
    del body["cron"]
    assert set(issues(api.post("jobs", json=body))) == {"triggers"}


def test_default_handlers_of_elastic_job_are_accepted(api: Client, demo: str) -> None:
    package = "com.dangdang.ddframe.job.executor.handler.impl"
    handlers = {
        "job_exception_handler": f"{package}.DefaultJobExceptionHandler",
        "executor_service_handler": f"{package}.DefaultExecutorServiceHandler",
    }
    assert api.post("jobs", json=job_body(jobProperties=handlers)).status_code == 201


def test_amounts_are_read_exactly(api: Client, loop: FakeLoop, demo: str) -> None:
    body = b'{"jobName":"x","appName":"demo","jobClass":"m:C","jobType":"SIMPLE","jobExecutionType":"TRANSIENT",'
    body += b'"cron":"0 0 0 * * ?","shardingTotalCount":1,"cpuCount":4.35e-1,"memoryMB":1048576.001}'
    answer = api.post("jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert loop.scheduler.jobs["x"].resources[:2] == (435, 1_048_576_001)
    assert b'"cpuCount":0.435,"memoryMB":1048576.001' in api.get("jobs/x").content


def test_job_of_an_unknown_app_is_refused(api: Client) -> None:
    answer = api.post("jobs", json=job_body())
    assert answer.status_code == 404
    assert "appName" in issues(answer, "not-found")


def test_trigger_answers_with_its_new_run(api: Client, loop: FakeLoop, hello: str) -> None:
    answer = api.post("jobs/hello/trigger")
    assert answer.status_code == 202
    assert answer.json()["cause"] == "trigger"
    assert api.get(f"runs/{answer.json()['id']}").json()["state"] == "WAITING"


def test_trigger_takes_what_the_run_has_in_place_of_the_jobs_own_values(
    api: Client, loop: FakeLoop, hello: str
) -> None:
    body = {
        "jobParameter": "given", "shardingItemParameters": {"1": "b=c,d"}, "shards": [1], "priority": -5, "key": "k 1",
    }  # fmt: skip
    answer = api.post("jobs/hello/trigger", json=body)
    assert (answer.status_code, answer.json()["existed"]) == (202, False)
    run = answer.json()["id"]
    assert api.get(f"runs/{run}").json()["terms"] == body
    assert api.get("runs").json()["items"][0]["terms"] == body
    loop.offer()
    (task_id,) = loop.tick()
    loop.update(task_id, "TASK_FINISHED")
    found = api.get(f"runs/{run}").json()
    assert (found["state"], found["shardStates"]) == ("FINISHED", {"CANCELLED": 1, "FINISHED": 1})
    assert found["terms"] == body


def test_run_shows_the_range_that_its_shards_divide(api: Client, loop: FakeLoop, hello: str) -> None:
    assert api.get(f"runs/{api.post('jobs/hello/trigger').json()['id']}").json()["itemRange"] == ""
    body = job_body("days", shardingItemRange="{fire_time}-1d..{fire_time}")
    assert api.post("jobs", json=body).status_code == 201
    assert api.get("jobs/days").json()["config"]["shardingItemRange"] == "{fire_time}-1d..{fire_time}"
    shown = api.get(f"runs/{api.post('jobs/days/trigger').json()['id']}").json()
    first, last = map(date.fromisoformat, shown["itemRange"].split(".."))
    assert (last - first).days == 1
    assert shown["terms"] is None, "the trigger has set nothing"
    assert api.get("runs", params={"job": "days"}).json()["items"][0]["itemRange"] == shown["itemRange"]
    answer = api.put("jobs/days", json=body | {"shardingTotalCount": 3})
    assert "too few for 3 shards" in issues(answer)["shardingItemRange"]


def test_trigger_with_a_known_key_answers_with_the_first_run(api: Client, loop: FakeLoop, hello: str) -> None:
    first = api.post("jobs/hello/trigger", json={"key": "k", "jobParameter": "p"}).json()
    for wait in (0, 1_000):
        loop.now += wait
        again = api.post("jobs/hello/trigger", json={"jobParameter": "p", "key": "k"})
        assert again.status_code == 200
        assert again.json() == first | {"existed": True}
    assert len(api.get("runs").json()["items"]) == 1
    assert "key" in issues(api.post("jobs/hello/trigger", json={"key": "k", "jobParameter": "q"}), "conflict")


def test_trigger_keeps_the_span_of_its_caller(api: Client, loop: FakeLoop, hello: str) -> None:
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for header, kept in ((caller, caller), ("cc" + caller[2:] + "-more", caller), ("nonsense", "")):
        run = api.post("jobs/hello/trigger", headers={"traceparent": header}).json()
        assert loop.scheduler.firings[run["id"]].terms.trace == kept
        assert api.get(f"runs/{run['id']}").json()["terms"] is None
    for header in (caller, caller[:-4] + "b8-01"):
        answer = api.post("jobs/hello/trigger", json={"key": "k"}, headers={"traceparent": header})
        assert (answer.status_code, answer.json()["existed"]) == ((202, False) if header == caller else (200, True))


def test_trigger_without_values_makes_a_run_without_terms(api: Client, hello: str) -> None:
    several: tuple[dict[str, Any], ...] = (
        {},
        {"json": {}},
        {"content": b""},
        {"json": {"jobParameter": None, "shards": None}},
    )
    for options in several:
        run = api.post("jobs/hello/trigger", **options).json()
        assert api.get(f"runs/{run['id']}").json()["terms"] is None, options


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parameter": "p"}, "parameter"),
        ({"jobParameter": 1}, "jobParameter"),
        ({"jobParameter": "\0"}, "jobParameter"),
        ({"jobParameter": "x" * 16_385}, "jobParameter"),
        ({"jobParameter": "é" * 2_731}, "jobParameter"),
        ({"shardingItemParameters": {"2": "b"}}, "shardingItemParameters"),
        ({"shardingItemParameters": {"x": "b"}}, "shardingItemParameters"),
        ({"shardingItemParameters": {"0": "\0"}}, "shardingItemParameters"),
        ({"shardingItemParameters": {"0": "x" * 9_000}, "jobParameter": "x" * 8_000}, "shardingItemParameters"),
        ({"shards": []}, "shards"),
        ({"shards": [2]}, "shards"),
        ({"shards": [-1]}, "shards"),
        ({"shards": [0, 0]}, "shards"),
        ({"shards": ["0"]}, "shards.0"),
        ({"priority": 1_001}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"key": "k" * 101}, "key"),
        ({"key": "a\nb"}, "key"),
    ],
)
def test_trigger_with_a_wrong_value_is_refused(api: Client, hello: str, body: dict[str, object], field: str) -> None:
    assert field in issues(api.post("jobs/hello/trigger", json=body), "invalid")
    assert not api.get("runs").json()["items"]


def test_trigger_takes_json_objects_only(api: Client, hello: str) -> None:
    for content, kind, status in ((b"[]", "application/json", 400), (b"{}", "text/plain", 415), (b"{", "", 415)):
        answer = api.post("jobs/hello/trigger", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status


def test_trigger_of_an_http_job_keeps_both_parameters_short(loop: FakeLoop, tmp_path: Path, sha256: str) -> None:
    api = client_of(make_api(tmp_path, loop, options=ApiOptions(job_urls=UrlPolicy(hosts=("good.example.org",)))))
    api.post("apps", json=app_body(sha256))
    body = job_body("calls", jobType="HTTP", httpUri="https://good.example.org/", jobParameter="p" * 6_000)
    del body["jobClass"]
    assert api.post("jobs", json=body).status_code == 201
    given = {"shardingItemParameters": {"0": "x" * 2_000}}
    assert issues(api.post("jobs/calls/trigger", json=given), "invalid")
    assert api.post("jobs/calls/trigger", json=given | {"jobParameter": ""}).status_code == 202


def test_resident_and_disabled_jobs_cannot_be_triggered(api: Client, hello: str) -> None:
    assert api.post("jobs", json=job_body("always", jobExecutionType="DAEMON")).status_code == 201
    assert api.post("jobs/always/trigger").status_code == 409
    assert api.post("jobs/hello/disable").json()["enabled"] is False
    assert api.post("jobs/hello/trigger").status_code == 409
    assert api.post("jobs/hello/enable").json()["enabled"] is True
    assert api.post("jobs/nope/trigger").status_code == 404
    assert api.post("jobs/hello/dance").status_code == 404


def test_jobs_are_listed_by_app(api: Client, sha256: str, hello: str) -> None:
    api.post("apps", json=app_body(sha256, name="other"))
    api.post("jobs", json=job_body("second", "other"))
    assert [job["jobName"] for job in api.get("jobs").json()["items"]] == ["hello", "second"]
    assert [job["jobName"] for job in api.get("jobs", params={"app": "other"}).json()["items"]] == ["second"]


def test_removed_job_is_not_found(api: Client, hello: str) -> None:
    assert api.delete("jobs/hello").status_code == 204
    assert api.delete("jobs/hello").status_code == 404


def test_explanation_has_numbers(api: Client, loop: FakeLoop, demo: str) -> None:
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


def test_schema_has_the_defaults_that_a_job_gets(api: Client, demo: str) -> None:
    needed = api.get("openapi.json").json()["components"]["schemas"]["JobConfig"]
    body = {
        name: value for name, value in job_body().items() if name in needed["required"] or name in ("jobClass", "cron")
    }
    shown = api.post("jobs", json=body).json()["config"]
    told = {name: one["default"] for name, one in needed["properties"].items() if "default" in one and name not in body}
    assert told["retryJitter"] == 0.1
    assert told == {name: shown[name] for name in told}
