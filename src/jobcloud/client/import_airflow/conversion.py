"""Makes jobs and a workflow of a DAG, or says why not. A DAG is converted as a whole or not at all."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from jobcloud.client.import_airflow.reading import FileError, read
from jobcloud.client.import_airflow.rules import Before, Conditions, RuleError, conditions
from jobcloud.client.import_airflow.values import MAX_SHOWN, Dag, Moment, Task, shown
from jobcloud.client.import_cron.report import Action, Item, Json, Kind, Options, configured_job, words_of
from jobcloud.config import check_name, parse_labels
from jobcloud.cron import CronError, Dialect, Schedule, find_zone
from jobcloud.errors import ConfigError

#: 30 February: the workflow alone starts the job
NEVER: Final = "0 0 0 30 2 ?"
# Those of a server, see docs/workflows.md.
_MAX_NODES: Final = 200
_MAX_CONDITIONS: Final = 1_000
_MAX_DESCRIPTION: Final = 300
_MAX_RUNS: Final = 100
_LEAST_DELAY_S: Final = 0.1
#: of Airflow, in seconds
_RETRY_DELAY: Final = 300
_MAX_RETRY_DELAY: Final = 86_400
_ACTIVE_RUNS: Final = 16
_SENSOR_TIMEOUT: Final = 7 * 86_400
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#|\{\{|\{%", re.DOTALL)
_STARRED_DAY: Final = re.compile(r"\*.+")
_EMPTY: Final = ("EmptyOperator", "DummyOperator")
_SENSOR: Final = ("Sensor", "SensorAsync")
_NO_COMMAND: Final = "true"

_HINTS: Final = {
    "@task": "write the function as a SIMPLE job: docs/executor.md",
    "PythonOperator": "write the function as a SIMPLE job: docs/executor.md",
    "PythonVirtualenvOperator": "write the function as a SIMPLE job: docs/executor.md",
    "BranchPythonOperator": "write a SIMPLE job, and conditions with `result` behind it",
    "ShortCircuitOperator": "write a SIMPLE job, and conditions with `result` behind it",
    "TriggerDagRunOperator": "name the job of that workflow's start in this workflow",
    "HttpOperator": "write an HTTP job: docs/executor.md",
    "SimpleHttpOperator": "write an HTTP job: docs/executor.md",
    "LatestOnlyOperator": "leave it out; catchUp decides which missed firings run",
}
_OTHER_HINT: Final = "write a job that does the same: docs/executor.md"

#: arguments that change nothing here
_WITHOUT_EFFECT: Final = frozenset({
    "doc", "doc_md", "doc_json", "doc_yaml", "doc_rst", "default_view", "orientation", "access_control",
    "owner_links", "dag_display_name", "task_display_name", "render_template_as_native_obj",
    "template_searchpath", "template_undefined", "jinja_environment_kwargs", "user_defined_macros",
    "user_defined_filters", "do_xcom_push", "output_encoding", "email_on_failure", "email_on_retry", "pool_slots",
    "weight_rule", "ui_color", "max_active_tasks", "concurrency", "skip_on_exit_code", "retry_delay",
    "max_retry_delay", "mode", "poke_interval", "exponential_backoff", "deferrable",
})  # fmt: skip
_CONVERTED: Final = frozenset({
    "schedule", "schedule_interval", "timetable", "start_date", "end_date", "catchup", "max_active_runs",
    "default_args", "description", "tags", "dagrun_timeout", "owner", "retries", "retry_exponential_backoff",
    "execution_timeout", "depends_on_past", "wait_for_downstream", "trigger_rule", "max_active_tis_per_dag",
    "task_concurrency",
})  # fmt: skip
_OF_COMMAND: Final = frozenset({"bash_command", "env", "append_env", "cwd"})
_OF_SENSOR: Final = frozenset({"timeout", "soft_fail"})
_INSTEAD: Final = {
    "email": "nobody gets mail; alerts tell of failures: docs/alerts.md",
    "on_failure_callback": "it is left out; alerts tell of failures: docs/alerts.md",
    "pool": "it is left out; see pools: docs/placement.md",
    "priority_weight": "it is left out; see the field priority",
    "sla": "it is left out; see lateAfterSeconds: docs/alerts.md",
}


class Refusal(ValueError):
    """A DAG or a task cannot be converted. The text says why, and what to write instead."""


@dataclass(slots=True)
class Converted:
    """The items of a DAG: its own, and those of its tasks by id. `nodes`: the nodes of its workflow without their jobs.

    `workflow`: the fields of the workflow apart from its nodes; empty if the DAG is a single job, or is refused.
    """

    item: Item
    tasks: dict[str, Item] = field(default_factory=dict)
    workflow: Json = field(default_factory=dict)
    nodes: list[Json] = field(default_factory=list)

    def items(self) -> list[Item]:
        return [self.item, *self.tasks.values()]

    def refuse(self, reason: str) -> None:
        """Refuse the DAG. Its tasks that are not refused themselves are skipped."""
        self.item.refuse(reason)
        self.workflow, self.nodes = {}, []
        for item in self.tasks.values():
            item.job, item.words = {}, ""
            if item.action is not Action.REFUSED:
                item.skip("its DAG is refused")

    def graph(self) -> list[Json]:
        """The nodes with the names of their jobs."""
        return [
            node if "waitFor" in node else {"name": node["name"], "job": self.tasks[node["name"]].name, **node}
            for node in self.nodes
        ]


def convert(data: bytes, source: str, options: Options) -> Iterator[Converted]:
    """The DAGs of a file, and one refused item for each part of it that may make others."""
    try:
        found = read(data)
    except FileError as error:
        yield Converted(Item(Kind.FILE, source, 0, source).refuse(str(error)))
        return
    for problem in found.problems:
        yield Converted(Item(Kind.LINE, source, problem.line, "").refuse(problem.text))
    for dag in found.dags:
        yield _Conversion(dag, source, options).run()
    if not found.problems and not found.dags:
        yield Converted(Item(Kind.FILE, source, 0, source).skip("it has no DAG"))


class _Conversion:
    def __init__(self, dag: Dag, source: str, options: Options) -> None:
        self._dag, self._source, self._options = dag, source, options
        given = dag.args.get("default_args")
        self._defaults: dict[str, Any] = given if isinstance(given, dict) else {}
        self._done = Converted(Item(Kind.DAG, source, dag.line, dag.id))
        self._zone = options.zone

    def run(self) -> Converted:
        try:
            self._convert()
        except Refusal as error:
            self._done.refuse(str(error))
        for item in self._done.items():
            if item.action is Action.TAKEN and item.changes:
                item.action = Action.CHANGED
        return self._done

    def _convert(self) -> None:
        dag, done = self._dag, self._done
        for task in dag.tasks.values():
            done.tasks[task.id] = Item(Kind.TASK, self._source, task.line, task.id)
        if dag.problems:
            more = f"; and {len(dag.problems) - 1} more" if len(dag.problems) > 1 else ""
            raise Refusal(f"{dag.problems[0].text}{more}")
        order = self._checked_order()
        schedule = self._schedule()
        common = self._common()
        refused = [task.id for task in dag.tasks.values() if not self._task(task, common)]
        joins = self._conditions(order)
        if refused or joins is None:
            names = [task for task, item in done.tasks.items() if item.action is Action.REFUSED]
            raise Refusal(f"tasks are refused: {', '.join(names[:10])[:300]}; a DAG is converted as a whole")
        self._nodes(joins)
        self._start(schedule, common)
        self._arguments_left_out(done.item, {**self._defaults, **dag.args}, _OF_COMMAND | _OF_SENSOR)

    def _checked_order(self) -> tuple[str, ...]:
        """The ids of all tasks, each behind those before it. Raises Refusal."""
        tasks = self._dag.tasks
        if not tasks:
            raise Refusal("it has no task")
        if len(tasks) > _MAX_NODES:
            raise Refusal(f"it has {len(tasks)} tasks; a workflow has at most {_MAX_NODES}")
        if sum(len(task.upstream) for task in tasks.values()) > _MAX_CONDITIONS:
            raise Refusal(f"it has more than {_MAX_CONDITIONS:,} dependencies")
        for field_, name in (("dag_id", self._dag.id), *(("task_id", task) for task in tasks)):
            try:
                check_name(field_, name)
            except ConfigError as error:
                raise Refusal(str(error)) from error
        try:
            return tuple(TopologicalSorter({task.id: tuple(task.upstream) for task in tasks.values()}).static_order())
        except CycleError as error:
            raise Refusal(f"it has a cycle: {' > '.join(reversed(error.args[1]))}"[:300]) from error

    # ---- values ----------------------------------------------------------------------------------------------

    def _get(self, name: str, types: type | tuple[type, ...], default: Any, task: Task | None = None) -> Any:
        """An argument of a task, else of default_args, else of the DAG. None counts as left out. Raises Refusal."""
        places = [task.args, self._defaults] if task is not None else [self._dag.args, self._defaults]
        value = next((place[name] for place in places if name in place), None)
        if value is None:
            return default
        accepted = types if isinstance(types, tuple) else (types,)
        if isinstance(value, accepted) and (not isinstance(value, bool) or bool in accepted):
            return value
        raise Refusal(f"{name} is no literal that is known here: {shown(value)}; write its value")

    def _seconds(self, name: str, task: Task | None = None) -> float | None:
        value = self._get(name, (int, float, timedelta), None, task)
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if seconds is None:
            return None
        if seconds < 0:
            raise Refusal(f"{name} is negative")
        return int(seconds) if seconds == int(seconds) else float(seconds)

    # ---- when it runs ----------------------------------------------------------------------------------------

    def _schedule(self) -> Json:
        """The fields of the start's job with its times. Raises Refusal."""
        args, changes = self._dag.args, self._done.item.changes
        if "" in args or "" in self._defaults:
            raise Refusal("its arguments have ** or keys that are no literals; write them out")
        if "default_args" in args and not isinstance(args["default_args"], dict):
            raise Refusal(f"default_args is no literal: {shown(args['default_args'])}; write its values")
        start, end = (self._get(name, Moment, None) for name in ("start_date", "end_date"))
        zones = {moment.zone for moment in (start, end) if moment is not None and moment.zone}
        if len(zones) > 1:
            raise Refusal("start_date and end_date have different time zones")
        self._zone = next(iter(zones), self._zone)
        try:
            find_zone(self._zone)
        except CronError as error:
            raise Refusal(str(error)) from error
        name = next((one for one in ("schedule", "schedule_interval", "timetable") if one in args), "")
        fields = self._times(name, args.get(name), start)
        if not name:
            changes.append("it has no schedule: Airflow 2 would run it each day, Airflow 3 does not, nor does jobcloud")
        if fields.get("cron") == NEVER:
            return fields
        for key, moment in (("startTime", start), ("endTime", end)):
            if moment is not None:
                fields[key] = moment.wall.replace(microsecond=0).isoformat()
        return {**fields, **self._catch_up()}

    def _times(self, name: str, value: Any, start: Moment | None) -> Json:
        if value is None or value == "@once":
            if value:
                self._done.item.changes.append(
                    "@once: trigger it once with `jobcloud workflow trigger` or `job trigger`"
                )
            return {"cron": NEVER}
        if isinstance(value, timedelta):
            seconds = value.total_seconds()
            if start is None or seconds <= 0 or seconds != int(seconds):
                raise Refusal(f"{name} is an interval that needs whole seconds, and a literal start_date")
            if not self._get("catchup", bool, None):
                self._done.item.changes.append(
                    f"{name}: an interval counts from start_date; with catchup off, Airflow 3 counts from the time "
                    "when the DAG is switched on, and Airflow 2 from 1970"
                )
            return {"triggers": [f"@every {int(seconds)}s"]}
        if not isinstance(value, str):
            raise Refusal(
                f"{name} is neither a cron expression nor a timedelta: {shown(value)}; write the cron of a job"
            )
        expression = "0 0 1 */3 *" if value == "@quarterly" else value
        parts = expression.split()
        if len(parts) == 5:
            day, weekday = parts[2], parts[4]
            if any(map(_STARRED_DAY.fullmatch, (day, weekday))) and "*" not in (day, weekday):
                raise Refusal(
                    f"{name}: Airflow fires on days that match {day} or {weekday}, the Unix dialect if both match"
                )
        try:
            Schedule.parse(expression, dialect=Dialect.UNIX)
        except CronError as error:
            raise Refusal(f"{name}: {error}") from error
        return {"cron": expression, "cronDialect": "unix"}

    def _catch_up(self) -> Json:
        given, changes = self._get("catchup", bool, None), self._done.item.changes
        if given is None:
            changes.append(
                "it has no catchup: Airflow 2 makes up for all missed runs, Airflow 3 for the last one, as here"
            )
        if given:
            changes.append(f"catchup: at most the last {_MAX_RUNS} missed firings run")
            return {"catchUp": "all", "catchUpLimit": _MAX_RUNS}
        return {"catchUp": "once"}

    def _common(self) -> Json:
        """The fields that the jobs of all tasks share."""
        common: Json = {"jobType": "SCRIPT", "jobExecutionType": "TRANSIENT"}
        if self._zone != "UTC":
            common["timeZone"] = self._zone
        return common

    def _labels(self, item: Item, task: Task) -> Json:
        labels: list[str] = []
        if owner := self._get("owner", str, "", task):
            self._label(item, labels, f"owner={owner}")
        for tag in self._get("tags", list, []):
            self._label(item, labels, f"{tag if isinstance(tag, str) else shown(tag)}=tag")
        return {"labels": ",".join(labels)} if labels else {}

    def _label(self, item: Item, labels: list[str], label: str) -> None:
        try:
            parse_labels(",".join((*labels, label)))
            labels.append(label)
        except ConfigError:
            item.changes.append(f"{label[:MAX_SHOWN]} cannot be a label and is left out")

    def _overlap(self, item: Item, task: Task) -> Json:
        runs = self._get("max_active_runs", int, _ACTIVE_RUNS)
        past = [name for name in ("depends_on_past", "wait_for_downstream") if self._get(name, bool, False, task)]
        for name in past:
            item.changes.append(f"{name}: a run waits for the end of the previous run, but not for its success")
        names = ("max_active_tis_per_dag", "task_concurrency")
        if runs == 1 or past or any(self._get(name, int, 0, task) == 1 for name in names):
            return {"misfire": True}
        return {"concurrency": "allow", "concurrencyLimit": max(1, min(runs, _MAX_RUNS))}

    # ---- tasks -----------------------------------------------------------------------------------------------

    def _task(self, task: Task, common: Json) -> bool:
        """Set the job of a task. Returns whether it is converted."""
        item = self._done.tasks[task.id]
        try:
            if "" in task.args:
                raise Refusal("its arguments have ** or keys that are no literals; write them out")
            if task.operator.endswith(_SENSOR):
                self._wait(task, item)
                return True
            if task.operator == "BashOperator":
                own = self._command(task, item)
            elif task.operator in _EMPTY:
                own = {"scriptCommandLine": _NO_COMMAND}
                item.changes.append(f"{task.operator}: its job runs `{_NO_COMMAND}`")
            else:
                hint = _HINTS.get(task.operator, _OTHER_HINT)
                raise Refusal(f"{task.operator[:MAX_SHOWN]} is not converted; {hint}")
            item.job = {
                **common,
                **self._labels(item, task),
                **own,
                **self._retries(task, item),
                **self._overlap(item, task),
                "cron": NEVER,
                "description": f"from {self._source}:{task.line}"[:400],
            }
            if (timeout := self._seconds("execution_timeout", task)) is not None:
                item.job["timeoutSeconds"] = timeout
            configured_job(item.job)
            self._arguments_left_out(item, task.args, _OF_SENSOR)
        except (Refusal, ConfigError) as error:
            item.refuse(str(error))
        return item.action is not Action.REFUSED

    def _command(self, task: Task, item: Item) -> Json:
        command = self._plain("bash_command", task.args.get("bash_command"))
        if command.endswith((".sh", ".bash")):
            raise Refusal(
                f"bash_command: Airflow reads {command[-MAX_SHOWN:]} as a template; put the file into the app, and "
                "end the command with a space"
            )
        folder = task.args.get("cwd")
        if folder is not None:
            command = f"cd {shlex.quote(self._plain('cwd', folder))} || exit\n{command}"
        own: Json = {"scriptCommandLine": shlex.join(("bash", "-c", command.strip()))}
        environment = self._get("env", dict, {}, task)
        if environment:
            own["environment"] = [
                f"{name}={self._plain(f'env: {name[:MAX_SHOWN]}', value)}" for name, value in environment.items()
            ]
            if not self._get("append_env", bool, False, task):
                item.changes.append("env: the command also gets the other variables of the executor")
        return own

    def _plain(self, name: str, value: Any) -> str:
        """A text without a template. Raises Refusal."""
        if not isinstance(value, str):
            raise Refusal(f"{name} is no literal text: {shown(value)}; write its value")
        if template := _TEMPLATE.search(value):
            raise Refusal(
                f"{name} has the template {template[0][:MAX_SHOWN]}; jobs have placeholders such as "
                "{fire_time:%Y-%m-%d}: docs/executor.md"
            )
        return value

    def _retries(self, task: Task, item: Item) -> Json:
        count = self._get("retries", int, 0, task)
        if count <= 0:
            return {}
        delay = self._seconds("retry_delay", task)
        delay = max(_LEAST_DELAY_S, _RETRY_DELAY if delay is None else delay)
        most, jitter = delay, {"retryJitter": 0}
        if self._get("retry_exponential_backoff", (bool, int, float), False, task):
            given = self._seconds("max_retry_delay", task)
            most, jitter = max(delay, _MAX_RETRY_DELAY if given is None else given), {}
            item.changes.append("retry_exponential_backoff: each wait is double the one before, and up to 10 % longer")
        return {"retryCount": count, "retryDelaySeconds": delay, "retryMaxDelaySeconds": most, **jitter}

    def _wait(self, task: Task, item: Item) -> None:
        if self._get("soft_fail", bool, False, task):
            raise Refusal("soft_fail: a node that waits cannot be skipped by itself")
        item.changes.append(
            f"{task.operator[:MAX_SHOWN]}: the node waits for the event {self._event(task)}, which a program must "
            "send; see waitFor in docs/workflows.md"
        )

    def _event(self, task: Task) -> str:
        return f"{self._dag.id}.{task.id}"

    def _arguments_left_out(self, item: Item, args: Json, known: frozenset[str]) -> None:
        """Name the arguments that have no effect here, unless they are empty or change nothing."""
        own = _OF_COMMAND if item.kind is Kind.TASK else frozenset()
        for name, value in args.items():
            if value in (None, False, "", 0) or value == [] or name in _WITHOUT_EFFECT | _CONVERTED | own | known:
                continue
            item.changes.append(f"{name[:MAX_SHOWN]}: {_INSTEAD.get(name, 'it is left out')}")

    # ---- the workflow ----------------------------------------------------------------------------------------

    def _conditions(self, order: tuple[str, ...]) -> dict[str, Conditions] | None:
        """The conditions of each task; None if one is refused."""
        known: dict[str, Before] = {}
        found: dict[str, Conditions] = {}
        for task in self._dag.tasks.values():
            try:
                rule = self._get("trigger_rule", str, "all_success", task)
            except Refusal as error:
                self._done.tasks[task.id].refuse(str(error))
                return None
            known[task.id] = Before(rule, tuple(task.upstream))
        for name in known:
            item = self._done.tasks[name]
            try:
                one = found[name] = conditions(name, known, order)
            except RuleError as error:
                item.refuse(str(error))
                continue
            joined = ", ".join(one.upstream) if one.join == "all" else f"any of {', '.join(one.upstream)}"
            end = {"success": "", "failure": "the failure of ", "either": "any end of "}[one.on]
            item.words = f"after {end}{joined}"[:300] if one.upstream else "with the run"
        return found if len(found) == len(known) else None

    def _nodes(self, joins: dict[str, Conditions]) -> None:
        for name, before in joins.items():
            task = self._dag.tasks[name]
            node: Json = {"name": name}
            if task.operator.endswith(_SENSOR):
                timeout = self._seconds("timeout", task)
                timeout = _SENSOR_TIMEOUT if timeout is None else timeout
                node |= {"waitFor": "event", "event": self._event(task), "deadlineSeconds": timeout}
            if before.upstream:
                success = before.on == "success"
                node["after"] = [of if success else {"node": of, "on": before.on} for of in before.upstream]
            if before.join == "any":
                node["join"] = "any"
            self._done.nodes.append(node)

    def _start(self, schedule: Json, common: Json) -> None:
        """Give the start's job the schedule, and make the workflow. Adds a start if all first tasks are sensors."""
        dag, done = self._dag, self._done
        first = [node["name"] for node in done.nodes if "after" not in node]
        start = next((name for name in first if done.tasks[name].job), "")
        if not start:
            start = next(
                name for name in ("start", *map("start-{}".format, range(_MAX_NODES + 1))) if name not in dag.tasks
            )
            job = {**common, "scriptCommandLine": _NO_COMMAND, "description": f"from {self._source}:{dag.line}"[:400]}
            done.tasks[start] = Item(Kind.TASK, self._source, dag.line, start, words="with the run", job=job)
            done.nodes.insert(0, {"name": start})
            done.item.changes.append(
                f"the first tasks only wait, so {start} begins a run; its job runs `{_NO_COMMAND}`"
            )
        job = done.tasks[start].job
        if "cron" not in schedule:
            job.pop("cron", None)
        job |= schedule
        try:
            done.item.words = f"{dag.id}: {'never' if schedule.get('cron') == NEVER else words_of(configured_job(job))}"
        except ConfigError as error:
            raise Refusal(str(error)) from error
        single = len(done.nodes) == 1
        for name, item in done.tasks.items():
            item.name = dag.id if single else f"{dag.id}.{name}"
        if (timeout := self._seconds("dagrun_timeout")) is not None:
            done.item.changes.append(
                "dagrun_timeout: "
                + ("it is left out; see timeoutSeconds" if single else "an alert opens; the run goes on")
            )
        if single:
            done.nodes = []
            return
        if self._get("max_active_runs", int, _ACTIVE_RUNS) == 1:
            done.item.changes.append("max_active_runs: runs of the workflow may overlap, but no two runs of one task")
        done.workflow = {"workflowName": dag.id}
        description = self._get("description", str, "")
        if description:
            done.workflow["description"] = " ".join(description.split())[:_MAX_DESCRIPTION]
        done.workflow["start"] = start
        if timeout is not None:
            done.workflow["deadlineSeconds"] = timeout
