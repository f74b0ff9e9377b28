"""Jobs that record the start and the end of each shard as one line in a file of their process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from jobcloud.job import ShardingContext, SimpleJob


def record(ctx: ShardingContext, event: str) -> None:
    line: dict[str, Any] = {
        "event": event,
        "at": time.time(),
        "job": ctx.job_name,
        "item": ctx.sharding_item,
        "fire_ms": ctx.fire_time_ms,
        "attempt": ctx.attempt,
        "run": ctx.run_id,
        "task": ctx.task_id,
        "pid": os.getpid(),
    }
    # With O_APPEND and one write, lines of concurrent threads stay whole, and a kill loses no written line.
    descriptor = os.open(
        Path(ctx.job_parameter) / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


class Work(SimpleJob):
    """Runs for the number of seconds in its sharding parameter."""

    def execute(self, ctx: ShardingContext) -> None:
        record(ctx, "start")
        until = time.monotonic() + float(ctx.sharding_parameter or 0)
        while (left := until - time.monotonic()) > 0:
            if ctx.cancelled:
                record(ctx, "cancelled")
                ctx.raise_if_cancelled()
            time.sleep(min(left, 1.0))
        record(ctx, "end")


class Fail(SimpleJob):
    """Fails at once with the longest message of a soak."""

    def execute(self, ctx: ShardingContext) -> None:
        record(ctx, "start")
        record(ctx, "end")
        raise RuntimeError("x" * 4_000)
