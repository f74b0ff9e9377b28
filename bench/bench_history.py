"""Measures what the history costs, and whether a page of it depends on the number of rows.

`python bench/bench_history.py [--url URL] [--events N] [--rows N] [--json]`. The default database is SQLite.

trace     CPU time of the core per event (launch, start or end of an attempt) with traces minus without.
events    CPU time of this process per event, with the history minus without, while 1,000 events a second are published
          for a while. The sum of both must be at most 50 µs: 5 % of one core.
page      time of the first page, and of a page in the middle, of the runs of one job in 30 days, with 100,000 rows and
          with `--rows` rows. The larger one must take at most three times as long.
search    time of the first page of searches of Elastic-Job-Cloud's API, in as many rows.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_cycle import POLICY
from tests.core_world import Desk, make_app, make_job, make_offer, make_status

from jobcloud.config import Resources
from jobcloud.history.answers import Wanted
from jobcloud.history.database import Database
from jobcloud.history.elastic_job import TraceQuery
from jobcloud.history.elastic_job_search import ElasticJobSearch
from jobcloud.history.queries import Reader
from jobcloud.history.rows import Batch, Event
from jobcloud.history.service import History, HistoryOptions
from jobcloud.history.tables import row_id
from jobcloud.messages import AttemptTraced, OffersReceived, RunTraced, StatusReceived, Tick, Trigger
from jobcloud.scheduler import Policy

RATE, STEP = 1_000, 10
SHARDS = 10
SMALL = 100_000
JOBS = 1_000
MONTH_MS = 30 * 86_400_000
NOW = 1_800_000_000_000
PAGES = 200
# All, of a job, failed ones, of a job in a week, of a host, and all in another order. Most find MAX_FOUND rows of many.
SEARCHES = [
    TraceQuery(),
    TraceQuery(equal={"job_name": "job7"}),
    TraceQuery(equal={"success": False}),
    TraceQuery(equal={"job_name": "job7"}, from_ms=NOW - 14 * 86_400_000, until_ms=NOW - 7 * 86_400_000),
    TraceQuery(equal={"ip": "host-7"}),
    TraceQuery(sort="hostname"),
]


def played(policy: Policy, runs: int) -> tuple[list[Event], float]:
    """The traces of some runs of ten shards, and the CPU seconds of the core."""
    small = Resources(10, 1_000)
    jobs = [make_job(f"job{number}", shard_count=SHARDS, resources=small) for number in range(20)]
    desk = Desk(make_app(), *jobs, policy=policy)
    do = desk.scheduler.handle
    found: list[Event] = []
    spent = 0.0
    for number in range(runs):
        desk.at += 1_000
        began = time.process_time()
        effects = do(Trigger(desk.at, f"job{number % 20}"))
        agent = f"0b4ff1c2-7a7f-4a70-9cf4-7a3c4be0f2a1-S{number % 40}"
        effects += do(OffersReceived(desk.at, (make_offer(f"o{number}", agent),)))
        effects += do(Tick(desk.at))
        for launch in desk.launched(effects):
            for state in ("TASK_RUNNING", "TASK_FINISHED"):
                desk.at += 1
                effects += do(StatusReceived(desk.at, make_status(launch.task_id, state, "u")))
        spent += time.process_time() - began
        found += [effect for effect in effects if isinstance(effect, AttemptTraced | RunTraced)]
    return found, spent


def trace_us(runs: int) -> float:
    """µs per event that the traces cost the core: the median over pairs of with and without."""
    with_traces, without = replace(POLICY, traced=True), replace(POLICY, traced=False)
    pairs = [(played(with_traces, runs)[1], played(without, runs)[1]) for _ in range(5)]
    return statistics.median(on - off for on, off in pairs) / (runs * SHARDS * 3) * 1e6


def publish_all(publish: Callable[[Event], None], events: list[Event]) -> None:
    start = time.monotonic()
    for first in range(0, len(events), STEP):
        for event in events[first : first + STEP]:
            publish(event)
        time.sleep(max(0.0, start + (first + STEP) / RATE - time.monotonic()))


def events_us(url: str, events: list[Event]) -> float:
    began = time.process_time()
    publish_all(lambda event: None, events)
    off = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        history = History(HistoryOptions(url), Path(folder), lambda: NOW)
        history.start()
        history.publish(events[0])
        assert history.flush()
        began = time.process_time()
        publish_all(history.publish, events)
        assert history.flush()
        on = time.process_time() - began
        state = history.state()
        assert (state.dropped, state.problem) == (0, ""), state
        history.stop()
    return (on - off) / len(events) * 1e6


def run_row(number: int, rows: int) -> tuple[object, ...]:
    fired = NOW - MONTH_MS + MONTH_MS * number // rows
    job = f"job{number * 7_919 % JOBS}"
    run = f"{job}.{fired}@jobcloud"
    ends = (fired, fired + 900, 10, 10, 0, 0, 0, 0)
    return (row_id(fired, run), run, "default", f"app{number * 7_919 % JOBS % 50}", job, "cron", "FINISHED", *ends)


def page_ms(url: str, rows: int) -> tuple[float, float]:
    """Milliseconds of a first page and of one in the middle, of random jobs: the lowest tenth ends there."""
    database = Database(url)
    database.upgrade()
    for first in range(0, rows, 10_000):
        database.write(Batch(runs=[run_row(n, rows) for n in range(first, min(first + 10_000, rows))]))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE TABLE history_runs" if database.kind == "mariadb" else "ANALYZE")
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    dice = random.Random(1)
    first_pages: list[float] = []
    middle_pages: list[float] = []
    for _ in range(PAGES):
        wanted = Wanted(job=f"job{dice.randrange(JOBS)}", since_ms=NOW - MONTH_MS, until_ms=NOW)
        for times, cursor in ((first_pages, ""), (middle_pages, row_id(NOW - MONTH_MS // 2, "middle"))):
            began = time.perf_counter()
            found, _ = reader.runs(wanted, 20, cursor)
            times.append(time.perf_counter() - began)
            assert len(found) == 20
    reader.close()
    # A low quantile, because other work on the machine only adds to the times.
    return statistics.quantiles(first_pages, n=10)[0] * 1e3, statistics.quantiles(middle_pages, n=10)[0] * 1e3


def execution_row(number: int, rows: int) -> tuple[object, ...]:
    ended = NOW - MONTH_MS + MONTH_MS * number // rows
    job = f"job{number * 7_919 % JOBS}"
    task = f"{job}@-@0@-@READY@-@agent@-@1-{number}"
    host, success = f"host-{number % 500}", int(number % 1_000 != 0)
    return (row_id(ended, task), job, task, host, host, 0, "NORMAL_TRIGGER", None, success, ended - 900, ended)


def search_ms(url: str, rows: int) -> list[float]:
    """Milliseconds of the first page of each kind of search: the lowest tenth ends there."""
    database = Database(url)
    database.upgrade()
    for first in range(0, rows, 10_000):
        database.write(Batch(executions=[execution_row(n, rows) for n in range(first, min(first + 10_000, rows))]))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE TABLE JOB_EXECUTION_LOG" if database.kind == "mariadb" else "ANALYZE")
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    search = ElasticJobSearch(reader)
    found = []
    for query in SEARCHES:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            assert search.executions(query).rows
            times.append(time.perf_counter() - began)
        found.append(round(statistics.quantiles(times, n=10)[0] * 1e3, 2))
    reader.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="an empty database that may be filled; default: SQLite")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    found: dict[str, object] = {"trace µs": round(trace_us(100), 2)}
    events, _ = played(replace(POLICY, traced=True), wanted.events // (SHARDS * 3 + 1))
    found["events µs"] = round(events_us(wanted.url, events), 2)
    with tempfile.TemporaryDirectory() as folder:
        for rows in (SMALL, wanted.rows):
            # A server's database gets the further rows in addition.
            first, middle = page_ms(wanted.url or f"sqlite:///{folder}/{rows}.db", rows)
            found[f"page of {rows:,} rows, ms"] = [round(first, 3), round(middle, 3)]
            found[f"search in {rows:,} rows, ms"] = search_ms(wanted.url or f"sqlite:///{folder}/{rows}.db", rows)
    if wanted.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        for name, value in found.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
