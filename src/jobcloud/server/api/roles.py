"""Roles: the built-in ones, and those of this installation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import msgspec
from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, WithJsonSchema

from jobcloud.access.directory import Directory
from jobcloud.access.names import check_role
from jobcloud.access.verbs import ROLES, Verb
from jobcloud.config import LABEL_FORM
from jobcloud.errors import NotFound
from jobcloud.messages import Kind, PutAccess, RemoveAccess
from jobcloud.model import Role
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.refusals import changed_since
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.schema import RoleConfig
from jobcloud.server.api.services import JsonObject, ServicesDep, json_body
from jobcloud.server.routes import Routes

router = Routes(tags=["roles"])

_ROLES = Listing("roles", (int, str))
RoleName = Annotated[str, WithJsonSchema({"type": "string", "pattern": LABEL_FORM})]


class RoleView(Revised):
    name: str
    built_in: bool
    verbs: list[Verb]


class RoleList(PageView):
    items: list[RoleView] = Field(description="the built-in ones first")


@router.get("/roles")
def list_roles(services: ServicesDep, query: Annotated[PageQuery, Parameter()]) -> RoleList:
    """The roles with their verbs. In a team, a role does not give verbs of the installation."""

    def known(scheduler: Scheduler) -> list[RoleView]:
        return [_view(scheduler.directory, name) for name in (*ROLES, *sorted(scheduler.directory.roles))]

    found = services.loop.ask(known)
    places = {view.name: number for number, view in enumerate(found) if view.built_in}
    items, cursor = _ROLES.page(found, lambda view: (places.get(view.name, len(ROLES)), view.name), query)
    return RoleList(items=items, next_cursor=cursor)


@router.get("/roles/{role}", dependencies=[SEEN], response_model=RoleView)
def show_role(services: ServicesDep, role: RoleName, request: Request) -> Response:
    """A role, built-in or not."""

    def known(scheduler: Scheduler) -> RoleView:
        if role not in ROLES and role not in scheduler.directory.roles:
            problem = Told(f"there is no role {role[:80]}", "no_role", role=role[:80])
            raise NotFound(problem, field="role", fix=shown_by("jobcloud role list", "shows all roles"))
        return _view(scheduler.directory, role)

    return shown(request, services.loop.ask(known))


@router.put(
    "/roles/{role}",
    responses={201: {"model": RoleView, "description": "It is new"}},
    openapi_extra=json_body(RoleConfig),
)
async def put_role(
    services: ServicesDep, access: AccessDep, role: RoleName, body: JsonObject, expected: Expected, response: Response
) -> RoleView:
    """Create or change a role. The sender must have each new verb in the whole installation."""
    check_role(role)
    given = read_config(body, RoleConfig)
    record = Role(role, tuple(verb.value for verb in given.verbs))

    def attempt() -> bool:
        """Store the role. Returns whether it is new."""
        known = services.loop.ask(lambda scheduler: scheduler.directory.roles.get(role))
        if expected is not None and (known is None or _revision(_sorted(known.verbs)) not in expected):
            raise changed_since("role", role)
        # Without a precondition, the role is replaced whatever it is by then.
        before = known if expected is not None else None
        services.command(lambda at: PutAccess(at, record, before=before, by=access.principal))
        return known is None

    response.status_code = 201 if await run_in_threadpool(attempt) else 200
    view = _view_of(role, _sorted(given.verbs))
    mark(response, view)
    return view


@router.delete("/roles/{role}", status_code=204)
def remove_role(services: ServicesDep, access: AccessDep, role: RoleName) -> None:
    """Remove a role that no member and no valid token has."""
    services.command(lambda at: RemoveAccess(at, Kind.ROLE, role, access.principal))


def _sorted(verbs: Iterable[str]) -> list[Verb]:
    given = frozenset(verbs)
    return [verb for verb in Verb if verb in given]


def _revision(verbs: list[Verb]) -> str:
    return hashlib.sha256(msgspec.json.encode(verbs)).hexdigest()[:16]


def _view(directory: Directory, role: str) -> RoleView:
    return _view_of(role, _sorted(directory.verbs(role)))


def _view_of(role: str, verbs: list[Verb]) -> RoleView:
    return RoleView(revision=_revision(verbs), name=role, built_in=role in ROLES, verbs=verbs)
