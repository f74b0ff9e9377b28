"""Only `State` changes its tables, the write set and the effects: read from the syntax trees of the scheduler.

A record that is changed in its table and not in the write set is lost at the next fail-over, and no test of a single
leader would see it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobcloud.scheduler import state

OWNER = Path(state.__file__)
OTHERS = sorted(path for path in OWNER.parent.glob("*.py") if path != OWNER)
OWNED = {
    "apps", "jobs", "job_states", "disabled_apps", "firings", "attempts", "tasks", "executors", "drains", "pauses",
    "backfills", "ad_hoc", "app_versions",
    "framework_id", "write_set", "effects",
}  # fmt: skip
MUTATORS = {
    "add", "append", "clear", "difference_update", "discard", "extend", "insert", "intersection_update", "pop",
    "popitem", "remove", "setdefault", "sort", "symmetric_difference_update", "update",
}  # fmt: skip


def changes(tree: ast.AST) -> Iterator[str]:
    """Each statement or call that changes something that State owns, as `line: name`."""
    aliases = set(_aliases(tree))

    def is_owned(node: ast.expr) -> bool:
        return _is_owned(node) or (isinstance(node, ast.Name) and node.id in aliases)

    for node in ast.walk(tree):
        for target in _targets(node):
            if _is_owned(target) or (isinstance(target, ast.Subscript) and is_owned(target.value)):
                yield f"{target.lineno}: {ast.unparse(target)}"
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id in aliases:
            yield f"{node.lineno}: {ast.unparse(node)}"
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Attribute) and call.attr in MUTATORS and is_owned(call.value):
            yield f"{call.lineno}: {ast.unparse(call)}"


def _is_owned(node: ast.expr) -> bool:
    """Whether an expression is `state.jobs`, `self._state.jobs`, or the scheduler's own name for it."""
    if not isinstance(node, ast.Attribute) or node.attr not in OWNED:
        return False
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name in {"state", "_state"}


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that a statement assigns to or deletes."""
    if isinstance(node, ast.Assign):
        found = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
        found = [node.target]
    elif isinstance(node, ast.Delete):
        found = list(node.targets)
    else:
        return
    for target in found:
        yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def _aliases(tree: ast.AST) -> Iterator[str]:
    """Variables that stand for a table: `jobs = state.jobs`, `for table in (state.jobs, state.apps)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from _paired(node)
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and _names_a_table(node.iter):
            yield node.target.id


def _names_a_table(node: ast.expr) -> bool:
    return isinstance(node, ast.Tuple | ast.List) and any(map(_is_owned, node.elts))


def _paired(node: ast.Assign) -> Iterator[str]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        else:
            pairs = [(target, node.value)]
        yield from (name.id for name, value in pairs if isinstance(name, ast.Name) and _is_owned(value))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_module_changes_no_table_of_the_state(path: Path) -> None:
    assert not list(changes(ast.parse(path.read_text(), str(path))))


@pytest.mark.parametrize(
    "code",
    [
        "self._state.jobs[name] = job",
        "state.jobs['a'], other = job, 1",
        "del self._state.tasks[task.id]",
        "self._state.write_set[kind, key] = None",
        "self._state.effects.append(effect)",
        "self._state.effects += [effect]",
        "self._state.framework_id = ''",
        "self._state.firings.pop(name)",
        "jobs = self._state.jobs\njobs[name] = job",
        "jobs, at = self._state.jobs, 1\njobs.clear()",
        "for table in (self._state.jobs, self._state.faults):\n    table.pop(name, None)",
        "marks = state.disabled_apps\nmarks |= {name}",
    ],
)
def test_change_of_a_table_is_found(code: str) -> None:
    assert list(changes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["self._state.put(kind, name, job)", "jobs = dict(self._state.jobs)\njobs[name] = job", "self.jobs = state.jobs"],
)
def test_read_of_a_table_is_no_change(code: str) -> None:
    assert not list(changes(ast.parse(code)))
