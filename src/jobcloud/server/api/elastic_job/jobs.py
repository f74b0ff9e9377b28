"""Jobs in Elastic-Job-Cloud's API."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from jobcloud.config import DEFAULT_TEAM, Job, JobType, is_ad_hoc
from jobcloud.elastic_job.conversion import (
    HTTP_PROPS,
    JOB_FIELDS,
    KEEP_ZONE,
    Json,
    is_job_of_3,
    java_code,
    short,
    translate_job,
    translate_job_of_3,
    with_numbers,
)
from jobcloud.elastic_job.forms import job_form, job_form_of_3
from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import Command, PutJob, RemoveJob, SetJobEnabled, Trigger
from jobcloud.scheduler import revisions
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import job_config, read_job
from jobcloud.server.api.elastic_job.access import speaks_version_3
from jobcloud.server.api.elastic_job.answers import done, is_own, missing, own, shown
from jobcloud.server.api.elastic_job.bodies import Given, Name
from jobcloud.server.api.jobs import check_code, code_notes
from jobcloud.server.api.rules import unused_fields
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.routes import Routes

router = Routes()

# The fields that a change through this API replaces: all fields of Elastic-Job-Cloud except the handlers. A job keeps
# those that are not given, because a client that gives the defaults may not know about them.
_REPLACED = JOB_FIELDS - {"jobProperties"}


@router.post("/job/register")
def register_job(request: Request, services: ServicesDep, given: Given) -> Response:
    notes: list[str] = []
    job = _read(services, given, None, notes)
    services.command(lambda at: PutJob(at, job))
    return done(request, notes + code_notes(services, job, services.snapshot().apps.get(job.app_key)))


@router.put("/job/update")
def update_job(request: Request, services: ServicesDep, given: Given) -> Response:
    """Replace the fields of Elastic-Job-Cloud. The other fields of the job keep their values."""
    notes: list[str] = []
    name = given.get("jobName")
    known = _job(services, own(name, "job")) if isinstance(name, str) else None
    if isinstance(name, str) and known is None:
        raise NotFound(f"there is no job {name[:200]}", field="jobName", fix="register it first")
    job = _read(services, given, known, notes)
    expected = (revisions.of_record(known),) if known is not None else None
    services.command(lambda at: PutJob(at, job, replace=True, expected=expected))
    return done(request, notes + code_notes(services, job, services.snapshot().apps.get(job.app_key)))


@router.delete("/job/deregister")
def remove_job(request: Request, services: ServicesDep, name: Name) -> Response:
    return done(request, _command(services, name, lambda at: RemoveJob(at, name)))


@router.delete("/job/{name}/deregister")
def remove_job_of_3(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _command(services, name, lambda at: RemoveJob(at, name)), version_3=True)


@router.post("/job/trigger")
def trigger_job(request: Request, services: ServicesDep, name: Name) -> Response:
    return done(request, _command(services, name, lambda at: Trigger(at, name)))


@router.get("/job/jobs")
def list_jobs(request: Request, services: ServicesDep) -> Response:
    jobs = services.snapshot().jobs
    keys = [key for key in sorted(jobs) if jobs[key].team == DEFAULT_TEAM]
    return shown(request, [_form(request, jobs[key]) for key in keys])


@router.get("/job/jobs/{name}")
def show_job(request: Request, services: ServicesDep, name: str) -> Response:
    job = _job(services, name) if is_own(name) else None
    return missing(request) if job is None else shown(request, _form(request, job))


@router.get("/job/{name}/disable")
def is_job_disabled(request: Request, services: ServicesDep, name: str) -> Response:
    """Whether a job does not fire: it or its app is disabled, or it does not exist."""
    registered = is_own(name) and not is_ad_hoc(name)
    return shown(request, not registered or not services.loop.ask(lambda scheduler: scheduler.enabled(name)))


@router.post("/job/{name}/disable")
def disable_job(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _command(services, name, lambda at: SetJobEnabled(at, name, False)))


@router.delete("/job/{name}/disable")
def enable_job(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _command(services, name, lambda at: SetJobEnabled(at, name, True)))


@router.post("/job/{name}/enable")
def enable_job_of_3(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _command(services, name, lambda at: SetJobEnabled(at, name, True)), version_3=True)


def _form(request: Request, job: Job) -> Json:
    return job_form_of_3(job) if speaks_version_3(request.scope) else job_form(job)


def _command(services: Services, name: str, make: Callable[[int], Command]) -> list[str]:
    """Carry out a command for the job `name`. If there is no such job, nothing happens, and a note is returned."""
    try:
        own(name, "job")
        services.command(make)
    except NotFound as error:
        return [str(error)]
    return []


def _read(services: Services, given: Json, known: Job | None, notes: list[str]) -> Job:
    """The job that a client describes, in place of `known`. Raises Problem or ConfigError."""
    numbers = with_numbers(given)
    zone = services.options.elastic_job.zone
    present: Json = {}
    if known is not None:
        zone = KEEP_ZONE
        present = parse(job_config(known).model_dump_json(by_alias=True).encode())
    of_3 = is_job_of_3(numbers)
    config = translate_job_of_3(numbers, zone, notes, present) if of_3 else translate_job(numbers, zone, notes)
    # The form of 3.0.x also has the fields of an HTTP job.
    replaced = _REPLACED | (set(HTTP_PROPS.values()) if of_3 else set())
    kept = {name: value for name, value in present.items() if name not in replaced}
    for useless in unused_fields(kept | config):
        kept.pop(useless, None)
    if "jobProperties" in config:
        config["jobProperties"] = (kept.get("jobProperties") or {}) | config["jobProperties"]
    job = read_job(kept | config, services.options.job_urls)
    _check_worker(services, job, of_3=of_3 and known is None)
    check_code(services, job, services.snapshot().apps.get(job.app_key))
    return job


def _check_worker(services: Services, job: Job, *, of_3: bool) -> None:
    """Raises ConfigError if the executor's Python worker cannot run the job, and the app has no worker of its own."""
    app = services.loop.ask(lambda scheduler: scheduler.apps.get(job.app_key))
    if app is None or app.bootstrap_script or job.type not in (JobType.SIMPLE, JobType.DATAFLOW):
        return
    if of_3:
        raise ConfigError(
            "is missing: the worker for Python has to load a class",
            field="jobClass",
            fix="give jobType and jobClass, or give the app a bootstrapScript that starts a worker: docs/executor.md",
        )
    if java := java_code({"jobClass": job.job_class, "applicationContext": job.context}):
        field, name = java
        raise ConfigError(
            f"{short(name)} is for Java, and the app {job.app} has no worker for Java",
            field=field,
            fix="give the app a bootstrapScript that starts one: docs/executor.md",
        )


def _job(services: Services, key: str) -> Job | None:
    return services.loop.ask(lambda scheduler: None if key in scheduler.ad_hoc else scheduler.jobs.get(key))
