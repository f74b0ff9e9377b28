"""A standby answers reads from the stored state, and passes everything else on to the leader."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.api_kit import FakeLoop, app_body, job_body, make_api, package_bytes, serving
from tests.audit_kit import FakeDisk, auditing
from tests.tls_kit import Authority, server_tls

from jobcloud.access import tokens
from jobcloud.errors import StoreError
from jobcloud.messages import Kind, Publish, PutAccess, Topic
from jobcloud.model import EVERY_TEAM, AccessToken, Member, Team, User
from jobcloud.ports import LastingStore, StoredRecords
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server import records
from jobcloud.server.api import Access, ApiOptions, Notices
from jobcloud.server.api.replica import Replica, ReplicatedLoop
from jobcloud.server.api.standby import Standby
from jobcloud.server.identity.passwords import hash_password
from jobcloud.server.identity.sessions import NOTE_MS, SessionOptions
from jobcloud.server.tls import peer_context

TOKEN = "t0ken-of-both"
AGE = "jobcloud-standby-age-ms"


class SharedState:
    """The store, as a leader with a `FakeLoop` would have written it."""

    def __init__(self, leader: FakeLoop) -> None:
        self._leader = leader
        self.reads = 0
        self.failing = False

    def snapshot(self) -> StoredRecords:
        self.reads += 1
        if self.failing:
            raise StoreError("out of reach")
        scheduler = self._leader.scheduler
        tables: dict[Kind, Any] = {
            Kind.APP: scheduler.apps,
            Kind.JOB: {key: job for key, job in scheduler.jobs.items() if not job.ad_hoc},
            Kind.AD_HOC: scheduler.ad_hoc,
            Kind.JOB_STATE: {key: state for key, state in scheduler.job_states.items() if key not in scheduler.ad_hoc},
            Kind.FIRING: scheduler.firings,
            Kind.TASK: scheduler.tasks,
            Kind.USER: scheduler.directory.users,
            Kind.SESSION: scheduler.directory.sessions,
            Kind.TEAM: scheduler.directory.teams,
            Kind.ACCESS_TOKEN: scheduler.directory.tokens,
        }
        found = StoredRecords()
        for kind, table in tables.items():
            found.records[kind] = {key: records.encode(kind, record) for key, record in table.items()}
        return found

    def close(self) -> None:
        pass


class Group:
    """A leader and a standby, each with an API. Only the leader's loop has a state; `now` is the standby's clock."""

    def __init__(self, folder: Path) -> None:
        self.leading = FakeLoop()
        self.leading.subscribe()
        self.notices = Notices()
        self.state = SharedState(self.leading)
        self.address = ""
        self.waits = True
        self.now = 0.0
        self.folder = folder
        self.replica = Replica(
            self.store,
            lambda stored, epoch, at: Scheduler(Policy(self.leading.scheduler.policy.artifacts), stored, epoch, at),
            now_ms=lambda: self.leading.now,
            monotonic=lambda: self.now,
        )

    def store(self) -> LastingStore:
        return self.state  # type: ignore[return-value]

    def leader(self, **more: Any) -> Any:
        options = ApiOptions(access=Access(token=TOKEN), **more.pop("options", {}))
        clock = {"clock": lambda: self.leading.now}
        return make_api(self.folder / "leader", self.leading, options=options, notices=self.notices, **clock, **more)

    def standby(self, **access: Any) -> Any:
        tls = access.pop("tls", ssl.create_default_context)
        standby = Standby(lambda: self.waits, lambda: self.address, self.replica, tls)
        own = FakeLoop()
        own.failure = AssertionError("the standby's own scheduler was given a command")
        more = {"client_name": access.pop("client_name", None)} | access.pop("options", {})
        options = ApiOptions(access=Access(**{"token": TOKEN} | access), **more)
        loop: Any = ReplicatedLoop(own)
        return make_api(self.folder / "standby", loop, options=options, standby=standby, clock=lambda: self.leading.now)


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


def client(url: str, token: str = TOKEN, **more: Any) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
    return httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=20, **more)


@pytest.fixture
def pair(group: Group) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the leader and of the standby."""
    with serving(group.leader()) as leader, serving(group.standby()) as standby:
        group.address = leader
        with client(leader) as of_leader, client(standby) as of_standby:
            yield of_leader, of_standby


