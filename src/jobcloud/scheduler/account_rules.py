"""Who may change which record about identities and rights.

No rule lets a sender get or give a right that the sender lacks: not by a role, a member or a token, and not by a
password or a link with which somebody signs in who has more rights.
"""

from __future__ import annotations

from jobcloud.access.directory import Directory, narrows
from jobcloud.access.names import service_of, user_subject
from jobcloud.access.verbs import Verb
from jobcloud.errors import Conflict, NotAllowed, NotFound
from jobcloud.model import EVERY_TEAM, AccessToken, Grant, Principal, Role, Team, User, changed
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by


class AccountRules:
    """The rules, over the directory of the scheduler. Each check raises NotAllowed if the sender may not do something.
    Some checks raise other errors too, which their docstrings name.

    A check does nothing for the sender None, which is the server itself.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def check_sender(self, by: Principal | None, at: int) -> None:
        """The sender's token and account may have ended since the sender proved the identity."""
        if by is None:
            return
        token = self._directory.tokens.get(by.token_id)
        if (by.token_id and (token is None or not is_valid(token, at))) or self._directory.is_disabled(by.subject):
            raise NotAllowed(Told(f"{by.subject} is no longer signed in", "signed_out", subject=by.subject))

    def require(self, by: Principal | None, verb: Verb = Verb.MANAGE_ACCESS) -> None:
        """The sender has a verb in the whole installation."""
        if by is not None and not self._directory.allows(by, verb):
            text = f"{by.subject} has no role with the verb {verb} in this installation"
            raise NotAllowed(Told(text, "no_right", subject=by.subject, verb=verb))

    def manages(self, by: Principal | None, team: str) -> bool:
        """Whether the sender may change the members and service accounts of a team, or of the installation."""
        verb = Verb.MANAGE_ACCESS if team == EVERY_TEAM else Verb.MANAGE_TEAM
        return by is None or self._directory.allows(by, verb, team)

    def check_team(self, by: Principal | None, old: Team | None, new: Team) -> None:
        if by is None:
            return
        if old is None or (old.quota, old.weight) != (new.quota, new.weight):
            self.require(by)
        self._require_manager(by, new.name)
        for member in {*new.members} - {*(old.members if old is not None else ())}:
            self._require_cover(by, (new.name, member.role))

    def check_role(self, by: Principal | None, old: Role | None, new: Role) -> None:
        if by is None:
            return
        self.require(by)
        own = self._directory.verbs_in(by, EVERY_TEAM)
        for verb in new.verbs:
            if verb not in own and (old is None or verb not in old.verbs):
                text = f"{by.subject} lacks the verb {verb} in this installation, so cannot give it to a role"
                raise NotAllowed(Told(text, "lacks_verb_of_role", subject=by.subject, verb=verb))

    def check_user(self, by: Principal | None, old: User | None, new: User) -> None:
        """A person may change their own password. The caller has checked the present password."""
        if by is None:
            return
        subject = user_subject(new.name)
        own = by.subject == subject and by.scope is None
        if own and old is not None and new.password and changed(old, password=new.password) == new:
            return
        self.require(by)
        if new.password and (old is None or old.password != new.password):
            self.check_sign_in(by, subject)

    def check_sign_in(self, by: Principal, subject: str) -> None:
        """The sender may make a password or a link with which a subject signs in."""
        for grant in self._directory.grants_of(subject):
            if lacking := self._directory.lacking(by, grant):
                verb = min(lacking)
                text = f"{subject} has the verb {verb} in {_place(grant[0])}, and {by.subject} lacks it"
                told = Told(f"{text}, so cannot make a sign-in for {subject}", "more_rights", other=subject,
                            subject=by.subject, verb=verb, team=grant[0])  # fmt: skip
                raise NotAllowed(told)

    def checked_token(self, by: Principal, token: AccessToken) -> AccessToken:
        """The record of a new token, with the scope and the parent that follow from its maker.

        Raises Conflict if the subject has no role, and NotAllowed.
        """
        own, service = token.subject == by.subject, service_of(token.subject)
        if service is not None and not own:
            self._require_manager(by, service[0])
        elif not own:
            text = f"{by.subject} cannot make a token for {token.subject}: only for itself and for services"
            raise NotAllowed(Told(text, "no_token_for", subject=by.subject, other=token.subject))
        elif service is None and not by.subject.startswith("user:"):
            text = f"{by.subject} cannot have tokens: make one for a user or a service account"
            raise NotAllowed(Told(text, "no_tokens", subject=by.subject))
        holder = Principal(token.subject)
        grants = self._directory.grants_of(token.subject)
        if not grants:
            text = f"{token.subject} has no role of its own, and a token cannot use the roles of its holder's groups"
            problem = Told(text, "no_own_role", subject=token.subject)
            raise Conflict(problem, fix=Told("add it to a team", "add_to_team"))
        scope = token.scope or by.scope or ()
        for grant in scope:
            if by.scope is not None and not narrows(grant, by.scope):
                text = f"the role {grant[1]} in {grant[0]} is not in the scope of the present token"
                raise NotAllowed(Told(text, "beyond_scope", role=grant[1], team=grant[0]))
            if token.scope and self._directory.lacking(holder, grant):
                text = f"{token.subject} has not all rights of the role {grant[1]} in {grant[0]}"
                raise NotAllowed(Told(text, "beyond_rights", subject=token.subject, role=grant[1], team=grant[0]))
        for grant in () if own else scope or grants:
            self._require_cover(by, grant)
        return changed(token, scope=scope, created_by=by.subject, parent=by.token_id)

    def check_revocation(self, by: Principal | None, token: AccessToken) -> None:
        """A sender may revoke their own tokens, and those that the sender manages.

        A token with a scope proves only itself. So for its own subject, it revokes only itself and the tokens that were
        made with it. If its scope has manage-access, or manages the team of a service account, it revokes as such.
        Raises NotAllowed, and NotFound if the sender may not see the token.
        """
        if by is None:
            return
        service = service_of(token.subject)
        if self._directory.allows(by, Verb.MANAGE_ACCESS) or (service is not None and self.manages(by, service[0])):
            return
        if by.subject != token.subject:
            raise NotFound(
                Told(f"there is no token {token.id[:80]}", "no_token", token=token.id[:80]),
                field="id",
                fix=shown_by("jobcloud token list", "names them"),
            )
        if by.scope is not None and by.token_id not in self._ancestors(token):
            text = (
                "without manage-access, a token with a scope revokes only itself and the tokens that were made with it"
            )
            raise NotAllowed(Told(text, "revokes_own"))

    def sees_token(self, by: Principal, token: AccessToken) -> bool:
        """Whether a principal may see a token in the list."""
        service = service_of(token.subject)
        if by.subject == token.subject or self._directory.allows(by, Verb.MANAGE_ACCESS):
            return True
        return service is not None and self.manages(by, service[0])

    def check_service(self, by: Principal | None, subject: str) -> None:
        service = service_of(subject)
        assert service is not None, f"{subject} is no service account"
        self._require_manager(by, service[0])

    def check_session(self, by: Principal | None, subject: str) -> None:
        if by is not None and (by.subject != subject or by.scope is not None):
            self.require(by)

    def _ancestors(self, token: AccessToken) -> set[str]:
        """The ids of a token and of those with which it was made."""
        found = {token.id}
        while token.parent and token.parent not in found:
            found.add(token.parent)
            if token.parent not in self._directory.tokens:
                break
            token = self._directory.tokens[token.parent]
        return found

    def _require_manager(self, by: Principal | None, team: str) -> None:
        if by is not None and not self.manages(by, team):
            where = "of this installation" if team == EVERY_TEAM else f"of the team {team[:80]}"
            told = Told(
                f"{by.subject} does not manage the members {where}", "no_manager", subject=by.subject, team=team[:80]
            )
            raise NotAllowed(told)

    def _require_cover(self, by: Principal, grant: Grant) -> None:
        if lacking := self._directory.lacking(by, grant):
            team, role = grant
            verb = min(lacking)
            where = _place(team)
            text = f"{by.subject} lacks the verb {verb} of the role {role} in {where}, so cannot give it"
            raise NotAllowed(Told(text, "lacks_verb", subject=by.subject, verb=verb, role=role, team=team[:80]))


def _place(team: str) -> str:
    return "the whole installation" if team == EVERY_TEAM else f"the team {team[:80]}"


def is_valid(token: AccessToken, at: int) -> bool:
    """Whether a token is neither revoked nor expired."""
    return not token.revoked_ms and not 0 < token.expires_ms <= at
