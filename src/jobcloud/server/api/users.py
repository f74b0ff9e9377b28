"""Local users."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, WithJsonSchema

from jobcloud.access.names import USER_FORM, user_subject
from jobcloud.access.verbs import Verb
from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import Kind, PutAccess, RemoveAccess
from jobcloud.model import User, changed
from jobcloud.scheduler import Scheduler
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.schema import Instant, PasswordConfig, UserConfig, UserPatch, View
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.api.tokens import GrantView
from jobcloud.server.identity import passwords
from jobcloud.server.routes import Routes

router = Routes(tags=["users"])

_USERS = Listing("users", (str,))
UserName = Annotated[str, WithJsonSchema({"type": "string", "pattern": USER_FORM})]


class UserView(View):
    name: str
    created_at: Instant
    disabled: bool
    has_password: bool = Field(description="whether the user can sign in by a password")


class UserWithRoles(UserView):
    roles: list[GrantView] = Field(description="without the roles of groups")


class UserList(PageView):
    items: list[UserView]


@router.get("/users")
def list_users(services: ServicesDep, query: Annotated[PageQuery, Parameter()]) -> UserList:
    """The users that were added, by name. Other people of an identity provider are not listed."""
    known = services.loop.ask(lambda scheduler: sorted(scheduler.directory.users.values(), key=lambda user: user.name))
    found, cursor = _USERS.page(known, lambda user: (user.name,), query)
    return UserList(items=[UserView(**_fields(user)) for user in found], next_cursor=cursor)


@router.post("/users", status_code=201, openapi_extra=json_body(UserConfig))
async def add_user(services: ServicesDep, access: AccessDep, body: JsonObject) -> UserWithRoles:
    """Add a local user, or a person of the identity provider (`oidc:NAME`) to disable."""
    given = read_config(body, UserConfig)
    hashed = await _hash(services, given.password, given.name) if given.password else ""

    def add() -> UserWithRoles:
        services.command(
            lambda at: PutAccess(at, User(given.name, at, hashed), create=True, by=access.principal),
        )
        return services.loop.ask(lambda scheduler: _with_roles(scheduler, given.name))

    return await run_in_threadpool(add)


@router.get("/users/{user}")
def show_user(services: ServicesDep, user: UserName) -> UserWithRoles:
    return services.loop.ask(lambda scheduler: _with_roles(scheduler, user))


@router.patch("/users/{user}", openapi_extra=json_body(UserPatch))
def change_user(services: ServicesDep, access: AccessDep, user: UserName, body: JsonObject) -> UserWithRoles:
    """Disable or enable a user. A disabled user is signed out everywhere, and the user's tokens do not work."""
    given, known = read_config(body, UserPatch), _known(services, user)
    new = changed(known, disabled=given.disabled)
    services.command(lambda at: PutAccess(at, new, before=known, by=access.principal))
    return services.loop.ask(lambda scheduler: _with_roles(scheduler, user))


@router.put("/users/{user}/password", status_code=204, openapi_extra=json_body(PasswordConfig))
async def set_password(
    services: ServicesDep, access: AccessDep, user: UserName, body: JsonObject, request: Request
) -> Response:
    """Set a password, and sign the user out everywhere else.

    The own password needs the present one, and has the limits of a sign-in. Without the verb manage-access, all others
    are refused.
    """
    given = read_config(body, PasswordConfig)
    own = access.principal.subject == user_subject(user)
    if not own:
        access.require(Verb.MANAGE_ACCESS)
    known = await run_in_threadpool(_known, services, user)
    if own and not services.sign_in_limits.admit(user, request.client.host if request.client is not None else ""):
        raise Problem("too-many", "There were too many tries. Wait a minute.", headers={"Retry-After": "60"})
    if own and not await services.password_checks.ask(lambda: passwords.verify(known.password, given.current_password)):
        raise ConfigError(
            Told("is not the present password", "wrong_password"),
            field="currentPassword",
            fix=Told("or let an admin set a new one", "admin_password"),
        )
    new = changed(known, password=await _hash(services, given.password, user))

    def change() -> None:
        services.command(lambda at: PutAccess(at, new, before=known, by=access.principal))

    await run_in_threadpool(change)
    return Response(status_code=204)


@router.delete("/users/{user}", status_code=204)
def remove_user(services: ServicesDep, access: AccessDep, user: UserName) -> None:
    """Remove a user with all roles, tokens and sessions."""
    services.command(lambda at: RemoveAccess(at, Kind.USER, user, access.principal))


async def _hash(services: Services, password: str, user: str) -> str:
    """Raises ConfigError, Unavailable."""
    passwords.check(password, user)
    return await services.password_checks.ask(lambda: passwords.hash_password(password))


def _known(services: Services, name: str) -> User:
    """Raises NotFound."""
    return services.loop.ask(lambda scheduler: _user(scheduler, name))


def _user(scheduler: Scheduler, name: str) -> User:
    if name not in scheduler.directory.users:
        problem = Told(f"there is no user {name[:80]}", "no_user", user=name[:80])
        raise NotFound(problem, field="user", fix=shown_by("jobcloud user list", "names them"))
    return scheduler.directory.users[name]


def _fields(user: User) -> dict[str, Any]:
    """The fields of the view of a user."""
    return {
        "name": user.name,
        "created_at": user.created_ms,
        "disabled": user.disabled,
        "has_password": bool(user.password),
    }


def _with_roles(scheduler: Scheduler, name: str) -> UserWithRoles:
    """Raises NotFound."""
    roles = [GrantView(team=team, role=role) for team, role in scheduler.directory.grants_of(user_subject(name))]
    return UserWithRoles(**_fields(_user(scheduler, name)), roles=roles)
