"""The parts of the server that routes use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from fastapi import Depends, Header, Request
from msgspec import structs
from starlette.convertors import Convertor, register_url_convertor

from jobcloud.archive.service import Archive
from jobcloud.config import DELIMITER
from jobcloud.errors import JobcloudError
from jobcloud.history.elastic_job import Statistics, TraceSearch
from jobcloud.messages import Apply, Command, PutApp, PutJob, RemoveApp, RemoveJob
from jobcloud.scheduler import Scheduler, fit
from jobcloud.scheduler.explain import AgentView, Explanation
from jobcloud.server.api.body import read_object, read_object_or_nothing
from jobcloud.server.api.certificates import NameOf
from jobcloud.server.api.digests import Digests
from jobcloud.server.api.events import Notices
from jobcloud.server.api.follow import Followers
from jobcloud.server.api.guard import Access
from jobcloud.server.api.overviews import Overviews
from jobcloud.server.api.ports import AlertChannels, LogReader, Loop
from jobcloud.server.api.recording import sender
from jobcloud.server.api.snapshot import Snapshot, TooMany, take, take_of_jobs, take_of_run, view
from jobcloud.server.api.threads import Questions
from jobcloud.server.clock import wall_ms
from jobcloud.server.identity.links import Links
from jobcloud.server.identity.sessions import DEFAULT_LIMITS, SessionOptions
from jobcloud.server.identity.sign_in_limits import SignInLimits
from jobcloud.server.identity.webhook_limits import WebhookLimits
from jobcloud.server.origin import Origin
from jobcloud.server.packages import PackageStore, referenced
from jobcloud.server.urls import UrlPolicy

if TYPE_CHECKING:
    from jobcloud.history.notes import Notes
    from jobcloud.history.queries import Reader

log = logging.getLogger(__name__)
T = TypeVar("T")

# How many runs and shards the scheduler's thread looks at for one answer. This takes less than a millisecond.
_MAX_SHARDS = 5_000
_WITH_AUTHOR = (Apply, PutApp, PutJob, RemoveApp, RemoveJob)


@dataclass(frozen=True, slots=True)
class ElasticJobOptions:
    """Options of Elastic-Job-Cloud's API. `zone` is the time zone of its clients' cron expressions and times."""

    enabled: bool = True
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The ways to sign in that the page offers, in addition to one-time links.

    `single_sign_on` is the name of the identity provider; "" if there is none.
    """

    password: bool = True
    single_sign_on: str = ""


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Options of the API. `host` is the address that it will be bound to.

    `urls` lists the hosts that packages may come from, `job_urls` those that HTTP jobs may call. `client_name` is the
    part of a client's certificate that names the client; None: certificates prove no identity. `machine` is the host
    name of this machine.
    """

    host: str = "127.0.0.1"
    access: Access = field(default_factory=Access)
    urls: UrlPolicy = field(default_factory=UrlPolicy)
    job_urls: UrlPolicy = field(default_factory=UrlPolicy)
    elastic_job: ElasticJobOptions = ElasticJobOptions()
    sessions: SessionOptions = DEFAULT_LIMITS
    sign_in: SignIn = SignIn()
    client_name: NameOf | None = None
    machine: str = ""

    @property
    def server_token(self) -> str:
        return self.access.token


WebhookKeys: TypeAlias = Callable[[str, Sequence[str]], tuple[list[bytes], list[str]]]
"""As `keys_of` for a team and the names of secrets."""
MissingSecrets: TypeAlias = Callable[[Iterable[tuple[str, str]]], list[tuple[str, str]]]
"""Finds the (team, name) of secrets that certainly do not exist."""


@dataclass(frozen=True, slots=True)
class Services:
    """`history`, `notes`, `traces` and `statistics` are None without a history, `archive` without an archive of logs.

    `alerts` is None without channels, `missing_secrets` and `webhook_keys` without a source of secrets. Routes ask the
    history in threads of `questions`.
    """

    loop: Loop
    packages: PackageStore
    origin: Origin
    options: ApiOptions
    notices: Notices
    followers: Followers
    digests: Digests
    overviews: Overviews
    read_log: LogReader | None = None
    teardown: Callable[[], None] | None = None
    clock: Callable[[], int] = wall_ms
    warnings: Callable[[], Sequence[str]] = tuple
    history: Reader | None = None
    traces: TraceSearch | None = None
    statistics: Statistics | None = None
    archive: Archive | None = None
    alerts: AlertChannels | None = None
    missing_secrets: MissingSecrets | None = None
    notes: Notes | None = None
    webhook_keys: WebhookKeys | None = None
    questions: Questions = field(default_factory=Questions)
    sign_in_limits: SignInLimits = field(default_factory=SignInLimits)
    #: takes turns of its own, because each check of a password computes for long
    password_checks: Questions = field(default_factory=lambda: Questions(1, 16, of="the check of passwords"))
    #: takes turns of its own, because each starts a process that computes for long
    calendar_reads: Questions = field(default_factory=lambda: Questions(1, 8, of="the reader of calendars"))
    #: takes turns of its own, because the source of secrets may be slow
    webhook_checks: Questions = field(default_factory=lambda: Questions(4, 32, of="the check of webhooks"))
    webhook_limits: WebhookLimits = field(default_factory=WebhookLimits)
    links: Links = field(default_factory=Links)

    @property
    def sessions(self) -> SessionOptions:
        return self.options.sessions

    @property
    def server_token(self) -> str:
        return self.options.server_token

    def command(self, make: Callable[[int], Command]) -> int:
        """Carry out a command. Returns the instant for which it was made. Raises the errors of `Loop.command`.

        The author of a change of apps and jobs is the sender of the request.
        """
        made: list[Command] = []
        # The loop makes the command on its own thread, which knows no sender.
        author = sender()

        def at(instant: int) -> Command:
            command = make(instant)
            made.append(structs.replace(command, author=author) if isinstance(command, _WITH_AUTHOR) else command)
            return made[-1]

        self.loop.command(at)
        if not made:
            return 0
        self.links.carried_out(made[-1])
        return made[-1].at

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

    def snapshot_of_some(self, jobs: Sequence[str]) -> Snapshot:
        """A snapshot of those of some jobs that exist. Its cost grows with their number and that of their runs."""
        return self.loop.ask(lambda scheduler: take_of_jobs(scheduler, jobs))

    def snapshot_of_run(self, run_id: str) -> Snapshot:
        """A snapshot of one run and its job. It is empty if there is no such run."""
        return self.loop.ask(lambda scheduler: take_of_run(scheduler, run_id))

    def snapshot_of_task(self, task_id: str) -> Snapshot:
        """A snapshot of the job that a task's id names."""
        return self.snapshot_of(task_id.partition(DELIMITER)[0])

    def agents(self) -> list[AgentView]:
        return self.loop.ask(lambda scheduler: scheduler.agents())

    def team_roles(self) -> Mapping[str, str]:
        """Team → the Mesos role whose offers are for this team alone."""
        return self.loop.ask(lambda scheduler: scheduler.cluster.team_roles)

    def framework_id(self) -> str:
        return self.loop.ask(lambda scheduler: scheduler.framework_id)

    def explain(self, job: str) -> tuple[Explanation, int | None]:
        """The reasons why a job's shards run or wait, and its next fire time. Raises NotFound."""
        now = self.clock()
        return self.loop.ask(lambda scheduler: (scheduler.explain(job, now), scheduler.next_firing(job)))

    def fit(self, job: str, shards: int) -> fit.Fit:
        """How many of `shards` further shards of a job fit now; 0: as many as a run has. Raises NotFound.

        The scheduler's thread copies the free resources. The rest happens in the thread of the caller.
        """
        now = self.clock()
        return fit.answer(self.loop.ask(lambda scheduler: scheduler.fit_question(job, shards, now)))

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
