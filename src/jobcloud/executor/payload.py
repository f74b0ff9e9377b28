"""Parse and validate TaskInfo.data and ExecutorInfo.data. docs/executor.md lists the fields."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Type, Union

from jobcloud.executor.package import Limits
from jobcloud.executor.processes import NO_LIMITS, Rlimits
from jobcloud.job import FiringContext, ShardingContext
from jobcloud.wire import decode_data

SCHEMA = 1
DEFAULT_KILL_GRACE_S = 5.0
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PayloadError(Exception):
    """This executor does not understand the data of a task or an executor. The text names the field."""


@dataclass(frozen=True)
class PackageRef:
    """The fetched package: the name of its file in the sandbox, without a folder, and its SHA-256 (lower-case hex)."""

    file: str
    sha256: str


@dataclass(frozen=True)
class AppPayload:
    """ExecutorInfo.data.

    If `idle_timeout_s` is None, the executor never exits when idle. If `max_parallel` is 0, there is no limit. `worker`
    is the command of the app's own worker. If it is None, the app uses the executor's worker.
    """

    app_name: str
    app_version: str
    package: Optional[PackageRef]
    idle_timeout_s: Optional[float]
    sampling_count: int
    limits: Limits
    max_parallel: int = 0
    worker: Optional[Tuple[str, ...]] = None


@dataclass(frozen=True)
class TaskPayload:
    """TaskInfo.data: one attempt of a shard, and its job.

    `own_process`: the shard has a worker to itself. `step`: if it is "before" or "after", the task runs no shard, but
    calls this method of the firing listener with the data in `firing`. `placeholder`: if it is not None, the task runs
    nothing, but keeps a worker warm in which these contexts are built. `webhook`: the URL for reports of failures, or
    "". `timeout_s`: the time limit of each execution, or None. `rlimits`: see Rlimits. `ports`: the ports of the host
    that belong to the task. `team`: the team of the job. `traceparent`: the span of the attempt, or "".
    """

    context: Mapping[str, Any]
    run_id: str
    attempt: int
    fence: int
    fire_time_ms: Optional[int]
    job: Mapping[str, Any]
    resident: bool
    misfire: bool
    timer: Optional[Mapping[str, Any]]
    script: Optional[Tuple[str, ...]]
    own_process: bool = False
    http: Optional[Mapping[str, Any]] = None
    timeout_s: Optional[float] = None
    kill_grace_s: float = DEFAULT_KILL_GRACE_S
    rlimits: Rlimits = NO_LIMITS
    step: Optional[str] = None
    placeholder: Optional[Tuple[str, ...]] = None
    firing: Mapping[str, Any] = field(default_factory=dict)
    ignores_errors: bool = False
    webhook: str = ""
    ports: Tuple[int, ...] = ()
    team: str = ShardingContext.team
    traceparent: str = ""

    @property
    def scripted(self) -> bool:
        """Whether each execution is a process of its own, without a worker."""
        return self.step is None and (self.script is not None or self.http is not None)

    def facts(self, fire_time_ms: Optional[int] = None) -> Dict[str, Any]:
        """The facts of one execution that `context` does not hold.

        For a DAEMON job, `fire_time_ms` is the fire time of this execution. It becomes a part of `runId`.
        """
        more: Dict[str, Any] = {"ports": list(self.ports)} if self.ports else {}
        if self.team != ShardingContext.team:
            more["team"] = self.team
        if self.traceparent:
            more["traceparent"] = self.traceparent
        run_id, due = self.run_id, self.fire_time_ms
        if fire_time_ms is not None:
            run_id, due = f"{self.run_id}#{fire_time_ms}", fire_time_ms
        return {"runId": run_id, "attempt": self.attempt, "fence": self.fence, "fireTime": due, **more}


def sharding_context(context: Mapping[str, Any], facts: Mapping[str, Any], **more: Any) -> ShardingContext:
    """The context of a shard, from `TaskPayload.context` and `TaskPayload.facts()`."""
    return ShardingContext.from_dict(
        context,
        run_id=facts["runId"],
        attempt=facts["attempt"],
        fence=facts["fence"],
        fire_time_ms=facts["fireTime"],
        ports=tuple(facts.get("ports") or ()),
        team=_team(facts),
        traceparent=_traceparent(facts),
        **more,
    )


def firing_context(
    context: Mapping[str, Any], facts: Mapping[str, Any], firing: Mapping[str, Any], **more: Any
) -> FiringContext:
    """The context of a firing listener."""
    return FiringContext(
        job_name=context["jobName"],
        task_id=context["taskId"],
        sharding_total_count=context["shardingTotalCount"],
        job_parameter=context["jobParameter"],
        sharding_parameters={int(item): text for item, text in (firing.get("parameters") or {}).items()},
        run_id=facts["runId"],
        attempt=facts["attempt"],
        fence=facts["fence"],
        fire_time_ms=facts["fireTime"],
        sharding_parameters_left_out=bool(firing.get("parametersLeftOut")),
        outcomes=firing.get("outcomes") or {},
        team=_team(facts),
        traceparent=_traceparent(facts),
        **more,
    )


def _team(facts: Mapping[str, Any]) -> str:
    return facts.get("team") or ShardingContext.team


def _traceparent(facts: Mapping[str, Any]) -> str:
    return facts.get("traceparent") or ""


def read_app(data: Optional[str]) -> AppPayload:
    """Parse ExecutorInfo.data (base64 text). Raises PayloadError."""
    fields = _Fields(_object(data, "the executor's data"), "the executor's data")
    package = fields.optional("package", dict, None)
    limits = _Fields(fields.optional("limits", dict, None) or {}, "limits")
    default = Limits()
    return AppPayload(
        app_name=fields.required("appName", str),
        app_version=fields.required("appVersion", str),
        package=None if package is None else _package(_Fields(package, "package")),
        idle_timeout_s=fields.at_least("idleTimeoutSeconds", (int, float), 0),
        sampling_count=fields.optional("eventTraceSamplingCount", int, 0),
        limits=Limits(limits.optional("files", int, default.files), limits.optional("bytes", int, default.bytes)),
        max_parallel=fields.at_least("maxParallel", int, 0) or 0,
        worker=_worker(fields.optional("workerCommand", str, "")),
    )


def read_task(data: Optional[str]) -> TaskPayload:
    """Parse TaskInfo.data (base64 text). Raises PayloadError."""
    fields = _Fields(_object(data, "the task's data"), "the task's data")
    job = fields.required("job", dict)
    kind = _Fields(job, "job")
    job_type = kind.one_of("jobType", ("SIMPLE", "DATAFLOW", "SCRIPT", "HTTP", "KEEPER"))
    placeholder = _contexts(kind) if job_type == "KEEPER" else None
    resident = placeholder is None and kind.one_of("jobExecutionType", ("TRANSIENT", "DAEMON")) == "DAEMON"
    timer = kind.optional("timer", dict, None)
    if resident and timer is None:
        raise PayloadError("a DAEMON job needs 'timer' in job")
    if job_type in ("SIMPLE", "DATAFLOW"):
        kind.required("jobClass", str)
    step = None if fields.optional("step", str, None) is None else fields.one_of("step", ("before", "after"))
    handler = kind.optional("errorHandler", str, "log")
    return TaskPayload(
        context=_context(fields.required("shardingContext", dict)),
        run_id=fields.required("runId", str),
        attempt=fields.required("attempt", int),
        fence=fields.required("fence", int),
        fire_time_ms=fields.optional("fireTime", int, None),
        job=job,
        resident=resident,
        misfire=kind.optional("misfire", bool, False),
        timer=timer,
        script=_command("scriptCommandLine", kind.required("scriptCommandLine", str)) if job_type == "SCRIPT" else None,
        own_process=kind.optional("isolation", str, "shared") == "process",
        http=_http(kind) if job_type == "HTTP" else None,
        timeout_s=(fields if step else kind).at_least("timeoutSeconds", (int, float), 0) or None,
        kill_grace_s=_grace(kind.at_least("killGraceSeconds", (int, float), 0)),
        rlimits=Rlimits(
            memory_mb=kind.at_least("memoryLimitMB", int, 0) or None,
            cpu_s=kind.at_least("cpuLimitSeconds", int, 0) or None,
            open_files=kind.at_least("openFilesLimit", int, 0) or None,
        ),
        step=step,
        placeholder=placeholder,
        firing=fields.optional("firing", dict, {}),
        ignores_errors=handler == "ignore" and step is None,
        webhook=kind.required("errorWebhook", str) if handler == "webhook" else "",
        ports=_ports(fields),
        team=kind.optional("team", str, ShardingContext.team),
        traceparent=fields.optional("traceparent", str, ""),
    )


_Types = Union[Type[Any], Tuple[Type[Any], ...]]


class _Fields:
    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self._fields, self._where = fields, where

    def required(self, name: str, types: _Types) -> Any:
        if name not in self._fields:
            raise PayloadError(f"{self._where} lacks '{name}'")
        value = self._fields[name]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise PayloadError(f"'{name}' in {self._where} is {value!r:.80}, which has the wrong type")
        return value

    def optional(self, name: str, types: _Types, default: Any) -> Any:
        return default if self._fields.get(name) is None else self.required(name, types)

    def at_least(self, name: str, types: _Types, least: int) -> Any:
        """A number, or None if the field is missing."""
        number = self.optional(name, types, None)
        if number is not None and number < least:
            raise PayloadError(f"'{name}' in {self._where} is {number}, must be at least {least}")
        return number

    def one_of(self, name: str, words: Tuple[str, ...]) -> str:
        word: str = self.required(name, str)
        if word not in words:
            raise PayloadError(f"'{name}' in {self._where} is {word!r:.80}, must be one of {', '.join(words)}")
        return word


def _object(data: Optional[str], label: str) -> Mapping[str, Any]:
    if not isinstance(data, str):
        raise PayloadError(f"{label} is missing")
    try:
        fields = json.loads(decode_data(data).decode())
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{label} is not JSON in base64: {error}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise PayloadError(
            f"{label} has schema {schema!r:.80}, this executor understands {SCHEMA}; executor and scheduler must match"
        )
    return fields  # type: ignore[no-any-return]


def _context(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    context = _Fields(fields, "shardingContext")
    texts = {name: context.required(name, str) for name in ("jobName", "taskId")}
    numbers = {name: context.required(name, int) for name in ("shardingTotalCount", "shardingItem")}
    parameters = {name: context.optional(name, str, "") for name in ("jobParameter", "shardingParameter")}
    return {**texts, **numbers, **parameters}


def _package(fields: _Fields) -> PackageRef:
    file, sha256 = fields.required("file", str), fields.required("sha256", str).lower()
    if not _PLAIN_NAME.fullmatch(file):
        raise PayloadError(f"'file' in package is {file!r:.80}, must be a plain file name")
    if not _SHA256.fullmatch(sha256):
        raise PayloadError(f"'sha256' in package is {sha256!r:.80}, must be 64 hex digits")
    return PackageRef(file, sha256)


def _ports(fields: _Fields) -> Tuple[int, ...]:
    ports = fields.optional("ports", list, [])
    if not all(isinstance(port, int) and not isinstance(port, bool) for port in ports):
        raise PayloadError(f"'ports' in the task's data is {ports!r:.80}, must be a list of numbers")
    return tuple(ports)


def _contexts(job: _Fields) -> Tuple[str, ...]:
    contexts = job.required("contexts", list)
    if not all(isinstance(context, str) for context in contexts):
        raise PayloadError(f"'contexts' in job is {contexts!r:.80}, must be a list of texts")
    return tuple(contexts)


def _http(job: _Fields) -> Dict[str, Any]:
    return {
        "uri": job.required("httpUri", str),
        "method": job.optional("httpMethod", str, "GET"),
        "data": job.optional("httpData", str, ""),
        "contentType": job.optional("httpContentType", str, "application/json"),
        "connectTimeout": job.at_least("httpConnectTimeoutMilliseconds", int, 1) or 3000,
        "readTimeout": job.at_least("httpReadTimeoutMilliseconds", int, 1) or 5000,
    }


def _grace(seconds: Optional[float]) -> float:
    return DEFAULT_KILL_GRACE_S if seconds is None else float(seconds)


def _worker(line: str) -> Optional[Tuple[str, ...]]:
    return _command("workerCommand", line) if line else None


def _command(field: str, line: str) -> Tuple[str, ...]:
    try:
        argv = tuple(shlex.split(line))
    except ValueError as error:
        raise PayloadError(f"{field} {line!r:.200} cannot be split into words: {error}") from error
    if not argv or any("\0" in word for word in argv):
        raise PayloadError(f"{field} is empty or contains a NUL; give the command to run")
    return argv
