"""Workflows as Python code: a `with` block with nodes gives the fields that `jobcloud workflow set` sends.

    from jobcloud.workflow import Node, Workflow

    with Workflow("sales", description="the sales of each hour") as flow:
        Node("extract") >> Node("transform") >> Node("load")

`jobcloud workflow set FILE.py` runs such a file and sends its workflows. `print(flow)` prints a workflow as JSON, in
the form of a file for `workflow set`. The server checks names, cycles and numbers; see docs/workflows.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a value of `Workflow.config()`."""

#: far more nodes and conditions than a server takes
_MAX_PARTS: Final = 10_000
_open: list[Workflow] = []
_made: list[Workflow] = []


class Workflow:
    """A workflow. Nodes that are made in its `with` block belong to it.

    `start`: the name of the node whose runs begin a run; needed if several nodes have no condition. `deadline`: time
    from the begin of a run, in seconds or as a timedelta.
    """

    def __init__(
        self,
        name: str,
        *,
        team: str = "",
        description: str = "",
        start: str = "",
        deadline: timedelta | float | None = None,
    ) -> None:
        self.name = _text("name", name)
        self.steps: list[Step] = []
        self.place = _caller()
        self._parts = 0
        self._fields = {
            "workflowName": name,
            "team": _text("team", team),
            "description": _text("description", description),
            "start": _text("start", start),
            "deadlineSeconds": _seconds(deadline),
        }

    def __enter__(self) -> Workflow:
        if _open:
            raise RuntimeError(f"workflow {self.name} stands inside workflow {_open[-1].name}; end that block first")
        _open.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _open.remove(self)
        if kind is None:
            _made.append(self)

    def count(self) -> None:
        """Count a node or a condition. Raises ValueError if there are too many."""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise ValueError(f"workflow {self.name} has more than {_MAX_PARTS:,} nodes and conditions")

    def config(self) -> dict[str, Any]:
        """The fields of the workflow by their JSON names, as a file for `jobcloud workflow set` has them."""
        return {**_given(self._fields), "nodes": [step.config() for step in self.steps]}

    def places(self) -> dict[Place, tuple[str, int]]:
        """The file and the line in which the workflow, each node and each condition was written."""
        found: dict[Place, tuple[str, int]] = {(): self.place}
        for number, step in enumerate(self.steps):
            found["nodes", number] = step.place
            for index, place in enumerate(step.places_of_conditions()):
                found["nodes", number, "after", index] = place
        return found

    def __str__(self) -> str:
        return json.dumps(self.config(), indent=2)


class Step:
    """A node of the open workflow. Use `Node`, or a wait: `Approval`, `Callback`, `Event`.

    `join`: `all` conditions must hold, `any` of them is enough, or `shards`: shard by shard. `deadline`: as that of the
    workflow.
    """

    def __init__(self, name: str, join: str, deadline: timedelta | float | None, **fields: str) -> None:
        if not _open:
            raise RuntimeError(
                f"node {name!s:.100} stands outside of a workflow; write it into a block `with Workflow(…):`"
            )
        self.workflow = _open[-1]
        self.place = _caller()
        self._fields = {
            **{key: _text(key, value) for key, value in fields.items()},
            "join": "" if join == "all" else _text("join", join),
            "deadlineSeconds": _seconds(deadline),
        }
        self.name = _text("name", name)
        self._after: list[tuple[dict[str, str], tuple[str, int]]] = []
        self.workflow.count()
        self.workflow.steps.append(self)

    def after(
        self,
        *others: Step | Iterable[Step],
        on: Literal["success", "failure", "either"] = "success",
        result: str = "",
    ) -> Step:
        """Start after other nodes, or lists of nodes; returns this node.

        `on`: how they must end. `result`: the result that they must have. Raises ValueError for a node of another
        workflow.
        """
        condition = {"on": "" if on == "success" else _text("on", on), "result": _text("result", result)}
        for other in _flat(others):
            if other.workflow is not self.workflow:
                raise ValueError(f"node {other.name} belongs to another workflow: {other.workflow.name}")
            self.workflow.count()
            self._after.append(({"node": other.name, **_given(condition)}, _caller()))
        return self

    def __rshift__(self, other: Step | list[Step] | tuple[Step, ...]) -> Step | list[Step] | tuple[Step, ...]:
        """`a >> b`: b starts after a has succeeded. Either side may be a list."""
        if not isinstance(other, Step | list | tuple):
            return NotImplemented
        for step in _flat([other]):
            step.after(self)
        return other

    def __rrshift__(self, others: list[Step] | tuple[Step, ...]) -> Step:
        if not isinstance(others, list | tuple):
            return NotImplemented
        return self.after(others)

    def config(self) -> dict[str, Any]:
        """The fields of the node by their JSON names."""
        fields = _given({"name": "" if self.name == self._fields.get("job") else self.name, **self._fields})
        if self._after:
            fields["after"] = [one["node"] if len(one) == 1 else one for one, _ in self._after]
        return fields

    def places_of_conditions(self) -> list[tuple[str, int]]:
        return [place for _, place in self._after]


class Node(Step):
    """A node that runs a job of the team. `name`: unique in the workflow; default: the name of the job."""

    def __init__(
        self, job: str, name: str = "", *, join: str = "all", deadline: timedelta | float | None = None
    ) -> None:
        super().__init__(name or job, join, deadline, job=job)


class Approval(Step):
    """A node that waits until a person approves or rejects."""

    def __init__(self, name: str, *, join: str = "all", deadline: timedelta | float | None = None) -> None:
        super().__init__(name, join, deadline, waitFor="approval")


class Callback(Step):
    """A node that waits until a program answers for this node of this run."""

    def __init__(self, name: str, *, join: str = "all", deadline: timedelta | float | None = None) -> None:
        super().__init__(name, join, deadline, waitFor="callback")


class Event(Step):
    """A node that waits for an event of the team. `name`: default: the name of the event."""

    def __init__(
        self, event: str, name: str = "", *, join: str = "all", deadline: timedelta | float | None = None
    ) -> None:
        super().__init__(name or event, join, deadline, waitFor="event", event=event)


def workflows() -> tuple[Workflow, ...]:
    """The workflows of this process whose `with` blocks have ended without an error, in this order."""
    return tuple(_made)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ("", None)}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, and not {value!r:.100}")
    return value


def _seconds(value: timedelta | float | None) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a deadline is a number of seconds or a timedelta, and not {value!r:.100}")
    return int(seconds) if seconds % 1 == 0 else seconds


def _flat(given: Iterable[Step | Iterable[Step]]) -> list[Step]:
    """The nodes of nodes and lists of nodes. Raises TypeError."""
    found: list[Step] = []
    for one in given:
        for step in [one] if isinstance(one, Step | str) or not isinstance(one, Iterable) else one:
            if not isinstance(step, Step):
                raise TypeError(f"{step!r:.100} is no node; give nodes or lists of nodes")
            found.append(step)
    return found


def _caller() -> tuple[str, int]:
    """The file and the line outside of this module that runs now."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
