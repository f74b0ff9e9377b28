"""Who did what: each request gets an id, and the requests that matter get entries in the audit log.

The id is in the answer and in all lines of the log that the request causes. A change has two entries. The first one,
the intent, is durable before the change begins. `Authorize` writes it as soon as the sender's rights are proved, and
`RecordedLoop` writes it before any command of a request that has none. So no route can forget it. The second one tells
how the request ended, and what it has changed. A refused request and a read have one entry.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from jobcloud.access.verbs import Verb
from jobcloud.audit.entries import Change, Entry, Kind, Outcome
from jobcloud.audit.service import Audit
from jobcloud.errors import Refused, StoreError, StoreFull, Unavailable
from jobcloud.messages import Command
from jobcloud.model import cut
from jobcloud.scheduler import Scheduler
from jobcloud.server.api.changes import MAX_CHANGES, Seen, change_of, look
from jobcloud.server.api.forward import HOP_HEADER, READS, REQUEST_HEADER, REQUEST_ID
from jobcloud.server.api.identities import NOBODY, PRINCIPAL
from jobcloud.server.api.ports import Health, Loop
from jobcloud.server.api.problems import Problem

log = logging.getLogger(__name__)
T = TypeVar("T")

#: the key of the record in the scope of a request
RECORD = "jobcloud.record"
# Changes of one request whose configuration is converted, on the thread of the API.
_WITH_CONTENT = 100
_REFUSED = frozenset({401, 403, 421})
_ID = re.compile(rb"[0-9a-f]{16}")
# How long a thread waits until an intent is durable.
_WRITE_S = 30.0
_current: ContextVar[Record | None] = ContextVar("_current", default=None)


class Record:
    """The entry of the audit log about one request. Without a log, nothing is written."""

    def __init__(self, audit: Audit | None, scope: Scope, request_id: str = "", *, forwarded: bool = False) -> None:
        self._audit = audit
        self._scope = scope
        self.id = request_id
        self._forwarded = forwarded
        self._route = self._verb = self._team = self._target = ""
        self._is_open = False
        self._passed_on = False
        self._intent: int | None = None
        self._changes: list[tuple[Seen, bool]] = []
        self._ended = False
        #: why the request was refused or has failed
        self.reason = ""
        #: the subject as whom somebody tries to sign in
        self.tried = ""

    # ---------------------------------------------------------------------------------------- before the change

    def routed(self, route: str, verb: Verb | None, *, team: str = "", target: str = "") -> None:
        """Note the route of the request. `verb`: None if everybody may send the request."""
        self._route, self._team, self._target = route, team, target
        self._verb, self._is_open = verb or "", verb is None

    def passed_on(self, route: str, verb: Verb | None) -> None:
        """Note that the leader answers the request, and records who has sent it. `verb` as in `routed`."""
        self.routed(route, verb)
        self._passed_on = True

    async def intend(self) -> None:
        """Return when the intent is durable. Raises Problem: then nothing may be changed."""
        reply = self._begin_intent()
        if reply is not None:
            await _durable(asyncio.wrap_future(reply))
            self._intent = reply.result()

    def intend_now(self) -> None:
        """As `intend`, for a thread that may wait."""
        reply = self._begin_intent()
        if reply is not None:
            try:
                self._intent = reply.result(_WRITE_S)
            except Exception as error:
                raise _problem(error) from error

    def changing(self, command: Command, core: Scheduler | None) -> list[Seen]:
        """The changes that a command will make. Called on the scheduler's thread, so it raises nothing."""
        if self._audit is None or len(self._changes) >= MAX_CHANGES:
            return []
        try:
            return look(command, core)
        except Exception:
            log.exception("the audit log does not know what a command changes")
            return [Seen(type(command).__name__, "")]

    def changed(self, seen: list[Seen], *, uncertain: bool) -> None:
        self._changes += [(each, uncertain) for each in seen]

    # ------------------------------------------------------------------------------------------------- the end

    def end(self, status: int = 0) -> None:
        """Record how the request has ended, once. `status` 0: without an answer."""
        if self._ended:
            return
        self._ended = True
        audit = self._audit
        if audit is None:
            return
        try:
            if (entry := self._last_entry(audit, status)) is not None:
                audit.record(entry)
        except Exception:
            log.exception("a request has no entry in the audit log")

    def _last_entry(self, audit: Audit, status: int) -> Entry | None:
        outcome = _outcome(status)
        if self._intent is not None:
            return self._entry(Kind.OUTCOME, outcome, status, of=self._intent)
        # A change without an intent is a sign-in, or a standby has passed it on.
        is_read = self._scope["method"] in READS
        if outcome is not Outcome.REFUSED and not (
            self._verb in audit.options.reads if is_read else self._passed_on or self._is_open
        ):
            return None
        if is_read and outcome is not Outcome.REFUSED:
            admitted = audit.windows.admits_read(self._sender, self._scope["path"])
        else:
            admitted = outcome is Outcome.SUCCEEDED or audit.windows.admits_refusal(self._sender, known=self._is_known)
        return self._entry(Kind.REQUEST, outcome, status) if admitted else None

    # --------------------------------------------------------------------------------------------------- parts

    @property
    def _client(self) -> str:
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    @property
    def _is_known(self) -> bool:
        return self._scope.get(PRINCIPAL, NOBODY) is not NOBODY

    @property
    def subject(self) -> str:
        """The subject; "" for a client without an identity."""
        return str(self._scope[PRINCIPAL].subject) if self._is_known else ""

    @property
    def _sender(self) -> str:
        """The subject, or the address of a client without an identity."""
        return self.subject or self._client

    def _begin_intent(self) -> Future[int] | None:
        """None if there is no log, or if the request has an intent already. Raises Problem."""
        audit = self._audit
        if audit is None or self._intent is not None:
            return None
        # A client without an identity may share its address with others, and its sign-in must succeed.
        if self._is_known and audit.windows.exhausted(self._sender):
            detail = "Too many requests of this sender were refused in the last minute. Nothing was changed."
            raise Problem("too-many", detail, headers={"Retry-After": "60"})
        return audit.intend(self._entry(Kind.INTENT, Outcome.ALLOWED, 0))

    def _entry(self, kind: Kind, outcome: Outcome, status: int, of: int = 0) -> Entry:
        assert self._audit is not None
        scope = self._scope
        principal = scope.get(PRINCIPAL, NOBODY)
        changes = tuple(
            change_of(seen, uncertain=uncertain) if place < _WITH_CONTENT else Change(seen.command, seen.key)
            for place, (seen, uncertain) in enumerate(self._changes)
        )
        details: dict[str, object] = {"passed_on": True} if self._passed_on else {}
        if self.tried:
            details["tried"] = cut(self.tried, 200)
        return Entry(
            at=self._audit.now_ms(), kind=kind, request=self.id,
            subject=cut(self.subject, 300), via=cut(principal.via, 100),
            groups=tuple(cut(group, 100) for group in principal.groups[:50]),
            client=self._client, claimed=self._claimed(), forwarded=self._forwarded,
            method=scope["method"], route=self._route or cut(scope["path"], 300),
            # The query of a sign-in may have a secret.
            query=cut(scope["query_string"].decode("latin-1"), 500) if self._verb else "",
            verb=self._verb, team=cut(self._team, 100),
            target=cut(self._target or (changes[0].key if changes else ""), 500),
            outcome=outcome, status=status, reason=cut(self.reason, 300), of=of, changes=changes, details=details,
        )  # fmt: skip

    def _claimed(self) -> str:
        """The address of the client as a proxy claims it. Anybody can send this header."""
        if self._forwarded:
            return ""
        given = (value for name, value in self._scope["headers"] if name == b"x-forwarded-for")
        return b", ".join(given).decode("latin-1")[:200]


