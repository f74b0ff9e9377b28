"""Answers are refused if a route has not asked for rights. Streams end soon after their sender has lost the right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope
from tests.api_kit import START, FakeLoop, client_of, make_api

from jobcloud.access import tokens
from jobcloud.messages import EndSessions, Kind, Publish, PutAccess, RemoveAccess, Topic
from jobcloud.model import AccessToken, Member, Session, Team, User, changed
from jobcloud.server.api import Access, ApiOptions, Notices, events, supervision
from jobcloud.server.api.authorization import RULES, AccessDep, Of, Rule
from jobcloud.server.identity.sessions import UseNotes
from jobcloud.server.routes import Routes

SECRET = tokens.make("jct", b"s" * 38)
COOKIE = tokens.make("jcs", b"c" * 38)
LATER = START + 60_000


@pytest.mark.parametrize("of", [Of.FILTERED, Of.CHECKED])
def test_route_that_forgets_to_ask_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Of, caplog: pytest.LogCaptureFixture
) -> None:
    router = Routes()

    @router.get("/forgetful")
    def forget() -> str:
        return "of another team"

    @router.get("/mindful")
    def ask(access: AccessDep) -> str:
        return str(access.shown_teams())

    for path in ("/forgetful", "/mindful"):
        monkeypatch.setitem(RULES, ("GET", path), Rule(of))
    api = client_of(make_api(tmp_path, more_routes=[router]), url="http://127.0.0.1")
    answer = api.get("/forgetful")
    assert (answer.status_code, "another team" in answer.text) == (500, False)
    assert "has not asked for the rights" in caplog.text
    assert api.get("/mindful").json() == "None"


def test_route_without_a_rule_gives_no_answer(tmp_path: Path) -> None:
    router = Routes()

    @router.get("/unruled")
    def show() -> str:
        return "of another team"

    answer = client_of(make_api(tmp_path, more_routes=[router]), url="http://127.0.0.1").get("/unruled")
    assert (answer.status_code, "another team" in answer.text) == (500, False)


def test_list_of_an_empty_installation_is_an_answer(tmp_path: Path) -> None:
    api = client_of(make_api(tmp_path), url="http://127.0.0.1", strict=False)
    lists = [
        path for (method, path), rule in RULES.items()
        if method == "GET" and rule.of is Of.FILTERED and "{" not in path and not path.endswith(("/events", "/changes"))
    ]  # fmt: skip
    assert len(lists) > 10
    assert [path for path in lists if api.get(path).status_code == 500] == []


class Listener:
    """Listens to the events of an API. `before` is called before each message that a stream sends."""

    def __init__(self, folder: Path) -> None:
        self.loop = FakeLoop()
        self.notices = Notices()
        access = Access(token="t0ken-of-the-test")
        self.app = make_api(
            folder, self.loop, options=ApiOptions(access=access), notices=self.notices, clock=lambda: self.loop.now
        )
        self.put(Team("alpha", (Member("user:ann", "viewer"),)))
        self.put(self.token())

    def token(self, **changes: Any) -> AccessToken:
        return AccessToken(SECRET.id, "t", SECRET.hash, "user:ann", START, **changes)

    def put(self, record: Any) -> None:
        self.loop.feed(PutAccess(self.loop.now, record))

    def publish(self, text: str, job: str = "alpha:hello") -> None:
        self.notices.publish(Publish(1, Topic.FIRED, text, job=job))

    async def listen(
        self, after_first: Callable[[], None], *, cookie: bool = False, path: str = "/api/v1/events"
    ) -> list[str]:
        """The text of a stream until it ends. `after_first` is called after the first event."""
        found: list[str] = []
        ended = False
        token = (b"authorization", f"Bearer {SECRET.text}".encode())
        headers = [(b"host", b"127.0.0.1"), (b"cookie", f"jobcloud={COOKIE.text}".encode()) if cookie else token]
        scope: Scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
            "headers": headers, "query_string": b"recent=1", "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip

        received: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if not received:
                await asyncio.Event().wait()
            return received.pop()

        async def send(message: Message) -> None:
            nonlocal ended
            assert not ended, "something follows the end"
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                return
            ended = not message.get("more_body", False)
            found.append(message["body"].decode())
            if "first" in found[-1]:
                after_first()
                self.publish("second")

        async with asyncio.timeout(20):
            await self.app(scope, receive, send)
        assert ended
        return found


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listener:
    monkeypatch.setattr(supervision, "_RENEW_S", 0.0)
    monkeypatch.setattr(events, "PING_S", 0.05)
    made = Listener(tmp_path)
    made.publish("first")
    return made


@pytest.mark.parametrize(
    ("lose", "status"),
    [
        (lambda it: it.put(it.token(revoked_ms=START)), 401),
        (lambda it: it.put(it.token(expires_ms=START)), 401),
        (lambda it: it.put(it.token(scope=(("beta", "viewer"),))), 403),
        (lambda it: it.put(Team("alpha")), 403),
        (lambda it: it.put(Team("alpha", (Member("user:ann", "metrics"),))), 403),
    ],
    ids=["revoked", "expired", "narrower", "no member", "other role"],
)
def test_stream_ends_when_its_sender_loses_the_right(
    listener: Listener, lose: Callable[[Listener], None], status: int
) -> None:
    found = asyncio.run(listener.listen(lambda: lose(listener)))
    kind, _, data = found[-1].strip().partition("\ndata: ")
    assert kind == "event: error"
    assert json.loads(data)["status"] == status
    assert "second" not in "".join(found)


def test_stream_of_changes_ends_when_its_sender_loses_the_right(listener: Listener) -> None:
    def lose() -> None:
        listener.put(Team("alpha"))
        listener.publish("third", job="alpha:hidden")

    listener.publish("of the run", job="alpha:first")
    found = asyncio.run(listener.listen(lose, path="/api/v1/changes"))
    assert "event: error" in found[-1]
    assert "hidden" not in "".join(found)


def test_stream_goes_on_while_its_sender_has_the_right(listener: Listener) -> None:
    def change() -> None:
        listener.put(Team("alpha", (Member("user:ann", "operator"),)))
        listener.publish("hidden", job="beta:hello")
        asyncio.get_running_loop().call_later(0, listener.publish, "third")
        asyncio.get_running_loop().call_later(0.01, listener.notices.close)

    found = "".join(asyncio.run(listener.listen(change)))
    assert "second" in found
    assert "third" in found
    assert "hidden" not in found


def test_right_is_checked_again_four_times_a_minute() -> None:
    """A stream sends something at least every 15 s, so it ends within 30 s."""
    assert supervision._RENEW_S == 15.0


def _session(**changes: Any) -> Session:
    return changed(Session(COOKIE.id, COOKIE.hash, "user:ann", "password", START, START, LATER), **changes)


def _wait(listener: Listener, until: int) -> None:
    listener.loop.now = until


@pytest.mark.parametrize(
    ("lose", "status"),
    [
        (lambda it: it.loop.feed(RemoveAccess(it.loop.now, Kind.SESSION, COOKIE.id)), 401),
        (lambda it: it.loop.feed(EndSessions(it.loop.now, "user:ann")), 401),
        (lambda it: it.put(User("ann", START, disabled=True)), 401),
        (lambda it: _wait(it, LATER), 401),
        (lambda it: it.put(_session(created_ms=START - 8 * 86_400_000)), 401),
        (lambda it: it.put(Team("alpha")), 403),
    ],
    ids=["signed out", "signed out everywhere", "disabled", "expired", "too old", "no member"],
)
def test_stream_of_a_browser_ends_with_its_session(
    listener: Listener, lose: Callable[[Listener], None], status: int
) -> None:
    listener.put(User("ann", START))
    listener.put(_session())
    found = asyncio.run(listener.listen(lambda: lose(listener), cookie=True))
    kind, _, data = found[-1].strip().partition("\ndata: ")
    assert (kind, json.loads(data)["status"]) == ("event: error", status)
    assert "second" not in "".join(found)


def test_open_stream_is_no_use_of_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten browser is signed out after the idle limit, although its stream is checked every 15 s."""
    noted: list[str] = []
    monkeypatch.setattr(UseNotes, "note", lambda self, session: noted.append(session.id))
    monkeypatch.setattr(supervision, "_RENEW_S", 0.0)
    listener = Listener(tmp_path)
    listener.publish("first")
    listener.put(User("ann", START))
    listener.put(_session())
    found = asyncio.run(listener.listen(lambda: _wait(listener, LATER), cookie=True))
    assert '"status": 401' in found[-1]
    assert noted == [COOKIE.id], "only the request itself counts"
