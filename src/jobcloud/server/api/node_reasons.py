"""Why a node of a workflow waits, was skipped, or failed without a run: the sentences in English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pydantic import Field

from jobcloud.scheduler.refusals import gang_join, job_off, no_job, other_shards
from jobcloud.sentences import Told, Words
from jobcloud.sentences.frequent import resident_node, runs_waiting, shards_waiting
from jobcloud.server.api.words import WordsView, words_of

_ENDS: Final = {"success": "succeeds", "failure": "fails", "either": "ends"}


class NodeReasonView(WordsView):
    text: str = Field(description="the sentence in English")


def node_skipped(node: str, state: str, on: str) -> Told:
    """`on`: the end of the other node, `node`, for which the condition asks. `state`: its end."""
    text = f"it starts when node {node} {_ENDS.get(on, on)}, and node {node} is {state}"
    return Told(text, "node_skipped", node=node, state=state, on=on)


def node_run_lost(run: str) -> Told:
    return Told(f"its run {run} no longer has a record", "node_run_lost", run=run)


def node_damaged() -> Told:
    return Told("its record was lost or damaged, and it may have run", "node_damaged")


def node_other_result(node: str, result: str) -> Told:
    text = f"it starts if the result of node {node} is {result}, and it is another one"
    return Told(text, "node_other_result", node=node, result=result)


def node_past_deadline(seconds: int) -> Told:
    return Told(f"no answer came within {seconds} seconds", "node_past_deadline", seconds=seconds)


def node_paused() -> Told:
    return Told("the run of the workflow is paused", "node_paused")


def job_fault(job: str) -> Told:
    return Told(f"the stored record of job {job} cannot be read", "job_fault", job=job)


def job_paused(job: str) -> Told:
    return Told(f"job {job}, its app or everything is paused", "job_paused", job=job)


_SENTENCES: Final[Mapping[str, Callable[..., Told]]] = {
    "node_skipped": node_skipped,
    "node_run_lost": node_run_lost,
    "node_damaged": node_damaged,
    "node_other_result": node_other_result,
    "node_other_shards": other_shards,
    "node_past_deadline": node_past_deadline,
    "node_paused": node_paused,
    "gang_join": gang_join,
    "no_job": no_job,
    "resident_node": resident_node,
    "job_fault": job_fault,
    "job_off": job_off,
    "job_paused": job_paused,
    "runs_waiting": runs_waiting,
    "queue_quota": shards_waiting,
}


def text_of(words: Words) -> str:
    """The sentence of a node's reason. It is the code of a record that a newer version has stored."""
    tell = _SENTENCES.get(words.code)
    return str(tell(**words.parameters)) if tell is not None else words.code


def node_reason(words: Words | None) -> NodeReasonView | None:
    return NodeReasonView(**words_of(words), text=text_of(words)) if words is not None else None
