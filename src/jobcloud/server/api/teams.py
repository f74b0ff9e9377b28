"""Teams: members, weights and quotas. The team `*` stands for the whole installation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, WithJsonSchema

from jobcloud.access.names import PLACE_FORM, check_place
from jobcloud.access.verbs import Verb
from jobcloud.config import DEFAULT_TEAM
from jobcloud.errors import NotFound
from jobcloud.messages import Kind, PutAccess, RemoveAccess
from jobcloud.model import EVERY_TEAM, Member, Principal, Quota, Team, changed
from jobcloud.scheduler.refusals import changed_since
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import done_by, shown_by
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.patch import change
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.schema import Amounts, MemberConfig, Query, QuotaConfig, TeamConfig, View, amounts
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.routes import Routes

router = Routes(tags=["teams"])

_TEAMS = Listing("teams", (str,))
TeamName = Annotated[str, WithJsonSchema({"type": "string", "pattern": PLACE_FORM})]


class MemberView(View):
    subject: str
    role: str


class TeamView(Revised):
    name: str = Field(description="`*`: the whole installation")
    weight: int
    quota: QuotaConfig
    members: list[MemberView]


class TeamList(PageView):
    items: list[TeamView]


class TeamUsageView(Amounts):
    """The use of resources by a team, and its waiting work. The team need not have an entry of its own."""

    team: str
    shards: int = Field(description="attempts that run")
    jobs: int = Field(description="registered jobs")
    queue: int = Field(description="shards that wait")
    held_runs: int = Field(description="runs whose shards wait for room in the quota")
    share: float = Field(description="the largest part of any resource of the cluster that the team has, from 0 to 1")


class MemberQuery(Query):
    subject: str = Field(max_length=300, description="user:NAME, group:NAME or service:TEAM/NAME")
    role: str = Field("", max_length=100, description="the role to take away; empty: all roles")


@router.get("/teams")
def list_teams(services: ServicesDep, access: AccessDep, query: Annotated[PageQuery, Parameter()]) -> TeamList:
    """The teams with members, a weight or a quota, by name: those whose jobs the sender may see."""
    known = services.loop.ask(lambda scheduler: list(scheduler.directory.teams.values()))
    sees = access.in_teams(Verb.VIEW)
    visible = sorted((team for team in known if sees(team.name)), key=lambda team: team.name)
    found, cursor = _TEAMS.page(visible, lambda team: (team.name,), query, _size)
    return TeamList(items=[_view(team) for team in found], next_cursor=cursor)


@router.get("/teams/{team}", dependencies=[SEEN], response_model=TeamView)
def show_team(services: ServicesDep, access: AccessDep, team: TeamName, request: Request) -> Response:
    access.require(Verb.VIEW, team)
    return shown(request, _view(_known(services, team)))


@router.get("/teams/{team}/usage")
def show_usage(services: ServicesDep, access: AccessDep, team: TeamName) -> TeamUsageView:
    """The resources of a team's attempts and executors, and the numbers that its quota limits."""
    check_place(team, "team")
    access.require(Verb.VIEW, team)
    found = services.loop.ask(lambda scheduler: scheduler.team_usage(team))
    used = amounts(found.resources)
    return TeamUsageView(
        **dict(used), team=team, shards=found.shards, jobs=found.jobs, queue=found.queue, held_runs=found.held_runs,
        share=found.share,
    )  # fmt: skip


@router.put(
    "/teams/{team}",
    responses={201: {"model": TeamView, "description": "It is new"}},
    openapi_extra=json_body(TeamConfig),
)
async def put_team(
    services: ServicesDep, access: AccessDep, team: TeamName, body: JsonObject, expected: Expected, response: Response
) -> TeamView:
    """Create a team, or replace the weight and the quota of one. Its members stay."""
    given = read_config(body, TeamConfig)
    quota = Quota(**{name: getattr(given.quota, name) for name in QuotaConfig.model_fields})

    def settings(known: Team) -> Team:
        return changed(known, weight=given.weight, quota=quota)

    made, created = await _change(services, access.principal, team, expected, settings, create=True)
    response.status_code = 201 if created else 200
    return _marked(response, made)


