"""Running a job here and now, in this process and without a cluster: for trying it out, and for debuggers."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobcloud.client.pack import MANIFEST, read_manifest
from jobcloud.errors import ConfigError
from jobcloud.executor import http_job, plugins
from jobcloud.executor.loading import Contexts, LoadError, add_libraries, load_job
from jobcloud.executor.package import WHEELS, PackageError, unpack_wheels
from jobcloud.executor.plugins import Plugins
from jobcloud.executor.scripts import environment
from jobcloud.job import ErrorHandler, FiringContext, FiringListener, JobListener, ShardingContext, perform, resolve
from jobcloud.model import parse_shard_parameters


@dataclass(frozen=True, slots=True)
class LocalRun:
    """How one shard ended: `result` is what the job returned, the exit code of a script, or an HTTP status.

    `handled` is the error that the job's error handler dealt with, or "".
    """

    item: int
    result: Any
    failed: bool = False
    handled: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is called around the job."""

    listeners: list[JobListener]
    firing_listener: FiringListener | None
    handler: ErrorHandler | None
    ignores: bool


def run_local(app: Path, job_name: str, item: int | None = None) -> Iterator[LocalRun]:
    """Run the shards (or the one) of a job in the manifest of the app's directory, one after the other.

    The job runs in the calling thread, in the app's directory, with the app's context opened once, with its listeners
    and its error handler; only a webhook is not called. What it raises comes through. Raises ConfigError for a manifest
    without such a job, a shard that it has not, or a class that cannot be loaded.
    """
    job = _find(app, job_name)
    items = _items(job, item)
    with _inside(app.resolve()):
        parts, contexts = _parts(job), Contexts()
        try:
            _tell_firing(parts, job, "before", {})
            runs = []
            for number in items:
                runs.append(_run(job, _context(job, number), contexts, parts))
                yield runs[-1]
            failures = sum(run.failed for run in runs)
            outcomes = {"FINISHED": len(runs) - failures, "FAILED": failures}
            _tell_firing(parts, job, "after", {state: number for state, number in outcomes.items() if number})
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


def _tell_firing(parts: _Parts, job: Mapping[str, Any], step: str, outcomes: Mapping[str, int]) -> None:
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
    )
    plugins.call_firing_listener(parts.firing_listener, step, ctx, resolve)


def _find(app: Path, name: str) -> Mapping[str, Any]:
    jobs = {str(job.get("jobName")): job for job in read_manifest(app).jobs}
    if name not in jobs:
        known = ", ".join(sorted(jobs)) or "none"
        raise ConfigError(f"{app / MANIFEST} has no job {name!r}", field="JOB", fix=f"there are: {known}")
    return {"jobType": "SIMPLE", "jobClass": "", "shardingTotalCount": 1, **jobs[name]}


def _items(job: Mapping[str, Any], item: int | None) -> range:
    count = job["shardingTotalCount"]
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"is {count!r}", field="shardingTotalCount", fix="give a whole number from 1 on")
    if item is None:
        return range(count)
    if not 0 <= item < count:
        raise ConfigError(f"there is no shard {item}", field="--shard", fix=f"0 to {count - 1}")
    return range(item, item + 1)


def _context(job: Mapping[str, Any], item: int) -> ShardingContext:
    count = job["shardingTotalCount"]
    return ShardingContext(
        job_name=str(job["jobName"]),
        task_id=f"local-{job['jobName']}-{item}",
        sharding_total_count=count,
        job_parameter=str(job.get("jobParameter", "")),
        sharding_item=item,
        sharding_parameter=parse_shard_parameters(str(job.get("shardingItemParameters", "")), count)[item],
        run_id="local",
        fence=1,
        logger=logging.getLogger(f"jobcloud.job.{job['jobName']}"),
        on_progress=lambda done, total: print(f"progress: {done} of {total}" if total else f"progress: {done}"),
    )


def _run(job: Mapping[str, Any], ctx: ShardingContext, contexts: Contexts, parts: _Parts) -> LocalRun:
    if job["jobType"] == "SCRIPT":
        return _run_script(job, ctx)
    if job["jobType"] == "HTTP":
        status, _ = http_job.call(_request(job), {"shardingContext": ctx.to_json()})
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
            raise
        return LocalRun(ctx.sharding_item, None, handled=f"{type(error).__name__}: {error}")


def _run_script(job: Mapping[str, Any], ctx: ShardingContext) -> LocalRun:
    argv = [*shlex.split(str(job.get("scriptCommandLine", ""))), ctx.to_json()]
    try:
        code = subprocess.run(argv, env={**os.environ, **environment(ctx)}, check=False).returncode
    except OSError as error:
        raise ConfigError(f"cannot start {argv[0]!r}: {error.strerror}", field="scriptCommandLine") from error
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
    """The app's directory is the current one and first on the path, as in a worker; both are put back."""
    if not app.is_dir():
        raise ConfigError(f"{app} is no directory", field="APP", fix="name the directory of the app")
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
