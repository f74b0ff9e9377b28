"""The vocabulary of the scheduler: firings, shards, tasks, executors, offers. Apps and jobs are in config.py.

The fields `app` and `job` are keys (see config.py). Instants are integers: milliseconds since the Unix epoch. Amounts
are integers in thousandths. All values are frozen; the scheduler replaces them. Most of them are created for each task,
so they are `msgspec.Struct`s. A struct is created or copied in a tenth of the time of a frozen dataclass.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from typing import Annotated, NamedTuple, TypeAlias, overload

import msgspec

from jobcloud.config import DELIMITER, MAX_PRIORITY, MAX_SHARDS, Amount, App, Resources
from jobcloud.sentences import Words

# Ranges are checked when a record is decoded, so that one corrupt record cannot affect others.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Instant = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
# Texts from outside are cut when they arrive, so that every record is smaller than the stores' limit.
MAX_MESSAGE_BYTES = 4_000
MAX_ID_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
Priority = Annotated[int, msgspec.Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Item = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SHARDS + 2)]  # includes the two calls of a run's listener


def cut(text: str, most: int = MAX_MESSAGE_BYTES) -> str:
    """A text from outside, cut to `most` bytes of UTF-8, without control characters except tabs and line ends.

    JSON escapes control characters with six bytes, and terminals obey them.
    """
    if not text or (text.isascii() and text.isprintable() and len(text) <= most):
        return text
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text[:most])
    return clean.encode(errors="replace")[:most].decode(errors="ignore")


class Cause(StrEnum):
    """The reason for a firing."""

    CRON = "cron"
    CATCH_UP = "catch_up"
    TRIGGER = "trigger"
    DAEMON = "daemon"


class Execution(StrEnum):
    """FAILOVER: an earlier attempt that may have run was lost, or a resident attempt has ended. READY: neither."""

    READY = "READY"
    FAILOVER = "FAILOVER"


class TaskState(StrEnum):
    """The life of a task, in the usual order. STORED: the launch intent is stored, no update has come yet."""

    STORED = "STORED"
    STAGING = "STAGING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    KILLING = "KILLING"
    UNREACHABLE = "UNREACHABLE"


class ShardState(StrEnum):
    """DEAD: the shard failed and has used up its attempts. It stays DEAD until an operator retries it."""

    WAITING = "WAITING"
    ACTIVE = "ACTIVE"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"

    ended: bool

    def __init__(self, value: str) -> None:
        self.ended = value not in ("WAITING", "ACTIVE")


_WORST_FIRST = (ShardState.DEAD, ShardState.FAILED, ShardState.KILLED, ShardState.CANCELLED, ShardState.FINISHED)


class End(StrEnum):
    """The end of an attempt, which decides the next state of the shard."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"  # the job itself failed
    KILLED = "KILLED"
    LOST = "LOST"  # the cluster failed after the task may have run
    NOT_STARTED = "NOT_STARTED"  # the cluster failed before the task was seen to run
    INVALID = "INVALID"  # Mesos refused the launch
    REPLACED = "REPLACED"  # the job's partition policy gave up the attempt; its task may still run


# The value of a field that is not stored.
ABSENT = msgspec.UNSET