@router.delete("/teams/{team}", status_code=204)
def remove_team(services: ServicesDep, access: AccessDep, team: TeamName) -> None:
    """Remove a team that has no apps and no jobs, with its service accounts."""
    services.command(lambda at: RemoveAccess(at, Kind.TEAM, team, access.principal))


@router.post("/teams/{team}/members", openapi_extra=json_body(MemberConfig))
async def add_member(
    services: ServicesDep, access: AccessDep, team: TeamName, body: JsonObject, expected: Expected, response: Response
) -> TeamView:
    """Give a role in a team to a person, a group or a service account. The sender must have all its verbs there."""
    access.require(Verb.MANAGE_TEAM, team)
    given = read_config(body, MemberConfig)
    member = Member(given.subject, given.role)

    def added(known: Team) -> Team:
        return known if member in known.members else changed(known, members=(*known.members, member))

    made, _ = await _change(services, access.principal, team, expected, added)
    return _marked(response, made)


@router.delete("/teams/{team}/members")
async def remove_member(
    services: ServicesDep,
    access: AccessDep,
    team: TeamName,
    query: Annotated[MemberQuery, Parameter()],
    expected: Expected,
    response: Response,
) -> TeamView:
    """Take a role, or all roles, in a team away from a subject."""
    access.require(Verb.MANAGE_TEAM, team)

    def removed(known: Team) -> Team:
        gone = {
            member for member in known.members if member.subject == query.subject and query.role in ("", member.role)
        }
        if not gone:
            role = f" with the role {query.role[:80]}" if query.role else ""
            problem = Told(f"{query.subject[:80]} is no member{role}", "no_member", subject=query.subject[:80])
            raise NotFound(problem, field="subject", fix=shown_by("jobcloud team show TEAM", ""))
        return changed(known, members=tuple(member for member in known.members if member not in gone))

    made, _ = await _change(services, access.principal, team, expected, removed)
    return _marked(response, made)


async def _change(
    services: Services,
    by: Principal,
    name: str,
    expected: tuple[str, ...] | None,
    make: Callable[[Team], Team],
    *,
    create: bool = False,
) -> tuple[Team, bool]:
    """Store what `make` makes of a team. If somebody else changes the team first, do so again.

    The installation and the team `default` need not be created. Returns the team, and whether it is new.
    """

    check_place(name, "team")

    def attempt() -> tuple[Team, bool]:
        known = services.loop.ask(lambda scheduler: scheduler.directory.teams.get(name))
        if known is None and not (create or name in (EVERY_TEAM, DEFAULT_TEAM)):
            raise _unknown(name)
        if expected is not None and (known is None or _revision(known) not in expected):
            raise changed_since("team", name)
        new = make(known or Team(name))
        if new != known:
            services.command(lambda at: PutAccess(at, new, create=known is None, before=known, by=by))
        return new, known is None

    return await change(lambda: run_in_threadpool(attempt), expected)


def _known(services: Services, name: str) -> Team:
    """Raises NotFound."""
    known = services.loop.ask(lambda scheduler: scheduler.directory.teams.get(name))
    if known is None:
        raise _unknown(name)
    return known


def _unknown(name: str) -> NotFound:
    problem = Told(f"there is no team {name[:80]}", "no_team", team=name[:80])
    return NotFound(problem, field="team", fix=done_by("jobcloud team set TEAM", "creates it"))


def _marked(response: Response, team: Team) -> TeamView:
    view = _view(team)
    mark(response, view)
    return view


def _revision(team: Team) -> str:
    return hashlib.sha256(msgspec.json.encode(team)).hexdigest()[:16]


def _size(team: Team) -> int:
    """The approximate size of a team's JSON in bytes."""
    return 400 + sum(60 + len(member.subject) for member in team.members)


def _view(team: Team) -> TeamView:
    return TeamView(
        revision=_revision(team),
        name=team.name,
        weight=team.weight,
        quota=QuotaConfig.model_construct(**msgspec.structs.asdict(team.quota)),
        members=[MemberView(subject=member.subject, role=member.role) for member in team.members],
    )
