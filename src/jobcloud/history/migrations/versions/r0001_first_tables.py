"""The first tables. Each step is skipped if it is done, so that a failed migration can be repeated."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text
from sqlalchemy.sql import quoted_name
from sqlalchemy.types import TIMESTAMP

revision = "0001"
down_revision = None

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    # SQLite then needs one tree less for each table.
    "sqlite_with_rowid": False,
}


def upgrade() -> None:
    _table(
        "history_runs",
        _text("id", 32, primary_key=True),
        _text("run_id", 255),
        _text("team", 32),
        _text("app", 160),
        _text("job", 160),
        _text("cause", 20),
        _text("state", 20),
        *_numbers(BigInteger, "fired_ms", "ended_ms"),
        *_numbers(Integer, "shards", "finished", "failed", "killed", "cancelled", "dead"),
    )
    _index("history_runs_job", "history_runs", "job", "id")
    _index("history_runs_app", "history_runs", "app", "id")
    _index("history_runs_team", "history_runs", "team", "id")
    _index("history_runs_state", "history_runs", "state", "id")
    _index("history_runs_job_state", "history_runs", "job", "state", "id")
    _table(
        "history_attempts",
        _text("id", 32, primary_key=True),
        _text("task_id", 255),
        _text("run_id", 255),
        _text("team", 32),
        _text("app", 160),
        _text("job", 160),
        *_numbers(Integer, "item"),
        _text("step", 10),
        *_numbers(Integer, "attempt"),
        _text("execution", 20),
        _text("run_cause", 20),
        _text("agent_id", 255),
        _text("hostname", 255),
        _text("executor_id", 255),
        _text("outcome", 20),
        _text("cause", 50),
        Column("message", Text(), nullable=False),
        *_numbers(BigInteger, "fired_ms", "created_ms", "started_ms", "ended_ms"),
        Column("queued_ms", BigInteger),
        Column("duration_ms", BigInteger),
        *_numbers(BigInteger, "cpus", "mem"),
        *_numbers(Integer, "result_bytes"),
    )
    _index("history_attempts_job", "history_attempts", "job", "id")
    _index("history_attempts_app", "history_attempts", "app", "id")
    _index("history_attempts_team", "history_attempts", "team", "id")
    _index("history_attempts_run", "history_attempts", "run_id", "id")
    _table("history_marks", _text("name", 50, primary_key=True), *_numbers(BigInteger, "value"))
    _table(
        _bare("JOB_EXECUTION_LOG"),
        _text("id", 40, primary_key=True),
        _text("job_name", 100),
        _text("task_id", 255),
        _text("hostname", 255),
        _text("ip", 50),
        *_numbers(Integer, "sharding_item"),
        _text("execution_source", 20),
        Column("failure_cause", String(4000)),
        *_numbers(Integer, "is_success"),
        Column("start_time", TIMESTAMP()),
        Column("complete_time", TIMESTAMP()),
    )
    _table(
        _bare("JOB_STATUS_TRACE_LOG"),
        _text("id", 40, primary_key=True),
        _text("job_name", 100),
        _text("original_task_id", 255),
        _text("task_id", 255),
        _text("slave_id", 50),
        _text("source", 50),
        _text("execution_type", 20),
        _text("sharding_item", 100),
        _text("state", 20),
        Column("message", String(4000)),
        Column("creation_time", TIMESTAMP()),
    )
    _index(_bare("TASK_ID_STATE_INDEX"), _bare("JOB_STATUS_TRACE_LOG"), "task_id", "state")


def _text(name: str, length: int, **more: Any) -> Column[str]:
    return Column(name, String(length), nullable=False, **more)


def _numbers(kind: type[Integer], *names: str) -> list[Column[int]]:
    return [Column(name, kind, nullable=False) for name in names]


def _table(name: str, *columns: Column[Any]) -> None:
    op.create_table(name, *columns, if_not_exists=True, **_OPTIONS)


def _index(name: str, table: str, *columns: str) -> None:
    op.create_index(name, table, list(columns), if_not_exists=True)


def _bare(name: str) -> quoted_name:
    return quoted_name(name, quote=False)
