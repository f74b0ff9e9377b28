"""Prints what Airflow itself finds in DAG files, as JSON.

    VENV/bin/python tests/oracles/record_airflow.py tests/data/airflow/*.py > tests/data/airflow_VERSION.json

VENV is a virtual environment with `apache-airflow`, not that of jobcloud. The answers in tests/data come from
`apache-airflow==2.10.5`, and from `apache-airflow==3.3.2` with `apache-airflow-providers-standard`. Fire times are
recorded with Airflow 2 alone: the DAGs of Airflow 3 do not compute them.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from typing import Any

#: of a DAG after its start_date
DAYS = 400
TIMES = 60


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(
            AIRFLOW_HOME=home, AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR"
        )
        import airflow

        found = {}
        for path in sys.argv[1:]:
            names = runpy.run_path(path, run_name="recorded")
            dags = {value.dag_id: value for value in names.values() if type(value).__name__ == "DAG"}
            dags.update({task.dag.dag_id: task.dag for task in names.values() if hasattr(task, "upstream_task_ids")})
            found.update({name: answer(dag) for name, dag in sorted(dags.items())})
        json.dump({"version": airflow.__version__, "dags": found}, sys.stdout, indent=1, sort_keys=True)


def answer(dag: Any) -> dict[str, Any]:
    return {"tasks": {task.task_id: of_task(task) for task in dag.tasks}, "times": times(dag)}


def of_task(task: Any) -> dict[str, Any]:
    return {
        "operator": type(task).__name__,
        "upstream": sorted(task.upstream_task_ids),
        "rule": getattr(task.trigger_rule, "value", task.trigger_rule),
        "command": getattr(task, "bash_command", None),
        "retries": task.retries,
        "delay": task.retry_delay.total_seconds(),
        "timeout": task.execution_timeout.total_seconds() if task.execution_timeout else None,
        "owner": task.owner,
    }


def times(dag: Any) -> list[str] | None:
    """The first instants, in UTC, at which runs begin; None with Airflow 3."""
    if not hasattr(dag, "iter_dagrun_infos_between"):
        return None
    start = dag.start_date or datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - Airflow 2 runs on Python 3.8
    runs = dag.iter_dagrun_infos_between(start, start + timedelta(days=DAYS))
    found = [run.run_after.astimezone(timezone.utc) for run in runs]  # noqa: UP017
    return [f"{one:%Y-%m-%dT%H:%M:%SZ}" for one in found[:TIMES]]


if __name__ == "__main__":
    main()
