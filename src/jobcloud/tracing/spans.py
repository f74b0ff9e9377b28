"""Traces of the core as spans of OpenTelemetry.

A run is a trace. Below its span are those of its first shards, and below each of these the spans of its waits and
attempts. A run of many shards has few spans: of the other shards, only attempts that failed have one. The ids of spans
are derived from the run (scheduler/trace_context.py), so a later leader continues the same trace.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

import jobcloud
from jobcloud.config import split_key
from jobcloud.messages import AttemptTraced, RunTraced
from jobcloud.model import Cause, Firing, Shard, ShardState, cut
from jobcloud.scheduler import trace_context
from jobcloud.scheduler.status import End
from jobcloud.scheduler.trace_context import Context, span_id

Event: TypeAlias = AttemptTraced | RunTraced
_Attributes: TypeAlias = Mapping[str, str | int]

#: the maximum number of attempts of a run that have spans; each leader counts from 0
MAX_ATTEMPTS = 1_000
# Attempts are counted for this many runs: those in which an attempt ended last.
_MAX_RUNS = 10_000
_MESSAGE_BYTES = 1_000
_SCOPE = InstrumentationScope("jobcloud", jobcloud.__version__)
_FAILED = (ShardState.DEAD, ShardState.FAILED)
# An attempt that was killed has not failed.
_FINE = (End.SUCCEEDED, End.KILLED)


class Spans:
    """Makes the spans of a process. `ratio`: the fraction of runs with a trace. `shards`: how many get spans."""

    def __init__(self, cluster: str, ratio: float, shards: int) -> None:
        self._ratio = ratio
        self._shards = shards
        self._resource = Resource(
            {"service.name": "jobcloud", "service.version": jobcloud.__version__, "jobcloud.cluster": cluster}
        )
        #: run → its attempts that have spans
        self._counts: OrderedDict[str, int] = OrderedDict()

    def of(self, event: Event) -> Iterator[ReadableSpan]:
        """The spans that end with an event."""
        return self._of_run(event.firing, event.app) if isinstance(event, RunTraced) else self._of_attempt(event)

    def _of_run(self, firing: Firing, app: str) -> Iterator[ReadableSpan]:
        if firing.cause is Cause.DAEMON:
            return
        caller = trace_context.parse(firing.terms.trace)
        run = trace_context.of_run(firing.id, caller, self._ratio)
        if not run.sampled:
            return
        about = _about(firing.id, firing.job, app, firing.cause)
        start_ms = _start_of(firing)
        for item, shard in enumerate(firing.work[: self._shards]):
            if firing.runs(item):
                yield self._shard(firing, item, shard, run, about, start_ms)
        states = [shard.state for shard in firing.work]
        counts = {f"jobcloud.shards.{state.lower()}": states.count(state) for state in set(states)}
        outcome = firing.worst
        yield self._span(
            f"run {_name(firing.job)}",
            run,
            caller.span_id if caller is not None else "",
            start_ms,
            firing.ended_ms,
            {**about, **counts, "jobcloud.fire_time_ms": firing.fire_ms, "jobcloud.outcome": outcome},
            error=str(outcome) if outcome in _FAILED else "",
        )

    def _shard(
        self, firing: Firing, item: int, shard: Shard, run: Context, about: _Attributes, start_ms: int
    ) -> ReadableSpan:
        return self._span(
            "shard",
            run._replace(span_id=span_id(firing.id, item)),
            run.span_id,
            start_ms,
            shard.ended_ms,
            {
                **about,
                "jobcloud.shard": item,
                "jobcloud.attempts": shard.attempt,
                "jobcloud.outcome": shard.state,
            },
            error=(shard.outcome.cause or str(shard.state)) if shard.state in _FAILED else "",
            message=shard.message,
        )

    def _of_attempt(self, event: AttemptTraced) -> Iterator[ReadableSpan]:
        task = event.task
        if not event.ended:
            return
        caller = trace_context.parse(event.trace)
        attempt = trace_context.of_attempt(task, event.run_cause, caller, self._ratio)
        failed = event.state not in _FINE
        own_shard = not event.step and task.item < self._shards
        resident = event.run_cause == Cause.DAEMON
        if not attempt.sampled or not (own_shard or event.step or failed or resident):
            return
        if not resident and not self._count(task.firing_id):
            return
        parent = "" if resident else span_id(task.firing_id, task.item) if own_shard else span_id(task.firing_id)
        about = {
            **_about(task.firing_id, task.job, task.app, event.run_cause),
            "jobcloud.shard": task.item,
            "jobcloud.attempt": task.attempt,
        }
        if event.step:
            about["jobcloud.step"] = event.step
        if event.queued_ms > 0:
            yield self._span(
                "queue",
                attempt._replace(span_id=span_id(task.firing_id, task.item, task.attempt, "queue")),
                attempt.span_id if resident else parent,
                task.created_ms - event.queued_ms,
                task.created_ms,
                about,
            )
        yield self._span(
            f"attempt {_name(task.job)}",
            attempt,
            parent,
            task.created_ms,
            event.at,
            {
                **about,
                "jobcloud.task.id": task.id,
                "jobcloud.agent.id": task.agent_id,
                "host.name": task.hostname,
                "jobcloud.outcome": event.state,
            },
            error=(event.outcome.cause or event.state) if failed else "",
            message=event.message,
            running_ms=task.started_ms,
        )

    def _count(self, run: str) -> bool:
        """Count an attempt of a run. False if the run has the maximum of them."""
        count = self._counts[run] = self._counts.get(run, 0) + 1
        self._counts.move_to_end(run)
        if len(self._counts) > _MAX_RUNS:
            self._counts.popitem(last=False)
        return count <= MAX_ATTEMPTS

    def _span(
        self,
        name: str,
        context: Context,
        parent: str,
        start_ms: int,
        end_ms: int,
        attributes: _Attributes,
        *,
        error: str = "",
        message: str = "",
        running_ms: int = 0,
    ) -> ReadableSpan:
        """`parent` is the id of the parent span, or "". `error` is the type of an error, or ""."""
        values = {key: value if isinstance(value, int) else str(value) for key, value in attributes.items()}
        if error:
            values["error.type"] = error
        status = Status(StatusCode.ERROR, cut(message or error, _MESSAGE_BYTES)) if error else Status(StatusCode.UNSET)
        return ReadableSpan(
            name,
            context=_sdk_context(context),
            parent=_sdk_context(context._replace(span_id=parent)) if parent else None,
            resource=self._resource,
            attributes=values,
            events=[SpanEvent("running", timestamp=running_ms * 1_000_000)] if running_ms else (),
            status=status,
            start_time=start_ms * 1_000_000,
            # Clocks of two leaders may differ.
            end_time=max(start_ms, end_ms) * 1_000_000,
            instrumentation_scope=_SCOPE,
        )


def _sdk_context(context: Context) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=False, trace_flags=flags)


def _name(job: str) -> str:
    """The name of a job for the name of a span. Spans should have few names, so all ad-hoc runs of a name share one."""
    return split_key(job)[1].partition("~")[0]


def _about(run: str, job: str, app: str, cause: str) -> dict[str, str | int]:
    team, _ = split_key(job)
    return {
        "jobcloud.team": team,
        "jobcloud.app": app,
        "jobcloud.job": job,
        "jobcloud.run": run,
        "jobcloud.cause": str(cause),
    }


def _start_of(firing: Firing) -> int:
    """When the run began. A run for a missed or past fire time begins with its first attempt."""
    if firing.cause is not Cause.CATCH_UP:
        return firing.fire_ms
    return min((shard.started_ms for shard in firing.shards if shard.started_ms), default=firing.ended_ms)
