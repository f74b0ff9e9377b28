"""A server for the receivers of HTTP requests in tests."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Reports no errors of connections: a client may end its connection at any moment."""

    def handle_error(self, *args: Any) -> None: ...
