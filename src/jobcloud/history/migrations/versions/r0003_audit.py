"""The entries of the audit log. Each step is skipped if it is done, so that a failed migration can be repeated."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text

revision = "0003"
down_revision = "0002"

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "sqlite_with_rowid": False,
}
_LENGTHS = {"kind": 20, "request": 16, "subject": 300, "client": 60, "team": 100, "target": 500, "outcome": 20}


def upgrade() -> None:
    op.create_table(
        "history_audit",
        Column("id", String(32), nullable=False, primary_key=True),
        Column("chain", String(16), nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        *(Column(name, String(length), nullable=False) for name, length in _LENGTHS.items()),
        Column("entry", Text(), nullable=False),
        if_not_exists=True,
        **_OPTIONS,
    )
    for name in ("subject", "target", "team", "request"):
        op.create_index(f"history_audit_{name}", "history_audit", [name, "id"], if_not_exists=True)
