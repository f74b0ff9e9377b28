"""A database that is opened when somebody first asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from jobcloud.errors import Unavailable
from jobcloud.history.database import HEAD, Database, Unusable
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON


class Opened:
    """Threads may share it. Only a database with all migrations is used."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._open_database = open_database
        self._database: Database | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for one question. Raises Unavailable for the errors of the database."""
        try:
            with self._opened().question() as connection:
                yield connection
        except SQLAlchemyError as error:
            problem = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
            fix = Told("try again in a few seconds, or ask for a shorter range of time", "shorter_range")
            text = f"the database of the history does not answer: {problem}"
            raise Unavailable(Told(text, "no_history_database", problem=problem), fix=fix) from error
        except Unusable as error:
            raise Unavailable(str(error), fix=TRY_SOON) from error

    def _opened(self) -> Database:
        if self._database is not None:
            return self._database
        # Not under the lock: several threads that wait for a server would wait for one another too.
        database = self._open_database()
        with ExitStack() as stack:
            stack.callback(database.close)
            if (version := database.version()) != HEAD:
                problem = "is of another version of jobcloud" if version else "is not set up yet"
                raise Unusable(f"the database of the history {problem}")
            with self._lock:
                if self._database is None:
                    self._database = database
                    stack.pop_all()
        return self._database
