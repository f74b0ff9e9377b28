"""The audit log of one scheduler process: a thread that writes entries, and the code that hands them over.

An intent is durable before its change begins, so every change that was carried out has an entry, also after a crash.
All other entries wait in a bounded queue, and nobody waits for them. Entries that find no room are counted, and the
next batch has an entry with the counts.
"""

from __future__ import annotations

import logging
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, NamedTuple

import jobcloud
from jobcloud.audit.entries import Entry, Kind
from jobcloud.audit.folder import Folder
from jobcloud.audit.heads import Exporter
from jobcloud.audit.limits import Windows
from jobcloud.audit.log import DEFAULT_LIMITS, Limits, Log
from jobcloud.errors import StoreError, StoreFull, Unavailable
from jobcloud.sentences import Told

log = logging.getLogger(__name__)

#: the verbs whose reads get entries
READS: Final = ("read-logs", "read-audit", "manage-access", "manage-team")
_MAX_WAITING: Final = 10_000
_BATCH: Final = 500
_TURN_S: Final = 1.0
# A part of `keep_bytes`: the log warns before it is full.
_WARN: Final = 0.8


@dataclass(frozen=True, slots=True)
class Options:
    """`required`: a change that cannot be recorded is refused. `reads`: the verbs whose reads get entries."""

    limits: Limits = DEFAULT_LIMITS
    required: bool = True
    reads: frozenset[str] = frozenset(READS)


class _Waiting(NamedTuple):
    entry: Entry
    reply: Future[int] | None


@dataclass(slots=True)
class _Lost:
    """Entries that could not be written since the last success."""

    entries: int = 0
    problem: str = ""


