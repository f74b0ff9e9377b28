"""The history of one scheduler: a sink for the core's traces, and a reader for the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.history.retention import NO_LIMITS, Limits
from jobcloud.history.spool import Spool
from jobcloud.history.writer import Writer, WriterState
from jobcloud.messages import AttemptTraced, RunTraced
from jobcloud.model import Firing

#: in the data directory, if the database has no URL
FILE_NAME = "history.db"
SPOOL_FOLDER = "history-spool"
_TRACES = (AttemptTraced, RunTraced)


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """`url`: postgresql://USER@HOST/NAME or mariadb://…; "" for SQLite in the data directory."""

    url: str = ""
    password: str = ""
    limits: Limits = NO_LIMITS
    spool_bytes: int = 64 << 20
    queue: int = 100_000


class History:
    """start → (publish | fill)* → stop. A sink: `publish` never waits.

    `registered`: the number of registered jobs of the team `default`, or None if it is unknown. Called on the thread.
    """

    def __init__(
        self,
        options: HistoryOptions,
        data: Path,
        now_ms: Callable[[], int],
        registered: Callable[[], int | None] = lambda: None,
    ) -> None:
        url, password = options.url or f"sqlite:///{(data / FILE_NAME).absolute()}", options.password
        self._writer = Writer(
            lambda: Database(url, password),
            Spool(data / SPOOL_FOLDER, options.spool_bytes),
            options.limits,
            queue=options.queue,
            now_ms=now_ms,
            registered=registered,
        )
        self.reader = Reader(lambda: Database(url, password, reading=True))

    def start(self) -> None:
        self._writer.start()

    def publish(self, notice: object) -> None:
        """Take a trace. Other notices are ignored."""
        if isinstance(notice, _TRACES):
            self._writer.publish(notice)

    def fill(self, firings: Iterable[Firing], apps: dict[str, str]) -> None:
        """Write the ended runs of the state that the history lacks. `apps`: the app of each job."""
        self._writer.fill(firings, apps)

    def flush(self) -> bool:
        """Wait until all events published so far are in the database or in the spool. False after 30 s."""
        return self._writer.flush()

    def state(self) -> WriterState:
        return self._writer.state()

    def warnings(self) -> tuple[str, ...]:
        """The present problems, for users."""
        state = self.state()
        found = []
        if state.problem:
            found.append(f"the database of the history is away, events wait on disk: {state.problem}")
        if state.dropped:
            found.append(f"the history lacks {state.dropped} events or rows: they found no room, or were refused")
        return tuple(found)

    def stop(self) -> None:
        """Write what waits, or put it into the spool, within 10 s."""
        self._writer.stop()
        self.reader.close()
