"""The tables of the history.

The ids of rows begin with an instant in hexadecimal milliseconds, so their order is an order of time: `runs` by fire
time, `attempts` by end. Entries of the audit log of one instant are in the order of their numbers, and configurations
too. The next page begins behind the last id of a page, and a range of time is a range of ids. An index on (job, id)
finds both, in every database. The rest of an id is a hash of the run or the task, so a row that is written twice is one
row.

Instants are integers: milliseconds since the Unix epoch. Only the two tables of Elastic-Job use the database's types
for times. These times are in UTC, and MariaDB cuts them to whole seconds. The two tables have the names, columns and
index that Elastic-Job 2.1.5 gives them, and further indexes for searches (`elastic_job_search`).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import TIMESTAMP

metadata = MetaData()
#: the values of a row, in the order of the columns
Row: TypeAlias = tuple[Any, ...]

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "sqlite_with_rowid": False,
}
_KEY, _RUN, _TASK = String(160), String(255), String(255)
_MESSAGE = Text()
_TIME = TIMESTAMP()


def _id(length: int = 32) -> Column[str]:
    return Column("id", String(length), primary_key=True)


runs = Table(
    "history_runs",
    metadata,
    _id(),
    Column("run_id", _RUN, nullable=False),
    Column("team", String(32), nullable=False),
    Column("app", _KEY, nullable=False),
    Column("job", _KEY, nullable=False),
    Column("cause", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("fired_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("shards", Integer, nullable=False),
    Column("finished", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("killed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("dead", Integer, nullable=False),
    Index("history_runs_job", "job", "id"),
    Index("history_runs_app", "app", "id"),
    Index("history_runs_team", "team", "id"),
    Index("history_runs_state", "state", "id"),
    Index("history_runs_job_state", "job", "state", "id"),
    Index("history_runs_run", "run_id"),
    Index("history_runs_team_state", "team", "state", "id"),
    Index("history_runs_app_state", "app", "state", "id"),
    **_OPTIONS,
)

attempts = Table(
    "history_attempts",
    metadata,
    _id(),
    Column("task_id", _TASK, nullable=False),
    Column("run_id", _RUN, nullable=False),
    Column("team", String(32), nullable=False),
    Column("app", _KEY, nullable=False),
    Column("job", _KEY, nullable=False),
    Column("item", Integer, nullable=False),
    Column("step", String(10), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("execution", String(20), nullable=False),
    Column("run_cause", String(20), nullable=False),
    Column("agent_id", String(255), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("executor_id", String(255), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("cause", String(50), nullable=False),
    Column("message", _MESSAGE, nullable=False),
    Column("fired_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger),
    Column("duration_ms", BigInteger),
    Column("cpus", BigInteger, nullable=False),
    Column("mem", BigInteger, nullable=False),
    Column("result_bytes", Integer, nullable=False),
    Index("history_attempts_job", "job", "id"),
    Index("history_attempts_app", "app", "id"),
    Index("history_attempts_team", "team", "id"),
    Index("history_attempts_run", "run_id", "id"),
    Index("history_attempts_outcome", "team", "outcome", "id"),
    **_OPTIONS,
)

# The values that the retention has to remember, by name.
marks = Table(
    "history_marks",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("value", BigInteger, nullable=False),
    **_OPTIONS,
)


def _bare(name: str) -> quoted_name:
    """A name that SQL has without quotes, as in Elastic-Job. PostgreSQL folds its capitals, and MariaDB keeps them."""
    return quoted_name(name, quote=False)


executions = Table(
    _bare("JOB_EXECUTION_LOG"),
    metadata,
    _id(40),
    Column("job_name", String(100), nullable=False),
    Column("task_id", String(255), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("ip", String(50), nullable=False),
    Column("sharding_item", Integer, nullable=False),
    Column("execution_source", String(20), nullable=False),
    Column("failure_cause", String(4000)),
    Column("is_success", Integer, nullable=False),
    Column("start_time", _TIME),
    Column("complete_time", _TIME),
    Index("history_executions_start", "start_time", "id", "job_name"),
    Index("history_executions_job", "job_name", "start_time", "id"),
    Index("history_executions_success", "is_success", "start_time", "id"),
    Index("history_executions_job_success", "job_name", "is_success", "start_time", "id"),
    Index("history_executions_ip", "ip", "start_time", "id"),
    Index("history_executions_task", "task_id"),
    **_OPTIONS,
)

traces = Table(
    _bare("JOB_STATUS_TRACE_LOG"),
    metadata,
    _id(40),
    Column("job_name", String(100), nullable=False),
    Column("original_task_id", String(255), nullable=False),
    Column("task_id", String(255), nullable=False),
    Column("slave_id", String(50), nullable=False),
    Column("source", String(50), nullable=False),
    Column("execution_type", String(20), nullable=False),
    Column("sharding_item", String(100), nullable=False),
    Column("state", String(20), nullable=False),
    Column("message", String(4000)),
    Column("creation_time", _TIME),
    Index(_bare("TASK_ID_STATE_INDEX"), "task_id", "state"),
    Index("history_traces_job", "job_name", "id"),
    Index("history_traces_state", "state", "id"),
    Index("history_traces_agent", "slave_id", "id"),
    **_OPTIONS,
)

audit = Table(
    "history_audit",
    metadata,
    _id(),
    Column("chain", String(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("request", String(16), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("client", String(60), nullable=False),
    Column("team", String(100), nullable=False),
    Column("target", String(500), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("entry", _MESSAGE, nullable=False),
    Index("history_audit_subject", "subject", "id"),
    Index("history_audit_target", "target", "id"),
    Index("history_audit_team", "team", "id"),
    Index("history_audit_request", "request", "id"),
    **_OPTIONS,
)

# A configuration of an app or a job (`kind`). MariaDB's TEXT has at most 64 KB.
configurations = Table(
    "history_configurations",
    metadata,
    _id(),
    Column("kind", String(10), nullable=False),
    Column("name", _KEY, nullable=False),
    Column("team", String(32), nullable=False),
    Column("revision", String(16), nullable=False),
    Column("author", String(300), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("config", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    Index("history_configurations_name", "kind", "name", "id"),
    Index("history_configurations_team", "team", "id"),
    **_OPTIONS,
)

# The notes of a run have the numbers 1, 2, …, so that two writers cannot write more notes than are allowed.
notes = Table(
    "history_notes",
    metadata,
    _id(),
    Column("run_id", _RUN, nullable=False),
    Column("job", _KEY, nullable=False),
    Column("number", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("author", String(300), nullable=False),
    Column("text", _MESSAGE, nullable=False),
    Index("history_notes_run", "run_id", "number", unique=True),
    Index("history_notes_job", "job", "id"),
    **_OPTIONS,
)

# Sums of samples (`samples`): `step_ms` is the length of the time that a row is of. `samples` is the number of samples.
samples = Table(
    "history_samples",
    metadata,
    _id(),
    Column("team", String(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("step_ms", Integer, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("agents", BigInteger, nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("disabled", BigInteger, nullable=False),
    Column("running_jobs", BigInteger, nullable=False),
    Column("running", BigInteger, nullable=False),
    Column("waiting", BigInteger, nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("used_cpus", BigInteger, nullable=False),
    Column("used_mem", BigInteger, nullable=False),
    Column("used_disk", BigInteger, nullable=False),
    Column("used_gpus", BigInteger, nullable=False),
    Column("used_ports", BigInteger, nullable=False),
    Column("total_cpus", BigInteger, nullable=False),
    Column("total_mem", BigInteger, nullable=False),
    Column("total_disk", BigInteger, nullable=False),
    Column("total_gpus", BigInteger, nullable=False),
    Column("total_ports", BigInteger, nullable=False),
    Index("history_samples_team", "team", "id"),
    Index("history_samples_step", "step_ms", "id"),
    **_OPTIONS,
)

#: the tables that events go to, by the name of the field of a batch
WRITTEN: Final = {
    "runs": runs,
    "attempts": attempts,
    "executions": executions,
    "traces": traces,
    "audit": audit,
    "configurations": configurations,
    "samples": samples,
}
#: the tables whose size counts
SIZED: Final = (*WRITTEN.values(), notes)
#: the tables whose rows may be written again with other values. The rows of other tables keep their first values.
REPLACED: Final = frozenset({"runs"})
TIMES: Final = frozenset({"start_time", "complete_time", "creation_time"})

_MAX_INSTANT = (1 << 48) - 1
_EPOCH = datetime(1970, 1, 1)  # the drivers want UTC without a zone
_LAST_MS = 253_402_300_799_000  # the last second that a datetime can hold


def row_id(instant: int, name: str) -> str:
    """The id of the row of a run or a task."""
    return prefix(instant) + _hash(name)


# An attempt has about five rows.
@lru_cache(maxsize=20_000)
def _hash(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=10).hexdigest()


def prefix(instant: int) -> str:
    """The beginning of the ids of all rows of an instant. In the order of ids, it comes before all these ids."""
    if instant >> 48:
        instant = min(max(instant, 0), _MAX_INSTANT)
    return f"{instant:012x}"


def utc(instant: int) -> datetime:
    """An instant as the tables of Elastic-Job hold it: in UTC, without a zone. It is at most the end of year 9999."""
    return _EPOCH + timedelta(milliseconds=min(instant, _LAST_MS))


def instant_of(moment: datetime | None) -> int:
    """The instant of a time in the tables of Elastic-Job; 0 for none."""
    return (moment - _EPOCH) // timedelta(milliseconds=1) if moment is not None else 0
