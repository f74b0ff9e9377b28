"""The API keeps its own OpenAPI document: schemathesis sends valid and invalid requests, and checks all answers.

JOBCLOUD_SCHEMA_EXAMPLES is the number of random requests for each operation (default 3). Event streams are left out,
because they do not end. The routes of Elastic-Job-Cloud are not in the document: their answers have the form of 2.1.5,
such as the status 500 for an invalid body, and `elastic_job/` compares them with recorded ones.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import ARTIFACTS, app_body, job_body, package_bytes, serving

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.executor.package import inspect
from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Call,
    Event,
    Kill,
    OffersReceived,
    Revive,
    Status,
    StatusReceived,
    Subscribed,
)
from jobcloud.model import Offer, Share
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server.api import Access, ApiOptions, LogChunk, LogRequest, create_api
from jobcloud.server.clock import wall_ms
from jobcloud.server.loop import Loop
from jobcloud.server.packages import PackageStore

pytest.importorskip("schemathesis", reason="the dependency group dev is not installed")

ROOT = Path(__file__).parents[3]
TOKEN = "t0ken-of-the-schema"
EXAMPLES = os.environ.get("JOBCLOUD_SCHEMA_EXAMPLES", "3")


# Operations whose valid bodies obey rules beyond the schema, with these rules. For them, schemathesis does not expect
# that each request that fits the schema is accepted. It checks everything else.
_OWN_RULES = {
    "POST /api/v1/apps": "packages are known by their hash, or come from an allowed host",
    "PUT /api/v1/apps/{app}": "as for POST; the name is that of the path",
    "PATCH /api/v1/apps/{app}": "as for PUT",
    "POST /api/v1/jobs": "cron expressions, time zones, hosts of HTTP jobs, fields that depend on the type of the job",
    "PUT /api/v1/jobs/{job}": "as for POST; the name is that of the path",
    "PATCH /api/v1/jobs/{job}": "as for PUT",
    "POST /api/v1/apply": "as for apps and jobs",
    "POST /api/v1/jobs/{job}/trigger": "the job has the shards",
    "POST /api/v1/jobs/{job}/backfill": "the range begins before its end",
    "POST /api/v1/packages": "the body is an archive",
    "POST /api/v1/runs": "as for jobs",
    "PUT /api/v1/calendars/{calendar}": "days are dates, countries and files are known, the name is that of a job",
    "POST /api/v1/silences": "texts that can be printed",
    "PUT /api/v1/pools/{pool}": "texts that can be printed",
    "PUT /api/v1/workflows/{workflow}": "nodes and jobs are known, no cycle",
    "POST /api/v1/workflow-events": "events have names like jobs, texts that can be printed",
    "POST /api/v1/workflow-runs/{run}/nodes/{node}/answer": "texts that can be printed",
    "POST /api/v1/teams/{team}/members": "the subject has one of three forms",
    "DELETE /api/v1/teams/{team}/members": "as for POST",
    "POST /api/v1/users": "passwords are not too easy to guess",
    "PUT /api/v1/users/{user}/password": "as for POST of a user",
    "POST /api/v1/tokens": "the sender is a user or a service account",
    "POST /api/v1/framework/teardown": "the body names the framework",
}
# A refused condition is no invalid request. It may also come first, as a body that is too large.
_CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "412", "413", "415", "422", "428", "429", "5xx"]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 429, "5xx"]
""" + "".join(
    f"""
[[operations]]
include-name = "{name}"
checks.positive_data_acceptance.enabled = false
"""
    for name in _OWN_RULES
).replace(
    # schemathesis 4.32 takes some valid names of pools, such as q85u:0D, for invalid ones. test_api_pools.py has such.
    'include-name = "PUT /api/v1/pools/{pool}"\n',
    'include-name = "PUT /api/v1/pools/{pool}"\nchecks.negative_data_rejection.enabled = false\n',
)
# A standby refuses requests that need the leader.
_STANDBY = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
"""


class Mesos:
    """A driver whose master offers one agent. Tasks run until they are killed."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        self._deliver = deliver
        deliver(Subscribed(wall_ms(), framework_id or "framework-1"))
        self._offer()

    def _offer(self) -> None:
        shares = (Share("cpus", 8_000), Share("mem", 8_000_000), Share("disk", 8_000_000))
        offer = Offer(f"offer-{next(self._numbers)}", "agent-1", "agent-1.test", "agent-1.test:5051", shares)
        self._deliver(OffersReceived(wall_ms(), (offer,)))

    def send(self, call: Call | Acknowledge) -> None:
        if isinstance(call, Accept):
            for launch in call.launches:
                self._update(launch.task_id, "TASK_RUNNING")
        elif isinstance(call, Revive):
            self._offer()
        elif isinstance(call, Kill):
            self._update(call.task_id, "TASK_KILLED")

    def _update(self, task_id: str, state: str) -> None:
        status = Status(task_id, "agent-1", state, uuid=f"uuid-{next(self._numbers)}")
        self._deliver(StatusReceived(wall_ms(), status))

    def stop(self) -> None:
        pass

    def teardown(self) -> None:
        pass


