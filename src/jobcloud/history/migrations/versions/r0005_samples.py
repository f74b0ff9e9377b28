"""Samples of what is registered, runs and waits. A step that is done is skipped, so a migration can be repeated."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String

revision = "0005"
down_revision = "0004"

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "sqlite_with_rowid": False,
}
_SUMS = (
    "agents", "jobs", "disabled", "running_jobs", "running", "waiting", "runs",
    "used_cpus", "used_mem", "used_disk", "used_gpus", "used_ports",
    "total_cpus", "total_mem", "total_disk", "total_gpus", "total_ports",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "history_samples",
        Column("id", String(32), nullable=False, primary_key=True),
        Column("team", String(32), nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("step_ms", Integer, nullable=False),
        Column("samples", Integer, nullable=False),
        *(Column(name, BigInteger, nullable=False) for name in _SUMS),
        if_not_exists=True,
        **_OPTIONS,
    )
    op.create_index("history_samples_team", "history_samples", ["team", "id"], if_not_exists=True)
    op.create_index("history_samples_step", "history_samples", ["step_ms", "id"], if_not_exists=True)
