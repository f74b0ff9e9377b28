"""The API for job authors: job types, listeners, and the context of a shard.

The module runs on agents, so it uses the standard library only, and runs on CPython 3.9 or newer. Its import loads only
a few standard modules.

    from jobcloud.job import ShardingContext, SimpleJob

    class Report(SimpleJob):
        def execute(self, ctx: ShardingContext) -> None:
            ctx.logger.info("part %d of %d", ctx.sharding_item, ctx.sharding_total_count)
"""

from __future__ import annotations

import abc
import inspect
import json
from dataclasses import dataclass, field
from typing import (
    Any,
    Awaitable,
    Callable,
    Dict,
    Iterable,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

# Some JSON parsers in other languages read larger numbers as infinity.
_MAX_PROGRESS = 10.0**308


class JobLogger(Protocol):
    """The methods of `logging.Logger` that jobs can use."""

    def debug(self, msg: object, *args: object) -> None: ...
    def info(self, msg: object, *args: object) -> None: ...
    def warning(self, msg: object, *args: object) -> None: ...
    def error(self, msg: object, *args: object) -> None: ...
    def exception(self, msg: object, *args: object) -> None: ...


class _SilentLogger:
    def debug(self, msg: object, *args: object) -> None:
        pass

    info = warning = error = exception = debug


class JobCancelled(Exception):
    """Raised at a safe point of a job that was asked to stop. Unless the job catches it, the shard ends as KILLED."""


def _never() -> bool:
    return False


def _ignore_progress(done: float, total: Optional[float]) -> None:
    pass


@dataclass(frozen=True)
class ShardingContext:
    """The context of one execution of a shard.

    The first six fields are those of Elastic-Job. `run_id` is the same for all attempts of this shard in this run.
    `attempt` counts from 1. `fence` rises with every attempt: a job that stores `fence` with its results, and rejects
    writes with a smaller `fence`, takes effect once even if its shards are repeated. `fire_time_ms` is the instant at
    which the run was due or triggered, in milliseconds since the Unix epoch; None if it is unknown. `ports` are the
    ports of the host that belong to the shard (`portCount`). `team` is the team of the job; `job_name` is unique within
    it. `traceparent` names the span of this attempt for OpenTelemetry, in the form of W3C Trace Context; "" without a
    trace. `secrets` has the job's secrets by key: the value, or the path of a file for a `secret-file`.
    `files` is the folder with the files of the app and the job, or "" without any. It is removed when the attempt ends.
    """

    job_name: str = ""
    task_id: str = ""
    sharding_total_count: int = 1
    job_parameter: str = ""
    sharding_item: int = 0
    sharding_parameter: str = ""
    run_id: str = ""
    attempt: int = 1
    fence: int = 0
    fire_time_ms: Optional[int] = None
    logger: JobLogger = field(default_factory=_SilentLogger, repr=False, compare=False)
    is_cancelled: Callable[[], bool] = field(default=_never, repr=False, compare=False)
    on_progress: Callable[[float, Optional[float]], None] = field(default=_ignore_progress, repr=False, compare=False)
    ports: Tuple[int, ...] = ()
    team: str = "default"
    traceparent: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    files: str = ""

    @property
    def cancelled(self) -> bool:
        """Whether this shard was asked to stop. A long job should check it regularly, clean up and return."""
        return self.is_cancelled()

    def raise_if_cancelled(self) -> None:
        """A safe point: raises JobCancelled if the shard was asked to stop."""
        if self.cancelled:
            raise JobCancelled(f"shard {self.sharding_item} of {self.job_name} was asked to stop")

    def progress(self, done: float, total: Optional[float] = None) -> None:
        """Report progress: `done` of `total`, in units of the job. About one report a second is passed on.

        Raises ValueError if an argument is negative or not a finite number.
        """
        for number in (done, 0 if total is None else total):
            if not isinstance(number, (int, float)) or not 0 <= number < _MAX_PROGRESS:
                raise ValueError(f"progress({done!r}, {total!r}): the numbers must not be negative")
        self.on_progress(done, total)

    def as_dict(self) -> Dict[str, Any]:
        """The first six fields, under their names in Elastic-Job."""
        return {
            "jobName": self.job_name,
            "taskId": self.task_id,
            "shardingTotalCount": self.sharding_total_count,
            "jobParameter": self.job_parameter,
            "shardingItem": self.sharding_item,
            "shardingParameter": self.sharding_parameter,
        }

    def to_json(self) -> str:
        """The first six fields as JSON text."""
        return json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **more: Any) -> ShardingContext:
        """The inverse of `as_dict`. `more`: further fields by their Python names."""
        return cls(
            job_name=fields["jobName"],
            task_id=fields["taskId"],
            sharding_total_count=fields["shardingTotalCount"],
            job_parameter=fields["jobParameter"],
            sharding_item=fields["shardingItem"],
            sharding_parameter=fields["shardingParameter"],
            **more,
        )


