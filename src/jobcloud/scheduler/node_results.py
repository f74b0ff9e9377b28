"""The results of the nodes of a workflow's run, for the placeholder `{result:NODE}` in the jobs of its other nodes.

Nothing is copied into records: a launch looks the results up in the record of the other node's run. So a new leader
gives the same results, and they last as long as this record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring_ascii as _text
from typing import Final

from jobcloud.config import Job
from jobcloud.model import Firing, Join, Node, node_key
from jobcloud.scheduler.shard_joins import Place
from jobcloud.scheduler.sharding import nodes_named
from jobcloud.scheduler.state import State
from jobcloud.scheduler.workflow_graph import plain
from jobcloud.wire import MAX_RESULTS_BYTES

#: The maximum number of runs whose list of results is kept. A list has at most MAX_RESULTS_BYTES.
_KEPT: Final = 64


class NodeResults:
    """`places` returns the nodes that a firing is the run of."""

    def __init__(self, state: State, places: Callable[[str], Iterable[Place]]) -> None:
        self._state = state
        self._places = places
        #: the ended run of a node with several shards → when it has ended, and the list of its results
        self._lists: dict[str, tuple[int, str | None]] = {}

    def of(self, firing: Firing, job: Job, item: int) -> Mapping[str, str | None]:
        """The results that a shard's parameters name: node → text. A node without a result is left out.

        None: together with the results before it, the result takes more than MAX_RESULTS_BYTES in JSON.
        """
        names = nodes_named(job)
        found: dict[str, str | None] = {}
        left = MAX_RESULTS_BYTES
        own = item if firing.step(item) is None else None
        for place in self._places(firing.id) if names else ():
            node = next(one for one in self._state.workflow_runs[place.run].nodes if one.name == place.node)
            for name in names:
                text = "" if name in found else self._of_node(place.run, node, name, own)
                left -= len(_text(text)) if text is not None else 0
                if text != "":
                    found[name] = text if left >= 0 else None
        return found

    def _of_node(self, run_id: str, node: Node, name: str, item: int | None) -> str | None:
        """The text of the result of the node `name` for a shard of `node`, "" if there is none, None: too large.

        `item` is None for a call of the listener, which belongs to no shard.
        """
        record = self._state.nodes.get(node_key(run_id, name))
        if record is None:
            return ""
        if record.answer is not None:
            return record.answer.result
        source = self._state.firings.get(record.run)
        if source is None:
            return ""
        width = source.width
        if item is not None and node.join is Join.SHARDS and any(after.node == name for after in node.after):
            return plain(source.shards[item].outcome.result) if item < width else ""
        if not source.ended_ms:
            return ""
        return plain(source.shards[0].outcome.result) if width == 1 else self._list(source)

    def _list(self, source: Firing) -> str | None:
        """The JSON list of all results of an ended run, with null for a shard without one."""
        ended_ms, text = self._lists.get(source.id, (0, None))
        if ended_ms == source.ended_ms:
            return text
        if len(self._lists) >= _KEPT:
            self._lists.clear()
        text = _listed(source)
        self._lists[source.id] = source.ended_ms, text
        return text


def _listed(source: Firing) -> str | None:
    results: list[str] = []
    size = 2
    for shard in source.work:
        results.append(shard.outcome.result or "null")
        size += len(results[-1]) + 1
        if size > MAX_RESULTS_BYTES:
            return None
    return f"[{','.join(results)}]" if any(shard.outcome.result for shard in source.work) else ""
