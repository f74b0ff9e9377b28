"""The commands of operators: changes of apps and jobs, triggers, retries of runs, kills of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from jobcloud.config import App, Job, JobKind
from jobcloud.errors import ConfigError, Conflict, NotFound, Outdated
from jobcloud.messages import (
    Apply,
    CancelRun,
    ConfigTraced,
    ForgetTask,
    KillTask,
    Kind,
    PutApp,
    PutCalendar,
    PutJob,
    PutPool,
    PutWorkflow,
    RemoveApp,
    RemoveJob,
    Retry,
    RetryWorkflowRun,
    SetAppEnabled,
    SetJobEnabled,
    SetPaused,
    Topic,
    Trigger,
)
from jobcloud.model import (
    NO_OUTCOME,
    Cause,
    Firing,
    JobState,
    Pause,
    Shard,
    ShardState,
    Step,
    Task,
    TaskName,
    changed,
    pause_key,
)
from jobcloud.scheduler import launch, recovery, retry, revisions
from jobcloud.scheduler.app_versions import AppVersions
from jobcloud.scheduler.calendars import Calendars
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.gangs import check_parallel
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.pools import Pools
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.refusals import job_off, no_app, no_job, no_shard
from jobcloud.scheduler.rollouts import Rollouts
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks, lost
from jobcloud.scheduler.timetable import AHEAD_MS, REVIVED_MS, Timetable
from jobcloud.scheduler.workflows import Workflows
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import (
    ENABLE,
    OTHER_KEY,
    REGISTER,
    REGISTER_APP,
    REPEAT_CHANGE,
    between,
    done_by,
    runs_waiting,
    shown_by,
)


class Commands(Part):
    """Each method that takes a command carries the command out, or raises Refused and changes nothing."""

    def __init__(
        self,
        state: State,
        hooks: Hooks,
        quotas: Quotas,
        pools: Pools,
        firings: Firings,
        timetable: Timetable,
        calendars: Calendars,
        tasks: Tasks,
        rollouts: Rollouts,
        versions: AppVersions,
        workflows: Workflows,
    ) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._quotas = quotas
        self._pools = pools
        self._firings = firings
        self._timetable = timetable
        self._calendars = calendars
        self._tasks = tasks
        self._rollouts = rollouts
        self._versions = versions
        self._workflows = workflows
        #: the number of the last trace of a configuration
        self._traced = 0

    def restore(self, at: int) -> None:
        """Apply the stored configuration as if each job had just been enabled with it."""
        for firing in [firing for firing in self._state.firings.values() if not firing.ended_ms]:
            state = self._state.job_states.get(firing.job)
            if state is None or firing.generation != state.generation:
                self._tasks.cancel_firing(firing, at, recovery.MESSAGE)
        for job in list(self._state.jobs.values()):
            considered = self._state.job_states[job.key].considered_ms
            self._state.isolated(job.key, at, self._timetable.schedule, job, considered)
            self._state.isolated(job.key, at, self._firings.ensure_resident, job, at)
            self._state.isolated(job.key, at, self._rollouts.roll_out, job, at)

    def clock_set_back(self, at: int) -> None:
        """Start resident jobs again whose cron seemed to be over while the clock was ahead."""
        for job in list(self._state.jobs.values()):
            self._state.isolated(job.key, at, self._firings.ensure_resident, job, at)

    # ------------------------------------------------------------------------------------------------- apps

    def put_app(self, event: PutApp) -> None:
        app, known = event.app, self._state.apps.get(event.app.key)
        if known is not None and not event.replace:
            raise _exists("app", app.key)
        if known is None and event.replace:
            raise NotFound(no_app(app.key), field="appName", fix=REGISTER)
        _check_revision(known, event.expected)
        if app == known:
            return
        plan = self._plan(app)
        # If the app's record was lost, the running tasks may be of any version.
        renewed = known is None or plan.id != self._state.plan_of(app.key).id or app.constraints != known.constraints
        self._state.put(Kind.APP, app.key, app)
        self._versions.add(app, known, event.at, event.author)
        self._state.plans[app.key] = plan
        for hook in self._hooks.app_changed:
            hook(app.key)
        for job in self._state.jobs_of(app.key):
            self._state.faults.pop(job.key, None)
            if renewed and job.kind is JobKind.DAEMON:
                self._apply_update(job, job, event.at)
        self._state.publish(
            event.at, Topic.CONFIG, f"app {app.key} is {'updated' if known else 'registered'}", app=app.key
        )
        self._trace(app, event.at, event.author)
        self._state.request_cycle()

    def _plan(self, app: App) -> launch.ExecutorPlan:
        """The plan of the app's executor. Raises ConfigError if the description of the executor is too long."""
        plan = launch.plan_executor(app, self._state.policy.artifacts)
        if len(plan.spec) > launch.MAX_SPEC_BYTES:
            size, most = len(plan.spec), launch.MAX_SPEC_BYTES
            text = f"makes the description of the app's executor {size} bytes long; it may have at most {most}"
            fix = Told("put the script and the files into the package", "script_in_package")
            raise ConfigError(Told(text, "long_description", size=size, most=most), field="bootstrapScript", fix=fix)
        return plan

    def remove_app(self, event: RemoveApp) -> None:
        app = self._state.app(event.app)
        _check_revision(app, event.expected)
        jobs = self._state.jobs_of(event.app)
        registered = sum(not job.ad_hoc for job in jobs)
        running = sum(bool(job.ad_hoc and self._state.queue.unfinished(job.key)) for job in jobs)
        if registered and not event.jobs:
            problem = Told(f"app {event.app} has {registered} jobs", "app_has_jobs", app=event.app, jobs=registered)
            raise Conflict(problem, field="appName", fix=Told("remove them first, or ask for both", "remove_jobs"))
        if running and not event.jobs:
            text = f"{running} ad-hoc runs of app {event.app} have not ended"
            problem = Told(text, "ad_hoc_waiting", app=event.app, runs=running)
            fix = Told("cancel them first, or remove the app with its jobs", "cancel_runs")
            raise Conflict(problem, field="appName", fix=fix)
        for job in jobs:
            self._workflows.check_unnamed(job.key)
        self._state.delete(Kind.APP, event.app)
        self._versions.forget(event.app)
        self._state.plans.pop(event.app, None)
        self._state.set_app_disabled(event.app, disabled=False)
        self._forget_pause(pause_key(app=event.app))
        for job in jobs:
            self._remove_job(job, event.at, event.author)
        for hook in self._hooks.app_changed:
            hook(event.app)
        self._state.publish(event.at, Topic.CONFIG, f"app {event.app} is removed", app=event.app)
        self._trace(app, event.at, event.author, removed=True)

    def set_app_enabled(self, event: SetAppEnabled) -> None:
        self._state.app(event.app)
        if event.enabled == (event.app not in self._state.disabled_apps):
            return
        self._state.set_app_disabled(event.app, disabled=not event.enabled)
        for hook in self._hooks.app_changed:
            hook(event.app)
        self._state.request_cycle()
        for job in self._state.jobs_of(event.app):
            self._apply_enabled(job, event.at)
        self._state.publish(
            event.at, Topic.CONFIG, f"app {event.app} is {'enabled' if event.enabled else 'disabled'}", app=event.app
        )

    # ------------------------------------------------------------------------------------------------- apps and jobs

    def check_apply(self, event: Apply) -> None:
        """Raises Refused if `apply` would refuse the command."""
        for app in event.apps:
            if event.create and app.key in self._state.apps:
                raise _exists("app", app.key)
            self._plan(app)
        for job in event.jobs:
            if event.create and job.key in self._state.jobs:
                raise _exists("job", job.key)
        apps = self._state.apps.keys() | {app.key for app in event.apps}
        for job in event.jobs:
            if job.app_key not in apps:
                problem = Told(f"there is no app {job.app_key} for job {job.key}", "no_app", app=job.app_key)
                raise NotFound(problem, field="appName", fix=REGISTER_APP)
        pools, calendars = dict(event.pools), {one.key for one, _ in event.calendars}
        self._pools.check_number(pools.keys())
        self._calendars.check_number(calendars)
        changed_jobs = [job for job in event.jobs if job != self._state.jobs.get(job.key)]
        given = {app.key: app for app in event.apps}
        removed = [job.key for job in event.left_out(self._registered())] if event.prune else []
        self._workflows.check_all(event.workflows, {job.key: job for job in event.jobs}, removed)
        for job in changed_jobs:
            check_parallel(job, given.get(job.app_key) or self._state.apps[job.app_key])
            self._calendars.check(job, calendars)
            self._pools.check(job, pools)
        self._state.rules.check(event.jobs)
        self._check_jobs_quotas(event)

    def _check_jobs_quotas(self, event: Apply) -> None:
        """Raises Conflict if a team would have more jobs than its quota allows."""
        more = Counter(job.team for job in event.jobs if job.key not in self._state.jobs)
        if more and event.prune:
            more.subtract(job.team for job in event.left_out(self._registered()))
        for team, number in more.items():
            self._quotas.check_jobs(team, number)

    def _registered(self) -> list[Job]:
        return [job for job in self._state.jobs.values() if not job.ad_hoc]

    def apply(self, event: Apply) -> None:
        # After this check, nothing is refused. The check covers all refusals of `put_app` and `put_job`, except those
        # that the right value of `replace` excludes.
        self.check_apply(event)
        for key, pool in event.pools:
            self._pools.put(PutPool(event.at, key, pool))
        for calendar, days in event.calendars:
            self._calendars.put(PutCalendar(event.at, calendar, days))
        self._workflows.let_go(event.workflows)
        for job in event.left_out(self._registered()) if event.prune else ():
            self._remove_job(job, event.at, event.author)
        for app in event.apps:
            self.put_app(PutApp(event.at, app, app.key in self._state.apps, author=event.author))
        for job in event.jobs:
            self.put_job(PutJob(event.at, job, job.key in self._state.jobs, event.enabled, author=event.author))
        for workflow in event.workflows:
            self._workflows.put(PutWorkflow(event.at, workflow))

    # ------------------------------------------------------------------------------------------------- jobs

    def put_job(self, event: PutJob) -> None:
        job, known = event.job, self._state.jobs.get(event.job.key)
        if known is not None and not event.replace:
            raise _exists("job", job.key)
        if known is None and event.replace:
            raise NotFound(no_job(job.key), field="jobName", fix=REGISTER)
        if job.app_key not in self._state.apps:
            raise NotFound(no_app(job.app_key), field="appName", fix=REGISTER_APP)
        _check_revision(known, event.expected)
        if job == known:
            return
        self._state.rules.check([job])
        check_parallel(job, self._state.apps[job.app_key])
        self._pools.check(job)
        self._calendars.check(job)
        self._workflows.check_job(job)
        if known is None:
            self._quotas.check_jobs(job.team, 1)
        paused = known is not None and self._state.paused(known.key)
        if known is not None:
            self._timetable.fire_overdue(known, event.at)
        self._state.put(Kind.JOB, job.key, job)
        self._state.faults.pop(job.key, None)
        for hook in self._hooks.job_changed:
            hook(job)
        if known is None:
            # Firings of a removed job of this name may still be ending. The new job's generation is newer than theirs.
            ending = max((firing.generation for firing in self._state.queue.unfinished(job.key)), default=0)
            state = JobState(event.at, ending + 1, disabled=not event.enabled)
            self._state.put(Kind.JOB_STATE, job.key, state)
            self._firings.ensure_resident(job, event.at)
        elif not revisions.same_work(known, job):
            self._apply_update(known, job, event.at)
        self._state.queue.reconsider(job.key)
        if known is not None and _place(job) != _place(known):
            self._state.request_cycle()  # waiting shards may start now
        if known is None:
            self._timetable.go_on(job, event.at, ahead_ms=REVIVED_MS)
        else:
            self._timetable.changed(known, job, event.at, paused=paused)
        self._state.publish(
            event.at, Topic.CONFIG, f"job {job.key} is {'updated' if known else 'registered'}", job=job.key
        )
        self._trace(job, event.at, event.author)

    def remove_job(self, event: RemoveJob) -> None:
        job = self._state.job(event.job)
        _check_revision(job, event.expected)
        self._workflows.check_unnamed(job.key)
        self._remove_job(job, event.at, event.author)

    def set_job_enabled(self, event: SetJobEnabled) -> None:
        job = self._state.job(event.job)
        if event.enabled == (not self._state.job_states[job.key].disabled):
            if event.enabled and self._state.enabled(job.key) and self._timetable.silent_until(job.key, event.at):
                self._timetable.go_on(job, event.at, ahead_ms=AHEAD_MS)
                self._state.publish(event.at, Topic.CONFIG, f"job {job.key} fires from now on", job=job.key)
            return
        self._state.change_job_state(job.key, disabled=not event.enabled)
        self._apply_enabled(job, event.at)
        self._state.publish(
            event.at, Topic.CONFIG, f"job {job.key} is {'enabled' if event.enabled else 'disabled'}", job=job.key
        )

    def trigger(self, event: Trigger) -> None:
        job = self._state.job(event.job)
        if job.kind is JobKind.DAEMON:
            problem = Told(f"job {job.key} is resident: it cannot be triggered", "resident_trigger", job=job.key)
            raise Conflict(problem, field="jobName")
        key = event.terms.key
        if key and (known := self._firings.with_key(job.key, key)) is not None:
            if not known.terms.same(event.terms):
                problem = Told(f"{known.id} was triggered with this key and other values", "key_used", run=known.id)
                raise Conflict(problem, field="key", fix=OTHER_KEY)
            return
        if not self._state.enabled(job.key):
            raise Conflict(job_off(job.key), field="jobName", fix=ENABLE)
        _check_items(job, "shards", event.terms.items)
        _check_items(job, "shardingItemParameters", [item for item, _ in event.terms.item_parameters])
        self._check_waiting(job.key, "jobName")
        if self._quotas.limits_queue(job.team):
            self._quotas.check_queue(job.team, shards_of_run(job, event.terms), "jobName")
        self._timetable.enqueue(job, Cause.TRIGGER, event.at, event.at, event.terms)

    def _check_waiting(self, job: str, field: str, more: int = 1) -> None:
        waiting = len(self._state.queue.unfinished(job))
        if waiting + more > self._state.policy.max_waiting:
            raise Conflict(runs_waiting(waiting, job), field=field, fix=Told("let them end first", "let_end"))

    def _remove_job(self, job: Job, at: int, author: str) -> None:
        # The records are deleted first. Otherwise a resident job would start its cancelled shards again.
        self._state.delete_job(job.key)
        self._forget_pause(pause_key(job=job.key))
        self._tasks.cancel(job.key, at, "the job was removed" if not job.ad_hoc else "its app was removed")
        for hook in self._hooks.job_removed:
            hook(job.key)
        self._state.publish(at, Topic.CONFIG, f"job {job.key} is removed", job=job.key)
        if not job.ad_hoc:
            self._trace(job, at, author, removed=True)

    def _trace(self, record: App | Job, at: int, author: str, *, removed: bool = False) -> None:
        """Tell the history about a configuration, if the policy wants traces."""
        if self._state.policy.traced:
            self._traced += 1
            self._state.emit(ConfigTraced(at, record, self._traced, author, removed))

    def set_paused(self, event: SetPaused) -> None:
        """Pause or resume a job, an app or everything. Raises NotFound."""
        key = pause_key(job=event.job, app=event.app)
        what, jobs = "everything", list(self._state.jobs.values())
        if event.job:
            what, jobs = f"job {event.job}", [self._state.job(event.job)]
        elif event.app:
            self._state.app(event.app)
            what, jobs = f"app {event.app}", self._state.jobs_of(event.app)
        if event.paused == (key in self._state.pauses):
            return
        if event.paused:
            for job in jobs:
                self._timetable.fire_overdue(job, event.at)  # they were due before the pause
            self._state.put(Kind.PAUSE, key, Pause(event.at))
        else:
            self._state.delete(Kind.PAUSE, key)
        for job in jobs:
            self._timetable.schedule(job, self._state.job_states[job.key].considered_ms)
            if not event.paused:
                self._resumed(job, event.at)
                self._rollouts.roll_out(job, event.at)

        self._state.request_cycle()
        text = f"{what} is {'paused' if event.paused else 'resumed'}"
        self._state.publish(event.at, Topic.CONFIG, text, job=event.job, app=event.app)

    def _resumed(self, job: Job, at: int) -> None:
        for hook in self._hooks.job_resumed:
            hook(job, at)

    def _forget_pause(self, key: str) -> None:

        if key in self._state.pauses:
            self._state.delete(Kind.PAUSE, key)

    def _apply_enabled(self, job: Job, at: int) -> None:
        """Schedule or cancel a job, because the job or its app was enabled or disabled.

        There is no catch-up of fire times at which the job was disabled.
        """
        if self._state.enabled(job.key):
            if job.ad_hoc:
                return  # its run goes on
            self._timetable.go_on(job, at, ahead_ms=REVIVED_MS)
            self._firings.ensure_resident(job, at)
            self._resumed(job, at)
            self._rollouts.roll_out(job, at)
        else:
            self._timetable.unschedule(job.key)
            self._tasks.cancel(job.key, at, "the job or its app was disabled")

    def _apply_update(self, known: Job, job: Job, at: int) -> None:
        """Roll out or restart a job, because the work of the job or of its app has changed."""
        # The job may have moved to a disabled app.
        if not self._state.enabled(job.key) or not revisions.may_roll(known, job):
            self._restart(job, at)
            return
        if (firing := self._firings.resident(job.key)) is not None:
            # A shard that failed with the old configuration may succeed with the new one, so the shard starts at once.
            waiting = {i: shard for i, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
            if changes := {i: changed(shard, not_before_ms=0, failures=0) for i, shard in waiting.items()}:
                self._firings.put_shards(firing.id, changes, at)
                self._state.request_cycle()
        self._firings.ensure_resident(job, at)
        self._rollouts.roll_out(job, at)

    def _restart(self, job: Job, at: int) -> None:
        """Begin a new generation: all work of the old configuration ends before new work starts."""
        self._state.change_job_state(job.key, generation=self._state.job_states[job.key].generation + 1)
        self._tasks.cancel(job.key, at, "the job or its app was updated")
        self._firings.ensure_resident(job, at)

    # ------------------------------------------------------------------------------------------------- runs and tasks

    def retry(self, event: Retry) -> None:
        """Put the failed shards of a run back into the queue."""
        firing = self._firing(event.firing_id)
        shards = self._failed_shards(firing, event.item)
        job = self._check_retry(firing)
        self._check_waiting(job.key, "runId")
        self._quotas.check_queue(job.team, len(shards), "runId")
        changes = {item: retry.reset(shard) for item, shard in shards.items()}
        if firing.ended_ms:
            self._firings.reopen(firing, self._state.job_states[job.key].generation, changes, event.at)
            self._timetable.await_end(job.key)
        else:
            self._firings.put_shards(firing.id, changes, event.at)
            self._state.request_cycle()
        text = f"{len(changes)} shards are put back by an operator"
        self._state.publish(event.at, Topic.FIRED, text, job=job.key, firing_id=firing.id)

    def retry_workflow_run(self, event: RetryWorkflowRun) -> None:
        """Repeat the failed nodes of a workflow's run: their failed shards, or the whole node if it has none."""
        firings, names = self._workflows.failed_nodes(event.run)
        more, runs = Counter[str](), Counter(firing.job for firing in firings)
        for firing in firings:
            job = self._check_retry(firing)
            self._check_waiting(job.key, "run", runs[job.key])
            more[job.team] += len(self._failed_shards(firing, None))
        for team, shards in more.items():
            self._quotas.check_queue(team, shards, "run")
        for firing in firings:
            self.retry(Retry(event.at, firing.id))
        self._workflows.repeat(event.run, names, event.at)

    def _firing(self, firing_id: str) -> Firing:
        firing = self._state.firings.get(firing_id)
        if firing is None:
            problem = Told(f"there is no run {firing_id}", "no_run", run=firing_id)
            raise NotFound(problem, field="runId", fix=shown_by("jobcloud runs", "lists them"))
        return firing

    def cancel_run(self, event: CancelRun) -> None:
        """End a run. A shard that was asked to end is not repeated, however its attempt ends."""
        firing = self._firing(event.firing_id)
        if firing.ended_ms:
            problem = Told(f"{firing.id} has ended", "run_over", run=firing.id)
            raise Conflict(problem, field="runId", fix=shown_by("jobcloud runs --state ACTIVE", "lists others"))
        if firing.cause is Cause.DAEMON:
            text = f"job {firing.job} is resident: its run cannot be cancelled"
            problem = Told(text, "resident_cancel", job=firing.job)
            raise Conflict(problem, field="runId", fix=done_by(f"jobcloud job disable {firing.job}", "stops it"))
        text = "the run is cancelled by an operator"
        self._state.publish(event.at, Topic.FIRED, text, job=firing.job, firing_id=firing.id)
        self._tasks.cancel_firing(firing, event.at, "an operator cancelled the run")

    def _check_retry(self, firing: Firing) -> Job:
        """The job of a firing. Raises Conflict if shards of the firing cannot be put back now."""
        job = self._state.jobs.get(firing.job)
        if job is None:
            problem = Told(f"job {firing.job} was removed", "job_removed", job=firing.job)
            raise Conflict(problem, field="runId", fix=Told("register it again", "register_again"))
        new_run = done_by(f"jobcloud job trigger {job.key}", "makes a new run")
        if job.kind is JobKind.DAEMON:
            text = f"job {job.key} is resident: its shards start again by themselves"
            problem = Told(text, "resident_retry", job=job.key)
            raise Conflict(
                problem, field="runId", fix=shown_by(f"jobcloud explain {job.key}", "shows why a shard does not run")
            )
        if firing.cause is Cause.DAEMON:
            problem = Told(f"job {job.key} was resident in {firing.id}", "was_resident", job=job.key, run=firing.id)
            raise Conflict(problem, field="runId", fix=new_run)
        if not self._state.enabled(job.key):
            raise Conflict(job_off(job.key), field="runId", fix=ENABLE)
        if not retry.has_its_shards(firing, job):
            text = f"the shards or the listener of job {job.key} have changed since the run: the job has "
            text += f"{job.shard_count} shards, the run {len(firing.work)}"
            problem = Told(text, "shards_changed", job=job.key, shards=job.shard_count, before=len(firing.work))
            raise Conflict(problem, field="runId", fix=new_run)
        if not firing.ended_ms and not self._state.wanted(firing):
            problem = Told(f"{firing.id} is being ended", "run_ending", run=firing.id)
            raise Conflict(problem, field="runId", fix=Told("wait until it has ended", "wait_end"))
        if firing.stepped and firing.shards[-1].state is ShardState.ACTIVE:
            problem = Told(f"the listener is being called after {firing.id}", "listener_called", run=firing.id)
            raise Conflict(problem, field="runId", fix=Told("wait for its end", "wait_end"))
        return job

    def _failed_shards(self, firing: Firing, item: int | None) -> dict[int, Shard]:
        """The failed shards of a run to put back: the shard `item`, or all.

        Raises NotFound, or Conflict if none has failed.
        """
        if item is not None and not 0 <= item < len(firing.work):
            raise NotFound(no_shard(firing.id, item), field="item", fix=between("0", str(len(firing.work) - 1)))
        failed = {
            number: shard
            for number, shard in enumerate(firing.shards)
            if shard.state in retry.MAY_BE_PUT_BACK and item in (None, number)
        }
        if firing.stepped and failed:
            before, after = len(firing.shards) - 2, len(firing.shards) - 1
            if before in failed:  # also the shards that this failed call kept from running
                held_back = (item for item, shard in enumerate(firing.work) if not shard.attempt and firing.runs(item))
                failed |= {number: firing.shards[number] for number in held_back}
            if firing.shards[after].state.ended:  # this call is repeated after the shards that are put back
                failed[after] = firing.shards[after]
        if not failed:
            if item is not None:
                text = f"shard {item} of {firing.id} has not failed"
                problem = Told(text, "shard_not_failed", item=item, run=firing.id)
            else:
                problem = Told(f"no shard of {firing.id} has failed", "run_not_failed", run=firing.id)
            raise Conflict(
                problem, field="runId", fix=Told("only DEAD, FAILED and KILLED shards can be put back", "retry_states")
            )
        return failed

    def kill_task(self, event: KillTask) -> None:
        """Ask a task to end, or end the shard that would repeat it."""
        task = self._state.tasks.get(event.task_id)
        if task is not None:
            self._tasks.kill(task, event.at)
            return
        firing, item = self._repeating(event.task_id)
        if firing.cause is Cause.DAEMON:
            text = f"no task runs: shard {item} of resident job {firing.job} waits, and starts again by itself"
            problem = Told(text, "resident_waits", item=item, job=firing.job)
            fix = done_by(f"jobcloud job disable {firing.job}", "stops the job")
            raise Conflict(problem, field="taskId", fix=fix)
        if not _is_its_turn(firing, item):
            problem = Told("no task runs: this part of the run waits for another part to end", "part_waits")
            fix = done_by(f"jobcloud run cancel {firing.id}", "ends the run")
            raise Conflict(problem, field="taskId", fix=fix)
        text = "an operator ended the shard while it waited for its next attempt"
        ended = changed(
            firing.shards[item], state=ShardState.KILLED, ended_ms=event.at, message=text, outcome=NO_OUTCOME, end=None
        )
        about = {"job": firing.job, "firing_id": firing.id, "task_id": event.task_id, "item": item}
        self._state.publish(event.at, Topic.ENDED, text, state=ended.state, **about)
        self._firings.put_shards(firing.id, {item: ended}, event.at)

    def _repeating(self, task_id: str) -> tuple[Firing, int]:
        """The firing and the item of the waiting shard whose last attempt was this task. Raises NotFound."""
        with suppress(ValueError):
            name = TaskName.parse(task_id)
            for firing in self._state.queue.unfinished(name.job):
                if 0 <= name.item < len(firing.shards):
                    shard = firing.shards[name.item]
                    if shard.task_id == task_id and shard.state is ShardState.WAITING:
                        return firing, name.item
        raise _not_running(task_id)

    def forget_task(self, event: ForgetTask) -> None:
        """End a task as lost, because an operator knows that it no longer runs."""
        task = self._running(event.task_id)
        if not event.force and self._tasks.confirmed(task):
            fix = Told("end it with `jobcloud kill`, or use force if you know that it no longer runs", "kill_or_force")
            text = f"Mesos says that {task.id} is {task.state}"
            raise Conflict(Told(text, "task_in_mesos", task=task.id, state=task.state), field="taskId", fix=fix)
        self._tasks.end(task, lost(task, "an operator declared it lost"), event.at)

    def _running(self, task_id: str) -> Task:
        task = self._state.tasks.get(task_id)
        if task is None:
            raise _not_running(task_id)
        return task


def _is_its_turn(firing: Firing, item: int) -> bool:
    """Whether the parts of a run that come before a shard, or before a call of the listener, have ended."""
    match firing.step(item) if firing.stepped else Step.BEFORE:
        case Step.BEFORE:
            return True
        case Step.AFTER:
            return all(shard.state.ended for shard in firing.work)
        case _:
            return firing.shards[-2].state is ShardState.FINISHED


def _check_revision(known: App | Job | None, expected: tuple[str, ...] | None) -> None:
    """Raises Outdated if a known app or job has none of the expected revisions. None: any revision will do."""
    if known is None or expected is None or revisions.of_record(known) in expected:
        return
    kind, key = "app" if isinstance(known, App) else "job", known.key
    problem = Told(f"{kind} {key} has changed since you read it", "changed_since", name=key)
    raise Outdated(problem, field=f"{kind}Name", fix=REPEAT_CHANGE)


def _not_running(task_id: str) -> NotFound:
    problem = Told(f"no task {task_id} is running", "no_task_runs", task=task_id)
    return NotFound(problem, field="taskId", fix=shown_by("jobcloud tasks", "lists them"))


def _exists(kind: str, key: str) -> Conflict:
    problem = Told(f"{kind} {key} exists", "exists", name=key)
    return Conflict(problem, field=f"{kind}Name", fix=Told("update it, or choose another name", "update_or_rename"))


def _place(job: Job) -> tuple[object, ...]:
    """The fields that decide whether, and on which agents, the shards of a job may start."""
    return job.constraints, job.preferences, job.pools, job.gang_start


def _check_items(job: Job, field: str, items: Sequence[int]) -> None:
    """Raises ConfigError for an item that the job does not have."""
    if items and max(items) >= job.shard_count:
        problem = Told(f"job {job.key} has no shard {max(items)}", "no_shard_of_job", job=job.key, item=max(items))
        raise ConfigError(problem, field=field, fix=between("0", str(job.shard_count - 1), "its shards are "))
