"""Parse and validate TaskInfo.data and ExecutorInfo.data. docs/executor.md lists the fields."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any, Dict, FrozenSet, Mapping, Optional, Tuple, Type, Union

from jobcloud import zones
from jobcloud.executor.package import Limits
from jobcloud.executor.placeholders import Values, render
from jobcloud.executor.processes import NO_LIMITS, Rlimits
from jobcloud.job import ShardingContext
from jobcloud.wire import MAX_RESULTS_BYTES, decode_data

SCHEMA = 1
# The schema of tasks with secrets.
SECRETS_SCHEMA = 2
# The schemas of the data of an app with variables, and of the tasks of a job with variables of its own.
APP_ENVIRONMENT_SCHEMA, ENVIRONMENT_SCHEMA = 2, 3
# The schema of the tasks of a job with placeholders.
PLACEHOLDERS_SCHEMA = 4
# The schemas of the data of an app with files, and of the tasks of a job with files of its own.
APP_FILES_SCHEMA, FILES_SCHEMA = 3, 5
# The schema of the tasks of a job with results of nodes.
RESULTS_SCHEMA = 6
_TASK_SCHEMAS = (SCHEMA, SECRETS_SCHEMA, ENVIRONMENT_SCHEMA, PLACEHOLDERS_SCHEMA, FILES_SCHEMA, RESULTS_SCHEMA)
_APP_SCHEMAS = (SCHEMA, APP_ENVIRONMENT_SCHEMA, APP_FILES_SCHEMA)
DEFAULT_KILL_GRACE_S = 5.0
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.@+=][A-Za-z0-9_.@+=-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    is the command of the app's own worker. If it is None, the app uses the executor's worker. `environment`: variables
    of workers and scripts. `files`: path → text, for the shards of all jobs.
    """

    app_name: str
    app_version: str
    package: Optional[PackageRef]
    idle_timeout_s: Optional[float]
    sampling_count: int
    limits: Limits
    max_parallel: int = 0
    worker: Optional[Tuple[str, ...]] = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SecretUse:
    """The run gets the secret `name` as `key`: its value, or a file that contains it."""

    key: str
    name: str
    file: bool


@dataclass(frozen=True)
class SecretAccess:
    """How the executor gets the secrets of a task.

    `urls` are those of all schedulers. `token` works once, for `seconds`. `ca` has the certificates (PEM) of the
    authority that the executor trusts; "" stands for those of the agent's system.
    """

    urls: Tuple[str, ...]
    token: str = field(repr=False)
    seconds: float
    ca: str = ""


