"""Workflows in files: one workflow, or several under `workflows`, in YAML, TOML or JSON, or made by a Python file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobcloud.client import apps, documents, workflow_python
from jobcloud.client.apps import Entry
from jobcloud.client.documents import Document, Place
from jobcloud.client.http import ApiError, Client, Json, NotReachable
from jobcloud.config import qualified, split_key
from jobcloud.errors import ConfigError

_CONFIG = ("nodes", "start", "description", "deadlineSeconds")
_LAYOUT = "write workflowName and nodes, or a list of such under `workflows`"


class Given(NamedTuple):
    """A workflow in a file. `revision` is the one that `workflow show --json` printed, or ""."""

    entry: Entry
    revision: str = ""


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
    apps.check_no_duplicates([one.entry for one in found])
    return found


def _given(document: Document, place: Place, table: object, team: str) -> Given:
    if not isinstance(table, dict) or "nodes" not in table:
        raise ConfigError("has the wrong layout", field=document.where(*place), fix=_LAYOUT)
    config, revision = table, ""
    if "revision" in table and "workflow" in table:
        # `workflow show --json` has printed it, with values that nobody sets.
        config = {"workflowName": table["workflow"], **{name: table[name] for name in _CONFIG if name in table}}
        revision = str(table["revision"])
    name = config.get("workflowName")
    if not isinstance(name, str) or not name:
        raise ConfigError("is missing", field=f"{document.where(*place)}: workflowName", fix=_LAYOUT)
    if "team" not in config:
        of, name = split_key(name if revision else qualified(name, team))
        config = {**config, "workflowName": name, "team": of}
    return Given(apps.workflow_entry(document, place, config), revision)


def send(client: Client, given: list[Given]) -> Iterator[Json]:
    """Create or change the workflows, and return them as the server shows them. Several are set together, or none.

    If one of them has a revision, they are set one after the other, and those before a refused one stay set. Raises
    ApiError, whose fields begin with the file and the line.
    """
    if len(given) == 1 or any(one.revision for one in given):
        yield from (_put(client, one) for one in given)
        return
    apps.send(client, [one.entry for one in given], dryRun=False)
    yield from (client.workflow(one.entry.key) for one in given)


def _put(client: Client, given: Given) -> Json:
    entry = given.entry
    config = {key: one for key, one in entry.config.items() if key not in ("workflowName", "team")}
    try:
        return client.put_workflow(entry.key, config, given.revision)
    except NotReachable:
        raise
    except ApiError as error:
        raise ApiError(error.status, apps.located(error, lambda field: (entry, field))) from error
