"""The values of a DAG file: literals, names of imports, DAGs and tasks. An unknown value keeps its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

#: characters of a text that `+` or an f-string makes
MAX_TEXT: Final = 65_536
MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that only a run of the file would know. `harmless`: a call that gave it makes no tasks."""

    line: int
    text: str
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    """An imported name with its attributes, such as `airflow.models.DAG`."""

    path: str

    @property
    def root(self) -> str:
        return self.path.partition(".")[0]

    @property
    def last(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Own:
    """A function or a class of the file. `kind`: `dag`, `task` (of TaskFlow) or "". `makes`: it names DAGs or tasks."""

    name: str
    line: int
    kind: str
    makes: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """A wall time. `zone` is "" if it names none."""

    wall: datetime
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    name: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why a DAG or a part of the file is refused."""

    line: int
    text: str


@dataclass(slots=True, eq=False)
class Task:
    """A task. `operator`: the name of its class. `args`: by keyword. `upstream`: the tasks before it, by id."""

    id: str
    line: int
    operator: str
    args: dict[str, Any]
    dag: Dag
    upstream: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Dag:
    id: str
    line: int
    args: dict[str, Any]
    tasks: dict[str, Task] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def shown(value: object) -> str:
    """A value in an error, as far as it is short."""
    if isinstance(value, Unknown):
        return value.text
    if isinstance(value, Ref):
        return value.path[:MAX_SHOWN]
    if isinstance(value, str | int | float | bool | None):
        return repr(value if not isinstance(value, str) else value[:MAX_SHOWN])
    return {"list": "a list", "dict": "a dict"}.get(type(value).__name__, type(value).__name__.lower())