def sender() -> str:
    """The subject who has sent the request of this thread or task; "" without a request or an identity."""
    record = _current.get()
    return record.subject if record is not None else ""


def record_of(scope: Scope) -> Record:
    """The record of a request. A request of a test that reaches no log has one that writes nothing."""
    found = scope.get(RECORD)
    if found is None:
        found = scope[RECORD] = Record(None, scope)
    assert isinstance(found, Record)
    return found


def note_problem(scope: Scope, problem: Problem) -> None:
    """Note why a request was refused or has failed."""
    record_of(scope).reason = f"{problem.slug}: {problem.detail}"


class Recording:
    """ASGI middleware around the guard."""

    def __init__(self, app: ASGIApp, audit: Audit | None) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        forwarded = any(name == HOP_HEADER for name, _ in scope["headers"])
        given = [value for name, value in scope["headers"] if name == REQUEST_HEADER] if forwarded else []
        # A request that a standby has passed on keeps its id, so that the entries of both can be found by it.
        is_known = len(given) == 1 and _ID.fullmatch(given[0])
        record = Record(
            self._audit, scope, given[0].decode() if is_known else secrets.token_hex(8), forwarded=forwarded
        )
        scope[RECORD], scope[REQUEST_ID] = record, record.id

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.end(message["status"])
                message["headers"] = [*message.get("headers", ()), (REQUEST_HEADER, record.id.encode())]
            await send(message)

        token = _current.set(record)
        try:
            with bound_contextvars(request=record.id):
                await self._app(scope, receive, answer)
        finally:
            _current.reset(token)
            record.end()


