"""Service accounts of teams. A service account is its roles and its tokens: it has no record of its own."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import Query as Parameter
from pydantic import Field, WithJsonSchema

from jobcloud.access.names import PLACE_FORM, service_of, service_subject
from jobcloud.access.verbs import Verb
from jobcloud.config import LABEL_FORM
from jobcloud.messages import RemoveService
from jobcloud.scheduler.account_rules import is_valid
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.schema import View
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.tokens import GrantView
from jobcloud.server.routes import Routes

router = Routes(tags=["services"])

_SERVICES = Listing("services", (str,))


class ServiceView(View):
    subject: str
    team: str
    name: str
    roles: list[GrantView]
    tokens: int = Field(description="valid tokens")


class ServiceList(PageView):
    items: list[ServiceView]


class ServiceQuery(PageQuery):
    team: str = Field("", pattern=f"^$|{PLACE_FORM}", description="only service accounts of this team")


@router.get("/services")
def list_services(services: ServicesDep, access: AccessDep, query: Annotated[ServiceQuery, Parameter()]) -> ServiceList:
    """The service accounts of the teams whose members the sender may change."""
    directory, teams, tokens = services.loop.ask(
        lambda scheduler: (
            scheduler.directory,
            list(scheduler.directory.teams.values()),
            list(scheduler.directory.tokens.values()),
        )
    )
    now, manages = services.clock(), access.in_teams(Verb.MANAGE_TEAM)
    valid = Counter(token.subject for token in tokens if is_valid(token, now))
    found = []
    for subject in sorted({member.subject for team in teams for member in team.members} | {*valid}):
        team, name = service_of(subject) or ("", "")
        if team and query.team in ("", team) and manages(team):
            roles = [GrantView(team=where, role=role) for where, role in directory.grants_of(subject)]
            found.append(ServiceView(subject=subject, team=team, name=name, roles=roles, tokens=valid[subject]))
    items, cursor = _SERVICES.page(found, lambda view: (view.subject,), query)
    return ServiceList(items=items, next_cursor=cursor)


@router.delete("/services/{team}/{name}", status_code=204)
def remove_service(
    services: ServicesDep,
    access: AccessDep,
    team: Annotated[str, WithJsonSchema({"type": "string", "pattern": PLACE_FORM})],
    name: Annotated[str, WithJsonSchema({"type": "string", "pattern": LABEL_FORM})],
) -> None:
    """Remove a service account: its roles in all teams, and its tokens."""
    access.require(Verb.MANAGE_TEAM, team)
    services.command(lambda at: RemoveService(at, service_subject(team, name), access.principal))
