"""What job authors import: the job types and the context a shard runs with.

Importing it loads nothing but a few standard modules. It runs on agents: standard library only, CPython >= 3.9.

    from jobcloud.job import ShardingContext, SimpleJob

    class Settle(SimpleJob):
        def execute(self, ctx: ShardingContext) -> None:
            ctx.logger.info("settling part %d of %d", ctx.sharding_item, ctx.sharding_total_count)
"""

from __future__ import annotations

import abc
import inspect
import json
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, Dict, Iterable, Mapping, Optional, Protocol, Sequence, TypeVar, Union

# Progress beyond this is no number in other languages.
_LARGEST = 10.0**308


class JobLogger(Protocol):
    """The part of `logging.Logger` that jobs can rely on."""

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
    """Raised at a safe point of a job that was asked to stop; letting it pass ends the shard as KILLED."""


def _never() -> bool:
    return False


def _unheard(done: float, total: Optional[float]) -> None:
    pass


@dataclass(frozen=True)
class ShardingContext:
    """One shard's share of a firing.

    The first six fields are Elastic-Job's. `run_id` is the same for every attempt at this shard of this firing,
    `attempt` counts from 1, and `fence` only ever grows: a job that writes `fence` along with its results and refuses
    smaller ones has its effects once, whatever is retried. `fire_time_ms` is the instant the firing was due, in
    milliseconds since the Unix epoch, None for one triggered by hand.
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
    on_progress: Callable[[float, Optional[float]], None] = field(default=_unheard, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether this shard was asked to stop. Long jobs look at it now and then, clean up and return."""
        return self.is_cancelled()

    def raise_if_cancelled(self) -> None:
        """A safe point: raises JobCancelled once the shard was asked to stop."""
        if self.cancelled:
            raise JobCancelled(f"shard {self.sharding_item} of {self.job_name} was asked to stop")

    def progress(self, done: float, total: Optional[float] = None) -> None:
        """Say how far this shard is: `done` of `total` units of the job's own. About one report a second is passed on.

        Raises ValueError where a number is negative or none.
        """
        for number in (done, 0 if total is None else total):
            if not isinstance(number, (int, float)) or not 0 <= number < _LARGEST:
                raise ValueError(f"progress({done!r}, {total!r}): give numbers from 0 on")
        self.on_progress(done, total)

    def as_dict(self) -> Dict[str, Any]:
        """The six fields by Elastic-Job's names."""
        return {
            "jobName": self.job_name,
            "taskId": self.task_id,
            "shardingTotalCount": self.sharding_total_count,
            "jobParameter": self.job_parameter,
            "shardingItem": self.sharding_item,
            "shardingParameter": self.sharding_parameter,
        }

    def to_json(self) -> str:
        """The six fields as JSON text: what a SCRIPT job gets as its last argument."""
        return json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **more: Any) -> ShardingContext:
        """The inverse of `as_dict`; `more` are fields by their Python names."""
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
    """One call per shard and firing. `execute` may be an `async def`."""

    @abc.abstractmethod
    def execute(self, ctx: ShardingContext) -> Any:
        """Do the work. Returning is success, an exception is failure; a small JSON value returned is kept as result."""


class DataflowJob(abc.ABC):
    """Fetch, then process what was fetched; with `streamingProcess`, again and again until nothing is fetched.

    Both methods may be `async def`s.
    """

    @abc.abstractmethod
    def fetch_data(self, ctx: ShardingContext) -> Optional[Iterable[Any]]:
        """The next items of this shard; None or nothing ends the run."""

    @abc.abstractmethod
    def process_data(self, ctx: ShardingContext, data: Sequence[Any]) -> Any:
        """Work on what `fetch_data` returned, which is never empty here."""


class JobListener:
    """Called around each run of a shard, in the shard's thread; made once per worker, so it is called by many threads.

    Both methods may be `async def`s.
    """

    def before_job_executed(self, ctx: ShardingContext) -> Any:
        """The job is about to run. An exception fails the shard; the job does not run then."""

    def after_job_executed(self, ctx: ShardingContext, error: Optional[BaseException]) -> Any:
        """The job has ended, with `error` or with success. Called wherever `before_job_executed` has returned.

        An exception here fails a shard that had succeeded.
        """


