"""Launches: the description of an executor, and the shares of each task and its executor."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from jobcloud.config import DELIMITER, SEPARATOR, App, Job, Resources, parse_environment, parse_files
from jobcloud.model import Executor, Share
from jobcloud.scheduler.cluster import InsufficientResources, Pool, Request

EXECUTOR_DATA_SCHEMA = 1
# The schema of the data of an app with variables. An executor that knows only the first schema refuses its tasks, so it
# does not run them without the variables.
ENVIRONMENT_SCHEMA = 2
# The same for the data of an app with files.
FILES_SCHEMA = 3
# Limits of an executor's record.
MAX_SPEC_BYTES = 150_000
_MAX_SHARES = 30
# This character replaces the separator of keys in paths. No name of an app or a team contains it.
_SEPARATOR_IN_PATHS = "~"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifact server, and the executor program that agents fetch from it.

    A file n with hash h is at `base_url/h/n`. `command` is the shell line that verifies and starts the executor. The
    agent fetches the files, unless there is a shell line `fetch`, which takes pairs of a URL and the name of a file.
    """

    base_url: str
    executor_sha256: str
    executor_file: str
    command: str
    fetch: str = ""

    def url(self, sha256: str, file: str) -> str:
        return f"{self.base_url}/{sha256}/{file}"


@dataclass(frozen=True, slots=True)
class ExecutorPlan:
    """The executor of one version of an app: the same on every agent.

    `id` identifies its content. A task joins a living executor with the same content, even if another leader started
    it. `source` tells from which server, and how, the agent gets it.
    """

    id: str
    app: str
    resources: Resources
    spec: str
    source: str

    def executor_id(self, shares: Iterable[Share]) -> str:
        """The Mesos id of an executor that this leader starts with these shares. `content_of` finds `id` in it.

        It contains hashes of everything in the description. Otherwise a task could be launched on a live executor with
        another description, for example one that another leader has started. Mesos would refuse this task.
        """
        parts = sorted((share.name, share.amount, share.origin, share.ranges) for share in shares)
        return f"{self.id}{DELIMITER}{_hash(_canonical([self.source, parts]), 8)}"

    def request(self, job: Job) -> Request:
        return Request(job.resources, self.id, self.resources)


def plan_executor(app: App, artifacts: Artifacts) -> ExecutorPlan:
    """Describe the app's executor."""
    variables = {"environment": parse_environment(app.environment)} if app.environment else {}
    of_files = {"files": parse_files(app.files)} if app.files else {}
    data = {
        "schema": FILES_SCHEMA if of_files else ENVIRONMENT_SCHEMA if variables else EXECUTOR_DATA_SCHEMA,
        "appName": app.name,
        "package": {"file": app.package.file, "sha256": app.package.sha256},
        "idleTimeoutSeconds": app.idle_timeout_ms / 1000,
        "eventTraceSamplingCount": app.sampling,
        "maxParallel": app.max_parallel,
        "workerCommand": app.bootstrap_script,
        **variables,
        **of_files,
    }
    executor_url = artifacts.url(artifacts.executor_sha256, artifacts.executor_file)
    package_url = artifacts.url(app.package.sha256, app.package.file)
    command: dict[str, object] = {"shell": True, "value": artifacts.command}
    if artifacts.fetch:
        files = (executor_url, artifacts.executor_file, package_url, app.package.file)
        command["value"] = f"{artifacts.fetch} {shlex.join(files)} || exit 1; {artifacts.command}"
    else:
        command["uris"] = [
            _uri(executor_url, artifacts.executor_file),
            _uri(package_url, app.package.file, cache=app.cache),
        ]
    program = [artifacts.executor_sha256, artifacts.executor_file, artifacts.command]
    version = _hash(_canonical([data, program, app.cache, app.resources]), 12)
    data["appVersion"] = version
    spec = {
        "name": f"jobcloud {app.key}",
        "source": app.key,
        "command": command,
        "data": base64.b64encode(_canonical(data).encode()).decode(),
    }
    # The sandbox's path contains the executor's id. A colon would split the path in PYTHONPATH and similar lists of
    # paths.
    content = f"{app.key.replace(SEPARATOR, _SEPARATOR_IN_PATHS)}{DELIMITER}{version}"
    source = f"{artifacts.base_url} {_hash(artifacts.fetch, 8)}" if artifacts.fetch else artifacts.base_url
    return ExecutorPlan(content, app.key, app.resources, _canonical(spec), source)


def task_shares(
    pool: Pool,
    resources: Resources,
    agent_id: str,
    executor: Executor | None,
    plan: ExecutorPlan,
    at: int,
    *,
    gone: bool,
) -> tuple[tuple[Share, ...], Executor]:
    """Allocate the shares of a task from `pool`, and those of a new executor if it needs one.

    `gone`: the executor has ended, but the last updates of its tasks have not arrived. Such an executor is started
    again with the same description and the same shares. Mesos still knows the executor, and would refuse another
    description. Returns the task's shares, and the executor on which the task is launched. Raises
    InsufficientResources.
    """
    if executor is not None and not gone:
        return pool.allocate(resources), executor
    pool.check(plan.resources.plus(resources))
    if executor is None:
        shares = pool.allocate(plan.resources)
        if len(shares) > _MAX_SHARES:
            raise InsufficientResources(f"the agent offers the executor's resources in {len(shares)} parts")
        executor = Executor(plan.executor_id(shares), agent_id, plan.app, shares, plan.spec, at)
    else:
        pool.take(executor.shares)
    return pool.allocate(resources), executor


def package_of(executor: Executor) -> str:
    """The SHA-256 of the package that an executor runs; "" if its description is not known."""
    try:
        return str(json.loads(base64.b64decode(json.loads(executor.spec)["data"]))["package"]["sha256"])
    except (ValueError, LookupError, TypeError):
        return ""


def ports_of(shares: Iterable[Share]) -> tuple[int, ...]:
    """The numbers of the ports among the shares, in order."""
    spans = (span for share in shares if share.name == "ports" for span in share.ranges)
    return tuple(sorted(port for begin, end in spans for port in range(begin, end + 1)))


def _uri(url: str, file: str, *, cache: bool = True) -> dict[str, object]:
    return {"value": url, "output_file": file, "extract": False, "executable": False, "cache": cache}


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
