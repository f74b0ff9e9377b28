"""Reads hosts from the JSON that other systems print.

Known are `kubectl get nodes -o json`, `/state` and `/slaves` of a Mesos master, and `scontrol show node --json` of
Slurm. The amounts are all that tasks may take, so what runs now does not lower them. Hosts that accept no tasks are
left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST
from jobcloud.planning.amounts import Amount, BadAmount, parse, quantity

#: The maximum of characters in a file, and of hosts in it.
MAX_CHARACTERS: Final = 1_000_000_000
MAX_NODES: Final = 1_000_000

DIMENSIONS: Final = ("cpus", "mem_mb", "disk_mb", "gpus", "ports")

_MIB: Final = 2**20
_KUBERNETES_GPUS: Final = ("nvidia.com/gpu", "amd.com/gpu")
# Slurm starts a node again that saves power, so such a node accepts jobs.
_SLURM_AWAY: Final = frozenset({
    "DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE", "INVALID", "INVALID_REG",
    "MAINTENANCE", "NOT_RESPONDING", "PERFCTRS", "REBOOT_ISSUED", "UNKNOWN",
})  # fmt: skip
_GRES: Final = re.compile(r"(?:^|,)gpu(?::[^:(),]+)?:([0-9]+)")
_RANGE: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


class Node(NamedTuple):
    """A host. `amounts`: thousandths, in the order of DIMENSIONS."""

    name: str
    amounts: tuple[int, ...]
    attributes: Mapping[str, str]


class BadNodes(ConfigError):
    """The JSON has another form. `field` names the file and the place in it."""


def read_nodes(text: str, source: str) -> tuple[list[Node], tuple[str, ...]]:
    """Returns (the hosts that accept tasks, sentences about hosts that are left out). Raises BadNodes."""
    if len(text) > MAX_CHARACTERS:
        raise BadNodes(f"has more than {MAX_CHARACTERS:,} characters", field=source, fix="plan in parts")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadNodes(f"is not JSON: {error!s:.80}", field=source) from None
    key, reader = _form(found, source)
    items = found[key]
    if not isinstance(items, list) or not 0 < len(items) <= MAX_NODES:
        problem = f"is not a list of 1 to {MAX_NODES:,} hosts"
        raise BadNodes(problem, field=f"{source}, {key}", fix="write the output of the command into the file")
    nodes, away, seen = [], 0, set[str]()
    shared = _shared_host_names(items) if reader is _mesos else frozenset()
    for at, item in enumerate(items):
        where = f"{source}, {key}[{at}]"
        node = reader(_Reader(item, where))
        if node is None:
            away += 1
            continue
        if node.name in shared:
            node = node._replace(name=f"{node.name}:{_Reader(item, where).amount('port', '') // 1_000}")
        if node.name in seen:
            raise BadNodes(f"{node.name!r:.60} is given twice", field=where, fix="give each host once")
        seen.add(node.name)
        nodes.append(node)
    if not nodes:
        raise BadNodes(f"none of the {away:,} hosts accepts tasks", field=source, fix="give hosts that accept tasks")
    left_out = "1 host accepts no tasks and is" if away == 1 else f"{away:,} hosts accept no tasks and are"
    return nodes, (f"{source}: {left_out} left out",) if away else ()


def _shared_host_names(agents: list[Any]) -> frozenset[str]:
    """The host names that several agents of Mesos have. Such agents differ in their ports."""
    names = Counter(str(agent.get("hostname")) for agent in agents if isinstance(agent, dict))
    return frozenset(name for name, number in names.items() if number > 1)


def _form(found: Any, source: str) -> tuple[str, Callable[[_Reader], Node | None]]:
    if isinstance(found, dict):
        for key, reader in (("items", _kubernetes), ("slaves", _mesos), ("nodes", _slurm)):
            if key in found:
                return key, reader
    fix = "kubectl get nodes -o json, /state or /slaves of Mesos, or scontrol show node --json"
    raise BadNodes("is JSON of an unknown form", field=source, fix=fix)


class _Reader:
    """An object in the JSON. Its methods raise BadNodes if a value has another type."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise BadNodes("is not an object", field=where)
        self.value: dict[str, Any] = value
        self.where = where

    def object(self, name: str) -> _Reader:
        return _Reader(self.value.get(name) or {}, f"{self.where}.{name}")

    def objects(self, name: str) -> Iterator[_Reader]:
        for at, item in enumerate(self._list(name)):
            yield _Reader(item, f"{self.where}.{name}[{at}]")

    def texts(self, name: str, separator: str) -> list[str]:
        """A list, or a text in which `separator` stands between the items."""
        value = self.value.get(name)
        items = value.split(separator) if isinstance(value, str) else map(str, self._list(name))
        return [item for item in items if item and item.isprintable()]

    def name(self, name: str) -> str:
        text = self.value.get(name)
        if not isinstance(text, str) or not text or not text.isprintable():
            raise BadNodes(f"{text!r:.60} is not a name", field=f"{self.where}.{name}")
        return text

    def attributes(self) -> dict[str, str]:
        """All members that are texts or numbers."""
        pairs = {key: _text(value) for key, value in self.value.items() if isinstance(value, str | int | float)}
        return {key: text for key, text in pairs.items() if key.isprintable() and text.isprintable()}

    def amount(self, name: str, column: str) -> int:
        """Thousandths of the column's unit, rounded down; 0 if there is none."""
        return self._thousandths(name, lambda text: parse(text, column, down=True))

    def quantity(self, name: str, of: int = 1) -> int:
        """A quantity of Kubernetes in thousandths of `of` of its units; 0 if there is none."""
        return self._thousandths(name, lambda text: quantity(text, of))

    def _thousandths(self, name: str, read: Callable[[str], Amount]) -> int:
        value = self.value.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadNodes(f"{value!r:.60} is not an amount", field=f"{self.where}.{name}")
        try:
            return read(str(value)).thousandths
        except BadAmount as error:
            raise BadNodes(error.problem, field=f"{self.where}.{name}", fix=error.fix) from None

    def _list(self, name: str) -> list[Any]:
        found = self.value.get(name) or []
        if not isinstance(found, list):
            raise BadNodes("is not a list", field=f"{self.where}.{name}")
        return found


