"""`HttpParser` for HTTP/1.x responses, with the method names of http-parser 0.9.0, on httptools (llhttp)."""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HTTP_RESPONSE = 1
HTTP_BOTH = 2


class HttpParser:
    """Parses one response that arrives in pieces.

    It has no attribute `errno`: pymesos would take it for another parser, whose errors in chunks it ignores.
    """

    def __init__(self, kind: int = HTTP_BOTH, decompress: bool = False) -> None:
        if kind not in (HTTP_RESPONSE, HTTP_BOTH) or decompress:
            raise ValueError("this replacement only parses responses and does not decompress")
        self._parser = HttpResponseParser(self)
        self._failed = False
        self._headers: dict[str, str] = {}
        self._headers_complete = False
        self._message_complete = False
        self._body: list[bytes] = []

    def execute(self, data: bytes, length: int) -> int:
        """Parse the first `length` bytes. Returns `length`, or 0 if they are not HTTP."""
        if self._failed or not length:
            return 0
        try:
            self._parser.feed_data(data if length == len(data) else data[:length])
        except (HttpParserError, HttpParserUpgrade):
            self._failed = True
            return 0
        return length

    def get_errno(self) -> int:
        """1 after bytes that are not HTTP, else 0."""
        return int(self._failed)

    def is_headers_complete(self) -> bool:
        return self._headers_complete

    def is_message_complete(self) -> bool:
        return self._message_complete

    def is_partial_body(self) -> bool:
        """Whether `recv_body` would return bytes."""
        return bool(self._body)

    def is_chunked(self) -> bool:
        encodings = (value for name, value in self._headers.items() if name.lower() == "transfer-encoding")
        return any("chunked" in value.lower() for value in encodings)

    def get_status_code(self) -> int:
        """The status code; 0 until the headers are complete."""
        return int(self._parser.get_status_code()) if self._headers_complete else 0

    def get_headers(self) -> dict[str, str]:
        """The headers as sent. Repeated headers are joined by commas."""
        return dict(self._headers)

    def recv_body(self) -> bytes:
        """The bytes of the body since the last call."""
        body = b"".join(self._body)
        self._body.clear()
        return body

    # Callbacks of httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        known = next((one for one in self._headers if one.lower() == key.lower()), None)
        if known is None:
            self._headers[key] = text
        else:
            self._headers[known] += ", " + text

    def on_headers_complete(self) -> None:
        self._headers_complete = True

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        self._message_complete = True
