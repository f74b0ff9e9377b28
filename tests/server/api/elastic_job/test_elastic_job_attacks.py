"""Hostile clients of Elastic-Job-Cloud's API: every answer is one that an old client can read, and nothing breaks."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api_kit import FakeLoop, app_body, client_of, make_api, package_bytes, serving
from tests.attack_kit import dial, rest_of, status_of
from tests.elastic_job_kit import ROUTES

from jobcloud.server.api import Access, ApiOptions

JSON = {"content-type": "application/json"}
# method and path of the routes with a body; the last two take a bare name
BODIES = [("POST", "app"), ("PUT", "app"), ("POST", "job/register"), ("PUT", "job/update"), ("POST", "login")]
NAMES = [("POST", "job/trigger"), ("DELETE", "job/deregister")]
JOB: dict[str, Any] = {
    "jobName": "victim",
    "appName": "demo",
    "jobClass": "hello:Hello",
    "jobType": "SIMPLE",
    "jobExecutionType": "TRANSIENT",
    "cron": "0/5 * * * * ?",
    "shardingTotalCount": 2,
    "cpuCount": 0.1,
    "memoryMB": 64.0,
}
FIELDS = [*JOB, "appURL", "bootstrapScript", "props", "jobProperties", "team", "shardingItemParameters", "failover"]


@pytest.fixture(scope="module")
def live_loop() -> FakeLoop:
    loop = FakeLoop()
    loop.subscribe()
    return loop


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, live_loop: FakeLoop) -> httpx.Client:
    """An API with an app and a job. An unexpected error fails the test."""
    api = client_of(make_api(tmp_path_factory.mktemp("live"), live_loop))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    ej = httpx.Client(transport=api._transport, base_url="http://127.0.0.1/api")
    assert ej.post("job/register", json=JOB).status_code == 204
    return ej


def check_readable(answer: httpx.Response) -> None:
    """An error is text or the JSON of 3.0.x, and short; it has no traceback."""
    assert answer.status_code in (200, 204, 401, 404, 405, 408, 413, 415, 500), answer.text
    if answer.status_code >= 400 and answer.status_code != 401 and answer.content:
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text
    assert len(answer.content) < 40_000
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    assert len(answer.headers.get("warning", "")) < 3_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b'{"a": NaN}',
        b'{"jobName": 1, "jobName": 2}',
        b"\xff\xfe",
        b'{"appName": "\\ud800"}',
        b'{"cpuCount": 1e999999999}',
        b'{"cpuCount": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x1f\x8b\x08\x00",
        b"jobName=foo_job&appName=demo",
    ],
)
def test_garbage_is_refused_with_a_text(live: httpx.Client, body: bytes) -> None:
    for method, path in BODIES[:-1]:
        answer = live.request(method, path, content=body, headers=JSON)
        check_readable(answer)
        assert answer.status_code == 500, f"{method} {path}"


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b" ",
        b"nobody",
        b"a" * 100_000,
        b"\xff",
        b"victim\x00",
        b"../victim",
        b"{}",
        b"victim victim",
        "工作".encode(),
    ],
)
def test_unknown_name_in_a_body_changes_nothing(live: httpx.Client, live_loop: FakeLoop, name: bytes) -> None:
    before = len(live_loop.scheduler.firings)
    for method, path in NAMES:
        answer = live.request(method, path, content=name, headers=JSON)
        check_readable(answer)
        assert answer.status_code == 500 if name == b"\xff" else "there is no job" in answer.headers["warning"]
    assert "victim" in live_loop.scheduler.jobs
    assert len(live_loop.scheduler.firings) == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 5000])
def test_form_of_a_web_page_is_refused(live: httpx.Client, kind: str) -> None:
    for method, path in (*BODIES, *NAMES):
        answer = live.request(method, path, content=json.dumps(JOB), headers={"content-type": kind})
        check_readable(answer)
        assert answer.status_code == 415


def test_huge_body_is_refused_with_or_without_a_declared_length(tmp_path: Path) -> None:
    with serving(make_api(tmp_path)) as url:
        for method, path in (*BODIES, *NAMES):
            chunks = (b" " * 65_536 for _ in range(40))
            answer = httpx.request(method, f"{url}/api/{path}", content=chunks, headers=JSON)
            assert answer.status_code == 413
            check_readable(answer)
        head = b"POST /api/job/trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        assert status_of(rest_of(dial(url, head + b"Content-Length: 9999999999\r\n\r\n"))) == 413


def test_slow_body_is_cut_off(tmp_path: Path) -> None:
    app = make_api(tmp_path, options=ApiOptions(access=Access(body_seconds=0.2)))
    with serving(app) as url:
        head = b"POST /api/job/trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        slow = dial(url, head + b"Content-Length: 100\r\n\r\nf")
        with slow.makefile("rb") as reader:
            answer = reader.read(4_000)
        slow.shutdown(socket.SHUT_RDWR)
        slow.close()
    assert status_of(answer) == 408
    assert b"took longer" in answer


def test_many_unknown_fields_make_a_short_warning(live: httpx.Client) -> None:
    body = (
        JOB | {f"unknown {number}": 1 for number in range(20_000)} | {"x" * 100_000: 1, '"\\\r\nSet-Cookie: a\x00é': 1}
    )
    answer = live.put("job/update", json=body)
    assert answer.status_code == 204
    check_readable(answer)
    assert "set-cookie" not in answer.headers
    assert answer.headers["warning"].isascii()
    assert answer.headers["warning"].isprintable()


@pytest.mark.parametrize(
    "name", ["nobody", "a" * 3000, "%00", "%ff", "..%2fvictim", "%E5%B7%A5", "%0d%0aSet-Cookie:a", "list"]
)
def test_unknown_name_in_a_path_is_answered(live: httpx.Client, name: str) -> None:
    for route in ROUTES:
        method, path = route.split()
        if "{" not in path:
            continue
        target = path[: path.index("{")] + name + path[path.index("}") + 1 :]
        answer = live.request(method, "http://127.0.0.1" + target)
        check_readable(answer)
        assert "set-cookie" not in answer.headers


def test_wrong_path_or_method_is_answered_with_a_text(live: httpx.Client) -> None:
    for method, path in (
        ("GET", "job"),
        ("GET", "app"),
        ("GET", "app/"),
        ("PATCH", "app/demo"),
        ("PUT", "job/register"),
        ("GET", "job/trigger"),
        ("GET", "operate"),
        ("GET", "login"),
        ("OPTIONS", "job/jobs"),
        ("GET", "app/demo/disable/x"),
    ):
        answer = live.request(method, path)
        assert answer.status_code in (404, 405), f"{method} {path}"
        check_readable(answer)
    assert live.get("http://127.0.0.1/api/apps").headers["content-type"] == "application/problem+json"


WRONG: tuple[Any, ...] = (None, 1, -1, 10**25, "", "x" * 70_000, [], {}, {"a": {}}, True, "1e5", "NaN", "٣")


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_type_is_refused_or_has_no_effect(live: httpx.Client, field: str) -> None:
    for value in WRONG:
        for method, path in (("PUT", "app"), ("POST", "job/register"), ("PUT", "job/update")):
            check_readable(live.request(method, path, json=JOB | {field: value}))
        of_3 = {name: one for name, one in JOB.items() if name not in ("jobType", "jobClass")} | {field: value}
        check_readable(live.put("job/update", json=of_3, headers={"accessToken": "any"}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
hostile = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@hostile
@given(changes=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=10), json_values, min_size=1, max_size=4))
def test_no_configuration_breaks_the_server(live: httpx.Client, live_loop: FakeLoop, changes: dict[str, Any]) -> None:
    for method, path in BODIES:
        check_readable(live.request(method, path, json=JOB | changes))
    live_loop.scheduler.validate()


@hostile
@given(
    body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    query=st.dictionaries(
        st.sampled_from(["since", "appName", "page", "sort", "startTime", "jobName"]), st.text(max_size=20)
    ),
)
def test_no_body_and_no_query_breaks_the_server(live: httpx.Client, body: bytes, query: dict[str, str]) -> None:
    for method, path in NAMES:
        check_readable(live.request(method, path, content=body, headers=JSON))
    for path in (
        "job/events/executions",
        "job/statistics/tasks/results",
        "job/statistics/tasks/running",
        "operate/sandbox",
    ):
        check_readable(live.get(path, params=query))
