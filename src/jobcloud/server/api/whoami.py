"""The sender of a request: subject, roles and verbs."""

from __future__ import annotations

from pydantic import Field

from jobcloud.access.verbs import Verb
from jobcloud.scheduler import Scheduler
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.schema import View
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.tokens import GrantView
from jobcloud.server.routes import Routes

router = Routes(tags=["whoami"])


class TeamRights(View):
    team: str = Field(description="`*`: the whole installation")
    roles: list[str]
    verbs: list[Verb] = Field(description="within the scope of the token")


class WhoAmI(View):
    subject: str
    via: str = Field(description="how the identity was proved, such as `token ID`")
    groups: list[str]
    scope: list[GrantView] | None = Field(description="the only roles that the token has; null: no restriction")
    teams: list[TeamRights] = Field(description="the teams in which the sender has roles")


@router.get("/whoami")
def who_am_i(services: ServicesDep, access: AccessDep) -> WhoAmI:
    """The identity of the sender, and the rights."""
    principal = access.principal

    def rights(scheduler: Scheduler) -> list[TeamRights]:
        grants = scheduler.directory.grants(principal)
        return [
            TeamRights(
                team=team,
                roles=sorted({role for where, role in grants if where == team}),
                verbs=scheduler.directory.verbs_in(principal, team),
            )
            for team in sorted({team for team, _ in grants})
        ]

    scope = principal.scope
    return WhoAmI(
        subject=principal.subject,
        via=principal.via,
        groups=list(principal.groups),
        scope=[GrantView(team=team, role=role) for team, role in scope] if scope is not None else None,
        teams=services.loop.ask(rights),
    )