@dataclass(frozen=True)
class FiringContext:
    """What a FiringListener learns of the firing as a whole.

    `run_id` is the firing's; `attempt` and `fence` are of this call, as in ShardingContext. `sharding_parameters` are
    by item, where there are any. `outcomes` counts the shards by how they ended (FINISHED, FAILED, KILLED, CANCELLED);
    empty before the firing.
    """

    job_name: str = ""
    task_id: str = ""
    sharding_total_count: int = 1
    job_parameter: str = ""
    sharding_parameters: Mapping[int, str] = field(default_factory=dict)
    run_id: str = ""
    attempt: int = 1
    fence: int = 0
    fire_time_ms: Optional[int] = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    logger: JobLogger = field(default_factory=_SilentLogger, repr=False, compare=False)
    is_cancelled: Callable[[], bool] = field(default=_never, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether this call was asked to stop."""
        return self.is_cancelled()

    @property
    def succeeded(self) -> bool:
        """Whether every shard has finished well."""
        return self.outcomes.get("FINISHED", 0) == self.sharding_total_count


class FiringListener:
    """Called once before the first shard of a firing starts and once after the last has ended, wherever there is room.

    Each call is a task of its own: one that was lost with its agent is made again, with the same `run_id` and a higher
    `fence`. Both methods may be `async def`s.
    """

    def before_firing(self, ctx: FiringContext) -> Any:
        """No shard has started. An exception cancels the firing: no shard starts, and `after_firing` is not called."""

    def after_firing(self, ctx: FiringContext) -> Any:
        """Every shard has ended; `ctx.outcomes` tells how. An exception makes the run a failed one."""


class ErrorHandler:
    """Told of every exception that a job lets pass; made once per worker, so it is called by many threads."""

    def handle(self, ctx: ShardingContext, error: BaseException) -> Optional[bool]:
        """True: it is dealt with, the shard has FINISHED. Anything else: the shard has FAILED with `error`."""
        return None


Function = TypeVar("Function", bound=Callable[[ShardingContext], Any])
Job = Union[SimpleJob, DataflowJob, Callable[[ShardingContext], Any]]


def job(function: Function) -> Function:
    """Decorator of a function, or an `async def`, that is a SIMPLE job: checked when its module is imported.

    A function works as a job without it too; then what is wrong with it shows when it first runs. Raises TypeError for
    what cannot be called with one argument.
    """
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name} cannot be a job: it must take one argument, the ShardingContext ({error})") from None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} cannot be a job: {_YIELDS}")
    return function


_YIELDS = "it yields, so that calling it runs nothing of it; return once the work is done"


def run_coroutine(coroutine: Awaitable[Any]) -> Any:
    """Its result, awaited in an event loop of its own."""
    import asyncio

    async def wait() -> Any:
        return await coroutine

    return asyncio.run(wait())


def settled(value: Any, *, complete: Callable[[Awaitable[Any]], Any] = run_coroutine) -> Any:
    """`value`, or what it gives where it is to be awaited."""
    return complete(value) if hasattr(value, "__await__") else value


def perform(
    job: Job,
    ctx: ShardingContext,
    *,
    streaming: bool = False,
    complete: Callable[[Awaitable[Any]], Any] = run_coroutine,
) -> Any:
    """Run one shard in the calling thread and return the job's result (None for a dataflow job).

    What the job's functions give to await goes to `complete`, which returns the result. Raises whatever the job raises,
    JobCancelled between two rounds of a streaming job that was asked to stop, and TypeError where `job` is none.
    """

    def completed(value: Any) -> Any:
        return settled(value, complete=complete)

    if isinstance(job, SimpleJob):
        return _done(job.execute(ctx), completed)
    if isinstance(job, DataflowJob):
        return _perform_dataflow(job, ctx, streaming, completed)
    if callable(job):
        return _done(job(ctx), completed)
    raise TypeError(f"{job!r} is no job: make it a SimpleJob, a DataflowJob or a function of one argument")


def _done(value: Any, completed: Callable[[Any], Any]) -> Any:
    """A generator that nobody runs would look like success."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"{value.__qualname__} is no job: {_YIELDS}")
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
    """`data`, listed where it has no length; None where it is empty (not asked by truth: an array may have none)."""
    if data is None:
        return None
    sized: Any = data if hasattr(data, "__len__") else list(data)
    return sized if len(sized) else None
