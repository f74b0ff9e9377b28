"""Users, teams, roles, service accounts and tokens: who may change them, and what a change does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job

from jobcloud.access.directory import Directory
from jobcloud.access.verbs import OF_INSTALLATION, ROLES, Verb
from jobcloud.errors import ConfigError, Conflict, NotAllowed, NotFound, Outdated, Refused
from jobcloud.messages import (
    Event,
    Kind,
    PutAccess,
    RemoveAccess,
    RemoveService,
    RevokeServerToken,
    RevokeToken,
)
from jobcloud.model import (
    EVERY_TEAM,
    SERVER_SUBJECT,
    AccessToken,
    Grant,
    Member,
    Principal,
    Quota,
    Role,
    Session,
    Team,
    User,
    changed,
)
from jobcloud.scheduler import accounts
from jobcloud.scheduler.accounts import TOKEN_MEMORY_MS, TOKEN_MS

SERVER = Principal(SERVER_SUBJECT, grants=((EVERY_TEAM, "admin"), (EVERY_TEAM, "teardown")))
ANN = Principal("user:ann")  # admin of the installation
BOB = Principal("user:bob")  # admin of the team web
EVE = Principal("user:eve")  # viewer in the team web
DAY = 86_400_000


class Office:
    """A scheduler with three users and the team web."""

    def __init__(self) -> None:
        self.desk = Desk(make_app(team="web"), make_job(team="web"))
        self._numbers = 0
        for name in ("ann", "bob", "eve"):
            self.put(User(name, self.at, f"hash of {name}"), SERVER)
        self.put(Team(EVERY_TEAM, (Member("user:ann", "admin"),)), SERVER)
        self.put(Team("web", (Member("user:bob", "admin"), Member("user:eve", "viewer"))), SERVER)

    @property
    def at(self) -> int:
        return self.desk.at

    @property
    def directory(self) -> Directory:
        return self.desk.scheduler.directory

    def put(self, record: Any, by: Principal | None, **how: Any) -> None:
        self.desk.do(PutAccess(self.at, record, by=by, **how))

    def remove(self, kind: Kind, key: str, by: Principal | None = SERVER) -> None:
        self.desk.do(RemoveAccess(self.at, kind, key, by))

    def add(self, team: str, subject: str, role: str, by: Principal) -> None:
        old = self.directory.teams.get(team, Team(team))
        self.put(changed(old, members=(*old.members, Member(subject, role))), by)

    def token(self, by: Principal, subject: str = "", scope: tuple[Grant, ...] = (), lasts_ms: int = 0) -> Principal:
        """Make a token. Returns the principal that it proves."""
        self._numbers += 1
        token_id = f"t{self._numbers}"
        ends = self.at + lasts_ms if lasts_ms else 0
        made = AccessToken(token_id, "ci", f"hash {token_id}", subject or by.subject, self.at, ends, scope)
        self.put(made, by, create=True)
        return principal_of(self.directory.tokens[token_id])


def principal_of(token: AccessToken) -> Principal:
    return Principal(token.subject, f"token {token.id}", scope=token.scope or None)


@pytest.fixture
def office() -> Office:
    return Office()


def refused(office: Office, kind: type[Refused], event: Event, text: str | None = None) -> None:
    """Check that an event is refused and changes nothing."""
    stored = office.desk.scheduler._state
    tables = ("teams", "roles", "users", "access_tokens", "sessions")
    before = [dict(getattr(stored, table)) for table in tables]
    with pytest.raises(kind, match=text):
        office.desk.do(event)
    assert [getattr(stored, table) for table in tables] == before
    assert not stored.write_set


# ------------------------------------------------------------------------------------------------- teams and roles


def test_team_admin_changes_members_of_the_own_team_only(office: Office) -> None:
    office.add("web", "group:ops", "operator", BOB)
    assert Member("group:ops", "operator") in office.directory.teams["web"].members
    web = office.directory.teams["web"]
    for team, by in ((changed(web, members=()), EVE), (Team(EVERY_TEAM, (Member("user:bob", "viewer"),)), BOB)):
        refused(office, NotAllowed, PutAccess(office.at, team, by=by))
    office.put(Team("data"), ANN)
    refused(office, NotAllowed, PutAccess(office.at, Team("data", (Member("user:bob", "viewer"),)), by=BOB))
    office.put(Role("lead", ("manage-team", "view")), ANN)
    office.add(EVERY_TEAM, "user:joe", "lead", ANN)
    every = changed(office.directory.teams[EVERY_TEAM], members=())
    refused(office, NotAllowed, PutAccess(office.at, every, by=Principal("user:joe")))
    refused(office, NotAllowed, PutAccess(office.at, Team("new", (Member("user:bob", "admin"),)), by=BOB))


def test_quota_and_weight_need_an_admin_of_the_installation(office: Office) -> None:
    web = office.directory.teams["web"]
    for change in ({"weight": 5}, {"quota": Quota(cpus=1)}):
        refused(office, NotAllowed, PutAccess(office.at, changed(web, **change), by=BOB), "manage-access")
    office.put(changed(web, weight=5, quota=Quota(jobs=3)), ANN)
    assert office.directory.teams["web"].weight == 5


def test_whole_installation_gets_no_quota_and_no_weight(office: Office) -> None:
    every = office.directory.teams[EVERY_TEAM]
    for change in ({"weight": 5}, {"quota": Quota(cpus=1)}):
        refused(office, Conflict, PutAccess(office.at, changed(every, **change), by=ANN), "has no effect")
    office.desk.scheduler._state.put(Kind.TEAM, EVERY_TEAM, changed(every, weight=5))  # by an older build
    office.add(EVERY_TEAM, "user:eve", "viewer", ANN)
    office.put(changed(office.directory.teams[EVERY_TEAM], weight=1), ANN)


def test_nobody_gives_a_role_with_more_verbs_than_the_own(office: Office) -> None:
    office.put(Role("lead", ("view", "manage-team")), ANN)
    office.add("web", "user:joe", "lead", BOB)
    joe = Principal("user:joe")
    web = office.directory.teams["web"]
    for role in ("viewer", "author", "admin"):
        new = changed(web, members=(*web.members, Member("user:joe", role)))
        refused(office, NotAllowed, PutAccess(office.at, new, by=joe), "lacks the verb")
    office.add("web", "user:kim", "lead", joe)
    every = office.directory.teams[EVERY_TEAM]
    new = changed(every, members=(*every.members, Member("user:ann", "teardown")))
    refused(office, NotAllowed, PutAccess(office.at, new, by=ANN), "teardown")
    office.put(new, SERVER)


def test_role_gets_only_verbs_of_its_maker(office: Office) -> None:
    office.put(Role("access", ("manage-access",)), SERVER)
    office.add(EVERY_TEAM, "user:joe", "access", ANN)
    joe = Principal("user:joe")
    refused(office, NotAllowed, PutAccess(office.at, Role("access", ("manage-access", "view")), by=joe))
    refused(office, NotAllowed, PutAccess(office.at, Role("caller", ("trigger",)), by=BOB))
    office.put(Role("again", ("manage-access",)), joe)


@pytest.mark.parametrize(
    ("record", "kind", "field"),
    [
        (Role("admin", ("view",)), Conflict, "name"),
        (Role("No Role", ("view",)), ConfigError, "name"),
        (Role("caller", ("fly",)), ConfigError, "verbs"),
        (Role("caller", ()), ConfigError, "verbs"),
        (Role("caller", ("view", "view")), ConfigError, "verbs"),
        (User("", 1), ConfigError, "name"),
        (User("a b", 1), ConfigError, "name"),
        (User("a" * 101, 1), ConfigError, "name"),
        (Team("No Team"), ConfigError, "name"),
        (Team("web", (Member("user:x", "absent"),)), NotFound, "role"),
        (Team("web", (Member("joe", "viewer"),)), ConfigError, "subject"),
        (Team("web", (Member("user: x", "viewer"),)), ConfigError, "subject"),
        (Team("web", (Member("service:web", "viewer"),)), ConfigError, "subject"),
        (Team("web", (Member("service:No/x", "viewer"),)), ConfigError, "subject"),
        (Team("web", (Member("token:server", "viewer"),)), ConfigError, "subject"),
        (Team("web", (Member("user:x", "viewer"),) * 2), Conflict, "members"),
        (Team("web", tuple(Member(f"user:{n}", "viewer") for n in range(501))), Conflict, "members"),
        (AccessToken("x", " ", "h", "user:ann", 1), ConfigError, "name"),
        (AccessToken("x", "a" * 65, "h", "user:ann", 1), ConfigError, "name"),
        (AccessToken("x", "n", "h", "user:ann", 1, scope=(("web", "absent"),)), NotFound, "role"),
        (AccessToken("x", "n", "h", "user:ann", 1, scope=(("No", "viewer"),)), ConfigError, "scope"),
        (AccessToken("x", "n", "h", "user:ann", 1, scope=(("web", "viewer"),) * 21), ConfigError, "scope"),
    ],
)  # fmt: skip
def test_record_out_of_bounds_is_refused(office: Office, record: Any, kind: type[Refused], field: str) -> None:
    with pytest.raises(kind) as error:
        office.put(record, SERVER)
    assert error.value.field == field
    assert error.value.fix


def test_change_of_a_record_that_has_changed_is_refused(office: Office) -> None:
    web = office.directory.teams["web"]
    office.add("web", "user:joe", "viewer", BOB)
    stale = changed(web, members=(*web.members, Member("user:kim", "viewer")))
    refused(office, Outdated, PutAccess(office.at, stale, before=web, by=BOB))
    gone = User("kim", 1)
    refused(office, NotFound, PutAccess(office.at, changed(gone, disabled=True), before=gone, by=ANN))


def test_role_in_use_is_not_removed(office: Office) -> None:
    office.put(Role("caller", ("trigger",)), ANN)
    office.add("web", "user:joe", "caller", BOB)
    token = office.token(BOB, scope=(("web", "caller"),))
    users = f"used by user:joe in web, {token.via} .`jobcloud team member rm` takes it"
    refused(office, Conflict, RemoveAccess(office.at, Kind.ROLE, "caller", ANN), users)
    office.put(changed(office.directory.teams["web"], members=(Member("user:bob", "admin"),)), BOB)
    office.desk.do(RevokeToken(office.at, token.token_id, BOB))
    office.remove(Kind.ROLE, "caller", ANN)
    assert not office.directory.roles
    refused(office, NotFound, RemoveAccess(office.at, Kind.ROLE, "viewer", ANN))


def test_team_with_an_app_or_a_job_is_not_removed(office: Office) -> None:
    refused(office, Conflict, RemoveAccess(office.at, Kind.TEAM, "web", ANN), "still has the app web:shop")
    refused(office, Conflict, RemoveAccess(office.at, Kind.TEAM, EVERY_TEAM, ANN))
    office.put(Team("data", (Member("service:data/ci", "author"),)), ANN)
    office.add("web", "service:data/ci", "viewer", BOB)
    token = office.token(ANN, "service:data/ci")
    refused(office, NotAllowed, RemoveAccess(office.at, Kind.TEAM, "data", BOB))
    office.remove(Kind.TEAM, "data", ANN)
    assert token.token_id not in office.directory.tokens
    assert all(member.subject != "service:data/ci" for member in office.directory.teams["web"].members)


# ------------------------------------------------------------------------------------------------- users


def test_removed_user_loses_roles_tokens_and_sessions(office: Office) -> None:
    token = office.token(EVE)
    office.put(Session("s1", "h", "user:eve", "password", 1, 1, office.at + DAY), None)
    refused(office, NotAllowed, RemoveAccess(office.at, Kind.USER, "eve", BOB))
    office.remove(Kind.USER, "eve", ANN)
    assert token.token_id not in office.directory.tokens
    assert not office.directory.sessions
    office.put(User("eve", office.at, "new"), ANN)
    assert not office.directory.allows(EVE, Verb.VIEW, "web")


def test_disabled_user_is_signed_out_and_cannot_act(office: Office) -> None:
    office.put(Session("s1", "h", "user:bob", "password", 1, 1, office.at + DAY), None)
    refused(office, NotAllowed, PutAccess(office.at, changed(office.directory.users["bob"], disabled=True), by=BOB))
    office.put(changed(office.directory.users["bob"], disabled=True), ANN)
    assert not office.directory.sessions
    refused(office, NotAllowed, PutAccess(office.at, Team("web"), by=BOB), "no longer signed in")


def test_new_password_signs_out_everywhere_but_here(office: Office) -> None:
    for name in ("s1", "s2"):
        office.put(Session(name, "h", "user:eve", "password", 1, 1, office.at + DAY), None)
    here = Principal("user:eve", "session s1")
    office.put(changed(office.directory.users["eve"], password="new"), here)
    assert [*office.directory.sessions] == ["s1"]
    office.put(changed(office.directory.users["eve"], password="other"), ANN)
    assert not office.directory.sessions


def test_password_of_somebody_with_more_rights_is_not_set(office: Office) -> None:
    office.put(Role("access", ("manage-access",)), SERVER)
    office.add(EVERY_TEAM, "user:joe", "access", ANN)
    joe = Principal("user:joe")
    for name in ("ann", "eve"):
        new = changed(office.directory.users[name], password="mine")
        refused(office, NotAllowed, PutAccess(office.at, new, by=joe), "user:joe lacks it, so cannot make a sign-in")
    office.remove(Kind.USER, "eve", joe)
    office.add("web", "user:kim", "author", BOB)  # known to a provider only
    refused(office, NotAllowed, PutAccess(office.at, User("kim", office.at, "mine"), create=True, by=joe))
    office.put(User("kim", office.at), joe, create=True)


def test_token_with_a_scope_sets_no_password(office: Office) -> None:
    token = office.token(EVE, scope=(("web", "viewer"),))
    new = changed(office.directory.users["eve"], password="mine")
    refused(office, NotAllowed, PutAccess(office.at, new, by=token))
    refused(office, NotAllowed, PutAccess(office.at, changed(new, disabled=True), by=EVE))


# ------------------------------------------------------------------------------------------------- tokens


def test_token_has_at_most_the_rights_of_its_subject(office: Office) -> None:
    token = office.token(EVE)
    assert office.directory.tokens[token.token_id].expires_ms == office.at + TOKEN_MS
    assert office.directory.allows(token, Verb.VIEW, "web")
    for grant in (("web", "operator"), (EVERY_TEAM, "viewer"), ("data", "viewer")):
        with pytest.raises(NotAllowed):
            office.token(EVE, scope=(grant,))
    with pytest.raises(NotAllowed):
        office.token(EVE, "user:ann")
    with pytest.raises(NotAllowed):
        office.token(ANN, "user:eve")
    with pytest.raises(NotAllowed):
        office.token(SERVER)


def test_roles_of_groups_are_not_for_tokens(office: Office) -> None:
    office.add("web", "group:ops", "operator", BOB)
    with pytest.raises(Conflict, match="no role of its own"):
        office.token(Principal("user:joe", groups=("ops",)))


def test_token_made_by_a_token_keeps_its_scope_and_its_end(office: Office) -> None:
    parent = office.token(BOB, scope=(("web", "author"),), lasts_ms=DAY)
    child = office.directory.tokens[office.token(parent).token_id]
    assert (child.scope, child.parent, child.expires_ms) == (parent.scope, parent.token_id, office.at + DAY)
    assert office.token(parent, scope=(("web", "viewer"),)).scope == (("web", "viewer"),)
    with pytest.raises(NotAllowed, match="not in the scope"):
        office.token(parent, scope=(("web", "admin"),))
    with pytest.raises(ConfigError, match="out of range"):
        office.token(parent, lasts_ms=DAY + 1)


def test_own_role_in_a_scope_cannot_grow_past_the_parent(office: Office) -> None:
    for name in ("one", "two"):
        office.put(Role(name, ("view",)), ANN)
    parent = office.token(BOB, scope=(("web", "one"),))
    with pytest.raises(NotAllowed, match="not in the scope"):
        office.token(parent, scope=(("web", "two"),))
    office.token(parent, scope=(("web", "one"),))


def test_revoked_token_takes_the_tokens_made_with_it(office: Office) -> None:
    parent = office.token(BOB)
    child = office.token(office.token(parent))
    other = office.token(BOB)
    office.desk.do(RevokeToken(office.at, parent.token_id, BOB))
    assert office.directory.tokens[child.token_id].revoked_ms == office.at
    assert not office.directory.tokens[other.token_id].revoked_ms
    with pytest.raises(NotAllowed, match="no longer signed in"):
        office.token(child)
    office.desk.do(RevokeToken(office.at + 1, parent.token_id, BOB))
    assert office.directory.tokens[parent.token_id].revoked_ms == office.at


def test_token_with_a_scope_revokes_only_itself_and_its_own(office: Office) -> None:
    parent = office.token(BOB, scope=(("web", "viewer"),))
    child, other = office.token(parent), office.token(BOB)
    refused(office, NotAllowed, RevokeToken(office.at, other.token_id, parent))
    refused(office, NotAllowed, RevokeToken(office.at, parent.token_id, child))
    refused(office, NotFound, RevokeToken(office.at, other.token_id, EVE))
    office.desk.do(RevokeToken(office.at, child.token_id, parent))
    office.desk.do(RevokeToken(office.at, parent.token_id, ANN))


def test_token_whose_scope_has_manage_access_revokes_any_token(office: Office) -> None:
    admin, other = office.token(ANN, scope=((EVERY_TEAM, "admin"),)), office.token(BOB)
    viewer = office.token(ANN, scope=((EVERY_TEAM, "viewer"),))
    refused(office, NotFound, RevokeToken(office.at, other.token_id, viewer))
    for one in (other, viewer):
        office.desk.do(RevokeToken(office.at, one.token_id, admin))
        assert office.directory.tokens[one.token_id].revoked_ms == office.at


def test_lifetime_and_number_of_tokens_are_bounded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        office.token(BOB, lasts_ms=366 * DAY + 1)
    monkeypatch.setattr(accounts, "MAX_TOKENS_EACH", 2)
    monkeypatch.setattr(accounts, "MAX_TOKENS_LISTED", 3)
    first, _ = office.token(BOB), office.token(BOB)
    with pytest.raises(Conflict, match="2 valid tokens"):
        office.token(BOB)
    office.desk.do(RevokeToken(office.at, first.token_id, BOB))
    last = office.token(BOB)
    office.desk.do(RevokeToken(office.at, last.token_id, BOB))
    office.token(BOB)
    assert first.token_id not in office.directory.tokens
    office.token(EVE)


def test_ended_token_is_listed_for_a_while(office: Office) -> None:
    token = office.token(BOB, lasts_ms=DAY)
    office.desk.tick(DAY + TOKEN_MEMORY_MS - 1)
    assert token.token_id in office.directory.tokens
    office.desk.tick(60_000)
    assert token.token_id not in office.directory.tokens


def test_service_account_belongs_to_its_team(office: Office) -> None:
    office.add("web", "service:web/ci", "operator", BOB)
    token = office.token(BOB, "service:web/ci")
    assert office.directory.allows(token, Verb.TRIGGER, "web")
    for by in (EVE, Principal("user:joe")):
        with pytest.raises(NotAllowed):
            office.token(by, "service:web/ci")
        refused(office, NotAllowed, RemoveService(office.at, "service:web/ci", by))
    office.desk.do(RemoveService(office.at, "service:web/ci", BOB))
    assert token.token_id not in office.directory.tokens
    refused(office, NotFound, RemoveService(office.at, "service:web/ci", BOB))
    refused(office, ConfigError, RemoveService(office.at, "user:ann", BOB))


def test_token_of_a_mightier_service_needs_a_scope(office: Office) -> None:
    office.add("web", "service:web/ci", "operator", BOB)
    office.add(EVERY_TEAM, "service:web/ci", "admin", ANN)
    with pytest.raises(NotAllowed, match="lacks the verb"):
        office.token(BOB, "service:web/ci")
    with pytest.raises(NotAllowed, match="lacks the verb"):
        office.token(BOB, "service:web/ci", scope=((EVERY_TEAM, "viewer"),))
    office.token(BOB, "service:web/ci", scope=(("web", "operator"),))
    refused(office, NotAllowed, PutAccess(office.at, Team(EVERY_TEAM, (Member("service:*/x", "viewer"),)), by=BOB))


# ------------------------------------------------------------------------------------------------- the last admin


def test_server_token_stays_revoked_over_restarts_and_other_tokens(office: Office) -> None:
    for hash_ in ("a" * 64, "b" * 64):
        office.desk.do(RevokeServerToken(office.at, hash_, ANN))
    office.desk.at += 10 * TOKEN_MEMORY_MS
    office.desk.restart()
    office.desk.tick()
    kept = [token.hash for token in office.directory.tokens.values() if token.revoked_ms]
    assert kept == ["a" * 64, "b" * 64]
    for key in office.directory.tokens:
        refused(office, Conflict, RemoveAccess(office.at, Kind.ACCESS_TOKEN, key, ANN))
        refused(office, Conflict, PutAccess(office.at, AccessToken(key, "x", "h", "user:ann", 1), by=ANN))
    refused(office, NotAllowed, RevokeServerToken(office.at, "c" * 64, BOB))


def test_server_token_is_not_revoked_without_another_admin(office: Office) -> None:
    office.put(changed(office.directory.users["ann"], disabled=True), SERVER)
    refused(office, Conflict, RevokeServerToken(office.at, "a" * 64, SERVER), "nobody would be an admin")
    office.put(changed(office.directory.users["ann"], disabled=False), SERVER)
    office.desk.do(RevokeServerToken(office.at, "a" * 64, SERVER))


@pytest.mark.parametrize(
    "change",
    [
        lambda office: PutAccess(office.at, changed(office.directory.users["ann"], disabled=True), by=ANN),
        lambda office: RemoveAccess(office.at, Kind.USER, "ann", ANN),
        lambda office: PutAccess(office.at, Team(EVERY_TEAM), by=ANN),
    ],
)
def test_last_admin_stays_once_the_server_token_is_revoked(office: Office, change: Callable[[Office], Event]) -> None:
    office.desk.do(RevokeServerToken(office.at, "a" * 64, ANN))
    refused(office, Conflict, change(office), "nobody else is an admin")
    office.add(EVERY_TEAM, "group:admins", "admin", ANN)
    members = office.directory.teams[EVERY_TEAM].members
    event = change(office)
    if isinstance(event, PutAccess) and isinstance(event.record, Team):
        event = PutAccess(office.at, changed(event.record, members=members[1:]), by=ANN)
    office.desk.do(event)


def test_last_own_role_of_admins_keeps_its_verb(office: Office) -> None:
    office.put(Role("chief", ("manage-access", "view")), ANN)
    office.put(Team(EVERY_TEAM, (Member("user:ann", "admin"), Member("user:bob", "chief"))), ANN)
    office.desk.do(RevokeServerToken(office.at, "a" * 64, ANN))
    office.put(Team(EVERY_TEAM, (Member("user:bob", "chief"),)), ANN)
    refused(office, Conflict, PutAccess(office.at, Role("chief", ("view",)), by=BOB))


# ------------------------------------------------------------------------------------------ fail-over, escalation


def test_records_survive_a_change_of_leader(office: Office) -> None:
    office.put(Role("caller", ("trigger",)), ANN)
    office.put(changed(office.directory.teams["web"], quota=Quota(cpus=4_000), weight=3), ANN)
    office.token(BOB, scope=(("web", "viewer"),))
    office.token(EVE)
    office.desk.do(RevokeToken(office.at, "t2", EVE))
    office.remove(Kind.USER, "eve", ANN)
    before = office.directory
    office.desk.restart()
    after = office.directory
    assert after is not before
    for table in ("teams", "roles", "users", "tokens"):
        assert getattr(after, table) == getattr(before, table), table
    assert after.allows(BOB, Verb.MANAGE_TEAM, "web")
    assert not after.allows(EVE, Verb.VIEW, "web")


TEAMS = ("web", "data")
SUBJECTS = ("user:ann", "user:bob", "user:eve", "user:joe", "service:web/ci", "service:data/ci", "service:*/ci")


def given(desk: Desk, grants: Iterable[Grant]) -> set[tuple[str, str]]:
    """The model: (verb, team) that roles give, and (verb, EVERY_TEAM) for all teams and the installation.

    Computed from the stored records alone, without the code under test.
    """
    found = set()
    for team, role in grants:
        own = desk.stored.roles.get(role)
        for verb in ROLES.get(role, own.verbs if own is not None else ()):
            if team == EVERY_TEAM:
                found |= {(str(verb), place) for place in (*TEAMS, EVERY_TEAM)}
            elif verb not in OF_INSTALLATION:
                found.add((str(verb), team))
    return found


def rights(desk: Desk, subject: str) -> set[tuple[str, str]]:
    teams = desk.stored.teams.values()
    return given(desk, [(team.name, m.role) for team in teams for m in team.members if m.subject == subject])


def all_rights(desk: Desk) -> dict[str, set[tuple[str, str]]]:
    """By subject, and by token."""
    found = {subject: rights(desk, subject) for subject in SUBJECTS}
    for token in desk.stored.access_tokens.values():
        found[token.id] = rights(desk, token.subject)
        if token.scope:
            found[token.id] &= given(desk, token.scope)
    return found


def random_event(office: Office, dice: random.Random, by: Principal) -> Event | None:
    """An event of a sender; None for a token, which is made at once."""
    at, known = office.at, office.directory
    roles = [*ROLES, "one", "two", "three"]
    grant = (dice.choice((*TEAMS, EVERY_TEAM)), dice.choice(roles))
    match dice.randrange(8):
        case 0 | 1 | 2:
            team = known.teams.get(grant[0], Team(grant[0]))
            members = [*team.members, Member(dice.choice(SUBJECTS), grant[1])]
            if dice.random() < 0.3:
                members.pop(dice.randrange(len(members)))
            return PutAccess(at, changed(team, members=tuple(members)), by=by)
        case 3:
            verbs = tuple(dice.sample([*Verb], dice.randint(1, 4)))
            return PutAccess(at, Role(dice.choice(("one", "two", "three")), verbs), by=by)
        case 4:
            name = dice.choice(("ann", "bob", "eve", "joe"))
            user = known.users.get(name, User(name, at))
            return PutAccess(at, changed(user, password=f"of {by.subject} {at}"), by=by)
        case 5:
            scope = (grant,) if dice.random() < 0.6 else ()
            subject = by.subject if dice.random() < 0.5 else dice.choice(SUBJECTS)
            office.token(by, subject, scope)
            return None
        case 6:
            if known.tokens:
                return RevokeToken(at, dice.choice([*known.tokens]), by)
            return None
        case _:
            kind, key = dice.choice([(Kind.ROLE, "one"), (Kind.USER, "joe"), (Kind.USER, "eve"), (Kind.TEAM, "data")])
            return RemoveAccess(at, kind, key, by)


def test_random_changes_give_nobody_a_right_that_the_sender_lacks(seed: int) -> None:
    accepted = 0
    for history in range(25):
        dice = random.Random(seed * 1_000 + history)
        office = Office()
        for name, verbs in (("one", ("view",)), ("two", ("manage-team", "trigger")), ("three", ("manage-access",))):
            office.put(Role(name, verbs), SERVER)
        office.put(Team("data", (Member("user:eve", "two"), Member("service:data/ci", "one"))), SERVER)
        office.add(EVERY_TEAM, "user:joe", "three", SERVER)
        for _ in range(120):
            office.desk.at += 1_000
            tokens = [principal_of(token) for token in office.directory.tokens.values()]
            by = dice.choice([SERVER, *map(Principal, SUBJECTS[:4]), *tokens])
            before = all_rights(office.desk)
            passwords = {name: user.password for name, user in office.directory.users.items()}
            theirs = before[by.token_id or by.subject] if by != SERVER else given(office.desk, SERVER.grants)
            try:
                event = random_event(office, dice, by)
                if event is not None:
                    office.desk.do(event)
            except Refused:
                assert all_rights(office.desk) == before
                continue
            accepted += 1
            for holder, after in all_rights(office.desk).items():
                gained = after - before.get(holder, set())
                assert gained <= theirs, f"history {history}: {by} gave {holder} {gained - theirs} with {event}"
            for name, user in office.directory.users.items():
                if user.password != passwords.get(name, ""):
                    assert before[f"user:{name}"] <= theirs, f"history {history}: {by} can sign in as {name}"
            for token in office.directory.tokens.values():
                parent = office.directory.tokens.get(token.parent)
                if parent is not None and parent.scope:
                    more = given(office.desk, token.scope) - given(office.desk, parent.scope)
                    assert token.scope, f"history {history}: {token} has no scope"
                    assert not more, f"history {history}: {token} has more than {parent}: {more}"
    assert accepted > 100, "hardly any change was accepted"
