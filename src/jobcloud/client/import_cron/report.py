"""The report of an import, and the manifest with its jobs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from jobcloud import cron_words
from jobcloud.config import SMALLEST_SHARD, CatchUp, Concurrency, Job, JobKind, JobType, check_name
from jobcloud.cron import CronError, Dialect, Fold, Gap, find_zone
from jobcloud.errors import ConfigError
from jobcloud.triggers import Timing

Json = dict[str, Any]

MAX_MANIFEST: Final = 3 << 20
TOO_LONG: Final = f"the manifest would be longer than {MAX_MANIFEST:,} characters; import fewer at once"
_MAX_SHOWN: Final = 200
_MAX_NAME: Final = 60
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.]+")


class Action(StrEnum):
    """The action of the import on a line, a unit or a trigger."""

    TAKEN = "taken"  # with the same firings and the same command
    CHANGED = "changed"  # taken, with differences that the report names
    REFUSED = "refused"
    SKIPPED = "skipped"  # it is no job: a comment, a blank line, a job without a trigger


class Kind(StrEnum):
    LINE = "line"
    VARIABLE = "variable"
    COMMENT = "comment"
    FILE = "file"
    TIMER = "timer"
    TRIGGER = "trigger"
    JOB = "job"
    DAG = "dag"
    TASK = "task"


@dataclass(slots=True)
class Item:
    """A line, a unit or a trigger in the report.

    `line` counts from 1; 0 stands for the whole file. `name`: the job's name; before `Report.of`, the wished one.
    `words`: when the job fires. `changes`: the differences. `reason`: why it is refused or skipped. `job`: the fields
    of the job.
    """

    kind: Kind
    source: str
    line: int
    text: str
    action: Action = Action.TAKEN
    name: str = ""
    words: str = ""
    changes: list[str] = field(default_factory=list)
    reason: str = ""
    job: Json = field(default_factory=dict)

    def refuse(self, reason: str) -> Item:
        self.action, self.reason, self.job = Action.REFUSED, reason, {}
        return self

    def skip(self, reason: str) -> Item:
        self.action, self.reason = Action.SKIPPED, reason
        return self

    def document(self) -> Json:
        return {
            "kind": self.kind,
            "source": self.source,
            "line": self.line,
            "text": self.text[:_MAX_SHOWN],
            "action": self.action,
            "jobName": self.name,
            "words": self.words,
            "changes": self.changes,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Options:
    """`app`: the app of the jobs. `team`: its team, or "". `zone`: the time zone of schedules that name none.

    `cpus` and `memory_mb`: the resources of each job. `names`: new names of jobs, by the names that they would have.
    """

    app: str
    team: str = ""
    zone: str = "UTC"
    cpus: float = 0.1
    memory_mb: float = 64
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """`notes`: differences that concern all jobs."""

    items: list[Item]
    notes: list[str]

    @classmethod
    def of(cls, items: Iterable[Item], options: Options) -> Report:
        """Check and name the jobs. Raises ConfigError if the app, the zone or a new name is wrong."""
        check_options(options)
        found: list[Item] = []
        size = 0
        for item in items:
            if item.job:
                _check(item, options)
                size += sum(len(value) for value in item.job.values() if isinstance(value, str))
                if item.job and size > MAX_MANIFEST:
                    item.refuse(TOO_LONG)
            found.append(item)
        give_names(found, options.names)
        return cls(found, _notes(options))

    @property
    def refused(self) -> int:
        return refused(self.items)

    def manifest(self, options: Options) -> Json:
        """The jobs in the form of `jobcloud apply`."""
        return {"jobs": jobs_of(self.items, options)}

    def document(self, *, dry_run: bool, options: Options) -> Json:
        """The report in JSON, with the manifest."""
        return described(self.items, self.notes, self.manifest(options), dry_run=dry_run)


def check_options(options: Options) -> None:
    """Raises ConfigError if the app or the zone is wrong."""
    check_name("--app", options.app)
    try:
        find_zone(options.zone)
    except CronError as error:
        raise ConfigError(str(error), field="--zone") from error


def refused(items: Iterable[Item]) -> int:
    """The number of refused items."""
    return sum(item.action is Action.REFUSED for item in items)


def described(items: Sequence[Item], notes: Sequence[str], manifest: Json, *, dry_run: bool) -> Json:
    """A report in JSON, with the manifest."""
    return {
        "dryRun": dry_run,
        "summary": {action.value: sum(item.action is action for item in items) for action in Action},
        "notes": notes,
        "items": [item.document() for item in items],
        "manifest": manifest,
    }


def jobs_of(items: Iterable[Item], options: Options) -> list[Json]:
    """The jobs of items with names."""
    common = {"appName": options.app, **({"team": options.team} if options.team else {})}
    amounts = {"shardingTotalCount": 1, "cpuCount": options.cpus, "memoryMB": options.memory_mb}
    return [{"jobName": item.name, **common, **item.job, **amounts} for item in items if item.job]


def _notes(options: Options) -> list[str]:
    return [
        f"schedules without a time zone are read in {options.zone} (--zone); other programs use that of their machine",
        "a firing that is due during the previous run is skipped; cron starts a second run (see concurrency)",
        "commands run on an agent, in the directory of the app, as the user and with the environment of the executor",
        "the output of a command is in the log of its task",
    ]


def _check(item: Item, options: Options) -> None:
    """Set the words of an item with a job, and its action. Refuse it if the job would be refused."""
    job = item.job
    if job.get("timeZone", options.zone) != "UTC":
        job.setdefault("timeZone", options.zone)
    try:
        configured = configured_job(job)
        times = configured.times()
        item.words = words_of(configured)
    except ConfigError as error:
        item.refuse(str(error))
        return
    if item.kind is Kind.TRIGGER and job.get("timeZone", "UTC") != "UTC":
        item.changes.append("a time that the clock shows twice fires at the first of the two; Quartz takes the second")
    if times.next_after(-1) is None and not configured.delay_ms:
        item.changes.append("it never fires")
    item.action = Action.CHANGED if item.changes else Action.TAKEN


def words_of(job: Job) -> str:
    """When a job fires."""
    times = job.times()
    if isinstance(times, Timing):
        return cron_words.describe_timing(times, job.start_time, job.end_time, ())
    return cron_words.describe(job.schedule())


def configured_job(job: Json) -> Job:
    """The job as the scheduler would check it, under any name. Raises ConfigError."""
    return Job(
        name="job",
        app="app",
        kind=JobKind(job["jobExecutionType"]),
        type=JobType(job["jobType"]),
        cron=job.get("cron", ""),
        shard_count=1,
        resources=SMALLEST_SHARD,
        job_class=job.get("jobClass", ""),
        script=job.get("scriptCommandLine", ""),
        zone=job.get("timeZone", "UTC"),
        dialect=Dialect(job.get("cronDialect", Dialect.QUARTZ)),
        gap=Gap(job.get("dstGap", Gap.RUN_AFTER)),
        fold=Fold(job.get("dstFold", Fold.AUTO)),
        triggers=tuple(job.get("triggers", ())),
        start_time=job.get("startTime", ""),
        end_time=job.get("endTime", ""),
        jitter_ms=job.get("jitterSeconds", 0) * 1_000,
        catch_up=CatchUp(job.get("catchUp", CatchUp.SKIP)),
        catch_up_limit=job.get("catchUpLimit", 10),
        concurrency=Concurrency(job.get("concurrency", Concurrency.FORBID)),
        concurrency_limit=job.get("concurrencyLimit", 10),
        misfire=job.get("misfire", False),
        retry_count=job.get("retryCount", 0),
        retry_delay_ms=round(job.get("retryDelaySeconds", 10) * 1_000),
        retry_most_ms=round(job.get("retryMaxDelaySeconds", 3_600) * 1_000),
        environment=tuple(job.get("environment", ())),
        labels=job.get("labels", ""),
        parameter=job.get("jobParameter", ""),
        timeout_ms=round(job.get("timeoutSeconds", 0) * 1_000),
        description=job["description"],
    )


def give_names(items: list[Item], names: Mapping[str, str]) -> None:
    """Give each job a name: the wished one, with a number if an earlier job has it. Raises ConfigError."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    jobs = [item for item in items if item.job]
    for item in jobs:
        base = _NO_NAME.sub("-", item.name[:_MAX_NAME]).strip("-.") or "job"
        name = base
        while name in taken:
            numbers[base] += 1
            name = f"{base}-{numbers[base] + 1}"
        taken.add(name)
        item.name = name
    for item in items:
        item.name = names.get(item.name, item.name) if item.job else ""
    unknown = sorted(names.keys() - taken)
    if unknown:
        raise ConfigError(f"no job has the name {unknown[0][:80]!r}", field="--rename", fix="see a --dry-run")
    for name, count in Counter(item.name for item in jobs).items():
        if count > 1:
            raise ConfigError(f"{name!r} would be the name of two jobs", field="--rename", fix="choose another name")