class JobState(msgspec.Struct, frozen=True, gc=False):
    """The state of a job, apart from its configuration.

    `considered_ms`: every firing that was due up to this instant has been queued or skipped. `generation` rises with
    each change of the configuration that requires running work to end before new work starts. `success_ms`: the last
    success of a run, or the instant since which a success is awaited; 0 if nobody wants to know. `success_fire_ms`: the
    latest fire time of a whole run that succeeded while the job had placeholders; 0 if there is none. `skipped_words`
    are those of `skipped_reason`. `after_ms`: the trigger `@after` is due from this instant on, unless a run of the job
    has not ended. Without it, `considered_ms` is this instant. `expected_ms`: no success is awaited for times of
    `expectedBy` up to this instant. `lasts_ms`: how long a successful run takes, as recent runs of a job with
    `expectedBy` tell.
    """

    considered_ms: Instant
    generation: Count = 1
    disabled: bool = False
    skipped: Count = 0
    skipped_reason: str = ""
    success_ms: Instant = 0
    success_fire_ms: Instant = 0
    skipped_words: Words | msgspec.UnsetType = ABSENT
    after_ms: Instant | msgspec.UnsetType = ABSENT
    expected_ms: Instant | msgspec.UnsetType = ABSENT
    lasts_ms: Instant | msgspec.UnsetType = ABSENT


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The executor's report of the end of an attempt, for machines (docs/executor.md).

    `cause`, such as exception or worker_lost, is "" after success, or if no executor reported it. `result` is the JSON
    text of the job's return value, or "".
    """

    cause: str = ""
    result: str = ""


NO_OUTCOME = Outcome()


class Shard(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One shard of a firing.

    `attempt`: the number of tasks launched for it. `task_id`: the last of these tasks. `failures`: the number of
    attempts in a row that the cluster lost; if the shard is resident, attempts that ended in another way count too.
    `retries`: the retries so far. `lost_workers`: the number of attempts that were lost with a shared worker. Until
    `avoid_ms`, the shard avoids the agent of its last attempt. `outcome`: the executor's report of the last attempt.
    `end`: the end of the last attempt; None after success, or if the end is unknown.
    """

    state: ShardState = ShardState.WAITING
    attempt: Count = 0
    failures: Count = 0
    execution: Execution = Execution.READY
    not_before_ms: Instant = 0
    task_id: str = ""
    agent_id: str = ""
    hostname: str = ""
    executor_id: str = ""
    started_ms: Instant = 0
    ended_ms: Instant = 0
    message: str = ""
    retries: Count = 0
    avoid_ms: Instant = 0
    outcome: Outcome = NO_OUTCOME
    lost_workers: Count = 0
    end: End | None = None


# A shard before its first attempt.
UNTRIED = Shard()
# A firing with at most this many shards is narrow: its shards are in a tuple, and its record contains them. The record
# has room for their longest messages and results. Firings of ordinary jobs are narrow, even with a listener.
MAX_NARROW = 12
# A wide firing has at most 10,002 shards, so a change copies two tuples of about 100 elements.
_CHUNK = 100


