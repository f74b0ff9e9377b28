"""Placeholders: their values, their rules, and the greatest length of what becomes of them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.executor_kit import EVERY_SECOND, FakeAgent, Start, task_payload, wait_until

from jobcloud import zones
from jobcloud.executor.payload import PayloadError, TaskPayload, read_task
from jobcloud.executor.placeholders import DIRECTIVES, NAMES, Values, check, render, widest
from jobcloud.wire import encode_data

pytest_plugins = ["tests.executor_kit.fixtures"]

FIRE_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z
BERLIN = zones.zone("Europe/Berlin")
VALUES = Values("report.20231114T221320Z@prod", "report", 3, 8, BERLIN, FIRE_MS, FIRE_MS - 86_400_000)
ALL_FIELDS = ["jobParameter", "shardingItemParameters", "scriptCommandLine"]


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("", ""),
        ("a b", "a b"),
        ("{fire_time}", "2023-11-14T23:13:20+01:00"),
        ("{previous_success:%Y-%m-%dT%H:%M}..{fire_time:%Y-%m-%dT%H:%M}", "2023-11-13T23:13..2023-11-14T23:13"),
        ("{fire_time:%y%j %S %G-W%V-%u %w %z %s %% ü:}", "23318 20 2023-W46-2 2 +0100 1700000000 % ü:"),
        ("{fire_time:}", ""),
        ("{run_id} {job} {item}/{shard_count}", "report.20231114T221320Z@prod report 3/8"),
        ("{{item}} {{{item}}} }}", "{item} {3} }"),
    ],
)
def test_placeholders_become_values_in_the_time_zone_of_the_job(text: str, becomes: str) -> None:
    check(text)
    assert render(text, VALUES) == becomes


def test_time_that_is_unknown_becomes_nothing() -> None:
    for ms in (None, 0):
        values = Values("r", "j", 0, 1, BERLIN, None, ms)
        assert render("[{fire_time}|{previous_success:%Y}]", values) == "[|]"


@given(st.integers(0, 4_000_000_000), st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Apia"]))
def test_directives_agree_with_strftime(second: int, zone: str) -> None:
    values = Values("r", "j", 0, 1, zones.zone(zone), (second + 1) * 1_000)
    at = datetime.fromtimestamp(second + 1, zones.zone(zone))
    for directive in DIRECTIVES:
        wanted = str(second + 1) if directive == "%s" else at.strftime(directive)
        assert render(f"{{fire_time:{directive}}}", values) == wanted, directive


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "the brace at '{' belongs to no placeholder; double it to keep it: {{"),
        ("a } b", "the brace at '} b'"),
        ("${HOME}", r"{HOME} is no placeholder of this field; use one of {fire_time}, {previous_success}, {run_id}"),
        ("{item:%d}", "{item} has no format"),
        ("{result}", "{result} needs the name of a node, such as {result:extract}"),
        ("{result:a/b}", "{result} needs the name of a node"),
        ("{fire_time:%A}", "%A is no directive of times; there are %Y %y"),
        ("{fire_time:%-d}", "%- is no directive"),
        ("{fire_time:%}", "% is no directive"),
        ("{fire_time:{item}}", "the brace at '{fire_time:{item}}'"),
        ("{fire_time", "the brace at"),
        ("{Fire_Time}", "{Fire_Time} is no placeholder"),
    ],
)
def test_invalid_placeholder_is_refused_with_the_valid_ones(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(why)}"):
        check(text)
    # A time that is unknown makes no format valid.
    for values in (VALUES, Values("r", "j", 0, 1, BERLIN)):
        with pytest.raises(ValueError, match=r"brace|placeholder|directive|format|node"):
            render(text, values)


@given(
    st.lists(
        st.sampled_from(
            [
                *(f"{{{name}}}" for name in NAMES if name != "result"),
                "{result:a}",
                "{{",
                "}}",
                "é",
                "\n",
                "{fire_time:%Y é\\%s%z}",
                "a",
            ]
        )
    ),
    st.integers(1, 4_102_444_800_000),
)
def test_nothing_becomes_longer_than_the_widest_text(parts: list[str], ms: int) -> None:
    text = "".join(parts)
    values = Values("r" * 300, "j" * 100, 9_999, 10_000, BERLIN, ms, ms)
    assert len(json.dumps(render(text, values))) <= len(json.dumps(widest(text)))


# ---- in the executor -------------------------------------------------------------------------------------------------


def payload(task: str, parameter: str, of_item: str = "", fields: list[str] = ALL_FIELDS, **job: Any) -> dict[str, Any]:
    given = task_payload(task, item=2, parameter=of_item, **job)
    given["shardingContext"]["jobParameter"] = parameter
    given["job"]["placeholders"] = {"fields": fields, "timeZone": "Europe/Berlin"}
    return {**given, "schema": 4, "previousSuccess": FIRE_MS - 3_600_000}


def test_job_of_a_worker_gets_the_values_in_its_parameters(agent: FakeAgent, start: Start, python: str) -> None:
    start(python=python)
    of_all, of_one = "{fire_time:%Y-%m-%d} {job} {run_id}", "{item} of {shard_count} since {previous_success:%H:%M}"
    agent.launch("t1", payload("t1", of_all, of_one, jobClass="shop.jobs:parameters"))
    end = agent.end("t1")
    assert end.data["result"] == ["2023-11-14 settle run-t1", "2 of 4 since 22:13"], end


def test_only_the_named_fields_have_placeholders(agent: FakeAgent, start: Start) -> None:
    start()
    given = payload("t1", "{item} {", "{item}", ["shardingItemParameters"], jobClass="shop.jobs:parameters")
    agent.launch("t1", given)
    assert agent.end("t1").data["result"] == ["{item} {", "2"]


def test_value_in_a_command_makes_no_words(agent: FakeAgent, start: Start) -> None:
    executor = start()
    command = "bin/context.py '{fire_time:%H %M}' --item={item} $HOME"
    agent.launch("s1", payload("s1", "{job}", jobType="SCRIPT", scriptCommandLine=command))
    assert agent.end("s1").state == "TASK_FINISHED"
    seen = json.loads(executor.output("s1"))
    assert seen["arguments"][:-1] == ["23 13", "--item=2", "$HOME"]
    assert seen["context"]["jobParameter"] == "settle"


def test_each_execution_of_a_resident_job_has_its_own_fire_time(agent: FakeAgent, start: Start) -> None:
    executor = start()
    resident: dict[str, Any] = {"jobExecutionType": "DAEMON", "timer": EVERY_SECOND}
    given = payload("d1", "{fire_time:%s} {run_id}", jobClass="shop.jobs:prints_parameter", **resident)
    agent.launch("d1", {**given, "fireTime": None})
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 2, "two executions")
    lines = [line.split() for line in executor.output("d1").splitlines()[:2]]
    assert int(lines[0][0]) < int(lines[1][0])
    assert [run for _, run in lines] == [f"run-d1#{second}000" for second, _ in lines]


def test_listener_of_runs_gets_the_values_in_the_parameters_of_all_shards(agent: FakeAgent, start: Start) -> None:
    executor = start()
    given = payload("b1", "{fire_time:%Y}", jobClass="shop.jobs:parameters", distributedListener="shop.jobs:Prints")
    firing = {"parameters": {"0": "{item}", "3": "{item}/{shard_count}"}}
    agent.launch("b1", {**given, "step": "before", "firing": firing, "timeoutSeconds": 0})
    assert agent.end("b1").state == "TASK_FINISHED", executor.log()
    assert json.loads(executor.output("b1")) == ["2023", {"0": "0", "3": "3/4"}]


@pytest.mark.parametrize("broken", ["{", "{fire_time:%A}", "{previous_success:%A}", "{other}"])
def test_invalid_placeholder_is_an_error_of_the_payload(broken: str) -> None:
    given = payload("t", broken, jobClass="m:C")
    del given["previousSuccess"]
    with pytest.raises(PayloadError, match="a placeholder of the job"):
        read_task(encode_data(json.dumps(given).encode()))


@pytest.mark.parametrize("described", [{"fields": "x", "timeZone": "UTC"}, {"fields": [1], "timeZone": "UTC"},
                                       {"fields": []}, {"fields": [], "timeZone": "Mars"}, [], 5])  # fmt: skip
def test_malformed_description_of_placeholders_is_refused(described: Any) -> None:
    given = payload("t", "", jobClass="m:C")
    given["job"]["placeholders"] = described
    with pytest.raises(PayloadError, match="placeholders"):
        read_task(encode_data(json.dumps(given).encode()))


def test_time_is_that_of_the_day_in_the_zone_and_not_in_utc() -> None:
    late = int(datetime(2026, 12, 31, 23, 30, tzinfo=UTC).timestamp()) * 1_000
    assert render("{fire_time:%Y-%m-%d}", Values("r", "j", 0, 1, BERLIN, late)) == "2027-01-01"


# ---- results of nodes ------------------------------------------------------------------------------------------------


def with_results(task: str, results: dict[str, Any], command: str = "run {result:a}") -> dict[str, Any]:
    given = payload(task, "{result:b}", jobType="SCRIPT", scriptCommandLine=command)
    return {**given, "schema": 6, "results": results}


def read(given: dict[str, Any]) -> TaskPayload:
    found = read_task(encode_data(json.dumps(given).encode()))
    return found.for_execution(found.facts())


def test_result_of_a_node_stays_one_word_and_is_not_read_again() -> None:
    hostile = "a b; $(rm -rf /) '\"{run_id}{result:b}"
    found = read(with_results("t", {"a": hostile, "b": "[1,2]"}, "run --x={result:a} {result:none}"))
    assert found.script == ("run", f"--x={hostile}", "")
    assert found.context["jobParameter"] == "[1,2]"


def test_script_gets_a_hostile_result_as_one_argument(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("s1", with_results("s1", {"a": "x; $(id) 'y\n"}, "bin/context.py --a={result:a}"))
    assert agent.end("s1").state == "TASK_FINISHED"
    assert json.loads(executor.output("s1"))["arguments"][0] == "--a=x; $(id) 'y\n"


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ({"a": None}, "the result of node a takes more than 32,768 bytes with the results before it; pass files"),
        ({"a": "x\0"}, "the result of node a is no Unicode text without a NUL"),
        ({"a": "\ud800"}, "the result of node a is no Unicode text"),
        ({"a": 7}, "the result of node a is no Unicode text"),
        ({"a": "x" * 16_385}, "the results take 32,770 bytes, at most 32,768; pass files instead"),
        ([], "'results' in the task's data is [], which has the wrong type"),
    ],
)
def test_results_that_cannot_be_inserted_end_the_task(results: Any, why: str) -> None:
    with pytest.raises(PayloadError, match=re.escape(why)):
        read(with_results("t", results, "run {result:a}{result:a}"))
    assert read(with_results("t", {"a": "x" * 16_384}, "run {result:a}{result:a}")).script


def test_executor_refuses_tasks_of_a_later_schema() -> None:
    with pytest.raises(PayloadError, match="has schema 7"):
        read({**with_results("t", {}), "schema": 7})
