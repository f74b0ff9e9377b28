"""Workflows in files: one workflow, or several under `workflows`, in YAML, TOML or JSON, or made by a Python file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobcloud.client import documents, workflow_python
from jobcloud.client.documents import Document, Place
from jobcloud.client.http import ApiError, Client, Json, NotReachable
from jobcloud.config import key_of, qualified
from jobcloud.errors import ConfigError

_CONFIG = ("nodes", "start", "description")
_LAYOUT = "write workflowName and nodes, or a list of such under `workflows`"


class Given(NamedTuple):
    """A workflow in a file. `revision` is the one that `workflow show --json` printed, or ""."""

    key: str
    config: Json
    document: Document
    place: Place
    revision: str = ""

    def send(self, client: Client) -> Json:
        """Create or change the workflow. Raises ApiError, whose fields begin with the file and the line."""
        try:
            return client.put_workflow(self.key, self.config, self.revision)
        except NotReachable:
            raise
        except ApiError as error:
            if not error.errors:
                raise
            raise ApiError(error.status, self._located(error)) from error

    def _located(self, error: ApiError) -> Json:
        errors = []
        for issue in error.errors:
            field = str(issue.get("field", ""))
            where = f"{self.document.where(*self.place, *documents.place_of(field))}: workflow {self.key}"
            errors.append({**issue, "field": f"{where}: {field}" if field else where})
        first = errors[0]
        fix = f" ({first['fix']})" if first.get("fix") else ""
        detail = f"{first['field']}: {first.get('problem')}{fix}"
        return {**error.problem, "errors": errors, "detail": detail}


def read(path: Path, team: str = "") -> list[Given]:
    """The workflows of a file. `team` is that of workflows without one. Raises ConfigError."""
    document = workflow_python.read(path) if path.suffix == workflow_python.SUFFIX else documents.read(path)
    value = document.value
    if isinstance(value, dict) and set(value) == {"workflows"} and isinstance(value["workflows"], list):
        tables: list[tuple[Place, object]] = [(("workflows", n), one) for n, one in enumerate(value["workflows"])]
    else:
        tables = [((), value)]
    if not tables:
        raise ConfigError("holds no workflow", field=document.name, fix=_LAYOUT)
    found = [_given(document, place, table, team) for place, table in tables]
    _check_keys(found)
    return found


def _given(document: Document, place: Place, table: object, team: str) -> Given:
    if not isinstance(table, dict) or "nodes" not in table:
        raise ConfigError("has the wrong layout", field=document.where(*place), fix=_LAYOUT)
    if "revision" in table and "workflow" in table:
        # `workflow show --json` has printed it, with values that nobody sets.
        config = {name: table[name] for name in _CONFIG if name in table}
        return Given(str(table["workflow"]), config, document, place, str(table["revision"]))
    name = table.get("workflowName")
    if not isinstance(name, str) or not name:
        raise ConfigError("is missing", field=f"{document.where(*place)}: workflowName", fix=_LAYOUT)
    config = {key: one for key, one in table.items() if key not in ("workflowName", "team")}
    key = key_of(str(table["team"]), name) if "team" in table else qualified(name, team)
    return Given(key, config, document, place)


def _check_keys(found: list[Given]) -> None:
    known: dict[str, Given] = {}
    for one in found:
        if (before := known.setdefault(one.key, one)) is not one:
            problem = f"workflow {one.key[:160]} is given twice, also in {before.document.where(*before.place)}"
            raise ConfigError(problem, field=one.document.where(*one.place), fix="remove one")


def send(client: Client, given: list[Given]) -> Iterator[Json]:
    """Send the workflows one after the other. Raises ApiError; those before stay sent."""
    return (one.send(client) for one in given)
