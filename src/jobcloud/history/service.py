"""The history of one scheduler: a sink for the core's traces, and a reader for the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jobcloud.config import App, Job
from jobcloud.history.database import READ_S, Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.retention import NO_LIMITS, Limits
from jobcloud.history.rows import WITHOUT_CONTENT, AuditLine, Describe
from jobcloud.history.samples import Sample
from jobcloud.history.spool import Spool
from jobcloud.history.writer import Writer, WriterState
from jobcloud.messages import AttemptTraced, ConfigTraced, RunTraced
from jobcloud.model import Firing
from jobcloud.sentences import Told

#: in the data directory, if the database has no URL
FILE_NAME = "history.db"
SPOOL_FOLDER = "history-spool"
_TRACES = (AttemptTraced, RunTraced, ConfigTraced)


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

    `registered`: the number of registered jobs of the team `default`, or None if it is unknown. `sample`: the present
    numbers, or None. Both are called on the thread, as the functions of `describe`.
    """

    def __init__(
        self,
        options: HistoryOptions,
        data: Path,
        now_ms: Callable[[], int],
        registered: Callable[[], int | None] = lambda: None,
        describe: Describe = WITHOUT_CONTENT,
        sample: Callable[[], Sample | None] = lambda: None,
    ) -> None:
        url, password = options.url or f"sqlite:///{(data / FILE_NAME).absolute()}", options.password
        self._writer = Writer(
            lambda: Database(url, password),
            Spool(data / SPOOL_FOLDER, options.spool_bytes),
            options.limits,
            queue=options.queue,
            now_ms=now_ms,
            registered=registered,
            describe=describe,
            sample=sample,
        )
        self.reader = Reader(lambda: Database(url, password, reading=True))
        self.notes = Notes(lambda: Database(url, password, limit_s=READ_S, durable=True))

    def start(self) -> None:
        self._writer.start()

    def publish(self, notice: object) -> None:
        """Take a trace. Other notices are ignored."""
        if isinstance(notice, _TRACES):
            self._writer.publish(notice)

    def record(self, line: bytes) -> None:
        """Take an entry of the audit log. Never waits."""
        self._writer.publish(AuditLine(line))

    def fill(self, firings: Iterable[Firing], apps: dict[str, str]) -> None:
        """Write the ended runs of the state that the history lacks. `apps`: the app of each job."""
        self._writer.fill(firings, apps)

    def compare(self, records: Iterable[App | Job], at: int) -> None:
        """Write the configurations that the history lacks. `records`: the registered apps and jobs at `at`."""
        self._writer.compare(records, at)

    def flush(self) -> bool:
        """Wait until all events published so far are in the database or in the spool. False after 30 s."""
        return self._writer.flush()

    def state(self) -> WriterState:
        return self._writer.state()

    def warnings(self) -> tuple[Told, ...]:
        """The present problems, for users."""
        state = self.state()
        found = []
        if state.problem:
            text = f"the database of the history is away, events wait on disk: {state.problem}"
            found.append(Told(text, "history_away", problem=state.problem))
        if state.dropped:
            text = f"the history lacks {state.dropped} events or rows: they found no room, or were refused"
            found.append(Told(text, "history_lacks", rows=state.dropped))
        return tuple(found)

    def stop(self) -> None:
        """Write what waits, or put it into the spool, within 10 s."""
        self._writer.stop()
        self.reader.close()
        self.notes.close()
