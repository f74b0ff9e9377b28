"""The refusals that several parts of the scheduler and its API give, or their texts."""

from __future__ import annotations

from jobcloud.errors import NotFound, Outdated
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import READ_AGAIN, REPEAT, shown_by


def no_app(key: str) -> Told:
    return Told(f"there is no app {key}", "no_app", app=key)


def no_job(job: str) -> Told:
    return Told(f"there is no job {job}", "no_job", job=job)


def no_calendar(key: str) -> Told:
    return Told(f"there is no calendar {key}", "no_calendar", calendar=key)


def no_shard(run: str, item: int) -> Told:
    return Told(f"{run} has no shard {item}", "no_shard", run=run, item=item)


def no_pool(key: str) -> NotFound:
    problem = Told(f"there is no pool {key[:200]}", "no_pool", pool=key[:200])
    return NotFound(problem, field="pool", fix=shown_by("jobcloud pool list", "names them"))


def no_silence(silence_id: str) -> NotFound:
    problem = Told(f"there is no silence {silence_id[:80]}", "no_silence", silence=silence_id[:80])
    return NotFound(problem, field="id", fix=shown_by("jobcloud alerts silences", "lists them"))


def no_workflow(key: str) -> NotFound:
    problem = Told(f"there is no workflow {key[:200]}", "no_workflow", workflow=key[:200])
    return NotFound(problem, field="workflow", fix=shown_by("jobcloud workflow list", "names them"))


def no_workflow_run(run: str) -> NotFound:
    problem = Told(f"there is no run {run[:300]} of a workflow", "no_workflow_run", run=run[:300])
    return NotFound(problem, field="run", fix=shown_by("jobcloud workflow runs WORKFLOW", "lists them"))


def changed_since(kind: str, key: str) -> Outdated:
    """The record has another revision than the sender has read."""
    return Outdated(Told(f"the {kind} {key} has changed", "changed_since", name=key), fix=REPEAT)


def changed_meanwhile(kind: str, key: str) -> Outdated:
    """The record was changed between the check of its revision and the command."""
    problem = Told(f"{kind} {key} was changed meanwhile", "changed_since", name=key)
    return Outdated(problem, field="If-Match", fix=READ_AGAIN)


def job_off(job: str) -> Told:
    return Told(f"job {job} or its app is disabled", "job_off", job=job)


def gang_join(job: str) -> Told:
    text = f"the shards of job {job} start together, so they cannot wait one by one"
    return Told(text, "gang_join", job=job)


def other_shards(node: str, theirs: int, own: int) -> Told:
    """`own`: the shards of a node that is joined per shard with `node`."""
    text = f"node {node} has {theirs} shards, and this one has {own}"
    return Told(text, "node_other_shards", node=node, theirs=theirs, own=own)
