"""Workflows and their runs as tables and trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jobcloud.client import render
from jobcloud.client.http import Json

_JOINS = {"all": "all of", "any": "any of", "shards": "per shard"}
_ENDS = {"success": "success", "failure": "failure", "either": "any end"}


def workflows(items: Iterable[Json]) -> None:
    rows = (
        (
            one["workflow"],
            len(one["nodes"]),
            one["start"],
            one["lastRun"]["state"] if one["lastRun"] else "-",
            render.moment(one["lastRun"]["beganAt"]) if one["lastRun"] else "-",
            one["description"],
        )
        for one in items
    )
    titles = "WORKFLOW", "NODES#", "START", "LAST RUN", "BEGAN", "DESCRIPTION"
    render.show_table(titles, rows, "there are no workflows", cut=True)


def workflow(item: Json) -> None:
    """A workflow with its nodes as a tree."""
    last = item["lastRun"]
    render.show_fields(
        [
            ("workflow", item["workflow"]),
            ("description", item["description"]),
            ("start", item["start"]),
            ("last run", f"{last['id']} {last['state']}" if last else "none"),
            ("skipped runs", item["skipped"] or ""),
            ("deadline", _deadline(item)),
            ("changed", render.moment(item["changedAt"])),
            ("revision", item["revision"]),
        ]
    )
    rows = ((shown, node["job"] or waits_for(node), after(node)) for shown, node in tree(item["nodes"]))
    render.show_table(("NODE", "JOB", "AFTER"), rows, "no nodes")


def runs(items: Iterable[Json]) -> None:
    rows = (
        (
            one["id"],
            one["state"],
            render.moment(one["firedAt"]),
            render.moment(one["beganAt"]),
            render.took(one["beganAt"], one["endedAt"]),
        )
        for one in items
    )
    render.show_table(("RUN", "STATE", "FIRE TIME", "BEGAN", "TOOK#"), rows, "no runs")


def run(item: Json) -> None:
    """A run of a workflow with its nodes as a tree."""
    counts = ", ".join(f"{count} {state}" for state, count in item["nodeStates"].items())
    render.show_fields(
        [
            ("run", item["id"]),
            ("workflow", item["workflow"]),
            ("state", item["state"]),
            ("nodes", counts),
            ("fire time", render.moment(item["firedAt"])),
            ("began", render.moment(item["beganAt"])),
            ("ended", render.moment(item["endedAt"]) if item["endedAt"] else ""),
            ("cancelled", "no further node starts" if item["cancelled"] else ""),
            ("paused", "no further node starts until it is resumed" if item.get("paused") else ""),
            ("deadline", _deadline(item)),
        ]
    )
    rows = (
        (
            shown,
            node["state"],
            render.short_moment(node["startedAt"]),
            render.took(node["startedAt"], node["endedAt"]),
            after(node),
            _remark(node),
        )
        for shown, node in tree(item["nodes"])
    )
    titles = "NODE", "STATE", "STARTED", "TOOK#", "AFTER", "RUN OR REASON"
    render.show_table(titles, rows, "no nodes", cut=True)


def _deadline(item: Json) -> str:
    return f"{item['deadlineSeconds']} s after the begin" if item.get("deadlineSeconds") else ""


def _remark(node: Json) -> str:
    """The reason of a node, else its run, or its answer."""
    if node["reason"]:
        return str(node["reason"]["text"])
    if node.get("answer"):
        answer = node["answer"]
        return " ".join(filter(None, ("yes" if answer["succeeded"] else "no", f"by {answer['by']}", answer["note"])))
    return node["runId"] or waits_for(node)


def waits_for(node: Json) -> str:
    """The answer that a node without a job waits for."""
    return f"waits for {' '.join(filter(None, (node['waitFor'], node['event'])))}" if node.get("waitFor") else ""


def after(node: Json) -> str:
    """The conditions of a node in words. It is empty if the tree tells the only one, the success of the node above."""
    conditions = [_condition(one) for one in node["after"]]
    if len(conditions) > 1 or node["join"] == "shards":
        return f"{_JOINS.get(node['join'], node['join'])}: {', '.join(conditions)}"
    return conditions[0] if conditions and conditions[0] != node["after"][0]["node"] else ""


def _condition(one: Json) -> str:
    if one.get("result"):
        return f"{one['node']} = {one['result']}"
    return str(one["node"]) if one["on"] == "success" else f"{_ENDS.get(one['on'], one['on'])} of {one['node']}"


def tree(nodes: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    """The nodes with lines before their names. Each is under the last of the nodes that it waits for."""
    by_name = {node["name"]: node for node in nodes}
    order = _in_order(nodes)
    below: dict[str, list[str]] = {name: [] for name in ("", *by_name)}
    for name in order:
        waits_for = [one["node"] for one in by_name[name]["after"]]
        below[max(waits_for, key=order.__getitem__, default="")].append(name)
    rest = [("", "", name) for name in reversed(below[""])]
    while rest:
        before, mark, name = rest.pop()
        yield f"{before}{mark}{name}", by_name[name]
        inner = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
        for number, follower in enumerate(reversed(below[name])):
            rest.append((inner, "├─ " if number else "└─ ", follower))


def _in_order(nodes: Sequence[Json]) -> dict[str, int]:
    """Name → position, so that each node comes behind those that it waits for. Other nodes keep their order."""
    found: dict[str, int] = {}
    rest = list(nodes)
    while rest:
        free = [node for node in rest if all(one["node"] in found for one in node["after"])]
        for node in free:
            found[node["name"]] = len(found)
        rest = [node for node in rest if node["name"] not in found]
    return found
