"""Task output read from the agent: complete, in order and at the right offset despite rotation."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.adapters.sandbox import Output, OutputReader
from jobcloud.dev.files import frameworks, operate
from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import RotatingLog, TaskFolders
from jobcloud.server.api import LogChunk, Notices
from jobcloud.server.api.follow import Followers, Source
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.streams import EventStream, Places

WANTED = Output("F1", "shop@v1", "t1", "stdout")


def read_output(address: str, wanted: Output, offset: int, limit: int) -> tuple[bytes, int, int]:
    return asyncio.run(OutputReader().read(address, wanted, offset, limit))


class FakeAgent:
    """Sandboxes on disk, served by the dev agent's code. `before_read` runs before each READ_FILE."""

    def __init__(self, root: Path) -> None:
        self.root = root / "slaves"
        self.before_read: Callable[[], None] = lambda: None
        self.status = 200
        self.asked: list[str] = []
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                agent.asked.append(call["type"])
                if call["type"] == "READ_FILE":
                    agent.before_read()
                self.answer(*operate(agent.root, call))

            def do_GET(self) -> None:
                agent.asked.append(self.path)
                shown = frameworks(agent.root, {})
                self.answer(200, json.dumps({"frameworks": shown, "completed_frameworks": []}))

            def answer(self, status: int, body: str) -> None:
                self.send_response(status if agent.status == 200 else agent.status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"

    def run(self, container: str) -> TaskFolders:
        """Add a sandbox of the executor, which becomes the latest."""
        sandbox = self.root / "S1" / "frameworks" / "F1" / "executors" / "shop@v1" / "runs" / container
        sandbox.mkdir(parents=True)
        latest = sandbox.parent / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(sandbox)
        return TaskFolders(str(sandbox / "tasks"))

    def log(self, folders: TaskFolders, task: str = "t1", limit: int = 64) -> RotatingLog:
        return RotatingLog(f"{folders.path(task)}/stdout", limit)


@contextmanager
def agent_in(root: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(root)
    thread = threading.Thread(target=agent.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield agent
    agent.server.shutdown()
    agent.server.server_close()
    thread.join()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with agent_in(tmp_path) as agent:
        yield agent


# ---------------------------------------------------------------------------------------------------- from the agent


Steps = list[tuple[bytes, int, bool]]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.binary(max_size=150), st.integers(1, 90), st.booleans()), min_size=1, max_size=12))
def test_reader_gets_every_byte_once_or_learns_how_many_are_gone(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps
) -> None:
    with agent_in(tmp_path_factory.mktemp("agent")) as agent:
        log, stream, place = agent.log(agent.run("c1")), bytearray(b"!"), 0

        def write(data: bytes) -> None:
            log.write(data)
            stream.extend(data)

        def read(limit: int) -> int:
            data, at, size = read_output(agent.address, WANTED, place, limit)
            assert data == stream[at : at + len(data)]
            assert place <= at <= max(place, len(stream) - 64)
            assert len(data) <= limit
            assert size <= len(stream)
            return at + len(data)

        log.write(b"!")
        for data, limit, between in steps:
            write(data)
            if between:  # the look at the files and the reading of one
                agent.before_read = lambda data=data: write(data)  # type: ignore[misc]
            place = read(limit)
            agent.before_read = lambda: None
        while place < len(stream):
            place = read(100)
        log.close()


@pytest.mark.parametrize("rotations", [1, 2, 9])
def test_read_during_a_rotation_does_not_mix_the_files(agent: FakeAgent, rotations: int) -> None:
    log, stream = agent.log(agent.run("c1")), bytearray()

    def write(size: int) -> None:
        data = bytes(len(stream) + number & 255 for number in range(size))
        log.write(data)
        stream.extend(data)

    def between() -> None:
        nonlocal rotations
        if rotations:
            rotations -= 1
            write(64)

    write(100)
    agent.before_read = between
    data, at, size = read_output(agent.address, WANTED, 90, 1000)
    log.close()
    assert data == stream[at : at + len(data)]
    assert at >= 90
    assert at + len(data) <= size <= len(stream)


