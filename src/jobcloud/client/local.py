"""Run a job in this process, without a cluster, to try or debug the job."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobcloud import ranges, zones
from jobcloud.client.pack import MANIFEST, check_team_of, read_manifest
from jobcloud.config import (
    DEFAULT_TEAM,
    check_team,
    parse_environment,
    parse_files,
    parse_secrets,
    parse_shard_parameters,
    stored_files,
    stored_item_parameters,
)
from jobcloud.errors import ConfigError
from jobcloud.executor import http_job, placeholders, plugins
from jobcloud.executor.files import FILES, JobFiles, variable_of
from jobcloud.executor.loading import Contexts, LoadError, add_libraries, load_job
from jobcloud.executor.package import WHEELS, PackageError, unpack_wheels
from jobcloud.executor.plugins import Plugins
from jobcloud.executor.scripts import CONTEXT_FILE, SECRET_FILES, argument, environment, fitting, write_context
from jobcloud.job import ErrorHandler, FiringContext, FiringListener, JobListener, ShardingContext, perform, resolve


@dataclass(frozen=True, slots=True)
class LocalRun:
    """The end of one shard. `result` is the job's return value, a script's exit code, or an HTTP status.

    `handled` is the error that the job's error handler has handled, or "". `error` is the error of a failed job of a
    class; see `traceback_of`.
    """

    item: int
    result: Any
    failed: bool = False
    handled: str = ""
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """The listeners and the error handler of a job. `ignores`: all errors count as handled."""

    listeners: list[JobListener]
    firing_listener: FiringListener | None
    handler: ErrorHandler | None
    ignores: bool


def run_local(app: Path, job_name: str, item: int | None = None, team: str = "") -> Iterator[LocalRun]:
    """Run all shards of a job, one after the other, or only shard `item`. The job is in the manifest of the app.

    `team`: the team of the job if the manifest names none; "" stands for `default`.

    The job runs in the calling thread and in the app's directory. The app's context is opened once. Listeners and the
    error handler are called; a webhook is not. A shard whose job raises an error has failed, and the next one runs.
    Raises ConfigError if the manifest has no such job, the job no such shard, or a class cannot be loaded.
    """
    job, variables, files = _find(app, job_name, team)
    items = _items(job, item)
    with _with_files(files) as folder, _with_variables({**variables, **folder}), _inside(app.resolve()):
        parts, contexts = _parts(job), Contexts()
        try:
            _call_firing_listener(parts, job, "before", {})
            runs = []
            for number in items:
                runs.append(_run(job, _context(job, number), contexts, parts))
                yield runs[-1]
            failures = sum(run.failed for run in runs)
            outcomes = {"FINISHED": len(runs) - failures, "FAILED": failures}
            _call_firing_listener(parts, job, "after", {state: number for state, number in outcomes.items() if number})
        finally:
            contexts.close()


def _parts(job: Mapping[str, Any]) -> _Parts:
    properties = job.get("jobProperties") or {}
    handler = plugins.handler_name(str(properties.get("job_exception_handler", "")))
    distributed = (job.get("distributedListener") or {}).get("class")
    described = {"listener": job.get("listener"), "distributedListener": distributed, "errorHandler": handler}
    found = Plugins()
    try:
        firing_listener = found.firing_listener(described) if distributed else None
        return _Parts(found.listeners(described), firing_listener, found.error_handler(described), handler == "ignore")
    except LoadError as error:
        raise ConfigError(str(error), field="listener") from error


def _call_firing_listener(parts: _Parts, job: Mapping[str, Any], step: str, outcomes: Mapping[str, int]) -> None:
    if parts.firing_listener is None:
        return
    shard = _context(job, 0)
    ctx = FiringContext(
        job_name=shard.job_name,
        task_id=f"local-{shard.job_name}-{step}",
        sharding_total_count=shard.sharding_total_count,
        job_parameter=shard.job_parameter,
        run_id=shard.run_id,
        fence=shard.fence,
        outcomes=outcomes,
        logger=shard.logger,
        team=shard.team,
        secrets=shard.secrets,
        files=shard.files,
    )
    plugins.call_firing_listener(parts.firing_listener, step, ctx, resolve)


def _find(
    app: Path, name: str, team: str
) -> tuple[Mapping[str, Any], Mapping[str, str], tuple[Mapping[str, str], Mapping[str, str]]]:
    """A job of the manifest, the variables of its process, and the files of its app and its own."""
    manifest = read_manifest(app)
    jobs = {str(job.get("jobName")): job for job in manifest.jobs}
    if name not in jobs:
        known = ", ".join(sorted(jobs)) or "none"
        raise ConfigError(f"{app / MANIFEST} has no job {name!r}", field="JOB", fix=f"jobs: {known}")
    of_app = {"team": str(manifest.app.get("team") or team or DEFAULT_TEAM)}
    check_team("team", of_app["team"])
    check_team_of(jobs[name], of_app)
    job = {"jobType": "SIMPLE", "jobClass": "", "shardingTotalCount": 1, **jobs[name], **of_app}
    lists = () if job["jobType"] == "HTTP" else (manifest.app.get("environment"), job.get("environment"))
    found: dict[str, str] = {}
    for entries in lists:
        found |= parse_environment(tuple(map(str, entries or ())))
    files = ({}, {}) if job["jobType"] == "HTTP" else (manifest.app.get("files") or {}, job.get("files") or {})
    return job, found, (parse_files(_stored(files[0])), parse_files(_stored(files[1])))


def _stored(files: Any) -> str:
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ConfigError("is not an object from paths to texts", field="files", fix='write "PATH" = "TEXT"')
    return stored_files(files)


@contextmanager
def _with_files(files: tuple[Mapping[str, str], Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """Write the files of the app and the job. Gives the variable with the path of their folder, if there are any."""
    with tempfile.TemporaryDirectory() as sandbox:
        written = JobFiles(sandbox)
        written.write("local", *files)
        yield variable_of(written.folder("local"))


@contextmanager
def _with_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, as a worker has them. At the end, restore those of before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _items(job: Mapping[str, Any], item: int | None) -> range:
    count = job["shardingTotalCount"]
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"is {count!r}", field="shardingTotalCount", fix="give an integer of at least 1")
    if item is None:
        return range(count)
    if not 0 <= item < count:
        raise ConfigError(f"there is no shard {item}", field="--shard", fix=f"0 to {count - 1}")
    return range(item, item + 1)


def _context(job: Mapping[str, Any], item: int) -> ShardingContext:
    count, fired_ms = job["shardingTotalCount"], int(time.time() * 1000)
    ctx = ShardingContext(
        job_name=str(job["jobName"]),
        task_id=f"local-{job['jobName']}-{item}",
        sharding_total_count=count,
        job_parameter=str(job.get("jobParameter", "")),
        sharding_item=item,
        sharding_parameter=_item_parameter(job, count, item, fired_ms),
        run_id="local",
        fence=1,
        team=str(job.get("team", ShardingContext.team)),
        logger=logging.getLogger(f"jobcloud.job.{job['jobName']}"),
        secrets=_secrets(job),
        files=os.environ.get(FILES, ""),
        on_progress=lambda done, total: print(f"progress: {done} of {total}" if total else f"progress: {done}"),
        fire_time_ms=fired_ms,
    )
    of_all = _rendered(job, "jobParameter", ctx.job_parameter, ctx)
    of_one = _rendered(job, "shardingItemParameters", ctx.sharding_parameter, ctx)
    return replace(ctx, job_parameter=of_all, sharding_parameter=of_one)


def _rendered(job: Mapping[str, Any], field: str, text: str, ctx: ShardingContext) -> str:
    """A text with the values of its placeholders. There is no earlier success. Raises ConfigError."""
    if field not in (job.get("placeholders") or ()):
        return text
    try:
        zone = zones.zone(str(job.get("timeZone", "UTC")))
        facts = (ctx.run_id, ctx.job_name, ctx.sharding_item, ctx.sharding_total_count)
        return placeholders.render(text, placeholders.Values(*facts, zone, ctx.fire_time_ms))
    except (ValueError, LookupError) as error:
        raise ConfigError(str(error), field=field, fix="see docs/executor.md#placeholders") from error


def _secrets(job: Mapping[str, Any]) -> dict[str, str]:
    """The secrets of a job from the variables of their keys; files from the directory that SECRET_FILES names.

    Raises ConfigError if one is missing.
    """
    found: dict[str, str] = {}
    for use in parse_secrets(tuple(map(str, job.get("secrets") or ()))):
        folder = os.environ.get(SECRET_FILES, "")
        value = os.path.join(folder, use.key) if use.file and folder else os.environ.get(use.key)
        if value is None or (use.file and not os.path.isfile(value)):
            where = f"a file in the directory {SECRET_FILES}" if use.file else "a variable of this name"
            raise ConfigError(f"there is no value for {use.key}", field="secrets", fix=f"give it in {where}")
        found[use.key] = value
    return found


def _item_parameter(job: Mapping[str, Any], count: int, item: int, fired_ms: int) -> str:
    """The parameter of a shard, or its part of the job's range. Raises ConfigError."""
    if divided := str(job.get("shardingItemRange") or ""):
        try:
            return str(
                ranges.parse(divided).at(fired_ms, zones.zone(str(job.get("timeZone", "UTC")))).part(item, count)
            )
        except (ValueError, LookupError) as error:
            raise ConfigError(str(error), field="shardingItemRange") from error
    given = job.get("shardingItemParameters", "")
    return parse_shard_parameters(stored_item_parameters(given if isinstance(given, dict) else str(given)), count)[item]


