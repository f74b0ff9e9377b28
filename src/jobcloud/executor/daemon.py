"""The executor daemon. It handles the tasks of one app version on one agent, from LAUNCH to the terminal update.

User code never runs in this process. All decisions are made in the thread of the loop. See docs/executor.md.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
import traceback
import uuid as uuids
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

from jobcloud.executor import package
from jobcloud.executor.agent_api import AgentLink, Call, Listener
from jobcloud.executor.execution import LOADING, Execution, Runner
from jobcloud.executor.files import JobFiles
from jobcloud.executor.ledger import Ledger
from jobcloud.executor.loop import Loop, Timer, log
from jobcloud.executor.outcomes import Cause, Outcome, State, cut, describe, failed, killed
from jobcloud.executor.output import TaskFolders
from jobcloud.executor.payload import DEFAULT_KILL_GRACE_S, AppPayload, PayloadError, TaskPayload, read_app, read_task
from jobcloud.executor.processes import (
    Children,
    become_subreaper,
    give_back_memory,
    share_one_heap,
    take_open_files,
)
from jobcloud.executor.pump import Pump
from jobcloud.executor.resident import Resident, resident
from jobcloud.executor.scripts import Scripts
from jobcloud.executor.secrets import SecretFiles, SecretsError, fetch
from jobcloud.executor.settings import Settings
from jobcloud.executor.webhooks import Webhooks
from jobcloud.executor.workers import Workers
from jobcloud.wire import encode_data

# The executor waits at least this long for its first task, even if the idle timeout is shorter. The agent starts an
# executor only for a task, so the task is on its way.
_FIRST_TASK_WITHIN_S = 60.0
_RESEND_REFUSED_S = 1.0
_RESEND_UNACKNOWLEDGED_S = 30.0
_LEAVE_WITHIN_S = 5.0
# The wall clock may jump, so a resident task compares the clock with its next fire time at least this often.
_MAX_WAIT_S = 5.0
# A progress report of a task is dropped if less than this time has passed since the last report that was sent. The
# Python worker sends at most one report of a task a second.
_PROGRESS_EVERY_S = 0.9
# _LAST_REPORTS_S: for how long unsent webhook reports may delay the exit. _RECHECK_S: the time between two checks.
_LAST_REPORTS_S, _RECHECK_S = 10.0, 0.05
# After each group of this many executions, free memory is returned to the system, because a fragmented heap grows.
_TRIM_EVERY = 1_000
# The handler "ignore" ignores failures of the job's own code. It does not ignore failures to run the job.
_IGNORABLE = (Cause.EXCEPTION, Cause.EXIT_CODE)
_NEVER_SUBSCRIBED_EXIT, _AGENT_GONE_EXIT, _REFUSED_EXIT = 3, 4, 5


@dataclass(eq=False)
class _Task:
    task_id: str
    payload: TaskPayload
    grace_s: float
    execution: Optional[Execution] = None
    resident: Optional[Resident] = None
    timer: Optional[Timer] = None
    time_limit: Optional[Timer] = None
    timed_out: bool = False
    secrets: Optional[Mapping[str, str]] = field(default=None, repr=False)
    progress_sent_at: float = 0.0
    killing: Optional[Cause] = None
    started_at: int = 0


class Executor(Listener):
    """The daemon's state. Every method runs in the thread of the loop, except `_unpack` and `_fetch_secrets`."""

    def __init__(self, settings: Settings, loop: Loop, children: Children) -> None:
        self._settings, self._loop, self._children = settings, loop, children
        self._ledger = Ledger()
        self._link = AgentLink(settings, self, loop.post)
        self._pump = Pump(loop.post)
        self._webhooks = Webhooks()
        self._secret_files = SecretFiles()
        self._files = JobFiles(settings.sandbox)
        self._folders = TaskFolders(os.path.join(settings.sandbox, "tasks"))
        self._directory = os.path.join(settings.sandbox, "app")
        self._libraries = os.path.join(settings.sandbox, package.WHEELS)
        self._tasks: Dict[str, _Task] = {}
        self._app: Optional[AppPayload] = None
        self._app_error = ""
        self._runners: Dict[bool, Runner] = {}
        self._workers: Optional[Workers] = None
        self._preparing = False
        self._connected = False
        self._subscribed_with: Mapping[str, Any] = {}
        self._resends: Dict[str, Timer] = {}
        self._last_refusal = ""
        self._agent_deadline: Optional[Timer] = None
        self._idle: Optional[Timer] = None
        self._had_work = False
        self._executions = 0
        self._leaving: Optional[Callable[[], None]] = None
        self._actions: Mapping[str, Callable[[Dict[str, Any]], None]] = {
            "SUBSCRIBED": self._on_subscribed,
            "LAUNCH": self._on_launch,
            "LAUNCH_GROUP": self._on_launch_group,
            "KILL": self._on_kill,
            "ACKNOWLEDGED": self._on_acknowledged,
            "SHUTDOWN": lambda _: self.shutdown("the agent asked for the shutdown", 0),
            "ERROR": lambda event: self.shutdown(
                f"the agent refused this executor: {event.get('error')}", _REFUSED_EXIT
            ),
            "MESSAGE": lambda _: log("ignored a framework message: this executor handles none"),
            "HEARTBEAT": lambda _: None,
        }

    def start(self) -> None:
        self._link.start()
        self._agent_deadline = self._loop.later(
            self._settings.recovery_timeout_s,
            lambda: self.shutdown("the agent never accepted the subscription", _NEVER_SUBSCRIBED_EXIT),
        )

    def end_processes(self) -> None:
        """Kill every process that this executor started, and remove the secrets of its tasks."""
        self._children.kill_all()
        self._secret_files.close()

    # The agent

    def subscribe_call(self, connection: int) -> Call:
        self._subscribed_with = self._ledger.unacknowledged_updates()
        updates = [{"status": status} for status in self._subscribed_with.values()]
        tasks = self._ledger.unacknowledged_tasks()
        return self._call("SUBSCRIBE", {"unacknowledged_tasks": tasks, "unacknowledged_updates": updates})

    def on_event(self, connection: int, event: Dict[str, Any]) -> None:
        action = self._actions.get(event["type"])
        if action is None:
            log(f"ignored an event of unknown type {event['type']!r:.80}")
            return
        try:
            action(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            log(f"ignored a {event['type']} event that cannot be read: {type(error).__name__}: {error}")

    def on_disconnected(self, connection: int, reason: str) -> None:
        if not self._connected:
            if reason != self._last_refusal:
                log(f"cannot subscribe: {reason}")
            self._last_refusal = reason
            return
        self._connected = False
        log(f"disconnected from the agent: {reason}")
        if not self._settings.checkpoint:
            # If the framework does not checkpoint, a restarted agent does not know this executor.
            self.shutdown("the agent is gone and the framework does not checkpoint", _AGENT_GONE_EXIT)
            return
        self._agent_deadline = self._loop.later(
            self._settings.recovery_timeout_s,
            lambda: self.shutdown("the agent did not come back in time", _AGENT_GONE_EXIT),
        )

    def on_sent(self, uuid: str, refusal: str) -> None:
        if refusal and refusal != self._last_refusal:
            log(f"the agent did not accept an update: {refusal}")
        self._last_refusal = refusal
        if self._ledger.waiting(uuid):
            self._resend_later(uuid, _RESEND_REFUSED_S if refusal else _RESEND_UNACKNOWLEDGED_S)

    def _on_subscribed(self, event: Dict[str, Any]) -> None:
        self._connected = True
        self._last_refusal = ""
        if self._agent_deadline is not None:
            self._agent_deadline.cancel()
        if self._app is None and not self._app_error:
            self._read_app(event["subscribed"]["executor_info"].get("data"))
        for uuid in self._ledger.unacknowledged_updates():
            if uuid in self._subscribed_with:
                self._resend_later(uuid, _RESEND_UNACKNOWLEDGED_S)
            else:
                self._resend(uuid)
        self._check_idle()

    def _read_app(self, data: Optional[str]) -> None:
        try:
            self._app = read_app(data)
        except PayloadError as error:
            self._app_error = f"ExecutorInfo.data: {error}"
            log(self._app_error)

    def _on_acknowledged(self, event: Dict[str, Any]) -> None:
        acknowledged = event["acknowledged"]
        uuid = acknowledged["uuid"]
        self._ledger.acknowledge(acknowledged["task_id"]["value"], uuid)
        if uuid in self._resends:
            self._resends.pop(uuid).cancel()
        self._check_idle()

    def _call(self, kind: str, body: Mapping[str, Any]) -> Call:
        ids = {
            "executor_id": {"value": self._settings.executor_id},
            "framework_id": {"value": self._settings.framework_id},
        }
        return {"type": kind, **ids, kind.lower(): body}

    def _update(self, task_id: str, state: str, message: str = "", data: bytes = b"") -> None:
        uuid = encode_data(uuids.uuid4().bytes)
        status: Dict[str, Any] = {
            "task_id": {"value": task_id},
            "executor_id": {"value": self._settings.executor_id},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "uuid": uuid,
            "timestamp": time.time(),
        }
        if message:
            # A message can contain text that is not Unicode, such as a file name. The agent could not read such text.
            status["message"] = message.encode("utf-8", "replace").decode()
        if data:
            status["data"] = encode_data(data)
        if self._ledger.record(task_id, uuid, status) and self._connected:
            self._resend(uuid)

    def _resend(self, uuid: str) -> None:
        status = self._ledger.unacknowledged(uuid)
        if status is not None and self._connected:
            # The id of a task begins with the key of its job, or with `keeper=APP` if it is a placeholder task.
            job = status["task_id"]["value"].partition("@")[0]
            self._link.send(job, uuid, self._call("UPDATE", {"status": status}))

    def _resend_later(self, uuid: str, seconds: float) -> None:
        if uuid in self._resends:
            self._resends[uuid].cancel()
        self._resends[uuid] = self._loop.later(seconds, lambda: self._resend(uuid))

    # Tasks

    def _on_launch(self, event: Dict[str, Any]) -> None:
        self._launch(event["launch"]["task"])

    def _on_launch_group(self, event: Dict[str, Any]) -> None:
        for info in event["launch_group"]["task_group"]["tasks"]:
            if self._ledger.launch(info["task_id"]["value"], info):
                self._end(
                    info["task_id"]["value"], _error("this executor does not run task groups: launch single tasks")
                )

    def _launch(self, info: Dict[str, Any]) -> None:
        task_id = info["task_id"]["value"]
        if not self._ledger.launch(task_id, info):
            log(f"ignored a second LAUNCH of {task_id}")
            return
        self._had_work = True
        if self._idle is not None:
            self._idle.cancel()
        if self._leaving is not None:
            self._end(task_id, failed(Cause.EXECUTOR_SHUTDOWN, "the executor is shutting down"))
            return
        if self._app_error:
            self._end(task_id, _error(self._app_error))
            return
        self._isolate(task_id, lambda: self._accept(task_id, info))

    def _isolate(self, task_id: str, begin: Callable[[], None]) -> None:
        """Call `begin`, which begins a task. If `begin` raises an exception, only this task ends."""
        try:
            begin()
        except PayloadError as error:
            self._end(task_id, _error(f"TaskInfo.data: {error}"))
        except Exception as error:
            log(f"cannot start {task_id}:\n" + traceback.format_exc())
            self._end(task_id, failed(Cause.EXECUTOR_ERROR, describe(error)))

    def _accept(self, task_id: str, info: Mapping[str, Any]) -> None:
        payload = read_task(info.get("data"))
        task = _Task(task_id, payload, _grace(info, payload.kill_grace_s))
        self._tasks[task_id] = task
        if payload.secrets:
            self._obtain_secrets(task)
        if task_id in self._tasks:
            self._prepare_then_begin(task)

    def _obtain_secrets(self, task: _Task) -> None:
        """Fetch the secrets of a task now, because its token is valid for a short time."""
        if task.payload.access is None:
            problem = "the scheduler had no source of secrets when it launched the task: see [secrets] in its settings"
            self._end(task.task_id, failed(Cause.SECRETS, f"no secrets: {problem}"))
            return
        try:
            threading.Thread(target=self._fetch_secrets, args=(task,), name="secrets", daemon=True).start()
        except RuntimeError as error:
            self._end(task.task_id, failed(Cause.WORKER_LOST, f"there is no room for a thread: {error}"))

    def _fetch_secrets(self, task: _Task) -> None:
        """Ask the scheduler. This runs in its own thread, so that a slow scheduler delays no other task."""
        assert task.payload.access is not None
        problem, values = "", {}
        try:
            values = fetch(task.payload.access)
        except SecretsError as error:
            problem = str(error)
        except Exception as error:
            # The text of the error is left out, because it may contain the answer, and so a secret.
            problem = f"cannot ask the scheduler for them: {type(error).__name__}"
        self._loop.post(self._on_secrets, task, values, problem)

    def _on_secrets(self, task: _Task, values: Mapping[str, bytes], problem: str) -> None:
        if task.task_id not in self._tasks:
            return
        try:
            if problem:
                raise SecretsError(problem)
            task.secrets = self._secret_files.hand_over(task.task_id, task.payload.secrets, values)
        except (SecretsError, OSError) as error:
            self._end(task.task_id, failed(Cause.SECRETS, f"no secrets: {error}"))
            return
        self._isolate(task.task_id, functools.partial(self._begin_if_ready, task))

    def _prepare_then_begin(self, task: _Task) -> None:
        if task.payload.resident:
            task.resident = self._resident(task.payload)
        if self._runners:
            self._begin_if_ready(task)
        elif not self._preparing:
            self._preparing = True
            threading.Thread(target=self._unpack, name="unpack", daemon=True).start()

    def _resident(self, payload: TaskPayload) -> Resident:
        assert self._app is not None
        try:
            return resident(payload.timer or {}, payload.misfire, self._app.sampling_count, _now_ms())
        except Exception as error:
            raise PayloadError(f"'timer' in job is not a table of firings: {type(error).__name__}: {error}") from error

    def _unpack(self) -> None:
        """Unpack the app. This runs in its own thread, so that a large package delays no kills or acknowledgements."""
        assert self._app is not None
        refusal = ""
        libraries: List[str] = []
        try:
            if self._app.package is None:
                os.makedirs(self._directory, exist_ok=True)
            else:
                archive = os.path.join(self._settings.sandbox, self._app.package.file)
                package.verify(archive, self._app.package.sha256)
                package.unpack(archive, self._directory, self._app.limits, wheel=archive.endswith(".whl"))
                wheels = os.path.join(self._directory, package.WHEELS)
                if package.unpack_wheels(wheels, self._libraries, self._app.limits):
                    libraries = [self._libraries]
        except package.PackageError as error:
            refusal = f"the app package cannot be used: {error}"
        except Exception as error:
            refusal = f"the app package cannot be used: {type(error).__name__}: {error}"
        self._loop.post(self._on_unpacked, refusal, libraries)

    def _on_unpacked(self, refusal: str, libraries: List[str]) -> None:
        assert self._app is not None
        self._preparing = False
        waiting = list(self._tasks.values())
        if refusal:
            log(refusal)
            for task in waiting:
                self._end(task.task_id, failed(Cause.PACKAGE, refusal))
            return
        env = {name: value for name, value in os.environ.items() if name != "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"}
        common = (self._loop, self._children, self._pump, self._folders)
        of_app = self._app.environment
        self._workers = Workers(*common, self._app, self._directory, libraries, {**env, **of_app})
        scripts = Scripts(*common, self._directory, env, of_app, libraries)
        self._runners = {True: scripts, False: self._workers}
        for task in waiting:
            self._isolate(task.task_id, functools.partial(self._begin_if_ready, task))

    def _begin_if_ready(self, task: _Task) -> None:
        """Begin a task as soon as the app is unpacked and the task has its secrets."""
        if self._runners and (task.secrets is not None or not task.payload.secrets):
            self._begin(task)

    def _begin(self, task: _Task) -> None:
        """Execute a TRANSIENT task, load a DAEMON task, or keep a worker warm for a placeholder task."""
        assert self._app is not None
        if task.payload.placeholder is not None:
            assert self._workers is not None
            self._workers.keep_warm(task.task_id, task.payload.placeholder, functools.partial(self._on_warm, task))
            return
        if task.payload.http is None or task.payload.step is not None:
            try:
                self._files.write(task.task_id, self._app.files, task.payload.files)
            except (OSError, ValueError) as error:
                self._end(task.task_id, failed(Cause.WORKER_LOST, f"cannot write the files of the job: {error}"))
                return
        number = LOADING if task.resident is not None else 1
        self._start_execution(task, number, task.payload.facts())

    def _on_warm(self, task: _Task, problem: str) -> None:
        if task.task_id not in self._tasks:
            return
        if problem:
            self._end(task.task_id, failed(Cause.WORKER_LOST, problem))
        else:
            self._update(task.task_id, "TASK_RUNNING")

    def _start_execution(self, task: _Task, number: int, facts: Dict[str, Any]) -> None:
        task.execution = Execution(
            task.task_id,
            number,
            task.payload.for_execution(facts),
            facts,
            on_started=self._on_started,
            on_ended=self._on_ended,
            on_waiting=self._on_waiting,
            on_progress=self._on_progress,
            secrets=task.secrets or {},
            secret_files=self._secret_files.directory(task.task_id),
            files=self._files.folder(task.task_id),
        )
        task.timed_out = False
        self._runner(task).start(task.execution)

    def _runner(self, task: _Task) -> Runner:
        return self._runners[task.payload.scripted]

    def _on_waiting(self, execution: Execution) -> None:
        task = self._tasks.get(execution.task_id)
        if task is not None and task.resident is None and self._app is not None:
            self._update(
                task.task_id, "TASK_STARTING", f"waits: {self._app.max_parallel} other shards run here (maxParallel)"
            )

    def _on_started(self, execution: Execution) -> None:
        task = self._tasks.get(execution.task_id)
        if task is None:
            return
        timeout_s = execution.payload.timeout_s
        if timeout_s is not None:
            task.time_limit = self._loop.later(timeout_s, functools.partial(self._time_out, task, execution))
        if task.resident is None:
            self._update(task.task_id, "TASK_RUNNING")

    def _on_progress(self, execution: Execution, done: float, total: Optional[float]) -> None:
        task = self._tasks.get(execution.task_id)
        now = time.monotonic()
        if task is not None and now - task.progress_sent_at >= _PROGRESS_EVERY_S:
            task.progress_sent_at = now
            text = f"PROGRESS {done:.12g}" + ("" if total is None else f" of {total:.12g}")
            self._report(execution.task_id, text, {"run": execution.number, "done": done, "total": total})

    def _time_out(self, task: _Task, execution: Execution) -> None:
        if task.execution is execution and task.killing is None:
            task.timed_out = True
            self._runner(task).kill(execution, task.grace_s)

    def _on_ended(self, execution: Execution, outcome: Outcome) -> None:
        self._executions += 1
        if self._executions % _TRIM_EVERY == 0:
            give_back_memory()
        task = self._tasks.get(execution.task_id)
        if task is None:
            return
        task.execution = None
        if task.time_limit is not None:
            task.time_limit.cancel()
        if task.timed_out and task.killing is None and outcome.state is State.KILLED:
            text = f"the execution exceeded timeoutSeconds ({execution.payload.timeout_s:.12g}): {outcome.message}"
            outcome = failed(Cause.TIMEOUT, text, outcome.exit_code)
        if task.killing is None and outcome.state is State.FAILED:
            outcome = self._handle_failure(execution, outcome)
        if task.killing is not None and outcome.state is State.KILLED:
            self._end(task.task_id, killed(task.killing, outcome.message, outcome.exit_code))
        elif task.resident is None:
            self._end(task.task_id, outcome)
        else:
            self._resident_execution_ended(task, task.resident, execution, outcome)

    def _handle_failure(self, execution: Execution, outcome: Outcome) -> Outcome:
        """Apply the error handler `webhook` or `ignore`. The worker applies a handler of the app."""
        if execution.payload.webhook:
            self._webhooks.report(execution.payload.webhook, _failure_report(execution, outcome))
        if execution.payload.ignores_errors and outcome.cause in _IGNORABLE:
            return Outcome(State.FINISHED, message=cut(f"ignored by the job's error handler: {outcome.message}"))
        return outcome

    def _on_kill(self, event: Dict[str, Any]) -> None:
        kill = event["kill"]
        task = self._tasks.get(kill["task_id"]["value"])
        if task is None:
            log(f"ignored a KILL of {kill['task_id']['value']}: no such task runs here")
            return
        self._kill(task, Cause.KILLED, _grace(kill, task.grace_s))

    def _kill(self, task: _Task, cause: Cause, grace_s: float) -> None:
        task.killing = task.killing or cause
        if task.execution is None:
            self._end(task.task_id, killed(task.killing))
        else:
            self._runner(task).kill(task.execution, grace_s)

    def _end(self, task_id: str, outcome: Outcome) -> None:
        task = self._tasks.pop(task_id, None)
        self._update(task_id, outcome.state.value, outcome.message, outcome.data())
        self._folders.ended(task_id)
        self._secret_files.remove(task_id)
        self._files.remove(task_id)
        if task is not None:
            if task.timer is not None:
                task.timer.cancel()
            if task.payload.resident and self._runners:
                self._runner(task).forget(task_id)
            if self._workers is not None:
                self._workers.let_cool(task_id)
        self._check_idle()

    # Resident tasks

    def _resident_execution_ended(self, task: _Task, plan: Resident, execution: Execution, outcome: Outcome) -> None:
        loading = execution.number == LOADING
        if not loading:
            self._report_end(task, plan, outcome)
            plan.end(_now_ms())
        if task.killing is not None:
            self._end(task.task_id, killed(task.killing))
        elif outcome.cause is Cause.WORKER_LOST or (loading and outcome.state is not State.FINISHED):
            self._end(task.task_id, outcome)
        else:
            if loading:
                self._update(task.task_id, "TASK_RUNNING")
            self._await_firing(task, plan)

    def _await_firing(self, task: _Task, plan: Resident) -> None:
        if plan.due is None:
            self._end(task.task_id, Outcome(State.FINISHED, message="the job's cron has no further fire time"))
            return
        wait_s = plan.wait_ms(_now_ms()) / 1000
        if wait_s > 0:
            task.timer = self._loop.later(min(wait_s, _MAX_WAIT_S), lambda: self._await_firing(task, plan))
        elif plan.begin(_now_ms()):
            self._start_firing(task, plan)
        else:
            self._await_firing(task, plan)

    def _start_firing(self, task: _Task, plan: Resident) -> None:
        task.started_at = _now_ms()
        if plan.reported:
            self._report(task.task_id, "BEGIN", {"run": plan.executions, "startedAt": task.started_at})
        self._start_execution(task, plan.executions, task.payload.facts(plan.fire_time))

    def _report_end(self, task: _Task, plan: Resident, outcome: Outcome) -> None:
        """Report the end of an execution. A success is reported only if the beginning was reported, too."""
        success = outcome.state is State.FINISHED
        if success and not plan.reported:
            return
        facts: Dict[str, Any] = {
            "run": plan.executions,
            "startedAt": task.started_at,
            "endedAt": _now_ms(),
            "success": success,
        }
        if not success:
            facts.update(error=outcome.message, cause=outcome.cause.value if outcome.cause else None)
        self._report(task.task_id, "COMPLETE", facts)

    def _report(self, task_id: str, message: str, facts: Mapping[str, Any]) -> None:
        self._update(
            task_id, "TASK_RUNNING", message, json.dumps({"schema": 1, **facts}, separators=(",", ":")).encode()
        )

    # Shutdown

    def shutdown(self, reason: str, exit_code: int) -> None:
        """End all tasks within the grace period that the agent allows, deliver their last updates, then exit."""
        if self._leaving is not None:
            return
        log(f"shutting down: {reason}")
        grace_s = self._settings.shutdown_grace_s
        self._leave_when_done(exit_code)
        for task in list(self._tasks.values()):
            self._kill(task, Cause.EXECUTOR_SHUTDOWN, min(task.grace_s, grace_s * 0.5))
        # The agent kills the whole container at the end of the grace period. The executor exits before this end.
        self._loop.later(grace_s * 0.9, lambda: self._loop.stop(exit_code))
        self._check_idle()

    def _leave_when_done(self, exit_code: int) -> None:
        def leave() -> None:
            if self._workers is None:
                self._stop_when_reported(exit_code, _LAST_REPORTS_S)
            else:
                self._workers.stop(_LEAVE_WITHIN_S, lambda: self._stop_when_reported(exit_code, _LAST_REPORTS_S))

        self._leaving = leave

    def _stop_when_reported(self, exit_code: int, remaining_s: float) -> None:
        if remaining_s > 0 and self._webhooks.busy:
            self._loop.later(_RECHECK_S, lambda: self._stop_when_reported(exit_code, remaining_s - _RECHECK_S))
        else:
            self._loop.stop(exit_code)

    def _check_idle(self) -> None:
        if not self._ledger.empty:
            return
        if self._leaving is not None:
            self._leaving()
            return
        if self._idle is not None:
            self._idle.cancel()
        idle_s = self._app.idle_timeout_s if self._app is not None else DEFAULT_KILL_GRACE_S
        if idle_s is not None:
            wait_s = idle_s if self._had_work else max(idle_s, _FIRST_TASK_WITHIN_S)
            self._idle = self._loop.later(wait_s, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        if self._ledger.empty and self._leaving is None:
            self._leave_when_done(0)
            self._check_idle()


def _failure_report(execution: Execution, outcome: Outcome) -> Dict[str, Any]:
    context = execution.payload.context
    return {
        **{name: context[name] for name in ("jobName", "taskId", "shardingTotalCount", "shardingItem")},
        **{name: execution.facts[name] for name in ("runId", "attempt", "fence", "fireTime")},
        "team": execution.payload.team,
        "step": execution.payload.step,
        "cause": outcome.cause.value if outcome.cause else None,
        "exitCode": outcome.exit_code,
        "message": outcome.message,
    }


def _error(message: str) -> Outcome:
    return Outcome(State.ERROR, Cause.PAYLOAD, cut(message))


def _grace(holder: Mapping[str, Any], default_s: float) -> float:
    """The grace period in seconds, from the kill_policy of a TaskInfo or a KILL; `default_s` if it names none."""
    period = (holder.get("kill_policy") or {}).get("grace_period") or {}
    nanoseconds = period.get("nanoseconds")
    return max(0.0, float(nanoseconds) / 1e9) if nanoseconds is not None else default_s


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def serve(settings: Settings, family: str, warden: int) -> int:
    """Run the executor and return its exit code. Call this in the process's main thread.

    `family`: the beginning of the marks of all its processes. `warden`: the pid of its warden (warden.py).
    """
    share_one_heap()
    open_files = take_open_files()
    become_subreaper()
    loop = Loop()
    executor = Executor(settings, loop, Children(loop.post, family, warden, open_files))
    names: List[signal.Signals] = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    for number in names:
        signal.signal(number, lambda *_: loop.post(executor.shutdown, "a signal asked for the shutdown", 0))
    executor.start()
    try:
        return loop.run()
    finally:
        executor.end_processes()
