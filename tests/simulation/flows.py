"""Workflows in a history: the operators' commands, and promise 37.

The checks read the stored records alone. They decide with rules of their own when a node may start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobcloud.messages import (
    AnswerNode,
    CancelWorkflowRun,
    Kind,
    PauseWorkflowRun,
    PutWorkflow,
    RemoveWorkflow,
    RetryWorkflowRun,
    SendWorkflowEvent,
)
from jobcloud.model import (
    After,
    Answer,
    Cause,
    Firing,
    Join,
    Node,
    NodeRun,
    NodeState,
    On,
    Shard,
    ShardState,
    Task,
    WaitFor,
    Workflow,
    WorkflowRun,
)
from jobcloud.server import records

if TYPE_CHECKING:
    from .promise import Entries
    from .schedulers import Process, SimCore
    from .world import World

_GOOD = {
    On.SUCCESS: {"SUCCEEDED"},
    On.FAILURE: {"FAILED"},
    On.EITHER: {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"},
}
_OVER = _GOOD[On.EITHER]


def shape(jobs: list[str], b: int) -> tuple[Node, ...]:
    """A graph of jobs. The first of them starts it."""
    first, second, third = jobs[0], jobs[b % len(jobs)], jobs[-1]
    start = Node("start", first)
    return (
        (start, Node("then", second, (After("start"),)), Node("last", third, (After("then"),))),
        (
            start, Node("left", second, (After("start"),)), Node("right", third, (After("start"),)),
            Node("both", second, (After("left"), After("right"))),
            Node("any", third, (After("left"), After("right", On.FAILURE)), Join.ANY),
        ),
        (
            start, Node("free", third), Node("alarm", second, (After("start", On.FAILURE),)),
            Node("clean", third, (After("alarm", On.EITHER), After("free", On.EITHER))),
        ),
        (start, Node("again", first, (After("start", On.EITHER),))),
    )[b % 4]  # fmt: skip


_OF_SHARDS = {"FINISHED": "SUCCEEDED", "FAILED": "FAILED", "DEAD": "FAILED"}


def waiting_shape(same: list[str], b: int) -> tuple[Node, ...]:
    """A graph with nodes that are joined per shard, or that wait for answers. `same`: jobs with as many shards."""
    first, second, third = same[0], same[b % len(same)], same[-1]
    on = (On.SUCCESS, On.SUCCESS, On.EITHER, On.FAILURE)[b // 4 % 4]
    start, within = Node("start", first), b % 3 * 5_000
    later = (After("start", On.EITHER),) if b // 64 % 2 else ()  # answers may come before their time
    return (
        (
            start, Node("then", second, (After("start", on),), Join.SHARDS),
            Node("last", third, (After("then"),), Join.SHARDS), Node("whole", third, (After("then", On.EITHER),)),
        ),
        (
            start, Node("other", second),
            Node("both", third, (After("start"), After("other", On.EITHER)), Join.SHARDS),
        ),
        (
            start, Node("ask", "", (After("start", On.EITHER),), wait=WaitFor.APPROVAL, deadline_ms=within),
            Node("told", after=later, wait=WaitFor.CALLBACK),
            Node("last", second, (After("ask"), After("told", On.EITHER)), Join.ANY),
        ),
        (
            start, Node("come", after=later, wait=WaitFor.EVENT, event="arrived", deadline_ms=within),
            Node("then", second, (After("start"), After("come"))),
            Node("last", second, (After("then"), After("come")), Join.SHARDS),
        ),
    )[b % 4]  # fmt: skip


class Flows:
    def __init__(self, world: World) -> None:
        self._world = world
        self.over = False  # the operators ask for nothing more, except removals
        self._retried: set[str] = set()  # runs of workflows
        #: (run, node) → its firings
        self._firings: dict[tuple[str, str], set[str]] = {}
        #: firing → the nodes joined per shard that it is the run of
        self._joined: dict[str, list[tuple[str, Node]]] = {}
        #: node → its answer
        self._answers: dict[str, Answer] = {}

    # ---- operators -------------------------------------------------------------------------------------------

    def act(self, jobs: list[str], a: int, b: int) -> None:
        """Set a workflow of some jobs and remove it after a while; or cancel or retry a run."""
        if self.over:
            return
        ask = self._world.operators.ask
        found = self._runs(NodeState.READY if b % 5 else NodeState.FAILED)
        if b % 5 < 2 and found:
            run = found[a % len(found)]
            if b % 5:
                ask(("flow", run), None, lambda at: CancelWorkflowRun(at, run))
            else:
                self._retry(run)
            return
        key = f"w{a % 2}" if ":" not in jobs[0] else f"{jobs[0].partition(':')[0]}:w"
        waits = b // 8 % 2
        made = Workflow(key, waiting_shape(self._same(jobs), b) if waits else shape(jobs, b), "start")
        if waits:
            for later in range(1_000, 12_000, 2_500):
                self._world.later(later + b % 2_000, self._answer, a, b + later // 2_500)
        ask(("flow", key), None, lambda at: PutWorkflow(at, made))
        self._world.operators.trigger(jobs[0])
        self._world.later((15_000 if b % 3 == 1 else 1_000) + b % 9_000, self.remove, key)
        if b % 3 == 0:  # a node waits for its job, and something happens to its run
            self._world.later(500 + b % 1_500, self._world.operators.hold, made.nodes[-1].job, 2_000 + b % 6_000)
            self._world.later(2_000 + b % 6_000, self.act, jobs, a, b - b % 5 + 1)
        elif b % 3 == 1:
            for later in (4_000, 9_000):
                self._world.later(later + b % 4_000, self.act, jobs, a, b - b % 5)

    def _same(self, jobs: list[str]) -> list[str]:
        """The first job, and the others with as many shards."""
        leader = self._world.leader()
        known = leader.core.jobs if leader is not None else {}
        widths = {key: known[key].shard_count for key in jobs if key in known}
        return [key for key in jobs if key == jobs[0] or widths.get(key) == widths.get(jobs[0], 0)]

    def _answer(self, a: int, b: int) -> None:
        """Answer a node, send an event, or pause or resume a run."""
        ask, found = self._world.operators.ask, self._runs(NodeState.RUNNING)
        if not found or self.over:
            return
        run, answer = found[a % len(found)], Answer(b % 4 > 0, by="user:ann", at_ms=self._world.clock())
        if b % 5 < 2:
            ask(("flow", run), None, lambda at: PauseWorkflowRun(at, run, b % 5 == 0))
        elif b % 5 == 2:
            team = run.partition(":")[0] if ":" in run else "default"
            ask(("event", team), None, lambda at: SendWorkflowEvent(at, team, "arrived", answer))
        else:
            name = "ask" if b % 5 == 3 else "told"
            ask(("flow", run), None, lambda at: AnswerNode(at, run, name, answer))

    def _runs(self, state: NodeState) -> list[str]:
        """The runs with a node in a state, or else all runs."""
        leader = self._world.leader()
        if leader is None:
            return []
        known = sorted(leader.core.workflow_runs)
        nodes = {key: leader.core.nodes_of(leader.core.workflow_runs[key]) for key in known}
        return [key for key in known if state in [one.state for one in nodes[key]]] or known

    def _retry(self, run: str) -> None:
        self._retried.add(run)
        leader = self._world.leader()
        known = leader.core.workflow_runs.get(run) if leader is not None else None
        if leader is not None and known is not None:
            self._world.operators.retried |= {one.run for one in leader.core.nodes_of(known) if one.run}
        self._world.operators.ask(("flow", run), None, lambda at: RetryWorkflowRun(at, run))

    def joined_with(self, firing_id: str) -> set[str]:
        """The runs of joined nodes in the runs of workflows that a firing is of. A retry repeats them, too."""
        leader = self._world.leader()
        if leader is None:
            return set()
        nodes = [[one.run for one in leader.core.nodes_of(run)] for run in leader.core.workflow_runs.values()]
        return {one for found in nodes if firing_id in found for one in found if one in self._joined}

    def told(self, answer: AnswerNode) -> None:
        """A leader has confirmed an answer."""
        node = self._read(Kind.NODE, f"{answer.run}/{answer.node}")
        stored = self._read(Kind.WORKFLOW_RUN, answer.run) is not None and answer.run not in self._retried
        if stored and (not isinstance(node, NodeRun) or node.answer is None):
            self._broken(f"the answer to {answer.node} of {answer.run} is confirmed, and is not stored")

    def remove(self, key: str) -> None:
        self._world.operators.ask(("flow", key), None, lambda at: RemoveWorkflow(at, key))

    # ---- the store -------------------------------------------------------------------------------------------

    def older_state(self) -> None:
        """A backup was restored."""
        self._firings.clear()
        self._answers.clear()

    def written(self, before: Entries, batch: Mapping[Any, Any], known: set[str]) -> None:
        """A write has succeeded. `known`: the firings that were stored before it."""
        for (kind, key), record in batch.items():
            if isinstance(record, NodeRun):
                self._node_written(key, record, before, batch)
            elif isinstance(record, WorkflowRun) and record.ended_ms:
                self._run_ended(record)
            elif isinstance(record, Task) and record.firing_id in self._joined and (kind, key) not in before:
                self._shard_started(record)
            elif kind is Kind.FIRING and key in self._world.promise.firings:
                firing = self._world.promise.firings[key]
                if key not in known:
                    self._begun(firing, before, batch)
                if firing.ended_ms and record is not None:
                    self._is_told(firing)

    def _node_written(self, key: str, node: NodeRun, before: Entries, batch: Mapping[Any, Any]) -> None:
        run_id, _, name = key.rpartition("/")
        run, old = self._read(Kind.WORKFLOW_RUN, run_id), _decode(before, Kind.NODE, key)
        if not isinstance(run, WorkflowRun):
            self._broken(f"{key} is stored without its run")
            return
        config = next(one for one in run.nodes if one.name == name)
        self._answered(key, config, node, run)
        if node.state is NodeState.RUNNING and (old is None or old.state is not NodeState.RUNNING):
            self._world.history.happened["start of a node"] += 1
            self._started(run, config, node, batch)
        elif node.state is NodeState.SKIPPED:
            self._world.history.happened["skip of a node"] += 1
            if node.run and config.join is Join.SHARDS:
                self._skipped_by_shards(key, run, config, node)
            elif self._holds(run, config) is not False:
                self._broken(f"{key} is skipped, and its conditions may hold")
        elif node.state is NodeState.CANCELLED and config.join is Join.SHARDS and not run.cancelled:
            self._cancelled_by_shards(key, run, node, batch)
        elif node.state is NodeState.SUCCEEDED:
            firing = self._world.promise.firings.get(node.run)
            if firing is not None and firing.ended_ms and firing.worst is not ShardState.FINISHED:
                self._broken(f"{key} succeeded, and {firing.id} ended {firing.worst}")

    def _started(self, run: WorkflowRun, config: Node, node: NodeRun, batch: Mapping[Any, Any]) -> None:
        place, operators = (run.id, config.name), self._world.operators
        if config.wait is not None:
            if self._holds(run, config) is not True or run.cancelled:
                self._broken(f"{place} waits before its conditions hold")
            return
        if config.join is Join.SHARDS:
            self._joined.setdefault(node.run, []).append((run.id, config))
        if (Kind.FIRING, node.run) not in batch:
            self._broken(f"{place} starts, and its run {node.run} is not stored with it")
        firings = self._firings.setdefault(place, set())
        if run.paused and config.name != run.start and node.run not in firings:
            self._broken(f"{place} starts, and its run is paused")
        allowed = run.id in self._retried or node.run in operators.retried
        if run.cancelled and not allowed:
            self._broken(f"{place} starts, and its run is cancelled")
        if firings and not allowed:
            self._broken(f"{place} starts with {node.run}, and had {firings}")
        if config.name != run.start and self._holds(run, config) is not True and not allowed:
            self._broken(f"{place} starts before its conditions hold")
        firings.add(node.run)
        if run.id in self._retried:  # the operator's request may reach a leader now
            operators.retried.add(node.run)

    def _answered(self, key: str, config: Node, node: NodeRun, run: WorkflowRun) -> None:
        """A node keeps the answer that it has got, and ends as it says."""
        known = self._answers.get(key)
        if known is not None and node.answer != known and run.id not in self._retried:
            self._broken(f"{key} has lost its answer")
        if node.answer is not None:
            self._answers[key] = node.answer
            self._world.history.happened["answer to a node"] += 1
        if config.wait is None or node.state not in (NodeState.SUCCEEDED, NodeState.FAILED):
            return
        wanted = "FAILED" if node.answer is None or not node.answer.succeeded else "SUCCEEDED"
        if node.state != wanted or (node.answer is None and not config.deadline_ms and node.reason is None):
            self._broken(f"{key} is {node.state}, and its answer is {node.answer}")

    def _shard_started(self, task: Task) -> None:
        """A shard of a joined node starts after the same shard of each node before it."""
        for run_id, config in self._joined[task.firing_id]:
            run = self._read(Kind.WORKFLOW_RUN, run_id)
            if run_id in self._retried or not isinstance(run, WorkflowRun):
                continue
            self._world.history.happened["start of a joined shard"] += 1
            for after in config.after:
                shard, firing = self._shard_before(run_id, after, task.item)
                if firing in self._world.operators.retried or shard is None:
                    continue
                if not shard.state.ended or not _allows(after, shard):
                    self._broken(f"{task.id} starts, and shard {task.item} of {after.node} is {shard.state}")

    def _shard_before(self, run_id: str, after: After, item: int) -> tuple[Shard | None, str]:
        """The shard that a condition names, if it is known, and its firing."""
        node = self._read(Kind.NODE, f"{run_id}/{after.node}")
        firing = self._world.promise.firings.get(node.run) if isinstance(node, NodeRun) else None
        if firing is None or item >= len(firing.work):
            return None, ""
        return firing.work[item], firing.id

    def held(self, core: SimCore, firing_id: str, item: int) -> bool:
        """Whether a shard waits for shards of the nodes before its own, as far as a scheduler knows.

        A superseded leader does not know that these shards have ended.
        """
        if firing_id in self._joined and core.epoch != self._world.server.epoch:
            return True
        for run_id, config in self._joined.get(firing_id, ()):
            for after in config.after:
                shard, _ = self._shard_before(run_id, after, item)
                if shard is None or not shard.state.ended or not _allows(after, shard):
                    return True
        return False

    def waiting(self, process: Process) -> list[str]:
        """The unfinished runs that wait for operators: for an answer, or for the end of a pause."""
        runs = process.core.workflow_runs.values()
        return [one.id for one in runs if not one.ended_ms and (one.paused or any(node.wait for node in one.nodes))]

    def free(self, run: str) -> None:
        """End a run that waits for operators."""
        self._world.operators.ask(("flow", run), None, lambda at: CancelWorkflowRun(at, run))

    def _skipped_by_shards(self, key: str, run: WorkflowRun, config: Node, node: NodeRun) -> None:
        firing = self._world.promise.firings.get(node.run)
        stored = (Kind.FIRING, node.run) in self._world.server.entries
        if firing is None or not stored or run.id in self._retried:
            return
        for item, shard in enumerate(firing.work):
            found = [(after, *self._shard_before(run.id, after, item)) for after in config.after]
            unknown = any(one is None or name in self._world.operators.retried for _, one, name in found)
            if shard.state is ShardState.CANCELLED and not unknown:
                if all(one is not None and _allows(after, one) for after, one, _ in found):
                    self._broken(f"{key} is skipped, and shard {item} may run")
            elif shard.state is not ShardState.FINISHED and not unknown:
                self._broken(f"{key} is skipped, and shard {item} is {shard.state}")

    def _cancelled_by_shards(self, key: str, run: WorkflowRun, node: NodeRun, batch: Mapping[Any, Any]) -> None:
        """A node is SKIPPED if all of its cancelled shards have waited in vain."""
        firing = self._world.promise.firings.get(node.run)
        if firing is None or not firing.ended_ms or batch.get((Kind.FIRING, node.run)) is None:
            return  # its run was deleted in this write, because its job was removed
        if run.id in self._retried or firing.id in self._world.operators.retried:
            return
        cancelled = [(item, one) for item, one in enumerate(firing.work) if one.state is ShardState.CANCELLED]
        if cancelled and all(one.message.startswith((f"shard {item} of ", "node ")) for item, one in cancelled):
            self._broken(f"{key} is CANCELLED, and only the nodes before it have cancelled its shards")

    def _holds(self, run: WorkflowRun, config: Node) -> bool | None:
        states = [(after, self._state(run, after.node)) for after in config.after]
        held = [None if state not in _OVER else state in _GOOD[after.on] for after, state in states]
        if config.join is Join.SHARDS:
            begun = [self._read(Kind.NODE, f"{run.id}/{after.node}") for after in config.after]
            held = [True if one is not None and one.run else found for found, one in zip(held, begun, strict=True)]
        if config.join is not Join.ANY:
            return False if False in held else None if None in held else True
        return True if True in held or not held else None if None in held else False

    def _state(self, run: WorkflowRun, name: str) -> str:
        found = self._read(Kind.NODE, f"{run.id}/{name}")
        return str(found.state) if isinstance(found, NodeRun) else ""

    def _begun(self, firing: Firing, before: Entries, batch: Mapping[Any, Any]) -> None:
        """A whole run of the job of a start node begins a run of each workflow, in the same write."""
        if firing.terms.items or firing.cause is Cause.DAEMON or self._follows(firing.id, before):
            return
        for kind, key in self._world.server.entries:
            workflow = self._read(Kind.WORKFLOW, key) if kind == Kind.WORKFLOW else None
            if not isinstance(workflow, Workflow) or (Kind.WORKFLOW, key) in batch or (kind, key) not in before:
                continue
            starts = [one.job for one in workflow.nodes if one.name == workflow.start]
            began = [one for one in batch.values() if isinstance(one, WorkflowRun) and one.workflow == key]
            if starts == [firing.job] and not any(one.fire_ms == firing.fire_ms for one in began):
                self._broken(f"{firing.id} begins no run of {key}")

    def _is_told(self, firing: Firing) -> None:
        """The end of a run is stored together with the end of its node."""
        for key, node in self._nodes_of(firing.id):
            if node.state is NodeState.RUNNING:
                self._broken(f"{firing.id} has ended, and {key} has not")

    def _run_ended(self, run: WorkflowRun) -> None:
        states = {one.name: self._state(run, one.name) for one in run.nodes}
        self._world.history.happened["end of a workflow"] += 1
        if not run.cancelled and (left := [name for name, state in states.items() if state not in _OVER]):
            self._broken(f"{run.id} has ended, and {left} have not")
        for node in run.nodes:
            joined = node.join is Join.SHARDS
            if states[node.name] == "SKIPPED" and not joined and self._holds(run, node) is not False:
                self._broken(f"{run.id} has ended, and {node.name} is skipped without a reason: {states}")
        worst = next((one for one in ("FAILED", "CANCELLED") if one in states.values()), "SUCCEEDED")
        wanted = "CANCELLED" if run.cancelled and worst != "FAILED" else worst
        if run.state != wanted:
            self._broken(f"{run.id} is {run.state}, and its nodes are {states}")

    def cancels(self, firing_id: str) -> bool:
        """Whether the run of a workflow was cancelled to which a firing belongs."""
        keys = (key.rpartition("/")[0] for key, _ in self._nodes_of(firing_id))
        runs = (self._read(Kind.WORKFLOW_RUN, key) for key in keys)
        return any(isinstance(run, WorkflowRun) and run.cancelled for run in runs)

    def _follows(self, firing_id: str, before: Entries) -> bool:
        """Whether a firing is a node of a run that had begun, or no start node."""
        for key, _ in self._nodes_of(firing_id):
            run_id, _, name = key.rpartition("/")
            run = self._read(Kind.WORKFLOW_RUN, run_id)
            if (Kind.WORKFLOW_RUN, run_id) in before or (isinstance(run, WorkflowRun) and run.start != name):
                return True
        return False

    def _nodes_of(self, firing_id: str) -> list[tuple[str, NodeRun]]:
        """The stored nodes of a firing."""
        name, found = firing_id.encode(), []
        for (kind, key), value in self._world.server.entries.items():
            if kind == Kind.NODE and name in value:
                node = records.decode(Kind.NODE, key, value)
                if isinstance(node, NodeRun) and node.run == firing_id:
                    found.append((key, node))
        return found

    def _read(self, kind: Kind, key: str) -> Any:
        return _decode(self._world.server.entries, kind, key)

    def _broken(self, text: str) -> None:
        self._world.violation(f"37: {text}")

    # ---- at the end ------------------------------------------------------------------------------------------

    def unsettled(self, process: Process) -> str:
        """A run of a workflow that still has to end, or "". A node may still run, or its job may have to wait.

        Operators end the runs that wait for them.
        """
        core = process.core
        waiting = self.waiting(process)
        if not self._world.operators.waiting:
            for run_id in waiting:  # a late request has paused it, or has begun it
                self.free(run_id)
        for run in core.workflow_runs.values():
            nodes = core.nodes_of(run)
            held = any(one.state is NodeState.READY and self._may_wait(core, one.job) for one in nodes)
            running = any(one.state is NodeState.RUNNING and one.run in core.firings for one in nodes)
            if run.id in waiting or (not run.ended_ms and not held and not running):
                return f"{run.id} has not ended: {[(one.name, str(one.state), one.reason) for one in nodes]}"
        return ""

    def _may_wait(self, core: SimCore, job: str) -> bool:
        return not core.enabled(job) or self._world.promise.waits_for_other_jobs(core, job)


def _allows(after: After, shard: Shard) -> bool:
    """Whether the end of a shard is one that a condition asks for."""
    return _OF_SHARDS.get(shard.state, "CANCELLED") in _GOOD[after.on]


def _decode(entries: Entries, kind: Kind, key: str) -> Any:
    value = entries.get((kind, key))
    return records.decode(kind, key, value) if value is not None else None
