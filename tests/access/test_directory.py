"""Decisions about rights: members, groups, roles, scopes of tokens."""

from __future__ import annotations

import pytest

from jobcloud.access.directory import EMPTY, Directory, Principal
from jobcloud.access.verbs import OF_INSTALLATION, ROLES, Verb
from jobcloud.model import EVERY_TEAM, Member, Role, Team

ANN = Principal("user:ann")
OPS = Principal("user:bob", groups=("ops",))


def directory(*teams: Team, roles: tuple[Role, ...] = ()) -> Directory:
    return Directory({team.name: team for team in teams}, {role.name: role for role in roles}, {}, {}, {})


def team(name: str, *members: tuple[str, str]) -> Team:
    return Team(name, tuple(Member(subject, role) for subject, role in members))


def test_nobody_has_rights_without_a_team() -> None:
    assert not any(EMPTY.allows(ANN, verb, "web") or EMPTY.allows(ANN, verb) for verb in Verb)


def test_member_has_the_verbs_of_the_role_in_the_team_only() -> None:
    known = directory(team("web", ("user:ann", "operator")), team("billing"))
    assert known.allows(ANN, Verb.TRIGGER, "web")
    assert not known.allows(ANN, Verb.CONFIGURE, "web")
    assert not known.allows(ANN, Verb.TRIGGER, "billing")
    assert not known.allows(ANN, Verb.TRIGGER), "the whole installation"


def test_role_in_one_team_gives_no_verb_of_the_installation() -> None:
    known = directory(team("web", ("user:ann", "admin")))
    for verb in OF_INSTALLATION:
        assert not known.allows(ANN, verb, "web")
        assert not known.allows(ANN, verb)


def test_member_of_the_installation_has_the_verbs_in_each_team() -> None:
    known = directory(team(EVERY_TEAM, ("user:ann", "operator")))
    assert known.allows(ANN, Verb.TRIGGER, "web")
    assert known.allows(ANN, Verb.OPERATE_CLUSTER)
    assert not known.allows(ANN, Verb.MANAGE_ACCESS)


def test_group_gives_its_role_to_each_member() -> None:
    known = directory(team("web", ("group:ops", "viewer")))
    assert known.allows(OPS, Verb.VIEW, "web")
    assert not known.allows(ANN, Verb.VIEW, "web")


def test_user_and_group_of_one_name_are_different() -> None:
    known = directory(team("web", ("group:ann", "viewer")))
    assert not known.allows(ANN, Verb.VIEW, "web")


def test_scope_restricts_and_never_adds() -> None:
    known = directory(team("web", ("user:ann", "author")), team("billing", ("user:ann", "viewer")))
    token = Principal("user:ann", scope=(("web", "viewer"), ("billing", "admin")))
    assert known.allows(token, Verb.VIEW, "web")
    assert not known.allows(token, Verb.CONFIGURE, "web"), "the scope is smaller"
    assert not known.allows(token, Verb.CONFIGURE, "billing"), "the rights are smaller"
    assert not known.allows(Principal("user:ann", scope=()), Verb.VIEW, "web"), "an empty scope allows nothing"


def test_custom_role_gives_its_known_verbs() -> None:
    known = directory(team("web", ("user:ann", "caller")), roles=(Role("caller", ("trigger", "fly")),))
    assert {verb for verb in Verb if known.allows(ANN, verb, "web")} == {Verb.TRIGGER}


def test_custom_role_cannot_replace_a_built_in_one() -> None:
    known = directory(team("web", ("user:ann", "viewer")), roles=(Role("viewer", tuple(Verb)),))
    assert {verb for verb in Verb if known.allows(ANN, verb, "web")} == ROLES["viewer"] - OF_INSTALLATION


def test_unknown_role_gives_nothing() -> None:
    assert not directory(team("web", ("user:ann", "king"))).allows(ANN, Verb.VIEW, "web")


def test_change_of_members_takes_effect() -> None:
    teams = {"web": team("web")}
    known = Directory(teams, {}, {}, {}, {})
    teams["web"] = team("web", ("user:ann", "viewer"))
    assert not known.allows(ANN, Verb.VIEW, "web")
    known.teams_changed()
    assert known.allows(ANN, Verb.VIEW, "web")


@pytest.mark.parametrize("role", sorted(ROLES))
def test_only_the_role_teardown_tears_down(role: str) -> None:
    assert (Verb.TEARDOWN in ROLES[role]) == (role == "teardown")


def test_rights_somewhere() -> None:
    known = directory(team("web", ("user:ann", "viewer")))
    assert known.allows_somewhere(ANN, Verb.VIEW)
    assert not known.allows_somewhere(ANN, Verb.TRIGGER)
    assert not known.allows_somewhere(OPS, Verb.VIEW)
