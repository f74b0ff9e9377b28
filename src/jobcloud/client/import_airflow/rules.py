"""Trigger rules as conditions of nodes, where both mean the same for each end of the tasks before.

Source: `ti_deps/deps/trigger_rule_dep.py` of Airflow 2.10.5 and 3.3.2. A skipped task of Airflow, and one that is
`upstream_failed`, is a SKIPPED node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

#: the rules whose tasks become `upstream_failed`
_INHERIT_FAILURE: Final = ("all_success", "one_success", "none_failed", "none_failed_min_one_success")
_OLD_NAMES: Final = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}


class Before(NamedTuple):
    """The rule of a task and the ids of the tasks before it."""

    rule: str
    upstream: tuple[str, ...]


class RuleError(ValueError):
    """A trigger rule has no equal conditions. The text names it."""


class Conditions(NamedTuple):
    """`upstream`: the nodes that a node waits for. `on` and `join` are those of docs/workflows.md."""

    upstream: tuple[str, ...]
    on: str
    join: str


def conditions(task: str, known: Mapping[str, Before], order: tuple[str, ...]) -> Conditions:
    """The conditions of a task. `order`: all tasks, each behind those before it. Raises RuleError."""
    rule, upstream = known[task]
    rule = _OLD_NAMES.get(rule, rule)
    if not upstream or rule == "always":
        return Conditions((), "success", "all")
    several = "any" if len(upstream) > 1 else "all"
    skippable, inherits = _states(known, order)
    skipped = next((one for one in upstream if one in skippable), "")
    failed = next((one for one in upstream if one in inherits), "")
    if rule in ("all_success", "one_success"):
        return Conditions(upstream, "success", several if rule == "one_success" else "all")
    if rule in ("none_failed", "none_failed_min_one_success") and not skipped:
        return Conditions(upstream, "success", "all")
    if rule in ("all_failed", "one_failed") and not failed:
        return Conditions(upstream, "failure", several if rule == "one_failed" else "all")
    if rule == "all_done" or (rule == "none_skipped" and not skipped):
        return Conditions(upstream, "either", "all")
    if rule == "one_done" and not skipped and not failed:
        return Conditions(upstream, "either", several)
    why = ""
    if rule in ("none_failed", "none_failed_min_one_success", "none_skipped", "one_done") and skipped:
        why = f", because {skipped} may be skipped"
    elif rule in ("all_failed", "one_failed", "one_done") and failed:
        why = f", because {failed} may be upstream_failed"
    raise RuleError(
        f"trigger_rule: {rule[:80]} has no equal conditions{why}; write the node's `after` and `join` by hand"
    )


def _states(known: Mapping[str, Before], order: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """The tasks that Airflow may skip, and those that may be `upstream_failed`, if no rule is refused."""
    skippable: set[str] = set()
    inherits: set[str] = set()
    for task in order:
        given, upstream = known[task]
        rule = _OLD_NAMES.get(given, given)
        if not upstream or rule in ("all_done", "always"):
            continue
        if rule in _INHERIT_FAILURE:
            inherits.add(task)
        if rule in ("all_failed", "one_failed") or (rule != "none_failed" and not skippable.isdisjoint(upstream)):
            skippable.add(task)
    return skippable, inherits
