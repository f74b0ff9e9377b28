"""Follows the statements of a DAG file to its DAGs, tasks and dependencies. The file is parsed, never run.

Followed are imports, assignments of literals, `with DAG(…)`, calls of operators, `>>` and `<<`, `set_upstream`,
`set_downstream`, `chain`, `chain_linear` and `cross_downstream`. All else that may make a task is a problem of its DAG.

Source of their meaning: Airflow 2.10.5 and 3.3.2, with which the tests compare.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from textwrap import dedent
from typing import Any, Final

from jobcloud.client.import_airflow.values import (
    MAX_SHOWN,
    MAX_TEXT,
    Dag,
    Moment,
    Own,
    Problem,
    Ref,
    Task,
    Unknown,
    Zone,
)

MAX_NODES: Final = 200_000
#: of the syntax tree
MAX_DEPTH: Final = 100
MAX_TASKS: Final = 10_000
MAX_EDGES: Final = 20_000
MAX_DAGS: Final = 1_000
_MAX_NUMBER: Final = 10**12
_NOT_FOLLOWED: Final = "is not followed; write the tasks one by one, with plain assignments, calls and >>"
_HARMLESS: Final = (
    "airflow.models.Variable.",
    "airflow.sdk.Variable.",
    "airflow.utils.dates.",
    "airflow.configuration.",
    "airflow.datasets.Dataset",
    "airflow.sdk.Asset",
    "airflow.models.param.",
    "airflow.sdk.Param",
)
_TEXTS_OF_PEOPLE: Final = frozenset({"doc", "doc_md", "doc_json", "doc_yaml", "doc_rst", "ui_color", "ui_fgcolor"})
_DATES: Final = ("year", "month", "day", "hour", "minute", "second", "microsecond")
_SPANS: Final = ("days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks")


class FileError(ValueError):
    """A file cannot be read as a whole."""


@dataclass(slots=True)
class Found:
    """The DAGs of a file, and problems that belong to none of them."""

    dags: list[Dag] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read(data: bytes) -> Found:
    """The DAGs of a file. Raises FileError."""
    return _Reader(data.decode("utf-8", "replace").splitlines()).read(_parsed(data))


def _parsed(data: bytes) -> ast.Module:
    try:
        tree = ast.parse(data)
    except SyntaxError as error:
        raise FileError(f"line {error.lineno or 0}: it is no Python of this version: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise FileError("it is nested too deep") from error
    except ValueError as error:
        raise FileError(f"it is no Python file: {error}"[:200]) from error
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count += len(level)
        depth += 1
        if count > MAX_NODES:
            raise FileError("it is too large; split it")
        if depth > MAX_DEPTH:
            raise FileError(f"it is nested more than {MAX_DEPTH} deep")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return tree


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._found = Found()
        self._names: dict[str, Any] = {}
        self._open: list[Dag] = []
        self._tasks = self._edges = 0

    def read(self, tree: ast.Module) -> Found:
        self._block(tree.body)
        return self._found

    # ---- statements ------------------------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif isinstance(node, ast.Expr):
            self._value(node.value)
        elif isinstance(node, ast.Assign):
            value = self._value(node.value)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign(node.target, self._value(node.value))
        elif isinstance(node, ast.With):
            self._with(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._define(node)
        elif isinstance(node, ast.Try) and all(isinstance(one, ast.Import | ast.ImportFrom) for one in node.body):
            self._block(node.body)
        elif not isinstance(node, ast.Pass) and not _is_main(node):
            self._leave_out(node)

    def _leave_out(self, node: ast.stmt) -> None:
        """Pass a statement that is not followed. The names that it binds are unknown from now on."""
        self._doubt(node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self._names[inner.id] = self._unknown(inner)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                self._names[alias.asname or alias.name] = Ref(f"{'.' * node.level}{node.module or ''}.{alias.name}")
            elif alias.asname:
                self._names[alias.asname] = Ref(alias.name)
            else:
                name = alias.name.partition(".")[0]
                self._names[name] = Ref(name)

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            fits = isinstance(value, list) and len(value) == len(target.elts)
            for number, inner in enumerate(target.elts):
                self._assign(inner, value[number] if fits else self._unknown(inner))
        elif isinstance(target, ast.Subscript) and isinstance(of := self._value(target.value), dict):
            key = self._value(target.slice)
            if isinstance(key, str):
                of[key] = value
            else:
                of[""] = self._unknown(target)
        elif not (isinstance(target, ast.Attribute) and target.attr in _TEXTS_OF_PEOPLE):
            self._doubt(target)

    def _with(self, node: ast.With) -> None:
        opened = 0
        for item in node.items:
            value = self._value(item.context_expr)
            if not isinstance(value, Dag):
                self._leave_out(node)
                break
            if item.optional_vars is not None:
                self._assign(item.optional_vars, value)
            self._open.append(value)
            opened += 1
        else:
            self._block(node.body)
        del self._open[len(self._open) - opened :]

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        kind = ""
        for decorator in node.decorator_list:
            of = decorator.func if isinstance(decorator, ast.Call) else decorator
            path = self._path(of)
            if path.startswith("airflow."):
                kind = "dag" if path.endswith(".dag") else "task"
        makes = any(_makes(self._names.get(one.id)) for one in ast.walk(node) if isinstance(one, ast.Name))
        self._names[node.name] = Own(node.name, node.lineno, kind, makes or bool(kind))
        if kind == "dag":
            text = f"@dag {node.name[:MAX_SHOWN]}: DAGs of TaskFlow are not converted; write it as `with DAG(…)`"
            self._found.problems.append(Problem(node.lineno, text))

    def _path(self, node: ast.expr) -> str:
        """The path of an imported name, or ""."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        base = self._names.get(node.id) if isinstance(node, ast.Name) else None
        return ".".join((base.path, *reversed(names))) if isinstance(base, Ref) else ""

    # ---- doubts ----------------------------------------------------------------------------------------------

    def _text(self, node: ast.AST) -> str:
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        text = self._lines[line - 1] if 0 < line <= len(self._lines) else ""
        # The offset counts bytes.
        return text.encode()[column:].decode(errors="replace")[:MAX_SHOWN].strip()

    def _unknown(self, node: ast.AST, *, harmless: bool = False) -> Unknown:
        return Unknown(getattr(node, "lineno", 0), self._text(node), harmless)

    def _doubt(self, node: ast.AST, problem: str = _NOT_FOLLOWED) -> Unknown:
        """Refuse the DAGs that a part of the file may change, or this part if it may make others."""
        line = getattr(node, "lineno", 0)
        named = [self._names.get(one.id) for one in ast.walk(node) if isinstance(one, ast.Name)]
        dags = dict.fromkeys([*self._open, *(dag for value in named for dag in _dags_of(value))])
        found = Problem(line, f"line {line}: `{self._text(node)}` {problem}")
        for dag in dags:
            dag.problems.append(found)
        if not dags and any(map(_makes, named)):
            self._found.problems.append(found)
        return self._unknown(node)

    # ---- values ----------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            known = isinstance(node.value, str | int | float | None)
            return node.value if known else self._unknown(node)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(one) for one in node.elts]
        if isinstance(node, ast.Dict):
            return self._dict(node)
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._value(node.operand)
            return -value if isinstance(value, int | float) else self._unknown(node)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if not isinstance(node, ast.Lambda) and any(
            isinstance(one, ast.Call | ast.BinOp | ast.NamedExpr) for one in ast.walk(node)
        ):
            return self._doubt(node)
        return self._unknown(node)

    def _name(self, node: ast.Name) -> Any:
        if node.id in self._names:
            return self._names[node.id]
        if node.id == "dict":
            return Ref(node.id)
        return self._unknown(node, harmless=hasattr(builtins, node.id))

    def _attribute(self, node: ast.Attribute) -> Any:
        of = self._value(node.value)
        if not isinstance(of, Ref):
            harmless = of.harmless if isinstance(of, Unknown) else not isinstance(of, Dag | Task | Own | list)
            return self._unknown(node, harmless=harmless)
        if of.last == "TriggerRule":
            return node.attr.lower()
        if node.attr.lower() == "utc":
            return Zone("UTC")
        return Ref(f"{of.path}.{node.attr}")

    def _dict(self, node: ast.Dict) -> Any:
        found: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            inner = self._value(value)
            if key is None and isinstance(inner, dict):
                found.update(inner)
                continue
            name = self._value(key) if key is not None else None
            if isinstance(name, str):
                found[name] = inner
            else:
                found[""] = self._unknown(value)
        return found

    def _joined(self, node: ast.JoinedStr) -> Any:
        parts: list[str] = []
        for part in node.values:
            plain = not isinstance(part, ast.FormattedValue) or (part.conversion == -1 and part.format_spec is None)
            value = self._value(part.value if isinstance(part, ast.FormattedValue) else part)
            if not plain or isinstance(value, bool) or not isinstance(value, str | int):
                return self._unknown(node)
            parts.append(str(value))
        text = "".join(parts)
        return text if len(text) <= MAX_TEXT else self._unknown(node)

    def _operation(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.RShift | ast.LShift):
            return self._shift(node, left, right)
        if isinstance(left, str) and isinstance(right, str) and isinstance(node.op, ast.Add):
            return left + right if len(left) + len(right) <= MAX_TEXT else self._unknown(node)
        if isinstance(left, dict) and isinstance(right, dict) and isinstance(node.op, ast.BitOr):
            return {**left, **right}
        return self._arithmetic(node, left, right)

    def _arithmetic(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        numbers = [one for one in (left, right) if isinstance(one, int | float) and abs(one) <= _MAX_NUMBER]
        spans = isinstance(left, timedelta) and isinstance(right, int)
        if not (len(numbers) == 2 or spans):
            return self._unknown(node)
        try:
            if isinstance(node.op, ast.Mult):
                return left * right
            if not spans and isinstance(node.op, ast.Add):
                return left + right
            if not spans and isinstance(node.op, ast.Sub):
                return left - right
        except OverflowError:
            pass
        return self._unknown(node)

    # ---- calls -----------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            of = self._value(node.func.value)
            if isinstance(of, Task):
                return self._method(node, of, node.func.attr)
        called = self._value(node.func)
        if isinstance(called, Own):
            return self._own(node, called)
        arguments, keywords = self._arguments(node)
        if isinstance(called, Unknown) and called.harmless:
            return self._unknown(node, harmless=True)
        if not isinstance(called, Ref):
            return self._doubt(node)
        if called.last == "DAG" and called.root == "airflow":
            return self._dag(node, arguments, keywords)
        if called.last.endswith(("Operator", "Sensor", "SensorAsync")):
            return self._task(node, called.last, arguments, keywords)
        if called.root == "airflow" and called.last in ("chain", "chain_linear", "cross_downstream"):
            return self._chain(node, called.last, arguments)
        maker = _MAKERS.get(called.path)
        if maker is not None:
            try:
                made = maker(*arguments, **keywords)
            except (TypeError, ValueError, OverflowError):
                made = None
            return self._unknown(node) if made is None else made
        if called.root in sys.stdlib_module_names or called.root == "pendulum" or called.path.startswith(_HARMLESS):
            return self._unknown(node, harmless=True)
        return self._doubt(node)

    def _arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        """The arguments. An unknown `**` is the keyword ""."""
        arguments: list[Any] = []
        for one in node.args:
            value = self._value(one.value if isinstance(one, ast.Starred) else one)
            if isinstance(one, ast.Starred):
                arguments += value if isinstance(value, list) else [self._unknown(one)]
            else:
                arguments.append(value)
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self._value(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, dict):
                keywords.update(value)
            else:
                keywords[""] = self._unknown(keyword.value)
        return arguments, keywords

    def _own(self, node: ast.Call, called: Own) -> Any:
        if called.kind == "task" and self._open:
            self._arguments(node)
            self._number_of_tasks(node)
            dag = self._open[-1]
            number = sum(one.operator == "@task" for one in dag.tasks.values())
            task = Task(
                f"{called.name}__{number}" if called.name in dag.tasks else called.name, node.lineno, "@task", {}, dag
            )
            dag.tasks[task.id] = task
            return task
        if called.kind == "dag":
            return self._unknown(node)
        return self._doubt(node) if self._open or called.makes else self._unknown(node)

    def _method(self, node: ast.Call, task: Task, name: str) -> Any:
        arguments, keywords = self._arguments(node)
        if name not in ("set_upstream", "set_downstream") or len(arguments) != 1 or keywords:
            return self._doubt(node)
        others = self._tasks_of(arguments[0])
        if others is None:
            return self._doubt(node)
        self._join(node, *((others, [task]) if name == "set_upstream" else ([task], others)))
        return None

    def _dag(self, node: ast.Call, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        given = {**dict(zip(("dag_id", "description"), arguments, strict=False)), **keywords}
        if isinstance(given.get("default_args"), dict):
            # Airflow copies it: later changes have no effect.
            given["default_args"] = dict(given["default_args"])
        name = given.pop("dag_id", None)
        if len(self._found.dags) >= MAX_DAGS:
            raise FileError(f"line {node.lineno}: it has more than {MAX_DAGS:,} DAGs; split it")
        dag = Dag(name if isinstance(name, str) else "", node.lineno, given)
        if not dag.id:
            dag.problems.append(Problem(node.lineno, f"dag_id is no literal text: `{self._text(node)}`"))
        if len(arguments) > 2:
            dag.problems.append(Problem(node.lineno, "DAG has more than two arguments without a keyword"))
        self._found.dags.append(dag)
        return dag

    def _task(self, node: ast.Call, operator: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        self._number_of_tasks(node)
        dag = keywords.pop("dag", None) or (self._open[-1] if self._open else None)
        if not isinstance(dag, Dag):
            text = f"line {node.lineno}: `{self._text(node)}` belongs to no DAG of this file"
            self._found.problems.append(Problem(node.lineno, text))
            return self._unknown(node)
        name = keywords.pop("task_id", None)
        if not isinstance(name, str) or arguments:
            return self._doubt(node, "needs task_id as a literal text, and keywords alone")
        if name in dag.tasks:
            return self._doubt(node, f"has the task_id {name[:MAX_SHOWN]!r} of another task")
        task = Task(name, node.lineno, operator, keywords, dag)
        dag.tasks[name] = task
        return task

    def _number_of_tasks(self, node: ast.AST) -> None:
        self._tasks += 1
        if self._tasks > MAX_TASKS:
            raise FileError(f"line {getattr(node, 'lineno', 0)}: it has more than {MAX_TASKS:,} tasks; split it")

    # ---- dependencies ----------------------------------------------------------------------------------------

    def _tasks_of(self, value: Any) -> list[Task] | None:
        """The tasks of a task or a list of tasks; None if it is something else."""
        given = value if isinstance(value, list) else [value]
        return given if all(isinstance(one, Task) for one in given) else None

    def _shift(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        before, after = self._tasks_of(left), self._tasks_of(right)
        if before is None or after is None or (isinstance(left, list) and isinstance(right, list)):
            self._doubt(node)
            return right
        if isinstance(node.op, ast.LShift):
            before, after = after, before
        self._join(node, before, after)
        return right

    def _chain(self, node: ast.Call, function: str, arguments: list[Any]) -> None:
        groups = [self._tasks_of(one) for one in arguments]
        if any(group is None for group in groups) or (function == "cross_downstream" and len(groups) != 2):
            self._doubt(node)
            return
        for number in range(len(groups) - 1):
            before, after = groups[number] or [], groups[number + 1] or []
            if function == "chain" and isinstance(arguments[number], list) and isinstance(arguments[number + 1], list):
                if len(before) != len(after):
                    self._doubt(node, "has lists of different lengths, which Airflow refuses")
                    return
                for one, other in zip(before, after, strict=True):
                    self._join(node, [one], [other])
            else:
                self._join(node, before, after)

    def _join(self, node: ast.AST, before: list[Task], after: list[Task]) -> None:
        self._edges += len(before) * len(after)
        if self._edges > MAX_EDGES:
            raise FileError(f"line {getattr(node, 'lineno', 0)}: it has more than {MAX_EDGES:,} dependencies; split it")
        for one in before:
            for other in after:
                if one.dag is not other.dag:
                    for dag in (one.dag, other.dag):
                        text = f"{one.id[:MAX_SHOWN]} and {other.id[:MAX_SHOWN]} belong to different DAGs"
                        dag.problems.append(Problem(getattr(node, "lineno", 0), text))
                other.upstream[one.id] = None


def _is_main(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == …`."""
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _makes(value: Any) -> bool:
    """Whether a name may make DAGs or tasks."""
    if isinstance(value, Own):
        return value.makes
    return isinstance(value, Ref) and (
        value.last.endswith(("Operator", "Sensor"))
        or (value.root == "airflow" and value.last in ("DAG", "dag", "task"))
    )


def _dags_of(value: Any) -> list[Dag]:
    given = value if isinstance(value, list) else [value]
    return [one if isinstance(one, Dag) else one.dag for one in given if isinstance(one, Dag | Task)]


# ---- functions whose results are known -----------------------------------------------------------------------


def _moment(*given: Any, tzinfo: Any = None, tz: Any = None, **parts: Any) -> Moment:
    """Raises TypeError or ValueError for values that `datetime` refuses."""
    zone = tzinfo if tzinfo is not None else tz
    name = zone.name if isinstance(zone, Zone) else zone
    if not isinstance(name, str | None) or set(parts) - set(_DATES):
        raise TypeError
    return Moment(datetime(*given, **parts), name or "")


def _pendulum(*given: Any, tz: Any = "UTC", **parts: Any) -> Moment:
    return _moment(*given, tz=tz, **parts)


def _span(*given: Any, **parts: Any) -> timedelta:
    if set(parts) - set(_SPANS):
        raise TypeError
    return timedelta(*given, **parts)


def _zone(name: Any = "UTC") -> Zone | None:
    return Zone(name) if isinstance(name, str) else None


def _dedent(text: Any) -> str:
    return dedent(text)


def _dict_of(**given: Any) -> dict[str, Any]:
    return given


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "datetime.datetime": _moment,
    "datetime.timedelta": _span,
    "pendulum.datetime": _pendulum,
    "pendulum.duration": _span,
    "pendulum.timezone": _zone,
    "pendulum.tz.timezone": _zone,
    "zoneinfo.ZoneInfo": _zone,
    "pytz.timezone": _zone,
    "textwrap.dedent": _dedent,
    "dict": _dict_of,
}