def _run(job: Mapping[str, Any], ctx: ShardingContext, contexts: Contexts, parts: _Parts) -> LocalRun:
    if job["jobType"] == "SCRIPT":
        return _run_script(job, ctx)
    if job["jobType"] == "HTTP":
        status, _ = http_job.call(_request(job), {"shardingContext": ctx.to_json(), **ctx.secrets})
        return LocalRun(ctx.sharding_item, status, failed=not 200 <= status < 300)
    try:
        loaded = load_job(job, contexts)
    except LoadError as error:
        raise ConfigError(str(error), field="jobClass" if job["jobClass"] else "beanName") from error

    def run() -> Any:
        return perform(loaded, ctx, streaming=bool(job.get("streamingProcess")))

    try:
        return LocalRun(ctx.sharding_item, plugins.around(parts.listeners, ctx, run, resolve))
    except Exception as error:
        if not parts.ignores and (parts.handler is None or not plugins.handled(parts.handler, ctx, error)):
            return LocalRun(ctx.sharding_item, None, failed=True, error=error)
        return LocalRun(ctx.sharding_item, None, handled=f"{type(error).__name__}: {error}")


def traceback_of(error: Exception, app: Path) -> str:
    """The traceback of an error of a job, from the first frame in the app's directory on."""
    described = traceback.TracebackException.from_exception(error)
    waiting: list[traceback.TracebackException | None] = [described]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        waiting += [one.__cause__, one.__context__]
        own = (number for number, frame in enumerate(one.stack) if Path(frame.filename).is_relative_to(app.resolve()))
        del one.stack[: next(own, 0)]
    return "".join(described.format())


