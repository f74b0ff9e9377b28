"""Pools: named limits across jobs. A pool belongs to a team, or to all teams (`*`)."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, WithJsonSchema

from jobcloud.access.verbs import Verb
from jobcloud.config import POOL_FORM, check_name, check_team, qualified, split_key
from jobcloud.messages import PutPool, RemovePool
from jobcloud.model import EVERY_TEAM, Pool
from jobcloud.scheduler.pools import PoolUse
from jobcloud.scheduler.refusals import changed_since, no_pool
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import check_printable, read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.patch import change
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.schema import PoolConfig
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.routes import Routes

router = Routes(tags=["pools"])

_POOLS = Listing("pools", (str,))
PoolName = Annotated[str, WithJsonSchema({"type": "string", "pattern": POOL_FORM})]


class PoolView(Revised):
    name: str = Field(description="as jobs of its team name it; `*:NAME` is a pool of all teams")
    team: str = Field(description="`*`: all teams")
    slots: int
    description: str
    used: int = Field(description="slots that running shards have taken")
    waiting: int = Field(
        description="waiting shards of jobs that name the pool, except those that wait for a back-off or a listener"
    )
    jobs: int = Field(description="jobs that name the pool, with those of ad-hoc runs")


class PoolList(PageView):
    items: list[PoolView]


@router.get("/pools")
def list_pools(services: ServicesDep, access: AccessDep, query: Annotated[PageQuery, Parameter()]) -> PoolList:
    """The pools of all teams, and those of the teams whose jobs the sender may see, by name."""
    known = services.loop.ask(lambda scheduler: scheduler.pool_uses())
    sees = access.in_teams(Verb.VIEW)
    visible = [use for use in known if (team := _team_of(use.key)) == EVERY_TEAM or sees(team)]
    found, cursor = _POOLS.page(visible, lambda use: (use.key,), query)
    return PoolList(items=list(map(_view, found)), next_cursor=cursor)


@router.get("/pools/{pool}", dependencies=[SEEN], response_model=PoolView)
def show_pool(services: ServicesDep, access: AccessDep, pool: PoolName, request: Request) -> Response:
    key = _key(pool)
    _require(access, Verb.VIEW, key)
    return shown(request, _shown(services, key))


@router.put(
    "/pools/{pool}",
    responses={201: {"model": PoolView, "description": "It is new"}},
    openapi_extra=json_body(PoolConfig),
)
async def put_pool(
    services: ServicesDep, access: AccessDep, pool: PoolName, body: JsonObject, expected: Expected, response: Response
) -> PoolView:
    """Create or change a pool. Running shards continue, also if the pool has fewer slots afterwards.

    A pool of all teams needs the right in the whole installation.
    """
    key = _key(pool)
    _require(access, Verb.CONFIGURE, key)
    given = read_config(body, PoolConfig)
    check_printable("description", given.description)
    made = Pool(given.slots, given.description)

    def attempt() -> bool:
        known = _known(services, key, expected)
        if made != known:
            services.command(lambda at: PutPool(at, key, made, known))
        return known is None

    created = await change(lambda: run_in_threadpool(attempt), expected)
    view = await run_in_threadpool(_shown, services, key)
    response.status_code = 201 if created else 200
    mark(response, view)
    return view


@router.delete("/pools/{pool}", status_code=204)
async def remove_pool(services: ServicesDep, access: AccessDep, pool: PoolName, expected: Expected) -> None:
    """Remove a pool that no job names."""
    key = _key(pool)
    _require(access, Verb.CONFIGURE, key)

    def attempt() -> None:
        known = _known(services, key, expected)
        services.command(lambda at: RemovePool(at, key, known))

    await change(lambda: run_in_threadpool(attempt), expected)


def _key(text: str) -> str:
    """Raises ConfigError."""
    key = qualified(text)
    team, name = split_key(key)
    check_name("pool", name)
    if team != EVERY_TEAM:
        check_team("pool", team)
    return key


def _team_of(key: str) -> str:
    return split_key(key)[0]


def _require(access: AccessDep, verb: Verb, key: str) -> None:
    """Raises Problem (forbidden). Everybody may see the pools of all teams."""
    team = _team_of(key)
    if team != EVERY_TEAM:
        access.require(verb, team)
    elif verb is not Verb.VIEW:
        access.require(verb)


def _known(services: Services, key: str, expected: tuple[str, ...] | None) -> Pool | None:
    """The present pool. Raises Outdated if it has none of the expected revisions."""
    known = services.loop.ask(lambda scheduler: scheduler.pools.get(key))
    if expected is not None and (known is None or _revision(known) not in expected):
        raise changed_since("pool", key)
    return known


def _shown(services: Services, key: str) -> PoolView:
    """Raises NotFound."""
    known = services.loop.ask(lambda scheduler: scheduler.pool_uses(key))
    if not known:
        raise no_pool(key)
    return _view(known[0])


def _revision(pool: Pool) -> str:
    return hashlib.sha256(msgspec.json.encode(pool)).hexdigest()[:16]


def _view(use: PoolUse) -> PoolView:
    return PoolView(
        revision=_revision(use.pool),
        name=use.key,
        team=_team_of(use.key),
        slots=use.pool.slots,
        description=use.pool.description,
        used=use.used,
        waiting=use.waiting,
        jobs=use.jobs,
    )