def test_tail_of_a_stream_spans_a_rotation(agent: FakeAgent) -> None:
    log = agent.log(agent.run("c1"))
    log.write(bytes(range(100)))
    log.close()
    assert read_output(agent.address, WANTED, -50, 1000) == (bytes(range(50, 100)), 50, 100)


def test_output_is_found_in_the_sandbox_that_wrote_it_after_executor_restarts(agent: FakeAgent) -> None:
    for run in range(3):
        log = agent.log(agent.run(f"c{run}"), f"t{run}")
        log.write(b"by run %d" % run)
        log.close()
    for run in range(3):
        wanted = Output("F1", "shop@v1", f"t{run}", "stdout", earlier=True)
        assert read_output(agent.address, wanted, 0, 100)[0] == b"by run %d" % run
    with pytest.raises(NotFound):
        read_output(agent.address, Output("F1", "shop@v1", "t9", "stdout", earlier=True), 0, 100)


def test_running_task_is_only_searched_in_the_latest_sandbox(agent: FakeAgent) -> None:
    agent.run("c1")
    with pytest.raises(NotFound):
        read_output(agent.address, WANTED, 0, 100)
    assert "/state" not in agent.asked


@pytest.mark.parametrize("status", [401, 500])
def test_agent_that_refuses_is_named_in_the_error(agent: FakeAgent, status: int) -> None:
    agent.status = status
    with pytest.raises(Unavailable, match=agent.address):
        read_output(agent.address, WANTED, 0, 100)


# -------------------------------------------------------------------------------------------------------- following


class Task:
    """A task that writes: `text` grows by a piece at each read, until no pieces are left."""

    def __init__(self, *pieces: bytes, keeps: int = 1 << 20) -> None:
        self.pieces, self.text, self.keeps = list(pieces), b"", keeps
        self.reads = 0
        self.failures: list[Exception] = []

    async def read(self, offset: int, ended: bool) -> LogChunk:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        if self.pieces:
            self.text += self.pieces.pop(0)
        at = max(offset, len(self.text) - self.keeps)
        return LogChunk(self.text[at : at + 10], at, len(self.text))

    def source(self) -> Source:
        return Source(self.read, lambda: bool(self.pieces), lambda: "FINISHED")


def follow(task: Task, offset: int = 0, **options: float) -> list[tuple[str, dict[str, Any]]]:
    async def collect() -> list[str]:
        followers = Followers(Notices(), **{"poll_s": 0.0, **options})
        return [event async for event in followers.stream(task.source(), offset)]

    return [event for text in asyncio.run(collect()) if (event := _parse(text))[0]]


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    fields = dict(line.partition(": ")[::2] for line in text.splitlines() if line)
    data = json.loads(fields.get("data", "{}"))
    return fields.get("event", ""), data | ({"id": int(fields["id"])} if "id" in fields else {})


def test_output_is_followed_to_the_last_byte_before_the_end() -> None:
    task = Task(
        b"one ", "two \u20ac".encode()[:-1], "two \u20ac".encode()[-1:] + b" three", b"", b" four and more \xff"
    )
    *pieces, end = follow(task)
    assert end == ("end", {"state": "FINISHED", "id": len(task.text)})
    assert "".join(data["text"] for _, data in pieces) == "one two \u20ac three four and more \ufffd"
    assert [data["missed"] for _, data in pieces] == [0] * len(pieces)
    assert pieces[-1][1]["id"] == len(task.text)


def test_reader_that_reconnects_continues_at_its_offset() -> None:
    *pieces, _ = follow(Task(b"0123456789abcdef"), offset=12)
    assert [(data["offset"], data["text"]) for _, data in pieces] == [(12, "cdef")]


def test_bytes_lost_to_rotation_are_counted() -> None:
    *pieces, _ = follow(Task(b"0123", b"456789abcdefghij", keeps=8))
    assert [(data["text"], data["missed"]) for _, data in pieces] == [("0123", 0), ("cdefghij", 8)]


