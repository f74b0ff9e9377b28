"""The answer to a scrape: values of the tally, the loop and the core, as families of Prometheus' library."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import jobcloud
from jobcloud import zones
from jobcloud.archive.service import NO_ARCHIVE, Archive, ArchiveState
from jobcloud.errors import JobcloudError, StoreError
from jobcloud.model import Task, TaskState
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.queue import Depth
from jobcloud.scheduler.quotas import LIMITED, TeamUsage
from jobcloud.server.clock import Clock
from jobcloud.server.loop import Health
from jobcloud.server.metrics.catalogue import FAMILIES, Family, Kind
from jobcloud.server.metrics.tally import (
    DROP_REASONS,
    OTHER,
    REFUSAL_REASONS,
    STATUS_CLASSES,
    Histogram,
    JobCounts,
    Owner,
    Tally,
)
from jobcloud.server.tls import ServerTls
from jobcloud.tracing.service import SpanCounts

log = structlog.get_logger(__name__)
T = TypeVar("T")

_OPENMETRICS = "application/openmetrics-text"
# A scrape waits at most this long for the scheduler's thread. Prometheus' own limit is 10 s by default.
_ASK_S = 2.0
_KINDS: dict[Kind, Callable[..., Metric]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_AGENT_STATES = ("up", "closed", "lost")
_LISTENERS = ("http", "artifacts")
# The maximum number of teams with series of their own: the first ones by name.
_MAX_TEAMS = 100
_COUNTED = ("shards", "queue", "jobs")

Value: TypeAlias = float | Histogram
Sample: TypeAlias = tuple[str, tuple[str, ...], Value]
"""The name of the family, the values of its labels, the value."""


class Loop(Protocol):
    """The part of the loop that a scrape reads."""

    @property
    def lost_notices(self) -> int: ...

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5.0) -> T: ...

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources that a scrape reads, apart from the tally.

    `packages` returns the number of stored packages and their bytes, `missed` the number of notices that slow receivers
    have missed, `spans` the spans of OpenTelemetry that were sent and dropped. `archive` is None without an archive of
    logs. `listeners` are those with TLS.
    """

    loop: Loop
    clock: Clock
    packages: Callable[[], tuple[int, int]]
    warnings: Callable[[], Sequence[str]]
    missed: Callable[[], int]
    archive: Archive | None = None
    spans: Callable[[], SpanCounts] = SpanCounts
    listeners: Sequence[ServerTls] = ()


class _View(NamedTuple):
    """Values of the core at one moment: only references and numbers, which the scheduler's thread copies fast."""

    depth: Depth
    tasks: list[Task]
    refused: list[str]
    skipped: list[tuple[str, int]]
    agents: tuple[int, int, int]
    apps: int
    jobs: int
    runs: int
    executors: int
    drains: int
    offers: int
    teams: list[TeamUsage]


def _view(core: Scheduler, at: int) -> _View:
    cluster = core.cluster
    lost = sum(entry.lost for entry in cluster.agents.values())
    closed = sum(not entry.lost and entry.id in cluster.cordoned for entry in cluster.agents.values())
    return _View(
        depth=core.depth(at),
        tasks=list(core.tasks.values()),
        refused=[reasons[0].resource or reasons[0].code for reasons in core.refusals.values() if reasons],
        skipped=[(key, state.skipped) for key, state in core.job_states.items() if key not in core.ad_hoc],
        agents=(len(cluster.agents) - lost - closed, closed, lost),
        apps=len(core.apps),
        jobs=len(core.jobs) - len(core.ad_hoc),
        runs=len(core.queue),
        executors=len(core.executors),
        drains=len(core.drains),
        offers=cluster.held,
        teams=[core.team_usage(team) for team in core.teams_in_use()[:_MAX_TEAMS]],
    )


