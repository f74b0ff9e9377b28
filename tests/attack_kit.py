"""Hostile clients of a listener, on loopback."""

from __future__ import annotations

import contextlib
import lzma
import socket
import struct
import zlib
from urllib.parse import urlsplit

_PATIENCE_S = 60.0
HEALTH = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def dial(url: str, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """A connection to the server of a URL from a loopback address, over which `sent` was sent."""
    parts = urlsplit(url)
    assert parts.port is not None
    sock = socket.create_connection(("127.0.0.1", parts.port), _PATIENCE_S, source_address=(source, 0))
    with contextlib.suppress(OSError):  # the server may refuse the connection before
        sock.sendall(sent)
    return sock


def rest_of(sock: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection. Closes it too."""
    data = bytearray()
    with sock, contextlib.suppress(ConnectionError):
        while piece := sock.recv(1 << 16):
            data += piece
    return bytes(data)


def status_of(answer: bytes) -> int:
    """The status in the first line of an answer; 0 without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def first_status(sock: socket.socket) -> int:
    """The status of the next answer on an open connection."""
    return status_of(sock.recv(1 << 16))


def dictionary_bomb() -> bytes:
    """A small tar.xz whose decoder needs a dictionary of 1.5 GiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    packed = bytearray(lzma.compress(bytes(1 << 20), lzma.FORMAT_XZ, filters=filters, check=lzma.CHECK_NONE))
    # The header of the block, after that of the stream. Its checksum is made right again.
    size = (packed[12] + 1) * 4
    header = packed[12 : 12 + size]
    header[header.index(b"\x21\x01") + 2] = 39
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    packed[12 : 12 + size] = header
    return bytes(packed)
