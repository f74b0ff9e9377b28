"""HTTP jobs: one request each, to nowhere but where they may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from executor_kit import Ended, FakeAgent, Start
from jobcloud.executor.http_job import Refused, check_address

pytest_plugins = ["executor_kit.fixtures"]


class Server:
    """Answers by path: /200, /404, /302 (to /200), /never."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.never = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append(
                    {"method": self.command, "path": self.path, "headers": self.headers, "body": body.decode()}
                )
                what = self.path.partition("?")[0].strip("/")
                if what == "never":
                    outer.never.wait(60)
                    return
                self.send_response(int(what))
                self.send_header("Location", "/200")
                self.end_headers()
                self.wfile.write(b"said the server\n")

            do_GET = do_POST = answer  # noqa: N815 - as the base class has it

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.never.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def call(agent: FakeAgent, uri: str, **job: Any) -> Ended:
    agent.launch("h1", parameter="süd", jobType="HTTP", httpUri=uri, **job)
    return agent.end("h1")


def test_an_http_job_asks_with_its_shard_in_a_header(
    agent: FakeAgent, start: Start, server: Server, python: str
) -> None:
    executor = start(python=python)
    end = call(agent, server.url + "/200?a=b", httpMethod="POST", httpData='{"ä":1}')
    assert end.state == "TASK_FINISHED", end
    (asked,) = server.asked
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/200?a=b", '{"ä":1}')
    assert asked["headers"]["Content-Type"] == "application/json"
    assert json.loads(asked["headers"]["shardingContext"])["shardingParameter"] == "süd"
    facts = [asked["headers"]["X-Jobcloud-" + name] for name in ("Run-Id", "Attempt", "Fence")]
    assert facts == ["run-h1", "2", "7"]
    assert asked["headers"]["Host"] == server.url.removeprefix("http://")
    assert executor.output("h1") == "200 OK\nsaid the server\n"


@pytest.mark.parametrize(("path", "says"), [("/404", "404 Not Found"), ("/503", "503"), ("/302", "302 Found")])
def test_an_answer_that_is_no_success_is_a_failure(
    agent: FakeAgent, start: Start, server: Server, path: str, says: str
) -> None:
    start()
    end = call(agent, server.url + path)
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "exit_code", 1)
    assert says in end.message
    assert len(server.asked) == 1


def test_a_server_that_does_not_answer_is_not_waited_for(agent: FakeAgent, start: Start, server: Server) -> None:
    start()
    assert "timed out" in call(agent, server.url + "/never", httpReadTimeoutMilliseconds=100).message


def test_an_http_job_can_be_killed_and_timed_out(agent: FakeAgent, start: Start, server: Server) -> None:
    start()
    assert call(agent, server.url + "/never", timeoutSeconds=0.5, httpReadTimeoutMilliseconds=60_000).cause == "timeout"


def test_a_server_that_is_not_there_is_a_failure_with_the_reason(agent: FakeAgent, start: Start) -> None:
    start()
    assert "refused" in call(agent, "http://127.0.0.1:1/").message


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::ffff:127.0.0.1"]
)
def test_a_name_must_not_lead_to_an_agents_own_addresses(address: str) -> None:
    with pytest.raises(Refused, match="another machine on each agent"):
        check_address("orders.example.org", address)
    check_address(address, address)


def test_a_name_may_lead_to_any_other_address() -> None:
    for address in ("10.0.0.7", "2001:db8::1"):
        check_address("orders.example.org", address)