class Metrics(Collector):
    """All metrics of a process, in a registry of its own."""

    def __init__(self, tally: Tally, sources: Sources) -> None:
        self._tally = tally
        self._sources = sources
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The body and the media type of an answer to a client that accepts the media types `accept`."""
        if _accepts_openmetrics(accept):
            body: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def describe(self) -> Iterable[Metric]:
        """The families without values. The library calls this once, when the collector is registered."""
        return [_family(declared) for declared in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        families = {declared.name: _family(declared) for declared in FAMILIES}
        for name, labels, value in self._samples():
            family = families[name]
            if isinstance(value, Histogram):
                assert isinstance(family, HistogramMetricFamily)
                buckets, total = value.buckets()
                family.add_metric(labels, buckets=buckets, sum_value=total)
            else:
                assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
                family.add_metric(labels, value)
        return families.values()

    def _samples(self) -> Iterator[Sample]:
        yield from self._of_process()
        yield from self._of_clock()
        yield from self._of_tally()
        archive = self._sources.archive
        yield from _of_archive(archive.state() if archive is not None else NO_ARCHIVE)
        for counts in self._tally.jobs():
            yield from _of_job(counts)
        view = self._ask()
        yield "jobcloud_core_answered", (), view is not None
        if view is not None:
            yield from self._of_core(view)

    def _ask(self) -> _View | None:
        """The view of the core. None if this scheduler does not lead, or its thread does not answer in time."""
        at = self._sources.clock.now_ms()
        try:
            return self._sources.loop.ask(lambda core: _view(core, at), timeout=_ASK_S)
        except (JobcloudError, TimeoutError):
            return None

    def _of_process(self) -> Iterator[Sample]:
        sources, tally = self._sources, self._tally
        health = sources.loop.health()
        yield "jobcloud_build_info", (jobcloud.__version__,), 1
        yield "jobcloud_leader", (), health.leading
        yield "jobcloud_leader_changes_total", (), tally.leader_changes
        yield "jobcloud_epoch", (), health.epoch
        yield "jobcloud_healthy", (), health.well
        yield "jobcloud_connected", (), health.connected
        yield "jobcloud_recoveries_total", (), health.recoveries
        yield "jobcloud_stored_faults", (), len(health.faults)
        yield "jobcloud_loop_lag_seconds", (), health.late_ms / 1_000
        yield "jobcloud_loop_idle_seconds", (), health.idle_ms / 1_000
        yield "jobcloud_inbox_items", (), health.waiting
        for reason, number in zip(DROP_REASONS, (sources.missed(), sources.loop.lost_notices), strict=True):
            yield "jobcloud_notices_dropped_total", (reason,), number
        yield from _by_label("jobcloud_spans_total", sources.spans()._asdict())
        for (method, route), answers in tally.requests.items():
            for status in STATUS_CLASSES:
                yield "jobcloud_http_requests_total", (method, route, status), answers[status]
        with_tls = {tls.section: tls for tls in sources.listeners}
        for section, tls in with_tls.items():
            yield "jobcloud_tls_certificate_expiry_timestamp_seconds", (section,), tls.expires_ms() / 1_000
        for section in _LISTENERS:
            counts = with_tls[section].counts() if section in with_tls else (0, 0)
            for result, number in zip(("ok", "failed"), counts, strict=True):
                yield "jobcloud_tls_reloads_total", (section, result), number
        try:
            packages, size = sources.packages()
        except StoreError as error:
            log.warning("the packages cannot be counted", problem=str(error))
        else:
            yield "jobcloud_packages", (), packages
            yield "jobcloud_packages_bytes", (), size

    def _of_clock(self) -> Iterator[Sample]:
        readings, outdated = self._sources.clock.readings(), bool(zones.warning())
        yield "jobcloud_warnings", (), len(self._sources.warnings()) + outdated
        yield "jobcloud_clock_offset_seconds", (), readings.offset_ms / 1_000
        yield "jobcloud_clock_jumps_total", (), readings.jumps
        for machine, difference in readings.differences.items():
            yield "jobcloud_clock_difference_seconds", (machine,), difference / 1_000
        yield "jobcloud_time_zones_info", (zones.version(),), 1
        yield "jobcloud_time_zones_outdated", (), outdated

    def _of_tally(self) -> Iterator[Sample]:
        tally = self._tally
        yield "jobcloud_faults_total", (), tally.faults
        yield "jobcloud_store_write_seconds", (), tally.store_writes
        yield from _by_label("jobcloud_store_failures_total", tally.store_failures)
        yield "jobcloud_offers_received_total", (), tally.offers_received
        yield "jobcloud_offers_declined_total", (), tally.offers_declined
        yield from _by_label("jobcloud_refusals_total", tally.refusals)
        yield "jobcloud_cycle_seconds", (), tally.cycles
        yield "jobcloud_placements_total", (), tally.placements
        yield "jobcloud_launch_lateness_seconds", (), tally.lateness
        yield from _by_label("jobcloud_attempts_lost_total", tally.lost)

    def _of_core(self, view: _View) -> Iterator[Sample]:
        yield from _by_label("jobcloud_agents", dict(zip(_AGENT_STATES, view.agents, strict=True)))
        yield "jobcloud_drains", (), view.drains
        yield "jobcloud_executors", (), view.executors
        yield "jobcloud_offers_held", (), view.offers
        yield "jobcloud_apps", (), view.apps
        yield "jobcloud_jobs", (), view.jobs
        yield "jobcloud_runs_unfinished", (), view.runs
        states = Counter(task.state for task in view.tasks if not task.placeholder)
        yield from _by_label("jobcloud_tasks", {str(state): states[state] for state in TaskState})
        depth = view.depth
        yield from _by_label("jobcloud_queue_shards", {"ready": depth.ready, "blocked": depth.waiting - depth.ready})
        since = depth.oldest_ms
        age = 0 if since is None else max(0, self._sources.clock.now_ms() - since) / 1_000
        yield "jobcloud_queue_oldest_age_seconds", (), age
        refused = Counter(view.refused)
        yield from _by_label("jobcloud_jobs_refused", {reason: refused[reason] for reason in REFUSAL_REASONS})
        for usage in view.teams:
            yield from _of_team(usage)
        skipped: dict[Owner, int] = defaultdict(int, {OTHER: 0})
        for key, number in view.skipped:
            skipped[self._tally.owner(key)] += number
        for owner, number in skipped.items():
            yield "jobcloud_firings_skipped_total", owner, number


def _of_team(usage: TeamUsage) -> Iterator[Sample]:
    """The samples of a team. A resource without a limit has none in the family of quotas."""
    used = {name: getattr(usage.resources, name) / 1_000 for name in LIMITED}
    used |= {name: getattr(usage, name) for name in _COUNTED}
    for name, amount in used.items():
        yield "jobcloud_team_used", (usage.team, name), amount
        if (limit := getattr(usage.quota, name)) is not None:
            yield "jobcloud_team_quota", (usage.team, name), limit / 1_000 if name in LIMITED else limit
    yield "jobcloud_team_held_runs", (usage.team,), usage.held_runs
    yield "jobcloud_team_share", (usage.team,), usage.share


def _of_job(counts: JobCounts) -> Iterator[Sample]:
    owner = counts.owner
    yield "jobcloud_runs_started_total", owner, counts.fired
    yield "jobcloud_launches_total", owner, counts.launched
    for state, number in counts.runs.items():
        yield "jobcloud_runs_ended_total", (*owner, state), number
    for state, number in counts.attempts.items():
        yield "jobcloud_attempts_ended_total", (*owner, state), number
    if owner is not OTHER:
        yield "jobcloud_job_last_success_timestamp_seconds", owner, counts.succeeded_ms / 1_000
        yield "jobcloud_job_last_failure_timestamp_seconds", owner, counts.failed_ms / 1_000


def _of_archive(state: ArchiveState) -> Iterator[Sample]:
    yield from _by_label(
        "jobcloud_archive_logs_total", {str(outcome): number for outcome, number in state.counts.items()}
    )
    yield "jobcloud_archive_copied_bytes_total", (), state.copied
    yield "jobcloud_archive_failures_total", (), state.failures
    yield "jobcloud_archive_away", (), bool(state.problem)
    yield "jobcloud_archive_waiting", (), state.waiting
    yield "jobcloud_archive_stored_logs", (), state.logs
    yield "jobcloud_archive_stored_bytes", (), state.bytes


def _by_label(name: str, counts: dict[str, int]) -> Iterator[Sample]:
    return ((name, (label,), number) for label, number in counts.items())


def _family(declared: Family) -> Metric:
    return _KINDS[declared.kind](declared.name, declared.help, labels=declared.labels)


def _accepts_openmetrics(accept: str) -> bool:
    """Whether a client prefers OpenMetrics. Prometheus names the types that it accepts, the preferred ones first."""
    for part in accept.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        if kind == _OPENMETRICS:
            return "q=0" not in parameters
        if kind == "text/plain":
            return False
    return False
