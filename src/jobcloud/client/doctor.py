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
# Codes of reasons of `explain`: the app's executors do not start; jobcloud failed when it handled the job.
_START_FAILED, _FAULT = "start_failed", "fault"
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
    """The findings from the answers of the running server. Raises ApiError if it refuses a later request."""
    try:
        health, date = client.health_and_date()
    except NotReachable as error:
        yield problem("server", str(error), error.fix)
        return
    yield from _health(client, health)
    yield from _clock(date, now or datetime.now(UTC))
    try:
        cluster = client.cluster()
    except ApiError as error:
        if error.status == 403:
            yield ok("token", "accepted")
            fix = "a role in the installation, or let an admin run this command"
            yield warning("rights", f"agents, state and executors are not checked: {error}", fix)
            return
        if error.status == 401:
            yield problem("token", str(error), "set JOBCLOUD_TOKEN, or give --token")
            return
        yield problem("state", str(error), "wait for a leader, and see the scheduler's log")
        return
    yield ok("token", "accepted")
    yield from _agents(cluster)
    yield from _records(cluster)
    yield from _waiting_jobs(client)


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
            fix = (
                "start the agent again; if it is gone for good, mark it gone in Mesos, or its shards may wait for ever"
            )
            yield warning("agents", f"{agent['hostname']} is unreachable or gone", fix)


def _records(cluster: Json) -> Iterator[Finding]:
    for fault in cluster["faults"]:
        fix = "see docs/state.md; the scheduler leaves such a record as it is"
        yield problem("state", f"{fault['path']}: {fault['problem']}", fix)
    if not cluster["faults"]:
        yield ok("state", "all records can be read and written")


def _waiting_jobs(client: Client) -> Iterator[Finding]:
    """Jobs that wait because executors do not start, for example because an agent has no usable Python; and faults."""
    waiting = [job["jobName"] for job in client.jobs() if job["waitingShards"]]
    reasons = [(job, reason) for job in waiting[:_MAX_JOBS] for reason in client.explain(job)["reasons"]]
    for job, reason in reasons:
        if reason["code"] == _FAULT:
            yield problem("jobs", f"job {job}: {reason['text']}", "see the ERROR lines in the scheduler's log")
    # All jobs of an app have the same text.
    not_started = {reason["text"]: job for job, reason in reasons if reason["code"] == _START_FAILED}
    for text, job in not_started.items():
        yield problem("executors", f"job {job}: {text}", f"see `jobcloud logs {job}`; {_PYTHON}")
    if not not_started:
        which = "no job" if len(waiting) <= _MAX_JOBS else f"none of the first {_MAX_JOBS} waiting jobs"
        yield ok("executors", f"{which} waits because executors do not start")
