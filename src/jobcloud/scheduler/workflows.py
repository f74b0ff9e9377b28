"""Workflows: which job runs after which.

A run of a workflow begins with a whole run of the job of its start node: by cron, by a trigger or by a backfill. Each
node then gets one run of its job, as soon as its conditions hold. All these runs have the same fire time. The run of
the workflow keeps the graph that the workflow had at its begin.

The end of a node is stored together with the end of its job's run, and the start of a node together with the new run.
So a new leader neither loses a node nor starts it twice. A node that waits has no record and costs nothing: an end
visits only the nodes that follow.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set, Sized
from datetime import UTC, datetime
from typing import Final, NamedTuple

from jobcloud.config import Job, JobKind, team_of
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import (
    AnswerNode,
    CancelWorkflowRun,
    Kind,
    PauseWorkflowRun,
    PutWorkflow,
    RemoveWorkflow,
    SendWorkflowEvent,
    Topic,
)
from jobcloud.model import (
    NO_TERMS,
    Answer,
    Cause,
    Firing,
    Join,
    Node,
    NodeRun,
    NodeState,
    Shard,
    ShardState,
    Terms,
    WaitFor,
    Workflow,
    WorkflowRun,
    changed,
    node_key,
)
from jobcloud.scheduler import retry
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.refusals import (
    changed_meanwhile,
    gang_join,
    job_off,
    no_job,
    no_workflow,
    no_workflow_run,
    other_shards,
)
from jobcloud.scheduler.shard_joins import Place, ShardJoins, skipped_only
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.workflow_graph import Graph, Verdict, check, end_of, graph_of, outcome, result_text, verdict
from jobcloud.sentences import Parameter, Told, Words
from jobcloud.sentences.frequent import REGISTER, REMOVE_ONE, resident_node, runs_waiting, shown_by

MAX_WORKFLOWS: Final = 10_000
_NO_JOBS: Final[Mapping[str, Job]] = {}
_NAMED_NOWHERE: Final[Mapping[str, None]] = {}
# The time between two looks at the jobs whose ready nodes could not start.
_AGAIN_MS = 1_000
# The fire time may be long past when the node starts, so no deadline counts for its start.
_TERMS: Final = Terms(retried=True)
_JOINED: Final = Terms(retried=True, joined=True)
_WHY_CANCELLED = "the run of its workflow was cancelled"
#: the nodes before a node that an explanation names
_NAMED_BEFORE: Final = 5
_FEW_DEADLINES: Final = 1_000
#: the maximum number of nodes that one event answers
MAX_ANSWERED: Final = 1_000


class NodeView(NamedTuple):
    """A node of a run, also one that has no record. `reason`: why it was skipped, or failed without a run."""

    name: str
    job: str
    state: NodeState
    run: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    reason: Words | None = None
    answer: Answer | None = None


class Workflows(Part):
    def __init__(self, state: State, hooks: Hooks, quotas: Quotas, firings: Firings, tasks: Tasks) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._quotas = quotas
        self._firings = firings
        self._tasks = tasks
        #: job → the workflows that have it as the start
        self._starts: dict[str, dict[str, None]] = {}
        #: job → the workflows of which it is a node
        self._named: dict[str, dict[str, None]] = {}
        #: workflow → its runs, oldest first
        self._runs: dict[str, dict[str, None]] = {}
        #: firing → the nodes that it is the run of
        self._places: dict[str, dict[Place, None]] = {}
        #: unfinished run → the number of its nodes that have not ended
        self._open: dict[str, int] = {}
        #: workflow → its graph, and unfinished run → its graph
        self._graphs: dict[str, Graph] = {}
        self._graphs_of_runs: dict[str, Graph] = {}
        #: job → the nodes that are to start, oldest first
        self._ready: dict[str, dict[Place, None]] = {}
        #: jobs whose ready nodes may be able to start now
        self._due: dict[str, None] = {}
        #: when all jobs with ready nodes are due
        self._again = 0
        #: team and name of an event → the nodes of unfinished runs that it still answers, oldest first
        self._events: dict[tuple[str, str], dict[Place, None]] = {}
        #: a heap of (instant, run, node, or "" for the whole run); those of ended runs and nodes are dropped when due
        self._deadlines: list[tuple[int, str, str]] = []
        #: above this number of deadlines, those that are no longer awaited are dropped
        self._most_deadlines = _FEW_DEADLINES
        self._joins = ShardJoins(state, firings, self._graphs_of_runs.get, self.places_of)

    # ------------------------------------------------------------------------------------------------- time

    def restore(self, at: int) -> None:
        """Continue the unfinished runs. A node whose run has no record any more has failed."""
        for workflow in self._state.workflows.values():
            self._name(workflow)
        runs = sorted(self._state.workflow_runs.values(), key=lambda run: (run.began_ms, run.id))
        for run in runs:
            self._runs.setdefault(run.workflow, {})[run.id] = None
        known = {node_key(run.id, node.name) for run in runs for node in run.nodes}
        for key in [key for key in self._state.nodes if key not in known]:
            self._state.delete(Kind.NODE, key)
        graphs = {workflow.nodes: self._graphs[key] for key, workflow in self._state.workflows.items()}
        for run in runs:
            if not run.ended_ms:
                self._open[run.id] = len(run.nodes)
                if run.nodes not in graphs:
                    graphs[run.nodes] = graph_of(run.nodes)
                self._graphs_of_runs[run.id] = graphs[run.nodes]
                self._expect(run)
            for node, found in self._records(run):
                if found is not None:
                    self._restore_node(Place(run.id, node.name), found)
        for run in runs:
            if not run.ended_ms:
                self._resume(run, at)
        self._joins.cancel_forgotten(at)
        for key in list(self._runs):
            self._prune(key)

    def _restore_node(self, place: Place, found: NodeRun) -> None:
        if found.run:
            self._places.setdefault(found.run, {})[place] = None
        if found.ended_ms and place.run in self._open:
            self._open[place.run] -= 1

    def _resume(self, run: WorkflowRun, at: int) -> None:
        for node, found in self._records(run):
            if found is None or found.state is not NodeState.RUNNING or node.wait is not None:
                continue
            place, firing = Place(run.id, node.name), self._state.firings.get(found.run)
            if firing is None:
                lost = Words("node_run_lost", {"run": found.run}) if found.run else Words("node_damaged")
                self._end(place, NodeState.FAILED, at, lost)
            elif firing.ended_ms:
                self._end_with(place, firing, firing.ended_ms)
            else:
                self._joins.watch(place, firing.id)
                if node.join is Join.SHARDS:
                    self._joins.decide(place, None, at)
        if run.id in self._open:
            self._advance(run.id, self._graph(run.id).nodes, at)

    def on_tick(self, at: int) -> None:
        while self._deadlines and self._deadlines[0][0] <= at:
            _, run_id, name = heapq.heappop(self._deadlines)
            if run_id in self._open:
                self._pass_deadline(self._state.workflow_runs[run_id], name, at)
        if self._ready and at >= self._again:
            self._due = dict.fromkeys(self._ready)
        if self._due:
            self._again = at + _AGAIN_MS
        while self._due:  # a node that starts may let nodes start that are joined with it
            job, _ = self._due.popitem()
            self._state.isolated(job, at, self._start_ready, job, at)

    def next_wake(self, at: int) -> int | None:
        if self._due:
            return at
        wakes = [self._again] if self._ready else []
        return min((*wakes, *(entry[0] for entry in self._deadlines[:1])), default=None)

    def clock_set_back(self, at: int) -> None:
        self._again = min(self._again, at + _AGAIN_MS)

    def job_resumed(self, job: Job, at: int) -> None:
        self._look_at(job.key)

    def job_changed(self, job: Job) -> None:
        self._look_at(job.key)

    def _look_at(self, job: str) -> None:
        """Try the ready nodes of a job at the next tick."""
        if job in self._ready:
            self._due[job] = None

    # ------------------------------------------------------------------------------------------------- runs

    def run_added(self, firing: Firing, at: int) -> None:
        """Begin a run of each workflow that starts with the job. A run of some shards only, or of a node, begins none.

        So a chain of workflows that start each other cannot go on for ever.
        """
        workflows = self._starts.get(firing.job)
        if workflows is None or firing.terms.items or firing.cause is Cause.DAEMON or firing.id in self._places:
            return
        for key in workflows:
            self._begin(self._state.workflows[key], firing, at)

    def _begin(self, workflow: Workflow, firing: Firing, at: int) -> None:
        unfinished = sum(run in self._open for run in self._runs.get(workflow.key, ()))
        if unfinished >= self._state.policy.max_waiting:
            self._state.put(Kind.WORKFLOW, workflow.key, changed(workflow, skipped=workflow.skipped + 1))
            text = f"workflow {workflow.key} gets no run: {unfinished} of its runs have not ended"
            self._state.publish(at, Topic.CONFIG, text, job=firing.job, firing_id=firing.id)
            return
        when = datetime.fromtimestamp(firing.fire_ms / 1_000, UTC)
        run_id = f"{workflow.key}.{when:%Y%m%dT%H%M%SZ}-{self._state.unique()}"
        begin = workflow.key, workflow.nodes, workflow.start, firing.fire_ms, at
        run = WorkflowRun(run_id, *begin, deadline_ms=workflow.deadline_ms)
        self._state.put(Kind.WORKFLOW_RUN, run_id, run)
        self._runs.setdefault(workflow.key, {})[run_id] = None
        self._open[run_id] = len(run.nodes)
        self._graphs_of_runs[run_id] = self._graphs[workflow.key]
        self._expect(run)
        self._run(Place(run_id, run.start), firing, at)
        self._advance(run_id, (node.name for node in run.nodes if not node.after), at)

    def _run(self, place: Place, firing: Firing, at: int) -> None:
        """Store that the firing is the run of a node."""
        self._places.setdefault(firing.id, {})[place] = None
        self._state.put(Kind.NODE, place.key, NodeRun(NodeState.RUNNING, firing.id, at))
        self._joins.watch(place, firing.id)
        if joined := self._graph(place.run).joined.get(place.node):
            self._joins.node_changed(place, None, at)
            self._advance(place.run, joined, at)

    def _expect(self, run: WorkflowRun) -> None:
        """Await the deadlines and the events of an unfinished run."""
        if len(self._deadlines) > self._most_deadlines:
            # Drop those of ended runs, and those that retries have added twice. A sorted list is a heap.
            self._deadlines = sorted({entry for entry in self._deadlines if entry[1] in self._open})
            self._most_deadlines = max(_FEW_DEADLINES, 2 * len(self._deadlines))
        for name, within in (("", run.deadline_ms), *((node.name, node.deadline_ms) for node in run.nodes)):
            if within:
                heapq.heappush(self._deadlines, (_deadline(run, within), run.id, name))
        self._expect_events(run)

    def _expect_events(self, run: WorkflowRun) -> None:
        for node in run.nodes:
            place = Place(run.id, node.name)
            if node.wait is WaitFor.EVENT and not run.cancelled and self._awaits(place):
                self._events.setdefault((team_of(run.workflow), node.event), {})[place] = None

    def _awaits(self, place: Place) -> bool:
        """Whether a node of an unfinished run that waits for an answer has none yet."""
        found = self._state.nodes.get(place.key)
        return found is None or (not found.ended_ms and found.answer is None)

    def _unexpect(self, place: Place, node: Node) -> None:
        """Await no event for a node any longer."""
        if node.wait is WaitFor.EVENT:
            key = team_of(place.run), node.event
            places = self._events.get(key, {})
            places.pop(place, None)
            if not places:
                self._events.pop(key, None)

    def run_ended(self, firing: Firing, at: int) -> None:
        for place in list(self._places.get(firing.id, ())):
            # The end of another run may have deleted the oldest run of its workflow.
            node = self._state.nodes.get(place.key)
            if node is not None and node.state is NodeState.RUNNING and place.run in self._open:
                self._end_with(place, firing, at)
                if firing.stepped and place.run in self._open:
                    # While its listener was called for the last time, no shard could wait again.
                    self._joins.decide(place, None, at)
        self._look_at(firing.job)

    def shards_changed(self, firing: Firing, changes: Mapping[int, Shard], at: int) -> None:
        self._joins.shards_changed(firing, changes, at)

    def _end_with(self, place: Place, firing: Firing, at: int) -> None:
        """Store the end of a node whose run has ended."""
        record = self._state.nodes[place.key]
        state = end_of(firing.worst)
        if firing.worst is ShardState.CANCELLED and skipped_only(record, firing):
            state = NodeState.SKIPPED
        result = _result_of(firing) if place.node in self._graph(place.run).asked else ""
        self._end(place, state, at, result=result)

    def _end(
        self, place: Place, state: NodeState, at: int, reason: Words | None = None, result: str = "", **more: Answer
    ) -> None:
        """Store the end of a node, then decide about the nodes that follow."""
        found, graph = self._state.nodes.get(place.key, NodeRun(state)), self._graph(place.run)
        made = changed(found, state=state, ended_ms=at, reason=reason, result=result, **more)
        self._state.put(Kind.NODE, place.key, made)
        self._open[place.run] -= 1
        self._unexpect(place, graph.nodes[place.node])
        if found.run not in self._state.firings:
            self._joins.node_changed(place, None, at)
        self._advance(place.run, graph.followers[place.node], at)

    def _advance(self, run_id: str, names: Iterable[str], at: int) -> None:
        """Decide about nodes whose conditions may have changed. An ended node decides about further nodes."""
        run, graph = self._state.workflow_runs[run_id], self._graph(run_id)
        rest = list(names)
        while rest and not run.cancelled:
            name = rest.pop()
            place, node = Place(run_id, name), graph.nodes[name]
            known = self._state.nodes.get(place.key)
            if known is not None and known.state is not NodeState.WAITING:
                continue
            found, why = self._verdict(run_id, node)
            if found is Verdict.HOLDS and node.wait is None and not run.paused:
                self._ready.setdefault(node.job, {})[place] = self._due[node.job] = None
            ended: NodeRun | None = None
            if found is Verdict.NEVER:
                # A retry of the nodes before needs the answer.
                answer = known.answer if known is not None else None
                ended = NodeRun(NodeState.SKIPPED, ended_ms=at, reason=why, answer=answer)
            elif found is Verdict.HOLDS and node.wait is not None and not run.paused:
                ended = self._wait(place, node, known.answer if known is not None else None, at)
            if ended is not None:
                self._state.put(Kind.NODE, place.key, ended)
                self._open[run_id] -= 1
                self._unexpect(place, node)
                rest += graph.followers[name]
        self._finish(run_id, at)

    def _verdict(self, run_id: str, node: Node) -> tuple[Verdict, Words | None]:
        return verdict(node, lambda other: self._state.nodes.get(node_key(run_id, other)))

    def _wait(self, place: Place, node: Node, answer: Answer | None, at: int) -> NodeRun | None:
        """Let a node wait for its answer. Returns its end if the answer has come before, or it is too late for one."""
        found = NodeRun(NodeState.RUNNING, started_ms=at, answer=answer)
        run = self._state.workflow_runs[place.run]
        if answer is not None:
            return changed(found, state=_state_after(answer), ended_ms=at, result=answer.result)
        if node.deadline_ms and _deadline(run, node.deadline_ms) <= at:
            return changed(found, state=NodeState.FAILED, ended_ms=at, reason=_past_deadline(node.deadline_ms))
        self._state.put(Kind.NODE, place.key, found)
        return None

    def _pass_deadline(self, run: WorkflowRun, name: str, at: int) -> None:
        """Tell that a run, or a node of it, has not ended in time. A node that waits for an answer fails."""
        node = self._graph(run.id).nodes[name] if name else None
        found = self._state.nodes.get(node_key(run.id, name)) if name else None
        if found is not None and found.ended_ms:
            return
        due = _deadline(run, node.deadline_ms if node is not None else run.deadline_ms)
        if due > at:  # the run was retried meanwhile
            heapq.heappush(self._deadlines, (due, run.id, name))
            return
        if name:
            text = f"node {name} of {run.id} has not ended in time"
            told = Told(text, "node_late", run=run.id, node=name)
        else:
            told = Told(f"{run.id} has not ended in time", "workflow_run_late", run=run.id)
        self._tell(run, told, at)
        for hook in self._hooks.workflow_late:
            hook(run, told, at)
        if node is not None and node.wait is not None and found is not None and found.state is NodeState.RUNNING:
            self._end(Place(run.id, name), NodeState.FAILED, at, _past_deadline(node.deadline_ms))

    def _records(self, run: WorkflowRun) -> Iterator[tuple[Node, NodeRun | None]]:
        """The nodes of a run with their records, in the order of its graph. None: the node has not started."""
        return ((node, self._state.nodes.get(node_key(run.id, node.name))) for node in run.nodes)

    def _state_of(self, run_id: str, name: str) -> NodeState:
        found = self._state.nodes.get(node_key(run_id, name))
        return found.state if found is not None else NodeState.WAITING

    def _finish(self, run_id: str, at: int) -> None:
        """End a run whose nodes have all ended. Of a cancelled run, nodes without a run count as ended."""
        run = self._state.workflow_runs[run_id]
        if run_id not in self._open or (self._open[run_id] and not run.cancelled):
            return
        states = [self._state_of(run_id, node.name) for node in run.nodes]
        if NodeState.RUNNING in states:
            return
        for node in run.nodes:
            self._unexpect(Place(run_id, node.name), node)
        del self._open[run_id], self._graphs_of_runs[run_id]
        ended = changed(run, ended_ms=at, state=outcome(states, cancelled=run.cancelled), paused=False)
        self._state.put(Kind.WORKFLOW_RUN, run_id, ended)
        self._tell(run, f"run {run_id} of workflow {run.workflow} has ended: {ended.state}", at)
        for hook in self._hooks.workflow_ended:
            hook(ended, at)
        self._prune(run.workflow)

    def _prune(self, workflow: str) -> None:
        """Delete the oldest ended runs of a workflow beyond the limit; all of them if the workflow was removed."""
        runs = self._runs.get(workflow, {})
        ended = [run for run in runs if run not in self._open]
        most = self._state.policy.history if workflow in self._state.workflows else 0
        for run in ended[: max(len(ended) - most, 0)]:
            self._forget(run)
        if not runs:
            self._runs.pop(workflow, None)

    def _forget(self, run_id: str) -> None:
        run = self._state.workflow_runs[run_id]
        for node, found in self._records(run):
            if found is not None:
                place = Place(run_id, node.name)
                self._state.delete(Kind.NODE, place.key)
                self._leave(found.run, place)
        self._state.delete(Kind.WORKFLOW_RUN, run_id)
        del self._runs[run.workflow][run_id]

    def _leave(self, firing_id: str, place: Place) -> None:
        places = self._places.get(firing_id)
        if places is not None:
            places.pop(place, None)
            if not places:
                del self._places[firing_id]

    # ------------------------------------------------------------------------------------------------- starts

    def _obstacle(self, job: Job) -> Words | None:
        """Why no node of the job may start now."""
        if job.key in self._state.faults:
            return Words("job_fault", {"job": job.key})
        if not self._state.enabled(job.key):
            return job_off(job.key).words
        if self._state.paused(job.key):
            return Words("job_paused", {"job": job.key})
        waiting = len(self._state.queue.unfinished(job.key))
        if waiting >= self._state.policy.max_waiting:
            return runs_waiting(waiting, job.key).words
        lack = self._quotas.queue_lack(job.team, shards_of_run(job, NO_TERMS))
        return lack.words if lack else None

    def _start_ready(self, name: str, at: int) -> None:
        """Start the ready nodes of a job, as many as it can have now. If the job is gone or resident, they fail."""
        while places := self._ready.get(name):
            place, job = next(iter(places)), self._state.jobs.get(name)
            if job is None or job.ad_hoc or job.kind is JobKind.DAEMON:
                self._unready(name, place)
                why = resident_node(name) if job is not None and not job.ad_hoc else no_job(name)
                self._end(place, NodeState.FAILED, at, why.words)
                continue
            if self._obstacle(job) is not None:
                return
            if (why_not := self._misfit(place, job)) is not None:
                self._unready(name, place)
                self._end(place, NodeState.FAILED, at, why_not)
                continue
            joined = self._graph(place.run).nodes[place.node].join is Join.SHARDS
            terms, fire_ms = _JOINED if joined else _TERMS, self._state.workflow_runs[place.run].fire_ms
            firing = self._state.new_firing(job, Cause.TRIGGER, fire_ms, terms)
            self._unready(name, place)
            # The node is stored first, so that the new run begins no run of another workflow.
            self._run(place, firing, at)
            self._firings.add(firing, at)
            if joined:
                self._joins.decide(place, None, at, begins=True)
            text = f"{len(firing.work)} shards are due, node {place.node} of {place.run}"
            self._state.publish(at, Topic.FIRED, text, job=name, firing_id=firing.id)

    def _misfit(self, place: Place, job: Job) -> Words | None:
        """Why the job of a node that is joined per shard does not fit the nodes before it. None if it does."""
        node = self._graph(place.run).nodes[place.node]
        if node.join is not Join.SHARDS:
            return None
        if job.gang_start:
            return gang_join(job.key).words
        for after in node.after:
            record = self._state.nodes.get(node_key(place.run, after.node))
            firing = self._state.firings.get(record.run) if record is not None else None
            if firing is not None and len(firing.work) != job.shard_count:
                return other_shards(after.node, len(firing.work), job.shard_count).words
        return None

    def _unready(self, job: str, place: Place) -> None:
        places = self._ready.get(job, {})
        places.pop(place, None)
        if not places:
            self._ready.pop(job, None)

    # ------------------------------------------------------------------------------------------------- commands

    def put(self, event: PutWorkflow) -> None:
        """Create or change a workflow. Runs that have begun keep their graph. Raises ConfigError and Conflict."""
        workflow, known = event.workflow, self._state.workflows.get(event.workflow.key)
        _check_before(event.before, known, workflow.key)
        self.check(workflow)
        if known is not None and same(known, workflow):
            return
        if known is not None:
            self._unname(known, self._named, self._starts)
        made = changed(workflow, changed_ms=event.at, skipped=known.skipped if known is not None else 0)
        self._state.put(Kind.WORKFLOW, made.key, made)
        self._name(made)
        text = f"workflow {made.key} is {'changed' if known else 'registered'}"
        self._tell(made, text, event.at)

    def check(self, workflow: Workflow, jobs: Mapping[str, Job] = _NO_JOBS, removed: Collection[str] = ()) -> None:
        """Raises ConfigError for a wrong graph or job, and Conflict for too many workflows.

        `jobs` are about to be set, by key, and those of `removed` are about to be removed.
        """
        check(workflow.nodes, workflow.start)
        found: dict[str, Job] = {}
        for number, node in enumerate(workflow.nodes):
            if node.wait is not None:
                continue
            job, field = jobs.get(node.job) or self._state.jobs.get(node.job), f"nodes.{number}.job"
            if job is None or job.ad_hoc or job.key in removed:
                raise ConfigError(no_job(node.job), field=field, fix=REGISTER)
            if job.kind is JobKind.DAEMON:
                raise ConfigError(
                    resident_node(job.key), field=field, fix=Told("name a TRANSIENT job", "name_transient")
                )
            found[node.name] = job
        _check_joins(workflow.nodes, found)
        self._check_number({workflow.key})

    def _check_number(self, keys: Set[str]) -> None:
        """Raises Conflict if the workflows and new ones with some `keys` would be too many."""
        known = len(self._state.workflows)
        if (more := len(keys - self._state.workflows.keys())) and known + more > MAX_WORKFLOWS:
            problem = Told(f"there are {known} workflows already", "many_workflows", workflows=known)
            raise Conflict(problem, field="workflow", fix=REMOVE_ONE)

    def check_all(self, workflows: Sequence[Workflow], jobs: Mapping[str, Job], removed: Sequence[str]) -> None:
        """Raises Refused if these workflows, or jobs that are set or removed before, are wrong. See `check`."""
        for number, workflow in enumerate(workflows):
            try:
                self.check(workflow, jobs, removed)
            except ConfigError as error:
                raise ConfigError(error.problem, field=f"workflows.{number}.{error.field}", fix=error.fix) from error
        self._check_number(keys := {workflow.key for workflow in workflows})
        for key in (*removed, *(job.key for job in jobs.values() if job.kind is JobKind.DAEMON)):
            self.check_unnamed(key, keys)

    def let_go(self, workflows: Iterable[Workflow]) -> None:
        """Let former versions of workflows that are about to be set name no job. They still begin runs."""
        for workflow in workflows:
            known = self._state.workflows.get(workflow.key)
            if known is not None and not same(known, workflow):
                self._unname(known, self._named)

    def remove(self, event: RemoveWorkflow) -> None:
        """Remove a workflow. Its runs that have begun go on, and are forgotten at their end.

        Raises NotFound or Outdated.
        """
        known = self.workflow(event.workflow)
        _check_before(event.before, known, known.key)
        self._unname(known, self._named, self._starts)
        del self._graphs[known.key]
        self._state.delete(Kind.WORKFLOW, known.key)
        self._prune(known.key)
        for hook in self._hooks.workflow_removed:
            hook(known.key)
        self._tell(known, f"workflow {known.key} is removed", event.at)

    def check_job(self, job: Job) -> None:
        """Raises Conflict if a workflow names the job, and its runs would not end."""
        if job.kind is JobKind.DAEMON:
            self.check_unnamed(job.key)

    def check_unnamed(self, job: str, but: Set[str] = frozenset()) -> None:
        """Raises Conflict if a workflow names the job, apart from some."""
        if named := self._named.get(job, _NAMED_NOWHERE).keys() - but:
            first = min(named)
            text = f"workflow {first} has a node of job {job}"
            problem = Told(text, "job_in_workflow", workflow=first, job=job)
            raise Conflict(problem, field="jobName", fix=Told("take it out of the workflow first", "out_of_workflow"))

    def cancel(self, event: CancelWorkflowRun) -> None:
        """Start no further node, and cancel the runs of the nodes that have one. Raises NotFound or Conflict."""
        run = self._unended(event.run)
        if run.cancelled:
            return
        self._state.put(Kind.WORKFLOW_RUN, run.id, changed(run, cancelled=True))
        self._tell(run, f"run {run.id} of workflow {run.workflow} is cancelled", event.at)
        found_now = [(node, found) for node, found in self._records(run) if found is not None]
        running_now = [found.run for _, found in found_now if found.run and found.state is NodeState.RUNNING]
        for node, found in found_now:
            if node.wait is not None and found.state is NodeState.RUNNING:
                ended = changed(found, state=NodeState.CANCELLED, ended_ms=event.at)
                self._state.put(Kind.NODE, node_key(run.id, node.name), ended)
                self._open[run.id] -= 1
        for node in run.nodes:
            self._unready(node.job, Place(run.id, node.name))
            self._unexpect(Place(run.id, node.name), node)
        for running in running_now:
            # A run of another workflow may still need it.
            places = self.places_of(running)
            firing = self._state.firings.get(running)
            if firing is not None and all(self._state.workflow_runs[place.run].cancelled for place in places):
                self._tasks.cancel_firing(firing, event.at, _WHY_CANCELLED)
        if run.id in self._open:  # none of them was waiting
            self._finish(run.id, event.at)

    def pause(self, event: PauseWorkflowRun) -> None:
        """Start no further node of a run until it is resumed, or resume it. Raises NotFound or Conflict."""
        run = self._unended(event.run)
        if run.paused == event.paused:
            return
        self._state.put(Kind.WORKFLOW_RUN, run.id, changed(run, paused=event.paused))
        self._tell(run, f"{run.id} is {'paused' if event.paused else 'resumed'}", event.at)
        if event.paused:
            for node in run.nodes:
                self._unready(node.job, Place(run.id, node.name))
        else:
            self._advance(run.id, self._graph(run.id).nodes, event.at)

    def answer(self, event: AnswerNode) -> None:
        """End a node that waits for an approval or a callback. Raises NotFound or Conflict.

        The answer to a callback may come before the conditions of its node hold: its caller may be quicker.
        """
        run = self._unended(event.run)
        node = self._graph(run.id).nodes.get(event.node)
        if node is None:
            problem = Told(f"{run.id} has no node {event.node}", "no_node_of_run", run=run.id, node=event.node)
            raise NotFound(problem, field="node", fix=shown_by(f"jobcloud workflow run {run.id}", "lists them"))
        if node.wait is None or node.wait is WaitFor.EVENT:
            problem = Told(f"node {node.name} waits for no answer of its own", "no_answer_here", node=node.name)
            fix = Told("answer a node that waits for an approval or a callback", "answer_other")
            raise Conflict(problem, field="node", fix=fix)
        place = Place(run.id, node.name)
        found = self._state.nodes.get(place.key)
        if not self._awaits(place) or run.cancelled:
            problem = Told(f"node {node.name} of {run.id} has been decided", "node_decided", node=node.name, run=run.id)
            raise Conflict(problem, field="node", fix=shown_by(f"jobcloud workflow run {run.id}", "shows its state"))
        if found is None and node.wait is WaitFor.APPROVAL:
            problem = Told(f"node {node.name} does not ask for an approval yet", "approval_early", node=node.name)
            raise Conflict(problem, field="node", fix=Told("wait until it is RUNNING", "wait_running"))
        self._answer(place, event.answer, event.at)

    def send_event(self, event: SendWorkflowEvent) -> None:
        """Answer the nodes of unfinished runs that wait, or will wait, for an event.

        Raises Conflict if they are too many.
        """
        places = self.awaiting(event.team, event.event, event.fire_ms)
        if len(places) > MAX_ANSWERED:
            text = f"{len(places)} nodes wait for {event.event}"
            problem = Told(text, "many_await", event=event.event, nodes=len(places))
            raise Conflict(problem, field="event", fix=Told("give fireTime, too", "give_fire_time"))
        for place in places:
            if place.run in self._open and self._awaits(place):
                self._answer(place, event.answer, event.at)

    def awaiting(self, team: str, event: str, fire_ms: int | None) -> list[Place]:
        """The nodes of unfinished runs that an event answers. `fire_ms`: only in runs of this fire time."""
        runs = self._state.workflow_runs
        places = self._events.get((team, event), ())
        return [place for place in places if fire_ms is None or runs[place.run].fire_ms == fire_ms]

    def _answer(self, place: Place, answer: Answer, at: int) -> None:
        """Store the answer to a node. The node ends if it waits for it already."""
        found = self._state.nodes.get(place.key)
        run = self._state.workflow_runs[place.run]
        told = "succeeded" if answer.succeeded else "failed"
        self._tell(run, f"node {place.node} of {run.id} is answered: it has {told}", at)
        if found is not None and found.state is NodeState.RUNNING:
            self._end(place, _state_after(answer), at, result=answer.result, answer=answer)
        else:
            self._state.put(Kind.NODE, place.key, NodeRun(NodeState.WAITING, answer=answer))
            self._unexpect(place, self._graph(place.run).nodes[place.node])

    def _unended(self, run_id: str) -> WorkflowRun:
        """Raises NotFound, or Conflict if the run has ended."""
        run = self.run(run_id)
        if run.ended_ms:
            problem = Told(f"{run.id} has ended", "run_over", run=run.id)
            raise Conflict(problem, field="run", fix=shown_by(f"jobcloud workflow runs {run.workflow}", "lists others"))
        return run

    def failed_nodes(self, run_id: str) -> tuple[list[Firing], list[str]]:
        """What a retry of a run repeats: firings with failed shards, and the nodes that need a new firing.

        Raises NotFound or Conflict.
        """
        run = self.run(run_id)
        if run.cancelled and not run.ended_ms:
            problem = Told(f"{run.id} is being ended", "run_ending", run=run.id)
            raise Conflict(problem, field="run", fix=Told("wait until it has ended", "wait_end"))
        firings: dict[str, Firing] = {}
        names: list[str] = []
        for node, found in self._records(run):
            if found is None or found.state not in (NodeState.FAILED, NodeState.CANCELLED):
                continue
            firing = self._state.firings.get(found.run)
            if node.wait is None and firing is not None and self._may_go_on(firing):
                firings[firing.id] = firing
            else:
                names.append(node.name)
        if not firings and not names and not run.cancelled:
            problem = Told(f"no node of {run.id} has failed", "no_failed_node", run=run.id)
            fix = Told("trigger the job of its first node for a new run", "trigger_start")
            raise Conflict(problem, field="run", fix=fix)
        return list(firings.values()), names

    def _may_go_on(self, firing: Firing) -> bool:
        """Whether a firing has failed shards that can be put back: its job has the same shards as then."""
        job = self._state.jobs.get(firing.job)
        if job is None or job.kind is JobKind.DAEMON or firing.cause is Cause.DAEMON:
            return False
        failed = any(shard.state in retry.MAY_BE_PUT_BACK for shard in firing.shards)
        return failed and retry.has_its_shards(firing, job)

    def repeat(self, run_id: str, names: Sequence[str], at: int) -> None:
        """Continue a run. Nodes that have ended wait again, without their former firings."""
        for name in names:
            place = Place(run_id, name)
            self._repeat(place)
        run = self._state.workflow_runs[run_id]
        if run.cancelled:
            self._state.put(Kind.WORKFLOW_RUN, run_id, changed(run, cancelled=False))
        self._reopen(run_id, names, at)
        self._tell(run, f"run {run_id} of workflow {run.workflow} is retried", at)

    def run_reopened(self, firing: Firing, at: int) -> None:
        """Continue the runs of workflows whose node has failed with this firing. A cancelled run stays cancelled."""
        places = self.places_of(firing.id)
        if not places:
            self._joins.set_free(firing)
        for place in places:
            known = self._state.nodes[place.key]
            # A retry of the listener's first call repeats skipped shards, too.
            skipped = min(known.skipped, sum(shard.state is ShardState.CANCELLED for shard in firing.work))
            again = changed(
                known, state=NodeState.RUNNING, started_ms=at, ended_ms=0, reason=None, result="", skipped=skipped
            )
            self._state.put(Kind.NODE, place.key, again)
            self._reopen(place.run, [place.node], at)
            self._joins.watch(place, firing.id)
            if self._graph(place.run).nodes[place.node].join is Join.SHARDS:
                self._joins.decide(place, None, at)
        self._joins.shards_changed(firing, dict(enumerate(firing.work)), at)

    def _reopen(self, run_id: str, names: Iterable[str], at: int) -> None:
        """Continue a run whose nodes `names` are repeated. Nodes behind them that were skipped wait again.

        The skipped shards of a node that is joined per shard wait again when the shards before them do.
        """
        run = self._state.workflow_runs[run_id]
        if run.ended_ms:
            self._graphs_of_runs[run_id] = graph_of(run.nodes)
        again = changed(run, ended_ms=0, state=NodeState.RUNNING, retried_ms=at)
        self._state.put(Kind.WORKFLOW_RUN, run_id, again)
        graph = self._graph(run_id)
        for behind in {behind for name in names for behind in graph.reachable(name)}:
            place, node = Place(run_id, behind), graph.nodes[behind]
            self._unready(node.job, place)
            found = self._state.nodes.get(place.key)
            if found is not None and found.state is NodeState.SKIPPED and not self._keeps_its_run(found):
                self._repeat(place)
        self._open[run_id] = sum(found is None or not found.ended_ms for _, found in self._records(run))
        if run.ended_ms:
            self._expect(again)
        else:
            self._expect_events(again)
        self._advance(run_id, graph.nodes, at)

    def _keeps_its_run(self, found: NodeRun) -> bool:
        """Whether the shards of a skipped node's run can wait again."""
        firing = self._state.firings.get(found.run)
        job = self._state.jobs.get(firing.job) if firing is not None else None
        return firing is not None and job is not None and retry.has_its_shards(firing, job)

    def _repeat(self, place: Place) -> None:
        """Let an ended node wait as if for the first time. A skipped node keeps the answer that came too early."""
        found = self._state.nodes[place.key]
        self._leave(found.run, place)
        if found.state is NodeState.SKIPPED and found.answer is not None:
            self._state.put(Kind.NODE, place.key, NodeRun(NodeState.WAITING, answer=found.answer))
        else:
            self._state.delete(Kind.NODE, place.key)

    # ------------------------------------------------------------------------------------------------- names

    def _name(self, workflow: Workflow) -> None:
        self._graphs[workflow.key] = graph = graph_of(workflow.nodes)
        self._starts.setdefault(graph.nodes[workflow.start].job, {})[workflow.key] = None
        for job in {node.job for node in workflow.nodes if node.job}:
            self._named.setdefault(job, {})[workflow.key] = None

    def _unname(self, workflow: Workflow, *tables: dict[str, dict[str, None]]) -> None:
        for table in tables:
            for job in {node.job for node in workflow.nodes}:
                names = table.get(job, {})
                names.pop(workflow.key, None)
                if not names:
                    table.pop(job, None)

    def _graph(self, run_id: str) -> Graph:
        """The graph of an unfinished run."""
        return self._graphs_of_runs[run_id]

    def _tell(self, of: Workflow | WorkflowRun, text: str, at: int) -> None:
        """Publish a notice, as one about the job of the start node, so that those who see its team see it."""
        job = next(node.job for node in of.nodes if node.name == of.start)
        self._state.publish(at, Topic.CONFIG, text, job=job)

    # ------------------------------------------------------------------------------------------------- reading

    def workflow(self, key: str) -> Workflow:
        """Raises NotFound."""
        if key not in self._state.workflows:
            raise no_workflow(key)
        return self._state.workflows[key]

    def naming(self, job: str) -> list[Workflow]:
        """The workflows with a node of a job."""
        return [self._state.workflows[key] for key in self._named.get(job, ())]

    def run(self, run_id: str) -> WorkflowRun:
        """Raises NotFound."""
        if run_id not in self._state.workflow_runs:
            raise no_workflow_run(run_id)
        return self._state.workflow_runs[run_id]

    def runs_of(self, workflow: str) -> list[WorkflowRun]:
        """The known runs of a workflow, oldest first."""
        return [self._state.workflow_runs[run] for run in self._runs.get(workflow, ())]

    def places_of(self, firing_id: str) -> list[Place]:
        """The nodes that a firing is the run of."""
        return list(self._places.get(firing_id, ()))

    def nodes_of(self, run: WorkflowRun) -> Iterator[NodeView]:
        """The nodes of a run, in the order of its graph."""
        for node, found in self._records(run):
            if found is not None and (found.state is not NodeState.WAITING or not run.cancelled):
                yield NodeView(
                    node.name,
                    node.job,
                    found.state,
                    found.run,
                    found.started_ms,
                    found.ended_ms,
                    found.reason,
                    found.answer,
                )
            elif run.cancelled:
                yield NodeView(node.name, node.job, NodeState.CANCELLED)
            elif Place(run.id, node.name) in self._ready.get(node.job, ()):
                job = self._state.jobs.get(node.job)
                why = self._obstacle(job) if job is not None else None
                yield NodeView(node.name, node.job, NodeState.READY, reason=why)
            elif run.paused and self._verdict(run.id, node)[0] is Verdict.HOLDS:
                yield NodeView(node.name, node.job, NodeState.READY, reason=Words("node_paused"))
            else:
                yield NodeView(node.name, node.job, NodeState.WAITING)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        if head is None or not (held := self._state.queue.held(head.id)):
            return
        for place in self.places_of(head.id):
            nodes = ", ".join(after.node for after in self._graph(place.run).nodes[place.node].after[:_NAMED_BEFORE])
            text = f"{len(held)} shards of {head.id} wait for the same shards of {nodes}"
            given: dict[str, Parameter] = {"run": head.id, "shards": len(held), "nodes": nodes}
            yield Reason("joined", text, waiting_helps=True, parameters=given)

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "workflow starts": self._starts, "workflows by job": self._named, "workflow runs": self._runs,
            "nodes by run": self._places, "open workflow runs": self._open, "ready nodes": self._ready,
            "due jobs of nodes": self._due, "graphs": self._graphs, "graphs of runs": self._graphs_of_runs,
            "events of nodes": self._events,
        }  # fmt: skip

    def validate(self) -> None:
        assert self._open.keys() == self._graphs_of_runs.keys()
        assert self._open.keys() == {key for key, run in self._state.workflow_runs.items() if not run.ended_ms}
        places: dict[Place, str] = {}
        for run in self._state.workflow_runs.values():
            nodes = {node.name: found for node, found in self._records(run)}
            ended = sum(found is not None and bool(found.ended_ms) for found in nodes.values())
            left = self._open.get(run.id)
            assert left is None or left == len(nodes) - ended, f"{left} nodes of {run.id} are open"
            places |= {Place(run.id, name): found.run for name, found in nodes.items() if found is not None}
            if run.id in self._open:
                self._check_nodes(run, nodes)
        known = {(place, firing) for firing, found in self._places.items() for place in found}
        assert known == {(place, firing) for place, firing in places.items() if firing}, "the nodes by run are wrong"
        assert len(places) == len(self._state.nodes), "a node has no run of a workflow"

    def _check_nodes(self, run: WorkflowRun, nodes: Mapping[str, NodeRun | None]) -> None:
        """Check that each node that runs has an unfinished firing, and that no node is forgotten."""
        awaited = {place for places in self._events.values() for place in places if place.run == run.id}
        for node in run.nodes:
            found, place = nodes[node.name], Place(run.id, node.name)
            if node.wait is WaitFor.EVENT:
                awaits = self._awaits(place) and not run.cancelled
                assert (place in awaited) == awaits, f"{node.name} of {run.id} does not hear its event"
            if found is not None and found.state is NodeState.RUNNING and node.wait is None:
                firing = self._state.firings.get(found.run)
                assert firing is not None, f"{node.name} of {run.id} runs without a firing"
                assert not firing.ended_ms, f"{node.name} of {run.id} runs, and {firing.id} has ended"
                assert (node.name in self._graph(run.id).joined) <= (firing.id in self._firings.followed)
            elif (found is None or found.state is NodeState.WAITING) and not run.cancelled:
                ready, holds = place in self._ready.get(node.job, ()), self._verdict(run.id, node)[0]
                wrong = holds is Verdict.NEVER or ready is not (holds is Verdict.HOLDS and not run.paused)
                assert not wrong, f"{node.name} of {run.id} is forgotten"


