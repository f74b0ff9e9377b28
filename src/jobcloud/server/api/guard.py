"""Checks in front of every route: host, identity, origin, size and speed of bodies. Unexpected errors reveal no detail.

The Host header is checked because a hostile page can point its own name at 127.0.0.1 (DNS rebinding), and so reach a
server that listens on loopback only. The Origin header is checked because a page can send a form to any address that
the browser can reach.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobcloud.access.directory import EMPTY, Directory
from jobcloud.errors import ConfigError
from jobcloud.server.api.authorization import ACCESS, note_passed_on
from jobcloud.server.api.authorization import Access as Rights
from jobcloud.server.api.body import MAX_APPLY_BYTES, MAX_JSON_BYTES
from jobcloud.server.api.elastic_job.access import LOGIN_PATH
from jobcloud.server.api.elastic_job.answers import answer as answer_to
from jobcloud.server.api.forward import READS
from jobcloud.server.api.identities import DIRECTORY, PRINCIPAL, Identities, bearer_token
from jobcloud.server.api.pages.access import is_sign_in, to_sign_in
from jobcloud.server.api.problems import Issue, Problem, from_error
from jobcloud.server.api.recording import note_problem
from jobcloud.server.api.replica import answering_from
from jobcloud.server.api.same_origin import check_change
from jobcloud.server.api.standby import Standby
from jobcloud.server.api.streams import refused_stream
from jobcloud.server.api.supervision import Ended, Supervised
from jobcloud.server.console.paths import is_console
from jobcloud.server.identity.sessions import DEFAULT_LIMITS, SessionOptions, cookies
from jobcloud.server.settings import is_loopback

log = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Resources that need no token, in addition to the pages of the sign-in.
OPEN_PATHS = frozenset(
    {"/api/v1/health", "/api/v1/openapi.json", "/api/v1/sign-in", "/login/oidc", "/login/oidc/callback", "/logout/oidc"}
)
#: the beginning of the paths of webhooks, whose senders prove a signature in place of an identity
HOOKS = "/api/v1/hooks/"
UPLOAD_PATHS = frozenset({"/api/v1/packages"})
_JSON_LIMITS = {"/api/v1/apply": MAX_APPLY_BYTES}
# The maximum number of reads that are answered at once, and of reads that wait. An answer may need tens of megabytes.
_READS_AT_ONCE, _MAX_WAITING = 4, 200
# The last part of the paths of reads that are not counted: they mostly wait, and compute little.
# Sign-ins wait for the identity provider.
_PATIENT = frozenset({"callback", "events", "health", "logs", "oidc", "stream"})
# Questions to the history have turns of their own (`threads.Questions`): a database that is away must not delay others.
_OF_HISTORY = re.compile(r"/api/v1/(history/.*|statistics|audit)|/api/job/(events|statistics)/.*", re.DOTALL)
# For answers to requests whose body was not read to its end: its rest would precede the next request.
_HANG_UP = {"Connection": "close"}


@dataclass(frozen=True, slots=True)
class Access:
    """Access rules. If `token` is "", every client that reaches the loopback address has access.

    `hosts` are the names of the server, in addition to the loopback names. Pages of `origins` may write, in addition to
    pages of the server itself. A body must arrive within `body_seconds`, a package within `upload_seconds`.
    `elastic_job_without_token`: clients of Elastic-Job-Cloud's API on this machine need no token. `metrics_token`, if
    it is not "", gives access to the metrics and to nothing else.
    """

    token: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_upload_bytes: int = 256 << 20
    body_seconds: float = 15.0
    upload_seconds: float = 600.0
    elastic_job_without_token: bool = False
    metrics_token: str = ""


def check_bind(host: str, token: str) -> None:
    """Raises ConfigError if the API would be open to other machines without a token."""
    if not token and not is_loopback(host):
        raise ConfigError(
            f"{host!r} is reachable from other machines, and no token is set", field="token", fix="set a token"
        )


class Guard:
    """ASGI middleware around the whole API."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        identities: Identities,
        standby: Standby | None = None,
        sessions: SessionOptions = DEFAULT_LIMITS,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._access = access
        self._identities = identities
        self._standby = standby
        self._hosts = LOOPBACK_NAMES | {host.lower().strip("[]") for host in access.hosts}
        self._turns = asyncio.Semaphore(_READS_AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        try:
            body = self._admit(scope, receive)
            copy = None
            if self._standby is not None and self._standby.concerns(scope):
                await self._identities.check_given(scope, is_open=_is_open(scope))
                copy = await self._standby.copy(scope)
                if copy is None:
                    note_passed_on(scope)
                    # The leader can check a cookie and the signature of a webhook, but not the client's certificate.
                    has_proof = bool(cookies(scope, self._sessions.cookie)) or scope["path"].startswith(HOOKS)
                    await self._standby.forward(scope, body, answer, has_proof=has_proof)
                    return
                answer.more_headers.append(self._standby.age(copy))
            directory = copy.core.directory if copy is not None else await self._directory(scope)
            await self._identities.identify(scope, directory, is_open=_is_open(scope))
            if scope["method"] in READS and not _is_patient(scope["path"]):
                await self._take_turn(answer)
            scope[ACCESS] = Rights(scope[PRINCIPAL], scope[DIRECTORY])
            with answering_from(copy):
                await self._app(scope, body, Supervised(scope, answer, self._identities))
        except Ended:
            log.info("a stream ended, because its sender has lost the right to it: %s", scope["path"])
        except asyncio.CancelledError:
            # The server is stopping. Without this answer, uvicorn would log a traceback for each request.
            if not answer.started:
                stops = Problem("unavailable", "The server stops.", headers=_HANG_UP)
                await self._refuse(scope, stops)(scope, receive, send)
        except Exception as error:
            problem = from_error(error)
            if problem is None:
                log.exception("a request failed: %s %s", scope["method"], scope["path"])
                problem = Problem("internal", "The server failed to answer. Its log has the reason.")
            if not answer.started:
                await self._refuse(scope, problem)(scope, receive, send)
        finally:
            answer.start()

    async def _directory(self, scope: Scope) -> Directory | None:
        """The rights of senders, if no copy of the state answers. None: those of this scheduler. Raises Problem."""
        if self._standby is None:
            return None
        # A standby answers checks of its health, and scrapes by the token for metrics, without reading the state.
        if _is_open(scope) or await self._identities.scrapes_metrics(scope):
            return EMPTY
        return await self._standby.directory()

    async def _take_turn(self, answer: _Answer) -> None:
        """Wait for a turn, which ends when the answer starts. Raises Problem if too many other reads wait."""
        if self._waiting >= _MAX_WAITING:
            raise Problem("too-many", f"{_MAX_WAITING} other reads wait.", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        answer.at_start = self._turns.release

    def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check all headers; return a bounded `receive` for the body. Raises Problem."""
        self._check_host(_headers(scope, b"host"))
        if scope["method"] not in READS:
            self._check_origin(_headers(scope, b"origin"), _headers(scope, b"host")[0])
            has_cookie = bool(cookies(scope, self._sessions.cookie)) and not bearer_token(scope)
            check_change(scope, has_cookie=has_cookie, secure=self._sessions.secure)
        upload = scope["path"] in UPLOAD_PATHS
        limit = self._access.max_upload_bytes if upload else _JSON_LIMITS.get(scope["path"], MAX_JSON_BYTES)
        _check_length(_headers(scope, b"content-length"), limit)
        seconds = self._access.upload_seconds if upload else self._access.body_seconds
        return _Body(receive, limit, seconds)

    def _check_host(self, given: list[str]) -> None:
        if len(given) != 1:
            raise Problem("bad-request", "Send exactly one Host header.")
        name = _host_name(given[0])
        if name not in self._hosts:
            fix = "use a loopback address, or add the name to the server's hosts setting"
            raise Problem("misdirected", f"{name[:100]!r} is not a name of this server: {fix}.")

    def _check_origin(self, given: list[str], host: str) -> None:
        for origin in given:
            if origin not in self._access.origins and _place(origin) != host.lower():
                fix = "if it is yours, add it to the server's origins setting"
                raise Problem("forbidden-origin", f"{origin[:100]!r} is not an origin of this server: {fix}.")

    def _refuse(self, scope: Scope, problem: Problem) -> ASGIApp:
        note_problem(scope, problem)
        page = to_sign_in(scope, problem, self._sessions)
        return page or refused_stream(scope, problem) or answer_to(scope["path"], problem)


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no identity."""
    path = scope["path"]
    return path in OPEN_PATHS or path.startswith(HOOKS) or path == LOGIN_PATH or is_sign_in(path) or is_console(path)


def _is_patient(path: str) -> bool:
    return path.rpartition("/")[2] in _PATIENT or _OF_HISTORY.fullmatch(path) is not None


class _Answer:
    """Forwards an answer, and records whether it has started.

    Calls `at_start` once, at the start of the answer or at the end of the request.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.at_start: Callable[[], None] | None = None
        self.more_headers: list[tuple[bytes, bytes]] = []

    def start(self) -> None:
        if self.at_start is not None:
            self.at_start()
            self.at_start = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.start()
            message.setdefault("headers", [])
            message["headers"] = [*message["headers"], *self.more_headers]
        await self._send(message)


class _Body:
    """Receives a body of at most `limit` bytes within `seconds`. Raises Problem."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._left = limit
        self._limit = limit
        self._seconds = seconds
        self._deadline: float | None = None
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"The body took longer than {self._seconds:g} s."
            raise Problem("timeout", detail, headers=_HANG_UP) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._limit)
        self._complete = not message.get("more_body", False)
        return message


def _check_length(given: Iterable[str], limit: int) -> None:
    for length in given:
        if not length.isascii() or not length.isdigit() or len(length) > 15:
            raise Problem(
                "bad-request", "The Content-Length is not a number.", [Issue("Content-Length", "is not a number")]
            )
        if int(length) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"The body is longer than the limit of {limit} bytes.", headers=_HANG_UP)


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _place(origin: str) -> str | None:
    """Host and port of an origin, in lower case; None if it is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _host_name(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
