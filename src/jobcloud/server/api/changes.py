"""The changes by a command, for the audit log: the configuration before and after it.

`look` runs on the scheduler's thread, immediately before the core handles the command. It takes references to immutable
records. The API's thread turns them into JSON later. Secrets, and the hashes of secrets, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import structs

from jobcloud.audit.entries import Change
from jobcloud.config import App, Job
from jobcloud.messages import (
    AccessRecord,
    Apply,
    Command,
    DrainAgent,
    EndSessions,
    Kind,
    PutAccess,
    PutApp,
    PutCalendar,
    PutJob,
    PutPool,
    PutSilence,
    PutWorkflow,
    RemoveAccess,
    RemoveApp,
    RemoveCalendar,
    RemoveJob,
    RemovePool,
    RemoveSilence,
    RemoveWorkflow,
    RunAdHoc,
    SetAppEnabled,
    SetJobEnabled,
    SetPaused,
    UndrainAgent,
)
from jobcloud.model import AccessToken, Calendar, Drain, Pool, Session, Silence, Workflow, pause_key
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.accounts import KINDS_OF_ACCESS, key_of
from jobcloud.server.api.convert import app_config, job_config

Record: TypeAlias = App | Job | AccessRecord | Silence | Calendar | Pool | Workflow | Drain | Mapping[str, Any]
#: changes of one command that the audit log tells one by one
MAX_CHANGES: Final = 1_000
_SECRETS: Final = frozenset({"hash", "password"})
#: the fields of commands that name what they concern
_NAMES: Final = ("job", "app", "calendar", "task_id", "firing_id", "agent", "workflow", "run", "id", "key", "subject")


class Seen(NamedTuple):
    """A change of one record. None: there is no such record."""

    command: str
    key: str
    before: Record | None = None
    after: Record | None = None


def look(command: Command, core: Scheduler | None) -> list[Seen]:
    """The changes that a command will make, if it is carried out. Without a core, `before` is unknown: None."""
    name = type(command).__name__
    if core is None:
        return [Seen(name, _name_of(command))]
    return [Seen(name, *each) for each in islice(_changes(command, core), MAX_CHANGES)]


def change_of(seen: Seen, *, uncertain: bool = False) -> Change:
    """The form for the audit log. An update has the fields that differ."""
    before, after = _json(seen.before), _json(seen.after)
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before = {name: before[name] for name in names if name in before}
        after = {name: after[name] for name in names if name in after}
    return Change(seen.command, seen.key, before, after, uncertain)


def _changes(command: Command, core: Scheduler) -> Iterator[tuple[str, Record | None, Record | None]]:
    match command:
        case PutApp(app=app):
            yield app.key, core.apps.get(app.key), app
        case PutJob(job=job):
            yield job.key, core.jobs.get(job.key), job
        case RunAdHoc(job=job):
            yield job.key, None, job
        case RemoveJob(job=key):
            yield key, core.jobs.get(key), None
        case RemoveApp(app=key, jobs=with_jobs):
            yield key, core.apps.get(key), None
            if with_jobs:
                yield from ((job.key, job, None) for job in core.jobs.values() if job.app_key == key)
        case Apply(apps=apps, jobs=jobs, prune=prune, pools=pools, calendars=calendars, workflows=workflows):
            yield from ((key, core.pools.get(key), pool) for key, pool in pools if core.pools.get(key) != pool)
            for one, _ in calendars:
                known = core.calendars.get(one.key)
                if known is None or structs.replace(known, changed_ms=one.changed_ms) != one:
                    yield one.key, known, one
            yield from ((app.key, core.apps.get(app.key), app) for app in apps if core.apps.get(app.key) != app)
            yield from ((job.key, core.jobs.get(job.key), job) for job in jobs if core.jobs.get(job.key) != job)
            rows = (_workflow(core, workflow) for workflow in workflows)
            yield from (row for row in rows if row[1] != row[2])
            if prune:
                yield from ((job.key, job, None) for job in command.left_out(core.jobs.values()))
        case SetAppEnabled(app=key, enabled=enabled):
            yield key, {"enabled": key not in core.disabled_apps}, {"enabled": enabled}
        case SetJobEnabled(job=key, enabled=enabled):
            yield key, {"enabled": core.enabled(key)} if key in core.jobs else None, {"enabled": enabled}
        case SetPaused(job=job_key, app=app_key, paused=paused):
            where = pause_key(job=job_key, app=app_key)
            yield job_key or app_key, {"paused": where in core.pauses}, {"paused": paused}
        case PutCalendar(calendar=calendar):
            yield calendar.key, core.calendars.get(calendar.key), calendar
        case RemoveCalendar(calendar=key):
            yield key, core.calendars.get(key), None
        case PutSilence(id=key, silence=silence):
            yield key, core.silences.get(key), silence
        case RemoveSilence(id=key):
            yield key, core.silences.get(key), None
        case PutPool(key=key, pool=pool):
            yield key, core.pools.get(key), pool
        case RemovePool(key=key):
            yield key, core.pools.get(key), None
        case PutWorkflow(workflow=workflow):
            yield _workflow(core, workflow)
        case RemoveWorkflow(workflow=key):
            yield key, core.workflows.get(key), None
        case DrainAgent(agent=agent, deadline_ms=deadline, reason=reason):
            drained: Mapping[str, Any] = {"agent_id": agent, "deadline_ms": deadline, "reason": reason}
            yield agent, core.drains.get(agent), drained
        case UndrainAgent(agent=agent):
            yield agent, core.drains.get(agent), None
        case PutAccess(record=record):
            kind, key = KINDS_OF_ACCESS[type(record)], key_of(record)
            yield f"{kind} {key}", _access(core, kind).get(key), record
        case RemoveAccess(kind=kind, key=key):
            yield f"{kind} {key}", _access(core, kind).get(key), None
        case EndSessions(subject=subject):
            yield subject, None, None
        case _:
            yield _name_of(command), None, None


def _workflow(core: Scheduler, workflow: Workflow) -> tuple[str, Workflow | None, Workflow]:
    """The change of a workflow. What the scheduler itself sets does not differ."""
    known = core.workflows.get(workflow.key)
    if known is not None:
        workflow = structs.replace(workflow, changed_ms=known.changed_ms, skipped=known.skipped)
    return workflow.key, known, workflow


def _access(core: Scheduler, kind: Kind) -> Mapping[str, AccessRecord]:
    directory = core.directory
    tables: dict[Kind, Mapping[str, AccessRecord]] = {
        Kind.TEAM: directory.teams, Kind.ROLE: directory.roles, Kind.USER: directory.users,
        Kind.ACCESS_TOKEN: directory.tokens, Kind.SESSION: directory.sessions,
    }  # fmt: skip
    return tables[kind]


def _name_of(command: Command) -> str:
    """The name of what a command concerns, or ""."""
    return next((value for name in _NAMES if isinstance(value := getattr(command, name, None), str) and value), "")


def _json(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    if isinstance(record, App):
        return app_config(record).model_dump(mode="json", by_alias=True)
    if isinstance(record, Job):
        return job_config(record).model_dump(mode="json", by_alias=True)
    found: dict[str, Any] = msgspec.to_builtins(record)
    if isinstance(record, Calendar):  # its source tells the days in fewer words
        return found | {"days": len(record.days)}
    if isinstance(record, AccessToken | Session) or "password" in found:
        found = {name: value for name, value in found.items() if name not in _SECRETS} | {
            f"has_{name}": bool(found[name]) for name in found if name in _SECRETS
        }
    return found
