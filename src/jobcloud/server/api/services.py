"""The parts of the server that routes use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Header, Request
from starlette.convertors import Convertor, register_url_convertor

from jobcloud.archive.service import Archive
from jobcloud.config import DELIMITER, Job
from jobcloud.errors import JobcloudError
from jobcloud.history.elastic_job import Statistics, TraceSearch
from jobcloud.history.queries import Reader
from jobcloud.messages import Command
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.explain import AgentView, Explanation
from jobcloud.server.api.body import read_object, read_object_or_nothing
from jobcloud.server.api.events import Notices
from jobcloud.server.api.follow import Followers
from jobcloud.server.api.guard import Access
from jobcloud.server.api.ports import AlertChannels, LogReader, Loop
from jobcloud.server.api.snapshot import Snapshot, TooMany, take, take_of_jobs, take_of_run, view
from jobcloud.server.api.threads import Questions
from jobcloud.server.clock import wall_ms
from jobcloud.server.origin import Origin
from jobcloud.server.packages import PackageStore, referenced
from jobcloud.server.urls import UrlPolicy

log = logging.getLogger(__name__)
T = TypeVar("T")

# How many runs and shards the scheduler's thread looks at for one answer. This takes less than a millisecond.
_MAX_SHARDS = 5_000
# A snapshot of more jobs than this costs more than a snapshot of everything.
_MAX_JOBS = 200


@dataclass(frozen=True, slots=True)
class ElasticJobOptions:
    """Options of Elastic-Job-Cloud's API. `zone` is the time zone of its clients' cron expressions and times."""

    enabled: bool = True
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Options of the API. `host` is the address that it will be bound to.

    `urls` lists the hosts that packages may come from, `job_urls` those that HTTP jobs may call.
    """

    host: str = "127.0.0.1"
    access: Access = field(default_factory=Access)
    urls: UrlPolicy = field(default_factory=UrlPolicy)
    job_urls: UrlPolicy = field(default_factory=UrlPolicy)
    elastic_job: ElasticJobOptions = ElasticJobOptions()


@dataclass(frozen=True, slots=True)
class Services:
    """`history`, `traces` and `statistics` are None without a history, `archive` without an archive of logs.

    `alerts` is None without channels. Routes ask the history in threads of `questions`.
    """

    loop: Loop
    packages: PackageStore
    origin: Origin
    options: ApiOptions
    notices: Notices
    followers: Followers
    read_log: LogReader | None = None
    teardown: Callable[[], None] | None = None
    clock: Callable[[], int] = wall_ms
    warnings: Callable[[], Sequence[str]] = tuple
    history: Reader | None = None
    traces: TraceSearch | None = None
    statistics: Statistics | None = None
    archive: Archive | None = None
    alerts: AlertChannels | None = None
    questions: Questions = field(default_factory=Questions)

    def command(self, make: Callable[[int], Command]) -> int:
        """Carry out a command. Returns the instant for which it was made. Raises the errors of `Loop.command`."""
        given: list[int] = []

        def at(instant: int) -> Command:
            given.append(instant)
            return make(instant)

        self.loop.command(at)
        return given[-1] if given else 0

    def snapshot(self) -> Snapshot:
        now = self.clock()
        return self.loop.ask(lambda scheduler: take(scheduler, now))

    def first(self, count: int, choose: Callable[[Snapshot], Iterator[T]]) -> list[T]:
        """The first `count` items that `choose` yields from a snapshot.

        If they are found soon, nothing is copied: `choose` gets the scheduler's own tables, on its thread.
        """

        def look(scheduler: Scheduler) -> list[T]:
            return list(islice(choose(view(scheduler, _MAX_SHARDS)), count))

        try:
            return self.loop.ask(look)
        except TooMany:
            return list(islice(choose(self.snapshot()), count))

    def snapshot_of(self, job: str) -> Snapshot:
        """A snapshot of one job."""
        return self.loop.ask(lambda scheduler: take_of_jobs(scheduler, [job]))

    def snapshot_of_jobs(self, wanted: Callable[[Job], bool]) -> Snapshot:
        """A snapshot that has at least the wanted jobs."""
        now = self.clock()

        def take_few(scheduler: Scheduler) -> Snapshot:
            keys = [key for key, job in scheduler.jobs.items() if wanted(job)]
            return take_of_jobs(scheduler, keys) if len(keys) <= _MAX_JOBS else take(scheduler, now)

        return self.loop.ask(take_few)

    def snapshot_of_run(self, run_id: str) -> Snapshot:
        """A snapshot of one run and its job. It is empty if there is no such run."""
        return self.loop.ask(lambda scheduler: take_of_run(scheduler, run_id))

    def snapshot_of_task(self, task_id: str) -> Snapshot:
        """A snapshot of the job that a task's id names."""
        return self.snapshot_of(task_id.partition(DELIMITER)[0])

    def agents(self) -> list[AgentView]:
        return self.loop.ask(lambda scheduler: scheduler.agents())

    def framework_id(self) -> str:
        return self.loop.ask(lambda scheduler: scheduler.framework_id)

    def explain(self, job: str) -> tuple[Explanation, int | None]:
        """The reasons why a job's shards run or wait, and its next fire time. Raises NotFound."""
        now = self.clock()
        return self.loop.ask(lambda scheduler: (scheduler.explain(job, now), scheduler.next_firing(job)))

    def collect_packages(self) -> None:
        """Remove packages that are no longer in use. The caller must hold `packages.guard`.

        This runs after a change has succeeded, so it raises nothing: the next change tries again.
        """
        try:
            snapshot = self.snapshot()
            apps = [app.package.sha256 for app in snapshot.apps.values()]
            specs = [executor.spec for executor in snapshot.executors]
            versions = sorted(snapshot.app_versions.values(), key=lambda version: -version.at_ms)
            earlier = [version.app.package.sha256 for version in versions]
            self.packages.collect(referenced(apps, specs, self.packages.stored()), earlier)
        except (JobcloudError, TimeoutError) as error:
            log.warning("packages were not collected: %s", error)


async def _services(request: Request) -> Services:
    # A coroutine: FastAPI would call a plain function in a thread, and wait for a free thread.
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
JsonObject = Annotated[dict[str, Any], Depends(read_object)]
#: {} for a request without a body
OptionalJsonObject = Annotated[dict[str, Any], Depends(read_object_or_nothing)]
Switch = Literal["enable", "disable"]
TraceParent = Annotated[str, Header(description="the span of the caller, in the form of W3C Trace Context")]

Pausing = Literal["pause", "resume"]


class _SwitchConvertor(Convertor[str]):
    """Matches only "enable" and "disable", so that a wrong method of another resource is not taken for a switch."""

    regex = "enable|disable"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _PausingConvertor(_SwitchConvertor):
    """Matches only "pause" and "resume"."""

    regex = "pause|resume"


register_url_convertor("switch", _SwitchConvertor())
register_url_convertor("pausing", _PausingConvertor())


def json_body(schema: type, *, required: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a body that the route reads itself, as a JsonObject."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference(schema)}}}}


def reference(schema: type, suffix: str = "") -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema.__name__}{suffix}"}
