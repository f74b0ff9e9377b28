"""The dev cluster's HTTP server: requests in pieces of any size, answers in the order of the requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.dev.http import MAX_BODY_BYTES, BadRequestError, Connection, Request, RequestReader, serve

BODIES = st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.integers(1, 9)), min_size=1, max_size=5)


def written(number: int, body: bytes, chunked: bool, size: int) -> bytes:
    head = b"POST /call/%d?n=%d HTTP/1.1\r\nHost: localhost\r\nX-Number: %d\r\n" % (number, number, number)
    if not chunked:
        return head + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: 1\r\n\r\n"


@given(BODIES, st.lists(st.integers(0, 600), max_size=12))
def test_requests_are_parsed_from_pieces_of_any_size(bodies: list[tuple[bytes, bool, int]], cuts: list[int]) -> None:
    data = b"".join(written(number, *one) for number, one in enumerate(bodies))
    reader, found, begin = RequestReader(), [], 0
    for end in [*sorted(cuts), len(data)]:
        reader.feed(data[begin:end])
        begin = end
        while (request := reader.next()) is not None:
            found.append(request)
    assert [one.body for one in found] == [body for body, _, _ in bodies]
    assert [one.head.headers["x-number"] for one in found] == [str(number) for number in range(len(bodies))]
    assert [(one.head.path, one.head.query) for one in found] == [
        (f"/call/{number}", {"n": str(number)}) for number in range(len(bodies))
    ]


def test_requests_are_parsed_from_single_bytes() -> None:
    data, reader, found = written(7, b"abc" * 9, True, 4) + written(8, b"abc", False, 4), RequestReader(), []
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        found.append(reader.next())
    assert [one.body for one in found if one is not None] == [b"abc" * 9, b"abc"]


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1" * 70_000, 400),
        (CHUNKED + b"2\r\nabc\r\n", 400),
        (b"GET / HTTP/1.1\r\nName: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nName: one\rOther: two\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName\x00: value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 501),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"x" * 70_000, 400),
    ],
)
def test_invalid_request_is_refused_after_valid_ones_before_it(data: bytes, status: int) -> None:
    reader = RequestReader()
    reader.feed(written(1, b"before", False, 1) + data)
    first = reader.next()
    assert first is not None
    assert first.body == b"before"
    with pytest.raises(BadRequestError) as refused:
        reader.next()
    assert refused.value.status == status


def test_request_does_not_leak_into_next_one() -> None:
    reader = RequestReader()
    reader.feed(b"GET /1 HTTP/1.1\r\nName: 1\r\n\r\n")
    reader.feed(b"POST /2 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n2")
    first, second = reader.next(), reader.next()
    assert first is not None
    assert second is not None
    assert (first.head.path, first.head.headers, first.body) == ("/1", {"name": "1"}, b"")
    assert (second.head.path, second.body) == ("/2", b"2")
    assert second.head.headers == {"expect": "100-continue", "content-length": "1"}
    assert not reader.take_pause()


@pytest.mark.parametrize(
    ("head", "more", "status"),
    [
        (b"", b"\r\n" * 500, 431),
        (b"GET /", b"x" * 1_000, 431),
        (b"GET / HTTP/1.1\r\n", b"x" * 1_000, 431),
        (b"GET / HTTP/1.1\r\nName: ", b"x" * 1_000, 431),
        (b"GET / HTTP/1.1\r\n", b"Name: value\r\n" * 100, 431),
        (CHUNKED + b"1;", b"x" * 1_000, 431),
        (CHUNKED + b"0\r\n", b"x" * 1_000, 431),
        (CHUNKED + b"0\r\nName: ", b"x" * 1_000, 431),
        (CHUNKED + b"0\r\n", b"Name: value\r\n" * 100, 431),
        (CHUNKED, b"1000;x=y\r\n" + b"x" * 4_096 + b"\r\n", 413),
    ],
)
def test_endless_request_is_refused(head: bytes, more: bytes, status: int) -> None:
    reader = RequestReader()
    reader.feed(head)
    for _ in range(8_193 if status == 413 else 70):
        reader.feed(more)
    with pytest.raises(BadRequestError) as refused:
        reader.next()
    assert refused.value.status == status


def test_head_and_body_of_maximum_size_are_accepted() -> None:
    reader, body, value = RequestReader(), bytes(MAX_BODY_BYTES), b"x" * 65_000
    reader.feed(b"POST / HTTP/1.1\r\nName: %s\r\nContent-Length: %d\r\n\r\n" % (value, len(body)))
    for at in range(0, len(body), 1 << 20):
        assert reader.next() is None
        reader.feed(body[at : at + (1 << 20)])
    found = reader.next()
    assert found is not None
    assert found.body == body
    assert found.head.headers["name"] == value.decode()


# ---- over a socket ---------------------------------------------------------------------------------------------


def talk(handler: Callable[[Request, Connection], Any], *pieces: bytes) -> bytes:
    """Send these pieces, close the sending side, and return everything that is received."""

    async def run() -> bytes:
        listener = await serve(handler, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()
            listener.stop()

    return asyncio.run(run())


def bodies_of(answers: bytes) -> list[bytes]:
    return [one.partition(b"\r\n\r\n")[2] for one in answers.split(b"HTTP/1.1 200 ")[1:]]


def test_answers_keep_order_of_requests() -> None:
    async def slowly(request: Request, connection: Connection) -> None:
        await asyncio.sleep(0.01)
        connection.answer(200, request.body)

    def handler(request: Request, connection: Connection) -> Any:
        if request.body.startswith(b"slow"):
            return slowly(request, connection)
        connection.answer(200, request.body)
        return None

    wanted = [b"slow 1", b"quick 2", b"slow 3", b"slow 4", b"quick 5"]
    calls = [written(number, body, False, 1) for number, body in enumerate(wanted)]
    assert bodies_of(talk(handler, b"".join(calls))) == wanted
    assert bodies_of(talk(handler, *calls)) == wanted


def test_client_that_expects_100_continue_gets_it_once() -> None:
    async def run() -> bytes:
        listener = await serve(lambda request, connection: connection.answer(200, request.body), 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        for piece in (b"a", b"b", b"cd"):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        rest = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        listener.stop()
        return interim + rest

    answer = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nabcd")


def test_nothing_is_read_after_invalid_or_last_request() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.answer(200, request.body)

    last = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"
    assert bodies_of(talk(handler, last + written(2, b"2", False, 1))) == [b"1"]
    answers = talk(handler, written(1, b"1", False, 1) + b"nonsense\r\n\r\n" + written(2, b"2", False, 1))
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 " in answers


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", b"", 421),
        ("GET", b"Host: evil.test\r\n", 421),
        ("GET", b"Host: 127.0.0.1.evil.test:5050\r\n", 421),
        ("GET", b"Host: 127.0.0.1:5050\r\nOrigin: http://evil.test\r\n", 200),
        ("POST", b"Host: [::1]:5050\r\n", 200),
        ("POST", b"Host: localhost:5050\r\nOrigin: http://LOCALHOST:5050\r\n", 200),
        ("POST", b"Host: localhost:5050\r\nOrigin: http://evil.test\r\n", 403),
        ("POST", b"Host: localhost:5050\r\nOrigin: null\r\n", 403),
        ("POST", b"Host: localhost:5050\r\nOrigin: http://[\r\n", 403),
    ],
)
def test_pages_of_other_sites_cannot_call(method: str, headers: bytes, status: int) -> None:
    request = method.encode() + b" / HTTP/1.1\r\n" + headers + b"Content-Length: 0\r\n\r\n"
    answer = talk(lambda request, connection: connection.answer(200), request)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_stream_ends_when_client_disconnects() -> None:
    over = []

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream("", lambda: over.append(request.body))
        connection.send_event({"type": "HEARTBEAT"})

    answer = talk(handler, written(1, b"1", False, 1) + written(2, b"nobody reads this", False, 1))
    assert answer.endswith(b'\r\n\r\n17\r\n20\n{"type":"HEARTBEAT"}\r\n')
    assert over == [b"1"]


def test_stopped_listener_resets_connections() -> None:
    async def run() -> bytes:
        listener = await serve(lambda request, connection: connection.answer(200), 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(written(1, b"1", False, 1))
        await reader.readuntil(b"\r\n\r\n")
        listener.stop()
        try:
            rest = await asyncio.wait_for(reader.read(), 60)
        except ConnectionError:
            rest = b""
        writer.close()
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.1", port_of(writer))) != 0
        return rest

    assert asyncio.run(run()) == b""


def port_of(writer: asyncio.StreamWriter) -> int:
    return int(writer.get_extra_info("peername")[1])
