"""Notes of runs, in the database of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.history.answers import MAX_NOTES, Found
from jobcloud.server.api.convert import read_config
from jobcloud.server.api.history import no_history
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.recording import sender
from jobcloud.server.api.schema import Instant, NoteConfig, RunId, View
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.routes import Routes

if TYPE_CHECKING:
    from jobcloud.history.notes import Notes

router = Routes(tags=["runs"])

_NOTES = Listing("notes", (int,))


class NoteView(View):
    number: int = Field(description="the notes of a run have rising numbers")
    at: Instant
    by: str = Field(description="the subject who wrote the note; empty if unknown")
    text: str


class NoteList(PageView):
    items: list[NoteView] = Field(description=f"oldest first; a run has at most {MAX_NOTES}")


@router.get("/runs/{run_id}/notes")
async def list_notes(services: ServicesDep, run_id: RunId, query: Annotated[PageQuery, Parameter()]) -> NoteList:
    """The notes of a run. They outlast the run."""
    notes, place = _notes(services), _NOTES.decoded(query.cursor)
    behind = int(place[0]) if place else 0
    found = await services.questions.ask(lambda: notes.of(run_id, query.limit + 1, behind))
    page = found[: query.limit]
    more = len(found) > query.limit
    return NoteList(
        items=[_view(row) for row in page], next_cursor=_NOTES.encoded((page[-1]["number"],)) if more else ""
    )


@router.post("/runs/{run_id}/notes", status_code=201, openapi_extra=json_body(NoteConfig))
async def add_note(services: ServicesDep, run_id: RunId, body: JsonObject) -> NoteView:
    """Write a note on a run, be it in the state or only in the history. The answer comes once the note is stored."""
    given, notes, author, at = read_config(body, NoteConfig), _notes(services), sender(), services.clock()
    run = (await run_in_threadpool(services.snapshot_of_run, run_id)).firings.get(run_id)
    job = run.job if run is not None else ""
    return _view(await services.questions.ask(lambda: notes.add(run_id, given.text, author=author, at=at, job=job)))


def _notes(services: Services) -> Notes:
    """Raises Unavailable."""
    if services.notes is None:
        raise no_history()
    return services.notes


def _view(row: Found) -> NoteView:
    return NoteView(number=row["number"], at=row["at_ms"], by=row["author"], text=row["text"])
