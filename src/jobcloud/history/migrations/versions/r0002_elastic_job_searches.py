"""Indexes for the searches and statistics of Elastic-Job-Cloud's API. An index that exists is left alone."""

from alembic import op
from sqlalchemy.sql import quoted_name

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _index("history_attempts_outcome", "history_attempts", "team", "outcome", "id")
    executions = quoted_name("JOB_EXECUTION_LOG", quote=False)
    _index("history_executions_start", executions, "start_time", "id", "job_name")
    _index("history_executions_job", executions, "job_name", "start_time", "id")
    _index("history_executions_success", executions, "is_success", "start_time", "id")
    _index("history_executions_job_success", executions, "job_name", "is_success", "start_time", "id")
    _index("history_executions_ip", executions, "ip", "start_time", "id")
    _index("history_executions_task", executions, "task_id")
    traces = quoted_name("JOB_STATUS_TRACE_LOG", quote=False)
    _index("history_traces_job", traces, "job_name", "id")
    _index("history_traces_state", traces, "state", "id")
    _index("history_traces_agent", traces, "slave_id", "id")


def _index(name: str, table: str, *columns: str) -> None:
    op.create_index(name, table, list(columns), if_not_exists=True)
