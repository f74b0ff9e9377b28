"""The jobs of the demo. They need only the standard library and `jobcloud.job`."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from pathlib import Path

from jobcloud.job import ShardingContext, SimpleJob

DATA = Path(__file__).parent / "data"
DAYS = 28


class Sales(SimpleJob):
    """Revenue and best seller of one region on one day. Each run takes the next day of the sample data."""

    def execute(self, ctx: ShardingContext) -> None:
        started = time.time()
        region = ctx.sharding_parameter
        day = int(ctx.fire_time_ms or 0) // 5000 % DAYS + 1
        revenue: Counter[str] = Counter()
        with open(DATA / f"{region}.csv", newline="") as file:
            for row in csv.DictReader(file):
                if int(row["day"]) == day:
                    revenue[row["product"]] += int(row["units"]) * int(row["cents"])
        best, cents = revenue.most_common(1)[0]
        print(f"{region}, day {day}: total {sum(revenue.values()) / 100:,.2f}, best seller {best} ({cents / 100:,.2f})")
        report = {"region": region, "day": day, "cents": sum(revenue.values()), "best": best}
        append(ctx, f"sales-{region}", started, report)


class Pulse(SimpleJob):
    """Number of reports of each region. A resident task runs this by its own clock."""

    def execute(self, ctx: ShardingContext) -> None:
        started = time.time()
        counts = {}
        for file in sorted(Path(ctx.job_parameter).glob("sales-*.jsonl")):
            with open(file, "rb") as lines:
                counts[file.stem] = sum(1 for _ in lines)
        print("reports so far:", counts)
        append(ctx, "pulse", started, {"reports": counts})


def append(ctx: ShardingContext, name: str, started: float, facts: dict[str, object]) -> None:
    """Append a record of this attempt. O_APPEND keeps the lines of concurrent writers intact."""
    line = {
        "run": ctx.run_id,
        "item": ctx.sharding_item,
        "attempt": ctx.attempt,
        "task": ctx.task_id,
        "pid": os.getpid(),
        "started": started,
        "ended": time.time(),
        **facts,
    }
    out = Path(ctx.job_parameter)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{name}.jsonl", "ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