class SimpleJob(abc.ABC):
    """A job with one call for each execution of a shard. `execute` may be an `async def`."""

    @abc.abstractmethod
    def execute(self, ctx: ShardingContext) -> Any:
        """Do the work. An exception means failure, and a return means success.

        If the returned value is a small JSON value, it is stored as the result.
        """


class DataflowJob(abc.ABC):
    """A job that fetches items, then processes them. With `streamingProcess`, it repeats both until no items are left.

    Both methods may be `async def`.
    """

    @abc.abstractmethod
    def fetch_data(self, ctx: ShardingContext) -> Optional[Iterable[Any]]:
        """The next items of this shard. If they are None or empty, the execution ends."""

    @abc.abstractmethod
    def process_data(self, ctx: ShardingContext, data: Sequence[Any]) -> Any:
        """Process the items that `fetch_data` returned, at least one."""


class JobListener:
    """Its methods are called before and after each execution of a shard, in the thread of the shard.

    A worker creates one, and many threads call it. Both methods may be `async def`.
    """

    def before_job_executed(self, ctx: ShardingContext) -> Any:
        """The job is about to run. If this method raises an exception, the shard fails, and the job does not run."""

    def after_job_executed(self, ctx: ShardingContext, error: Optional[BaseException]) -> Any:
        """The job has ended; `error` is None after success. Called if `before_job_executed` has returned.

        If this method raises an exception, a shard that had succeeded fails.
        """


@dataclass(frozen=True)
class FiringContext:
    """The context of a FiringListener call: the firing as a whole.

    `run_id` is that of the firing; `attempt`, `fence` and `traceparent` belong to this call, as in ShardingContext.
    `team` is the team of the job. `secrets` and `files` are those of the job, as in ShardingContext.

    `sharding_parameters` maps items to their parameters. If the parameters take more than 64 KiB as JSON, the map is
    empty, and `sharding_parameters_left_out` is true. `outcomes` counts the shards by final state (FINISHED, FAILED,
    KILLED, CANCELLED); it is empty before the firing.
    """

    job_name: str = ""
    task_id: str = ""
    sharding_total_count: int = 1
    job_parameter: str = ""
    sharding_parameters: Mapping[int, str] = field(default_factory=dict)
    sharding_parameters_left_out: bool = False
    run_id: str = ""
    attempt: int = 1
    fence: int = 0
    fire_time_ms: Optional[int] = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    logger: JobLogger = field(default_factory=_SilentLogger, repr=False, compare=False)
    is_cancelled: Callable[[], bool] = field(default=_never, repr=False, compare=False)
    team: str = "default"
    traceparent: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    files: str = ""

    @property
    def cancelled(self) -> bool:
        """Whether this call was asked to stop."""
        return self.is_cancelled()

    @property
    def succeeded(self) -> bool:
        """Whether every shard has FINISHED."""
        return self.outcomes.get("FINISHED", 0) == self.sharding_total_count


