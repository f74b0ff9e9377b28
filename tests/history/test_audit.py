"""Entries of the audit log in the three databases: writes, pages, filters, retention, spool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select
from tests.audit_kit import CHAIN, START, make_entry
from tests.history_kit import analyse, assert_no_sort, make_attempt, plan

from jobcloud.audit.entries import Head, Kind, seal
from jobcloud.history.database import Database
from jobcloud.history.queries import Reader, page_of
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import AuditLine, Batch, of_events
from jobcloud.history.spool import FORMAT, Spool
from jobcloud.history.tables import attempts, audit


def lines(count: int, **changes: Any) -> list[AuditLine]:
    head, found = Head(CHAIN), []
    for number in range(count):
        line, head = seal(make_entry(number // 2, **changes), head)
        found.append(AuditLine(line))
    return found


def test_entries_are_listed_from_the_newest_in_the_order_of_their_numbers(database: Database, reader: Reader) -> None:
    entries = lines(25, target="shop\n\x00☃", kind=Kind.OUTCOME)
    database.write(of_events(entries))
    database.write(of_events(entries))
    found: list[int] = []
    cursor = ""
    while True:
        rows, cursor = reader.audit({}, 0, 0, 10, cursor)
        found += [row["seq"] for row in rows]
        if not cursor:
            break
    assert found == list(range(25, 0, -1))
    assert rows[-1]["entry"].encode() == entries[0].line


def test_filters_find_entries(database: Database, reader: Reader) -> None:
    database.write(of_events(lines(20)))
    assert [row["seq"] for row in reader.audit({"subject": "user:u3"}, 0, 0, 10)[0]] == [8, 7]
    assert [row["seq"] for row in reader.audit({}, START + 8, START + 9, 10)[0]] == [18, 17]
    assert reader.audit({"team": "other"}, 0, 0, 10) == ([], "")


def test_searches_use_an_index(database: Database) -> None:
    database.write(of_events(lines(300)))
    analyse(database)
    for column in ("subject", "target", "team", "request"):
        found = plan(database, page_of(audit, [audit.c[column] == "user:u3"], 10))
        assert_no_sort(found)


def test_entries_have_a_limit_of_their_own(database: Database) -> None:
    database.write(of_events([*lines(20), make_attempt(1, at=START)]))

    def counts() -> list[int]:
        with database.engine.connect() as connection:
            counted = (select(func.count()).select_from(table) for table in (audit, attempts))
            return [connection.execute(statement).scalar() or 0 for statement in counted]

    now = START + 10_000_000
    assert Retention(Limits(age_ms=1_000), lambda: now).enforce(database)
    assert counts() == [20, 0]
    assert Retention(Limits(audit_age_ms=now - START - 5), lambda: now).enforce(database)
    assert counts() == [10, 0]


def test_spool_of_an_older_build_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    assert spool.append(of_events([make_attempt(1), *lines(1)]))
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes().replace(FORMAT, b"jobcloud history 1\n"))
    found: list[Batch] = []
    assert Spool(tmp_path, 1 << 20).replay(found.append)
    assert len(found[0].attempts) == len(found[0].audit) == 1
    older: dict[str, list[Any]] = {"runs": [], "attempts": [], "executions": [], "traces": []}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(older), type=Batch).audit == []