async def read_log(request: LogRequest) -> LogChunk:
    data = b"one\ntwo\n"
    offset = max(0, len(data) + request.offset) if request.offset < 0 else min(request.offset, len(data))
    return LogChunk(data[offset : offset + request.limit], offset, len(data))


@contextmanager
def scheduler(folder: Path, *, leads: bool) -> Iterator[str]:
    """A scheduler with its state in SQLite and a history, behind a real port. Yields its URL."""
    loop: Loop[Scheduler] = Loop(
        SqliteStore(folder / "state.db"),
        Mesos,
        (),
        lambda stored, epoch, at: Scheduler(Policy(ARTIFACTS), stored, epoch, at),
    )
    if leads:
        loop.start()
    else:
        loop.stand_by("http://127.0.0.1:1 leads")
    url = f"sqlite:///{folder / 'history.db'}"
    database = Database(url)
    database.upgrade()
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    packages = PackageStore(folder / "packages", check=inspect)
    options = ApiOptions(access=Access(TOKEN))
    notes = Notes(lambda: Database(url))
    api = create_api(loop, packages, options, history=reader, notes=notes, read_log=read_log, teardown=loop.teardown)
    with serving(api) as address:
        yield address
    loop.stop()
    reader.close()
    notes.close()


def fill(url: str) -> dict[str, Any]:
    """Register an app and a job, and run it. Returns their names by path parameter."""
    with httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        headers = {"Content-Type": "application/zip"}
        sha256 = client.post("packages", content=package_bytes(), headers=headers).json()["sha256"]
        assert client.post("apps", json=app_body(sha256)).status_code == 201
        assert client.post("jobs", json=job_body(cron="0 0 0 1 1 ? 2099")).status_code == 201
        client.post("users", json={"name": "ann"}).raise_for_status()
        client.put("teams/web", json={}).raise_for_status()
        client.put("roles/caller", json={"verbs": ["trigger"]}).raise_for_status()
        run = client.post("jobs/hello/trigger").json()["id"]
        while not (tasks := client.get("tasks", params={"state": "running"}).json()["items"]):
            pass
        return {"app": "demo", "job": "hello", "run_id": run, "task_id": tasks[0]["id"], "sha256": sha256,
                "agent": "agent-1", "item": 0, "attempt": 1,
                "user": "ann", "team": "web", "role": "caller"}  # fmt: skip


def check(folder: Path, url: str, seed: int, known: dict[str, Any], phases: str, config: str = "") -> None:
    """Run schemathesis. Fails with its report, which has the failed requests as commands for curl."""
    (folder / "schemathesis.toml").write_text(_CONFIG + config)
    environ = os.environ | {
        "JOBCLOUD_TEST_KNOWN": json.dumps(known),
        "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run",
         f"{url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--seed", str(seed),
         "--max-examples", EXAMPLES, "--phases", phases, "--exclude-path-regex", "/(events|changes)$|/stream$",
         "--continue-on-failure", "--no-color", "--warnings", "off"],
        env=environ, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(1_800)  # several thousand requests
def test_leader_keeps_its_schema(tmp_path: Path, seed: int) -> None:
    with scheduler(tmp_path, leads=True) as url:
        check(tmp_path, url, seed, fill(url), "coverage,fuzzing,stateful")


@pytest.mark.timeout(1_800)
def test_standby_keeps_its_schema(tmp_path: Path, seed: int) -> None:
    with scheduler(tmp_path, leads=False) as url:
        check(tmp_path, url, seed, {}, "fuzzing", _STANDBY)
