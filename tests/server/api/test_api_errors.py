"""Errors of the API as problem documents, and its OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, client_of, issues, job_body, make_api

from jobcloud.errors import NotFound, StoreError, StoreFull


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (StoreFull("disk"), 507),
        (StoreError("/secret/path"), 503),
        (TimeoutError(), 503),
        (NotFound("x"), 404),
    ],
)
def test_failure_of_the_loop_becomes_a_problem(
    api: Client, loop: FakeLoop, demo: str, failure: Exception, status: int
) -> None:
    loop.failure = failure
    answer = api.post("jobs", json=job_body())
    assert answer.status_code == status
    assert "/secret/path" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_refusal_has_the_code_and_the_parameters_of_its_text(api: Client, demo: str) -> None:
    (fault,) = api.get("jobs/absent").json()["errors"]
    assert (fault["problem"], fault["code"], fault["parameters"]) == (
        "there is no job absent", "no_job", {"job": "absent"},
    )  # fmt: skip
    refused = api.post("jobs", json=job_body(shardingTotalCount="many", retryCount=-1)).json()
    faults = {one["field"]: one for one in refused["errors"]}
    assert faults["shardingTotalCount"]["code"] == "value_type"
    assert faults["shardingTotalCount"]["parameters"] == {"wanted": "whole number", "found": "a string"}
    assert faults["retryCount"] == {
        "field": "retryCount", "problem": "-1 is out of range", "code": "out_of_range", "parameters": {"value": "-1"},
        "fix": "0 to 1000", "fixCode": "between", "fixParameters": {"low": "0", "high": "1000"},
    }  # fmt: skip


def test_unexpected_error_is_logged_only(loop: FakeLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    answer = api.patch("tasks/x")
    issues(answer, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def with_words(path: str) -> str:
    """A path with one of the words that its last part may be."""
    return path.replace("{switch}", "enable").replace("{pausing}", "pause")


def test_wrong_method_is_405_on_every_route_and_names_the_right_ones(api: Client) -> None:
    paths: dict[str, dict[str, Any]] = api.get("openapi.json").json()["paths"]
    assert len(paths) > 20
    for path, operations in paths.items():
        resource = re.sub(r"\{\w+\}", "x", with_words(path)).removeprefix("/api/v1/")
        allowed = {method.upper() for method in operations}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"} - allowed:
            answer = api.request(method, resource)
            assert (answer.status_code, method, resource) == (405, method, resource)
            assert allowed <= set(answer.headers["allow"].split(", ")), f"{method} {resource}"
            assert method not in answer.headers["allow"].split(", ")
    assert api.post("jobs/x/other").status_code == 404


def test_openapi_document_describes_every_route_and_has_no_missing_reference(api: Client) -> None:
    document = api.get("openapi.json").json()
    assert document["openapi"].startswith("3.1")
    components = document["components"]
    schemas, known = (
        components["schemas"],
        {f"#/components/{kind}/{name}" for kind in components for name in components[kind]},
    )
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
    assert not set(references) - known
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {"POST /api/v1/packages", "PUT /api/v1/jobs/{job}", "GET /api/v1/tasks/{task_id}/logs"} <= set(operations)
    for name, operation in operations.items():
        problems = {status for status in operation["responses"] if status >= "400"}
        assert {"400", "413", "421", "422", "429", "431", "500", "503"} <= problems, name
        assert "404" in problems or "{" not in name, name
        assert "401" in problems or name.endswith(("/health", "/sign-in", "/hooks/{job}")), name
    job = operations["PUT /api/v1/jobs/{job}"]["responses"]
    assert {"403", "408", "409", "412", "415", "507"} <= set(job)
    assert components["responses"]["412"]["content"]["application/problem+json"]["schema"]["$ref"].endswith(
        "/ProblemView"
    )
    assert len({o["operationId"] for o in operations.values()}) == len(operations)
    fields = {"appName", "appURL", "memoryMB", "jobName", "shardingTotalCount", "catchUp"}
    assert fields <= set(schemas["AppConfig"]["properties"]) | set(schemas["JobConfig"]["properties"])
    assert schemas["JobConfig"]["additionalProperties"] is False
    properties = schemas["JobConfig"]["properties"]
    assert (properties["cpuCount"]["minimum"], properties["shardingTotalCount"]["maximum"]) == (0.001, 10_000)
    assert properties["jobName"]["pattern"] == "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
    assert (properties["description"]["maxLength"], properties["listener"]["maxItems"]) == (65_536, 20)


def test_every_route_refuses_unknown_parameters_and_bodies_that_it_does_not_expect(api: Client) -> None:
    paths = api.get("openapi.json").json()["paths"]
    operations = [(method.upper(), path, one) for path, methods in paths.items() for method, one in methods.items()]
    assert len(operations) > 30
    for method, path, operation in operations:
        name = f"{method} {path}"
        address = "http://127.0.0.1" + with_words(path).replace("{item}", "0").replace("{attempt}", "1")
        takes_body = "requestBody" in operation
        required = {
            one["name"]: "1" if one["schema"].get("type") == "integer" else "0 * * * * ?"
            for one in operation.get("parameters", ())
            if one["in"] == "query" and one["required"]
        }
        answer = api.request(
            method, address, params={**required, "surplus": "1", "Limit": "2"}, json={} if takes_body else None
        )
        assert answer.status_code == 422, name
        assert {"surplus", "Limit"} == issues(answer).keys(), name
        if not takes_body:
            for body in (b"{}", b"x", iter([b"", b"x"])):
                answer = api.request(method, address, params=required, content=body)
                assert answer.status_code == 422, name
                assert {"body"} == issues(answer).keys(), name


@pytest.mark.parametrize("content", [b"", iter(()), iter([b""])])
def test_empty_body_is_no_body(api: Client, content: Any) -> None:
    assert api.request("GET", "jobs", content=content).status_code == 200