def _run_script(job: Mapping[str, Any], ctx: ShardingContext) -> LocalRun:
    command = shlex.split(str(job.get("scriptCommandLine", "")))
    argv = [*(_rendered(job, "scriptCommandLine", word, ctx) for word in command), argument(ctx)]
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, **environment(ctx), CONTEXT_FILE: write_context(folder, ctx)}
        try:
            code = subprocess.run(argv, env=fitting(argv, env), check=False).returncode
        except OSError as error:
            raise ConfigError(
                f"cannot start {argv[0]!r}: {error.strerror}",
                field="scriptCommandLine",
                fix="name an executable, such as ./run.sh",
            ) from error
    return LocalRun(ctx.sharding_item, code, failed=code != 0)


def _request(job: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uri": job.get("httpUri", ""),
        "method": job.get("httpMethod", "GET"),
        "data": job.get("httpData", ""),
        "contentType": job.get("httpContentType", "application/json"),
        "connectTimeout": job.get("httpConnectTimeoutMilliseconds", 3000),
        "readTimeout": job.get("httpReadTimeoutMilliseconds", 5000),
    }


@contextmanager
def _inside(app: Path) -> Iterator[None]:
    """Make the app's directory the current directory and the first entry of sys.path, as in a worker.

    Add the app's wheels to sys.path. At the end, restore the current directory and sys.path.
    """
    if not app.is_dir():
        raise ConfigError(f"{app} is not a directory", field="DIR", fix="give the directory of the app")
    before, path = Path.cwd(), list(sys.path)
    os.chdir(app)
    sys.path.insert(0, str(app))
    with tempfile.TemporaryDirectory() as folder:
        try:
            libraries = os.path.join(folder, WHEELS)
            if unpack_wheels(str(app / WHEELS), libraries):
                add_libraries([libraries])
            yield
        except PackageError as error:
            raise ConfigError(str(error), field=WHEELS, fix="ship wheels for this interpreter") from error
        finally:
            sys.path[:] = path
            os.chdir(before)
