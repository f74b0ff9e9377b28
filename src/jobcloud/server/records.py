"""Stored records as JSON: `{"v": 1, "r": …}`, with the record's fields under "r".

Within a version, fields with a default may be added: an older program ignores unknown fields, a newer one fills in
missing fields. Firings, shards, attempts and tasks are written often, so their fields with default values are left out.
Any other change, also of a default, needs a new VERSION. A record that cannot be read is reported as a fault and left
unchanged; it does not affect other records.

The record of a narrow firing contains its shards. The record of a wide firing has format 2 and contains the number of
its shards. Each tried shard has a record of its own. So the size of a write does not grow with the firing.

The record of a job has format 2, too, if it has secrets, constraints, variables, files, placeholders, pools, calendars,
the trigger `@after`, a range or gang start, and so has that of an app with constraints, variables or files, and of its
versions. Their fields are those of format 1. An older build cannot read them, so it does not run the job without its
secrets, variables, files or parts of the range, with the text of a placeholder, on an agent that it must not use,
beyond a pool, without some of its shards, or at a time at which it must not fire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Annotated, Any, TypeVar

import msgspec

from jobcloud.config import LONGEST_AD_HOC, MAX_SHARDS, App, Job
from jobcloud.errors import ConfigError, Refused
from jobcloud.fields import names, values_of
from jobcloud.messages import Apply, Command, DrainAgent, Kind, PutApp, PutJob, Record, RunAdHoc
from jobcloud.model import (
    NO_TERMS,
    AccessToken,
    Alert,
    AlertMessage,
    AppVersion,
    Attempt,
    Backfill,
    Calendar,
    Cause,
    Count,
    Drain,
    Executor,
    Firing,
    Instant,
    JobState,
    NodeRun,
    NodeState,
    Pause,
    Pool,
    Restoration,
    Role,
    Session,
    Shard,
    Silence,
    Task,
    Team,
    Terms,
    User,
    Workflow,
    WorkflowRun,
    alert_key,
    shards_of,
    untried,
    version_key,
)
from jobcloud.ports import MAX_RECORD_BYTES, StoredFault, StoredRecords
from jobcloud.scheduler import Stored
from jobcloud.scheduler.attempts import place_of
from jobcloud.scheduler.recovery import DAMAGED_NODE, belongs, shard_key, shard_place
from jobcloud.scheduler.workflow_graph import ENDED
from jobcloud.scheduler.workflow_graph import check as check_graph
from jobcloud.triggers import parse_days

VERSION = 1
WIDE_VERSION = 2
LIMITED_VERSION = 2
_OF_CONFIGURATIONS = (Kind.APP, Kind.JOB, Kind.AD_HOC, Kind.APP_VERSION)
FRAMEWORK_KEY = "id"
RESTORATION_KEY = "last"
_TYPES: dict[Kind, type] = {
    Kind.APP: App,
    Kind.JOB: Job,
    Kind.JOB_STATE: JobState,
    Kind.AD_HOC: Job,
    Kind.DISABLED_APP: bool,
    Kind.FIRING: Firing,
    Kind.SHARD: Shard,
    Kind.TASK: Task,
    Kind.EXECUTOR: Executor,
    Kind.FRAMEWORK: str,
    Kind.DRAIN: Drain,
    Kind.BACKFILL: Backfill,
    Kind.PAUSE: Pause,
    Kind.APP_VERSION: AppVersion,
    Kind.RESTORATION: Restoration,
    Kind.ATTEMPT: Attempt,
    Kind.ALERT: Alert,
    Kind.ALERT_MESSAGE: AlertMessage,
    Kind.SILENCE: Silence,
    Kind.POOL: Pool,
    Kind.TEAM: Team,
    Kind.ROLE: Role,
    Kind.USER: User,
    Kind.ACCESS_TOKEN: AccessToken,
    Kind.SESSION: Session,
    Kind.CALENDAR: Calendar,
    Kind.WORKFLOW: Workflow,
    Kind.WORKFLOW_RUN: WorkflowRun,
    Kind.NODE: NodeRun,
}
assert set(_TYPES) == set(Kind), "every kind of record needs a type"


class _Envelope(msgspec.Struct):
    v: int
    r: msgspec.Raw


class _Narrow(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Format 1 of a firing. Older programs used it for wide firings, too."""

    id: str
    job: str
    generation: Count
    cause: Cause
    fire_ms: Instant
    shards: Annotated[tuple[Shard, ...], msgspec.Meta(min_length=1, max_length=MAX_SHARDS + 2)]
    ended_ms: Instant = 0
    stepped: bool = False
    terms: Terms = NO_TERMS


