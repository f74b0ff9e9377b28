"""The questions to the history, and its answers. The API imports them without the libraries of databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from jobcloud.config import Resources

Found: TypeAlias = Mapping[str, Any]
By: TypeAlias = Literal["job", "app", "team", "total"]
#: notes of one run
MAX_NOTES: Final = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter. Empty fields match everything. At most one of team, app, job and run is set: each has its own index.

    `since_ms` ≤ instant < `until_ms`; 0: no limit. The instant is the fire time of a run, or the end of an attempt.
    `states`: only rows in one of these states. `teams`: only rows of these teams, if no other of the four is set.
    """

    team: str = ""
    app: str = ""
    job: str = ""
    run: str = ""
    states: tuple[str, ...] = ()
    since_ms: int = 0
    until_ms: int = 0
    teams: frozenset[str] | None = None


@dataclass(slots=True)
class Quantiles:
    """The nearest-rank percentiles of durations in milliseconds. None if there are no values."""

    p50: int | None = None
    p95: int | None = None
    p99: int | None = None


@dataclass(slots=True)
class Statistics:
    """Statistics of the attempts of the job, app or team `name`, or of all attempts ("").

    The use of resources counts from the start of an attempt.
    """

    name: str
    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    killed: int = 0
    cpu_seconds: float = 0.0
    memory_mb_seconds: float = 0.0
    duration: Quantiles | None = None
    queued: Quantiles | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """The means of `samples` samples. The amounts are thousandths."""

    samples: int
    jobs: float
    disabled: float
    running_jobs: float
    running: float
    waiting: float
    runs: float
    agents: float
    used: Resources
    total: Resources


@dataclass(slots=True)
class Step:
    """The known facts about `at` ≤ instant < `until`.

    `outcomes`: attempts by outcome. `runs`: by state. `shards`: those of the runs, by state. None: the history does not
    reach back so far. `means` is None without a sample.
    """

    at: int
    until: int
    attempts: Statistics | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] | None = None
    shards: Counter[str] | None = None
    means: Means | None = None
