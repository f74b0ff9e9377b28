"""Rules for new configurations: sizes in bytes, commands, names, and fields of other types of jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.api_kit import app_body, job_body

from jobcloud.config import Job, item_parameters
from jobcloud.errors import ConfigError
from jobcloud.executor.payload import PayloadError, read_task
from jobcloud.messages import Kind
from jobcloud.model import Cause, Execution, JobState, Task
from jobcloud.scheduler import sharding
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import check, read_job, read_trigger
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.rules import MAX_HEADER_BYTES, MAX_TEXT_BYTES
from jobcloud.server.records import decode, encode
from jobcloud.server.urls import UrlPolicy
from jobcloud.wire import encode_data

SCRIPT = {"jobType": "SCRIPT", "jobClass": "", "scriptCommandLine": "bin/run.sh"}
HTTP = {"jobType": "HTTP", "jobClass": "", "httpUri": "https://orders.example.org/settle"}
BEAN = {"jobClass": "", "beanName": "b", "applicationContext": "m:c"}


def issues(body: dict[str, Any]) -> dict[str, str]:
    """field → problem and fix."""
    try:
        read_job(parse(json.dumps(body).encode()), UrlPolicy(hosts=("*",)))
    except Problem as problem:
        return {one.field: f"{one.problem} | {one.fix}" for one in problem.issues}
    return {}


def filled(size: int) -> str:
    """A text of `size` bytes in JSON, with escapes and characters of each length."""
    unit = 'é😀€"\\\n\x01 a'
    step = len(json.dumps(unit)) - 2
    text = unit * (size // step)
    return text + "a" * (size - (len(json.dumps(text)) - 2))


def test_filled_text_has_the_requested_size() -> None:
    assert [len(json.dumps(filled(size))) - 2 for size in (1_000, MAX_TEXT_BYTES)] == [1_000, MAX_TEXT_BYTES]


@pytest.mark.parametrize(
    ("field", "limit", "base"),
    [
        ("jobParameter", MAX_TEXT_BYTES, {}),
        ("jobParameter", MAX_TEXT_BYTES, SCRIPT),
        ("httpData", MAX_TEXT_BYTES, HTTP),
        ("scriptCommandLine", MAX_TEXT_BYTES, SCRIPT),
        ("beanName", 500, BEAN),
    ],
)
def test_text_of_the_largest_size_is_accepted_and_one_more_byte_is_refused(
    field: str, limit: int, base: dict[str, Any]
) -> None:
    text = filled(limit)
    if field == "scriptCommandLine":
        text = "run " + filled(limit - 4).replace('\\"', "aa").replace('"', "a").replace("\\", "a")
        text += "a" * (limit - (len(json.dumps(text)) - 2))
    assert issues(job_body(**base) | {field: text}) == {}
    found = issues(job_body(**base) | {field: text + "a"})
    assert list(found) == [field]
    assert f"{limit + 1:,} bytes" in found[field]
    assert f"at most {limit:,} bytes" in found[field]


def test_parameters_of_shards_are_limited_as_a_text_and_as_an_object() -> None:
    text = "0=" + filled(MAX_TEXT_BYTES - 2).replace(",", "a")
    assert issues(job_body(shardingItemParameters=text)) == {}
    assert "65,537" in issues(job_body(shardingItemParameters=text + "a"))["shardingItemParameters"]
    given = {"0": filled(30_000), "1": ""}
    given["1"] = filled(MAX_TEXT_BYTES - len(json.dumps(given)))
    assert issues(job_body(shardingItemParameters=given)) == {}
    given["1"] += "a"
    assert "65,537" in issues(job_body(shardingItemParameters=given))["shardingItemParameters"]


def test_parameters_of_an_http_job_fit_into_a_header_line() -> None:
    part = filled(MAX_HEADER_BYTES // 2)
    fits = job_body(**HTTP, jobParameter=part, shardingItemParameters={"0": "x", "1": part})
    assert issues(fits) == {}
    found = issues(fits | {"jobParameter": part + "a"})
    assert list(found) == ["jobParameter"]
    assert "at most 7,000 bytes together" in found["jobParameter"]
    assert list(issues(fits | {"shardingItemParameters": {"0": part + "a"}})) == ["shardingItemParameters"]


def test_parts_of_a_range_fit_into_a_header_line_too() -> None:
    fits = job_body(**HTTP, jobParameter=filled(MAX_HEADER_BYTES - 40), shardingItemRange="1..9")
    assert issues(fits) == {}
    assert list(issues(fits | {"jobParameter": filled(MAX_HEADER_BYTES - 39)})) == ["jobParameter"]


@pytest.mark.parametrize("command", ["bin/run.sh 'it", 'bin/run.sh "', "bin/run.sh \\", "'' x", '""'])
def test_script_that_the_agent_could_not_start_is_refused(command: str) -> None:
    assert list(issues(job_body(**SCRIPT) | {"scriptCommandLine": command})) == ["scriptCommandLine"]


@pytest.mark.parametrize("script", ["  ", "''", '"" x', "run 'it", "x" * (MAX_TEXT_BYTES + 1)])
def test_worker_that_the_agent_could_not_start_is_refused(script: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check("app", json.dumps(app_body("0" * 64) | {"bootstrapScript": script}).encode())
    assert refusal.value.field == "bootstrapScript"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("jobClass", {"jobClass": "shop." + "a" * 500}),
        ("jobClass", {"jobClass": "shop.x²:Settle"}),
        ("applicationContext", BEAN | {"applicationContext": "a." * 450_000 + "a:c"}),
        ("applicationContext", BEAN | {"applicationContext": "m:c\0"}),
        ("applicationContext", BEAN | {"applicationContext": "m:c²"}),
        ("beanName", BEAN | {"beanName": "a\0b"}),
        ("beanName", BEAN | {"beanName": "b" * 900_000}),
        ("listener", {"listener": ["shop:A²"]}),
        ("distributedListener.class", {"distributedListener": {"class": "shop:A²"}}),
        ("jobProperties.job_exception_handler", {"jobProperties": {"job_exception_handler": "shop:A²"}}),
    ],
)
def test_name_that_no_worker_can_load_is_refused(field: str, change: dict[str, Any]) -> None:
    assert list(issues(job_body(**change))) == [field]


@pytest.mark.parametrize(
    ("base", "foreign"),
    [
        ({}, {"scriptCommandLine": "bin/run.sh", "streamingProcess": True, "httpUri": "http://x/", "httpData": "x"}),
        ({}, {"httpMethod": "PUT", "httpContentType": "text/plain", "httpReadTimeoutMilliseconds": 7}),
        ({"jobType": "DATAFLOW"}, {"scriptCommandLine": "x", "httpConnectTimeoutMilliseconds": 7}),
        (SCRIPT, {"jobClass": "m:C", "beanName": "b", "applicationContext": "m:c", "streamingProcess": True}),
        (HTTP, {"jobClass": "m:C", "scriptCommandLine": "x", "beanName": "b"}),
    ],
)
def test_fields_of_other_types_of_jobs_are_all_refused(base: dict[str, Any], foreign: dict[str, Any]) -> None:
    found = issues(job_body() | base | foreign | {"priority": "high"})
    assert set(found) == {*foreign, "priority"}
    assert all("has no meaning" in found[name] for name in foreign)


def test_fields_of_other_types_may_be_given_with_their_defaults() -> None:
    empty = {"jobClass": "", "scriptCommandLine": "", "streamingProcess": False, "beanName": None, "httpData": "",
             "httpMethod": "GET", "applicationContext": ""}  # fmt: skip
    for base in ({"jobClass": "m:C"}, SCRIPT, HTTP):
        assert issues(job_body() | empty | base) == {}


def test_stored_parameters_of_shards_keep_their_form() -> None:
    for given in ("0=a,1=b", {"0": "a=b,c", "1": "é\n"}):
        job = read_job(parse(json.dumps(job_body(shardingItemParameters=given)).encode()), UrlPolicy())
        assert decode(Kind.JOB, job.name, encode(Kind.JOB, job)) == job
        assert item_parameters(job.shard_parameters) == given


def test_unknown_type_of_job_hides_no_other_problem_and_invents_none() -> None:
    for kind in ("script", ["SCRIPT"], None):
        found = issues(job_body(**SCRIPT) | {"jobType": kind, "priority": "high"})
        assert set(found) - {"jobClass"} == {"jobType", "priority"}


def test_stored_job_that_breaks_a_rule_is_still_read() -> None:
    """Each was accepted by older builds. Those that could run still run."""
    stored = [
        {"type": "SCRIPT", "script": "run 'it", "job_class": "m:C"},
        {"parameter": "€" * 65_536, "script": "x", "streaming": True, "http_uri": "x"},
        {"http_data": "x" * 900_000, "http_content_type": "x" * 900_000, "http_read_timeout_ms": -1},
        {"bean": "b\0" * 70_000, "context": "a." * 70_000 + "a"},
    ]
    base = json.loads(encode(Kind.JOB, read_job(parse(json.dumps(job_body()).encode()), UrlPolicy())))
    for change in stored:
        record = {"v": 1, "r": base["r"] | change}
        job = decode(Kind.JOB, "hello", json.dumps(record).encode())
        assert isinstance(job, Job)
        task = Task("t", "f", job.name, 0, 1, Execution.READY, "a", "h", "demo", "e", job.resources, 0)
        firing = sharding.make_firing(job, JobState(0), Cause.CRON, 0, "u", "prod")
        payload = sharding.payload(job, firing, task, 1).data
        if job.script == "run 'it":
            with pytest.raises(PayloadError, match="scriptCommandLine"):
                read_task(encode_data(payload))
        else:
            assert read_task(encode_data(payload)).context["jobParameter"] == job.parameter


# ---- placeholders ----------------------------------------------------------------------------------------------------

IN_PARAMETER: dict[str, Any] = {"placeholders": ["jobParameter"]}
IN_ITEMS: dict[str, Any] = {"placeholders": ["shardingItemParameters"]}
IN_COMMAND: dict[str, Any] = {**SCRIPT, "placeholders": ["scriptCommandLine"]}


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({**IN_PARAMETER, "jobParameter": "{item}"}, "jobParameter", "{item} is no placeholder of this field; use"),
        ({**IN_PARAMETER, "jobParameter": "{fire_time:%A}"}, "jobParameter", "there are %Y %y %m"),
        ({**IN_PARAMETER, "jobParameter": "{previous_success}", "jobExecutionType": "DAEMON"}, "jobParameter",
         "{previous_success} is no placeholder of this field"),
        ({**IN_ITEMS, "shardingItemParameters": {"0": "a}"}}, "shardingItemParameters", "double it to keep it: }}"),
        ({**IN_ITEMS, "shardingItemParameters": "0={x}"}, "shardingItemParameters", "{x} is no placeholder of this"),
        ({**IN_COMMAND, "scriptCommandLine": "run ${HOME}"}, "scriptCommandLine", "{HOME} is no placeholder of this"),
        ({**IN_COMMAND, "scriptCommandLine": "run {fire_time:%H %M}"}, "scriptCommandLine", "the brace at"),
        ({**IN_PARAMETER, "jobParameter": "{result}"}, "jobParameter", "needs the name of a node, such as {result:ex"),
        ({**IN_PARAMETER, "jobParameter": "{result:a b}"}, "jobParameter", "needs the name of a node"),
        ({**IN_PARAMETER, "jobParameter": "{result:a}", "jobExecutionType": "DAEMON"}, "jobParameter",
         "{result} is no placeholder of this field"),
        ({**IN_PARAMETER, "jobParameter": "{result:a}" * 17}, "jobParameter", "at most 16 placeholders {result:NODE}"),
        ({**SCRIPT, "placeholders": ["jobParameter", "scriptCommandLine"], "jobParameter": "{result:a}",
          "scriptCommandLine": "run " + " ".join(f"{{result:n{number}}}" for number in range(16))},
         "placeholders", "has 17 nodes in {result:NODE} | at most 16"),
        ({"placeholders": ["httpData"]}, "placeholders", "'httpData' is no field with placeholders | use jobParameter"),
        ({"placeholders": ["jobParameter"] * 2}, "placeholders", "names a field twice"),
        ({"placeholders": ["scriptCommandLine"]}, "placeholders", "a SIMPLE job has no scriptCommandLine"),
    ],
)  # fmt: skip
def test_placeholder_without_a_meaning_is_refused(fields: dict[str, Any], field: str, why: str) -> None:
    found = issues(job_body() | fields)
    assert list(found) == [field]
    assert why in found[field]


def test_braces_have_no_meaning_without_placeholders() -> None:
    assert issues(job_body(jobParameter="{x} {", shardingItemParameters="0={y}")) == {}
    assert issues(job_body(**SCRIPT) | {"scriptCommandLine": "echo ${HOME} {1..3}"}) == {}
    assert issues(job_body() | IN_PARAMETER | {"jobParameter": "{run_id}", "shardingItemParameters": "0={y}"}) == {}
    assert issues(job_body() | IN_PARAMETER | {"jobParameter": "{result:a-1}" * 16}) == {}
    assert issues(job_body() | IN_COMMAND | {"scriptCommandLine": "run '{fire_time:%H %M}' {item} $X {{a}}"}) == {}


def test_limits_hold_for_the_longest_text_that_a_field_can_become() -> None:
    many = {**IN_PARAMETER, "jobParameter": "{run_id}" * (MAX_TEXT_BYTES // 300)}
    assert issues(job_body() | many) == {}
    many["jobParameter"] += "{run_id}"
    assert "65,700 bytes" in issues(job_body() | many)["jobParameter"]
    of_items: dict[str, Any] = {
        "placeholders": ["shardingItemParameters"],
        "shardingItemParameters": {"0": "{run_id}" * 219},
    }
    assert "bytes in JSON" in issues(job_body() | of_items)["shardingItemParameters"]
    words = {**IN_COMMAND, "scriptCommandLine": "run " + "{run_id}" * 219}
    assert "bytes in JSON" in issues(job_body() | words)["scriptCommandLine"]
    head = {**HTTP, **IN_PARAMETER, "jobParameter": "{run_id}" * 24}
    assert "in the header" in issues(job_body() | head)["jobParameter"]


def test_parameters_of_a_trigger_follow_the_placeholders_of_the_job() -> None:
    job = read_job(parse(json.dumps(job_body() | IN_PARAMETER).encode()), UrlPolicy(hosts=("*",)))
    assert read_trigger({"jobParameter": "{job}"}, job, "").parameter == "{job}"
    for given in ({"jobParameter": "{"}, {"jobParameter": "{run_id}" * 60}):
        with pytest.raises(Problem) as found:
            read_trigger(given, job, "")
        assert [one.field for one in found.value.issues] == ["jobParameter"]
    assert read_trigger({"shardingItemParameters": {"0": "{"}}, job, "").item_parameters == ((0, "{"),)
