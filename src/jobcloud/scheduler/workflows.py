"""Workflows: which job runs after which.

A run of a workflow begins with a whole run of the job of its start node: by cron, by a trigger or by a backfill. Each
node then gets one run of its job, as soon as its conditions hold. All these runs have the same fire time. The run of
the workflow keeps the graph that the workflow had at its begin.

The end of a node is stored together with the end of its job's run, and the start of a node together with the new run.
So a new leader neither loses a node nor starts it twice. A node that waits has no record and costs nothing: an end
visits only the nodes that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set, Sized
from datetime import UTC, datetime
from typing import Final, NamedTuple

from jobcloud.config import Job, JobKind
from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import CancelWorkflowRun, Kind, PutWorkflow, RemoveWorkflow, Topic
from jobcloud.model import (
    NO_TERMS,
    Cause,
    Firing,
    Node,
    NodeRun,
    NodeState,
    ShardState,
    Terms,
    Workflow,
    WorkflowRun,
    changed,
    node_key,
)
from jobcloud.scheduler import retry
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.refusals import changed_meanwhile, job_off, no_job, no_workflow, no_workflow_run
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.workflow_graph import Graph, Verdict, check, graph_of, outcome, verdict
from jobcloud.sentences import Told, Words
from jobcloud.sentences.frequent import REGISTER, REMOVE_ONE, resident_node, runs_waiting, shown_by

MAX_WORKFLOWS: Final = 10_000
_NO_JOBS: Final[Mapping[str, Job]] = {}
_NAMED_NOWHERE: Final[Mapping[str, None]] = {}
# The time between two looks at the jobs whose ready nodes could not start.
_AGAIN_MS = 1_000
# The fire time may be long past when the node starts, so no deadline counts for its start.
_TERMS: Final = Terms(retried=True)
_WHY_CANCELLED = "the run of its workflow was cancelled"
_ENDS = {
    ShardState.FINISHED: NodeState.SUCCEEDED,
    ShardState.KILLED: NodeState.CANCELLED,
    ShardState.CANCELLED: NodeState.CANCELLED,
}


class Place(NamedTuple):
    """A node in a run of its workflow."""

    run: str
    node: str

    @property
    def key(self) -> str:
        return node_key(self.run, self.node)


class NodeView(NamedTuple):
    """A node of a run, also one that has no record. `reason`: why it was skipped, or failed without a run."""

    name: str
    job: str
    state: NodeState
    run: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    reason: Words | None = None


class Workflows(Part):
    def __init__(self, state: State, quotas: Quotas, firings: Firings, tasks: Tasks) -> None:
        super().__init__(state)
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
            for node, found in self._records(run):
                if found is not None:
                    self._restore_node(Place(run.id, node.name), found)
        for run in runs:
            if not run.ended_ms:
                self._resume(run, at)
        for key in list(self._runs):
            self._prune(key)

    def _restore_node(self, place: Place, found: NodeRun) -> None:
        if found.run:
            self._places.setdefault(found.run, {})[place] = None
        if found.ended_ms and place.run in self._open:
            self._open[place.run] -= 1

    def _resume(self, run: WorkflowRun, at: int) -> None:
        for node, found in self._records(run):
            if found is None or found.ended_ms:
                continue
            place, firing = Place(run.id, node.name), self._state.firings.get(found.run)
            if firing is None:
                self._end(place, NodeState.FAILED, at, Words("node_run_lost", {"run": found.run}))
            elif firing.ended_ms:
                self._end(place, _end_of(firing), firing.ended_ms)
        if run.id in self._open:
            self._advance(run.id, self._graph(run.id).nodes, at)

    def on_tick(self, at: int) -> None:
        if self._ready and at >= self._again:
            self._due = dict.fromkeys(self._ready)
        due, self._due = self._due, {}
        for job in due:
            self._state.isolated(job, at, self._start_ready, job, at)
        if due:
            self._again = at + _AGAIN_MS

    def next_wake(self, at: int) -> int | None:
        if self._due:
            return at
        return self._again if self._ready else None

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
        run = WorkflowRun(run_id, workflow.key, workflow.nodes, workflow.start, firing.fire_ms, at)
        self._state.put(Kind.WORKFLOW_RUN, run_id, run)
        self._runs.setdefault(workflow.key, {})[run_id] = None
        self._open[run_id] = len(run.nodes)
        self._graphs_of_runs[run_id] = self._graphs[workflow.key]
        self._run(Place(run_id, run.start), firing, at)
        self._advance(run_id, (node.name for node in run.nodes if not node.after), at)

    def _run(self, place: Place, firing: Firing, at: int) -> None:
        """Store that the firing is the run of a node."""
        self._places.setdefault(firing.id, {})[place] = None
        self._state.put(Kind.NODE, place.key, NodeRun(NodeState.RUNNING, firing.id, at))

    def run_ended(self, firing: Firing, at: int) -> None:
        for place in list(self._places.get(firing.id, ())):
            # The end of another run may have deleted the oldest run of its workflow.
            node = self._state.nodes.get(place.key)
            if node is not None and node.state is NodeState.RUNNING and place.run in self._open:
                self._end(place, _end_of(firing), at)
        self._look_at(firing.job)

    def _end(self, place: Place, state: NodeState, at: int, reason: Words | None = None) -> None:
        """Store the end of a node, then decide about the nodes that follow."""
        found = self._state.nodes.get(place.key, NodeRun(state))
        self._state.put(Kind.NODE, place.key, changed(found, state=state, ended_ms=at, reason=reason))
        self._open[place.run] -= 1
        self._advance(place.run, self._graph(place.run).followers[place.node], at)

    def _advance(self, run_id: str, names: Iterable[str], at: int) -> None:
        """Decide about nodes whose conditions may have changed. A skipped node decides about further nodes."""
        run, graph = self._state.workflow_runs[run_id], self._graph(run_id)
        rest = list(names)
        while rest and not run.cancelled:
            name = rest.pop()
            place, node = Place(run_id, name), graph.nodes[name]
            if place.key in self._state.nodes:
                continue
            found, why = verdict(node, lambda other: self._state_of(run_id, other))
            if found is Verdict.HOLDS:
                self._ready.setdefault(node.job, {})[place] = self._due[node.job] = None
            elif found is Verdict.NEVER:
                self._state.put(Kind.NODE, place.key, NodeRun(NodeState.SKIPPED, ended_ms=at, reason=why))
                self._open[run_id] -= 1
                rest += graph.followers[name]
        self._finish(run_id, at)

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
        del self._open[run_id], self._graphs_of_runs[run_id]
        found = outcome(states, cancelled=run.cancelled)
        self._state.put(Kind.WORKFLOW_RUN, run_id, changed(run, ended_ms=at, state=found))
        self._tell(run, f"run {run_id} of workflow {run.workflow} has ended: {found}", at)
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
            firing = self._state.new_firing(job, Cause.TRIGGER, self._state.workflow_runs[place.run].fire_ms, _TERMS)
            self._unready(name, place)
            # The node is stored first, so that the new run begins no run of another workflow.
            self._run(place, firing, at)
            self._firings.add(firing, at)
            text = f"{len(firing.work)} shards are due, node {place.node} of {place.run}"
            self._state.publish(at, Topic.FIRED, text, job=name, firing_id=firing.id)

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
        for number, node in enumerate(workflow.nodes):
            job, field = jobs.get(node.job) or self._state.jobs.get(node.job), f"nodes.{number}.job"
            if job is None or job.ad_hoc or job.key in removed:
                raise ConfigError(no_job(node.job), field=field, fix=REGISTER)
            if job.kind is JobKind.DAEMON:
                raise ConfigError(
                    resident_node(job.key), field=field, fix=Told("name a TRANSIENT job", "name_transient")
                )
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
        run = self.run(event.run)
        if run.ended_ms:
            problem = Told(f"{run.id} has ended", "run_over", run=run.id)
            raise Conflict(problem, field="run", fix=shown_by(f"jobcloud workflow runs {run.workflow}", "lists others"))
        if run.cancelled:
            return
        self._state.put(Kind.WORKFLOW_RUN, run.id, changed(run, cancelled=True))
        self._tell(run, f"run {run.id} of workflow {run.workflow} is cancelled", event.at)
        running_now = [
            found.run for _, found in self._records(run) if found is not None and found.state is NodeState.RUNNING
        ]
        for node in run.nodes:
            self._unready(node.job, Place(run.id, node.name))
        for running in running_now:
            # A run of another workflow may still need it.
            if all(self._state.workflow_runs[place.run].cancelled for place in self._places[running]):
                self._tasks.cancel_firing(self._state.firings[running], event.at, _WHY_CANCELLED)
        if run.id in self._open:  # none of them was waiting
            self._finish(run.id, event.at)

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
            if firing is not None and self._may_go_on(firing):
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
            self._leave(self._state.nodes[place.key].run, place)
            self._state.delete(Kind.NODE, place.key)
        run = self._state.workflow_runs[run_id]
        if run.cancelled:
            self._state.put(Kind.WORKFLOW_RUN, run_id, changed(run, cancelled=False))
        self._reopen(run_id, names, at)
        self._tell(run, f"run {run_id} of workflow {run.workflow} is retried", at)

    def run_reopened(self, firing: Firing, at: int) -> None:
        """Continue the runs of workflows whose node has failed with this firing. A cancelled run stays cancelled."""
        for place in self._places.get(firing.id, ()):
            again = changed(self._state.nodes[place.key], state=NodeState.RUNNING, started_ms=at, ended_ms=0)
            self._state.put(Kind.NODE, place.key, again)
            self._reopen(place.run, [place.node], at)

    def _reopen(self, run_id: str, names: Iterable[str], at: int) -> None:
        """Continue a run whose nodes `names` are repeated. Nodes behind them that were skipped wait again."""
        run = self._state.workflow_runs[run_id]
        if run.ended_ms:
            self._graphs_of_runs[run_id] = graph_of(run.nodes)
            self._state.put(Kind.WORKFLOW_RUN, run_id, changed(run, ended_ms=0, state=NodeState.RUNNING))
        graph = self._graph(run_id)
        for behind in {behind for name in names for behind in graph.reachable(name)}:
            self._unready(graph.nodes[behind].job, Place(run_id, behind))
            if self._state_of(run_id, behind) is NodeState.SKIPPED:
                self._state.delete(Kind.NODE, node_key(run_id, behind))
        self._open[run_id] = sum(found is None or not found.ended_ms for _, found in self._records(run))
        self._advance(run_id, graph.nodes, at)

    # ------------------------------------------------------------------------------------------------- names

    def _name(self, workflow: Workflow) -> None:
        self._graphs[workflow.key] = graph = graph_of(workflow.nodes)
        self._starts.setdefault(graph.nodes[workflow.start].job, {})[workflow.key] = None
        for node in workflow.nodes:
            self._named.setdefault(node.job, {})[workflow.key] = None

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
            if found is not None:
                yield NodeView(
                    node.name, node.job, found.state, found.run, found.started_ms, found.ended_ms, found.reason
                )
            elif run.cancelled:
                yield NodeView(node.name, node.job, NodeState.CANCELLED)
            elif Place(run.id, node.name) in self._ready.get(node.job, ()):
                job = self._state.jobs.get(node.job)
                why = self._obstacle(job) if job is not None else None
                yield NodeView(node.name, node.job, NodeState.READY, reason=why)
            else:
                yield NodeView(node.name, node.job, NodeState.WAITING)

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "workflow starts": self._starts, "workflows by job": self._named, "workflow runs": self._runs,
            "nodes by run": self._places, "open workflow runs": self._open, "ready nodes": self._ready,
            "due jobs of nodes": self._due, "graphs": self._graphs, "graphs of runs": self._graphs_of_runs,
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
        state_of: Callable[[str], NodeState] = lambda name: self._state_of(run.id, name)  # noqa: E731
        for node in run.nodes:
            found = nodes[node.name]
            if found is not None and found.state is NodeState.RUNNING:
                firing = self._state.firings.get(found.run)
                assert firing is not None, f"{node.name} of {run.id} runs without a firing"
                assert not firing.ended_ms, f"{node.name} of {run.id} runs, and {firing.id} has ended"
            elif found is None and not run.cancelled:
                ready = Place(run.id, node.name) in self._ready.get(node.job, ())
                holds = verdict(node, state_of)[0]
                assert holds is (Verdict.HOLDS if ready else Verdict.OPEN), f"{node.name} of {run.id} is forgotten"


def same(one: Workflow, other: Workflow) -> bool:
    """Whether two versions of a workflow have the same configuration."""
    return changed(one, changed_ms=0, skipped=0) == changed(other, changed_ms=0, skipped=0)


def _check_before(before: Workflow | None, known: Workflow | None, key: str) -> None:
    """Raises Outdated if the workflow was changed since its sender has read it."""
    if before is not None and (known is None or not same(before, known)):
        raise changed_meanwhile("workflow", key)


def _end_of(firing: Firing) -> NodeState:
    return _ENDS.get(firing.worst, NodeState.FAILED)
