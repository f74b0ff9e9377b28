"""The part of `jobcloud doctor` that asks the running server."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime

import jobcloud
from jobcloud import zones
from jobcloud.client.http import ApiError, Client, Json, NotReachable
from jobcloud.findings import Finding, ok, problem, warning

_MAX_CLOCK_S = 5.0
_MAX_JOBS = 50
# Reasons of `explain` that tell of executors that do not start, and of jobs that cannot be handled.
_EXECUTOR_REASONS = ("back_off", "fault")
_PYTHON = "run `python3 --version` on the agents: executors need CPython 3.9 or newer in PATH (docs/executor.md)"


def here() -> Iterator[Finding]:
    """The findings that need no server."""
    if importlib.util.find_spec("jobcloud._match") is None:
        yield warning("matcher", "the compiled matcher is not built", "pip install . with a C compiler")
    else:
        yield ok("matcher", "compiled")
    if text := zones.warning():
        yield warning("time zones", text, "pip install --upgrade tzdata, then start the scheduler again")
    else:
        yield ok("time zones", zones.version())


def server(client: Client, now: datetime | None = None) -> Iterator[Finding]:
    """The findings that the server tells. Raises ApiError if it refuses the token."""
    try:
        health, date = client.health_and_date()
    except NotReachable as error:
        fix = "start one (`jobcloud scheduler` or `dev`), or name it with --server"
        yield problem("server", str(error), fix)
        return
    yield from _health(client, health)
    yield from _clock(date, now or datetime.now(UTC))
    try:
        cluster = client.cluster()
    except ApiError as error:
        if error.status in (401, 403):
            yield problem("token", str(error), "set JOBCLOUD_TOKEN, or give --token")
            return
        yield problem("state", str(error), "wait for a leader, and see the scheduler's log")
        return
    yield ok("token", "accepted")
    yield from _agents(cluster)
    yield from _records(cluster)
    yield from _executors(client)


def _health(client: Client, health: Json) -> Iterator[Finding]:
    version = str(health.get("version", "unknown"))
    if version != jobcloud.__version__:
        fix = "use the same version on both sides"
        yield warning("version", f"the server has {version}, this client has {jobcloud.__version__}", fix)
    else:
        yield ok("version", version)
    if not health.get("leading"):
        reason = f": {health['problem']}" if health.get("problem") else ""
        fix = "ask the leader; if there is none, see the scheduler's log and its ZooKeeper or etcd"
        yield problem("server", f"{client.url} does not lead{reason}", fix)
    elif health.get("problem"):
        yield problem("server", f"{client.url}: {health['problem']}", "see the scheduler's log")
    else:
        yield ok("server", f"{client.url} leads")
    if health.get("connected"):
        yield ok("mesos", "the scheduler is connected to a master")
    else:
        fix = "check the setting mesos.master, the network to it, and the principal; see the scheduler's log"
        yield problem("mesos", "the scheduler is not connected to a master", fix)
    for text in health.get("warnings", []):
        yield warning("server", str(text), "see docs/operations.md")


def _clock(date: datetime | None, now: datetime) -> Iterator[Finding]:
    if date is None:
        return
    apart = abs((now - date).total_seconds())
    if apart > _MAX_CLOCK_S:
        text = f"the clocks of this machine and of the server are {apart:.0f} s apart"
        yield problem("clock", text, "synchronize both with NTP: jobs fire by the server's clock")
    else:
        yield ok("clock", "within 5 s of this machine's")


def _agents(cluster: Json) -> Iterator[Finding]:
    agents = cluster["agents"]
    usable = [agent for agent in agents if not agent["lost"]]
    if not usable:
        fix = "check that agents are registered with the master, and that no other framework holds their resources"
        yield problem("agents", "no agent has made an offer", fix)
    else:
        yield ok("agents", f"{len(usable)} have made offers")
    for agent in agents:
        if agent["lost"]:
            fix = "start the agent again; if it is gone for good, nothing is to be done"
            yield warning("agents", f"{agent['hostname']} is lost", fix)


def _records(cluster: Json) -> Iterator[Finding]:
    for fault in cluster["faults"]:
        fix = "see docs/state.md; the scheduler leaves such a record as it is"
        yield problem("state", f"{fault['path']}: {fault['problem']}", fix)
    if not cluster["faults"]:
        yield ok("state", "all records can be read and written")


def _executors(client: Client) -> Iterator[Finding]:
    """Jobs that wait because executors do not start, for example because an agent has no usable Python."""
    waiting = [job for job in client.jobs() if job["waitingShards"]][:_MAX_JOBS]
    found = {
        reason["text"]: job["jobName"]
        for job in waiting
        for reason in client.explain(job["jobName"])["reasons"]
        if reason["code"] in _EXECUTOR_REASONS
    }
    for text, job in found.items():
        yield problem("executors", f"job {job}: {text}", f"see `jobcloud logs {job}`; {_PYTHON}")
    if not found:
        yield ok("executors", "no job waits because executors do not start")