class WideShards(msgspec.Struct, frozen=True, gc=False):
    """The shards of a wide firing: an immutable sequence in chunks.

    A changed copy shares the unchanged chunks with the original, so the cost of a change hardly depends on the number
    of shards. Only the last chunk may be shorter than _CHUNK, so equal sequences have equal chunks.
    """

    chunks: tuple[tuple[Shard, ...], ...]
    width: int

    def __len__(self) -> int:
        return self.width

    def __iter__(self) -> Iterator[Shard]:
        return chain.from_iterable(self.chunks)

    @overload
    def __getitem__(self, item: int) -> Shard: ...

    @overload
    def __getitem__(self, item: slice) -> tuple[Shard, ...]: ...

    def __getitem__(self, item: int | slice) -> Shard | tuple[Shard, ...]:
        if isinstance(item, slice):
            return tuple(self)[item]
        place = item if item >= 0 else self.width + item
        if place < 0:
            raise IndexError(f"there is no shard {item} of {self.width}")
        return self.chunks[place // _CHUNK][place % _CHUNK]


Shards: TypeAlias = tuple[Shard, ...] | WideShards
"""The shards of a firing by item: a tuple if it is narrow."""


def shards_of(*shards: Shard) -> Shards:
    width = len(shards)
    if width <= MAX_NARROW:
        return shards
    return WideShards(tuple([shards[start : start + _CHUNK] for start in range(0, width, _CHUNK)]), width)


def untried(width: int) -> Shards:
    """Shards before their first attempts."""
    if width <= MAX_NARROW:
        return (UNTRIED,) * width
    chunk, rest = (UNTRIED,) * _CHUNK, width % _CHUNK
    return WideShards((chunk,) * (width // _CHUNK) + ((chunk[:rest],) if rest else ()), width)


def replaced(shards: Shards, changes: Mapping[int, Shard]) -> Shards:
    """The shards, with `changes` in place of the shards of these items.

    If an item is behind the last shard, its shard is added, and untried shards fill the gap.
    """
    try:
        if isinstance(shards, tuple):
            found = [*shards]
            for item, shard in changes.items():
                found[item] = shard
            return (*found,)
        chunks = [*shards.chunks]
        touched: dict[int, list[Shard]] = {}
        for item, shard in changes.items():
            number = item // _CHUNK
            if number not in touched:
                touched[number] = [*chunks[number]]
            touched[number][item % _CHUNK] = shard
    except IndexError:
        behind = max(changes) + 1 - len(shards)
        return replaced(shards_of(*shards, *[UNTRIED] * behind), changes)
    for number, chunk in touched.items():
        chunks[number] = (*chunk,)
    return WideShards((*chunks,), shards.width)


def tried(shards: Shards) -> dict[int, Shard]:
    """The shards that differ from an untried one, by item."""
    return {item: shard for item, shard in enumerate(shards) if shard is not UNTRIED and shard != UNTRIED}


class Step(StrEnum):
    """The calls of a run's listener."""

    BEFORE = "before"
    AFTER = "after"


class Terms(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The values that an operator set for one firing, in place of the job's own.

    `item_parameters`: (item, parameter), sorted by item; other items keep the job's own. `items`: the shards that run,
    sorted; without any, all of them run. A second trigger with the same `key` makes no second firing. `backfill`: the
    firing makes up for a past fire time, because an operator asked for it. To older versions, the firing is a catch-up
    like any other. `trace`: the `traceparent` of the caller, or "" (see scheduler/trace_context.py). `retried`: no
    deadline counts for the start, because an operator has put shards of the ended firing into the queue again, or
    because the firing is a node of a workflow. `joined`: its shards start only if a node that is joined per shard
    releases them.

    The scheduler itself sets `previous_ms` when the first shard starts: the fire time of the last success before, for
    placeholders, or 0 if there is none. None: no placeholder has asked for it. And it sets `range` when it makes the
    firing: the text of the range that the shards divide among themselves, or "" without one (see ranges/).
    """

    parameter: str | None = None
    item_parameters: tuple[tuple[Item, str], ...] = ()
    items: tuple[Item, ...] = ()
    priority: Priority | None = None
    key: str = ""
    backfill: bool = False
    trace: str = ""
    retried: bool = False
    previous_ms: Instant | None = None
    range: str = ""
    joined: bool = False

    def same(self, other: Terms) -> bool:
        """Whether both set the same values. A repeated request may come from another span of its caller."""
        own = {name: getattr(self, name) for name in ("trace", "retried", "previous_ms", "range")}
        return self == changed(other, **own)

    def parameter_of(self, item: int, default: str) -> str:
        """The parameter of a shard. `default` is the job's own parameter for this shard."""
        place = bisect_left(self.item_parameters, (item, ""))
        found = self.item_parameters[place : place + 1]
        return found[0][1] if found and found[0][0] == item else default


NO_TERMS = Terms()


class Firing(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One due instant of a job. It is in the queue until all its shards have ended. Users call it a run.

    A DAEMON job has one unfinished firing at a time. This firing ends if an update restarts the job, if the job is
    disabled or removed, or if the job has no further fire time. Items that the job no longer has remain in the firing
    as ended shards. The last two shards of a `stepped` firing are the calls of its listener: other shards start after
    the first call has finished, and the second call waits until all these shards have ended.
    """

    id: str
    job: str
    generation: Count
    cause: Cause
    fire_ms: Instant
    shards: Shards
    ended_ms: Instant = 0
    stepped: bool = False
    terms: Terms = NO_TERMS

    @property
    def wide(self) -> bool:
        """Whether each tried shard has a record of its own."""
        return type(self.shards) is WideShards

    @property
    def worst(self) -> ShardState:
        """The worst state of the chosen shards of an ended firing. It counts as the state of the run."""
        states = {shard.state for shard in self.chosen}
        return next((state for state in _WORST_FIRST if state in states), ShardState.FINISHED)

    @property
    def width(self) -> int:
        """The number of the job's own shards. `len(firing.work)` copies the shards of a wide firing."""
        return len(self.shards) - (2 if self.stepped else 0)

    @property
    def work(self) -> tuple[Shard, ...]:
        """The job's own shards."""
        return self.shards[: -2 if self.stepped else None]

    def step(self, item: int) -> Step | None:
        """The call of the listener that an item stands for; None for the job's own shards."""
        if not self.stepped:
            return None
        return {-2: Step.BEFORE, -1: Step.AFTER}.get(item - len(self.shards))

    def runs(self, item: int) -> bool:
        """Whether an item runs in this firing. A trigger may have left out some of the job's shards."""
        items = self.terms.items
        if not items or self.step(item) is not None:
            return True
        place = bisect_left(items, item)
        return place < len(items) and items[place] == item

    @property
    def chosen(self) -> Iterable[Shard]:
        """The shards that the trigger of the firing did not leave out, and the calls of its listener."""
        if not self.terms.items:
            return self.shards
        return [shard for item, shard in enumerate(self.shards) if self.runs(item)]


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An ended attempt of a shard that was put into the queue again afterwards.

    `number`: the value of the shard's `attempt` at that time. `started_ms` is 0 if the attempt was not seen to run.
    """

    number: Count
    task_id: str
    agent_id: str
    hostname: str
    executor_id: str
    execution: Execution
    end: End
    started_ms: Instant = 0
    ended_ms: Instant = 0
    message: str = ""
    outcome: Outcome = NO_OUTCOME


class Task(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One attempt of one shard, or the placeholder of a warm executor: from the launch intent to the stored end.

    A placeholder has no firing. Its `job` is the `placeholder_job` of its app, and `contexts` are the contexts that it
    builds. `kill_ms`: the instant at which the task was first asked to end. After its end, only a resident shard that
    its job still needs starts again. `overdue_ms`: the instant at which the task was asked to end because of its time
    limit. `revision`: the configuration of a resident shard (see revisions.py), or "" if it is unknown. `ports`: the
    ports of the host that belong to the task. `secrets_used`: its executor has been given the secrets. `attributes`:
    those of its agent by which shards of the job are counted, so that a new leader knows them before any offer.
    `slots`: those that it takes from pools. `exclusive`: no other shard may run on its agent.
    """

    id: str
    firing_id: str
    job: str
    item: Item
    attempt: Count
    execution: Execution
    agent_id: str
    hostname: str
    app: str
    executor_id: str
    resources: Resources
    created_ms: Instant
    state: TaskState = TaskState.STORED
    started_ms: Instant = 0
    kill_ms: Instant = 0
    message: str = ""
    unreachable_ms: Instant = 0
    revision: str = ""
    overdue_ms: Instant = 0
    contexts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    secrets_used: bool = False
    attributes: tuple[tuple[str, str], ...] = ()
    slots: tuple[tuple[str, Count], ...] = ()
    exclusive: bool = False

    @property
    def placeholder(self) -> bool:
        return not self.firing_id


def placeholder_job(app: str) -> str:
    """The name that stands for a job in the ids and records of an app's placeholders. No real job has this name."""
    return f"keeper={app}"


# A copy of a struct with some fields changed. Raises TypeError for an unknown field.
changed = msgspec.structs.replace


class Share(msgspec.Struct, frozen=True, gc=False):
    """One entry of the resources of an offer or a task.

    `origin` is the rest of Mesos' Resource message (role, reservations, allocation) as canonical JSON. It is sent back
    unchanged. `ranges` holds the first and the last port of each range.
    """

    name: str
    amount: Amount
    origin: str = "{}"
    reserved: bool = False
    ranges: tuple[tuple[int, int], ...] = ()


class Executor(msgspec.Struct, frozen=True, gc=False):
    """An executor as launched on an agent. Every task that joins it must contain exactly this description.

    `spec` is the rest of Mesos' ExecutorInfo (name, command with URIs, data) as canonical JSON.
    """

    id: str
    agent_id: str
    app: str
    shares: tuple[Share, ...]
    spec: str
    launched_ms: Instant = 0


@lru_cache(maxsize=4096)
def content_of(executor_id: str) -> str:
    """The part of an executor's id that names its content. The address of the artifact server has no effect on it."""
    return DELIMITER.join(executor_id.split(DELIMITER)[:2])


class Window(msgspec.Struct, frozen=True, gc=False):
    """The time during which an agent is away for maintenance. `end_ms` is 0 if no end is known."""

    start_ms: int
    end_ms: int = 0


class Offer(msgspec.Struct, frozen=True, gc=False):
    """Free resources of an agent. `address` is the address of the agent's HTTP API.

    This address is `host:port`, with a path if the API has one.

    `role` is the role of this framework to which the resources are allocated.
    """

    id: str
    agent_id: str
    hostname: str
    address: str
    shares: tuple[Share, ...]
    attributes: tuple[tuple[str, str], ...] = ()
    unavailable: Window | None = None
    role: str = "*"


class InverseOffer(msgspec.Struct, frozen=True, gc=False):
    """A question of Mesos: can the framework leave an agent during a window?"""

    id: str
    agent_id: str
    unavailable: Window


class Restoration(msgspec.Struct, frozen=True, gc=False):
    """The last `jobcloud restore`, of a backup taken at `taken_ms`.

    `settled`: a leader has corrected the restored state.
    """

    taken_ms: Instant
    restored_ms: Instant
    settled: bool = False


class Pause(msgspec.Struct, frozen=True, gc=False):
    """An operator's pause of a job, of an app or of everything, since an instant. `pause_key` makes its key."""

    since_ms: Instant


class CalendarSource(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The sources of the days of a calendar: a list, the holidays of a country, an iCalendar file, or several.

    `days` and `without` are entries such as `2026-12-24`. `ical_sha256` is the hash of the file. `until_year` is the
    last year that was asked for.
    """

    days: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    country: str = ""
    subdivision: str = ""
    categories: tuple[str, ...] = ()
    weekends: bool = False
    ical_sha256: str = ""
    until_year: Count = 0


class Calendar(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A set of days, which jobs of its team name.

    `days` are dates and ranges of dates, see triggers/days.py. `known_until` is the last date up to which the days are
    known. `libraries` names those that have found the days, with their versions.
    """

    key: str
    days: tuple[str, ...]
    known_until: str
    source: CalendarSource = CalendarSource()
    libraries: str = ""
    changed_ms: Instant = 0
    description: str = ""


class Backfill(msgspec.Struct, frozen=True, gc=False):
    """Past fire times of a job that wait for their runs, in this order. At most `at_once` runs are unfinished."""

    times: tuple[Instant, ...]
    at_once: Count = 1


class AppVersion(msgspec.Struct, frozen=True, gc=False):
    """A configuration of an app, the instant of its registration, and the subject that registered it.

    The instant is 0, and the subject "", if it is not known. The number of each further version of the app is higher.
    `version_key` makes the key.
    """

    number: Count
    at_ms: Instant
    app: App
    by: str = ""


def version_key(app: str, number: int) -> str:
    return f"{app}/{number}"


class Condition(StrEnum):
    """The problem that an alert reports. Its subject is a job, a workflow, an agent or the scheduler itself."""

    RUN_DEAD = "run_dead"
    RUN_FAILED = "run_failed"
    LATE = "late"
    MISSED = "missed"
    SKIPPED = "skipped"
    NO_SUCCESS = "no_success"
    ROLLOUT_STOPPED = "rollout_stopped"
    AGENT_LOST = "agent_lost"
    CLOCK = "clock"
    STORE = "store"
    EXPECTED = "expected"
    WORKFLOW_FAILED = "workflow_failed"
    WORKFLOW_LATE = "workflow_late"


#: the conditions of jobs; the subject of their alerts is a job
OF_JOBS = (
    Condition.RUN_DEAD, Condition.RUN_FAILED, Condition.LATE, Condition.MISSED, Condition.SKIPPED,
    Condition.NO_SUCCESS, Condition.ROLLOUT_STOPPED, Condition.EXPECTED,
)  # fmt: skip
#: the conditions of workflows; the subject of their alerts is a workflow
OF_WORKFLOWS = (Condition.WORKFLOW_FAILED, Condition.WORKFLOW_LATE)
#: the conditions whose alerts belong to the team of their subject
OF_TEAMS = (*OF_JOBS, *OF_WORKFLOWS)


class Alert(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A condition that holds, or that held and whose end is still to be told. `alert_key` makes its key.

    `subject`: the key of a job or of a workflow, the id of an agent, or "" for the scheduler, and for all subjects
    beyond the limit of alerts. `count`: how often the condition occurred. `text`: the last occurrence. `closed_ms` is 0
    while the condition holds. `channels` are informed about the alert; those in `untold` do not know its present state
    yet. `words`: those of `text`, if they are known.
    """

    condition: Condition
    subject: str
    opened_ms: Instant
    text: str
    last_ms: Instant = 0
    closed_ms: Instant = 0
    count: Count = 1
    run: str = ""
    owner: str = ""
    channels: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    words: Words | None = None


class AlertMessage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A message to one channel, about several alerts. It stays until the channel has taken it.

    `more`: the number of further alerts that have no room in it. `attempts`: the number of failed attempts to send it,
    the last one because of `problem`. The next attempt is not before `not_before_ms`.
    """

    channel: str
    made_ms: Instant
    alerts: tuple[Alert, ...]
    more: Count = 0
    attempts: Count = 0
    not_before_ms: Instant = 0
    problem: str = ""


class Silence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An operator's wish to hear nothing of some alerts until an instant. An empty field matches all alerts.

    `subject` and `owner` are globs.
    """

    since_ms: Instant
    until_ms: Instant
    condition: Condition | None = None
    subject: str = ""
    team: str = ""
    owner: str = ""
    comment: str = ""


class Pool(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A limit across jobs: `slots` is the number of slots that running shards may take at once."""

    slots: Count
    description: str = ""


class On(StrEnum):
    """The end of a node that lets another node start. EITHER: any end, also if the node was skipped or cancelled."""

    SUCCESS = "success"
    FAILURE = "failure"
    EITHER = "either"


class Join(StrEnum):
    """Whether all or any of the conditions of a node must hold. SHARDS: shard by shard, all of them must hold."""

    ALL = "all"
    ANY = "any"
    SHARDS = "shards"


class WaitFor(StrEnum):
    """The answer from outside that a node without a job waits for.

    APPROVAL: a person decides. CALLBACK: a program answers for this node. EVENT: an event is sent to all nodes that
    wait for it.
    """

    APPROVAL = "approval"
    CALLBACK = "callback"
    EVENT = "event"


class After(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A condition of a node: another node of the same workflow has ended in this way.

    `result`: it must also have this result; "" if any result will do.
    """

    node: str
    on: On = On.SUCCESS
    result: str = ""


class Node(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A node of a workflow, and the conditions of its start. The name is unique in the workflow.

    It has either a job, by key, or an answer to wait for: `job` is "", or `wait` is None. `event`: the name of the
    event that it waits for. `deadline_ms`: it should end within this time after the begin of the run; 0: at any time.
    """

    name: str
    job: str = ""
    after: tuple[After, ...] = ()
    join: Join = Join.ALL
    wait: WaitFor | None = None
    event: str = ""
    deadline_ms: Count = 0


class Workflow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A graph of jobs of one team. Each whole run of the job of the node `start` begins a run of the workflow.

    `skipped`: the number of runs of this job that began none, because too many runs of the workflow had not ended.
    `deadline_ms`: a run should end within this time after its begin; 0: at any time.
    """

    key: str
    nodes: tuple[Node, ...]
    start: str
    description: str = ""
    changed_ms: Instant = 0
    skipped: Count = 0
    deadline_ms: Count = 0


class NodeState(StrEnum):
    """WAITING: the conditions of the node are not decided. READY: they hold, but its job can have no further run now.

    SKIPPED: the conditions can no longer hold. CANCELLED: its run was killed or cancelled, or the run of the workflow
    was cancelled first.
    """

    WAITING = "WAITING"
    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class Answer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The answer from outside to a node that waits for one. `by`: who has given it."""

    succeeded: bool
    result: str = ""
    note: str = ""
    by: str = ""
    at_ms: Instant = 0


class NodeRun(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A node that has started or ended in a run of its workflow, or whose answer has come early. Others have no record.

    `run`: the firing of the node's job, or "" if there was none. `reason`: why the node was skipped, or failed without
    a firing. `result`: the result of the ended node, if all its shards have the same short one, and a condition asks
    for it. `skipped`: the number of its shards whose conditions can no longer hold.
    """

    state: NodeState
    run: str = ""
    started_ms: Instant = 0
    ended_ms: Instant = 0
    reason: Words | None = None
    result: str = ""
    skipped: Count = 0
    answer: Answer | None = None


class WorkflowRun(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A run of a workflow, with the graph that the workflow had at its begin.

    `fire_ms`: the fire time of the run that began it, and of all its runs. `cancelled`: no further node starts.
    `state`: RUNNING, SUCCEEDED, FAILED or CANCELLED. `paused`: no further node starts until it is resumed.
    `deadline_ms`: that of the workflow at its begin. `retried_ms`: the last retry; deadlines count from it.
    """

    id: str
    workflow: str
    nodes: tuple[Node, ...]
    start: str
    fire_ms: Instant
    began_ms: Instant
    ended_ms: Instant = 0
    cancelled: bool = False
    state: NodeState = NodeState.RUNNING
    paused: bool = False
    deadline_ms: Count = 0
    retried_ms: Instant = 0


def node_key(run: str, node: str) -> str:
    """The key of the record of a node in a run of its workflow."""
    return f"{run}/{node}"


#: slots by the key of their pool, sorted
Slots: TypeAlias = tuple[tuple[str, int], ...]
#: a role in a team, or in EVERY_TEAM: (team, role)
Grant: TypeAlias = tuple[str, str]


class Member(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The role of a person, a group or a service in a team.

    `subject` is `user:NAME`, `group:NAME` or `service:TEAM/NAME`.
    """

    subject: str
    role: str


class Quota(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The limits of a team. None: no limit. Amounts are in thousandths of the unit of their resource.

    `jobs` limits the registered jobs, `shards` the attempts at the same time, `queue` the shards that wait.
    """

    cpus: Amount | None = None
    mem: Amount | None = None
    gpus: Amount | None = None
    jobs: Count | None = None
    shards: Count | None = None
    queue: Count | None = None


class Team(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Members, limits and weight of a team. The team EVERY_TEAM stands for the whole installation.

    A member of EVERY_TEAM has the role in each team and for the cluster. `weight`: the team's share of the cluster in
    relation to other teams that wait.
    """

    name: str
    members: tuple[Member, ...] = ()
    quota: Quota = Quota()
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1


class Role(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A role of the installation's own, in addition to the built-in roles. `verbs` are those of `access.verbs.Verb`."""

    name: str
    verbs: tuple[str, ...]


class User(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A local user. `password` is an argon2 hash in its encoded form; "": the user cannot sign in by a password."""

    name: str
    created_ms: Instant
    password: str = ""
    disabled: bool = False


class AccessToken(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A token for the API. Only its hash is stored.

    It has the rights of its `subject`, restricted to those of `scope` if there are any: pairs of a team (or EVERY_TEAM)
    and a role. `expires_ms` 0: never. `parent` is the id of the token that its maker used, or "".
    """

    id: str
    name: str
    hash: str
    subject: str
    created_ms: Instant
    expires_ms: Instant = 0
    scope: tuple[Grant, ...] = ()
    created_by: str = ""
    revoked_ms: Instant = 0
    parent: str = ""


class Session(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A browser in which somebody is signed in. Only the hash of its cookie is stored.

    `groups` are those that the identity provider named at the sign-in. `by`: how the person signed in.
    """

    id: str
    hash: str
    subject: str
    by: str
    created_ms: Instant
    seen_ms: Instant
    expires_ms: Instant
    groups: tuple[str, ...] = ()


#: stands for the whole installation in place of a team; no team has this name
EVERY_TEAM = "*"
#: the subject of the holder of the token in the settings
SERVER_SUBJECT = "token:server"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proved an identity: a person, a service or the holder of the server's own token.

    `subject` is `user:NAME`, `service:TEAM/NAME`, or a name of the server's own, such as `token:server`. `via` tells
    how the identity was proved, for the audit: `token ID`, `session ID`, `certificate`, … `grants` are rights in
    addition to those in the directory. If `scope` is not None, no other rights count.
    """

    subject: str
    via: str = ""
    groups: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    scope: tuple[Grant, ...] | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects whose memberships count: the principal and its groups."""
        return (self.subject, *(f"group:{group}" for group in self.groups))

    @property
    def token_id(self) -> str:
        """The id of the token that proved the identity, or ""."""
        return self.via.removeprefix("token ") if self.via.startswith("token ") else ""


def alert_key(condition: Condition, subject: str) -> str:
    return f"{condition.value}/{subject}"


def pause_key(*, job: str = "", app: str = "") -> str:
    """The key of the pause of a job, of an app, or of everything."""
    return f"job/{job}" if job else f"app/{app}" if app else "all"


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator's request to drain an agent by the deadline."""

    agent_id: str
    since_ms: Instant
    deadline_ms: Instant
    reason: str = ""


class TaskName(NamedTuple):
    """The parts of a task id, as in Elastic-Job-Cloud: job key, item, execution type, agent, and a unique part."""

    job: str
    item: int
    execution: Execution
    agent_id: str
    unique: str

    def __str__(self) -> str:
        return DELIMITER.join((self.job, str(self.item), self.execution, self.agent_id, self.unique))

    @classmethod
    def parse(cls, task_id: str) -> TaskName:
        """Raises ValueError if `task_id` is not an id of this framework."""
        job, item, execution, agent_id, unique = task_id.split(DELIMITER)
        return cls(job, int(item), Execution(execution), agent_id, unique)
