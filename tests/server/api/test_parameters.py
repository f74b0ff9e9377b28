"""Parameters with a schema: what a schema may say, and what it refuses."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from httpx import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api_kit import issues as issues_of
from tests.api_kit import job_body
from tests.server.api.test_rules import issues

from jobcloud.config import Job
from jobcloud.errors import ConfigError
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import read_job, read_trigger
from jobcloud.server.api.parameters import completed
from jobcloud.server.api.problems import Problem
from jobcloud.server.urls import UrlPolicy

DOC = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
REGION: dict[str, Any] = {"type": "string", "enum": ["eu", "us"], "description": "where"}


def with_schema(properties: dict[str, Any], parameter: str = "", **schema: Any) -> dict[str, Any]:
    text = json.dumps({"type": "object", "properties": properties, **schema})
    return job_body() | {"parameterSchema": text, "jobParameter": parameter}


def made(body: dict[str, Any]) -> Job:
    return read_job(parse(json.dumps(body).encode()), UrlPolicy(hosts=("*",)))


def refused(job: Job, parameter: Any) -> dict[str, str]:
    """field → problem of a trigger."""
    try:
        read_trigger(parse(json.dumps({"jobParameter": parameter}).encode()), job, "")
    except Problem as problem:
        return {one.field: f"{one.problem} | {one.fix}" for one in problem.issues}
    return {}


def example() -> tuple[Job, Any, str]:
    """The job, the body of a trigger and the parameter of the run in docs/api.md."""
    (manifest,) = re.findall(r"```toml\n(.*?parameterSchema.*?)```", DOC, re.DOTALL)
    (job,) = tomllib.loads(manifest)["jobs"]
    (trigger,) = re.findall(r"```json\n(\{\"jobParameter.*)\n```", DOC)
    (becomes,) = re.findall(r"gets the parameter `(\{.*?\})`", DOC)
    return made({**job, "appName": "books"}), json.loads(trigger), becomes


def test_example_of_the_document_is_completed_with_its_default() -> None:
    job, trigger, becomes = example()
    assert read_trigger(trigger, job, "").parameter == becomes
    assert read_trigger({"jobParameter": json.dumps(trigger["jobParameter"])}, job, "").parameter == becomes
    assert read_trigger({}, job, "").parameter is None


def test_every_wrong_parameter_is_named_with_its_description() -> None:
    job, _, _ = example()
    found = refused(job, {"month": "2026-1", "rounds": 1.5, "other": 1})
    assert found == {
        "jobParameter.region": "is missing | whose books are closed",
        "jobParameter.month": "does not match the pattern ^[0-9]{4}-[0-9]{2}$ | Month",
        "jobParameter.rounds": "must be of type integer, not a number | ",
        "jobParameter.other": "is no parameter of the job | parameters: region, month, rounds",
    }
    assert refused(job, {"region": "asia"})["jobParameter.region"].startswith('must be one of "eu", "us"')
    assert refused(job, "[1]") == {
        "jobParameter": "must be an object, not an array | parameters: region, month, rounds"
    }
    assert "is no JSON" in refused(job, "{")["jobParameter"]
    assert "is missing" in refused(job, "")["jobParameter.region"]


def test_own_parameter_of_a_job_meets_its_schema() -> None:
    assert issues(with_schema({"region": REGION}, "")) == {}
    assert issues(with_schema({"region": REGION}, '{"region": "eu"}', required=["region"])) == {}
    assert list(issues(with_schema({"region": REGION}, required=["region"]))) == ["jobParameter.region"]
    # Runs at a fire time get the text of the job as it is, so a default does not stand for a required parameter here.
    rounds = {"type": "integer", "default": 1}
    assert list(issues(with_schema({"rounds": rounds}, "{}", required=["rounds"]))) == ["jobParameter.rounds"]
    assert list(issues(with_schema({"region": REGION}, '{"region": 1}'))) == ["jobParameter.region"]
    both = with_schema({"region": REGION}) | {"placeholders": ["jobParameter"]}
    assert "braces are no placeholders" in issues(both)["jobParameter"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "is no JSON"),
        ("[]", "is no schema of an object"),
        ('{"type": "string"}', "is no schema of an object"),
        ('{"type": "object", "$ref": "#"}', "'$ref' of the object is no keyword here | use type, properties"),
        ('{"type": "object", "allOf": []}', "'allOf' of the object"),
        ('{"type": "object", "properties": []}', "has properties that are no object"),
        ('{"type": "object", "required": ["a"]}', "requires a parameter that is not in properties"),
        ('{"type": "object", "additionalProperties": {}}', "additionalProperties is no boolean"),
        ('{"type": "object", "properties": {"a": {}}}', "the type of a is missing or not supported"),
        ('{"type": "object", "properties": {"a": {"type": "array"}}}', "the type of a is missing"),
        ('{"type": "object", "properties": {"a.b": {"type": "string"}}}', "'a.b' cannot name a parameter"),
        ('{"type": "object", "properties": {"a": {"type": "string", "format": "date"}}}', "'format' of a"),
        ('{"type": "object", "properties": {"a": {"type": "boolean", "minimum": 1}}}', "'minimum' of a"),
        ('{"type": "object", "properties": {"a": {"type": "string", "maxLength": -1}}}', "maxLength of a"),
        ('{"type": "object", "properties": {"a": {"type": "number", "minimum": "1"}}}', "minimum of a"),
        ('{"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0}}}', "multipleOf of a"),
        ('{"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}', "default of a must be"),
        ('{"type": "object", "properties": {"a": {"type": "string", "enum": [1]}}}', "enum of a must be of type"),
        ('{"type": "object", "properties": {"a": {"type": "string", "enum": []}}}', "enum of a is no list"),
        ('{"type": "object", "title": 1}', "title of the object is no text"),
        ('{"type": "object", "description": "' + "x" * 8_192 + '"}', "is too long"),
        (json.dumps({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(51)}}), "too many"),
    ],
)  # fmt: skip
def test_schema_beyond_the_bounded_part_is_refused(schema: str, why: str) -> None:
    found = issues(job_body() | {"parameterSchema": schema})
    assert list(found) == ["parameterSchema"]
    assert why in found["parameterSchema"]


@pytest.mark.parametrize(
    "pattern",
    ["a", "^a", "a$", "^(a+)+$", "^a|b$", "^(?:a)$", r"^(a)\1$", "^a*b*$", "^a?{2}$", "^a{2}{3}$", "^[a$", "^[a&&b]$",
     "^[z-a]$", "^a{3,2}$", "^" + "a?" * 13 + "$", "^[ac]{1,99}[ab]{1,99}$", "^\\p{L}$", "^a*?$", "^" + "a" * 200 + "$",
     5, ["^a$"], ""],
)  # fmt: skip
def test_pattern_that_may_take_long_is_refused(pattern: Any) -> None:
    found = issues(with_schema({"a": {"type": "string", "pattern": pattern}}))
    assert list(found) == ["parameterSchema"], found
    assert "the pattern of a" in found["parameterSchema"]


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        (r"^[A-Z]{2}-\d{1,4}$", "DE-12", "DE-12\n"),
        (r"^\w+@example\.org$", "a_b@example.org", "a@exampleXorg"),
        ("^.*$", "a b", "a\nb"),
        (r"^[^/\]\\]+$", "ab", "a/b"),
        ("^a?b?c{2,}$", "acc", "ac"),
        (r"^\d$", "7", "\u0667"),
    ],
)
def test_pattern_means_what_it_means_elsewhere(pattern: str, fits: str, fails: str) -> None:
    job = made(with_schema({"a": {"type": "string", "pattern": pattern}}))
    assert refused(job, {"a": fits}) == {}
    assert "does not match" in refused(job, {"a": fails})["jobParameter.a"]
    assert "at most 1000 can be compared" in refused(job, {"a": "x" * 1_001})["jobParameter.a"]


def test_numbers_are_compared_exactly_and_are_bounded() -> None:
    job = made(with_schema({"a": {"type": "number", "minimum": 0.1, "multipleOf": 0.1}, "b": {"type": "integer"}}))
    assert refused(job, {"a": 0.3, "b": 2.0}) == {}
    assert list(refused(job, {"a": 0.35})) == ["jobParameter.a"]
    for text in ('{"a": 1e999999}', '{"b": -1e999999}', '{"a": 1e-999999}', '{"b": 1' + "0" * 40 + "}"):
        assert "out of range" in refused(job, text)["jobParameter"]
    assert completed(job, '{"b": 2.0}') == '{"b":2}'


SCALARS = st.one_of(
    st.text(max_size=6), st.integers(-9, 9), st.booleans(), st.none(), st.sampled_from([1.5, 2.0, -0.5]),
    st.lists(st.integers(), max_size=1), st.dictionaries(st.just("k"), st.integers(), max_size=1),
)  # fmt: skip
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), st.one_of(
        st.fixed_dictionaries({"type": st.just("string")}, optional={
            "minLength": st.integers(0, 3), "maxLength": st.integers(2, 5), "pattern": st.just("^[a-z]*$")}),
        st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])}, optional={
            "minimum": st.integers(-3, 3), "exclusiveMaximum": st.integers(1, 5), "multipleOf": st.just(2)}),
        st.just({"type": "boolean"}), st.just({"type": "string", "enum": ["x", ""]}),
        st.just({"type": "number", "enum": [1, 0]}),
    ), min_size=3)},
    optional={"additionalProperties": st.booleans(), "required": st.just(["a"])},
)  # fmt: skip


@settings(max_examples=150)
@given(SCHEMAS, st.dictionaries(st.sampled_from("abcd"), SCALARS))
def test_verdicts_agree_with_the_reference_library(schema: dict[str, Any], value: dict[str, Any]) -> None:
    job = made(job_body() | {"parameterSchema": json.dumps(schema | {"required": []})})
    object.__setattr__(job, "parameter_schema", json.dumps(schema))
    errors = jsonschema_rs.Draft202012Validator(schema).iter_errors(value)
    wrong = {".".join(map(str, error.instance_path)) for error in errors} - {""}
    missing = [name for name in schema.get("required", []) if name not in value]
    more = [name for name in value if name not in schema["properties"]]
    others = {*missing, *(more if schema.get("additionalProperties") is False else ())}
    try:
        completed(job, json.dumps(value))
        found = set()
    except ConfigError as error:
        found = {one.field.removeprefix("jobParameter.") for one in (error, *error.others)}
    assert found == wrong | others


def test_trigger_by_the_api_names_the_wrong_parameter(api: Client, hello: str) -> None:
    body = with_schema({"region": REGION, "n": {"type": "integer", "default": 3}})
    assert api.put("jobs/hello", json=body).status_code == 200
    answer = api.post("jobs/hello/trigger", json={"jobParameter": {"region": "mars"}})
    assert list(issues_of(answer)) == ["jobParameter.region"]
    run = api.post("jobs/hello/trigger", json={"jobParameter": {"region": "us"}}).json()
    assert api.get(f"runs/{run['id']}").json()["terms"]["jobParameter"] == '{"region":"us","n":3}'
