"""HTTP jobs: one request each, to allowed addresses only."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.executor_kit import Ended, FakeAgent, Start, task_payload

from jobcloud.executor.http_job import Refused, check_address, send

pytest_plugins = ["tests.executor_kit.fixtures"]


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
                status = self.path.partition("?")[0].strip("/")
                if status == "never":
                    outer.never.wait(60)
                    return
                self.send_response(int(status))
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


def test_http_job_sends_its_shard_in_a_header(agent: FakeAgent, start: Start, server: Server, python: str) -> None:
    executor = start(python=python)
    end = call(agent, server.url + "/200?a=b", httpMethod="POST", httpData='{"ä":1}', team="billing")
    assert end.state == "TASK_FINISHED", end
    (asked,) = server.asked
    assert (asked["method"], asked["path"], asked["body"]) == ("POST", "/200?a=b", '{"ä":1}')
    assert asked["headers"]["Content-Type"] == "application/json"
    assert json.loads(asked["headers"]["shardingContext"])["shardingParameter"] == "süd"
    facts = [asked["headers"]["X-Jobcloud-" + name] for name in ("Run-Id", "Attempt", "Fence", "Team")]
    assert facts == ["run-h1", "2", "7", "billing"]
    assert asked["headers"]["Host"] == server.url.removeprefix("http://")
    assert executor.output("h1") == "200 OK\nsaid the server\n"


def test_http_job_sends_the_span_of_its_attempt(agent: FakeAgent, start: Start, server: Server) -> None:
    start()
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    payload = task_payload("h1", jobType="HTTP", httpUri=server.url + "/200") | {"traceparent": traceparent}
    agent.launch("h1", payload)
    assert agent.end("h1").state == "TASK_FINISHED"
    (asked,) = server.asked
    assert asked["headers"]["traceparent"] == traceparent


@pytest.mark.parametrize(("path", "says"), [("/404", "404 Not Found"), ("/503", "503"), ("/302", "302 Found")])
def test_http_answer_outside_2xx_fails_the_job(
    agent: FakeAgent, start: Start, server: Server, path: str, says: str
) -> None:
    start()
    end = call(agent, server.url + path)
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "exit_code", 1)
    assert says in end.message
    assert len(server.asked) == 1


def test_silent_server_fails_the_http_job_after_its_read_timeout(
    agent: FakeAgent, start: Start, server: Server
) -> None:
    start()
    assert "timed out" in call(agent, server.url + "/never", httpReadTimeoutMilliseconds=100).message


def test_http_job_can_be_killed_and_timed_out(agent: FakeAgent, start: Start, server: Server) -> None:
    start()
    assert call(agent, server.url + "/never", timeoutSeconds=0.5, httpReadTimeoutMilliseconds=60_000).cause == "timeout"


def test_unreachable_server_fails_the_http_job_with_the_reason(agent: FakeAgent, start: Start) -> None:
    start()
    assert "refused" in call(agent, "http://127.0.0.1:1/").message


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_host_name_that_resolves_to_the_agent_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="not the same machine everywhere"):
        check_address("orders.example.org", address)
    check_address(address, address)


def test_host_name_may_resolve_to_any_other_address() -> None:
    for address in ("10.0.0.7", "2001:db8::1", "64:ff9b::a00:7"):
        check_address("orders.example.org", address)


class Network:
    """A host name that resolves differently each time, and a record of the connections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers, self.connected = list(answers), list[tuple[str, int]]()
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(socket, "create_connection", self.connect)

    def look_up(self, host: str, port: int, **more: Any) -> list[Any]:
        assert host == "orders.example.org"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)]

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.connected.append(address)
        raise ConnectionRefusedError("nobody there")


REQUEST = {"uri": "http://orders.example.org:81/", "method": "GET", "data": "", "connectTimeout": 1, "readTimeout": 1}


def test_checked_address_is_used_even_if_the_name_resolves_differently_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(monkeypatch, ["192.0.2.7", "192.0.2.8"], ["127.0.0.1"])
    with pytest.raises(ConnectionRefusedError):
        send(REQUEST, {})
    assert network.connected == [("192.0.2.7", 81), ("192.0.2.8", 81)]
    assert network.answers == [["127.0.0.1"]], "resolved once"


def test_host_name_with_one_forbidden_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, ["192.0.2.7", "169.254.169.254"])
    with pytest.raises(Refused):
        send(REQUEST, {})
    assert network.connected == []
