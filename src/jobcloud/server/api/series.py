"""Series over time: results of attempts and runs, and samples, in steps of a minute, an hour or a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import Field

from jobcloud.access.verbs import Verb
from jobcloud.history.answers import Means, Step
from jobcloud.history.steps import DAY_MS, HOUR_MS, MAX_STEPS, By, steps_of
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.history import Figures, FilterQuery, answer, figures
from jobcloud.server.api.schema import Amounts, Instant, View, amounts
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.routes import Routes

if TYPE_CHECKING:
    from jobcloud.history.queries import Reader

router = Routes(tags=["history"])

# How far a range reaches back by default.
_DEFAULT_MS: dict[By, int] = {"minute": HOUR_MS, "hour": DAY_MS, "day": 30 * DAY_MS}


class StepAttempts(Figures):
    outcomes: dict[str, int] = Field(description="the number of attempts by outcome, as in GET /history/attempts")


class SharesView(View):
    """Parts of what the cluster has, from 0 to 1; null if it has none."""

    cpu_count: float | None
    memory_mb: float | None
    disk_mb: float | None
    gpu_count: float | None
    port_count: float | None


class ClusterMeans(View):
    agents: float = Field(description="agents that are neither unreachable nor gone")
    total: Amounts = Field(description="the agents as they were last offered")
    used_share: SharesView = Field(description="`used` of all teams that the sender may view, as parts of `total`")


class MeansView(View):
    """Means of the samples of a step, of the teams that the sender may view."""

    samples: int = Field(description="the number of samples: at most one for each minute")
    registered_jobs: float
    enabled_jobs: float = Field(description="neither the job nor its app is disabled")
    disabled_jobs: float
    running_jobs: float = Field(description="jobs with a running attempt")
    running_shards: float = Field(description="attempts that were launched and have not ended")
    waiting_shards: float
    unfinished_runs: float
    used: Amounts = Field(description="by attempts and executors")
    cluster: ClusterMeans | None = Field(description="null for senders who may not view the cluster")


class StepView(View):
    at: Instant = Field(description="the beginning of the step")
    until: Instant = Field(description="its end, which may be in the future")
    attempts: StepAttempts | None = Field(
        description="attempts that ended in the step; null if the history does not reach back so far"
    )
    runs: dict[str, int] | None = Field(
        description="ended runs that fired in the step, by state; null if the history does not reach back so far"
    )
    shards: dict[str, int] | None = Field(description="the shards of these runs, by state")
    sampled: MeansView | None = Field(description="null without a sample, and with a filter by an app or a job")


class SeriesView(View):
    by: Literal["minute", "hour", "day"]
    zone: str
    since: Instant
    until: Instant
    steps: list[StepView] = Field(description="oldest first")


class SeriesQuery(FilterQuery):
    by: By = Field("hour", description=f"the length of a step; a range has at most {MAX_STEPS:,} steps")
    zone: str = Field(
        "UTC", max_length=100, description="the time zone of days", json_schema_extra={"format": "time-zone"}
    )


@router.get("/statistics/series", response_model=SeriesView)
async def show_series(services: ServicesDep, access: AccessDep, query: Annotated[SeriesQuery, Parameter()]) -> Response:
    """The attempts and runs that ended in each step of a range of time, and means of jobs, running and waiting work.

    The range is extended to whole steps. It ends now at the latest. Default: the last hour of minutes, the last day of
    hours, or the last 30 days.
    """
    now = services.clock()
    until = min(query.until or now, now)
    since = until - _DEFAULT_MS[query.by] if query.since is None else query.since
    steps = steps_of(query.by, since, until, query.zone)
    wanted = query.wanted(access)
    of_cluster = access.allows(Verb.VIEW_CLUSTER)

    def ask(reader: Reader) -> SeriesView:
        from jobcloud.history.series import series

        found = [_step(step, of_cluster=of_cluster) for step in series(reader, steps, wanted)]
        first, last = (steps.bounds[0], steps.bounds[-1]) if found else (since, until)
        return SeriesView(by=query.by, zone=query.zone, since=first, until=last, steps=found)

    return await answer(services, ask)


def _step(step: Step, *, of_cluster: bool) -> StepView:
    return StepView(
        at=step.at,
        until=step.until,
        attempts=StepAttempts(**figures(step.attempts), outcomes=step.outcomes) if step.attempts is not None else None,
        runs=step.runs,
        shards=step.shards,
        sampled=_means(step.means, of_cluster=of_cluster) if step.means is not None else None,
    )


def _means(means: Means, *, of_cluster: bool) -> MeansView:
    shares = {
        json: round(used / total, 4) if total else None
        for json, used, total in zip(SharesView.model_fields, means.used, means.total, strict=True)
    }
    return MeansView(
        samples=means.samples,
        registered_jobs=_rounded(means.jobs),
        enabled_jobs=_rounded(means.jobs - means.disabled),
        disabled_jobs=_rounded(means.disabled),
        running_jobs=_rounded(means.running_jobs),
        running_shards=_rounded(means.running),
        waiting_shards=_rounded(means.waiting),
        unfinished_runs=_rounded(means.runs),
        used=amounts(means.used),
        cluster=ClusterMeans(agents=_rounded(means.agents), total=amounts(means.total), used_share=SharesView(**shares))
        if of_cluster
        else None,
    )


def _rounded(value: float) -> float:
    return round(value, 3)
