"""An execution of an HTTP job: one request, made by a separate process. A status from 200 to 299 is success.

The host is resolved once, and each of its addresses is checked. The process follows no redirects and uses no proxy. So
it calls only hosts on the scheduler's allow-list.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import sys
import time
from typing import Any, Callable, Mapping, NoReturn, Optional, Tuple, Union
from urllib.parse import SplitResult, urlsplit

# This environment variable has the path of a file, which contains the shard and the request.
VARIABLE = "JOBCLOUD_SHARDING_CONTEXT_FILE"
# This one has the job's secrets, as a JSON object of headers. It is missing if there are none.
HEADERS = "JOBCLOUD_REQUEST_HEADERS"
_FIELDS = ("jobName", "taskId", "shardingTotalCount", "jobParameter", "shardingItem", "shardingParameter")
# At most this many bytes of the response body are written to the shard's log.
SHOWN_BYTES = 1 << 20
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_FACTS = {
    "X-Jobcloud-Run-Id": "runId",
    "X-Jobcloud-Attempt": "attempt",
    "X-Jobcloud-Fence": "fence",
    "X-Jobcloud-Team": "team",
}


class Refused(Exception):
    """An address must not be called, or (in webhooks.py) the server did not accept a report. The text says why."""


def main() -> None:
    """Make the request of an HTTP job. Exits with 1 if it does not succeed.

    The file that VARIABLE names holds the shard and the request. `scripts.write_context` has written this file.
    """
    try:
        with open(os.environ[VARIABLE], "rb") as file:
            known = json.load(file)
        context = json.dumps({name: known[name] for name in _FIELDS})
        facts = {header: str(known[name]) for header, name in _FACTS.items()}
        if "traceparent" in known:
            facts["traceparent"] = known["traceparent"]
        secrets = json.loads(os.environ.pop(HEADERS, "{}"))
        status, reason = call(known["request"], {"shardingContext": context, **facts, **_headers(secrets)})
    except (OSError, http.client.HTTPException, Refused, ValueError) as error:
        _fail(f"no answer: {type(error).__name__}: {error}")
    if not 200 <= status < 300:
        _fail(f"the answer is {status} {reason}")


def _headers(secrets: Mapping[str, str]) -> Mapping[str, str]:
    """Headers with secrets. Raises Refused, whose text contains no secret."""
    for name, value in secrets.items():
        if not value.isprintable() or not value.isascii():
            raise Refused(f"the secret for the header {name} has characters that a header cannot have")
    return secrets


def call(request: Mapping[str, Any], headers: Mapping[str, str]) -> Tuple[int, str]:
    """Make the request. Returns (status, reason), and prints both and the beginning of the body to stdout.

    Raises OSError or HTTPException if there is no valid answer. Raises Refused if an address must not be called.
    """

    def show(answer: http.client.HTTPResponse) -> None:
        print(f"{answer.status} {answer.reason}", flush=True)
        print(answer.read(SHOWN_BYTES).decode("utf-8", "backslashreplace"), end="", flush=True)

    return send(request, headers, show)


def send(
    request: Mapping[str, Any],
    headers: Mapping[str, str],
    use: Callable[[http.client.HTTPResponse], None] = lambda answer: None,
) -> Tuple[int, str]:
    """Make the request. Returns (status, reason). `use` may read the response. Raises the same errors as `call`."""
    parts = urlsplit(request["uri"])
    connection = connect(parts, request["connectTimeout"] / 1000)
    try:
        connection.sock.settimeout(request["readTimeout"] / 1000)
        body = request["data"].encode()
        if body:
            headers = {**headers, "Content-Type": request["contentType"]}
        connection.request(request["method"], target(parts), body=body or None, headers=dict(headers))
        answer = connection.getresponse()
        use(answer)
        return answer.status, answer.reason
    finally:
        connection.close()


def check_address(host: str, address: str) -> None:
    """Raises Refused if `host` is a name and `address` is not the same machine everywhere (`differs_by_machine`).

    The name localhost is allowed.
    """
    if differs_by_machine(inner_address(address)) and host != "localhost" and host.strip("[]") != address:
        problem = "not the same machine everywhere (a loopback, link-local or multicast address)"
        raise Refused(f"{host} is {address}, which is {problem}")


def differs_by_machine(address: Address) -> bool:
    """Whether the address means a different destination on each machine, as a loopback address does."""
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def inner_address(text: str) -> Address:
    """The IP address in `text`. If it is an IPv6 address that contains an IPv4 address, the IPv4 address.

    An IPv6 address can contain an IPv4 address in three forms: mapped, 6to4 (RFC 3056), NAT64 (RFC 6052).

    Raises ValueError if `text` is not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def target(parts: SplitResult) -> str:
    """The path and query of a URL, as in the first line of a request."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def connect(
    parts: SplitResult,
    timeout_s: float,
    check: Callable[[str, str], None] = check_address,
    watch: Callable[[socket.socket], None] = lambda sock: None,
    trust: Optional[ssl.SSLContext] = None,
) -> http.client.HTTPConnection:
    """Connect to the host of a URL. The time limit begins when the addresses of the host are known.

    `check` is called with the host and each of its addresses. `watch` gets the socket before anything is sent over it.
    `trust` has the authorities that may vouch for the server; None stands for those of the system. Raises OSError and
    the errors of `check`.
    """
    host = parts.hostname or ""
    usual = 443 if parts.scheme == "https" else 80
    port = parts.port or usual
    last: Exception = OSError(f"{host} has no address")
    # The host is resolved once, and all its addresses are checked before the first connection. So only checked
    # addresses are connected to.
    addresses = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        check(host, address)
    tls = (trust or ssl.create_default_context()) if parts.scheme == "https" else None
    until = time.monotonic() + timeout_s
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), max(0.001, until - time.monotonic()))
        except OSError as error:
            last = error
            continue
        return _over(plain, host, port, usual, tls, watch)
    raise last


def _over(
    plain: socket.socket,
    host: str,
    port: int,
    usual: int,
    tls: Optional[ssl.SSLContext],
    watch: Callable[[socket.socket], None],
) -> http.client.HTTPConnection:
    sock = plain
    try:
        if tls is not None:
            sock = tls.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        watch(sock)
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
    except BaseException:
        sock.close()
        raise
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = usual
    connection.sock = sock
    return connection


def _fail(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(1)
