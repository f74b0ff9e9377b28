"""Every answer has the security headers: of each route, of the guard, of the artifact server and of the listener."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from tests.api_kit import client_of, make_api, serving
from tests.attack_kit import dial, rest_of
from tests.tls_kit import Authority, server_tls

from jobcloud.server.api import Access, ApiOptions, create_artifacts
from jobcloud.server.api.headers import SECURITY_HEADERS, Https, SecurityHeaders
from jobcloud.server.console.paths import is_console
from jobcloud.server.listener import Limits
from jobcloud.server.packages import PackageStore
from jobcloud.server.routes import routes_of

WANTED = {name.decode(): value.decode() for name, value in SECURITY_HEADERS}
HSTS = "strict-transport-security"
# A stream of events never ends by itself. Its head is tested below.
_STREAMS = {"/api/v1/events", "/api/v1/changes"}


def missing(headers: httpx.Headers, *but: str) -> dict[str, str]:
    """The headers that an answer lacks or has with another value."""
    return {name: value for name, value in WANTED.items() if name not in but and headers.get(name) != value}


def requests_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route, with some text for each parameter."""
    for route in routes_of(app.routes):
        path = route.path.replace("{page:page}", "jobs")
        path = re.sub(r"{[a-z_]+(:[a-z]+)?}", "enable", path)
        if path not in _STREAMS:
            yield route.method, path


@pytest.mark.parametrize("token", ["", "right", "wrong"])
def test_every_answer_of_every_route_has_the_security_headers(tmp_path: Path, token: str) -> None:
    app = make_api(tmp_path, options=ApiOptions(access=Access(token="right")))
    found = list(requests_of(app))
    assert len(found) > 80
    with client_of(SecurityHeaders(app, Https()), token, strict=False, url="http://127.0.0.1") as client:
        for method, path in found:
            answer = client.request(method, path)
            is_page = answer.headers.get("content-type", "").startswith("text/html")
            is_file = path in ("/login/style.css", "/login/link.js")
            own: tuple[str, ...] = ("cache-control",) if is_file else ()
            if is_page:
                own = ("content-security-policy", "referrer-policy", *(("cache-control",) if is_console(path) else ()))
            assert missing(answer.headers, *own) == {}, (method, path, answer.status_code)
            assert [name for name in WANTED if len(answer.headers.get_list(name)) != 1] == [], (method, path)
            assert ("form-action 'self'" in answer.headers["content-security-policy"]) == is_page, (method, path)
            assert HSTS not in answer.headers
            assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/nowhere", "127.0.0.1", 404), ("/api/v1/jobs", "other.test", 421), ("/api/v1/health", "127.0.0.1", 503)],
)
def test_answers_outside_the_routes_have_them_too(tmp_path: Path, path: str, host: str, status: int) -> None:
    with serving(make_api(tmp_path)) as url:
        answer = httpx.get(url + path, headers={"Host": host}, trust_env=False)
    assert answer.status_code == status
    assert missing(answer.headers) == {}


def test_head_of_a_stream_has_them_once(tmp_path: Path) -> None:
    with serving(make_api(tmp_path)) as url, httpx.stream("GET", f"{url}/api/v1/events", trust_env=False) as answer:
        assert missing(answer.headers) == {}
        assert answer.headers.get_list("cache-control") == ["no-store"]


def test_artifact_server_has_them_and_lets_agents_keep_content(tmp_path: Path) -> None:
    zip_path = tmp_path / "executor.zip"
    zip_path.write_bytes(b"zip")
    app = create_artifacts(PackageStore(tmp_path / "packages"), ("e" * 64, zip_path))
    with serving(app) as url:
        content = httpx.get(f"{url}/{'e' * 64}/executor.zip", trust_env=False)
        assert missing(content.headers, "cache-control") == {}
        assert "immutable" in content.headers["cache-control"]
        assert missing(httpx.get(url, trust_env=False).headers) == {}


def test_answer_of_the_listener_itself_has_them(tmp_path: Path) -> None:
    with serving(make_api(tmp_path), Limits(head_bytes=100)) as url:
        head = rest_of(dial(url, b"GET / HTTP/1.1\r\nX: " + b"a" * 200)).partition(b"\r\n\r\n")[0]
    lines = head.decode().lower().split("\r\n")
    assert [name for name, value in WANTED.items() if f"{name}: {value}".lower() not in lines] == []


def test_browsers_that_use_https_are_told_to_stay_with_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    app = make_api(tmp_path)
    client = httpx.Client(verify=authority.trust(), trust_env=False)
    with serving(app, tls=server_tls(authority.issue()), https=Https(hsts_seconds=60)) as url, client:
        assert client.get(f"{url}/api/v1/health").headers[HSTS] == "max-age=60"


def test_clients_of_a_proxy_that_ends_tls_use_https(tmp_path: Path) -> None:
    with serving(make_api(tmp_path), https=Https(by_proxy=True, hsts_seconds=60)) as url:
        assert httpx.get(f"{url}/api/v1/health", trust_env=False).headers[HSTS] == "max-age=60"
    with serving(make_api(tmp_path), https=Https(hsts_seconds=60)) as url:
        assert HSTS not in httpx.get(f"{url}/api/v1/health", trust_env=False).headers


def test_page_keeps_its_own_policy() -> None:
    page = HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'self'"})
    answer = client_of(SecurityHeaders(page, Https())).get("/")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert missing(answer.headers, "content-security-policy") == {}