class Audit:
    """Create → (intend | record)* → stop. Raises ConfigError if another process writes to the folder, StoreError.

    `sinks` get the line of each written entry, on the thread of the log. First they get the last lines that are there,
    because a crash may have lost them on the way. They never wait.
    """

    def __init__(
        self,
        folder: Folder,
        options: Options,
        *,
        now_ms: Callable[[], int],
        exporters: Sequence[Exporter] = (),
        sinks: Sequence[Callable[[bytes], None]] = (),
        new_chain: Callable[[], str] = lambda: secrets.token_hex(8),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.now_ms = now_ms
        self._monotonic = monotonic
        self.windows = Windows(int(monotonic() * 1_000))
        self._exporters = exporters
        self._sinks = sinks
        self._log = Log(folder, options.limits, now_ms=now_ms, new_chain=new_chain)
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self._lost = _Lost()
        self._all_lost = 0
        self._failed = ""
        for sink in sinks:
            for line in self._log.recent():
                sink(line)
        details = {"version": jobcloud.__version__, "host": socket.gethostname(), **self._log.found}
        self._first: list[Entry] = [Entry(at=now_ms(), kind=Kind.START, details=details)]
        # A full disk must not stop the jobs. So the process starts, and the entry is written later.
        self._write([])
        self._thread = threading.Thread(target=self._run, name="jobcloud-audit", daemon=True)
        self._thread.start()

    def intend(self, entry: Entry) -> Future[int]:
        """Record an intent. The future has its number once it is durable, or StoreError, StoreFull or Unavailable.

        If records are not required, the number is 0 for an intent that could not be recorded.
        """
        reply: Future[int] = Future()
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self._refuse(reply, Unavailable("the audit log is too busy", fix="try again in a few seconds"))
            else:
                self._waiting.append(_Waiting(entry, reply))
                self._changed.notify_all()
        return reply

    def record(self, entry: Entry) -> None:
        """Take an entry, or count it as lost if too many wait. Never waits."""
        with self._changed:
            if len(self._waiting) >= 2 * _MAX_WAITING:
                self._lose(1, "too many entries waited")
                return
            self._waiting.append(_Waiting(entry, None))
            self._changed.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all entries that were handed over are written or lost. False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def warnings(self) -> tuple[Told, ...]:
        """The present problems, for users."""
        found = []
        limit = self.options.limits.keep_bytes
        if self._failed:
            found.append(
                Told(f"{self._failed}; changes are refused", "audit_refuses", problem=self._failed)
                if self.options.required
                else Told(self._failed, "audit_fails", problem=self._failed)
            )
        elif self._log.size >= _WARN * limit and not self.options.limits.delete:
            text = f"the audit log takes {self._log.size:,} of at most {limit:,} bytes (audit.keep_bytes)"
            found.append(Told(text, "audit_size", bytes=self._log.size, most=limit))
        if self._all_lost:
            text = f"the audit log lacks {self._all_lost} entries: they could not be written"
            found.append(Told(text, "audit_lacks", entries=self._all_lost))
        found += [
            Told(f"the head of the audit log is not exported: {problem}", "audit_head", problem=problem)
            for exporter in self._exporters
            if (problem := exporter.problem)
        ]
        return tuple(found)

    def stop(self, timeout: float = 10.0) -> None:
        """Write what waits. Gives up after `timeout` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)
        for exporter in self._exporters:
            exporter.stop()

    # ------------------------------------------------------------------------------------------- on the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping, _TURN_S)
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
                last = self._stopping and not batch
                self._busy = bool(batch)
            batch += self._counted(last=last)
            if batch:
                try:
                    self._write(batch)
                except Exception as error:
                    log.exception("the audit log failed; it continues")
                    self._fail(batch, StoreError(f"the audit log failed: {error}"))
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            if last:
                self._log.close()
                return

    def _counted(self, *, last: bool) -> list[_Waiting]:
        """The entry about requests without entries of their own, if a window is over."""
        counted = self.windows.end(sys.maxsize if last else int(self._monotonic() * 1_000))
        if not counted:
            return []
        details = {why: {"total": sum(senders.values()), "senders": senders} for why, senders in counted.items()}
        return [_Waiting(Entry(at=self.now_ms(), kind=Kind.COUNTED, details=details), None)]

    def _write(self, batch: list[_Waiting]) -> None:
        """Write a batch, and answer those who wait for it."""
        problem = ""
        if self._log.full:
            problem = f"the audit log is full: it takes {self._log.size:,} bytes (audit.keep_bytes)"
            self._fail([one for one in batch if one.reply], StoreFull(problem))
            batch = [one for one in batch if not one.reply]
        lost = self._lost
        entries = [*self._first, *(one.entry for one in batch)]
        if not entries:
            return
        if lost.entries:
            details = {"lost": lost.entries, "problem": lost.problem}
            entries.insert(0, Entry(at=self.now_ms(), kind=Kind.COUNTED, details=details))
        try:
            sealed = self._log.append(entries)
        except StoreError as error:
            self._fail(batch, error)
            return
        self._failed, self._first = problem, []
        if lost.entries:
            with self._changed:
                self._lost = _Lost(self._lost.entries - lost.entries)
        for exporter in self._exporters:
            exporter.publish(sealed[-1].head)
        for one, written in zip(batch, sealed[len(sealed) - len(batch) :], strict=True):
            if one.reply is not None:
                one.reply.set_result(written.head.seq)
        for sink in self._sinks:
            for written in sealed:
                sink(written.line)

    def _fail(self, batch: list[_Waiting], error: StoreError) -> None:
        if not self._failed:
            log.error("%s", error)
        self._failed = str(error)
        with self._changed:
            # A refused intent is no loss: nothing was changed.
            self._lose(sum(one.reply is None or not self.options.required for one in batch), str(error))
        for one in batch:
            if one.reply is not None and not one.reply.done():
                self._refuse(one.reply, error)

    def _refuse(self, reply: Future[int], error: Exception) -> None:
        if self.options.required:
            reply.set_exception(error)
        else:
            reply.set_result(0)

    def _lose(self, entries: int, problem: str) -> None:
        self._lost = _Lost(self._lost.entries + entries, problem)
        self._all_lost += entries
