"""A standby answers reads from the stored state, and passes everything else on to the leader."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.api_kit import FakeLoop, app_body, job_body, make_api, package_bytes, serving

from jobcloud.errors import StoreError
from jobcloud.messages import Kind, Publish, Topic
from jobcloud.ports import LastingStore, StoredRecords
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server import records
from jobcloud.server.api import Access, ApiOptions, Notices
from jobcloud.server.api.replica import Replica, ReplicatedLoop
from jobcloud.server.api.standby import Standby

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
            Kind.JOB: scheduler.jobs,
            Kind.JOB_STATE: scheduler.job_states,
            Kind.FIRING: scheduler.firings,
            Kind.TASK: scheduler.tasks,
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
        self._folder = folder
        self.replica = Replica(
            self.store,
            lambda stored, epoch, at: Scheduler(Policy(self.leading.scheduler.policy.artifacts), stored, epoch, at),
            now_ms=lambda: self.leading.now,
            monotonic=lambda: self.now,
        )

    def store(self) -> LastingStore:
        return self.state  # type: ignore[return-value]

    def leader(self) -> Any:
        options = ApiOptions(access=Access(token=TOKEN))
        return make_api(self._folder / "leader", self.leading, options=options, notices=self.notices)

    def standby(self, **access: Any) -> Any:
        standby = Standby(lambda: self.waits, lambda: self.address, self.replica)
        own = FakeLoop()
        own.failure = AssertionError("the standby's own scheduler was given a command")
        options = ApiOptions(access=Access(**{"token": TOKEN} | access))
        loop: Any = ReplicatedLoop(own)
        return make_api(self._folder / "standby", loop, options=options, standby=standby)


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
    assert standby.get("jobs").json() == {"items": [], "nextCursor": ""}
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
        ("GET", "tasks/no%2Fone", None),
        ("PUT", "jobs/hello", job_body(cron="0 0 0 * * ?")),
        ("POST", "jobs", {"jobNam": 1}),
        ("DELETE", "jobs/none", None),
        ("PATCH", "jobs/hello", None),
        ("GET", "nothing?a=b", None),
    ):
        found, expected = (api.request(method, path, json=body) for api in (standby, leader))
        assert (found.status_code, found.content) == (expected.status_code, expected.content), path
        ignored = {"date"}
        assert {name: value for name, value in found.headers.items() if name not in ignored} == {
            name: value for name, value in expected.headers.items() if name not in ignored
        }, path
    assert standby.post("jobs/hello/trigger", json={"key": "once"}).status_code == 202
    assert standby.post("jobs/hello/trigger", json={"key": "once"}).json()["existed"] is True


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
