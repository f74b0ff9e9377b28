"""The report of an import of DAG files, and the manifest with the jobs and workflows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobcloud.client import documents
from jobcloud.client.import_airflow.conversion import Converted, convert
from jobcloud.client.import_cron.report import (
    MAX_MANIFEST,
    TOO_LONG,
    Item,
    Json,
    Kind,
    Options,
    check_options,
    described,
    give_names,
    jobs_of,
    refused,
)
from jobcloud.errors import ConfigError

MAX_BYTES: Final = 1 << 20
MAX_FILES: Final = 2_000


@dataclass(slots=True)
class Report:
    """`notes`: differences that concern all DAGs."""

    dags: list[Converted]
    notes: list[str]

    @classmethod
    def of(cls, paths: Iterable[Path], options: Options) -> Report:
        """Convert files, and all `*.py` in directories and below. Raises ConfigError for a wrong option or path."""
        check_options(options)
        found: list[Converted] = []
        known: dict[str, Converted] = {}
        size = 0
        for path in _files(paths):
            for one in convert(documents.read_bytes(path, MAX_BYTES), str(path), options):
                size += sum(len(str(item.job)) for item in one.items()) + len(str(one.nodes))
                name = one.item.text if one.item.kind is Kind.DAG else ""
                if name and known.setdefault(name, one) is not one:
                    before = known[name].item
                    one.refuse(f"dag_id is also that of {before.source}:{before.line}")
                elif size > MAX_MANIFEST and any(item.job for item in one.items()):
                    one.refuse(TOO_LONG)
                found.append(one)
        give_names([item for one in found for item in one.items()], options.names)
        return cls(found, _notes(options))

    @property
    def items(self) -> list[Item]:
        return [item for one in self.dags for item in one.items()]

    @property
    def refused(self) -> int:
        return refused(self.items)

    def manifest(self, options: Options) -> Json:
        """The jobs and workflows in the form of `jobcloud apply`."""
        team = {"team": options.team} if options.team else {}
        workflows = [{**one.workflow, **team, "nodes": one.graph()} for one in self.dags if one.workflow]
        return {"jobs": jobs_of(self.items, options), "workflows": workflows}

    def document(self, *, dry_run: bool, options: Options) -> Json:
        """The report in JSON, with the manifest."""
        return described(self.items, self.notes, self.manifest(options), dry_run=dry_run)


def _notes(options: Options) -> list[str]:
    return [
        f"a start_date without a time zone is read in {options.zone} (--zone)",
        "the fire time of a run is the end of its interval; the logical date of Airflow 2 is the begin",
        "tasks have no XCom, variables and connections; exit code 99 is a failure, and no skip",
        "a run of a workflow is FAILED if any node is; Airflow looks at the last tasks alone",
        "commands run with bash on an agent, in the directory of the app, as the user of the executor",
    ]


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        for one in path.rglob("*.py") if path.is_dir() else [path]:
            found.append(one)
            if len(found) > MAX_FILES:
                raise ConfigError(f"there are more than {MAX_FILES:,} files", field="FILE", fix="give fewer at once")
    return sorted(found)
