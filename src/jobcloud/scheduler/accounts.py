"""Users, teams, roles, tokens and sessions: the changes of their records, and the directory for readers.

`account_rules` decides who may make a change. A service account has no record of its own: it is a member of teams, and
has tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobcloud.access.directory import Directory
from jobcloud.access.names import (
    check_place,
    check_role,
    check_service,
    check_subject,
    check_token_name,
    check_user,
    is_local_user,
    service_of,
    user_subject,
)
from jobcloud.access.tokens import server_token_id
from jobcloud.access.verbs import ROLES, Verb
from jobcloud.config import team_of
from jobcloud.errors import ConfigError, Conflict, NotFound, Outdated
from jobcloud.messages import (
    AccessRecord,
    EndSessions,
    Kind,
    NoteSessions,
    PutAccess,
    RemoveAccess,
    RemoveService,
    RevokeServerToken,
    RevokeToken,
    Topic,
)
from jobcloud.model import (
    EVERY_TEAM,
    SERVER_SUBJECT,
    AccessToken,
    Member,
    Principal,
    Role,
    Session,
    Team,
    User,
    changed,
)
from jobcloud.scheduler.account_rules import AccountRules, is_valid
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import (
    GIVE_ONCE,
    REMOVE_ONE,
    REPEAT,
    choose,
    done_by,
    not_valid,
    out_of_range,
    shown_by,
)

#: the maximum number of records of each kind
LIMITS = {Kind.TEAM: 1_000, Kind.ROLE: 100, Kind.USER: 10_000, Kind.ACCESS_TOKEN: 10_000, Kind.SESSION: 10_000}
#: the maximum number of members of a team, and of roles in the scope of a token
MAX_MEMBERS, MAX_SCOPE = 500, 20
#: the maximum number of sessions of one person; a further one ends the one that was not used for the longest time
MAX_SESSIONS_EACH = 20
#: the maximum number of valid tokens of one subject, and of its tokens with ended ones; of these, the oldest is dropped
MAX_TOKENS_EACH, MAX_TOKENS_LISTED = 50, 100
#: an expired or revoked token is listed this long
TOKEN_MEMORY_MS = 30 * 86_400_000
#: the lifetime of a token whose maker names none
TOKEN_MS = 90 * 86_400_000
KINDS_OF_ACCESS: dict[type[AccessRecord], Kind] = {
    Team: Kind.TEAM, Role: Kind.ROLE, User: Kind.USER, AccessToken: Kind.ACCESS_TOKEN, Session: Kind.SESSION,
}  # fmt: skip
_NAMES = {
    Kind.TEAM: "team", Kind.ROLE: "role", Kind.USER: "user", Kind.ACCESS_TOKEN: "token", Kind.SESSION: "session",
}  # fmt: skip


class Accounts(Part):
    """Applies changes of identities and rights. A session or token that has expired is dropped by a sweep."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.directory = Directory(state.teams, state.roles, state.users, state.access_tokens, state.sessions)
        self._rules = AccountRules(self.directory)
        self._tables: dict[Kind, Mapping[str, AccessRecord]] = {
            Kind.TEAM: state.teams, Kind.ROLE: state.roles, Kind.USER: state.users,
            Kind.ACCESS_TOKEN: state.access_tokens, Kind.SESSION: state.sessions,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------- commands

    def put(self, event: PutAccess) -> None:
        """Create or replace a record.

        A token with a sender gets the scope, parent and end that follow from the sender, in place of missing ones.
        Raises ConfigError, Conflict, NotAllowed, NotFound, Outdated.
        """
        self._rules.check_sender(event.by, event.at)
        record = event.record
        kind, key = KINDS_OF_ACCESS[type(record)], key_of(record)
        known = self._tables[kind].get(key)
        if event.create and known is not None:
            problem = Told(f"there is a {_NAMES[kind]} {key} already", "taken_name", name=key)
            raise Conflict(problem, field="name", fix="choose another name")
        if event.before is not None and event.before != known:
            if known is None:
                raise self._unknown(kind, key)
            problem = Told(f"the {_NAMES[kind]} {key} has changed meanwhile", "changed_since", name=key)
            raise Outdated(problem, fix=REPEAT)
        if known is None and kind is not Kind.SESSION and len(self._tables[kind]) >= LIMITS[kind]:
            text = f"there are {LIMITS[kind]:,} records of the kind {_NAMES[kind]}"
            raise Conflict(Told(text, "many_records", most=LIMITS[kind], kind=_NAMES[kind]), fix=REMOVE_ONE)
        match record:
            case Team():
                self._check_team(event.by, self._state.teams.get(key), record)
            case Role():
                self._check_role(event.by, self._state.roles.get(key), record)
            case User():
                self._check_user(event.by, self._state.users.get(key), record)
            case AccessToken():
                record = self._checked_token(event.by, known, record, event.at)
            case Session():
                self._rules.check_session(event.by, record.subject)
                self._make_room(record)
        self._state.put(kind, key, record)
        if isinstance(record, Team):
            self.directory.teams_changed()
            self._state.request_cycle()  # the quota or the weight may have changed
        if isinstance(record, User) and isinstance(known, User):
            self._user_changed(event.by, known, record)
        if kind is not Kind.SESSION:
            what = "created" if known is None else "changed"
            self._tell(event.at, f"{_NAMES[kind]} {key} was {what}", event.by)

    def remove(self, event: RemoveAccess) -> None:
        """Raises Conflict, NotAllowed, NotFound."""
        self._rules.check_sender(event.by, event.at)
        record = self._tables[event.kind].get(event.key)
        if isinstance(record, Session):
            self._rules.check_session(event.by, record.subject)
        else:
            self._rules.require(event.by)
        if record is None:
            raise self._unknown(event.kind, event.key)
        if isinstance(record, AccessToken) and event.by is not None:
            problem = Told(f"the token {record.id} cannot be removed", "token_kept", token=record.id)
            raise Conflict(problem, field="id", fix=Told("revoke it", "revoke_it"))
        match record:
            case Team():
                self._check_unused_team(record)
                self._forget(self._services_of(record.name))
                for key in [key for key in self._state.pools if team_of(key) == record.name]:
                    self._state.delete(Kind.POOL, key)
                for key in [key for key in self._state.calendars if team_of(key) == record.name]:
                    self._state.delete_calendar(key)
            case Role():
                self._check_unused_role(record, event.at)
            case User():
                subject = user_subject(record.name)
                self._check_admin_left(event.by, without=subject)
                self._forget([subject])
        self._state.delete(event.kind, event.key)
        if isinstance(record, Team):
            self.directory.teams_changed()
        if event.kind is not Kind.SESSION:
            self._tell(event.at, f"{_NAMES[event.kind]} {event.key} was removed", event.by)

    def remove_service(self, event: RemoveService) -> None:
        """Raises ConfigError, NotAllowed, NotFound."""
        self._rules.check_sender(event.by, event.at)
        check_service(event.subject)
        self._rules.check_service(event.by, event.subject)
        if event.subject not in self._subjects():
            fix = shown_by("jobcloud service list", "names them")
            problem = Told(f"there is no {event.subject[:80]}", "no_subject", subject=event.subject[:80])
            raise NotFound(problem, field="service", fix=fix)
        self._forget([event.subject])
        self._tell(event.at, f"{event.subject} was removed", event.by)

    def revoke(self, event: RevokeToken) -> None:
        """Revoking a revoked token changes nothing. Raises NotAllowed, NotFound."""
        self._rules.check_sender(event.by, event.at)
        token = self._state.access_tokens.get(event.id)
        if token is None:
            raise self._unknown(Kind.ACCESS_TOKEN, event.id)
        self._rules.check_revocation(event.by, token)
        if token.revoked_ms:
            return
        for one in self._descended(token):
            self._state.put(Kind.ACCESS_TOKEN, one.id, changed(one, revoked_ms=event.at))
        self._tell(event.at, f"token {token.id} of {token.subject} was revoked", event.by)

    def revoke_server_token(self, event: RevokeServerToken) -> None:
        """Each revoked token has a record of its own, so that it stays revoked after others. Raises Conflict."""
        self._rules.check_sender(event.by, event.at)
        self._rules.require(event.by)
        key = server_token_id(event.hash)
        if key in self._state.access_tokens:
            return
        if not self._admins():
            fix = Told(
                "add one: `jobcloud user add NAME`, `jobcloud team member add '*' user:NAME admin`", "add_first_admin"
            )
            text = "without the server's token, nobody would be an admin of this installation"
            raise Conflict(Told(text, "only_server_token"), fix=fix)
        if len(self._state.access_tokens) >= LIMITS[Kind.ACCESS_TOKEN]:
            fix = Told("wait until some have expired", "wait_expiry")
            raise Conflict(Told("there are too many tokens", "many_tokens_in_all"), fix=fix)
        revoked = AccessToken(key, "server", event.hash, SERVER_SUBJECT, event.at, revoked_ms=event.at)
        self._state.put(Kind.ACCESS_TOKEN, key, revoked)
        self._end_sessions(SERVER_SUBJECT)
        self._tell(event.at, "the token of the server's settings was revoked", event.by)

    def end_sessions(self, event: EndSessions) -> None:
        self._end_sessions(event.subject, event.but)

    def note_sessions(self, event: NoteSessions) -> None:
        for session_id in event.ids:
            if (session := self._state.sessions.get(session_id)) is not None:
                self._state.put(Kind.SESSION, session_id, changed(session, seen_ms=event.at))

    def sweep(self, at: int) -> None:
        for session in list(self._state.sessions.values()):
            if session.expires_ms <= at:
                self._state.delete(Kind.SESSION, session.id)
        for token in list(self._state.access_tokens.values()):
            ended = token.revoked_ms or token.expires_ms
            if ended and ended + TOKEN_MEMORY_MS <= at and token.subject != SERVER_SUBJECT:
                self._state.delete(Kind.ACCESS_TOKEN, token.id)

    # ------------------------------------------------------------------------------------------------- checks

    def _check_team(self, by: Principal | None, known: Team | None, team: Team) -> None:
        check_place(team.name, "name")
        if len(team.members) > MAX_MEMBERS:
            problem = Told(f"a team has at most {MAX_MEMBERS} members", "many_members", most=MAX_MEMBERS)
            raise Conflict(problem, field="members", fix=Told("use a group", "use_group"))
        old = {*(known.members if known is not None else ())}
        for member in team.members:
            if member not in old:
                check_subject(member.subject)
                if not self._is_role(member.role):
                    raise _no_role(member.role)
        if len({*team.members}) != len(team.members):
            raise Conflict(Told("a member has the same role twice", "role_twice"), field="members", fix=GIVE_ONCE)
        self._rules.check_team(by, known, team)
        if team.name == EVERY_TEAM:
            unset = Team(team.name)
            if not any((team.quota, team.weight) == (one.quota, one.weight) for one in (known or unset, unset)):
                text = "a quota or a weight of the whole installation has no effect"
                raise Conflict(Told(text, "installation_quota"), field="team", fix=Told("name a team", "name_team"))
            self._check_admin_left(by, members=team.members)

    def _check_role(self, by: Principal | None, known: Role | None, role: Role) -> None:
        check_role(role.name)
        if role.name in ROLES:
            problem = Told(f"{role.name} is a built-in role", "builtin_role", role=role.name)
            raise Conflict(problem, field="name", fix=Told("choose another name", "other_name"))
        unknown = [verb for verb in role.verbs if verb not in {*Verb}]
        if unknown:
            problem = not_valid(unknown[0][:80], "is no verb")
            raise ConfigError(problem, field="verbs", fix=choose(", ".join(Verb), "use some of "))
        if not role.verbs or len({*role.verbs}) != len(role.verbs):
            problem = Told("has no verb, or one twice", "verbs_needed")
            raise ConfigError(problem, field="verbs", fix=Told("name each verb once", "verb_once"))
        self._rules.check_role(by, known, role)
        self._check_admin_left(by, role=role)

    def _check_user(self, by: Principal | None, known: User | None, user: User) -> None:
        check_user(user.name)
        if user.password and not is_local_user(user.name):
            fix = Told("leave it out: the person signs in at the identity provider", "no_password")
            problem = Told(f"cannot be set for {user.name[:80]}", "not_for_user", user=user.name[:80])
            raise ConfigError(problem, field="password", fix=fix)
        self._rules.check_user(by, known, user)
        if user.disabled:
            self._check_admin_left(by, without=user_subject(user.name))

    def _checked_token(
        self, by: Principal | None, known: AccessRecord | None, token: AccessToken, at: int
    ) -> AccessToken:
        check_token_name(token.name)
        if len(token.scope) > MAX_SCOPE:
            problem = Told(f"has more than {MAX_SCOPE} roles", "many_roles", most=MAX_SCOPE)
            raise ConfigError(problem, field="scope", fix=Told("use fewer", "use_fewer"))
        for team, role in token.scope:
            check_place(team, "scope")
            if not self._is_role(role):
                raise _no_role(role)
        if by is not None:
            if known is not None:
                raise Conflict(Told(f"there is a token {token.id} already", "taken_name", name=token.id), field="id")
            token = self._rules.checked_token(by, token)
            token = changed(token, expires_ms=self._end_of_token(token, at))
        if known is None:
            self._make_room_for_token(token, at)
        return token

    def _end_of_token(self, token: AccessToken, at: int) -> int:
        """When a new token expires. Raises ConfigError."""
        parent = self._state.access_tokens.get(token.parent)
        latest = at + self._state.policy.max_token_ms
        if parent is not None and parent.subject == token.subject and parent.expires_ms:
            latest = min(latest, parent.expires_ms)
        if not token.expires_ms:
            return min(latest, at + TOKEN_MS)
        if not at < token.expires_ms <= latest:
            most = (latest - at) // 1000
            text = f"at most {most} seconds: tokens.max_lifetime, and the end of the present token"
            fix = Told(text, "token_lifetime", most=most)
            value = str((token.expires_ms - at) // 1000)
            raise ConfigError(out_of_range(value), field="expiresSeconds", fix=fix)
        return token.expires_ms

    def _check_unused_team(self, team: Team) -> None:
        if team.name == EVERY_TEAM:
            problem = Told("the installation cannot be removed", "installation_kept")
            raise Conflict(problem, field="name", fix=Told("remove its members", "remove_members"))
        for kind, keys in (("app", self._state.apps), ("job", self._state.jobs), ("workflow", self._state.workflows)):
            for key in keys:
                if team_of(key) == team.name:
                    text = f"the team {team.name} still has the {kind} {key}"
                    problem = Told(text, "team_has", team=team.name, name=key)
                    raise Conflict(problem, field="name", fix=Told("remove it first", "remove_it"))

    def _check_unused_role(self, role: Role, at: int) -> None:
        members = (f"{member.subject} in {team.name}" for team in self._state.teams.values() for member in team.members
                   if member.role == role.name)  # fmt: skip
        tokens = (f"token {token.id}" for token in self._state.access_tokens.values()
                  if is_valid(token, at) and any(name == role.name for _, name in token.scope))  # fmt: skip
        if users := [*members, *tokens]:
            more = f" and {len(users) - 10} more" if len(users) > 10 else ""
            named = f"{', '.join(users[:10])}{more}"
            problem = Told(f"the role {role.name} is used by {named}", "role_used", role=role.name, users=named)
            fix = done_by("jobcloud team member rm", "takes it from a member, `jobcloud token revoke` from a token")
            raise Conflict(problem, field="name", fix=fix)

    def _check_admin_left(
        self,
        by: Principal | None,
        *,
        members: tuple[Member, ...] | None = None,
        role: Role | None = None,
        without: str = "",
    ) -> None:
        """Raises Conflict if the server's token was revoked, and a change would remove the last admin.

        A sender with the server's token has proved that the present one is valid.
        """
        revoked = any(token.subject == SERVER_SUBJECT for token in self._state.access_tokens.values())
        if not revoked or (by is not None and by.subject == SERVER_SUBJECT) or not self._admins():
            return
        if not self._admins(members=members, role=role, without=without):
            problem = Told("nobody else is an admin of this installation", "last_admin")
            raise Conflict(problem, fix=Told("add another admin first", "add_admin"))

    def _admins(
        self, *, members: tuple[Member, ...] | None = None, role: Role | None = None, without: str = ""
    ) -> list[str]:
        """The people and groups that may manage access, after a change."""
        if members is None:
            members = self._state.teams[EVERY_TEAM].members if EVERY_TEAM in self._state.teams else ()
        found = []
        for member in members:
            new = role is not None and role.name == member.role
            verbs: Iterable[str] = role.verbs if new and role is not None else self.directory.verbs(member.role)
            barred = member.subject == without or self.directory.is_disabled(member.subject)
            kind = member.subject.partition(":")[0]
            if kind in ("user", "group") and not barred and Verb.MANAGE_ACCESS in verbs:
                found.append(member.subject)
        return found

    # ------------------------------------------------------------------------------------------------- changes

    def _user_changed(self, by: Principal | None, old: User, new: User) -> None:
        """A disabled user, or one with a new password, is signed out, except in the session that did it."""
        if new.disabled or old.password != new.password:
            own = by is not None and by.subject == user_subject(new.name) and not new.disabled
            self._end_sessions(
                user_subject(new.name), by.via.removeprefix("session ") if own and by is not None else ""
            )

    def _forget(self, subjects: Iterable[str]) -> None:
        """Remove the roles, tokens and sessions of subjects."""
        gone = {*subjects}
        for session in list(self._state.sessions.values()):
            if session.subject in gone:
                self._state.delete(Kind.SESSION, session.id)
        for token in list(self._state.access_tokens.values()):
            if token.subject in gone:
                self._state.delete(Kind.ACCESS_TOKEN, token.id)
        for team in list(self._state.teams.values()):
            members = tuple(member for member in team.members if member.subject not in gone)
            if members != team.members:
                self._state.put(Kind.TEAM, team.name, changed(team, members=members))
        self.directory.teams_changed()

    def _end_sessions(self, subject: str, but: str = "") -> None:
        for session in self._sessions_of(subject):
            if session.id != but:
                self._state.delete(Kind.SESSION, session.id)

    def _make_room(self, new: Session) -> None:
        """End the session that was not used for the longest time, if there are too many."""
        if new.id in self._state.sessions:
            return
        others = self._sessions_of(new.subject)
        if len(others) < MAX_SESSIONS_EACH:
            others = list(self._state.sessions.values())
            if len(others) < LIMITS[Kind.SESSION]:
                return
        self._state.delete(Kind.SESSION, min(others, key=lambda session: session.seen_ms).id)

    def _make_room_for_token(self, new: AccessToken, at: int) -> None:
        """Raises Conflict if the subject has too many valid tokens."""
        theirs = [token for token in self._state.access_tokens.values() if token.subject == new.subject]
        ended = [token for token in theirs if not is_valid(token, at)]
        if len(theirs) - len(ended) >= MAX_TOKENS_EACH:
            text = f"{new.subject} has {MAX_TOKENS_EACH} valid tokens"
            raise Conflict(
                Told(text, "many_tokens", subject=new.subject, tokens=MAX_TOKENS_EACH),
                fix=Told("revoke one first", "revoke_one"),
            )
        if len(theirs) >= MAX_TOKENS_LISTED:
            oldest = min(ended, key=lambda token: (token.revoked_ms or token.expires_ms, token.id))
            self._state.delete(Kind.ACCESS_TOKEN, oldest.id)

    # ------------------------------------------------------------------------------------------------- reading

    def _sessions_of(self, subject: str) -> list[Session]:
        return [session for session in self._state.sessions.values() if session.subject == subject]

    def _descended(self, token: AccessToken) -> list[AccessToken]:
        """A token, and the valid ones that its subject made with it, or with one of these."""
        found, ids = [token], {token.id}
        theirs = [
            one for one in self._state.access_tokens.values() if one.subject == token.subject and one is not token
        ]
        while more := [one for one in theirs if one.parent in ids and one.id not in ids]:
            found += more
            ids |= {one.id for one in more}
        return [one for one in found if not one.revoked_ms]

    def _subjects(self) -> set[str]:
        """The subjects that have roles or tokens."""
        members = {member.subject for team in self._state.teams.values() for member in team.members}
        return members | {token.subject for token in self._state.access_tokens.values()}

    def _services_of(self, team: str) -> list[str]:
        return [subject for subject in self._subjects() if (service_of(subject) or ("",))[0] == team]

    def _is_role(self, name: str) -> bool:
        return name in ROLES or name in self._state.roles

    def _unknown(self, kind: Kind, key: str) -> NotFound:
        name = _NAMES[kind]
        field = "id" if kind in (Kind.ACCESS_TOKEN, Kind.SESSION) else "name"
        problem = Told(f"there is no {name} {key[:80]}", "no_record", kind=name, key=key[:80])
        return NotFound(problem, field=field, fix=shown_by(f"jobcloud {name} list", "names them"))

    def _tell(self, at: int, text: str, by: Principal | None) -> None:
        self._state.publish(at, Topic.CONFIG, text + (f" by {by.subject}" if by is not None else ""))


def key_of(record: AccessRecord) -> str:
    """The key of a record's place in the store."""
    return record.id if isinstance(record, AccessToken | Session) else record.name


def _no_role(name: str) -> NotFound:
    problem = Told(f"there is no role {name[:80]!r}", "no_role", role=name[:80])
    return NotFound(problem, field="role", fix=shown_by("jobcloud role list", "names them"))
