"""A pipeline of three jobs. They pass their results on in files that are named after the hour."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from jobcloud.job import ShardingContext, SimpleJob

ORDERS = Path(__file__).parent / "data" / "orders.csv"


class Extract(SimpleJob):
    """Copies the orders of an hour. The sample data has one day, which stands for all days."""

    def execute(self, ctx: ShardingContext) -> None:
        path = results_of(ctx, "orders.csv")
        with open(ORDERS, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["hour"]) == hour_of(ctx).hour]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["hour", "region", "units", "cents"])
            writer.writeheader()
            writer.writerows(rows)
        print(f"{len(rows)} orders")


class Transform(SimpleJob):
    """Sums the orders of an hour by region."""

    def execute(self, ctx: ShardingContext) -> None:
        sums: Counter[str] = Counter()
        with open(results_of(ctx, "orders.csv"), newline="") as file:
            for row in csv.DictReader(file):
                sums[row["region"]] += int(row["units"]) * int(row["cents"])
        results_of(ctx, "sums.json").write_text(json.dumps(sums))
        print(f"{len(sums)} regions")


class Load(SimpleJob):
    """Writes the sums of an hour into a database. A second time, it replaces what it wrote before."""

    def execute(self, ctx: ShardingContext) -> None:
        if (Path(ctx.job_parameter) / "closed").exists():
            raise RuntimeError("the database is closed")
        sums = json.loads(results_of(ctx, "sums.json").read_text())
        rows = [(f"{hour_of(ctx):%Y-%m-%dT%H}", region, cents) for region, cents in sums.items()]
        with closing(sqlite3.connect(str(Path(ctx.job_parameter) / "sales.db"))) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS sales (hour, region, cents, PRIMARY KEY (hour, region))")
            database.executemany("INSERT OR REPLACE INTO sales VALUES (?, ?, ?)", rows)
        print(f"{len(rows)} rows")


def hour_of(ctx: ShardingContext) -> datetime:
    """The hour of the fire time, which all jobs of a run of the workflow share."""
    return datetime.fromtimestamp((ctx.fire_time_ms or 0) / 1000, timezone.utc)  # noqa: UP017 - an agent may have Python 3.9


def results_of(ctx: ShardingContext, name: str) -> Path:
    """The file of a result of this hour."""
    folder = Path(ctx.job_parameter) / f"{hour_of(ctx):%Y%m%dT%H}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
