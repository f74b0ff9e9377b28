"""The time of a master, from the header Date of its answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)


from jobcloud.adapters.mesos.driver import MesosSettings, master_time
from jobcloud.adapters.mesos.link import Address, Dialer, Session
from jobcloud.dev.tcp_ports import free_port

# As a master of Mesos 1.11 sends it.
DATE, DATE_MS = "Mon, 30 Nov 2026 16:04:28 GMT", 1_796_054_668_000


class Dated(HTTPServer):
    """Answers every request with one Date."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.date = DATE
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Dated

    def do_GET(self) -> None:
        self.send_response_only(503)
        if self.server.date:
            self.send_header("Date", self.server.date)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name is that of the library


@pytest.fixture
def master() -> Iterator[Dated]:
    server = Dated()
    yield server
    server.shutdown()
    server.server_close()


def test_time_of_a_master_is_known_before_the_subscription(master: Dated) -> None:
    assert master_time(MesosSettings(f"127.0.0.1:{free_port()},{master.address}")) == DATE_MS


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 16:04:28 GMT", "x" * 5_000])
def test_time_of_a_master_without_a_date_is_unknown(master: Dated, date: str) -> None:
    master.date = date
    assert master_time(MesosSettings(str(master.address))) is None


def test_time_of_unreachable_masters_and_those_in_zookeeper_is_unknown() -> None:
    assert master_time(MesosSettings(f"127.0.0.1:{free_port()}")) is None
    assert master_time(MesosSettings("zk://127.0.0.1:1/mesos")) is None


def test_each_subscription_tells_the_time_of_the_master(master: Dated) -> None:
    heard: list[int] = []
    session = Session(master.address, Dialer(timeout_s=30.0, heard=heard.append))
    assert session.open(b"{}") == 503
    session.close()
    assert heard == [DATE_MS]
