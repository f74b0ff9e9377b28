"""Sessions of browsers, and links with which a browser signs in once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Request
from pydantic import Field

from jobcloud.access.directory import Directory
from jobcloud.access.names import user_subject
from jobcloud.access.verbs import Verb
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import EndSessions, Kind, RemoveAccess
from jobcloud.model import Session
from jobcloud.scheduler.account_rules import AccountRules
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.server.api.authorization import Access, AccessDep
from jobcloud.server.api.identities import DIRECTORY, SESSION
from jobcloud.server.api.paging import Listing, PageQuery, PageView, Place
from jobcloud.server.api.schema import Instant, Query, View
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.identity.sessions import may_sign_in
from jobcloud.server.routes import Routes

router = Routes(tags=["sessions"])

_SESSIONS = Listing("sessions", (str, int, str))
_MAX_SUBJECT = 300


class SessionView(View):
    id: str
    subject: str = Field(description="who has signed in, such as user:ann")
    by: str = Field(description="how: password, link, …")
    created_at: Instant
    seen_at: Instant = Field(description="when it was used last, within a minute")
    expires_at: Instant = Field(description="when it ends unless it ends earlier because nobody uses it")
    groups: list[str] = Field(description="the groups that the identity provider named")
    current: bool = Field(description="whether this request belongs to the session")


class SessionList(PageView):
    items: list[SessionView]


class SubjectQuery(Query):
    subject: str = Field("", max_length=_MAX_SUBJECT, description="such as user:ann; empty: the sender")


class LinkQuery(Query):
    user: str = Field("", max_length=_MAX_SUBJECT, description="whom the link signs in; empty: the sender")


class LinkView(View):
    path: str = Field(description="the path of the link, with the code behind #. It is shown once")
    subject: str
    expires_at: Instant


@router.get("/sessions")
def list_sessions(
    services: ServicesDep, access: AccessDep, request: Request, query: Annotated[PageQuery, Parameter()]
) -> SessionList:
    """The sessions of the sender, or those of everybody if the sender may manage access."""
    now, current = services.clock(), request.scope.get(SESSION)
    found = services.loop.ask(lambda scheduler: list(scheduler.directory.sessions.values()))
    views = [
        _view(session, current)
        for session in found
        if services.sessions.alive(session, now) and _may_end(access, session.subject)
    ]
    items, cursor = _SESSIONS.page(sorted(views, key=_place), _place, query)
    return SessionList(items=items, next_cursor=cursor)


@router.delete("/sessions", status_code=204)
def end_sessions(services: ServicesDep, access: AccessDep, query: Annotated[SubjectQuery, Parameter()]) -> None:
    """Sign somebody out everywhere."""
    subject = query.subject or access.principal.subject
    if not _may_end(access, subject):
        access.require(Verb.MANAGE_ACCESS)
    services.command(lambda at: EndSessions(at, subject))


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(services: ServicesDep, access: AccessDep, session_id: str) -> None:
    """End a session."""
    session = services.loop.ask(lambda scheduler: scheduler.directory.sessions.get(session_id))
    if session is None or not _may_end(access, session.subject):
        problem = Told(f"there is no session {session_id[:80]}", "no_session")
        raise NotFound(problem, field="sessionId", fix=shown_by("jobcloud session list", "shows all"))
    services.command(lambda at: RemoveAccess(at, Kind.SESSION, session.id))


@router.post("/login-links", status_code=201)
def make_link(
    services: ServicesDep, access: AccessDep, request: Request, query: Annotated[LinkQuery, Parameter()]
) -> LinkView:
    """Make a link with which a browser signs in once, within 15 minutes.

    The sender must have all rights that the teams give to the user.
    """
    sender = access.principal
    directory: Directory = request.scope[DIRECTORY]
    subject = user_subject(query.user) if query.user else sender.subject
    user = directory.user_of(subject)
    if query.user:
        if user is None or user.disabled:
            problem = Told(f"there is no user {query.user[:80]!r} who may sign in", "no_sign_in", user=query.user[:80])
            raise NotFound(problem, field="user", fix=shown_by("jobcloud user list", "names them"))
        AccountRules(directory).check_sign_in(sender, subject)
    elif sender.scope is not None or not may_sign_in(subject, directory, services):
        problem = Told(f"{subject} cannot sign in to a browser", "no_browser", subject=subject)
        raise Conflict(problem, field="user", fix=Told("name a user", "name_user"))
    since = user.created_ms if user is not None else 0
    code, link = services.links.make(subject, sender, services.clock(), since)
    return LinkView(path=f"/login/link#{code}", subject=subject, expires_at=link.expires_ms)


def _may_end(access: Access, subject: str) -> bool:
    """Whether the sender may see and end the sessions of somebody. A token with a scope is no proof of the person."""
    own = access.principal.scope is None and access.principal.subject == subject
    return own or access.allows(Verb.MANAGE_ACCESS)


def _place(view: SessionView) -> Place:
    return view.subject, view.created_at, view.id


def _view(session: Session, current: Session | None) -> SessionView:
    return SessionView(
        id=session.id,
        subject=session.subject,
        by=session.by,
        created_at=session.created_ms,
        seen_at=session.seen_ms,
        expires_at=session.expires_ms,
        groups=list(session.groups),
        current=current is not None and current.id == session.id,
    )
