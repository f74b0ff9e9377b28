"""Joins per shard: shard i of a node starts when shard i of each node before it has ended as its condition says.

Such a node gets the run of its job as soon as the nodes before it have theirs. The queue holds the shards whose
conditions are open. A shard whose condition can no longer hold is cancelled, and its message names the other shard. Its
node counts these shards, so a node without other cancelled shards is known to be skipped.

Which shards are held is not stored: it follows from the records of the other runs. So the end of a shard costs the same
for all widths, and a new leader holds the same shards. The run itself tells that it is joined. If the record of its
node is lost or damaged, nobody knows the conditions, so its shards do not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from jobcloud.messages import Kind
from jobcloud.model import After, Firing, Node, NodeRun, NodeState, Shard, ShardState, changed, node_key
from jobcloud.scheduler import retry
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.state import State
from jobcloud.scheduler.workflow_graph import ENDED, Graph, Verdict, end_of, meets, result_text

_ACTIVE = ShardState.ACTIVE
_FORGOTTEN = "the record of its node in the workflow was lost or damaged, so nobody knows whether it may start"


class Place(NamedTuple):
    """A node in a run of its workflow."""

    run: str
    node: str

    @property
    def key(self) -> str:
        return node_key(self.run, self.node)


class ShardJoins:
    """`graph` returns the graph of an unfinished run, and None for others. `places` the nodes that a firing is of."""

    def __init__(
        self,
        state: State,
        firings: Firings,
        graph: Callable[[str], Graph | None],
        places: Callable[[str], Iterable[Place]],
    ) -> None:
        self._state = state
        self._firings = firings
        self._graph = graph
        self._places = places
        #: the firings whose changes are to be followed, with the items; only during an event
        self._changes: list[tuple[str, Iterable[int]]] = []
        self._following = False

    def watch(self, place: Place, firing_id: str) -> None:
        """Follow the shards of a node's firing, if nodes are joined with it."""
        graph = self._graph(place.run)
        if graph is not None and place.node in graph.joined:
            self._firings.followed.add(firing_id)

    def shards_changed(self, firing: Firing, changes: Mapping[int, Shard], at: int) -> None:
        """Release, hold, cancel or repeat the shards that are joined with the changed ones of a firing.

        A cancelled shard decides about shards behind it. They are visited in a loop, because a chain of nodes may be
        longer than Python's stack.
        """
        self._changes.append((firing.id, [item for item, shard in changes.items() if shard.state is not _ACTIVE]))
        if self._following:
            return
        self._following = True
        try:
            while self._changes:
                firing_id, changed_items = self._changes.pop()
                for place in list(self._places(firing_id)):
                    self.node_changed(place, changed_items, at)
        finally:
            self._following = False
            self._changes.clear()

    def node_changed(self, place: Place, items: Iterable[int] | None, at: int) -> None:
        """Decide about shards of the nodes that are joined with a node. None: about all of their shards."""
        graph = self._graph(place.run)
        for name in graph.joined.get(place.node, ()) if graph is not None else ():
            self.decide(Place(place.run, name), items, at)

    def cancel_forgotten(self, at: int) -> None:
        """Cancel the waiting shards of each joined run whose node a new leader does not know."""
        for firing in self._state.queue.unfinished_firings():
            if firing.terms.joined and not self._places(firing.id):
                self._firings.cancel_waiting(firing.id, firing.work, _FORGOTTEN, at)

    def set_free(self, firing: Firing) -> None:
        """Let the shards of a retried joined run start. It is no longer the run of a known node."""
        if firing.terms.joined:
            free = changed(firing, terms=changed(firing.terms, joined=False))
            self._state.put_firing(free, {})
            self._state.queue.renew(free)

    def decide(self, place: Place, items: Iterable[int] | None, at: int, *, begins: bool = False) -> None:
        """Decide about some shards of a node that is joined per shard. None: about all. `begins`: its run is new.

        Nothing happens to a shard that has begun, or that was cancelled for another reason.
        """
        record, graph = self._state.nodes.get(place.key), self._graph(place.run)
        firing = self._state.firings.get(record.run) if record is not None else None
        if graph is None or record is None or firing is None:
            return
        node, width = graph.nodes[place.node], firing.width
        again: bool | None = None
        hold: list[int] = []
        release: list[int] = []
        changes: dict[int, Shard] = {}
        for item in range(width) if items is None else items:
            shard = firing.shards[item] if item < width else None
            if shard is None or shard.state not in (ShardState.WAITING, ShardState.CANCELLED):
                continue
            if shard.state is ShardState.CANCELLED:
                again = self._may_repeat(place, node, record, firing) if again is None else again
                if not again:
                    continue
            found, why = self._verdict(place.run, node, item, begins=begins)
            if found is Verdict.NEVER:
                if shard.state is ShardState.WAITING:
                    changes[item] = changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
                continue
            (hold if found is Verdict.OPEN else release).append(item)
            if shard.state is ShardState.CANCELLED:
                changes[item] = retry.reset(shard)
        self._apply(place, firing, changes, hold, release, at)

    def _apply(
        self, place: Place, firing: Firing, changes: dict[int, Shard], hold: list[int], release: list[int], at: int
    ) -> None:
        more = sum(1 if shard.state.ended else -1 for shard in changes.values())
        if more:
            record = self._state.nodes[place.key]
            self._state.put(Kind.NODE, place.key, changed(record, skipped=record.skipped + more))
        if firing.ended_ms:
            if not changes:
                return
            if firing.stepped:  # the listener's call after the run is repeated after the shards that wait again
                changes[len(firing.shards) - 1] = retry.reset(firing.shards[-1])
            self._firings.reopen(firing, self._state.job_states[firing.job].generation, changes, at)
        if hold:
            self._state.queue.hold(firing.id, hold)
        if release:
            self._state.queue.release(firing.id, release)
            self._state.request_cycle()
        if changes and not firing.ended_ms:
            self._firings.put_shards(firing.id, changes, at)

    def _may_repeat(self, place: Place, node: Node, record: NodeRun, firing: Firing) -> bool:
        """Whether the cancelled shards of a node may wait again: all of them were cancelled here.

        If the run of a node before was deleted, nobody knows which of its shards have failed. After a listener's failed
        call before the run, no shard starts; during the call after it, none either.
        """
        job, run = self._state.jobs.get(firing.job), self._state.workflow_runs[place.run]
        if job is None or run.cancelled or not retry.has_its_shards(firing, job):
            return False
        if firing.stepped:
            first, last = firing.shards[-2:]
            if (first.state.ended and first.state is not ShardState.FINISHED) or last.state is _ACTIVE:
                return False
        if any(self._unknown(place.run, after) for after in node.after):
            return False
        return skipped_only(record, firing)

    def _unknown(self, run_id: str, after: After) -> bool:
        """Whether the ends of a node's shards are unknown, because the record of its run was deleted."""
        record = self._state.nodes.get(node_key(run_id, after.node))
        return record is not None and self._was_deleted(record) and not _all_succeeded(after, record)

    def _was_deleted(self, record: NodeRun) -> bool:
        """Whether a node has ended with its run, and the record of the run was deleted later."""
        known = record.run in self._state.firings
        return bool(record.run) and not known and record.state in ENDED and record.reason is None

    def _verdict(self, run_id: str, node: Node, item: int, *, begins: bool) -> tuple[Verdict, str]:
        """Whether the conditions of a shard hold, and the text why they never will."""
        found = Verdict.HOLDS
        for after in node.after:
            holds, why = self._holds(run_id, after, item, begins=begins)
            if holds is False:
                return Verdict.NEVER, why
            if holds is None:
                found = Verdict.OPEN
        return found, ""

    def _holds(self, run_id: str, after: After, item: int, *, begins: bool) -> tuple[bool | None, str]:
        record = self._state.nodes.get(node_key(run_id, after.node))
        if record is None:
            return None, ""
        firing = self._state.firings.get(record.run)
        if firing is not None:
            shard = firing.shards[item] if item < firing.width else None
            if shard is None:
                return False, f"node {after.node} has no shard {item}"
            if not shard.state.ended:
                return None, ""
            holds = meets(after, end_of(shard.state), result_text(shard.outcome.result))
            return holds, f"shard {item} of node {after.node} is {shard.state}"
        if record.state not in ENDED:
            return None, ""
        if self._was_deleted(record) and not begins and not _all_succeeded(after, record):
            # Each shard of the deleted run has decided about this one before.
            return True, ""
        return meets(after, record.state, record.result), f"node {after.node} is {record.state}"


def _all_succeeded(after: After, record: NodeRun) -> bool:
    """Whether the state of a node tells all that a condition asks of each of its shards."""
    return record.state is NodeState.SUCCEEDED and not after.result


def skipped_only(record: NodeRun, firing: Firing) -> bool:
    """Whether all cancelled shards of a firing are those whose conditions could no longer hold."""
    cancelled = sum(shard.state is ShardState.CANCELLED for shard in firing.work) if record.skipped else 0
    return 0 < record.skipped == cancelled
