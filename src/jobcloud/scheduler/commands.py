"""What operators ask for: apps and jobs registered, changed, removed, disabled, triggered; tasks ended."""

from __future__ import annotations

from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import (
    ForgetTask,
    KillTask,
    Kind,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Retry,
    SetAppEnabled,
    SetJobEnabled,
    Topic,
    Trigger,
)
from jobcloud.model import Cause, Firing, Job, JobKind, JobState, Shard, ShardState, TaskState, changed
from jobcloud.scheduler import launch, retry, revisions, status
from jobcloud.scheduler.cycle import Cycle
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.rollouts import Rollouts
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.timetable import Timetable
from jobcloud.scheduler.warm_executors import WarmExecutors


class Commands:
    """Each method carries out one command, or raises a Refused with nothing changed."""

    def __init__(
        self,
        state: State,
        firings: Firings,
        timetable: Timetable,
        reconciliation: Reconciliation,
        executors: Executors,
        tasks: Tasks,
        rounds: Cycle,
        placeholders: WarmExecutors,
        rollouts: Rollouts,
    ) -> None:
        self._state = state
        self._warm_executors = placeholders
        self._firings = firings
        self._timetable = timetable
        self._reconciliation = reconciliation
        self._executors = executors
        self._tasks = tasks
        self._cycle = rounds
        self._rollouts = rollouts

    def put_app(self, event: PutApp) -> None:
        app, known = event.app, self._state.apps.get(event.app.name)
        if known is not None and not event.replace:
            raise Conflict(f"app {app.name} exists", field="appName", fix="update it, or choose another name")
        if known is None and event.replace:
            raise NotFound(f"there is no app {app.name}", field="appName", fix="register it first")
        if app == known:
            return
        plan = launch.plan_executor(app, self._state.policy.artifacts)
        # Where its record was lost, what runs may be of any version.
        renewed = known is None or plan.id != self._state.plan_of(app.name).id
        self._state.put(Kind.APP, app.name, app)
        self._state.plans[app.name] = plan
        self._warm_executors.look = True
        for job in self._state.jobs_of(app.name):
            self._state.faults.pop(job.name, None)
            if renewed and job.kind is JobKind.DAEMON:
                self._update(job, job, event.at)
        self._state.publish(event.at, Topic.CONFIG, f"app {app.name} is {'updated' if known else 'registered'}")
        self._state.request_cycle()

    def remove_app(self, event: RemoveApp) -> None:
        self._state.app(event.name)
        jobs = self._state.jobs_of(event.name)
        if jobs and not event.jobs:
            raise Conflict(
                f"app {event.name} has {len(jobs)} jobs", field="appName", fix="remove them first, or ask for both"
            )
        self._state.delete(Kind.APP, event.name)
        self._state.plans.pop(event.name, None)
        self._state.set_app_disabled(event.name, disabled=False)
        self._warm_executors.look = True
        for job in jobs:
            self._remove_job(job, event.at)
        for executor in [e for e in self._state.executors.values() if e.app == event.name]:
            self._executors.drop_if_deserted(executor)
        self._state.publish(event.at, Topic.CONFIG, f"app {event.name} is removed")

    def set_app_enabled(self, event: SetAppEnabled) -> None:
        self._state.app(event.name)
        if event.enabled == (event.name not in self._state.disabled_apps):
            return
        self._state.set_app_disabled(event.name, disabled=not event.enabled)
        self._warm_executors.look = True
        self._state.request_cycle()
        for job in self._state.jobs_of(event.name):
            self._apply_enabled(job, event.at)
        self._state.publish(event.at, Topic.CONFIG, f"app {event.name} is {'enabled' if event.enabled else 'disabled'}")

    def put_job(self, event: PutJob) -> None:
        job, known = event.job, self._state.jobs.get(event.job.name)
        if known is not None and not event.replace:
            raise Conflict(f"job {job.name} exists", field="jobName", fix="update it, or choose another name")
        if known is None and event.replace:
            raise NotFound(f"there is no job {job.name}", field="jobName", fix="register it first")
        if job.app not in self._state.apps:
            raise NotFound(f"there is no app {job.app}", field="appName", fix="register the app first")
        if job == known:
            return
        if known is not None and self._timetable.due.get(job.name, event.at + 1) <= event.at:
            self._state.isolated(
                job.name, event.at, self._timetable.fire, known, self._timetable.due[job.name], event.at
            )
        self._state.put(Kind.JOB, job.name, job)
        self._state.faults.pop(job.name, None)
        self._tasks.look_again()
        self._warm_executors.look |= bool(self._state.apps[job.app].executors)
        if known is None:
            # Runs of a removed job of this name may still be ending: they are of an older generation.
            ending = max((firing.generation for firing in self._state.queue.unfinished(job.name)), default=0)
            state = JobState(event.at, ending + 1, disabled=not event.enabled)
            self._state.put(Kind.JOB_STATE, job.name, state)
            self._firings.ensure_daemon(job, event.at)
        elif not revisions.same_work(known, job):
            self._update(known, job, event.at)
        self._state.queue.reconsider(job.name)
        # Nothing was due before now under the new times, for this leader or a later one.
        considered = max(event.at, self._state.job_states[job.name].considered_ms)
        self._state.change_job_state(job.name, considered_ms=considered)
        self._timetable.schedule(job, considered)
        self._state.publish(
            event.at, Topic.CONFIG, f"job {job.name} is {'updated' if known else 'registered'}", job=job.name
        )

    def remove_job(self, event: RemoveJob) -> None:
        self._remove_job(self._state.job(event.name), event.at)

    def set_job_enabled(self, event: SetJobEnabled) -> None:
        job = self._state.job(event.name)
        if event.enabled == (not self._state.job_states[job.name].disabled):
            return
        self._state.change_job_state(job.name, disabled=not event.enabled)
        self._apply_enabled(job, event.at)
        self._state.publish(
            event.at, Topic.CONFIG, f"job {job.name} is {'enabled' if event.enabled else 'disabled'}", job=job.name
        )

    def trigger(self, event: Trigger) -> None:
        job = self._state.job(event.job)
        if job.kind is JobKind.DAEMON:
            raise Conflict(f"job {job.name} is resident: it cannot be triggered", field="jobName")
        if not self._state.enabled(job.name):
            raise Conflict(f"job {job.name} or its app is disabled", field="jobName", fix="enable it first")
        self._check_waiting(job.name, "jobName")
        self._timetable.enqueue(job, Cause.TRIGGER, event.at, event.at)

    def kill_task(self, event: KillTask) -> None:
        task = self._state.tasks.get(event.task_id)
        if task is None:
            raise NotFound(f"no task {event.task_id} is running", field="taskId", fix="`jobcloud tasks` lists them")
        self._tasks.kill(task, event.at)

    def retry(self, event: Retry) -> None:
        firing = self._state.firings.get(event.firing_id)
        if firing is None:
            raise NotFound(f"there is no run {event.firing_id}", field="runId", fix="`jobcloud runs` lists them")
        job = self._state.jobs.get(firing.job)
        shards = self._failed_shards(firing, event.item)
        if job is None or firing.cause is Cause.DAEMON:
            raise Conflict(f"{firing.id} starts again by itself, or its job is gone", field="runId", fix="nothing")
        if job.kind is JobKind.DAEMON:
            raise Conflict(
                f"job {job.name} is resident now", field="runId", fix="nothing: its shards come back by themselves"
            )
        if not self._state.enabled(job.name):
            raise Conflict(f"job {job.name} or its app is disabled", field="runId", fix="enable it first")
        if len(firing.work) != job.shard_count or firing.stepped != bool(job.firing_listener):
            raise Conflict(
                f"job {job.name} has other shards now than the run: {job.shard_count}, not {len(firing.work)}",
                field="runId", fix=f"`jobcloud job trigger {job.name}` makes a new run",
            )  # fmt: skip
        if not firing.ended_ms and not self._state.wanted(firing):
            raise Conflict(f"{firing.id} is being ended", field="runId", fix="wait until it has ended")
        if firing.stepped and firing.shards[-1].state is ShardState.ACTIVE:
            raise Conflict(f"the listener is being called after {firing.id}", field="runId", fix="wait for its end")
        self._check_waiting(job.name, "runId")
        changes = {item: retry.reset(shard) for item, shard in shards.items()}
        if firing.ended_ms:
            put_back = tuple(changes.get(item, shard) for item, shard in enumerate(firing.shards))
            generation = self._state.job_states[job.name].generation
            self._firings.reopen(changed(firing, generation=generation, shards=put_back, ended_ms=0))
        else:
            self._firings.put_shards(firing.id, changes, event.at)
            self._state.request_cycle()
        text = f"{len(changes)} shards are put back by an operator"
        self._state.publish(event.at, Topic.FIRED, text, job=job.name, firing_id=firing.id)

    def _failed_shards(self, firing: Firing, item: int | None) -> dict[int, Shard]:
        """What an operator may put back. Raises NotFound, Conflict."""
        if item is not None and not 0 <= item < len(firing.work):
            raise NotFound(f"{firing.id} has no shard {item}", field="item", fix=f"0 to {len(firing.work) - 1}")
        failed = {
            number: shard
            for number, shard in enumerate(firing.shards)
            if shard.state in _MAY_BE_PUT_BACK and item in (None, number)
        }
        if firing.stepped and failed:
            before, after = len(firing.shards) - 2, len(firing.shards) - 1
            if before in failed:  # what it kept from running
                failed |= {number: shard for number, shard in enumerate(firing.work) if not shard.attempt}
            if firing.shards[after].state.ended:  # it is called once more, after what is put back
                failed[after] = firing.shards[after]
        if not failed:
            what = f"shard {item}" if item is not None else "no shard"
            problem = (
                f"{what} of {firing.id} has not failed" if item is not None else f"{what} of {firing.id} has failed"
            )
            raise Conflict(problem, field="runId", fix="only what is DEAD, FAILED or KILLED can be put back")
        return failed

    def _check_waiting(self, job: str, field: str) -> None:
        waiting = len(self._state.queue.unfinished(job))
        if waiting >= self._state.policy.max_waiting:
            raise Conflict(f"{waiting} firings of job {job} wait already", field=field, fix="let them run first")

    def forget_task(self, event: ForgetTask) -> None:
        task = self._state.tasks.get(event.task_id)
        if task is None:
            raise NotFound(f"no task {event.task_id} is running", field="taskId", fix="`jobcloud tasks` lists them")
        agent = self._state.cluster.agents.get(task.agent_id)
        away = task.state is TaskState.UNREACHABLE or agent is None or agent.lost
        if not event.force and not away and task.id not in self._reconciliation.pending:
            raise Conflict(
                f"Mesos says that {task.id} is {task.state}", field="taskId",
                fix="end it with `jobcloud kill`, or force it if you know better",
            )  # fmt: skip
        lost = status.TABLE[task.state, "TASK_LOST"]
        assert isinstance(lost, status.End)
        self._tasks.end(task, lost, "an operator declared it dead", event.at)

    def _remove_job(self, job: Job, at: int) -> None:
        # First of all: what a resident job loses it would otherwise start again.
        self._state.delete(Kind.JOB, job.name)
        self._state.delete(Kind.JOB_STATE, job.name)
        self._tasks.cancel(job.name, at, "the job was removed")
        for noted in (self._timetable.due, self._state.faults, self._cycle.refusals):
            noted.pop(job.name, None)
        self._firings.prune_history(job.name)
        self._state.publish(at, Topic.CONFIG, f"job {job.name} is removed", job=job.name)

    def _apply_enabled(self, job: Job, at: int) -> None:
        """After a change of a disabled mark. What fell due meanwhile is not made up for."""
        if self._state.enabled(job.name):
            # Never backwards, should the clock have been set back: what has fired is not due again.
            considered = max(at, self._state.job_states[job.name].considered_ms)
            self._state.change_job_state(job.name, considered_ms=considered)
            self._timetable.schedule(job, considered)
            self._firings.ensure_daemon(job, at)
            self._rollouts.look(job, at)
        else:
            self._timetable.due.pop(job.name, None)
            self._tasks.cancel(job.name, at, "the job or its app was disabled")

    def _update(self, known: Job, job: Job, at: int) -> None:
        """The job's work has changed, in itself or with its app."""
        # It may have moved to an app that is disabled.
        if not self._state.enabled(job.name) or not revisions.may_roll(known, job):
            self._renew(job, at)
            return
        if (firing := self._firings.resident(job.name)) is not None:
            # What failed as it was before may well run as it is now.
            waiting = {i: shard for i, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
            if changes := {i: changed(shard, not_before_ms=0, failures=0) for i, shard in waiting.items()}:
                self._firings.put_shards(firing.id, changes, at)
                self._state.request_cycle()
        self._firings.ensure_daemon(job, at)
        self._rollouts.look(job, at)

    def _renew(self, job: Job, at: int) -> None:
        """What was made from the old configuration ends before anything new starts."""
        self._state.change_job_state(job.name, generation=self._state.job_states[job.name].generation + 1)
        self._tasks.cancel(job.name, at, "the job or its app was updated")
        self._firings.ensure_daemon(job, at)


_MAY_BE_PUT_BACK = frozenset({ShardState.DEAD, ShardState.FAILED, ShardState.KILLED})
