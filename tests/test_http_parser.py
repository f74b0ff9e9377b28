"""The replacement for http-parser: the calls of pymesos, on responses in pieces of every size."""

from __future__ import annotations

import pytest

http = pytest.importorskip("http_parser.http", reason="the distribution in compat/http-parser is not installed")

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nMesos-Stream-Id: one\r\nX-Two: a\r\nx-two: b\r\n\r\n"
    b"5\r\nhello\r\n7\r\n, world\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunked_response_is_parsed_in_pieces_of_any_size(size: int) -> None:
    parser = http.HttpParser()
    body = b""
    for start in range(0, len(CHUNKED), size):
        piece = CHUNKED[start : start + size]
        assert parser.execute(piece, len(piece)) == len(piece)
        if parser.is_partial_body():
            body += parser.recv_body()
    assert (body, parser.get_status_code(), parser.is_chunked()) == (b"hello, world", 200, True)
    assert parser.get_headers()["Mesos-Stream-Id"] == "one"
    assert parser.get_headers()["X-Two"] == "a, b"
    assert parser.is_headers_complete()
    assert not parser.is_message_complete()
    assert not parser.is_partial_body()
    parser.execute(b"0\r\n\r\n", 5)
    assert parser.is_message_complete()


def test_status_and_headers_are_unknown_before_the_headers_end() -> None:
    parser = http.HttpParser()
    parser.execute(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: //a:1\r\n", 51)
    assert not parser.is_headers_complete()
    assert parser.get_status_code() == 0
    parser.execute(b"Content-Length: 0\r\n\r\n", 21)
    assert (parser.get_status_code(), parser.is_chunked(), parser.is_message_complete()) == (307, False, True)


@pytest.mark.parametrize(
    "garbage",
    [b"RTSP hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 abc\r\n\r\n"],
)
def test_bytes_that_are_not_http_are_refused_for_good(garbage: bytes) -> None:
    parser = http.HttpParser()
    assert parser.execute(garbage, len(garbage)) == 0
    assert parser.get_errno() == 1
    assert parser.execute(CHUNKED, len(CHUNKED)) == 0


def test_parser_reads_only_the_given_length() -> None:
    parser = http.HttpParser()
    head = CHUNKED.index(b"5\r\nhello")
    assert parser.execute(CHUNKED, head) == head
    assert not parser.is_partial_body()
    assert parser.get_errno() == 0


def test_parser_has_no_errno_attribute() -> None:
    assert not hasattr(http.HttpParser(), "errno")


def test_requests_and_compression_are_refused() -> None:
    with pytest.raises(ValueError, match="responses"):
        http.HttpParser(kind=0)
    with pytest.raises(ValueError, match="decompress"):
        http.HttpParser(decompress=True)
