"""The archive of one scheduler: threads that copy the logs of ended attempts from agents, and a reader for the API.

The leader copies: agents need neither credentials nor a way to the store. Nothing waits for the store or for an agent.
Ended attempts wait in a bounded backlog. A mark in the store is the instant up to which all ended attempts are archived
or given up. A new leader takes the attempts from its state that ended after the mark and are not in the store. So a
crash or a fail-over loses no log that the agent still has, and no log is stored twice under different names.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from anyio import CapacityLimiter, fail_after, to_thread

from jobcloud.archive.backlog import Backlog, Waiting
from jobcloud.archive.copying import Throttle, copy_stream
from jobcloud.archive.form import Piece, Stream, Unreadable, pack, read
from jobcloud.archive.index import NO_LIMITS, Index, Limits
from jobcloud.archive.names import FORMAT, MARK, Ended, of_record, of_trace, parts_of, place_of, root_of, task_part
from jobcloud.archive.s3 import S3LogStore, S3Options
from jobcloud.archive.stores import Away, DirectoryStore, LogStore, Stored
from jobcloud.errors import NotFound, Unavailable
from jobcloud.messages import AttemptTraced
from jobcloud.model import End, Firing
from jobcloud.scheduler.attempts import Attempts, attempt_of
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_LATER

log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["archived", "no_output", "queue_full", "agent_away", "failed"]
#: what became of the logs that should be archived
OUTCOMES: Final[tuple[Outcome, ...]] = ("archived", "no_output", "queue_full", "agent_away", "failed")
_WHY: Final[Mapping[Outcome, str]] = {
    "no_output": "the agent had no output of it when it should be archived",
    "queue_full": "too many logs waited to be archived when it ended",
    "agent_away": "its agent did not answer while it should be archived",
    "failed": "an error occurred while it should be archived; the log of the scheduler has the reason",
}
_STREAMS = ("stdout", "stderr")
# These attempts have never run.
_NEVER_RAN = (End.NOT_STARTED, End.INVALID)
_CHORES_S = 60.0
_FIRST_RETRY_S, _MAX_RETRY_S = 1.0, 60.0
_FIRST_AGENT_RETRY_S, _MAX_AGENT_RETRY_S = 5.0, 600.0
# An attempt is given up if its agent has not answered for this long.
_GIVE_UP_S = 7_200.0
# To search the sandboxes of earlier executors is expensive for an agent. A successful attempt that ended less than this
# long ago does not need it: its executor probably still runs.
_FRESH_S = 60.0
# Clocks of schedulers differ, and ends are published some time after they happened.
_OVERLAP_MS = 600_000
_DELETE = 1_000
_MAX_REASONS = 10_000
_MAX_AGENTS = 10_000
_MAX_MARK_BYTES = 10_000
_READS, _MAX_WAITING_READS, _READ_S = 4, 64, 20.0
# A read that takes too long is given up, but its thread still waits for the store. There are at most this many.
_MAX_STUCK_READS = 16


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """`place`: a directory or a bucket. `which`: "all", or "failed" for attempts that did not succeed.

    `stream_bytes`: the bytes kept of each stream, at least 2.
    """

    place: Path | S3Options
    cluster: str
    which: Literal["all", "failed"] = "all"
    stream_bytes: int = 2 << 20
    bytes_per_second: int = 10 << 20
    threads: int = 2
    queue: int = 10_000
    limits: Limits = NO_LIMITS

    def store(self) -> LogStore:
        root = root_of(self.cluster)
        return S3LogStore(self.place, root) if isinstance(self.place, S3Options) else DirectoryStore(self.place, root)


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """`waiting`: attempts in the backlog. `logs` and `bytes`: in the store. `counts`, `copied`, `failures`: so far.

    `copied`: bytes read from agents. `problem`: why the last use of the store failed; "" if it worked.
    """

    waiting: int
    logs: int
    bytes: int
    counts: Mapping[Outcome, int]
    copied: int
    failures: int
    problem: str


#: the state of an archive that does not exist
NO_ARCHIVE: Final = ArchiveState(0, 0, 0, dict.fromkeys(OUTCOMES, 0), 0, 0, "")


class OutputSource(Protocol):
    """Reads output from agents. For one thread."""

    def read(self, ended: Ended, stream: str, offset: int, limit: int, *, earlier: bool) -> tuple[bytes, int, int]:
        """As OutputReader.read. Raises NotFound, Unavailable."""

    def close(self) -> None: ...


class Archive:
    """(publish | fill | read)* → stop. A sink: `publish` never waits. The threads start with the first `fill`."""

    def __init__(
        self,
        options: ArchiveOptions,
        open_source: Callable[[], OutputSource],
        now_ms: Callable[[], int],
        *,
        store: LogStore | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        turn_s: float = 1.0,
    ) -> None:
        self._options = options
        self._turn_s = turn_s
        self._open_source = open_source
        self._now_ms, self._monotonic = now_ms, monotonic
        self._store = store if store is not None else options.store()
        self._backlog = Backlog(options.queue, monotonic)
        self._stopping = threading.Event()
        self._throttle = Throttle(options.bytes_per_second, monotonic, self._stopping.wait)
        #: guards the fields below
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._known: tuple[list[Firing], Mapping[str, Attempts]] | None = None
        self._counts: Counter[Outcome] = Counter()
        self._copied = self._failures = 0
        self._reasons: OrderedDict[str, Outcome] = OrderedDict()
        self._problem = ""
        self._retry_at = self._retry_s = 0.0
        #: (seconds of the last wait, its end) for agents that did not answer
        self._agents: dict[str, tuple[float, float]] = {}
        # Only the first thread uses these.
        self._mark_ms = 0
        self._chores_at = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number == 0,), name=f"jobcloud-archive-{number}", daemon=True)
            for number in range(options.threads)
        ]
        self._readers: CapacityLimiter | None = None
        self._reading = 0

    # --------------------------------------------------------------------------------------- for the scheduler

    def publish(self, notice: object) -> None:
        """Take the trace of an ended attempt. Other notices are ignored."""
        if isinstance(notice, AttemptTraced) and notice.ended:
            self._offer(of_trace(notice))

    def fill(self, firings: Iterable[Firing], attempts: Mapping[str, Attempts]) -> None:
        """Archive the attempts of a state that the archive lacks. `attempts`: the earlier attempts of each firing.

        Firings are immutable, so the thread may read them. The scheduler may add attempts meanwhile.
        """
        with self._lock:
            self._known = list(firings), dict(attempts)
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def state(self) -> ArchiveState:
        with self._lock:
            index = self._index
            counts = {outcome: self._counts[outcome] for outcome in OUTCOMES}
            logs, size = (len(index), index.bytes) if index is not None else (0, 0)
            return ArchiveState(len(self._backlog), logs, size, counts, self._copied, self._failures, self._problem)

    def warnings(self) -> tuple[Told, ...]:
        """The present problems, for users."""
        state, found = self.state(), []
        if state.problem:
            text = f"the archive of logs is away, {state.waiting} logs wait: {state.problem}"
            found.append(Told(text, "archive_away", logs=state.waiting, problem=state.problem))
        if lost := state.counts["queue_full"]:
            found.append(Told(f"{lost} logs were not archived: too many waited", "archive_lacks", logs=lost))
        return tuple(found)

    def stop(self, timeout: float = 5.0) -> None:
        """End the threads. Logs that wait are archived by the next leader."""
        self._stopping.set()
        self._backlog.wake()
        until = self._monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - self._monotonic()))

    # --------------------------------------------------------------------------------------- for the API

    def find(self, run_id: str, item: int, attempt: int, task_id: str = "") -> str:
        """The name of the archived log of an attempt; "" if there is none.

        After a restore of the state, an attempt may have run before, as another task. With `task_id`, its log is left
        out.
        """
        with self._lock:
            name = self._index.name(place_of(run_id, item, attempt)) if self._index is not None else ""
        parts = parts_of(name) if task_id else None
        return "" if parts is not None and parts.task != task_part(task_id) else name

    def find_task(self, task_id: str) -> str:
        """The name of the archived log of a task; "" if there is none."""
        with self._lock:
            return self._index.name_of_task(task_id) if self._index is not None else ""

    def why_missing(self, run_id: str, item: int, attempt: int) -> str:
        """Why the log of an ended attempt is not in the archive."""
        place = place_of(run_id, item, attempt)
        if place in self._backlog:
            return "it waits to be archived"
        with self._lock:
            if (outcome := self._reasons.get(place)) is not None:
                return _WHY[outcome]
            if self._index is None:
                return f"the archive cannot be read: {self._problem or 'it was not opened yet'}"
        only = ", only attempts that did not succeed are archived" if self._options.which == "failed" else ""
        return f"it was never archived, or its archived log was deleted{only}"

    async def read(self, name: str, stream: str, offset: int, limit: int) -> Piece:
        """A part of the log with this name, see form.read. Raises NotFound, Unavailable."""
        self._readers = readers = self._readers or CapacityLimiter(_READS)
        if readers.statistics().tasks_waiting >= _MAX_WAITING_READS or self._reading >= _MAX_STUCK_READS:
            raise Unavailable(Told("too many readers of archived logs wait", "archive_busy"), fix=TRY_LATER)
        try:
            with fail_after(_READ_S):
                return await to_thread.run_sync(
                    lambda: self._read(name, stream, offset, limit), limiter=readers, abandon_on_cancel=True
                )
        except TimeoutError:
            problem = f"the archive did not answer within {_READ_S:g} s"
        except (Away, Unreadable) as error:
            problem = str(error)
        told = Told(f"the archived log cannot be read: {problem}", "archive_fails", problem=problem)
        raise Unavailable(told, fix=Told("check the archive, and try again later", "check_archive"))

    def _read(self, name: str, stream: str, offset: int, limit: int) -> Piece:
        with self._lock:
            self._reading += 1
        try:
            with self._store.open(name) as file:
                return read(file, stream, offset, limit)
        except FileNotFoundError:
            # Somebody has deleted it.
            if (parts := parts_of(name)) is not None:
                with self._lock:
                    if self._index is not None:
                        self._index.remove(parts.place)
            raise NotFound(Told("the archived log was deleted", "no_archived_log"), field="taskId") from None
        except OSError as error:
            raise Away(str(error)) from error
        finally:
            with self._lock:
                self._reading -= 1

    # --------------------------------------------------------------------------------------- on the threads

    def _run(self, first: bool) -> None:
        source = self._open_source()
        try:
            while not self._stopping.is_set():
                self._turn(source, first)
        finally:
            source.close()

    def _turn(self, source: OutputSource, first: bool) -> None:
        now = self._monotonic()
        if now < self._retry_at:
            self._stopping.wait(min(self._turn_s, self._retry_at - now))
        elif first and (self._known is not None or now >= self._chores_at):
            self._attempt(self._chores)
        elif self._index is None:
            self._stopping.wait(self._turn_s)
        elif (waiting := self._backlog.take(self._turn_s)) is not None:
            try:
                self._copy(source, waiting)
            except Exception:
                log.exception("a log cannot be archived")
                self._finish(waiting, "failed")

    def _attempt(self, do: Callable[[], None]) -> bool:
        """Use the store by `do`. Returns whether it worked. After a failure, the threads wait before the next use."""
        try:
            do()
        except Exception as error:
            self._fail(error)
            return False
        with self._lock:
            back, self._problem, self._retry_s = self._problem, "", 0.0
        if back:
            log.info("the archive of logs is back")
        return True

    def _fail(self, error: Exception) -> None:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if not isinstance(error, Away):
            log.error("the archive of logs failed", exc_info=error)
        with self._lock:
            known, self._problem = self._problem, text
            self._failures += 1
            self._retry_s = min(_MAX_RETRY_S, max(_FIRST_RETRY_S, self._retry_s * 2))
            self._retry_at = self._monotonic() + self._retry_s
        if not known:
            log.warning("the archive of logs is away: %s", text)

    def _chores(self) -> None:
        """Open the store, take the attempts of the state, delete what is over the limits, and move the mark."""
        if self._index is None:
            self._store.prepare()
            index = Index(self._options.limits, self._store.list())
            self._mark_ms = self._stored_mark()
            with self._lock:
                self._index = index
        index = self._index
        if (known := self._known) is not None:
            self._restore(*known)
            with self._lock:
                if self._known is known:
                    self._known = None
        while not self._stopping.is_set():
            with self._lock:
                places = index.over(self._now_ms(), _DELETE)
                names = [index.name(place) for place in places]
            if not places:
                break
            self._store.delete(names)
            with self._lock:
                for place in places:
                    index.remove(place)
        oldest_ms = self._backlog.oldest_ms()
        self._move_mark(self._now_ms() if oldest_ms is None else oldest_ms)
        self._chores_at = self._monotonic() + _CHORES_S

    def _stored_mark(self) -> int:
        """The mark in the store. The first leader with an archive begins with the attempts that end from now on."""
        try:
            with self._store.open(MARK) as file:
                found = json.loads(file.read(_MAX_MARK_BYTES))
            if found["format"] != FORMAT:
                raise Away(f"{MARK} in the archive is of another version of jobcloud")
            return int(found["handledMs"])
        except FileNotFoundError:
            return self._now_ms()
        except (ValueError, LookupError, TypeError) as error:
            raise Away(
                f"{MARK} in the archive is damaged: delete it, then attempts of the past are left out"
            ) from error

    def _move_mark(self, instant: int) -> None:
        self._store.put(MARK, json.dumps({"format": FORMAT, "handledMs": instant}).encode())
        self._mark_ms = instant

    def _restore(self, firings: list[Firing], attempts: Mapping[str, Attempts]) -> None:
        since_ms = self._mark_ms - _OVERLAP_MS
        for firing in reversed(firings):
            for item, shard in enumerate(firing.shards):
                last = attempt_of(shard)
                if last is not None and last.ended_ms >= since_ms:
                    self._offer(of_record(firing, item, last), restored=True)
            if (earlier := attempts.get(firing.id)) is not None:
                for item, attempt in earlier:
                    if attempt.ended_ms >= since_ms:
                        self._offer(of_record(firing, item, attempt), restored=True)

    def _offer(self, ended: Ended, *, restored: bool = False) -> None:
        if ended.end in _NEVER_RAN or (self._options.which == "failed" and ended.end is End.SUCCEEDED):
            return
        if restored and self.find(ended.run_id, ended.item, ended.attempt, ended.task_id):
            return
        if not self._backlog.offer(ended, restored=restored):
            self._count(ended, "queue_full")

    def _copy(self, source: OutputSource, waiting: Waiting) -> None:
        ended = waiting.ended
        if self.find(ended.run_id, ended.item, ended.attempt, ended.task_id):
            self._backlog.done(waiting)
            return
        now = self._monotonic()
        with self._lock:
            _, until = self._agents.get(ended.agent_id, (0.0, 0.0))
        if now < until and now - waiting.since < _GIVE_UP_S:
            self._backlog.defer(waiting, until - now)
            return
        try:
            streams = self._streams(source, waiting)
        except Unavailable:
            self._agent_failed(waiting)
            return
        with self._lock:
            self._agents.pop(ended.agent_id, None)
        if streams is None:
            self._finish(waiting, "no_output")
            return
        content = pack(ended, streams)
        replaced = self.find(ended.run_id, ended.item, ended.attempt)

        def store() -> None:
            self._store.put(ended.name, content)
            if replaced:
                self._store.delete([replaced])

        if not self._attempt(store):
            self._backlog.defer(waiting, 0)
            return
        with self._lock:
            if self._index is not None:
                self._index.add(Stored(ended.name, len(content), self._now_ms()))
        self._finish(waiting, "archived")

    def _streams(self, source: OutputSource, waiting: Waiting) -> dict[str, Stream] | None:
        """The streams of an attempt; None if it has no output. Raises Unavailable."""
        ended = waiting.ended
        fresh = self._monotonic() - waiting.since < _FRESH_S and not waiting.restored
        earlier = not fresh or ended.end is not End.SUCCEEDED

        def read(stream: str, offset: int, limit: int) -> tuple[bytes, int, int]:
            data, at, size = source.read(ended, stream, offset, limit, earlier=earlier)
            with self._lock:
                self._copied += len(data)
            self._throttle.spend(len(data))
            return data, at, size

        found: dict[str, Stream] = {}
        with suppress(NotFound):
            for stream in _STREAMS:
                found[stream] = copy_stream(partial(read, stream), self._options.stream_bytes)
        return found if any(stream.pieces for stream in found.values()) else None

    def _agent_failed(self, waiting: Waiting) -> None:
        agent_id, now = waiting.ended.agent_id, self._monotonic()
        if now - waiting.since >= _GIVE_UP_S:
            self._finish(waiting, "agent_away")
            return
        with self._lock:
            if len(self._agents) >= _MAX_AGENTS:
                self._agents = {known: wait for known, wait in self._agents.items() if wait[1] > now}
            seconds, _ = self._agents.get(agent_id, (0.0, 0.0))
            seconds = min(_MAX_AGENT_RETRY_S, max(_FIRST_AGENT_RETRY_S, seconds * 2))
            self._agents[agent_id] = (seconds, now + seconds)
        self._backlog.defer(waiting, seconds)

    def _finish(self, waiting: Waiting, outcome: Outcome) -> None:
        self._count(waiting.ended, outcome)
        self._backlog.done(waiting)

    def _count(self, ended: Ended, outcome: Outcome) -> None:
        with self._lock:
            self._counts[outcome] += 1
            self._reasons.pop(ended.place, None)
            if outcome != "archived":
                self._reasons[ended.place] = outcome
                if len(self._reasons) > _MAX_REASONS:
                    self._reasons.popitem(last=False)
