"""Configurations of apps and jobs, notes of runs, and indexes for runs by team, app and state.

Each step is skipped if it is done, so that a failed migration can be repeated.
"""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "0004"
down_revision = "0003"

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "sqlite_with_rowid": False,
}


def upgrade() -> None:
    op.create_table(
        "history_configurations",
        _text("id", 32, primary_key=True),
        _text("kind", 10),
        _text("name", 160),
        _text("team", 32),
        _text("revision", 16),
        _text("author", 300),
        Column("at_ms", BigInteger, nullable=False),
        Column("removed", Integer, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("config", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        if_not_exists=True,
        **_OPTIONS,
    )
    _index("history_configurations_name", "history_configurations", "kind", "name", "id")
    _index("history_configurations_team", "history_configurations", "team", "id")
    op.create_table(
        "history_notes",
        _text("id", 32, primary_key=True),
        _text("run_id", 255),
        _text("job", 160),
        Column("number", Integer, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        _text("author", 300),
        Column("text", Text(), nullable=False),
        if_not_exists=True,
        **_OPTIONS,
    )
    _index("history_notes_run", "history_notes", "run_id", "number", unique=True)
    _index("history_notes_job", "history_notes", "job", "id")
    _index("history_runs_run", "history_runs", "run_id")
    _index("history_runs_team_state", "history_runs", "team", "state", "id")
    _index("history_runs_app_state", "history_runs", "app", "state", "id")


def _text(name: str, length: int, **more: Any) -> Column[str]:
    return Column(name, String(length), nullable=False, **more)


def _index(name: str, table: str, *columns: str, unique: bool = False) -> None:
    op.create_index(name, table, list(columns), unique=unique, if_not_exists=True)
