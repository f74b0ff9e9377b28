"""A server with Vault's HTTP API for tests, made from its published documentation."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_kit import QuietServer

Answer = tuple[int, Any]


def read_answer(value: Any = "s3cret", field: str = "value") -> Answer:
    """The answer of the documentation, section "Read secret version"."""
    metadata = {
        "created_time": "2018-03-22T02:24:06.945319214Z", "custom_metadata": None, "deletion_time": "",
        "destroyed": False, "version": 2,
    }  # fmt: skip
    data = {"data": {field: value}, "metadata": metadata}
    return 200, {"request_id": "1", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data}


class Vault:
    """Answers from `answers`, and with the last of them again. `asked` has (path, headers)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answers: list[Answer] = [read_answer()]
        self.before: Callable[[Any], None] = lambda handler: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers))
                outer.before(self)
                status, body = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None: ...

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