def test_short_outage_of_the_agent_loses_nothing() -> None:
    task = Task(b"one", b"two")
    task.failures = [Unavailable("it is away")] * 3
    assert [data.get("text") for _, data in follow(task)] == ["one", "two", None]


def test_long_outage_of_the_agent_ends_the_stream_with_the_reason() -> None:
    task = Task(b"one")
    task.failures = [Unavailable("it is away")] * 1000
    ((kind, problem),) = follow(task, patience_s=0.0)
    assert (kind, problem["status"]) == ("error", 503)
    assert "it is away" in problem["detail"]


def test_task_without_output_has_an_end_and_no_output() -> None:
    task = Task(b"", b"")
    task.failures = [NotFound("nothing was printed")] * 5
    assert [kind for kind, _ in follow(task)] == ["end"]


def test_streams_end_with_the_server() -> None:
    async def run() -> None:
        notices = Notices()
        stream = Followers(notices, poll_s=0.0).stream(Task(*[b"more"] * 1000).source(), 0)
        assert [await anext(stream) for _ in range(3)]
        notices.close()
        assert len([event async for event in stream]) <= 1

    asyncio.run(run())


def test_number_of_streams_is_limited_and_each_end_frees_a_place() -> None:
    async def run() -> None:
        places = Places(2, "follow output")
        followers = Followers(Notices(), poll_s=0.0)
        streams = [EventStream(followers.stream(Task(b"x").source(), 0), places) for _ in range(2)]
        with pytest.raises(Problem, match="2 other clients"):
            EventStream(followers.stream(Task(b"x").source(), 0), places)
        await streams[0]({"type": "http", "asgi": {"spec_version": "2.4"}}, _never, _ignore)
        places.check()

    asyncio.run(run())


async def _never() -> Any:
    await asyncio.Event().wait()


async def _ignore(message: object) -> None:
    pass


# ---------------------------------------------------------------------------------------------------- hostile agents


class RawAgent:
    """Sends `answer` to each connection, then holds it open. `connected` counts the connections."""

    def __init__(self, *answer: bytes) -> None:
        self.connected = 0
        self._answer = answer
        self._server: asyncio.Server

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            for piece in self._answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            await asyncio.Event().wait()
        finally:
            writer.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer", [(), (b"H",) * 10_000, (HEAD, *[b"1\r\n \r\n"] * 10_000)], ids=["silent", "slow head", "slow body"]
)
def test_slow_agent_is_given_up_at_the_deadline_of_the_whole_read(answer: tuple[bytes, ...]) -> None:
    async def run() -> None:
        async with RawAgent(*answer) as address:
            await OutputReader(deadline_s=0.1).read(address, WANTED, 0, 100)

    with pytest.raises(Unavailable):
        asyncio.run(run())


def test_answer_longer_than_the_request_allows_is_not_read() -> None:
    async def run() -> None:
        async with RawAgent(HEAD, *[b"10000\r\n" + b" " * 0x10000 + b"\r\n"] * 100) as address:
            await OutputReader().read(address, WANTED, 0, 100)

    with pytest.raises(Unavailable, match="longer than"):
        asyncio.run(run())


def test_compressed_answer_is_not_expanded() -> None:
    packed = gzip.compress(b" " * (64 << 20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    async def run() -> None:
        async with RawAgent(head + packed) as address:
            await OutputReader().read(address, WANTED, 0, 100)

    with pytest.raises(Unavailable, match="as expected"):
        asyncio.run(run())


def test_silent_agent_takes_few_turns_and_other_agents_are_read(agent: FakeAgent) -> None:
    log = agent.log(agent.run("c1"))
    log.write(b"here")
    log.close()

    async def run() -> None:
        reader, silent = OutputReader(deadline_s=3_600), RawAgent()
        async with silent as address:
            reads = [asyncio.create_task(reader.read(address, WANTED, 0, 100)) for _ in range(160)]
            assert (await reader.read(agent.address, WANTED, 0, 100))[0] == b"here"
            assert silent.connected <= 4
            for read in reads:
                read.cancel()
            await asyncio.wait(reads)

    asyncio.run(run())
