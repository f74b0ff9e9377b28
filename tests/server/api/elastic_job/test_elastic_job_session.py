"""The recorded session of old clients (session.txt), replayed on a server, line by line on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import pytest
from tests.api_kit import FakeLoop, make_api, package_bytes, serving
from tests.elastic_job_kit import ROUTES
from tests.history_kit import START as HISTORY
from tests.history_kit import make_attempt
from tests.origin_kit import Server

from jobcloud.history.database import Database
from jobcloud.history.elastic_job_search import ElasticJobSearch
from jobcloud.history.elastic_job_statistics import ElasticJobStatistics
from jobcloud.history.queries import Reader
from jobcloud.history.registrations import Registrations
from jobcloud.history.rows import of_events
from jobcloud.server.api import ApiOptions, ElasticJobOptions
from jobcloud.server.api.elastic_job.routes import PREFIX, routes
from jobcloud.server.urls import UrlPolicy

SESSION = Path(__file__).with_name("session.txt")
WITH_HISTORY = Path(__file__).with_name("session_history.txt")


@dataclass
class Message:
    """A request or an answer: the first line, headers, and a body."""

    first: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    @classmethod
    def read(cls, lines: list[str]) -> Message:
        end = lines.index("") if "" in lines else len(lines)
        headers = dict(line.split(": ", 1) for line in lines[1:end])
        return cls(lines[0], headers, "\n".join(lines[end + 1 :]))


@dataclass
class Step:
    """An exchange, or an event in the cluster."""

    title: str = ""
    event: str = ""
    request: Message = field(default_factory=Message)
    answer: Message = field(default_factory=Message)


def steps(text: str) -> Iterator[Step]:
    for block in re.split(r"\n(?=== |! )", text)[1:]:
        title, *lines = block.rstrip("\n").split("\n")
        if title.startswith("! "):
            yield Step(event=title[2:])
            continue
        sent, got = ([line[2:] for line in lines if line.startswith(sign)] for sign in "><")
        assert len(sent) + len(got) == len([line for line in lines if line]), f"a line of {title} has no sign"
        yield Step(title[3:], "", Message.read(sent), Message.read(got))


def exchange(connection: HTTPConnection, request: Message) -> Message:
    method, target, _ = request.first.split(" ")
    body = request.body.encode() if request.body else None
    connection.request(method, target, body, request.headers)
    answer = connection.getresponse()
    return Message(str(answer.status), dict(answer.getheaders()), answer.read().decode())


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Cluster:
    """The events of the session."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop

    def happen(self, event: str) -> None:
        if event == "launch":
            self._loop.offer()
            assert self._loop.tick()
        elif event == "lose":
            lost = next(id_ for id_ in self._loop.scheduler.tasks if id_.startswith("foo_job@-@0"))
            self._loop.update(lost, "TASK_RUNNING")
            self._loop.update(lost, "TASK_LOST")
        else:
            assert event == "ten seconds"
            self._loop.now += 10_000

    def executor(self, app: str) -> str:
        return next((one.id for one in self._loop.scheduler.executors.values() if one.app == app), "")


@pytest.fixture
def files() -> Iterator[Server]:
    server = Server({"/foo-job.tar.gz": package_bytes()})
    yield server
    server.close()


def test_recorded_session_is_answered_as_recorded(tmp_path: Path, files: Server) -> None:
    loop = FakeLoop()
    loop.subscribe()
    options = ApiOptions(urls=UrlPolicy(("127.0.0.1",)), elastic_job=ElasticJobOptions(zone="Asia/Shanghai"))
    cluster = Cluster(loop)
    app = make_api(tmp_path, loop, options=options, clock=lambda: loop.now)
    with serving(app) as url, closing(HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=60)) as connection:
        for step in steps(SESSION.read_text()):
            if step.event:
                cluster.happen(step.event)
                continue
            check(connection, step, {"files": files.url, "my_executor": cluster.executor("my_app")})
    assert not loop.scheduler.apps
    assert not loop.scheduler.jobs
    loop.scheduler.validate()


def test_recorded_session_with_a_history_is_answered_as_recorded(tmp_path: Path) -> None:
    """The history has the attempts of foo_job in two minutes, and an attempt of another team."""
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    loop = FakeLoop()
    loop.now = now = HISTORY + 7_200_000
    at = now - 65_000
    ended = [
        make_attempt(1, job="foo_job", created_ms=at - 9_000, started_ms=at, at=at, message="boom", state="FAILED"),
        make_attempt(2, job="foo_job", created_ms=at, started_ms=at + 1_000, at=at + 3_000, item=1),
        make_attempt(3, job="foo_job", created_ms=at - 5_400_000, started_ms=at - 5_300_000, at=at + 5_000, item=2),
        make_attempt(4, job="bar_job", created_ms=HISTORY - 60_000, started_ms=HISTORY - 50_000, at=HISTORY - 1),
        make_attempt(5, job="billing:foo_job", created_ms=at, started_ms=at, at=at + 1_000),
    ]
    began = make_attempt(2, job="foo_job", started_ms=at + 1_000, at=at + 1_000, item=1, state="RUNNING", ended=False)
    database.write(of_events([began, *ended]))
    Registrations(lambda: 3, lambda: now - 86_400_000).run(database)
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    options = ApiOptions(elastic_job=ElasticJobOptions(zone="Asia/Shanghai"))
    searches, statistics = ElasticJobSearch(reader), ElasticJobStatistics(reader, lambda: now)
    app = make_api(tmp_path, loop, options=options, clock=lambda: now, traces=searches, statistics=statistics)
    with serving(app) as server, closing(HTTPConnection("127.0.0.1", urlsplit(server).port, timeout=60)) as connection:
        for step in steps(WITH_HISTORY.read_text()):
            check(connection, step, {})
    reader.close()


def check(connection: HTTPConnection, step: Step, names: dict[str, str]) -> None:
    """Send the request of a step, and compare its answer."""
    step.request.body = Template(step.request.body).substitute(names)
    found = exchange(connection, step.request)
    assert (found.first, found.body) == (step.answer.first, Template(step.answer.body).substitute(names)), step.title
    listed = lower(step.answer.headers) | {"warning": step.answer.headers.get("Warning", "")}
    assert listed == {"warning": ""} | {
        name: value for name, value in lower(found.headers).items() if name in listed
    }, step.title


def pattern(route: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", route) + r"(\?.*)?")


def requests() -> list[str]:
    return [step.request.first.removesuffix(" HTTP/1.1") for step in steps(SESSION.read_text()) if step.title]


@pytest.mark.parametrize("route", ROUTES)
def test_route_of_the_original_is_in_the_session(route: str) -> None:
    others = [pattern(other) for other in ROUTES if "{" not in other and other != route]
    mine = [
        asked
        for asked in requests()
        if pattern(route).fullmatch(asked) and not any(other.fullmatch(asked) for other in others)
    ]
    assert mine


def test_server_has_the_routes_of_the_original_and_no_others() -> None:
    here = {f"{route.method} {route.path}" for declared in routes() for route in declared.placed(PREFIX, ())}
    assert here == set(ROUTES)