@dataclass(frozen=True)
class Placeholders:
    """The fields of a job in which placeholders are replaced, and their values that are no facts of an execution.

    `previous_success_ms`: the fire time of the last success before the run; None if there is none. `results`: node of
    the workflow's run → the text of its result.
    """

    fields: FrozenSet[str]
    zone: tzinfo
    previous_success_ms: Optional[int]
    results: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskPayload:
    """TaskInfo.data: one attempt of a shard, and its job.

    `own_process`: the shard has a worker to itself. `step`: if it is "before" or "after", the task runs no shard, but
    calls this method of the firing listener with the data in `firing`. `placeholder`: if it is not None, the task runs
    nothing, but keeps a worker warm in which these contexts are built. `webhook`: the URL for reports of failures, or
    "". `timeout_s`: the time limit of each execution, or None. `rlimits`: see Rlimits. `ports`: the ports of the host
    that belong to the task. `team`: the team of the job. `traceparent`: the span of the attempt, or "". `secrets`: the
    secrets that the run needs. `access`: how to get them; None if the scheduler has none. `environment`: variables of
    the process, which the shard has to itself. `placeholders`: see there; None if the job has none. `files`: path →
    text, in addition to the files of the app or in place of them.
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
    secrets: Tuple[SecretUse, ...] = ()
    access: Optional[SecretAccess] = None
    environment: Mapping[str, str] = field(default_factory=dict)
    placeholders: Optional[Placeholders] = None
    files: Mapping[str, str] = field(default_factory=dict)

    def for_execution(self, facts: Mapping[str, Any]) -> TaskPayload:
        """The payload of one execution with these facts: its placeholders are replaced.

        Raises PayloadError if a placeholder is not valid.
        """
        if self.placeholders is None:
            return self
        wanted, context = self.placeholders.fields, self.context

        def rendered(name: str, text: str, item: int) -> str:
            return render(text, self._values(facts, item)) if name in wanted else text

        item = context["shardingItem"]
        try:
            parameters = {
                "jobParameter": rendered("jobParameter", context["jobParameter"], item),
                "shardingParameter": rendered("shardingItemParameters", context["shardingParameter"], item),
            }
            words = self.script or ()
            script = tuple(rendered("scriptCommandLine", word, item) for word in words) if self.script else self.script
            of_items = self.firing.get("parameters") or {}
            of_items = {one: rendered("shardingItemParameters", text, int(one)) for one, text in of_items.items()}
        except (ValueError, OverflowError, OSError) as error:
            raise PayloadError(f"a placeholder of the job cannot be replaced: {error}") from error
        firing = {**self.firing, "parameters": of_items} if of_items else self.firing
        return replace(self, context={**context, **parameters}, script=script, firing=firing, placeholders=None)

    def _values(self, facts: Mapping[str, Any], item: int) -> Values:
        assert self.placeholders is not None
        return Values(
            run_id=facts["runId"],
            job=self.context["jobName"],
            item=item,
            shard_count=self.context["shardingTotalCount"],
            zone=self.placeholders.zone,
            fire_time_ms=facts["fireTime"],
            previous_success_ms=self.placeholders.previous_success_ms,
            results=self.placeholders.results,
        )

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


def read_app(data: Optional[str]) -> AppPayload:
    """Parse ExecutorInfo.data (base64 text). Raises PayloadError."""
    fields = _Fields(_object(data, "the executor's data", _APP_SCHEMAS), "the executor's data")
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
        environment=_environment(fields, "the executor's data"),
        files=_files(fields, "the executor's data"),
    )


def read_task(data: Optional[str]) -> TaskPayload:
    """Parse TaskInfo.data (base64 text). Raises PayloadError."""
    fields = _Fields(_object(data, "the task's data", _TASK_SCHEMAS), "the task's data")
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
    environment = _environment(kind, "job")
    payload = TaskPayload(
        context=_context(fields.required("shardingContext", dict)),
        run_id=fields.required("runId", str),
        attempt=fields.required("attempt", int),
        fence=fields.required("fence", int),
        fire_time_ms=fields.optional("fireTime", int, None),
        # Workers get the files on the disk, and not in each order.
        job={name: value for name, value in job.items() if name != "files"} if "files" in job else job,
        resident=resident,
        misfire=kind.optional("misfire", bool, False),
        timer=timer,
        script=_command("scriptCommandLine", kind.required("scriptCommandLine", str)) if job_type == "SCRIPT" else None,
        # A shared worker cannot have the variables, which the listener of a script's runs gets too.
        own_process=kind.optional("isolation", str, "shared") == "process" or bool(environment),
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
        secrets=_secrets(kind),
        access=_access(fields),
        environment=environment,
        placeholders=_placeholders(fields, kind),
        files=_files(kind, "job"),
    )
    # An invalid placeholder ends the task now, and not at some fire time of a DAEMON job.
    payload.for_execution(payload.facts())
    return payload


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


def _object(data: Optional[str], label: str, schemas: Tuple[int, ...]) -> Mapping[str, Any]:
    if not isinstance(data, str):
        raise PayloadError(f"{label} is missing")
    try:
        fields = json.loads(decode_data(data).decode())
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{label} is not JSON in base64: {error}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema not in schemas:
        known = ", ".join(map(str, schemas))
        raise PayloadError(
            f"{label} has schema {schema!r:.80}, this executor understands {known}; executor and scheduler must match"
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


def _secrets(job: _Fields) -> Tuple[SecretUse, ...]:
    uses = []
    for one in job.optional("secrets", list, []):
        entry = _Fields(one if isinstance(one, dict) else {}, "secrets in job")
        use = SecretUse(entry.required("key", str), entry.required("name", str), entry.required("file", bool))
        if not _PLAIN_NAME.fullmatch(use.key):
            raise PayloadError(f"'key' in secrets is {use.key!r:.80}, must be a plain name")
        uses.append(use)
    return tuple(uses)


def _environment(fields: _Fields, where: str) -> Mapping[str, str]:
    variables = fields.optional("environment", dict, {})
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or not isinstance(value, str) or "\0" in value:
            raise PayloadError(f"'environment' in {where} has {name!r:.80}, must be a variable and its text")
    return variables  # type: ignore[no-any-return]


def _files(fields: _Fields, where: str) -> Mapping[str, str]:
    files = fields.optional("files", dict, {})
    for path, text in files.items():
        if not all(map(_FILE_NAME.fullmatch, path.split("/"))) or not isinstance(text, str):
            raise PayloadError(f"'files' in {where} has {path!r:.80}, must be a relative path and the text of a file")
    return files  # type: ignore[no-any-return]


def _placeholders(task: _Fields, job: _Fields) -> Optional[Placeholders]:
    given = job.optional("placeholders", dict, None)
    if given is None:
        return None
    described = _Fields(given, "placeholders in job")
    fields, zone = described.required("fields", list), described.required("timeZone", str)
    if not all(isinstance(name, str) for name in fields):
        raise PayloadError(f"'fields' in placeholders is {fields!r:.80}, must be a list of texts")
    try:
        found = zones.zone(zone)
    except (LookupError, ValueError) as error:
        raise PayloadError(f"'timeZone' in placeholders is {zone!r:.80}, which is no time zone") from error
    return Placeholders(frozenset(fields), found, task.at_least("previousSuccess", int, 0), _results(task))


def _results(task: _Fields) -> Mapping[str, str]:
    """The texts of the results, which an app has made: a NUL or half a character can be in no command."""
    results = task.optional("results", dict, {})
    for node, text in results.items():
        if text is None:
            problem = f"more than {MAX_RESULTS_BYTES:,} bytes with the results before it; pass files instead"
            raise PayloadError(f"the result of node {node:.80} takes {problem}")
        if not isinstance(text, str) or "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise PayloadError(f"the result of node {node:.80} is no Unicode text without a NUL")
    return results  # type: ignore[no-any-return]


def _access(task: _Fields) -> Optional[SecretAccess]:
    given = task.optional("secretAccess", dict, None)
    if given is None:
        return None
    access = _Fields(given, "secretAccess")
    urls = access.required("urls", list)
    if not urls or not all(isinstance(url, str) for url in urls):
        raise PayloadError("'urls' in secretAccess must be a list of texts")
    seconds = access.required("seconds", (int, float))
    # The token is not shown, unlike other texts of a wrong type.
    token = given.get("token")
    if not isinstance(token, str):
        raise PayloadError("secretAccess lacks 'token'")
    return SecretAccess(tuple(urls), token, float(seconds), access.optional("ca", str, ""))


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