class FiringListener:
    """Its methods are called once before the first shard of a firing starts, and once after the last shard has ended.

    Each call is a task of its own on any agent. A call that the cluster loses is repeated, with the same `run_id`
    and a higher `fence`. Both methods may be `async def`.
    """

    def before_firing(self, ctx: FiringContext) -> Any:
        """No shard has started. An exception cancels the firing: no shard starts, and `after_firing` is not called."""

    def after_firing(self, ctx: FiringContext) -> Any:
        """Every shard has ended, with the states in `ctx.outcomes`. An exception makes the run fail."""


class ErrorHandler:
    """Its method is called with each exception that makes an execution fail.

    It is not called if the job has noticed that it was asked to stop. A worker creates one handler, and many threads
    call it.
    """

    def handle(self, ctx: ShardingContext, error: BaseException) -> Optional[bool]:
        """True: the error is handled and the shard has FINISHED. Any other value: the shard has FAILED with `error`."""
        return None


Function = TypeVar("Function", bound=Callable[[ShardingContext], Any])
Job = Union[SimpleJob, DataflowJob, Callable[[ShardingContext], Any]]


def job(function: Function) -> Function:
    """Decorator for a function, or an `async def`, that is a SIMPLE job. It checks the function at import.

    The decorator is optional: without it, such errors appear only when the job first runs. Raises TypeError if the
    function cannot be called with one argument, or is a generator.
    """
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name} cannot be a job: it must take one argument, the ShardingContext ({error})") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} cannot be a job: {_YIELDS}")
    return function


_YIELDS = "it yields, so a call runs none of its code; use return instead"


def run_coroutine(coroutine: Awaitable[Any]) -> Any:
    """Await a coroutine in a new event loop and return its result."""
    import asyncio

    async def wait() -> Any:
        return await coroutine

    return asyncio.run(wait())


def resolve(value: Any, *, complete: Callable[[Awaitable[Any]], Any] = run_coroutine) -> Any:
    """`value`, or its result if it is awaitable."""
    return complete(value) if hasattr(value, "__await__") else value


def perform(
    job: Job,
    ctx: ShardingContext,
    *,
    streaming: bool = False,
    complete: Callable[[Awaitable[Any]], Any] = run_coroutine,
) -> Any:
    """Run one shard in the calling thread and return the job's result (None for a dataflow job).

    `complete` awaits the awaitables that the job returns. Raises every exception of the job, JobCancelled between two
    rounds of a streaming job that was asked to stop, and TypeError if `job` is not a job.
    """

    def completed(value: Any) -> Any:
        return resolve(value, complete=complete)

    if isinstance(job, SimpleJob):
        return _done(job.execute(ctx), completed)
    if isinstance(job, DataflowJob):
        return _perform_dataflow(job, ctx, streaming, completed)
    if callable(job):
        return _done(job(ctx), completed)
    raise TypeError(f"{job!r} is not a job: make it a SimpleJob, a DataflowJob or a function of one argument")


def _done(value: Any, completed: Callable[[Any], Any]) -> Any:
    """The completed result. Raises TypeError for a generator: nobody would run it, and it would look like success."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"{value.__qualname__} is not a job: {_YIELDS}")
    return completed(value)


def _perform_dataflow(job: DataflowJob, ctx: ShardingContext, streaming: bool, completed: Callable[[Any], Any]) -> None:
    while True:
        data = _fetched(completed(job.fetch_data(ctx)))
        if data is None:
            return
        _done(job.process_data(ctx, data), completed)
        if not streaming:
            return
        ctx.raise_if_cancelled()


def _fetched(data: Optional[Iterable[Any]]) -> Any:
    """`data`, as a list if it has no length; None if it is empty. Arrays may have no truth value, so len() is used."""
    if data is None:
        return None
    sized: Any = data if hasattr(data, "__len__") else list(data)
    return sized if len(sized) else None
