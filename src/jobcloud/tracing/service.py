"""The thread that sends spans. The scheduler never waits for it.

Traces wait in a bounded queue. The thread turns them into spans and sends these in batches. The exporter repeats a
batch for some seconds. Spans that the collector does not take then, and traces that find no room, are dropped and
counted.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jobcloud.errors import ConfigError
from jobcloud.messages import AttemptTraced, RunTraced
from jobcloud.sentences import Told

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from jobcloud.tracing.spans import Event, Spans

log = logging.getLogger(__name__)

#: spans of one request
BATCH = 512
_TURN_S = 1.0
_EXPORT_S = 10.0
_TRACES = (AttemptTraced, RunTraced)
EXTRA = "pip install 'jobcloud[server,tracing]'"
_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """`endpoint`: the URL of a receiver of OTLP over HTTP. `queue`: the room for traces that wait. See the settings."""

    endpoint: str
    cluster: str
    ratio: float = 1.0
    shards: int = 100
    queue: int = 10_000
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class SpanCounts(NamedTuple):
    """The spans sent so far, and the spans and traces dropped so far."""

    sent: int = 0
    dropped: int = 0


class Exporter(Protocol):
    """Sends spans. `export` returns whether the receiver has taken them, and raises nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> bool: ...

    def shutdown(self) -> None: ...


def installed() -> bool:
    """Whether the libraries of the extra `tracing` are there."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in _MODULES)
    except ModuleNotFoundError:
        return False


class Tracing:
    """start → publish* → stop. A sink: `publish` never waits, and one thread calls it.

    Raises ConfigError without the extra `tracing`.
    """

    def __init__(self, options: TracingOptions, open_exporter: Callable[[TracingOptions], Exporter] | None = None):
        if not installed():
            problem = "needs libraries that are not installed"
            raise ConfigError(problem, field="tracing.endpoint", fix=f"install the extra tracing: {EXTRA}")
        from jobcloud.tracing.spans import Spans

        self._limit = options.queue
        self._spans: Spans = Spans(options.cluster, options.ratio, options.shards)
        self._exporter = (open_exporter or _open_exporter)(options)
        self._events: deque[Event] = deque()
        #: of the publishing thread alone: the weight of all traces taken, and the number of traces without room
        self._added = self._full = 0
        #: of the sending thread alone: the weight of all traces that left the queue, and the numbers of spans
        self._removed = self._sent = self._refused = 0
        self._fails = False
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="jobcloud-tracing", daemon=True)

    # ------------------------------------------------------------------------------------------- on any thread

    def start(self) -> None:
        self._thread.start()

    def publish(self, notice: object) -> None:
        """Take a trace. Other notices are ignored."""
        if not isinstance(notice, _TRACES) or (isinstance(notice, AttemptTraced) and not notice.ended):
            return
        if self._added - self._removed >= self._limit:
            self._full += 1
            return
        self._added += _weight(notice)
        self._events.append(notice)
        if len(self._events) == BATCH:
            self._wake.set()

    def counts(self) -> SpanCounts:
        return SpanCounts(self._sent, self._full + self._refused)

    def warnings(self) -> tuple[Told, ...]:
        """The present problems, for users."""
        if not self._fails:
            return ()
        lost = self.counts().dropped
        text = f"the receiver of traces takes no spans; {lost} are lost so far (tracing.endpoint)"
        return (Told(text, "traces_refused", spans=lost),)

    def stop(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._exporter.shutdown()  # ends the repeats of a thread that is still sending

    # ------------------------------------------------------------------------------------------- on the thread

    def _run(self) -> None:
        last = False
        while not last:
            self._wake.wait(_TURN_S)
            self._wake.clear()
            last = self._stopping
            try:
                self._send_all()
            except Exception:
                log.exception("sending traces failed; it continues")

    def _send_all(self) -> None:
        batch: list[ReadableSpan] = []
        while self._events:
            event = self._events.popleft()
            self._removed += _weight(event)
            batch += self._spans.of(event)
            while len(batch) >= BATCH:
                self._send(batch[:BATCH])
                del batch[:BATCH]
        if batch:
            self._send(batch)

    def _send(self, spans: Sequence[ReadableSpan]) -> None:
        taken = self._exporter.export(spans)
        if taken:
            self._sent += len(spans)
        else:
            self._refused += len(spans)
        if taken == self._fails:
            level = logging.INFO if taken else logging.WARNING
            log.log(level, "spans are sent again" if taken else "spans are dropped: the receiver takes none")
        self._fails = not taken


def _weight(event: Event) -> int:
    """The room that a trace takes in the queue. The trace of a run is larger, because it holds all shards."""
    return 1 + len(event.firing.shards) // 10 if isinstance(event, RunTraced) else 1


class _Otlp:
    """OTLP over HTTP with protobuf, gzipped."""

    def __init__(self, options: TracingOptions) -> None:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._exporter: Any = OTLPSpanExporter(
            options.endpoint, headers=dict(options.headers), timeout=_EXPORT_S, compression=Compression.Gzip
        )

    def export(self, spans: Sequence[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # such as a malformed URL
            log.warning("spans cannot be sent: %s", error)
            return False

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _open_exporter(options: TracingOptions) -> Exporter:
    return _Otlp(options)