def same(one: Workflow, other: Workflow) -> bool:
    """Whether two versions of a workflow have the same configuration."""
    return changed(one, changed_ms=0, skipped=0) == changed(other, changed_ms=0, skipped=0)


def _check_before(before: Workflow | None, known: Workflow | None, key: str) -> None:
    """Raises Outdated if the workflow was changed since its sender has read it."""
    if before is not None and (known is None or not same(before, known)):
        raise changed_meanwhile("workflow", key)


def _check_joins(nodes: Sequence[Node], jobs: Mapping[str, Job]) -> None:
    """Raises ConfigError if a node cannot be joined per shard. `jobs`: those of the nodes by name."""
    for number, node in enumerate(nodes):
        if node.join is not Join.SHARDS:
            continue
        job, field = jobs[node.name], f"nodes.{number}.join"
        if job.gang_start:
            fix = Told("use join: all, or turn gangStart off", "join_all_or_no_gang")
            raise ConfigError(gang_join(job.key), field=field, fix=fix)
        for after in node.after:
            other = jobs.get(after.node)
            if other is not None and other.shard_count != job.shard_count:
                problem = other_shards(after.node, other.shard_count, job.shard_count)
                raise ConfigError(problem, field=field, fix=Told("give both jobs the same number", "same_shards"))


def _result_of(firing: Firing) -> str:
    """The result of a firing's shards as conditions name it, if all of them have the same."""
    found = {result_text(shard.outcome.result) for shard in firing.work}
    return found.pop() if len(found) == 1 else ""


def _state_after(answer: Answer) -> NodeState:
    return NodeState.SUCCEEDED if answer.succeeded else NodeState.FAILED


def _deadline(run: WorkflowRun, within_ms: int) -> int:
    """The end of a time limit that counts from the begin of a run, or from its last retry."""
    return max(run.began_ms, run.retried_ms) + within_ms


def _past_deadline(deadline_ms: int) -> Words:
    return Words("node_past_deadline", {"seconds": deadline_ms // 1000})
