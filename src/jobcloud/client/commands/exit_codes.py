"""The exit codes of `jobcloud`, as docs/cli.md lists them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_REACHABLE = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    SERVER_FAILED = 6
