"""The thread that writes the history. The scheduler never waits for it.

Events wait in a bounded queue. Once a second the thread turns them into a batch and writes it in one transaction. A
batch that the database does not take goes to the spool. Once the database is back, it gets the batches of the spool.
Events that find no room are counted as dropped.

After a change of leader, or after a crash, the database may lack the last events, although the state has their runs. So
each new leader hands over the ended runs and the configurations of its state, and the thread writes those that are
missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.exc import DataError, IntegrityError

from jobcloud.config import App, Job
from jobcloud.history.database import Database
from jobcloud.history.registered import Registered
from jobcloud.history.registrations import Registrations
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import WITHOUT_CONTENT, Batch, Describe, Event, of_events, of_state
from jobcloud.history.samples import Sample, Sampler
from jobcloud.history.spool import Spool
from jobcloud.model import Firing

log = logging.getLogger(__name__)

_TURN_S = 1.0
#: events of one batch; the thread wakes early if this many wait
BATCH = 5_000
_FIRST_RETRY_S, _MAX_RETRY_S = 1.0, 30.0
# A new leader hands over all ended runs of its state. The thread writes those that ended later than the newest end in
# the database minus this time: clocks differ, and batches may wait in the spool of another scheduler.
_OVERLAP_MS = 600_000
# The number of runs of the state that one batch holds.
_RUNS = 200
# Errors of one row. Any other error is a fault of the database, and the same batch may succeed later.
_OF_A_ROW = (DataError, IntegrityError, UnicodeError, OverflowError)


@dataclass(frozen=True, slots=True)
class WriterState:
    """`waiting`: events in the queue. `spooled_bytes`: batches on disk.

    `written`: events so far that went to the database or to the spool. `dropped`: events so far that found no room or
    could not be turned into rows, plus rows that the database refused. An event whose rows were refused counts in both.
    `problem`: why the database has taken nothing since `since_ms`, or "".
    """

    waiting: int
    spooled_bytes: int
    written: int
    dropped: int
    problem: str
    since_ms: int


@dataclass(slots=True)
class _Known:
    """Ended runs of the state, and the app of each job. `since_ms`: the newest end in the database; -1: not asked."""

    runs: list[Firing]
    apps: dict[str, str]
    since_ms: int = -1


class Writer:
    """start → (publish | fill)* → stop. The thread calls `open_database`, and calls it again after each failure."""

    def __init__(
        self,
        open_database: Callable[[], Database],
        spool: Spool,
        limits: Limits,
        *,
        queue: int = 100_000,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        registered: Callable[[], int | None] = lambda: None,
        describe: Describe = WITHOUT_CONTENT,
        sample: Callable[[], Sample | None] = lambda: None,
    ) -> None:
        self._open_database = open_database
        self._spool = spool
        self._limit = queue
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._events: deque[Event] = deque()
        self._known: _Known | None = None
        self._describe = describe
        self._registered: Registered | None = None
        #: several schedulers may share the database, and only the leader takes samples and deletes
        self._leads = False
        self._wake = threading.Event()
        self._stopping = False
        self._turned = threading.Condition()
        self._turns = 0
        self._database: Database | None = None
        self._retention = Retention(limits, now_ms)
        self._registrations = Registrations(registered, now_ms)
        self._sampler = Sampler(sample, now_ms)
        self._written = self._dropped = 0
        self._problem, self._since_ms = "", 0
        self._retry_at = self._retry_s = 0.0
        self._thread = threading.Thread(target=self._run, name="jobcloud-history", daemon=True)

    # ------------------------------------------------------------------------------------------- on any thread

    def start(self) -> None:
        self._thread.start()

    def publish(self, event: Event) -> None:
        """Take an event, or drop it if the queue is full. Never waits."""
        waiting = len(self._events)
        if waiting >= self._limit:
            self._dropped += 1
            return
        self._events.append(event)
        if waiting == BATCH:
            self._wake.set()

    def fill(self, firings: Iterable[Firing], apps: dict[str, str]) -> None:
        """Write the ended runs among `firings` that the history lacks. `apps`: the app of each job.

        Runs are immutable, so the thread may read them.
        """
        self._leads = True
        self._known = _Known([firing for firing in firings if firing.ended_ms], apps)

    def compare(self, records: Iterable[App | Job], at: int) -> None:
        """Write the configurations of all registered apps and jobs that the history lacks, and their removals.

        `records` are those at the instant `at`, before the traces of this leader.
        """
        self._registered = Registered(records, at, self._describe)

    def state(self) -> WriterState:
        return WriterState(
            len(self._events), self._spool.size, self._written, self._dropped, self._problem, self._since_ms
        )

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all events published so far are in the database or in the spool. False after `timeout` seconds."""
        with self._turned:
            until = self._turns + 2  # the present turn may have taken its events already
            self._wake.set()
            return self._turned.wait_for(lambda: self._again() >= until, timeout)

    def _again(self) -> int:
        self._wake.set()
        return self._turns

    def stop(self, timeout: float = 10.0) -> None:
        """Write what waits, or put it into the spool. Gives up after `timeout` seconds."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    # ------------------------------------------------------------------------------------------- on the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(_TURN_S)
            self._wake.clear()
            last = self._stopping
            try:
                self._turn(last=last)
            except Exception:
                log.exception("the history failed; it continues")
            with self._turned:
                self._turns += 1
                self._turned.notify_all()
            if last:
                self._spool.close()
                if self._database is not None:
                    self._database.close()
                return

    def _turn(self, *, last: bool) -> None:
        # Like an event, a sample goes to the spool while the database is away.
        if self._leads and not last and (sampled := self._sampler.due()) is not None:
            self._events.append(sampled)
        while self._events:
            events = [self._events.popleft() for _ in range(min(len(self._events), BATCH))]
            self._keep(events)
        if last:
            return
        if self._ready():
            self._attempt(self._fill_gaps)

    def _keep(self, events: list[Event]) -> None:
        """Write events to the database, or else to the spool."""
        try:
            batch = of_events(events, self._describe)
        except Exception:
            self._dropped += len(events)
            log.exception("events of the history cannot be turned into rows; they are dropped")
            return
        direct = not self._spool.size and self._ready()
        if (direct and self._attempt(lambda database: self._write(database, batch))) or self._spool.append(batch):
            self._written += len(events)
        else:
            self._dropped += len(events)

    def _fill_gaps(self, database: Database) -> None:
        """While few events wait: move the spool's batches, and a new leader's runs and configurations, to the database.

        Then delete what is over the limits, and keep the number of registered jobs.
        """

        def write(batch: Batch) -> None:
            self._write(database, batch)

        while not self._pressed() and self._spool.size and self._spool.replay(write):
            pass
        if self._spool.size:
            return
        while self._known and not self._pressed():
            known = self._known
            self._write(database, of_state(known.runs[-_RUNS:], known.apps, known.since_ms - _OVERLAP_MS))
            del known.runs[-_RUNS:]
            if not known.runs and self._known is known:
                self._known = None
        while self._registered and not self._pressed():
            registered = self._registered
            registered.write_next(database, write)
            if registered.done and self._registered is registered:
                self._registered = None
        if self._leads:
            self._registrations.run(database)
            self._retention.run(database, self._pressed)

    def _pressed(self) -> bool:
        """Whether events must not wait any longer."""
        return len(self._events) >= BATCH or self._stopping

    def _write(self, database: Database, batch: Batch) -> None:
        """Write a batch. Rows that the database refuses are dropped one by one."""
        try:
            database.write(batch)
            return
        except _OF_A_ROW as error:
            log.error("the database refuses rows of the history: %s", _brief(error))
        for single in batch.singles():
            try:
                database.write(single)
            except _OF_A_ROW:
                self._dropped += 1

    def _ready(self) -> bool:
        return self._monotonic() >= self._retry_at

    def _attempt(self, do: Callable[[Database], None]) -> bool:
        """Do something with the database. After a failure, the next attempt waits."""
        try:
            if self._database is None:
                database = self._open_database()
                database.upgrade()
                self._database = database
            if (known := self._known) is not None and known.since_ms < 0:
                # Ask before the first batch of this leader is written.
                known.since_ms = self._database.newest_ms()
            do(self._database)
        except Exception as error:
            self._fail(error)
            return False
        if self._problem:
            log.info("the database of the history is back")
        self._problem, self._since_ms, self._retry_s = "", 0, 0.0
        return True

    def _fail(self, error: Exception) -> None:
        if not self._problem:
            self._since_ms = self._now_ms()
            log.warning("the database of the history is away, events go to the spool: %s", _brief(error))
        self._problem = _brief(error)
        self._retry_s = min(_MAX_RETRY_S, max(_FIRST_RETRY_S, self._retry_s * 2))
        self._retry_at = self._monotonic() + self._retry_s
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _brief(error: Exception) -> str:
    """The driver's text in one line, without the statement and its values."""
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    return " ".join(text.split())[:300]