def _text(value: str | float) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _kubernetes(node: _Reader) -> Node | None:
    """A node: its allocatable amounts; its labels, also with the last part of the label's name."""
    if (kind := node.value.get("kind", "Node")) != "Node":
        raise BadNodes(f"{kind!r:.60} is not a node", field=f"{node.where}.kind", fix="kubectl get nodes -o json")
    meta, spec, status = node.object("metadata"), node.object("spec"), node.object("status")
    ready = any(
        c.value.get("type") == "Ready" and c.value.get("status") == "True" for c in status.objects("conditions")
    )
    closed = any(taint.value.get("effect") in ("NoSchedule", "NoExecute") for taint in spec.objects("taints"))
    if spec.value.get("unschedulable") or closed or not ready:
        return None
    labels = meta.object("labels").attributes()
    short = {key.rpartition("/")[2]: text for key, text in labels.items()}
    name, has = meta.name("name"), status.object("allocatable")
    amounts = (
        has.quantity("cpu"),
        has.quantity("memory", _MIB),
        has.quantity("ephemeral-storage", _MIB),
        sum(has.quantity(gpu) for gpu in _KUBERNETES_GPUS),
        0,
    )
    return Node(name, amounts, {**short, **labels, HOST: name})


def _mesos(agent: _Reader) -> Node | None:
    """An agent: all its resources, with those that are reserved; its attributes."""
    if not agent.value.get("active", True) or agent.value.get("deactivated") or agent.object("drain_info").value:
        return None
    name, has = agent.name("hostname"), agent.object("resources")
    pairs = _RANGE.findall(str(has.value.get("ports", "")))
    ports = sum(max(0, int(last) - int(first) + 1) for first, last in pairs)
    columns = (("cpus", "cpus"), ("mem", "mem_mb"), ("disk", "disk_mb"), ("gpus", "gpus"))
    amounts = (*(has.amount(key, column) for key, column in columns), ports * 1_000)
    return Node(name, amounts, {**agent.object("attributes").attributes(), HOST: name})


def _slurm(node: _Reader) -> Node | None:
    """A node: the cpus and the memory that jobs may take. Its first partition is the attribute `partition`.

    Slurm 21.08 gives some fields as texts, and apart from the state its flags.
    """
    states = [*node.texts("state", "+"), *node.texts("state_flags", "+")]
    if _SLURM_AWAY.intersection(one.rstrip("*").upper() for one in states):
        return None
    name = node.name("name")
    cpus = "effective_cpus" if "effective_cpus" in node.value else "cpus"
    memory = node.amount("real_memory", "mem_mb") - node.amount("specialized_memory", "mem_mb")
    gpus = sum(int(number) * 1_000 for number in _GRES.findall(str(node.value.get("gres") or "")[:10_000]))
    amounts = (node.amount(cpus, "cpus"), max(0, memory), node.amount("temporary_disk", "disk_mb"), min(gpus, 2**42), 0)
    attributes = dict.fromkeys(node.texts("active_features", ","), "true")
    if partitions := node.texts("partitions", ","):
        attributes["partition"] = partitions[0]
    return Node(name, amounts, {**attributes, HOST: name})