class RecordedLoop:
    """A loop that carries out no command without an entry in the audit log.

    `core` is the present scheduler. It is called on the scheduler's thread.
    """

    def __init__(self, loop: Loop, audit: Audit, core: Callable[[], Scheduler | None]) -> None:
        self._loop = loop
        self._audit = audit
        self._core = core

    def command(self, make: Callable[[int], Command], timeout: float = 10.0) -> None:
        """As `Loop.command`. Also raises Problem if the change cannot be recorded."""
        record = _current.get()
        if record is None:
            scope = {"method": "", "path": "", "query_string": b"", "headers": []}
            record = Record(self._audit, scope)
            try:
                self._command(record, make, timeout)
            finally:
                record.end(200)
        else:
            self._command(record, make, timeout)

    def _command(self, record: Record, make: Callable[[int], Command], timeout: float) -> None:
        record.intend_now()
        seen: list[Seen] = []

        def at(instant: int) -> Command:
            command = make(instant)
            seen[:] = record.changing(command, self._core())
            return command

        try:
            self._loop.command(at, timeout)
        except (Refused, StoreFull) as error:
            if isinstance(error, Unavailable):
                record.changed(seen, uncertain=True)
            raise
        except Exception:
            record.changed(seen, uncertain=True)
            raise
        record.changed(seen, uncertain=False)

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5.0) -> T:
        return self._loop.ask(fn, timeout)

    def health(self) -> Health:
        return self._loop.health()


def _outcome(status: int) -> Outcome:
    if status in _REFUSED:
        return Outcome.REFUSED
    return Outcome.SUCCEEDED if 200 <= status < 400 else Outcome.FAILED


async def _durable(reply: asyncio.Future[int]) -> None:
    try:
        await reply
    except Exception as error:
        raise _problem(error) from error


def _problem(error: Exception) -> Problem:
    """The answer to a change that cannot be recorded."""
    if isinstance(error, Problem):
        return error
    slug = "storage-full" if isinstance(error, StoreFull) else "unavailable"
    why = str(error) if isinstance(error, StoreError | Unavailable) else "the audit log does not answer"
    return Problem(slug, f"The change was not carried out, because it cannot be recorded: {why}.")
