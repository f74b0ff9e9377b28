"""The audit log of all schedulers, from the SQL database of the history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import Field

from jobcloud.server.api.history import answer, cursor_of, place_of
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.schema import GivenInstant
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.routes import Routes

if TYPE_CHECKING:
    from jobcloud.history.queries import Reader

router = Routes(tags=["audit"])

_ENTRIES = Listing("audit", (str,))


class AuditList(PageView):
    items: list[dict[str, Any]] = Field(description="entries as they are in the files, see docs/audit.md")


class AuditQuery(PageQuery):
    actor: str = Field("", max_length=300, description="only this subject, such as user:ann")
    target: str = Field("", max_length=500, description="only this app, job, run, task or agent")
    team: str = Field("", max_length=100, description="only this team")
    request: str = Field("", pattern="^$|^[0-9a-f]{16}$", description="only the request with this id")
    outcome: Literal["", "allowed", "refused", "failed", "succeeded"] = ""
    since: GivenInstant | None = Field(None, description="not before this instant, such as 2026-12-01T00:00:00Z")
    until: GivenInstant | None = Field(None, description="before this instant")


@router.get("/audit", response_model=AuditList)
async def list_audit(services: ServicesDep, query: Annotated[AuditQuery, Parameter()]) -> Response:
    """Entries of the audit log, the newest first."""
    names = {"subject": query.actor, "target": query.target, "team": query.team}
    names |= {"request": query.request, "outcome": query.outcome}
    behind = place_of(_ENTRIES, query)

    def ask(reader: Reader) -> AuditList:
        rows, last = reader.audit(names, query.since or 0, query.until or 0, query.limit, behind)
        items = [json.loads(row["entry"]) for row in rows]
        return AuditList(items=items, next_cursor=cursor_of(_ENTRIES, last))

    return await answer(services, ask)