class _Wide(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Format 2 of a firing."""

    id: str
    job: str
    generation: Count
    cause: Cause
    fire_ms: Instant
    width: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS + 2)]
    ended_ms: Instant = 0
    stepped: bool = False
    terms: Terms = NO_TERMS


@dataclass(slots=True)
class Restored(Stored):
    """The state from which a leader starts. `faults` names the records that cannot be read."""

    faults: list[StoredFault] = field(default_factory=list)


class Unreadable(Exception):
    """A stored value is damaged or of a newer version."""


# A global name, because an access to an enum member costs a function call in CPython 3.11.
_FIRING = Kind.FIRING
_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_decoders: dict[Kind, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(type_) for kind, type_ in _TYPES.items() if kind is not Kind.FIRING
}
_narrow, _wide = msgspec.json.Decoder(_Narrow), msgspec.json.Decoder(_Wide)
_START, _WIDE_START, _LIMITED_START = (b'{"v":%d,"r":' % number for number in (VERSION, WIDE_VERSION, LIMITED_VERSION))


def encode(kind: Kind, record: Record) -> bytes:
    """The stored form of a record. Raises TypeError if `record` is not of the type of `kind`."""
    if not isinstance(record, _TYPES[kind]):
        raise TypeError(f"a record of kind {kind} cannot be a {type(record).__name__}")
    if kind is _FIRING and isinstance(record, Firing) and record.wide:
        return _WIDE_START + _encoder.encode(_wide_of(record)) + b"}"
    configuration = record.app if isinstance(record, AppVersion) else record
    if isinstance(configuration, App | Job) and _is_limited(configuration):
        return _LIMITED_START + _encoder.encode(record) + b"}"
    return _START + _encoder.encode(record) + b"}"


def _is_limited(record: App | Job) -> bool:
    """Whether an older version must not use the record, because it would ignore a field that must not be ignored."""
    if record.constraints or record.environment or record.files:
        return True
    return isinstance(record, Job) and bool(
        record.secrets
        or record.placeholders
        or record.pools
        or record.calendars
        or record.delay_ms
        or record.item_range
        or record.gang_start
    )


def _wide_of(firing: Firing) -> _Wide:
    about = firing.id, firing.job, firing.generation, firing.cause, firing.fire_ms
    return _Wide(*about, len(firing.shards), firing.ended_ms, firing.stepped, firing.terms)


def check_size(command: Command) -> None:
    """Raises ConfigError if the record of a command is larger than the size that every store accepts."""
    match command:
        case Apply(apps=apps, jobs=jobs, author=by):
            for app in apps:
                _check_app(app, by)
            for job in jobs:
                _check_record(Kind.JOB, job, job)
        case PutApp(app=app, author=by):
            _check_app(app, by)
        case PutJob(job=job):
            _check_record(Kind.JOB, job, job)
        case RunAdHoc(job=job):
            _check_record(Kind.AD_HOC, replace(job, ad_hoc=LONGEST_AD_HOC), job)
        case DrainAgent(at, agent, deadline_ms, reason):
            drain = Drain(agent, at, deadline_ms, reason)
            _check_record(Kind.DRAIN, drain, drain)


def _check_app(app: App, by: str) -> None:
    """The record of a version contains the app, so it is larger than that of the app."""
    _check_record(Kind.APP_VERSION, AppVersion(2**62, 2**53, app, by), app)


def _check_record(kind: Kind, record: Record, given: App | Job | Drain) -> None:
    size = len(encode(kind, record))
    if size <= MAX_RECORD_BYTES:
        return
    field, taken = _largest_field(given)
    raise ConfigError(
        f"takes {taken} of the {size} bytes of the stored record; a record may have at most {MAX_RECORD_BYTES}",
        field=field,
        fix="shorten it: control characters take 6 bytes each, others up to 4",
    )


def _largest_field(record: App | Job | Drain) -> tuple[str, int]:
    """The JSON name of the field that takes most bytes, and the number of these bytes."""
    if isinstance(record, Drain):
        return "reason", len(_encoder.encode(record.reason))
    kind: type = type(record)
    sizes = zip(names(kind), map(len, map(_encoder.encode, values_of(kind)(record))), strict=True)
    return max(sizes, key=itemgetter(1))


def decode(kind: Kind, key: str, value: bytes) -> Record:
    """The inverse of `encode`. Raises Unreadable, also if the record belongs to another key."""
    try:
        envelope = _envelope.decode(value)
        record: Record
        if kind is Kind.FIRING and envelope.v in (VERSION, WIDE_VERSION):
            record = _decode_firing(envelope)
        elif kind in _OF_CONFIGURATIONS and envelope.v not in (VERSION, LIMITED_VERSION):
            known = f"{VERSION} and {LIMITED_VERSION}"
            raise Unreadable(f"was written in format {envelope.v}; this version reads formats {known}")
        elif kind not in _OF_CONFIGURATIONS and envelope.v != VERSION:
            raise Unreadable(f"was written in format {envelope.v}; this version reads format {VERSION}")
        else:
            record = _decoders[kind].decode(envelope.r)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, Refused) as error:
        raise Unreadable(f"is damaged: {error}") from error
    if (own := _own_key(record)) not in (None, key):
        raise Unreadable(f"is damaged: it holds the record of {own!r}")
    if isinstance(record, Calendar):
        _check_days(record)
    if isinstance(record, Workflow | WorkflowRun | NodeRun):
        _check_workflow(record)
    if isinstance(record, Job) and bool(record.ad_hoc) != (kind is Kind.AD_HOC):
        raise Unreadable("is damaged: its key does not fit its kind")
    if isinstance(record, Firing) and record.stepped and (len(record.shards) < 3 or record.cause is Cause.DAEMON):
        raise Unreadable("is damaged: its shards do not fit any firing")
    if isinstance(record, Firing) and not belongs(record.id, record.job):
        raise Unreadable(f"is damaged: its id does not fit its job {record.job!r}")
    return record


def _check_workflow(record: Workflow | WorkflowRun | NodeRun) -> None:
    if isinstance(record, NodeRun):
        if record.state is NodeState.READY or bool(record.ended_ms) != (record.state in ENDED):
            raise Unreadable(f"is damaged: {record.state} does not fit the time of its end")
        if record.state is NodeState.WAITING and record.answer is None:
            raise Unreadable("is damaged: it waits, and has no answer")
        return
    try:
        found = check_graph(record.nodes, record.start)
    except ConfigError as error:
        raise Unreadable(f"is damaged: {error}") from error
    if found != record.start:
        raise Unreadable("is damaged: it has no start")
    if isinstance(record, WorkflowRun) and (record.state is NodeState.RUNNING) == bool(record.ended_ms):
        raise Unreadable(f"is damaged: {record.state} does not fit the time of its end")


def _check_days(calendar: Calendar) -> None:
    try:
        parse_days(calendar.days)
        parse_days((calendar.known_until,))
    except ValueError as error:
        raise Unreadable(f"is damaged: {error}") from error


def _decode_firing(envelope: _Envelope) -> Firing:
    """A firing as its own record describes it. In a wide firing, every shard counts as not tried."""
    found: _Narrow | _Wide
    if envelope.v == WIDE_VERSION:
        found = wide = _wide.decode(envelope.r)
        shards = untried(wide.width)
    else:
        found = narrow = _narrow.decode(envelope.r)
        shards = shards_of(*narrow.shards)
    about = found.id, found.job, found.generation, found.cause, found.fire_ms
    return Firing(*about, shards, found.ended_ms, found.stepped, found.terms)


def restore(stored: StoredRecords) -> Restored:
    """Decode everything. Never raises, whatever the store holds."""
    faults = list(stored.faults)
    readable = {kind: dict(_readable(kind, entries.items(), faults)) for kind, entries in stored.records.items()}
    return Restored(
        apps=_only(App, readable[Kind.APP]),
        jobs=_only(Job, readable[Kind.JOB]),
        job_states=_only(JobState, readable[Kind.JOB_STATE]),
        disabled_apps={name for name, disabled in readable[Kind.DISABLED_APP].items() if disabled},
        firings=_only(Firing, readable[Kind.FIRING]),
        tasks=_only(Task, readable[Kind.TASK]),
        executors=_only(Executor, readable[Kind.EXECUTOR]),
        framework_id=_only(str, readable[Kind.FRAMEWORK]).get(FRAMEWORK_KEY, ""),
        drains=_only(Drain, readable[Kind.DRAIN]),
        backfills=_only(Backfill, readable[Kind.BACKFILL]),
        pauses=_only(Pause, readable[Kind.PAUSE]),
        app_versions=_only(AppVersion, readable[Kind.APP_VERSION]),
        shards=dict(_shards(stored, readable, faults)),
        restoration=_only(Restoration, readable[Kind.RESTORATION]).get(RESTORATION_KEY),
        attempts=dict(_attempts(stored, readable, faults)),
        ad_hoc=_only(Job, readable[Kind.AD_HOC]),
        alerts=_only(Alert, readable[Kind.ALERT]),
        alert_messages=_only(AlertMessage, readable[Kind.ALERT_MESSAGE]),
        silences=_only(Silence, readable[Kind.SILENCE]),
        pools=_only(Pool, readable[Kind.POOL]),
        teams=_only(Team, readable[Kind.TEAM]),
        roles=_only(Role, readable[Kind.ROLE]),
        users=_only(User, readable[Kind.USER]),
        access_tokens=_only(AccessToken, readable[Kind.ACCESS_TOKEN]),
        sessions=_only(Session, readable[Kind.SESSION]),
        calendars=_only(Calendar, readable[Kind.CALENDAR]),
        workflows=_only(Workflow, readable[Kind.WORKFLOW]),
        workflow_runs=_only(WorkflowRun, readable[Kind.WORKFLOW_RUN]),
        nodes=dict.fromkeys(stored.records[Kind.NODE], DAMAGED_NODE) | _only(NodeRun, readable[Kind.NODE]),
        faults=faults,
    )


def _shards(
    stored: StoredRecords, readable: Mapping[Kind, Mapping[str, Record]], faults: list[StoredFault]
) -> Iterable[tuple[str, Shard | None]]:
    """The records of shards by key; None for a damaged or lost one.

    The shards of a damaged firing are left out. They stay in the store, like the firing.
    """
    left = stored.records[Kind.FIRING].keys() - readable[Kind.FIRING].keys()
    for key in stored.records[Kind.SHARD]:
        try:
            firing_id, _ = shard_place(key)
        except ValueError:
            faults.append(StoredFault(f"{Kind.SHARD}/{key}", "is damaged: its key is not that of a shard"))
            continue
        if firing_id not in left:
            shard = readable[Kind.SHARD].get(key)
            yield key, shard if isinstance(shard, Shard) else None
    if stored.lost is not None:
        firings = (record for record in readable[Kind.FIRING].values() if isinstance(record, Firing))
        wide = (firing for firing in firings if firing.wide)
        keys = (shard_key(firing.id, item) for firing in wide for item in range(len(firing.shards)))
        yield from (
            (key, None) for key in keys if key not in stored.records[Kind.SHARD] and stored.lost(Kind.SHARD, key)
        )


def _attempts(
    stored: StoredRecords, readable: Mapping[Kind, Mapping[str, Record]], faults: list[StoredFault]
) -> Iterable[tuple[str, Attempt]]:
    """The records of earlier attempts by key. The attempts of a damaged firing are left out, like its shards."""
    left = stored.records[Kind.FIRING].keys() - readable[Kind.FIRING].keys()
    for key, attempt in _only(Attempt, dict(readable[Kind.ATTEMPT])).items():
        try:
            firing_id, _, number = place_of(key)
            if number != attempt.number:
                raise ValueError(f"it is attempt {attempt.number}")
        except ValueError as error:
            faults.append(StoredFault(f"{Kind.ATTEMPT}/{key}", f"is damaged: {error}"))
        else:
            if firing_id not in left:
                yield key, attempt


def _readable(
    kind: Kind, entries: Iterable[tuple[str, bytes]], faults: list[StoredFault]
) -> Iterable[tuple[str, Record]]:
    for key, value in entries:
        try:
            yield key, decode(kind, key, value)
        except Unreadable as error:
            faults.append(StoredFault(f"{kind}/{key}", str(error)))


def _own_key(record: Record) -> str | None:
    """The key implied by the record's fields; None if there is none."""
    match record:
        case App() | Job() | Calendar() | Workflow():
            return record.key
        case Firing() | Task() | AccessToken() | Session() | WorkflowRun():
            return record.id
        case Team() | Role() | User():
            return record.name
        case Drain():
            return record.agent_id
        case AppVersion():
            return version_key(record.app.key, record.number)
        case Alert():
            return alert_key(record.condition, record.subject)
        case Executor():
            return f"{record.agent_id}/{record.id}"
        case _:
            return None


_T = TypeVar("_T")


def _only(type_: type[_T], entries: dict[str, Record]) -> dict[str, _T]:
    return {key: record for key, record in entries.items() if isinstance(record, type_)}
