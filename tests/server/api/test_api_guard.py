"""Access to the API, limits of bodies, and answers to hostile requests."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api_kit import FakeLoop, app_body, client_of, job_body, make_api, package_bytes, serving
from tests.attack_kit import dial, first_status

from jobcloud.errors import ConfigError
from jobcloud.messages import Publish, Topic
from jobcloud.server.api import Access, ApiOptions, Notices, create_api
from jobcloud.server.packages import PackageStore
from jobcloud.server.urls import UrlPolicy

TOKEN = "t0ken-of-the-test"


def guarded(tmp_path: Path, loop: FakeLoop | None = None, **access: Any) -> Any:
    options = ApiOptions(access=Access(**{"token": TOKEN, **access}))
    return make_api(tmp_path, loop or FakeLoop(), options=options)


def slug(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["type"]).rpartition(":")[2]


def every_operation(api: httpx.Client) -> list[tuple[str, str]]:
    paths = api.get("openapi.json").json()["paths"]
    return [
        (method.upper(), path.removeprefix("/api/v1/"))
        for path, methods in paths.items()
        for method in methods
        if not path.endswith(("/health", "/sign-in", "/hooks/{job}"))
    ]


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN},{TOKEN}", "Bearer t\xf6ken",
    ],
)  # fmt: skip
def test_every_route_but_the_open_ones_refuses_a_wrong_token(tmp_path: Path, header: str | None) -> None:
    api = client_of(guarded(tmp_path))
    headers = [(b"authorization", header.encode("latin-1"))] if header is not None else []
    for method, path in every_operation(api):
        answer = api.request(method, path, headers=headers)
        assert answer.status_code == 401, f"{method} {path}"
        assert slug(answer) == "unauthenticated"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text


def test_health_and_the_openapi_document_are_open_to_all(tmp_path: Path) -> None:
    api = client_of(guarded(tmp_path))
    assert api.get("health").status_code == 503
    assert api.get("openapi.json").status_code == 200
    assert api.get("health/").status_code == 401


def test_right_token_is_accepted_and_two_tokens_are_not(tmp_path: Path) -> None:
    app = guarded(tmp_path)
    assert client_of(app, TOKEN).get("jobs").status_code == 200
    both = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]
    assert client_of(app).get("jobs", headers=both).status_code == 401


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8899", "localhost:1", "LOCALHOST", "[::1]:8899", "ops.test:80"]
)
def test_loopback_and_configured_host_names_are_accepted(tmp_path: Path, host: str) -> None:
    api = client_of(guarded(tmp_path, hosts=("Ops.Test",)), TOKEN)
    assert api.get("jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test:8899", "evil.test:127.0.0.1", ""]
)
def test_foreign_host_name_is_refused_even_for_health(tmp_path: Path, host: str) -> None:
    api = client_of(guarded(tmp_path), TOKEN)
    for path in ("jobs", "health"):
        answer = api.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert slug(answer) == "misdirected"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        "http://127.0.0.1:9",
        "http://127.0.0.1.evil.test",
        "",
        "http://[",
        "http://[::1",
        "//[x]",
    ],
)
def test_page_of_another_origin_cannot_write(tmp_path: Path, origin: str) -> None:
    loop = FakeLoop()
    api = client_of(guarded(tmp_path, loop), TOKEN)
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    answer = api.post("apps", json=app_body(sha256), headers={"origin": origin})
    assert answer.status_code == 403
    assert slug(answer) == "forbidden-origin"
    assert not loop.scheduler.apps


def test_pages_of_the_server_and_of_configured_origins_can_write(tmp_path: Path) -> None:
    api = client_of(guarded(tmp_path, origins=("https://ops.test",)), TOKEN)
    for origin in ("http://127.0.0.1", "https://ops.test"):
        assert api.post("packages", content=package_bytes(), headers={"origin": origin}).status_code == 201


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "ops.test", ""])
def test_api_without_a_token_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    packages = PackageStore(tmp_path / "packages")
    with pytest.raises(ConfigError, match="token"):
        create_api(FakeLoop(), packages, ApiOptions(host=host))
    create_api(FakeLoop(), packages, ApiOptions(host=host, access=Access(token=TOKEN)))


def test_token_is_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loop = FakeLoop()
    api = client_of(guarded(tmp_path, loop), TOKEN, strict=False)
    loop.failure = RuntimeError("broken")
    with caplog.at_level(0):
        api.delete("jobs/x")
        client_of(guarded(tmp_path / "b"), TOKEN + "x").get("jobs")
    assert "broken" in caplog.text
    assert TOKEN not in caplog.text


# ------------------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "line 1"),
        (b"[]", "must be a JSON object, not an array"),
        (b"null", "not null"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": 1e999999999}', "range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "range"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 50_000, "nested"),
        (b"[[[[" * 20 + b'"' + b"]" * 70, "nested"),
        (b'{"cpuCount": 1e99999999999999999999}', "out of range"),
        (b'{"cpuCount": 1E-99999999999999999999}', "out of range"),
        (b'{"cpuCount": -0.1e+999999999999999999999}', "out of range"),
    ],
)
def test_malformed_json_is_refused_with_the_reason(tmp_path: Path, body: bytes, says: str) -> None:
    answer = client_of(make_api(tmp_path)).post("jobs", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, slug(answer)) == (400, "malformed-json")
    assert says in answer.json()["detail"]


def test_body_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(job_body(jobz=1)).encode()
    answer = client_of(make_api(tmp_path)).post("jobs", content=body, headers={"content-type": "application/json"})
    assert [issue["field"] for issue in answer.json()["errors"]] == ["jobz"]


@pytest.mark.parametrize("known", ["known field", "jobNam"])
def test_many_unknown_fields_are_reported_in_a_short_answer(tmp_path: Path, known: str) -> None:
    body = job_body() | {f"{known} {number}": 1 for number in range(20_000)} | {"x" * 10_000: 1}
    answer = client_of(make_api(tmp_path)).post("jobs", json=body)
    assert slug(answer) == "invalid"
    errors = answer.json()["errors"]
    assert len(errors) == 101
    assert errors[-1]["problem"] == "19901 more fields are not known"
    fixes = " ".join(error["fix"] for error in errors)
    assert fixes.count("shardingItemParameters") <= 1, "the known fields are named once"
    assert len(answer.content) < 40_000


def test_unknown_fields_of_an_object_in_the_body_are_limited_too(tmp_path: Path) -> None:
    listener = {"class": "s:S"} | {f"field {number}": 1 for number in range(20_000)}
    answer = client_of(make_api(tmp_path)).post("jobs", json=job_body(distributedListener=listener))
    assert len(answer.json()["errors"]) == 101
    assert answer.json()["errors"][0]["field"].startswith("distributedListener.field ")


def test_many_unknown_parameters_are_reported_in_a_short_answer(tmp_path: Path) -> None:
    answer = client_of(make_api(tmp_path)).get("tasks?" + "&".join(f"a{number}" for number in range(5_000)))
    assert slug(answer) == "invalid"
    assert len(answer.json()["errors"]) == 101


def test_brackets_in_strings_do_not_count_as_nesting(tmp_path: Path) -> None:
    body = json.dumps(job_body(description="[{" * 1000 + '\\"', jobz=1))
    answer = client_of(make_api(tmp_path)).post("jobs", content=body, headers={"content-type": "application/json"})
    assert [issue["field"] for issue in answer.json()["errors"]] == ["jobz"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_content_types_are_refused(tmp_path: Path, kind: str) -> None:
    answer = client_of(make_api(tmp_path)).post("jobs", content=b"{}", headers={"content-type": kind})
    assert slug(answer) == "unsupported-media-type"
    answer = client_of(make_api(tmp_path)).post("packages", content=b"x", headers={"content-type": "text/html"})
    assert slug(answer) == "unsupported-media-type"


def test_body_over_the_limit_is_refused_with_or_without_a_declared_length(tmp_path: Path) -> None:
    api = client_of(make_api(tmp_path, options=ApiOptions(access=Access(max_upload_bytes=2 << 20))))
    json_type = {"content-type": "application/json"}
    assert slug(api.post("jobs", content=b" " * (1 << 20) + b"x", headers=json_type)) == "too-large"
    assert slug(api.post("packages", content=b" " * (2 << 20) + b"x")) == "too-large"
    with serving(make_api(tmp_path / "b")) as url:
        chunks = (b" " * 65_536 for _ in range(100))
        answer = httpx.post(f"{url}/api/v1/jobs", content=chunks, headers=json_type)
        assert slug(answer) == "too-large"


def test_slow_body_is_cut_off(tmp_path: Path) -> None:
    app = make_api(tmp_path, options=ApiOptions(access=Access(body_seconds=0.2)))
    with serving(app) as url, socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=10) as slow:
        slow.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        with slow.makefile("rb") as reader:
            answer = reader.read(4_000)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"urn:jobcloud:problem:timeout" in answer


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *job_body(),
    "appURL",
    "packageSha256",
    "jobProperties",
    "timeZone",
    "beanName",
    "idleTimeoutSeconds",
    "dstGap",
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    """An API with an app and a job. An unexpected error fails the test."""
    api = client_of(make_api(tmp_path_factory.mktemp("live")))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    return api


hostile = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@hostile
@given(changes=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=10), json_values, min_size=1, max_size=4))
def test_no_configuration_breaks_the_server(live: httpx.Client, changes: dict[str, Any]) -> None:
    for method, path in (("PUT", "jobs/hello"), ("POST", "apps")):
        answer = live.request(method, path, json=job_body(**changes))
        assert answer.status_code in (200, 201, 400, 404, 409, 422), answer.text
        if answer.status_code >= 400:
            assert slug(answer)


@hostile
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_body_breaks_the_server(live: httpx.Client, body: bytes) -> None:
    for path in ("jobs", "packages", "framework/teardown"):
        kind = "application/octet-stream" if path == "packages" else "application/json"
        answer = live.post(path, content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500 or answer.status_code == 503, answer.text
        assert slug(answer)


@hostile
@given(
    path=st.lists(
        st.sampled_from(["jobs", "hello", "tasks", "..", ".", "logs", "runs", "", "%00", "%2f", "é", "a" * 300])
    ),
    query=st.dictionaries(st.sampled_from(["cursor", "limit", "item", "cron", "zone", "after"]), st.text(max_size=20)),
)
def test_no_path_or_query_breaks_the_server(live: httpx.Client, path: list[str], query: dict[str, str]) -> None:
    for target in ("/".join(path), "cron/next", "tasks"):
        answer = live.get("http://127.0.0.1/api/v1/" + target, params=query)
        assert answer.status_code < 500 or target.endswith(("events", "logs")), answer.text


# -------------------------------------------------------------------------------------------------------- live only


def test_events_reach_a_listener_until_the_server_ends(tmp_path: Path) -> None:
    notices = Notices()
    app = make_api(tmp_path, notices=notices)
    with serving(app) as url, httpx.stream("GET", f"{url}/api/v1/events", timeout=10) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(lines).startswith("id: ")
        notices.publish(Publish(1, Topic.FIRED, "hello fired\nagain", job="hello"))
        found = [line for line in (next(lines) for _ in range(4)) if line]
        assert found[1] == "event: fired"
        assert json.loads(found[2].removeprefix("data: "))["text"] == "hello fired\nagain"
        notices.close()
        assert [line for line in lines if line] == []


def test_many_clients_at_once_are_answered(tmp_path: Path) -> None:
    app = make_api(tmp_path)

    async def ask(url: str) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            answers = await asyncio.gather(*(client.get("/api/v1/jobs") for _ in range(100)))
            return [answer.status_code for answer in answers]

    with serving(app) as url:
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.extend(asyncio.run(ask(url)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == [200] * 200


def test_health_is_answered_while_all_threads_wait_for_the_scheduler(tmp_path: Path) -> None:
    loop, release, entered = FakeLoop(), threading.Event(), threading.Semaphore(0)
    ask = loop.ask

    def wait(fn: Any, timeout: float = 5) -> Any:
        entered.release()
        release.wait()
        return ask(fn)

    loop.ask = wait  # type: ignore[method-assign]
    request = b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(make_api(tmp_path, loop)) as url:
        waiting = [dial(url, request) for _ in range(20)]
        for _ in range(4):
            assert entered.acquire(timeout=60)
        assert httpx.get(f"{url}/api/v1/health", trust_env=False, timeout=60).status_code == 503
        assert not entered.acquire(blocking=False), "calls that compute share four threads"
        release.set()
        assert [first_status(one) for one in waiting] == [200] * 20
        for one in waiting:
            one.close()


def test_reads_beyond_those_that_wait_are_refused(tmp_path: Path) -> None:
    loop, release = FakeLoop(), threading.Event()
    ask = loop.ask

    def wait(fn: Any, timeout: float = 5) -> Any:
        release.wait()
        return ask(fn)

    loop.ask = wait  # type: ignore[method-assign]
    request = b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(make_api(tmp_path, loop)) as url:
        waiting = [dial(url, request) for _ in range(206)]
        refused, _, _ = select.select(waiting, [], [], 60)
        assert first_status(refused[0]) == 429
        release.set()
        answers = [first_status(one) for one in waiting if one not in refused]
        assert 200 <= answers.count(200) <= 204
        for one in waiting:
            one.close()


def test_requests_in_progress_are_answered_when_the_server_stops(tmp_path: Path) -> None:
    loop, release = FakeLoop(), threading.Event()

    def wait(fn: Any, timeout: float = 5) -> Any:
        release.wait()
        raise TimeoutError

    loop.ask = wait  # type: ignore[method-assign]
    request = b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        with serving(make_api(tmp_path, loop)) as url:
            waiting = [dial(url, request) for _ in range(8)]
            assert httpx.get(f"{url}/api/v1/health", trust_env=False, timeout=60).status_code == 503
        assert {first_status(one) for one in waiting[4:]} == {503}
    finally:
        release.set()
    for one in waiting:
        one.close()


def test_slow_fetches_of_packages_leave_the_threads_to_other_calls(tmp_path: Path) -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    class SlowOrigin:
        def obtain(self, package: object) -> None:
            entered.release()
            release.wait()

    app = make_api(tmp_path, options=ApiOptions(urls=UrlPolicy(hosts=("files.test",))), origin=SlowOrigin())
    with serving(app) as url:
        calls = []
        for number in range(4):
            config = app_body("", f"app{number}", appURL="http://files.test/x.zip", packageSha256="a" * 64)
            body = json.dumps(config).encode()
            head = b"POST /api/v1/apps HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            calls.append(dial(url, head + b"Content-Length: %d\r\n\r\n" % len(body) + body))
        for _ in calls:
            assert entered.acquire(timeout=60)
        assert httpx.get(f"{url}/api/v1/jobs", trust_env=False, timeout=60).status_code == 200
        release.set()
        assert [first_status(call) for call in calls] == [201] * 4
        for call in calls:
            call.close()
