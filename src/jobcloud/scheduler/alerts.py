"""Alerts: conditions that people should know of, and the messages about them to channels.

An alert is a record. It is written together with its cause, so a leader that dies loses no alert. One alert stands for
all occurrences of a condition of one job or agent. Alerts gather for a while and then become a message to a channel.
The message is a record, too. It stays until the channel has taken it, and each channel has at most one. Meanwhile
further alerts gather for the next message. So the number of messages does not grow with the number of alerts.

The part asks for the sending of a message by the effect `AlertDue`. The result comes back as `ReportDelivery`. The id
of a message never changes. If the sending of a message could not be recorded, the message is sent again, and a receiver
recognizes it by its id.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sized
from fnmatch import fnmatchcase

from jobcloud.config import Job, JobKind, team_of
from jobcloud.cron import find_zone
from jobcloud.errors import Conflict
from jobcloud.messages import AlertDue, Kind, PutSilence, RemoveSilence, ReportDelivery, ReportProblem, Topic
from jobcloud.model import (
    ABSENT,
    OF_JOBS,
    OF_TEAMS,
    OF_WORKFLOWS,
    Alert,
    AlertMessage,
    Cause,
    Condition,
    Firing,
    NodeState,
    ShardState,
    Silence,
    WorkflowRun,
    alert_key,
    changed,
    cut,
)
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.refusals import no_silence
from jobcloud.scheduler.retry import backoff_ms
from jobcloud.scheduler.state import AlertChannel, State
from jobcloud.scheduler.timetable import rfc3339, utc
from jobcloud.sentences import Told, Words
from jobcloud.sentences.frequent import CHANNELS_FILE
from jobcloud.triggers import end_of_day, parse_expected

#: the maximum number of alerts; beyond it, one alert for each condition stands for all further subjects
MAX_ALERTS = 1_000
MAX_SILENCES = 100
#: the maximum number of alerts that a message describes
MAX_LINES = 30
#: a message that its channel has not taken after this number of attempts is dropped; this takes about a day
MAX_ATTEMPTS = 30
FIRST_RETRY_MS = 10_000
MAX_RETRY_MS = 3_600_000
#: if no result is reported for this long, the effect `AlertDue` is repeated; one attempt takes at most a fifth of it
RESEND_MS = 150_000
# Failed attempts after which a channel counts as broken.
_BROKEN_AFTER = 3
# Jobs whose expected successes one tick looks at.
_AT_ONCE = 500
_DAY_MS = 86_400_000
_TEXT_BYTES = 700
_MESSAGE_BYTES = 300
_OF_RUNS = {ShardState.DEAD: Condition.RUN_DEAD, ShardState.FAILED: Condition.RUN_FAILED}


class Alerts(Part):
    """Installed only if the policy names channels."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._channels: Mapping[str, AlertChannel] = {each.name: each for each in state.policy.alert_channels}
        #: channel → the alerts that it should be told, oldest first, no silenced ones: key of the alert → since when
        self._untold: dict[str, dict[str, int]] = {name: {} for name in self._channels}
        #: keys of the alerts that a silence matches
        self._silenced: set[str] = set()
        #: channel → the id of its message
        self._messages: dict[str, str] = {}
        #: channel → the instant before which it gets no further message
        self._free: dict[str, int] = {}
        #: message id → the instant at which `AlertDue` is repeated
        self._sent: dict[str, int] = {}
        #: a heap of (instant at which a run is late, firing id)
        self._late: list[tuple[int, str]] = []
        #: a heap of (instant of a check, job), one for each job with `noSuccessSeconds`; `_checked` has these jobs
        self._checks: list[tuple[int, str]] = []
        self._checked: set[str] = set()
        #: job → its next time of `expectedBy`, and a heap of (time, job); an entry that differs is obsolete
        self._expected: dict[str, int] = {}
        self._expectations: list[tuple[int, str]] = []
        #: jobs that were changed, and the subjects of alerts that were removed, since the last tick
        self._changed: set[str] = set()
        self._removed: set[str] = set()
        #: texts about channels that do not take their messages; any thread may read them
        self.warnings: tuple[Told, ...] = ()

    def restore(self, at: int) -> None:
        """Channels that are no longer configured are forgotten."""
        for message_id, message in list(self._state.alert_messages.items()):
            if message.channel in self._channels and message.channel not in self._messages:
                self._messages[message.channel] = message_id
            else:
                self._state.delete(Kind.ALERT_MESSAGE, message_id)
        for key, alert in sorted(self._state.alerts.items(), key=lambda item: _since(item[1])):
            channels = tuple(name for name in alert.channels if name in self._channels)
            untold = tuple(name for name in alert.untold if name in channels)
            self._put(key, changed(alert, channels=channels, untold=untold), at)
            gone = alert.condition in OF_JOBS and alert.subject not in self._state.jobs
            gone |= alert.condition in OF_WORKFLOWS and alert.subject not in self._state.workflows
            if gone and alert.subject:
                self._removed.add(alert.subject)
        for job in self._state.jobs.values():
            self.job_changed(job)
        self._shorten_retries(at)
        self._find_broken()

    # ------------------------------------------------------------------------------------------------- conditions

    def run_added(self, firing: Firing, at: int) -> None:
        job = self._state.jobs[firing.job]
        if firing.cause is Cause.CRON and self._state.alerts:
            self._close(Condition.MISSED, job.key, at)
            self._close(Condition.SKIPPED, job.key, at)
        self._watch_end(job, firing)

    def run_ended(self, firing: Firing, at: int) -> None:
        if firing.cause is Cause.DAEMON or (job := self._state.jobs.get(firing.job)) is None:
            return
        worst = firing.worst
        if worst is ShardState.FINISHED:
            for condition in (Condition.RUN_DEAD, Condition.RUN_FAILED, Condition.NO_SUCCESS, Condition.EXPECTED):
                self._close(condition, job.key, at)
            if job.no_success_ms:
                self._state.change_job_state(job.key, success_ms=at)
            if job.expected_by:
                self._learn_length(job, firing, at)
                self._expect_after(job, end_of_day(at, find_zone(job.zone)))
        elif (found := _OF_RUNS.get(worst)) is not None:
            self._open(found, job.key, _description(firing, worst), at, run=firing.id)
        if alert_key(Condition.LATE, job.key) in self._state.alerts:
            self._close_late(job, at)

    def firings_skipped(self, job: Job, text: Told, number: int, missed: bool, at: int) -> None:
        self._open(Condition.MISSED if missed else Condition.SKIPPED, job.key, text, at, number=number)

    def rollout_checked(self, job: str, stopped: Told | None, at: int) -> None:
        self._set(Condition.ROLLOUT_STOPPED, job, stopped, at)

    def workflow_ended(self, run: WorkflowRun, at: int) -> None:
        if run.state is NodeState.SUCCEEDED:
            self._close(Condition.WORKFLOW_FAILED, run.workflow, at)
        elif run.state is NodeState.FAILED:
            text = Told(f"run {run.id} has failed", "workflow_failed", run=run.id)
            self._open(Condition.WORKFLOW_FAILED, run.workflow, text, at, run=run.id)
        late = self._state.alerts.get(alert_key(Condition.WORKFLOW_LATE, run.workflow))
        if late is not None and late.run == run.id:
            self._close(Condition.WORKFLOW_LATE, run.workflow, at)

    def workflow_late(self, run: WorkflowRun, text: Told, at: int) -> None:
        self._open(Condition.WORKFLOW_LATE, run.workflow, text, at, run=run.id)

    def workflow_removed(self, workflow: str) -> None:
        self._removed.add(workflow)

    def agent_lost(self, agent_id: str, at: int) -> None:
        agent = self._state.cluster.agents.get(agent_id)
        tasks = sum(task.agent_id == agent_id for task in self._state.tasks.values())
        name = agent.hostname if agent is not None and agent.hostname else agent_id
        text = f"agent {name} is unreachable or gone; {tasks} tasks were on it"
        self._open(Condition.AGENT_LOST, agent_id, Told(text, "agent_lost", agent=name, tasks=tasks), at)

    def report_problem(self, event: ReportProblem) -> None:
        """Open or close the alert about a problem that the server has noticed outside the core."""
        if self._channels:
            self._set(event.condition, "", event.text, event.at)

    def sweep(self, at: int) -> None:
        """Close the alerts about agents that are back or forgotten."""
        agents = self._state.cluster.agents
        for alert in list(self._state.alerts.values()):
            if alert.condition is Condition.AGENT_LOST and not alert.closed_ms:
                agent = agents.get(alert.subject)
                if agent is None or not agent.lost:
                    self._close(Condition.AGENT_LOST, alert.subject, at)
        self._late = [entry for entry in self._late if entry[1] in self._state.queue]
        heapq.heapify(self._late)

    def job_changed(self, job: Job) -> None:
        # The state of a new job does not exist yet, so the next tick reviews the job.
        self._changed.add(job.key)

    def job_resumed(self, job: Job, at: int) -> None:
        if job.no_success_ms:
            self._state.change_job_state(job.key, success_ms=at)
        if job.expected_by:
            self._expect_after(job, at)

    def job_removed(self, name: str) -> None:
        self._changed.discard(name)
        self._expected.pop(name, None)

        self._removed.add(name)

    def clock_set_back(self, at: int) -> None:
        """End each wait that began while the clock was ahead."""
        interval = self._state.policy.alert_interval_ms
        self._free = {name: min(instant, at + interval) for name, instant in self._free.items()}
        for name, untold in self._untold.items():
            self._untold[name] = {key: min(since, at) for key, since in untold.items()}
        self._sent.clear()
        self._shorten_retries(at)
        self._checks = [(min(instant, at), job) for instant, job in self._checks]
        self._changed.update(self._expected)

    def _shorten_retries(self, at: int) -> None:
        for message_id, message in self._state.alert_messages.items():
            if message.not_before_ms > at + MAX_RETRY_MS:
                self._state.put(Kind.ALERT_MESSAGE, message_id, changed(message, not_before_ms=at))

    # ------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        if self._changed or self._removed:
            return at
        instants = [wake for name in self._channels if (wake := self._channel_wake(name)) is not None]
        instants += [heap[0][0] for heap in (self._late, self._checks, self._expectations) if heap]
        instants += [silence.until_ms for silence in self._state.silences.values()]
        return min(instants, default=None)

    def on_tick(self, at: int) -> None:
        removed, self._removed = self._removed, set()
        for subject in removed:
            for condition in OF_TEAMS:
                self._close(condition, subject, at)
        changes, self._changed = self._changed, set()
        for name in changes:
            if name in self._state.jobs:
                self._review(self._state.jobs[name], at)
        self._open_late(at)
        self._check_successes(at)
        self._check_expectations(at)
        for silence_id in [name for name, silence in self._state.silences.items() if silence.until_ms <= at]:
            self._end_silence(silence_id, at)
        for name in self._channels:
            wake = self._channel_wake(name)
            if wake is not None and wake <= at:
                self._send(name, at)

    def _review(self, job: Job, at: int) -> None:
        """Watch the job as it is configured now."""
        if not job.late_after_ms:
            self._close(Condition.LATE, job.key, at)
        self._review_expected(job, at)
        for firing in self._state.queue.unfinished(job.key):
            self._watch_end(job, firing)
        if not job.no_success_ms:
            self._close(Condition.NO_SUCCESS, job.key, at)
        elif job.key not in self._checked:
            self._checked.add(job.key)
            heapq.heappush(self._checks, (at, job.key))
        elif not self._state.job_states[job.key].success_ms:
            # The job was removed and registered again before its check was due.
            self._state.change_job_state(job.key, success_ms=at)

    def _review_expected(self, job: Job, at: int) -> None:
        """Await the successes that the job expects from now on, or from the stored instant on."""
        state = self._state.job_states[job.key]
        known = state.expected_ms
        if not job.expected_by:
            self._close(Condition.EXPECTED, job.key, at)
            self._expected.pop(job.key, None)
            if known is not ABSENT or state.lasts_ms is not ABSENT:
                self._state.change_job_state(job.key, expected_ms=ABSENT, lasts_ms=ABSENT)
            return
        # A clock may have been ahead.
        known = min(known or at, end_of_day(at, find_zone(job.zone)))
        if known != state.expected_ms:
            self._state.change_job_state(job.key, expected_ms=known)
        self._expect_next(job, known)

    def _expect_after(self, job: Job, instant: int) -> None:
        """Await no success for times up to an instant."""
        known = self._state.job_states[job.key].expected_ms or 0
        if instant > known:
            self._state.change_job_state(job.key, expected_ms=instant)
        self._expect_next(job, max(instant, known))

    def _expect_next(self, job: Job, after: int) -> None:
        """Look at the job when a run that begins then would end at the next time of `expectedBy` after an instant."""
        due = _expected_time(job, after)
        if due is None:
            self._expected.pop(job.key, None)
        else:
            self._look_at(job.key, max(due - (self._state.job_states[job.key].lasts_ms or 0), after + 1))

    def _look_at(self, job: str, instant: int) -> None:
        if self._expected.get(job) != instant:
            self._expected[job] = instant
            heapq.heappush(self._expectations, (instant, job))

    def _learn_length(self, job: Job, firing: Firing, at: int) -> None:
        """A longer run counts at once, up to a day. After a shorter one, a quarter of the difference is forgotten."""
        began = min((shard.started_ms for shard in firing.shards if shard.started_ms), default=0)
        if 0 < began <= at:
            took, known = min(at - began, _DAY_MS), self._state.job_states[job.key].lasts_ms or 0
            self._state.change_job_state(job.key, lasts_ms=max(took, (3 * known + took) // 4))

    def _check_expectations(self, at: int) -> None:
        """Open an alert for each job without a success by its time. At most `_AT_ONCE` are looked at in one tick."""
        for _ in range(_AT_ONCE):
            if not self._expectations or self._expectations[0][0] > at:
                return
            instant, name = heapq.heappop(self._expectations)
            job = self._state.jobs.get(name)
            if job is None or self._expected.get(name) != instant:
                continue
            due = _expected_time(job, self._state.job_states[name].expected_ms or 0)
            idle = not self._state.enabled(name) or self._state.paused(name)
            if due is not None and instant < due:
                if not idle:
                    self._warn_of_lateness(job, due, at)
                self._look_at(name, due)
                continue
            if not idle:
                text = f"no run has succeeded on this day, and a success was expected by {utc(instant)}"
                told = Told(text, "expected", due=rfc3339(instant))
                self._open(Condition.EXPECTED, name, told, at, number=int(not self._is_warned(name)))
            self._expect_after(job, instant)

    def _warn_of_lateness(self, job: Job, due: int, at: int) -> None:
        """Open the alert before the time if no run is under way, because a run that begins now would end too late."""
        unfinished = self._state.queue.unfinished(job.key)
        if any(shard.state is ShardState.ACTIVE for firing in unfinished for shard in firing.shards):
            return
        lasts = (self._state.job_states[job.key].lasts_ms or 0) // 1_000
        text = (
            f"no run has succeeded on this day, and none is running: recent runs took up to {lasts} s, so the success "
            f"expected by {utc(due)} will be late"
        )
        self._set(Condition.EXPECTED, job.key, Told(text, "expected_soon", seconds=lasts, due=rfc3339(due)), at)

    def _is_warned(self, job: str) -> bool:
        """Whether the alert of a job was opened before the time."""
        alert = self._state.alerts.get(alert_key(Condition.EXPECTED, job))
        return alert is not None and alert.words is not None and alert.words.code == "expected_soon"

    def _watch_end(self, job: Job, firing: Firing) -> None:
        if job.late_after_ms and firing.cause is not Cause.DAEMON and not firing.terms.backfill:
            heapq.heappush(self._late, (firing.fire_ms + job.late_after_ms, firing.id))

    def _open_late(self, at: int) -> None:
        while self._late and self._late[0][0] <= at:
            _, firing_id = heapq.heappop(self._late)
            firing = self._state.firings.get(firing_id)
            job = self._state.jobs.get(firing.job) if firing is not None and not firing.ended_ms else None
            if firing is not None and job is not None and _is_late(job, firing, at):
                known = self._state.alerts.get(alert_key(Condition.LATE, job.key))
                if known is None or known.closed_ms or known.run != firing.id:
                    left = sum(not shard.state.ended for shard in firing.shards)
                    text = f"run {firing.id} was due at {utc(firing.fire_ms)}, and {left} of its shards have not ended"
                    late = Told(text, "late", run=firing.id, due=rfc3339(firing.fire_ms), shards=left)
                    self._open(Condition.LATE, job.key, late, at, run=firing.id)

    def _close_late(self, job: Job, at: int) -> None:
        if not any(_is_late(job, firing, at) for firing in self._state.queue.unfinished(job.key)):
            self._close(Condition.LATE, job.key, at)

    def _check_successes(self, at: int) -> None:
        """Open an alert for each job that has had no success for too long. The time of a pause does not count."""
        while self._checks and self._checks[0][0] <= at:
            _, name = heapq.heappop(self._checks)
            job = self._state.jobs.get(name)
            if job is None or not job.no_success_ms or job.kind is JobKind.DAEMON:
                self._checked.discard(name)
                continue
            since = self._state.job_states[name].success_ms
            idle = not self._state.enabled(name) or self._state.paused(name)
            if idle or not 0 < since <= at:
                self._state.change_job_state(name, success_ms=at)
                since = at
            due = since + job.no_success_ms
            if due <= at:
                text = Told(f"no run has succeeded since {utc(since)}", "no_success", since=rfc3339(since))
                self._open(Condition.NO_SUCCESS, name, text, at)
                due = at + job.no_success_ms
            heapq.heappush(self._checks, (due, name))

    # ------------------------------------------------------------------------------------------------- alerts

    def _set(self, condition: Condition, subject: str, problem: str | None, at: int) -> None:
        if not problem:
            self._close(condition, subject, at)
        else:
            known = self._state.alerts.get(alert_key(condition, subject))
            if known is None or known.closed_ms:
                self._open(condition, subject, problem, at)

    def _open(self, condition: Condition, subject: str, text: str, at: int, *, number: int = 1, run: str = "") -> None:
        key, overflow, words = alert_key(condition, subject), False, _words_of(text)
        if key not in self._state.alerts and subject and len(self._state.alerts) >= MAX_ALERTS:
            # This alert stands for all further subjects. It is closed from the start, so it is deleted once it is told.
            if words is not None:
                words = Words(words.code, words.parameters | {"of": subject})
            key, text, subject, overflow = alert_key(condition, ""), f"{subject}: {text}", "", True
        text, known = cut(str(text), _TEXT_BYTES), self._state.alerts.get(key)
        if known is not None and not known.closed_ms:
            count = known.count + number
            self._put(key, changed(known, text=text, run=run, last_ms=at, count=count, words=words), at)
            return
        job = self._state.jobs.get(subject) if condition in OF_JOBS else None
        owner = job.owner if job is not None else ""
        channels = tuple(name for name, each in self._channels.items() if _admits(each, condition, subject, owner))
        opened, count = (known.opened_ms, known.count + number) if known is not None else (at, number)
        closed = at if overflow else 0
        about = condition, subject, opened, text, at, closed, count, run, owner
        self._put(key, Alert(*about, channels, channels, words), at)

    def _close(self, condition: Condition, subject: str, at: int) -> None:
        """Tell the channels that the condition has ended. If the alert is silenced, only those that were told of it."""
        key = alert_key(condition, subject)
        alert = self._state.alerts.get(key)
        if alert is None or alert.closed_ms:
            return
        silenced = key in self._silenced
        untold = tuple(name for name in alert.channels if not silenced or name not in alert.untold)
        self._put(key, changed(alert, closed_ms=at, untold=untold), at)

    def _put(self, key: str, alert: Alert, at: int) -> None:
        """Set an alert. A closed alert is deleted when each channel has been told of its end."""
        known = self._state.alerts.get(key)
        if alert.closed_ms and not alert.untold:
            if known is not None:
                self._state.delete(Kind.ALERT, key)
            self._silenced.discard(key)
        elif alert != known:
            self._state.put(Kind.ALERT, key, alert)
        self._file(key, alert, at)

    def _file(self, key: str, alert: Alert, at: int) -> None:
        """Put an alert into the lists of the channels that are to be told."""
        if self._state.silences and any(matches(silence, alert) for silence in self._state.silences.values()):
            self._silenced.add(key)
        else:
            self._silenced.discard(key)
        for name, untold in self._untold.items():
            if name not in alert.untold or key in self._silenced:
                untold.pop(key, None)
            else:
                untold.setdefault(key, min(_since(alert), at))

    # ------------------------------------------------------------------------------------------------- messages

    def _channel_wake(self, channel: str) -> int | None:
        """When something is to be done for a channel; None if nothing is."""
        if (message_id := self._messages.get(channel)) is not None:
            return max(self._state.alert_messages[message_id].not_before_ms, self._sent.get(message_id, 0))
        if untold := self._untold[channel]:
            first = next(iter(untold.values()))
            return max(first + self._state.policy.alert_wait_ms, self._free.get(channel, 0))
        return None

    def _send(self, channel: str, at: int) -> None:
        message_id = self._messages.get(channel) or self._make(channel, at)
        self._sent[message_id] = at + RESEND_MS
        self._state.emit(AlertDue(message_id, self._state.alert_messages[message_id]))

    def _make(self, channel: str, at: int) -> str:
        """Make a message of all alerts that the channel is to be told. Returns its id."""
        keys = list(self._untold[channel])
        alerts = [self._state.alerts[key] for key in keys]
        lines = tuple(changed(alert, channels=(), untold=(), words=None) for alert in alerts[:MAX_LINES])
        message_id = f"{channel}-{self._state.unique()}"
        self._state.put(Kind.ALERT_MESSAGE, message_id, AlertMessage(channel, at, lines, len(alerts) - len(lines)))
        self._messages[channel] = message_id
        for key, alert in zip(keys, alerts, strict=True):
            self._put(key, changed(alert, untold=tuple(name for name in alert.untold if name != channel)), at)
        return message_id

    def report_delivery(self, event: ReportDelivery) -> None:
        """Delete a message that was taken or given up, or plan its next attempt."""
        message = self._state.alert_messages.get(event.message_id)
        if message is None:
            return
        at, channel = event.at, message.channel
        self._sent.pop(event.message_id, None)
        attempts = message.attempts + 1
        if event.problem and attempts < MAX_ATTEMPTS:
            wait = max(backoff_ms(attempts, FIRST_RETRY_MS, MAX_RETRY_MS), min(event.retry_ms, MAX_RETRY_MS))
            problem = cut(event.problem, _MESSAGE_BYTES)
            again = changed(message, attempts=attempts, not_before_ms=at + wait, problem=problem)
            self._state.put(Kind.ALERT_MESSAGE, event.message_id, again)
        else:
            self._state.delete(Kind.ALERT_MESSAGE, event.message_id)
            if self._messages.get(channel) == event.message_id:
                del self._messages[channel]
            self._free[channel] = at + self._state.policy.alert_interval_ms
            if event.problem:
                text = f"a message of {len(message.alerts) + message.more} alerts to {channel} is given up"
                self._state.publish(at, Topic.FAULT, f"{text}: {cut(event.problem, _MESSAGE_BYTES)}")
        self._find_broken()

    def _find_broken(self) -> None:
        self.warnings = tuple(
            Told(
                f"the alert channel {message.channel} does not take messages: {message.problem}",
                "channel",
                channel=message.channel,
                problem=message.problem,
            )
            for message in self._state.alert_messages.values()
            if message.attempts >= _BROKEN_AFTER
        )

    # ------------------------------------------------------------------------------------------------- silences

    def put_silence(self, event: PutSilence) -> None:
        """Raises Conflict."""
        if not self._channels:
            fix = CHANNELS_FILE
            raise Conflict(Told("no channel for alerts is configured", "no_channels"), fix=fix)
        if len(self._state.silences) >= MAX_SILENCES and event.id not in self._state.silences:
            problem = Told(f"there are {MAX_SILENCES} silences", "many_silences", silences=MAX_SILENCES)
            raise Conflict(problem, fix=Told("delete one first, or use a glob", "silence_room"))
        self._state.put(Kind.SILENCE, event.id, event.silence)
        self._file_all(event.at)

    def remove_silence(self, event: RemoveSilence) -> None:
        """Raises NotFound."""
        if event.id not in self._state.silences:
            raise no_silence(event.id)
        self._end_silence(event.id, event.at)

    def _end_silence(self, silence_id: str, at: int) -> None:
        self._state.delete(Kind.SILENCE, silence_id)
        self._file_all(at)

    def _file_all(self, at: int) -> None:
        for key, alert in self._state.alerts.items():
            self._file(key, alert, at)

    # ------------------------------------------------------------------------------------------------- reading

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "late": self._late, "checked": self._checked, "changed": self._changed, "removed": self._removed,
            "expected": self._expected,
        }  # fmt: skip

    def validate(self) -> None:
        alerts = self._state.alerts
        assert len(alerts) <= MAX_ALERTS + len(Condition), f"there are {len(alerts)} alerts"
        for name, untold in self._untold.items():
            wanted = {key for key, alert in alerts.items() if name in alert.untold and key not in self._silenced}
            assert untold.keys() == wanted, f"{name} is to be told {set(untold)}, not {wanted}"
        ids = {message.channel: message_id for message_id, message in self._state.alert_messages.items()}
        assert self._messages == ids, f"the messages are {ids}, not {self._messages}"
        assert self._sent.keys() <= self._state.alert_messages.keys(), "a message that was sent has no record"


def matches(silence: Silence, alert: Alert) -> bool:
    """Whether a silence matches an alert. Its times do not count."""
    return (
        silence.condition in (None, alert.condition)
        and (not silence.subject or fnmatchcase(alert.subject, silence.subject))
        and (not silence.team or silence.team == _team(alert.condition, alert.subject))
        and (not silence.owner or fnmatchcase(alert.owner, silence.owner))
    )


def _admits(channel: AlertChannel, condition: Condition, subject: str, owner: str) -> bool:
    return (
        (not channel.conditions or condition in channel.conditions)
        and (not channel.teams or _team(condition, subject) in channel.teams)
        and (not channel.owners or any(fnmatchcase(owner, glob) for glob in channel.owners))
    )


def _team(condition: Condition, subject: str) -> str:
    """The team of an alert's job or workflow; "" for an alert about something else."""
    return team_of(subject) if condition in OF_TEAMS else ""


def _since(alert: Alert) -> int:
    return alert.closed_ms or alert.opened_ms


def _is_late(job: Job, firing: Firing, at: int) -> bool:
    limit = job.late_after_ms
    return bool(limit) and not firing.terms.backfill and firing.fire_ms + limit <= at


def _words_of(text: str) -> Words | None:
    """The words of an alert's text, if it has them. Texts from outside are cut."""
    if not isinstance(text, Told):
        return None
    given = text.words.parameters
    return Words(
        text.words.code,
        {name: cut(value, _TEXT_BYTES) if isinstance(value, str) else value for name, value in given.items()},
    )


def _expected_time(job: Job, after: int) -> int | None:
    """The next time of `expectedBy` after an instant (ms); None if there is none."""
    return parse_expected(job.expected_by).next_after(after, find_zone(job.zone))


def _description(firing: Firing, worst: ShardState) -> Told:
    """The states of the run's shards, and the first shard in the worst state."""
    states = Counter(shard.state for shard in firing.chosen)
    found = [(states[state], state) for state in ShardState if state in states]
    item, shard = next((item, shard) for item, shard in enumerate(firing.shards) if shard.state is worst)
    message, cause, step = cut(shard.message, _MESSAGE_BYTES), shard.outcome.cause, firing.step(item)
    counts, why = ", ".join(f"{number} {state}" for number, state in found), message or cause or "no message"
    return Told(
        f"run {firing.id}: {counts}; {f'its call {step}' if step else f'shard {item}'}: {why}",
        "run_ended",
        run=firing.id,
        states="; ".join(f"{number} × {state}" for number, state in found),
        item=item,
        step=step or "",
        cause=cause,
        message=message,
    )