def register(api: httpx.Client, *jobs: str) -> None:
    stored = api.post("packages", content=package_bytes())
    assert stored.status_code == 201, stored.text
    assert api.post("apps", json=app_body(stored.json()["sha256"])).status_code == 201
    for job in jobs:
        assert api.post("jobs", json=job_body(job)).status_code == 201


def test_reads_are_answered_from_the_store_while_no_leader_is_known(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    leader, standby = pair
    register(leader, "hello")
    group.leading.tick(6_000)
    group.leading.offer()
    tasks = group.leading.tick()
    run = leader.get("runs").json()["items"][0]["id"]
    group.address = ""
    paths = ["apps", "apps/demo", "jobs", "jobs/hello", "runs", f"runs/{run}", f"runs/{run}/shards/0"]
    paths += [f"runs/{run}/shards/0/attempts", "tasks?state=active"]
    for path in paths:
        found = standby.get(path)
        assert found.status_code == 200, (path, found.text)
        assert found.headers[AGE] == "0"
        expected = leader.get(path)
        assert found.json() == expected.json(), path
        assert AGE not in expected.headers
    assert {task["id"] for task in standby.get("tasks").json()["items"]} == set(tasks)
    assert standby.get("jobs/none").status_code == 404
    assert group.state.reads == 1


def test_copy_of_the_state_is_made_again_when_it_is_too_old(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    leader, standby = pair
    register(leader)
    assert standby.get("jobs").json() == {"items": [], "nextCursor": "", "total": 0}
    assert leader.post("jobs", json=job_body()).status_code == 201
    group.now = 0.9
    found = standby.get("jobs")
    assert (found.json()["items"], found.headers[AGE]) == ([], "900")
    group.now = 1.1
    found = standby.get("jobs")
    assert ([job["jobName"] for job in found.json()["items"]], found.headers[AGE]) == (["hello"], "0")


def test_read_after_a_write_through_the_same_standby_sees_the_write(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    _, standby = pair
    register(standby)
    for number in range(3):
        group.now += 0.001
        assert standby.post("jobs", json=job_body(f"job-{number}")).status_code == 201
        assert len(standby.get("jobs").json()["items"]) == number + 1


def test_client_that_asks_for_the_latest_state_gets_the_answer_of_the_leader(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    leader, standby = pair
    register(leader)
    assert standby.get("jobs").headers[AGE] == "0"
    assert leader.post("jobs", json=job_body()).status_code == 201
    found = standby.get("jobs", headers={"Cache-Control": "no-cache"})
    assert (len(found.json()["items"]), AGE in found.headers) == (1, False)
    # Without a leader, the state is read again: it is the latest then.
    group.address = ""
    group.now = 0.1
    found = standby.get("jobs", headers={"Cache-Control": "no-cache"})
    assert (len(found.json()["items"]), found.headers[AGE]) == (1, "0")


def test_leader_answers_reads_while_the_store_cannot_be_read(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    _, standby = pair
    group.state.failing = True
    assert AGE not in standby.get("jobs").headers
    group.address = ""
    refused = standby.get("jobs")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_other_requests_are_passed_on_unchanged(group: Group, pair: tuple[httpx.Client, httpx.Client]) -> None:
    leader, standby = pair
    register(standby, "hello")
    for method, path, body in (
        ("GET", "cluster", None),
        ("GET", "jobs/hello/explain", None),
        ("GET", "jobs/hello/fit", None),
        ("GET", "tasks/no%2Fone", None),
        ("PUT", "jobs/hello", job_body(cron="0 0 0 * * ?")),
        ("POST", "jobs", {"jobNam": 1}),
        ("DELETE", "jobs/none", None),
        ("PATCH", "jobs/hello", None),
        ("GET", "nothing?a=b", None),
        ("GET", "alerts", None),
        ("GET", "silences", None),
        ("PUT", "pools/db", {"slots": -1}),
        ("GET", "pools", None),
        ("POST", "silences", {"for": 1}),
        ("GET", "apps/demo/versions", None),
        ("POST", "apps/demo/rollback", None),
        ("POST", "runs", {"jobName": "once"}),
    ):
        found, expected = (api.request(method, path, json=body) for api in (standby, leader))
        assert (found.status_code, found.content) == (expected.status_code, expected.content), path
        ignored = {"date", "jobcloud-request-id"}
        assert {name: value for name, value in found.headers.items() if name not in ignored} == {
            name: value for name, value in expected.headers.items() if name not in ignored
        }, path
    assert standby.post("jobs/hello/trigger", json={"key": "once"}).status_code == 202
    assert standby.post("jobs/hello/trigger", json={"key": "once"}).json()["existed"] is True


def test_ad_hoc_run_is_passed_on_and_answered_from_the_copy(pair: tuple[httpx.Client, httpx.Client]) -> None:
    leader, standby = pair
    register(standby, "hello")
    body = {name: value for name, value in job_body("once").items() if name not in ("cron", "jobExecutionType")}
    run = standby.post("runs", json=body).json()
    assert run["cause"] == "ad_hoc"
    for path in (f"runs/{run['id']}", "runs", "tasks", "jobs", "apps/demo"):
        found = standby.get(path)
        assert AGE in found.headers
        assert found.json() == leader.get(path).json(), path


def test_own_state_of_the_standby_is_not_asked_for_elsewhere(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    leader, standby = pair
    leader.close()
    group.address = "http://127.0.0.1:1"
    assert standby.get("health").json()["leading"] is True  # that of its own loop
    assert standby.get("openapi.json").status_code == 200
    assert standby.get("cron/next", params={"cron": "0 0 0 * * ?"}).status_code == 200


def test_large_upload_passes_the_standby_in_pieces(group: Group, pair: tuple[httpx.Client, httpx.Client]) -> None:
    _, standby = pair
    content = package_bytes({"hello.py": "", "data.txt": "".join(map(str, range(500_000)))})
    digest = hashlib.sha256(content).hexdigest()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    for body in (content, pieces()):
        stored = standby.post("packages", params={"sha256": digest}, content=body)
        assert (stored.status_code, stored.json()["sha256"]) == (201, digest)


def test_limits_and_the_token_hold_on_the_standby(group: Group) -> None:
    with serving(group.leader()) as leader, serving(group.standby(max_upload_bytes=1_000)) as standby:
        group.address = leader
        with client(standby) as api, client(standby, "wrong") as stranger:
            assert api.post("packages", content=b"x" * 2_000).status_code == 413
            assert api.post("packages", content=iter([b"x" * 600] * 3)).status_code == 413
            assert stranger.post("jobs", json=job_body()).status_code == 401
            assert stranger.get("jobs").status_code == 401
            elsewhere = api.post("jobs", json=job_body(), headers={"Origin": "http://elsewhere.test"})
            assert elsewhere.status_code == 403
            # The origin is that of the standby, which the leader does not know.
            assert api.delete("jobs/none", headers={"Origin": standby}).status_code == 404
            assert api.get("jobs", headers={"Host": "elsewhere.test"}).status_code == 421


def test_request_is_passed_on_only_once(group: Group) -> None:
    with serving(group.standby()) as standby:
        group.address = standby  # as if this scheduler took itself for the leader
        with client(standby) as api:
            for answer in (api.post("jobs", json=job_body()), api.get("cluster")):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                assert "http.advertise" in answer.json()["detail"]


@pytest.mark.parametrize(
    "address", ["", "another scheduler", "file:///etc/passwd", "http://user:secret@127.0.0.1:1", "http://127.0.0.1:1/x"]
)
def test_address_that_is_not_a_url_of_a_server_is_not_connected_to(group: Group, address: str) -> None:
    group.address = address
    with serving(group.standby()) as standby, client(standby) as api:
        answer = api.post("jobs", json=job_body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "knows no leader" in answer.json()["detail"]


def test_leader_out_of_reach_is_503_and_nothing_was_changed(group: Group) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    group.address = f"http://127.0.0.1:{free}"
    with serving(group.standby()) as standby, client(standby) as api:
        answer = api.post("jobs", json=job_body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "Nothing was changed" in answer.json()["detail"]


class Scripted:
    """A leader that gets requests and answers each in a scripted way."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.arrived = threading.Event()
        self.left = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.requests.append((scope["path"], body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.arrived.set()
        await self.answer(receive, send)

    async def answer(self, receive: Receive, send: Send) -> None:
        """Never answer; note that the standby has hung up."""
        while (await receive())["type"] != "http.disconnect":
            continue
        self.left.set()


class CutShort(Scripted):
    async def answer(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"the beginning", "more_body": True})
        raise OSError("dies")


class Endless(Scripted):
    async def answer(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": first\n\n", "more_body": True})
        await super().answer(receive, send)


def test_change_of_the_leader_during_a_write_is_503_that_says_so(group: Group) -> None:
    with serving(leader := Scripted()) as address, serving(group.standby()) as standby, client(standby) as api:
        group.address = address

        def change_leader() -> None:
            assert leader.arrived.wait(20)
            group.address = "http://next:1"

        threading.Thread(target=change_leader).start()
        answer = api.post("jobs", json=job_body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "may still take effect" in answer.json()["detail"]
        assert leader.left.wait(20)
        assert len(leader.requests) == 1


def test_write_is_never_sent_again_after_the_leader_broke_the_connection(group: Group) -> None:
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as listening, serving(group.standby()) as standby:

        def hang_up() -> None:
            nonlocal connections
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connections += 1
                with connection:
                    connection.recv(100)

        threading.Thread(target=hang_up, daemon=True).start()
        group.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with client(standby) as api:
            answer = api.post("jobs", json=job_body())
        assert answer.status_code == 503
        assert "may still take effect" in answer.json()["detail"]
        assert connections == 1
        listening.shutdown(socket.SHUT_RDWR)


def test_answer_that_is_cut_short_is_cut_short_for_the_client_too(group: Group) -> None:
    with serving(CutShort()) as address, serving(group.standby()) as standby, client(standby) as api:
        group.address = address
        with pytest.raises(httpx.RemoteProtocolError):
            api.get("cluster")


def test_stream_ends_with_the_leadership_or_with_the_client(group: Group) -> None:
    with serving(leader := Endless()) as address, serving(group.standby()) as standby, client(standby) as api:
        group.address = address
        with api.stream("GET", "events") as answer:
            pieces = answer.iter_bytes()
            assert next(pieces) == b": first\n\n"
        assert leader.left.wait(20), "the client has gone, but the standby still listens"
        leader.left.clear()
        with api.stream("GET", "events") as answer:
            pieces = answer.iter_bytes()
            assert next(pieces) == b": first\n\n"
            group.address = "http://next:1"
            with pytest.raises(httpx.RemoteProtocolError):
                next(pieces)
        assert leader.left.wait(20)


def test_headers_of_one_connection_and_of_the_client_are_not_passed_on(group: Group) -> None:
    with serving(leader := CutShort()) as address, serving(group.standby()) as standby, client(standby) as api:
        group.address = address
        given = {
            "Connection": "keep-alive, X-Secret", "X-Secret": "1", "TE": "trailers", "X-Forwarded-For": "127.0.0.1",
            "Origin": standby, "Last-Event-ID": "7", "X-Own": "a b",
        }  # fmt: skip
        with pytest.raises(httpx.RemoteProtocolError):
            api.get("events", headers=given)
        found = leader.headers[0]
        assert found["host"] == address.removeprefix("http://")
        assert (found["last-event-id"], found["x-own"], found["authorization"]) == ("7", "a b", f"Bearer {TOKEN}")
        assert not {"x-secret", "te", "x-forwarded-for", "origin"} & found.keys()
        assert "via" in found, "the leader would take the standby for a client on its own machine"


def test_events_of_the_leader_reach_a_listener_of_the_standby(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    _, standby = pair
    with standby.stream("GET", "events") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        group.notices.publish(Publish(1, Topic.FIRED, "hello fired", job="hello"))
        data = next(line for line in lines if line.startswith("data: "))
        assert json.loads(data.removeprefix("data: "))["text"] == "hello fired"
        group.notices.close()


def test_many_waiting_requests_are_bounded_and_do_not_delay_reads(group: Group) -> None:
    async def crowd(url: str) -> tuple[set[int], int]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=30, limits=limits) as api:
            asked = [asyncio.create_task(api.get("cluster")) for _ in range(210)]
            refused = [answer.result() async for answer in _first(asked, 10)]
            read = await api.get("jobs")
            for task in asked:
                task.cancel()
            return {answer.status_code for answer in refused}, read.status_code

    with serving(Scripted()) as address, serving(group.standby()) as standby:
        group.address = address
        assert asyncio.run(crowd(standby)) == ({429}, 200)


async def _first(tasks: list[asyncio.Task[httpx.Response]], count: int) -> Any:
    waiting = set(tasks)
    while count:
        done, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done, "too few answers"
        for task in done:
            count -= 1
            yield task


def test_new_leader_answers_itself(group: Group, pair: tuple[httpx.Client, httpx.Client]) -> None:
    _, standby = pair
    assert AGE in standby.get("jobs").headers
    group.waits = False
    assert AGE not in standby.get("jobs").headers
    group.replica.close()
    group.waits, group.address = True, ""
    group.now = 10.0
    assert standby.get("jobs").status_code == 503


def test_concurrent_readers_share_one_read_of_the_store(group: Group) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(SharedState):
        def snapshot(self) -> StoredRecords:
            entered.set()
            assert go_on.wait(20)
            return super().snapshot()

    group.state = Slow(group.leading)
    first = group.replica.copy()
    assert entered.wait(20)
    later = [group.replica.copy(since=0.0) for _ in range(5)]
    go_on.set()
    assert first.result(20).read_at == 0.0
    assert len({id(copy.result(20)) for copy in later}) == 1
    assert group.state.reads == 2, "a reader needs a read that begins after its question"


def test_failed_store_is_opened_again(group: Group) -> None:
    with ExitStack() as stack:
        stack.callback(group.replica.close)
        group.state.failing = True
        with pytest.raises(StoreError):
            group.replica.copy().result(20)
        group.state.failing = False
        assert group.replica.copy().result(20).core.jobs == {}


def test_end_of_a_replica_does_not_wait_for_a_read(group: Group) -> None:
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(SharedState):
        def snapshot(self) -> StoredRecords:
            entered.set()
            assert go_on.wait(20)
            return super().snapshot()

        def close(self) -> None:
            closed.set()

    group.state = Slow(group.leading)
    copy = group.replica.copy()
    assert entered.wait(20)
    group.replica.close()
    assert not closed.is_set()
    go_on.set()
    copy.result(20)
    assert closed.wait(20)
    with pytest.raises(StoreError):
        group.replica.copy().result(20)


def api_token(group: Group, subject: str, role: str = "", **changes: Any) -> str:
    """The text of a new token, whose holder gets a role in the whole installation."""
    number = len(group.leading.scheduler.directory.tokens) + 1
    secret, at = tokens.make("jct", bytes([number]) * 38), group.leading.now
    members = (Member(subject, role),) if role else ()
    group.leading.feed(PutAccess(at, Team("*", members)))
    group.leading.feed(PutAccess(at, AccessToken(secret.id, "t", secret.hash, subject, at, **changes)))
    return secret.text


def test_rights_on_a_standby_are_those_of_the_stored_state(
    group: Group, pair: tuple[httpx.Client, httpx.Client]
) -> None:
    leader, standby = pair
    register(leader, "hello")
    viewer = {"Authorization": f"Bearer {api_token(group, 'user:ann', 'viewer')}"}
    for path in ("jobs", "cron/next?cron=0 0 0 * * ?", "cluster"):
        assert standby.get(path, headers=viewer).status_code == 200, path
    # Without a database for the history, a request that is let through gets 503.
    notes = "runs/hello.x@jobcloud/notes"
    for path in ("history/runs", "history/configurations", notes, "statistics", "statistics/series"):
        assert standby.get(path, headers=viewer).json()["detail"].startswith("this scheduler keeps no history")
    assert standby.delete("jobs/hello", headers=viewer).status_code == 403
    assert standby.post("runs/hello.x@jobcloud/notes", json={"text": "x"}, headers=viewer).status_code == 403
    assert "hello" in group.leading.scheduler.jobs
    # The next copy of the state has the change.
    group.leading.feed(PutAccess(group.leading.now, Team("*")))
    group.now += 10.0
    for path in ("jobs", "history/runs", "cluster"):
        assert standby.get(path, headers=viewer).status_code == 403, path
    revoked = {"Authorization": f"Bearer {api_token(group, 'user:bob', 'viewer', revoked_ms=1)}"}
    group.now += 10.0
    for path in ("jobs", "history/runs", "cron/next?cron=0 0 0 * * ?", "cluster"):
        assert standby.get(path, headers=revoked).status_code == 401, path


@pytest.mark.parametrize(("method", "concerned"), [("GET", False), ("HEAD", False), ("POST", True)])
def test_notes_are_read_from_the_history_and_written_by_the_leader(
    group: Group, method: str, *, concerned: bool
) -> None:
    standby = Standby(lambda: True, lambda: "", group.replica)
    assert standby.concerns({"path": "/api/v1/runs/hello.x@jobcloud/notes", "method": method}) is concerned


def test_header_of_a_standby_does_not_open_anything(group: Group, pair: tuple[httpx.Client, httpx.Client]) -> None:
    leader, _ = pair
    for headers in ({"jobcloud-forwarded": "1"}, {"jobcloud-forwarded": "1", "via": "1.1 jobcloud"}):
        for method, path in (("GET", "jobs"), ("DELETE", "jobs/hello"), ("GET", "/api/app/list")):
            url = f"{leader.base_url.copy_with(path='')}{path}" if path.startswith("/") else path
            answer = leader.request(method, url, headers=headers | {"Authorization": ""})
            assert answer.status_code == 401


def test_history_on_a_standby_is_refused_while_rights_cannot_be_read(group: Group) -> None:
    group.state.failing = True
    with serving(group.standby()) as url, client(url) as standby:
        assert standby.get("history/runs").status_code == 503
        assert standby.get("health").status_code == 503
        assert standby.get("openapi.json").status_code == 200


def test_pair_without_a_token_forwards_requests_without_credentials(group: Group) -> None:
    options = ApiOptions()
    leading = make_api(group.folder / "open", group.leading, options=options)
    with serving(leading) as leader, serving(group.standby(token="")) as standby:
        group.address = leader
        with httpx.Client(base_url=f"{standby}/api/v1") as api:
            assert api.get("cluster").status_code == 200


def test_session_holds_on_the_standby_which_writes_nothing(group: Group) -> None:
    leading = group.leading
    for record in (User("ann", leading.now, hash_password("pw")), Team(EVERY_TEAM, (Member("user:ann", "admin"),))):
        leading.feed(PutAccess(leading.now, record, create=True))
    with serving(group.leader()) as leader, serving(group.standby()) as standby, httpx.Client(base_url=standby) as ann:
        group.address = leader
        page = {"Origin": standby}
        assert ann.get("/account").headers["location"] == "/login"
        assert "<form" in ann.get("/login").text
        fields = {"user": "ann", "password": "pw"}
        assert ann.post("/login", data=fields, headers={"Origin": "http://evil.test"}).status_code == 403
        assert ann.post("/login", data=fields).status_code == 403
        answer = ann.post("/login", data=fields, headers=page)
        assert (answer.status_code, "jobcloud" in ann.cookies) == (303, True)
        assert "user:ann" in ann.get("/account").text, "the leader answers"
        before = dict(leading.scheduler.directory.sessions)
        leading.now += NOTE_MS
        group.now += 100
        found = ann.get("/api/v1/jobs")
        assert (found.status_code, AGE in found.headers) == (200, True), "the copy answers"
        assert leading.scheduler.directory.sessions == before
        # The leader checks changes too. The standby has removed the origin, which is its own.
        change = {**page, "Jobcloud-Request": "1"}
        assert ann.delete("/api/v1/jobs/none", headers=change).status_code == 404
        assert ann.delete("/api/v1/jobs/none", headers=page).status_code == 403
        assert ann.delete("/api/v1/jobs/none", headers={"Jobcloud-Request": "1"}).status_code == 403
        assert ann.delete("/api/v1/sessions", headers=change).status_code == 204
        group.now += 100
        assert ann.get("/api/v1/jobs").status_code == 401


def admin_ann(group: Group) -> None:
    at = group.leading.now
    for record in (User("ann", at, hash_password("pw")), Team(EVERY_TEAM, (Member("user:ann", "admin"),))):
        group.leading.feed(PutAccess(at, record, create=True))


def form_token(browser: httpx.Client) -> str:
    return browser.get("/account").text.partition('name="token" value="')[2][:64]


def test_change_with_a_cookie_reaches_the_leader_only_from_a_page_of_the_standby(group: Group, tmp_path: Path) -> None:
    admin_ann(group)
    with ExitStack() as stack:
        audit = stack.enter_context(auditing(disk := FakeDisk()))
        leader = stack.enter_context(serving(group.leader(audit=audit, core=lambda: group.leading.scheduler)))
        standby = stack.enter_context(serving(group.standby()))
        ann = stack.enter_context(httpx.Client(base_url=standby))
        group.address = leader
        page = {"Origin": standby, "Sec-Fetch-Site": "same-origin", "Jobcloud-Request": "1"}
        assert ann.post("/login", data={"user": "ann", "password": "pw"}, headers=page).status_code == 303

        def pause(*without: str, **headers: str) -> httpx.Response:
            given = {name: value for name, value in page.items() if name not in without} | headers
            return ann.post("/api/v1/cluster/pause", headers=given)

        two = {"Cookie": f"jobcloud={ann.cookies['jobcloud']}; jobcloud={ann.cookies['jobcloud']}"}
        refused = {
            "no header of a script": pause("Jobcloud-Request"),
            "no proof of the page": pause("Origin", "Sec-Fetch-Site"),
            "another site": pause(Origin="http://evil.test"),
            "the leader's pages": pause(Origin=leader),
            "another site, without an origin": pause("Origin", **{"Sec-Fetch-Site": "cross-site"}),
            "another port of the host": pause(**{"Sec-Fetch-Site": "same-site"}),
        }
        slugs = {why: answer.json()["type"] for why, answer in refused.items()}
        assert slugs == dict.fromkeys(refused, "urn:jobcloud:problem:forbidden-origin")
        assert pause(**two).status_code == 401
        assert pause(Cookie="jobcloud=jcs_wrong").status_code == 401
        assert not group.leading.scheduler.pauses
        for headers in ((), ("Origin",), ("Sec-Fetch-Site",)):
            assert pause(*headers).status_code == 200, headers
            assert group.leading.scheduler.pauses
            assert ann.post("/api/v1/cluster/resume", headers=page).status_code == 200
        intents = [entry for entry in disk.entries() if (entry["kind"], entry.get("subject")) == ("intent", "user:ann")]
        assert [entry["forwarded"] for entry in intents] == [True] * 6, "the leader records the sender"


def test_forms_of_a_session_reach_the_leader_with_their_token_only(group: Group) -> None:
    admin_ann(group)
    sessions = group.leading.scheduler.directory.sessions
    with (
        serving(group.leader()) as leader,
        serving(group.standby()) as standby,
        httpx.Client(base_url=standby, headers={"Origin": standby}) as ann,
        httpx.Client(base_url=standby, headers={"Origin": standby}) as other,
    ):
        group.address = leader
        for browser in (ann, other):
            assert browser.post("/login", data={"user": "ann", "password": "pw"}).status_code == 303
        code = ann.post("/api/v1/login-links?user=ann", headers={"Jobcloud-Request": "1"}).json()["path"][12:]
        own, foreign = form_token(ann), form_token(other)
        for path in ("/logout", "/logout/everywhere"):
            assert ann.post(path, data={"token": foreign}).status_code == 403
            assert ann.post(path, data={"token": own}, headers={"Origin": "http://evil.test"}).status_code == 403
        assert len(sessions) == 2
        assert other.post("/logout", data={"token": foreign}).headers["location"] == "/login"
        assert (len(sessions), "jobcloud" in other.cookies) == (1, False)
        assert ann.post("/logout/everywhere", data={"token": own}).status_code == 303
        assert (len(sessions), "jobcloud" in ann.cookies) == (0, False)
        assert ann.get("/account").headers["location"] == "/login"
        assert other.post("/login/link", data={"code": code}).status_code == 401, "the leader has ended the link"


def test_session_of_a_standby_with_tls_holds_on_its_leader(group: Group, tmp_path: Path) -> None:
    """The cookie has a prefix that browsers accept over TLS only, and each page must come over TLS."""
    admin_ann(group)
    authority = Authority(tmp_path / "ours")
    tls = server_tls(dataclasses.replace(authority.issue(), peer_ca=authority.file))
    options = {"sessions": SessionOptions(secure=True)}
    with (
        serving(group.leader(options=options), tls=tls) as leader,
        serving(group.standby(tls=tls.peer_context, options=options), tls=tls) as standby,
        httpx.Client(base_url=standby, verify=ssl.create_default_context(cafile=authority.file)) as ann,
    ):
        group.address = leader
        page = {"Origin": standby, "Jobcloud-Request": "1"}
        assert ann.post("/login", data={"user": "ann", "password": "pw"}, headers=page).status_code == 303
        assert "__Host-jobcloud" in ann.cookies
        without_tls = page | {"Origin": standby.replace("https:", "http:")}
        assert ann.post("/api/v1/cluster/pause", headers=without_tls).status_code == 403
        assert not group.leading.scheduler.pauses
        assert ann.post("/api/v1/cluster/pause", headers=page).status_code == 200
        assert group.leading.scheduler.pauses


def test_leader_with_a_private_authority_is_reached_over_tls(group: Group, tmp_path: Path) -> None:
    authority, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    files = dataclasses.replace(authority.issue(), client_ca=authority.file, clients="required", peer_ca=authority.file)
    tls = server_tls(files)
    contexts = {"ours": tls.peer_context(), "theirs": peer_context(foreign.file, "http.tls_ca_file")}
    with serving(group.leader(), tls=tls) as leader:
        group.address = leader
        for whose, context in contexts.items():
            with serving(group.standby(tls=lambda context=context: context)) as standby, client(standby) as api:
                answer = api.get("cluster")
                if whose == "ours":
                    assert answer.status_code == 200, answer.text
                else:
                    assert answer.status_code == 503
                    assert "certificate verify failed" in answer.json()["detail"]
