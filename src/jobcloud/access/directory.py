"""The directory of rights, and the one decision: may this principal do this in this team?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jobcloud.access.verbs import OF_INSTALLATION, ROLES, Verb
from jobcloud.model import EVERY_TEAM, AccessToken, Grant, Role, Session, Team, User
from jobcloud.model import Principal as Principal


class Directory:
    """A view of the stored users, teams, roles, tokens and sessions.

    The tables are those of the scheduler, which changes them. Any thread may look up a key at any time.
    """

    def __init__(
        self,
        teams: Mapping[str, Team],
        roles: Mapping[str, Role],
        users: Mapping[str, User],
        tokens: Mapping[str, AccessToken],
        sessions: Mapping[str, Session],
    ) -> None:
        self.teams = teams
        self.roles = roles
        self.users = users
        self.tokens = tokens
        self.sessions = sessions
        self._grants: dict[str, tuple[Grant, ...]] = {}
        self.teams_changed()

    def teams_changed(self) -> None:
        """Take over the members of the teams. Called by the thread that owns the tables."""
        grants: dict[str, tuple[Grant, ...]] = {}
        for team in self.teams.values():
            for member in team.members:
                grants[member.subject] = (*grants.get(member.subject, ()), (team.name, member.role))
        self._grants = grants

    def user_of(self, subject: str) -> User | None:
        """The record of a user. None: another subject, or a user of the identity provider without a record."""
        kind, _, name = subject.partition(":")
        return self.users.get(name) if kind == "user" else None

    def is_disabled(self, subject: str) -> bool:
        """Whether a subject is a user whom an administrator has disabled."""
        user = self.user_of(subject)
        return user is not None and user.disabled

    def verbs(self, role: str) -> frozenset[Verb]:
        """The verbs of a role. An unknown role, and an unknown verb of a role, give nothing."""
        if role in ROLES:
            return ROLES[role]
        own = self.roles.get(role)
        return frozenset(verb for verb in Verb if own is not None and verb in own.verbs)

    def grants_of(self, subject: str) -> tuple[Grant, ...]:
        """The roles of a subject in the teams."""
        return self._grants.get(subject, ())

    def grants(self, principal: Principal) -> tuple[Grant, ...]:
        """The roles of a principal, before the restriction to its scope."""
        known = (grant for subject in principal.subjects for grant in self.grants_of(subject))
        return (*principal.grants, *known)

    def allows(self, principal: Principal, verb: Verb, team: str = "") -> bool:
        """Whether a principal may do something in a team, or in the installation if `team` is ""."""
        allowed = self._gives(self.grants(principal), verb, team)
        return allowed and (principal.scope is None or self._gives(principal.scope, verb, team))

    def teams_of(self, principal: Principal, verb: Verb) -> frozenset[str] | None:
        """The teams in which a principal may do something. None: in every team."""
        if self.allows(principal, verb):
            return None
        known = {team for team, _ in (*self.grants(principal), *(principal.scope or ()))}
        return frozenset(team for team in known if self.allows(principal, verb, team))

    def allows_somewhere(self, principal: Principal, verb: Verb) -> bool:
        """Whether a principal may do something in any team."""
        teams = self.teams_of(principal, verb)
        return teams is None or bool(teams)

    def verbs_in(self, principal: Principal, team: str) -> list[Verb]:
        """The verbs that a principal has in a team, or in the whole installation if `team` is EVERY_TEAM."""
        of_team = (verb for verb in Verb if team == EVERY_TEAM or verb not in OF_INSTALLATION)
        return [verb for verb in of_team if self.allows(principal, verb, team)]

    def lacking(self, principal: Principal, grant: Grant) -> frozenset[Verb]:
        """The verbs that a role in a team gives at present, and that a principal does not have there."""
        team, role = grant
        given = self.verbs(role) - (frozenset() if team == EVERY_TEAM else OF_INSTALLATION)
        return given - {*self.verbs_in(principal, team)}

    def _gives(self, grants: Iterable[Grant], verb: Verb, team: str) -> bool:
        if verb in OF_INSTALLATION or not team:
            team = EVERY_TEAM
        return any(where in (EVERY_TEAM, team) and verb in self.verbs(role) for where, role in grants)


def narrows(grant: Grant, scope: Iterable[Grant]) -> bool:
    """Whether a scope has all rights of a grant, now and after each change of roles.

    Custom roles may change. So a grant with one is narrow only if the scope has the same role. The verbs of built-in
    roles are fixed.
    """
    team, role = grant
    return any(
        where in (EVERY_TEAM, team)
        and (than == role or (than in ROLES and role in ROLES and ROLES[role] <= ROLES[than]))
        for where, than in scope
    )


#: nobody has any rights before the state is loaded
EMPTY = Directory({}, {}, {}, {}, {})
