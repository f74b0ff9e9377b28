"""Traces of runs for OpenTelemetry: the ids of traces and spans, and the header `traceparent`.

The ids are hashes of the run's id, so all leaders derive the same ones. A run that was started with a `traceparent`
belongs to the trace of its caller. Format: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from jobcloud.model import Cause, Firing, Task

_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,200})?")


class Context(NamedTuple):
    """A span in its trace. `trace_id` has 32 hex digits, `span_id` 16. `sampled`: the span is to be kept."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


def parse(traceparent: str) -> Context | None:
    """The span that a header names. None if the header is malformed: callers ignore such a header."""
    found = _FORM.fullmatch(traceparent)
    if found is None or not int(found[2], 16) or not int(found[3], 16) or (found[1] == "00" and found[5] is not None):
        return None
    return Context(found[2], found[3], bool(int(found[4], 16) & 1))


def of_run(run_id: str, caller: Context | None, ratio: float) -> Context:
    """The span of a run. Without a `caller`, the fraction `ratio` of all runs is sampled."""
    if caller is not None:
        return Context(caller.trace_id, span_id(run_id), caller.sampled)
    digest = hashlib.sha256(f"jobcloud {run_id}".encode()).hexdigest()
    # The last 64 bits decide, as in the sampler TraceIdRatioBased of OpenTelemetry.
    return Context(digest[:32], span_id(run_id), int(digest[16:32], 16) < ratio * 2**64)


def span_id(*place: str | int) -> str:
    """The id of a span: a run's id, followed by the item of a shard and the number of an attempt."""
    return hashlib.sha256("/".join(map(str, place)).encode()).hexdigest()[:16]


def of_attempt(task: Task, cause: str, caller: Context | None, ratio: float) -> Context:
    """The span of an attempt. The run of a resident job has no end, so each of its attempts has a trace of its own."""
    if cause == Cause.DAEMON:
        return of_run(task.id, None, ratio)
    return of_run(task.firing_id, caller, ratio)._replace(span_id=span_id(task.firing_id, task.item, task.attempt))


def traceparent_of(firing: Firing, task: Task, ratio: float | None) -> str:
    """The `traceparent` that an attempt gets; "" if there is no trace. `ratio` is None if no spans are made."""
    caller = parse(firing.terms.trace) if firing.terms.trace else None
    if ratio is None:
        return str(caller) if caller is not None else ""
    return str(of_attempt(task, firing.cause, caller, ratio))
