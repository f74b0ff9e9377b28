"""Notes of runs. They are written at once, not by the writing thread: a note that was taken is in the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from jobcloud.errors import Conflict, NotFound, Unavailable
from jobcloud.history.answers import MAX_NOTES, Found
from jobcloud.history.database import Database
from jobcloud.history.opened import Opened
from jobcloud.history.tables import attempts, notes, row_id, runs
from jobcloud.model import cut
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON, shown_by

_MAX_RUN = 255
_TRIES = 5


class Notes:
    """Threads may share it. All methods raise Unavailable if the database does not answer."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._opened = Opened(open_database)

    def close(self) -> None:
        self._opened.close()

    def add(self, run: str, text: str, *, author: str, at: int, job: str = "") -> Found:
        """Write a note of a run, and return it. `job` is the run's job; "" if only the history can know the run.

        Raises NotFound for an unknown run, Conflict if the run has MAX_NOTES notes.
        """
        run_id = cut(run, _MAX_RUN)
        with self._opened.connect() as connection:
            for _ in range(_TRIES):
                try:
                    with connection.begin():
                        return _add(connection, run_id, text, author, at, job)
                except IntegrityError:
                    continue  # another writer has taken the number
        raise Unavailable(Told(f"too many others write notes of {run_id}", "notes_busy", run=run_id), fix=TRY_SOON)

    def of(self, run: str, limit: int, behind: int = 0) -> list[Found]:
        """The notes of a run whose numbers are above `behind`, oldest first."""
        statement = select(notes).where(notes.c.run_id == cut(run, _MAX_RUN), notes.c.number > behind)
        with self._opened.connect() as connection:
            found = connection.execute(statement.order_by(notes.c.number).limit(limit)).all()
        return [row._asdict() for row in found]


def _add(connection: Connection, run_id: str, text: str, author: str, at: int, job: str) -> Found:
    job = job or _job_of(connection, run_id)
    known = select(func.count(), func.coalesce(func.max(notes.c.number), 0)).where(notes.c.run_id == run_id)
    count, last = connection.execute(known).one()
    if count >= MAX_NOTES:
        text = f"run {run_id} has {count} notes, the most that a run can have"
        raise Conflict(Told(text, "many_notes", run=run_id, notes=count), field="runId")
    row: dict[str, Any] = {
        "id": row_id(at, f"{run_id} {last + 1}"),
        "run_id": run_id,
        "job": job,
        "number": last + 1,
        "at_ms": at,
        "author": cut(author, 300),
        "text": text,
    }
    connection.execute(insert(notes).values(**row))
    return row


def _job_of(connection: Connection, run_id: str) -> str:
    """The job of a run of the history. Raises NotFound."""
    for table in (runs, attempts):
        found = connection.execute(select(table.c.job).where(table.c.run_id == run_id).limit(1)).scalar()
        if found is not None:
            return str(found)
    problem = Told(f"there is no run {run_id[:200]}", "no_run", run=run_id[:200])
    raise NotFound(problem, field="runId", fix=shown_by("jobcloud history runs", "shows ended runs"))
