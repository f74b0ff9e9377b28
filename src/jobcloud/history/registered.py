"""The registered apps and jobs of a new leader, compared with the history.

Earlier traces may be lost, and the first leader with a new database has none. So a new leader writes a row for each app
and job whose last configuration in the history is another one or none, and a removal for each one that no longer
exists. The author of these changes is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import func, select

from jobcloud.config import App, Job
from jobcloud.history.database import Database
from jobcloud.history.rows import Batch, Describe, configuration_row, kind_of
from jobcloud.history.tables import Row, configurations, prefix

# The number of apps and jobs of one batch.
_STEP = 200


class Registered:
    """`records` are the registered apps and jobs at the instant `at`. Used by one thread."""

    def __init__(self, records: Iterable[App | Job], at: int, describe: Describe) -> None:
        self._records = list(records)
        self._at = at
        self._describe = describe
        #: (kind, name) → the revision of the last configuration, of those that are neither removed nor compared
        self._known: dict[tuple[str, str], str] | None = None

    @property
    def done(self) -> bool:
        return self._known == {} and not self._records

    def write_next(self, database: Database, write: Callable[[Batch], None]) -> None:
        """Write the rows that the history lacks of the next apps and jobs. If it raises, it may be repeated."""
        if self._known is None:
            self._known = self._last(database)
        if not self._records:
            gone = list(self._known)[:_STEP]
            write(Batch(configurations=self._removals(database, gone)))
            for key in gone:
                del self._known[key]
            return
        batch, records = Batch(), self._records[-_STEP:]
        for record in records:
            kind, revision = kind_of(record), self._describe.revision(record)
            if self._known.get((kind, record.key)) != revision:
                config = self._describe.config(record)
                batch.configurations.append(configuration_row(self._at, 0, kind, record.key, revision, config))
        write(batch)
        for record in records:
            self._known.pop((kind_of(record), record.key), None)
        del self._records[-_STEP:]

    def _last(self, database: Database) -> dict[tuple[str, str], str]:
        table = configurations
        newest = select(func.max(table.c.id).label("id")).where(table.c.id < prefix(self._at))
        last = newest.group_by(table.c.kind, table.c.name).subquery()
        found = select(table.c.kind, table.c.name, table.c.revision).join(last, table.c.id == last.c.id)
        with database.engine.connect() as connection:
            rows = connection.execute(found.where(table.c.removed == 0)).all()
        return {(kind, name): revision for kind, name, revision in rows}

    def _removals(self, database: Database, keys: Iterable[tuple[str, str]]) -> list[Row]:
        table, found = configurations, []
        with database.engine.connect() as connection:
            for kind, name in keys:
                own = (table.c.kind == kind, table.c.name == name, table.c.id < prefix(self._at))
                last = select(table.c.revision, table.c.config).where(*own).order_by(table.c.id.desc()).limit(1)
                for revision, config in connection.execute(last):
                    found.append(configuration_row(self._at, 0, kind, name, revision, config, removed=True))
        return found
