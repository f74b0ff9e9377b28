"""Sessions: cookies of all forms, limits, the note of their use, one-time links."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core_world import POLICY, apply

from jobcloud.access import tokens
from jobcloud.errors import ConfigError, StoreError
from jobcloud.messages import Command, EndSessions, Kind, NoteSessions, PutAccess, RemoveAccess, Save, Tick
from jobcloud.model import SERVER_SUBJECT, Principal, Session, User
from jobcloud.scheduler import Scheduler, Stored
from jobcloud.scheduler.accounts import LIMITS, MAX_SESSIONS_EACH
from jobcloud.server.identity import sessions
from jobcloud.server.identity.links import LINK_MS, MAX_LINKS, Links
from jobcloud.server.identity.sessions import (
    MAX_GROUPS,
    NOTE_MS,
    SessionOptions,
    UseNotes,
    cookies,
    end_cookie,
    find_session,
    start_session,
)

START = 1_700_000_000_000
HOUR = 3_600_000


@dataclass
class World:
    """A scheduler that carries out commands, with a store that the next leader reads."""

    sessions: SessionOptions = field(default_factory=lambda: SessionOptions(12 * HOUR, 48 * HOUR))
    server_token: str = "t0ken"
    now: int = START
    epoch: int = 1

    def __post_init__(self) -> None:
        self.stored = Stored()
        self.core = Scheduler(POLICY, self.stored, self.epoch, self.now)
        for name in ("ann", "bob"):
            self.feed(PutAccess(self.now, User(name, self.now)))

    def command(self, make: Callable[[int], Command]) -> int:
        self.feed(make(self.now))
        return self.now

    def feed(self, event: Command | Tick) -> None:
        for effect in self.core.handle(event):
            if isinstance(effect, Save):
                apply(self.stored, effect.writes)

    def fail_over(self) -> None:
        self.epoch += 1
        self.core = Scheduler(POLICY, self.stored, self.epoch, self.now)

    def find(self, *cookie: str) -> Session | None:
        return find_session(list(cookie), self.core.directory, self, self.now)


def value_of(set_cookie: str) -> str:
    return set_cookie.partition(";")[0].partition("=")[2]


def scope(*headers: bytes) -> dict[str, object]:
    return {"headers": [(b"cookie", value) for value in headers]}


def test_sign_in_stores_the_hash_only_and_sets_a_cookie_that_scripts_cannot_read() -> None:
    world = World()
    header = start_session(world, "user:ann", ["ops"], "password")
    name, _, rest = header.partition("=")
    assert name == "jobcloud"
    assert rest.split("; ")[1:] == ["Path=/", "Max-Age=172800", "HttpOnly", "SameSite=Lax"]
    found = world.find(value_of(header))
    assert found is not None
    assert (found.subject, found.groups, found.by) == ("user:ann", ("ops",), "password")
    assert value_of(header) not in repr(world.stored)
    assert value_of(header).rpartition("_")[2] not in repr(world.stored)


def test_cookie_of_a_server_with_tls_is_bound_to_its_host() -> None:
    world = World(SessionOptions(secure=True))
    header = start_session(world, "user:ann")
    assert header.startswith("__Host-jobcloud=jcs_")
    assert header.endswith("; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure")
    assert "Domain" not in header
    assert end_cookie(world.sessions) == "__Host-jobcloud=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"


def test_session_survives_a_change_of_the_leader() -> None:
    world = World()
    cookie = value_of(start_session(world, "user:ann", ["ops"]))
    before = world.find(cookie)
    world.fail_over()
    assert world.find(cookie) == before
    world.command(lambda at: EndSessions(at, "user:ann"))
    world.fail_over()
    assert world.find(cookie) is None


def test_session_ends_at_its_limits() -> None:
    world = World()
    cookie = value_of(start_session(world, "user:ann"))
    world.now += 12 * HOUR - 1
    assert world.find(cookie) is not None
    world.now += 1
    assert world.find(cookie) is None, "idle for 12 h"
    cookie = value_of(start_session(world, "user:ann"))
    began = world.now
    while world.now < began + 48 * HOUR - HOUR:
        world.now += HOUR
        session = world.find(cookie)
        assert session is not None
        world.command(lambda at, session=session: NoteSessions(at, (session.id,)))  # type: ignore[misc]
    world.now = began + 48 * HOUR - 1
    assert world.find(cookie) is not None
    world.now += 1
    assert world.find(cookie) is None, "48 h after the sign-in"


def test_lower_limits_of_the_settings_hold_for_sessions_that_have_begun() -> None:
    world = World()
    cookie = value_of(start_session(world, "user:ann"))
    world.now += HOUR
    world.sessions = SessionOptions(12 * HOUR, HOUR)
    assert world.find(cookie) is None


def test_session_ends_when_the_identity_provider_says_so() -> None:
    world = World()
    header = start_session(world, "user:ann", expires_ms=world.now + 90_000)
    assert "; Max-Age=90;" in header
    world.now += 90_000
    assert world.find(value_of(header)) is None
    world.feed(Tick(world.now + 20 * HOUR))
    later = start_session(world, "user:ann", expires_ms=world.now + 1_000 * HOUR)
    assert "; Max-Age=172800;" in later, "the limit of the settings comes first"


def test_sessions_of_the_servers_token_end_with_this_token() -> None:
    world = World()
    own, ann = (value_of(start_session(world, subject)) for subject in (SERVER_SUBJECT, "user:ann"))
    assert world.find(own) is not None
    world.server_token = "another"
    assert world.find(own) is None
    assert world.find(ann) is not None


def test_other_cookies_prove_nothing() -> None:
    world = World()
    cookie = value_of(start_session(world, "user:ann"))
    prefix, session_id, secret = cookie.split("_", 2)
    other = tokens.make(tokens.SESSION_PREFIX, bytes(38))
    for text in (
        "", cookie[:-1], cookie + "A", cookie.upper(), f'"{cookie}"', f" {cookie}", cookie + "\n", other.text, "jcs",
        f"jct_{session_id}_{secret}", f"{prefix}_{session_id}_{'A' * 43}", f"{prefix}_{'0' * 12}_{secret}",
        "x" * 30_000, "jcs_é_ü",
    ):  # fmt: skip
        assert world.find(text) is None, text[:80]
    assert world.find(cookie, cookie) is None
    assert world.find() is None
    assert world.find(cookie) is not None


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_cookie_header_breaks_the_parser(headers: list[bytes]) -> None:
    for value in cookies(scope(*headers), "jobcloud"):
        assert isinstance(value, str)


def test_cookies_are_found_among_others_and_duplicates_are_seen() -> None:
    many = b"; ".join(b"c%d=%d" % (number, number) for number in range(3_000))
    assert cookies(scope(many, b"jobcloud=a"), "jobcloud") == ["a"]
    assert cookies(scope(b"x=1;jobcloud=a; jobcloud=b", b"jobcloud=c"), "jobcloud") == ["a", "b", "c"]
    assert cookies(scope(b"Jobcloud=a; jobcloud2=b; __Host-jobcloud=c; jobcloud; xjobcloud=d"), "jobcloud") == []
    assert cookies(scope(b"jobcloud=a=b"), "jobcloud") == ["a=b"]


def test_groups_that_cannot_be_stored_are_refused() -> None:
    world = World()
    for groups in (["g"] * (MAX_GROUPS + 1), ["g" * 201]):
        with pytest.raises(ConfigError, match="groups"):
            start_session(world, "user:ann", groups)
    assert not world.core.directory.sessions


def test_further_session_of_a_person_ends_the_one_that_was_not_used_longest() -> None:
    world = World()
    made = []
    for _ in range(MAX_SESSIONS_EACH):
        made.append(value_of(start_session(world, "user:ann")))
        world.now += 1
    other = value_of(start_session(world, "user:bob"))
    first = world.find(made[0])
    assert first is not None
    world.command(lambda at: NoteSessions(at, (first.id,)))
    start_session(world, "user:ann")
    assert world.find(made[0]) is not None
    assert world.find(made[1]) is None
    assert world.find(other) is not None


def test_note_of_a_session_that_has_ended_does_not_bring_it_back() -> None:
    world = World()
    cookie = value_of(start_session(world, "user:ann"))
    session = world.find(cookie)
    assert session is not None
    world.command(lambda at: RemoveAccess(at, Kind.SESSION, session.id))
    world.command(lambda at: NoteSessions(at, (session.id, "unknown")))
    world.fail_over()
    assert not world.core.directory.sessions


def session(name: str, seen_ms: int = START) -> Session:
    return Session(name, "hash", "user:ann", "password", START, seen_ms, START + HOUR)


async def idle(notes: UseNotes) -> None:
    """Wait until nothing is being written."""
    while notes._writing is not None:
        await asyncio.wait([notes._writing])


def test_use_is_written_at_most_once_a_minute_for_each_session() -> None:
    now, written = START + NOTE_MS - 1, []
    notes = UseNotes(lambda make: written.append(make(now)), lambda: now)

    async def use() -> None:
        nonlocal now
        notes.note(session("a"))
        await idle(notes)
        assert written == []
        now += 1
        for _ in range(5):
            notes.note(session("a"))
            notes.note(session("b"))
        await idle(notes)
        notes.note(session("a", now))
        await idle(notes)

    asyncio.run(use())
    assert written == [NoteSessions(now, ("a", "b"))]


def test_failure_to_note_the_use_is_not_repeated_for_a_minute() -> None:
    now, tries = START + HOUR, 0

    def fail(make: object) -> None:
        nonlocal tries
        tries += 1
        raise StoreError("out of reach")

    notes = UseNotes(fail, lambda: now)

    async def use() -> None:
        nonlocal now
        for _ in range(3):
            notes.note(session("a"))
            await idle(notes)
        assert tries == 1
        now += NOTE_MS
        notes.note(session("a"))
        await idle(notes)

    asyncio.run(use())
    assert tries == 2


def test_link_signs_in_once_and_for_some_minutes() -> None:
    links = Links()
    code, link = links.make("user:ann", Principal("token:server"), START)
    assert link.expires_ms == START + LINK_MS
    assert links.take(code + "x", START) is None
    assert links.take(code, START) == link
    assert links.take(code, START) is None
    late, _ = links.make("user:ann", Principal("token:server"), START)
    assert links.take(late, START + LINK_MS) is None


def test_unused_links_are_bounded() -> None:
    links = Links()
    codes = [links.make("user:ann", Principal(f"user:{number}"), START)[0] for number in range(MAX_LINKS + 1)]
    assert links.take(codes[0], START) is None
    assert links.take(codes[1], START) is not None
    assert links.take(codes[-1], START) is not None


def test_form_tokens_differ_and_do_not_reveal_the_cookie() -> None:
    world = World()
    one, other = (value_of(start_session(world, "user:ann")) for _ in range(2))
    assert sessions.form_token(one) != sessions.form_token(other)
    assert sessions.form_token(one) not in (found.hash for found in world.core.directory.sessions.values())


def test_full_table_of_sessions_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, Kind.SESSION, 3)
    world = World()
    made = []
    for number in range(4):
        world.feed(PutAccess(world.now, User(f"u{number}", world.now)))
        made.append(value_of(start_session(world, f"user:u{number}")))
        world.now += 1
    assert [world.find(cookie) is not None for cookie in made] == [False, True, True, True]
    kept = world.find(made[1])
    assert kept is not None
    world.command(lambda at: PutAccess(at, msgspec.structs.replace(kept, seen_ms=at)))
    assert len(world.core.directory.sessions) == 3, "the change of a session ends no other"
