"""The promises of the scheduler, as checks. A violation names the number in this list.

1. No (job, shard) runs twice at one instant, as the executors know it. Exceptions, each of which is listed: two firings
   that the job allows at once; Mesos had given up the earlier attempt (its agent is gone, its framework is removed, or
   a master without memory does not know it); the job's partition policy had replaced it; an operator had declared it
   dead.
   Shards of two totals of a resident do not run at once either, unless its shards are independent.
2. Every recorded firing reaches an outcome or waits with a reason. None vanishes. Each due instant was queued, or
   counted as skipped.
3. Every claim is released exactly once. At rest nothing is claimed and all indexes are empty.
4. No agent is over-committed by the master's count, executors included. No ACCEPT spends more than was offered.
5. Only the holder of the current epoch changes anything, in the store or at Mesos.
6. After the faults, all desired residents run in their last configuration and all due work ends, in bounded time. No
   job stops firing for days because a clock was ahead for seconds, unless a scheduler began with a wrong clock. Then
   it says so, and an operator can revive the job.
7. If a command was answered as done, its effect survives any crash. A task that was asked to end ends.
8. A launch is sent after its intent is stored, and an acknowledgement after its consequences are.
9. No task id, attempt or fence token is used twice. Fence tokens of a shard grow.
10. A running shard of a resident is replaced only if then at most max_unavailable shards of its job are down, unless
    an operator kills it or its agent is drained.
11. An executor is shut down by force only if a task in it was asked to end and had time for it.
12. An agent drained by an operator gets nothing new.
13. A shard starts only after the shards ahead of it in the queue that need no more room: first replacements of lost
    attempts, then by priority, then by age. Lost and failed shards wait for their back-off. So there is no storm, even
    if half of the cluster is lost at once.
14. Every record fits into the store. The refusal of one record refuses that request alone: it ends no session, and no
    other caller hears of it. No call is larger than the scheduler's own limit.
15. After a backup was restored, a shard that may have run since is repeated only if its job has failover. A leader
    notices within 10 s that its state was deleted. Epochs, task ids and fence tokens stay unique (5 and 9).
16. No task joins an executor of another team.
17. A run has the parameter that its trigger set, and only the shards that its trigger chose. A job has one run with
    a key.
18. Nothing of a paused job starts.
19. An ad-hoc run that was answered as started exists once. Its job is stored together with the run. Both are deleted
    together, unless the app is removed: then the job goes first, and the run ends.
20. The alert about a run that ends DEAD or FAILED is stored with the end of the run. Every alert is sent. A message
    whose sending is recorded is not sent again.
21. No launch exceeds the quota of its team. A new job does not exceed the quota of jobs. A run that finds no room in
    the queue of its team is refused, or counted as skipped (2).
22. A team gets its share. After each cycle, no agent keeps room for a shard that could have started, and that has room
    in the quota of its team, with an executor. No other team got such room while its share of the cluster by weight
    was larger (see shares.py).
23. The secrets of a task are handed over once, whichever scheduler is asked.
24. A task starts only on an agent that meets the constraints of its job and its app. The placeholder of a warm executor
    starts only on an agent that meets those of its app.
25. No more shards of a job than it allows run on one agent or in one zone, also after a change of leader.
26. A shard that is to run near another job starts only in a zone in which a shard of that job is, and it does start.
27. A job avoids an agent after a number of failures in a row there (a field of the job), if another agent is left.
28. Running shards take no more slots of a pool than it has, unless it was made smaller meanwhile. No shard gets slots
    of a pool that has too few for a shard ahead of it in the queue of its team.
29. The tasks and executors of a team with a Mesos role have resources of this role alone. Other teams have none.
30. A run that is queued by time has a fire time of its triggers. No shard is the first of its run to start after the
    deadline for the start.
31. All attempts of a run get the same last success: the fire time of an earlier run whose shards all succeeded.
32. No other shard is on an agent with an exclusive shard, by the master's count, and an exclusive shard starts once an
    agent is empty. Exceptions are tasks that the scheduler had to give up, as in 1.
33. A run by `@after` is queued when all earlier runs have ended, and not before the delay after the last end. The next
    one is due within the delay.
34. If no run of a day has succeeded by the time that its job expects, an alert is stored in the same write.
35. Of a run with gang start, all shards are launched for the first time in one cycle, and stored in one write.
36. The shards of a run with a range have parts without a gap and an overlap, whose sizes differ by at most one. All
    attempts of a shard have the same part.
37. A run of a workflow loses no node and no confirmed answer. No node starts before its conditions hold, starts in a
    paused or cancelled run, or gets two runs. The start of a node is stored together with its run, and its end together
    with the end of this run. A node without failed shards is SKIPPED if the nodes before it have cancelled all of its
    cancelled shards. Each whole run of the job of a start node begins a run of the workflow, in the same write.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobcloud.config import App, Job, JobKind, is_ad_hoc, key_of, team_of
from jobcloud.dev.master.records import OfferRecord
from jobcloud.dev.resources import NOTHING
from jobcloud.messages import Accept, Acknowledge, AlertDue, Call, Effect, Kind, SendFailed, ShutdownExecutor, Status
from jobcloud.model import (
    EVERY_TEAM,
    UNTRIED,
    Calendar,
    Cause,
    Condition,
    Execution,
    Firing,
    JobState,
    Pool,
    Shard,
    Shards,
    ShardState,
    Slots,
    Task,
    TaskName,
    TaskState,
    Team,
    alert_key,
    changed,
    replaced,
)
from jobcloud.ports import StoredRecords, StoredWrite
from jobcloud.scheduler.attempts import place_of
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.recovery import AD_HOC_STATE, MESSAGE, shard_key, shard_place
from jobcloud.scheduler.slots import slots_of
from jobcloud.scheduler.timetable import AHEAD_MS
from jobcloud.server import records
from jobcloud.triggers import Days, Timing, parse_days
from jobcloud.triggers.timing import MAX_COUNTED

from . import shares
from .flows import Flows
from .operators import AT_ONCE, EXCLUSIVE, LIMIT_MS, REPLACING
from .plan import ALERTED, ALERTED_REST, LARGEST_CALL, MAX_ENDED_SHARDS
from .shares import attempts_of, rank, team_of_task, used_by

if TYPE_CHECKING:
    from .executors import Run
    from .schedulers import Process, SimCore
    from .world import World

Entries = dict[tuple[str, str], bytes]
_TOLD_WITHIN_MS = 5_000
_DAY_MS = 86_400_000
_PART = re.compile(r"([0-9]+)\.\.([0-9]+)")
_EXPECTED_MS = 60_000  # EXPECTED_BY of the operators
# A job that fails on more agents is at fault itself.
_MANY_AGENTS = 5
_RULES = ("at most", "near ", EXCLUSIVE)  # constraints about other shards
_GIVEN_UP = frozenset({"TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN"})
_NOT_YET = (TaskState.STORED, TaskState.STAGING, TaskState.STARTING)
# Minimum time that a task has to end after its agent could learn of the kill. The simulated policy gives twice as long.
_TIME_TO_END_MS = 3_000
# The matcher's own check takes more time than all else in a history. A wrong total stays wrong: a later turn finds it.
_MATCHER_TURNS = 8
# The clock of a plain history jumps by hours. A job that fired then waits for its next time.
_LONGEST_SILENCE_MS = 86_400_000
# Kinds and keys of records that stay when all work has ended.
_LASTING = frozenset((Kind.FRAMEWORK, Kind.RESTORATION, Kind.ALERT, Kind.POOL, (Kind.TEAM, EVERY_TEAM)))
_ENDS = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED",
                   "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN"})  # fmt: skip


class Before:
    """The knowledge of a scheduler before it handles a tick."""

    def __init__(self, core: SimCore) -> None:
        self.firings = dict(core.firings)
        self.tasks = dict(core.tasks)
        self.executors = dict(core.executors)
        self.total, self.cycles = core.cluster._total, core._cycle.cycles
        self.held = shares.Held(core)
        self.gang_hold = core._cycle._gangs.hold


class Truth:
    """The world outside of the scheduler: executions, updates of Mesos, and calls that had an effect."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.running: dict[tuple[str, int], list[Run]] = {}
        self.ended: dict[str, str] = {}  # task id → how
        self.begun: set[str] = set()
        self.doubtful: set[str] = set()  # tasks that were unreachable once, and may have run or not
        self.overlaps: list[str] = []
        self.gone: set[str] = set()  # agents marked gone
        self.windows: set[str] = set()  # agents that had a maintenance window
        self.removed: set[str] = set()  # frameworks
        self.framework_of: dict[str, str] = {}  # task → its framework
        self.given_up: set[str] = set()
        self.state_of: dict[str, tuple[str, str]] = {}  # uuid → task id, state
        self.launched: set[str] = set()
        self.attempts: dict[tuple[str, int, int], str] = {}  # → task
        self.fences: dict[tuple[str, int], int] = {}
        self.last_successes: dict[str, int | None] = {}
        #: run → item → the ends of its part of a range
        self.parts: dict[str, dict[int, tuple[int, int]]] = {}
        self.successes: set[tuple[str, int]] = set()
        self.opened: set[str] = set()  # firings whose listener "before" has succeeded
        self.reported: dict[str, set[str]] = {}  # task → ends reported by Mesos
        self.asked: dict[str, int] = {}  # task → instant at which Mesos could tell its agent to kill it
        self.epoch = 0

    def started(self, run: Run) -> None:
        self._world.note(f"executor runs {run.task_id}")
        others = self.running.setdefault((run.job, run.item), [])
        counted = 1 + sum(not self._replaced(other) for other in others)
        for other in others:
            # An unreachable attempt may begin after its replacement.
            why = self._replaced(run) or self._replaced(other) or self._together(run, other, counted)
            if not why:
                self._world.violation(f"1: {run.job}/{run.item} runs twice: {other.task_id} and {run.task_id}")
            self.overlaps.append(f"{other.task_id} and {run.task_id}: {why}")
        others.append(run)
        self.begun.add(run.task_id)
        self.framework_of[run.task_id] = run.framework_id
        self._in_its_turn(run)
        self._of_one_total(run)
        self._on_its_terms(run)

    def _on_its_terms(self, run: Run) -> None:
        firing = self._world.promise.firings.get(run.firing_id)
        if firing is None:
            return
        if not firing.runs(run.item):
            self._world.violation(f"17: {run.task_id} runs, chosen were {firing.terms.items}")
        if firing.terms.parameter not in (None, run.parameter):
            self._world.violation(f"17: {run.task_id} has {run.parameter!r}, given was {firing.terms.parameter!r}")

    def _of_one_total(self, run: Run) -> None:
        """Shards that divide the work by item and total do not run with another total."""
        if not run.daemon or run.task_id in self._world.promise.free or self._replaced(run):
            return
        for other in (other for (job, _), runs in self.running.items() if job == run.job for other in runs):
            if other.total != run.total and other.task_id not in self._world.promise.free and not self._replaced(other):
                self._world.violation(
                    f"1: {run.task_id} of {run.total} runs together with {other.task_id} of {other.total}"
                )

    def _in_its_turn(self, run: Run) -> None:
        """The listener of a firing is called before all shards and after all shards."""
        if run.stepped and run.step != "before" and run.firing_id not in self.opened:
            self._world.violation(f"1: {run.task_id} starts before the listener of {run.firing_id} has finished")
        if run.step == "after":
            for other in (other for runs in self.running.values() for other in runs):
                if other.firing_id == run.firing_id and other is not run and not self._replaced(other):
                    self._world.violation(f"1: {run.task_id} is called while {other.task_id} still runs")

    def _together(self, run: Run, other: Run, number: int) -> str:
        limit = AT_ONCE.get(run.job, 1)
        return f"its job allows {limit} at once" if run.firing_id != other.firing_id and number <= limit else ""

    def _replaced(self, run: Run) -> str:
        return self._given_up(run.task_id, run.framework_id, run.agent_id)

    def _given_up(self, task_id: str, framework_id: str, agent_id: str) -> str:
        """The reason why the scheduler may have given up a task that may live, or ""."""
        if framework_id in self.removed:
            return "its framework was removed"
        if agent_id in self.gone:
            return "its agent was marked gone"
        if task_id in self._world.operators.forgotten:
            return "an operator declared it lost"
        if task_id in self.doubtful and TaskName.parse(task_id).job in self._world.operators.replacing:
            return "its job replaces unreachable shards"
        if task_id in self._world.extremes.lost:
            return "the state that knew it was lost"
        return "Mesos gave it up" if task_id in self.given_up else ""

    def stopped(self, run: Run, how: str) -> None:
        self._world.note(f"executor ends {run.task_id}: {how}")
        place = self.running[run.job, run.item]
        place.remove(run)
        if not place:
            del self.running[run.job, run.item]
        self.ended[run.task_id] = how
        if run.step == "before" and how == "TASK_FINISHED":
            self.opened.add(run.firing_id)

    def told(self, status: dict[str, Any]) -> None:
        """The master sends an update to a scheduler."""
        task_id = status["task_id"]["value"]
        if status["state"] in _GIVEN_UP:
            self.given_up.add(task_id)
        if status["state"] == "TASK_UNREACHABLE":
            self.doubtful.add(task_id)
        if status["state"] in _ENDS:
            self.reported.setdefault(task_id, set()).add(status["state"])
        if status["state"] == "TASK_ERROR" and not self._may_be_invalid(status["message"]):
            self._world.violation(f"4: Mesos found {task_id} invalid: {status['message'][:300]}")
        if "uuid" in status:
            self.state_of[status["uuid"]] = task_id, status["state"]

    def _may_be_invalid(self, message: str) -> bool:
        # If the record of an executor is kept although the executor has ended, a launch describes it with resources
        # that the offers lack. Mesos refuses the task, which is tried again.
        return "more than available" in message

    def heard(self, status: Status) -> None:
        """A scheduler handles an update. Its time to end starts again for a task that it knows to be unreachable."""
        if status.state == "TASK_UNREACHABLE":
            self.asked.pop(status.task_id, None)

    def called(self, process: Process, call: dict[str, Any], offers: dict[str, OfferRecord]) -> None:
        """The master has carried out a call."""
        if call["type"] == "UPDATE_FRAMEWORK":
            return  # a part of subscribing, which comes before the proof of the epoch
        epoch = process.leader.epoch
        if epoch < self.epoch:
            self._world.violation(f"5: {process.name} of epoch {epoch} was heard by Mesos after epoch {self.epoch}")
        if call["type"] == "ACCEPT":
            self._accepted(process, call["accept"], offers)
        elif call["type"] == "KILL":
            self.asked.setdefault(call["kill"]["task_id"]["value"], self._world.now)

    def subscribed(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch)

    def _accepted(self, process: Process, accept: dict[str, Any], offers: dict[str, OfferRecord]) -> None:
        tasks = [task for operation in accept["operations"] for task in operation["launch"]["task_infos"]]
        for task in tasks:
            self._launched(process, task)
        for agent in {task["agent_id"]["value"] for task in tasks}:
            self._is_exclusive(agent)
        roles = {offers[one["value"]].role for one in accept["offer_ids"] if one["value"] in offers}
        if len(roles) > 1:
            self._world.violation(f"4: one ACCEPT takes offers of the roles {sorted(roles)}, and Mesos drops it")
        if all(one["value"] in offers for one in accept["offer_ids"]):
            for agent in self._world.cluster.master.state.agents.values():
                used = agent.used()
                for offer in agent.offers.values():
                    used = used + offer.resources
                if not agent.total.contains(used):
                    self._world.violation(f"4: {agent.agent_id} has {agent.total}, and is to give {used}")

    def _is_exclusive(self, agent_id: str) -> None:
        """If an exclusive shard is on an agent, it is the only shard that the master knows there."""
        agent = self._world.cluster.master.state.agents.get(agent_id)
        found = [
            task.task_id for task in (agent.tasks.values() if agent is not None else ())
            if not task.terminal and not TaskName.parse(task.task_id).job.startswith("keeper=")
            and not self._given_up(task.task_id, task.framework_id, agent_id)
        ]  # fmt: skip
        if exclusive := self._world.promise.exclusive.intersection(found):
            self._world.history.happened["launch of an exclusive shard"] += 1
            if len(found) > 1:
                self._world.violation(f"32: {found} share the agent {agent_id}, exclusive are {sorted(exclusive)}")

    def _launched(self, process: Process, task: dict[str, Any]) -> None:
        task_id = task["task_id"]["value"]
        self._executor_pays(task)
        if task_id in self.launched:
            self._world.violation(f"9: {task_id} is launched twice")
        self.launched.add(task_id)
        payload = json.loads(base64.b64decode(task["data"]))
        context = payload["shardingContext"]
        place = TaskName.parse(task_id).job, context["shardingItem"]
        if team_of(place[0].removeprefix("keeper=")) != team_of(task["executor"]["source"]):
            self._world.violation(f"16: {task_id} joins an executor of {task['executor']['source']}")
        self._in_its_role(task)
        attempt = payload["runId"], context["shardingItem"], payload["attempt"]
        if attempt in self.attempts:
            self._world.violation(f"9: attempt {attempt} is launched twice")
        extremes = self._world.extremes
        if process.leader.epoch <= extremes.epoch and (Kind.TASK, task_id) not in self._world.server.entries:
            extremes.lost.add(task_id)  # the call was sent before the backup returned
        else:
            self.attempts[attempt] = task_id
            if attempt[:2] in extremes.once and attempt[0] not in self._world.operators.retried:
                what = f"{attempt[:2]} may have run since the backup"
                self._world.violation(f"15: {what}, and is repeated without failover")
        if payload["fence"] <= self.fences.get(place, 0):
            self._world.violation(f"9: the fence of {task_id} does not grow: {payload['fence']}")
        self.fences[place] = payload["fence"]
        if payload["job"].get("placeholders"):
            self._gets_last_success(task_id, payload)
        if part := _PART.fullmatch(context["shardingParameter"]):
            self._gets_part(task_id, payload, (int(part[1]), int(part[2])))

    def _gets_last_success(self, task_id: str, payload: dict[str, Any]) -> None:
        run, given = payload["runId"], payload.get("previousSuccess")
        if self.last_successes.setdefault(run, given) != given:
            self._world.violation(f"31: {task_id} gets {given}, other attempts got {self.last_successes[run]}")
        if given is not None and given >= payload["fireTime"]:
            self._world.violation(f"31: {task_id} of {payload['fireTime']} gets the later success {given}")
        if given is not None and (TaskName.parse(task_id).job, given) not in self.successes:
            self._world.violation(f"31: {task_id} gets {given}, and no run of this time has succeeded")

    def _gets_part(self, task_id: str, payload: dict[str, Any], part: tuple[int, int]) -> None:
        """The ranges of the jobs begin with 1."""
        item, count = payload["shardingContext"]["shardingItem"], payload["shardingContext"]["shardingTotalCount"]
        known = self.parts.setdefault(payload["runId"], {})
        self._world.history.happened["launch with a part of a range"] += 1
        if item in known:
            self._world.history.happened["repeat with a part of a range"] += 1
        if known.setdefault(item, part) != part:
            self._world.violation(f"36: {task_id} gets the part {part}, an earlier attempt got {known[item]}")
        before, behind = known.get(item - 1, (0, 0)), known.get(item + 1, (part[1] + 1, 0))
        if (item == 0 or item - 1 in known) and before[1] + 1 != part[0]:
            self._world.violation(f"36: {task_id} gets the part {part} behind {before}")
        if item + 1 < count and part[1] + 1 != behind[0]:
            self._world.violation(f"36: {task_id} gets the part {part} before {behind}")
        sizes = [last - first for first, last in known.values()]
        if max(sizes) - min(sizes) > 1 or part[0] > part[1]:
            self._world.violation(f"36: {payload['runId']} has parts of different sizes: {known}")

    def _in_its_role(self, task: dict[str, Any]) -> None:
        """A task and its executor have resources of a role of their team."""
        team = team_of(task["executor"]["source"])
        for one in (*task["resources"], *task["executor"].get("resources", ())):
            role = one["allocation_info"]["role"]
            if not self._world.plan.may_use(team, role):
                self._world.violation(f"29: {task['task_id']['value']} of team {team} has resources of the role {role}")

    def _executor_pays(self, task: dict[str, Any]) -> None:
        """An executor is charged for its resources, or Mesos' count would be wrong."""
        executor = base64.b64decode(task["executor"]["data"]).decode()
        wanted = next((need for package, need in self._world.operators.executors.items() if package in executor), None)
        charged = dict.fromkeys(("cpus", "mem"), 0)
        for one in task["executor"].get("resources", ()):
            if one["name"] in charged:
                charged[one["name"]] += round(one["scalar"]["value"] * 1_000)
        if wanted is None or (charged["cpus"], charged["mem"]) != (wanted.cpus, wanted.mem):
            self._world.violation(f"4: the executor of {task['task_id']['value']} uses {wanted}, charged is {charged}")

    def forget_run(self, firing_id: str) -> None:
        """The same fire time runs again."""
        self.attempts = {attempt: task_id for attempt, task_id in self.attempts.items() if attempt[0] != firing_id}
        self.last_successes.pop(firing_id, None)
        self.parts.pop(firing_id, None)
        self.opened.discard(firing_id)

    def forget_attempts(self, tasks: set[str]) -> list[tuple[str, int]]:
        """The state that knew these tasks is lost. Returns the firing and item of each."""
        lost = [attempt for attempt, task_id in self.attempts.items() if task_id in tasks]
        for attempt in lost:
            del self.attempts[attempt]
        return [(firing_id, item) for firing_id, item, _ in lost]

    def end_of(self, task_id: str) -> str:
        """The end of a task, "runs", or "never ran"."""
        return self.ended.get(task_id, "runs" if task_id in self.begun else "never ran")


class Promise:
    def __init__(self, world: World) -> None:
        self._world = world
        self._epoch = 0
        self._turns = 0
        self._oversized: set[str] = set()  # tasks of refused calls, as the leader knows
        self.firings: dict[str, Firing] = {}  # as last stored, including deleted ones
        self.forgotten: set[str] = set()  # firings deleted
        self.unwanted: set[str] = set()  # tasks to be killed because their job was disabled, changed or removed
        self.overdue: set[str] = set()  # tasks that exceeded their limit
        self.free: set[str] = set()  # tasks that may run together with tasks of another total
        self.emptied: set[str] = set()  # agents drained by operators since before the latest write
        self.alerting = world.plan.seed % ALERTED == ALERTED_REST
        self._alerts_sent: set[str] = set()  # messages of alerts
        self._recorded: set[str] = set()  # messages of alerts whose sending is recorded
        self._untold: dict[str, int] = {}  # alerts about ends of runs that the channel has to be told: since when
        self._told: set[str] = set()  # alerts that are open, as the channel knows
        #: (epoch, job) → agent → when the job failed there, as its executor told; those since the last success
        self.failures: dict[tuple[int, str], dict[str, list[int]]] = {}
        self.exclusive: set[str] = set()  # tasks whose jobs named `exclusive host` when they were launched
        self.slots: dict[str, Slots] = {}  # task → slots that its job named when it was launched
        self.flows = Flows(world)
        self._restored = False  # from a backup, which may contain alerts that the channel knows

    # ---- the store -------------------------------------------------------------------------------------------

    def written(self, epoch: int, before: Entries, batch: Sequence[StoredWrite]) -> None:
        """A write has succeeded."""
        if epoch != self._world.server.epoch:
            self._world.violation(f"5: epoch {epoch} wrote while {self._world.server.epoch} is current")
        decoded = {(w.kind, w.key): records.decode(w.kind, w.key, w.value) if w.value else None for w in batch}
        if batch:
            self.emptied = {key for kind, key in before if kind == Kind.DRAIN}
        for (kind, _), record in decoded.items():
            if kind is Kind.TASK and isinstance(record, Task) and record.kill_ms:
                made = (one for one in decoded.values() if isinstance(one, Firing) and not one.ended_ms)
                replaced = any(one.job == record.job and one.id != record.firing_id for one in made)
                cancelled = record.firing_id in self._world.operators.cancelled or self.flows.cancels(record.firing_id)
                if cancelled or (record.job in REPLACING and replaced) or not self._wanted(record):
                    self.unwanted.add(record.id)
        self._tasks_written(before, decoded)
        self._attempts_written(decoded)
        self._ad_hoc_written(before, decoded)
        known = set(self.firings)
        for key in self._written_firings(decoded):
            self._firing_written(key, self._whole(key), decoded)
        for key in [key for kind, key in decoded if kind is Kind.FIRING and key not in known and key in self.firings]:
            self._after_run(self.firings[key], known, decoded)
        self.flows.written(before, decoded, known)
        self._messages_written(decoded)
        self._jobs_written(before, decoded)
        for key in [key for kind, key in decoded if kind is Kind.JOB]:  # the new configuration may not fail
            self.failures.pop((epoch, key), None)
        for (kind, key), record in decoded.items():
            if kind is Kind.JOB_STATE and isinstance(record, JobState):
                self._considered(key, record, before, decoded)
                self._expected(key, record, before)

    def _jobs_written(self, before: Entries, batch: dict[Any, Any]) -> None:
        """A team gets no further job beyond its quota. The quota may have changed in the same write."""
        entries = self._world.server.entries
        new = {key for kind, key in batch if kind is Kind.JOB and (kind, key) in entries and (kind, key) not in before}
        for team in {team_of(key) for key in new} if new else ():
            value = entries.get((Kind.TEAM, team))
            record = records.decode(Kind.TEAM, team, value) if value is not None else None
            if not isinstance(record, Team) or record.quota.jobs is None or (Kind.TEAM, team) in batch:
                continue
            number = sum(kind == Kind.JOB and team_of(key) == team for kind, key in entries)
            if number > record.quota.jobs:
                self._world.violation(f"21: {new} are registered, and {team} has {number} of {record.quota.jobs} jobs")

    def _messages_written(self, batch: dict[Any, Any]) -> None:
        """The message of an alert is deleted after it was sent."""
        for key in [key for (kind, key), record in batch.items() if kind is Kind.ALERT_MESSAGE and record is None]:
            self._recorded.add(key)
            if key not in self._alerts_sent:
                self._world.violation(f"20: {key} is deleted and was never sent")

    def alert_sent(self, process: Process, due: AlertDue) -> None:
        """A process sends the message of an alert. A superseded process may not know that another one has."""
        if due.id in self._recorded and process.leader.epoch == self._world.server.epoch:
            self._world.violation(f"20: {due.id} was recorded as sent, and is sent again")
        self._alerts_sent.add(due.id)
        for alert in due.message.alerts:
            key = alert_key(alert.condition, alert.subject)
            self._untold.pop(key, None)
            (self._told.discard if alert.closed_ms else self._told.add)(key)
        self._world.history.happened["alert sent"] += 1

    def _alert_written(self, firing: Firing, batch: dict[Any, Any]) -> None:
        condition = {ShardState.DEAD: Condition.RUN_DEAD, ShardState.FAILED: Condition.RUN_FAILED}.get(firing.worst)
        known = (Kind.JOB, firing.job) in self._world.server.entries and firing.cause is not Cause.DAEMON
        repaired = any(shard.message == MESSAGE for shard in firing.shards)
        if condition is None or not known or repaired:
            return
        key = alert_key(condition, firing.job)
        alert = batch.get((Kind.ALERT, key))
        if alert is None:
            self._world.violation(f"20: {firing.id} ends {firing.worst}, and no alert is stored with its end")
        elif key not in self._told and (alert.untold or not self._restored):
            self._untold.setdefault(key, self._world.now)

    def _expected(self, name: str, state: JobState, before: Entries) -> None:
        """If no run of the day has succeeded by the expected time, there is an alert."""
        old, job = self._job_state(before, name), self._job(before, name)
        entries = self._world.server.entries
        if old is None or job is None or not job.expected_by or old.disabled or state.disabled:
            return
        since, until = old.expected_ms or 0, state.expected_ms or 0
        if not since or until <= since or until % _DAY_MS != _EXPECTED_MS:
            return
        if (Kind.DISABLED_APP, job.app_key) in before or any(kind == Kind.PAUSE for kind, _ in (*before, *entries)):
            return
        self._world.history.happened["success missed"] += 1
        if (Kind.ALERT, alert_key(Condition.EXPECTED, name)) not in entries:
            self._world.violation(f"34: {name} had no success by {until}, and no alert is stored")

    def older_state(self) -> None:
        """A backup was restored. It may contain alerts that were told since, and runs that have begun since."""
        self._restored = True
        self.flows.older_state()
        self._world.truth.last_successes.clear()
        self._world.truth.parts.clear()
        self._recorded.clear()
        self._untold.clear()
        self._told.clear()

    def _written_firings(self, batch: dict[Any, Any]) -> list[str]:
        """The firings of which the batch has changed something. No shard may have a record without its firing."""
        found = {key: None for kind, key in batch if kind is Kind.FIRING}
        for key, record in ((key, record) for (kind, key), record in batch.items() if kind is Kind.SHARD):
            firing_id, item = shard_place(key)
            found[firing_id] = None
            firing = self._firing_of(firing_id)
            if record is not None and (firing is None or not firing.wide or item >= len(firing.shards)):
                self._world.violation(f"2: {key} is stored and belongs to no wide firing")
        entries = self._world.server.entries
        if deleted := {key for key in found if (Kind.FIRING, key) not in entries}:
            left = [key for kind, key in entries if kind == Kind.SHARD and shard_place(key)[0] in deleted]
            if left:
                self._world.violation(f"2: {left[:3]} are stored, and their firings are deleted")
        return list(found)

    def is_ending(self, task_id: str) -> bool:
        """Whether it is stored that the task was asked to end."""
        value = self._world.server.entries.get((Kind.TASK, task_id))
        task = records.decode(Kind.TASK, task_id, value) if value is not None else None
        return isinstance(task, Task) and bool(task.kill_ms)

    def _attempts_written(self, batch: dict[Any, Any]) -> None:
        """An earlier attempt is stored together with its shard, which goes on, and deleted with its firing."""
        entries = self._world.server.entries
        for key, record in ((key, record) for (kind, key), record in batch.items() if kind is Kind.ATTEMPT):
            firing_id, item, number = place_of(key)
            firing = self._whole(firing_id)
            if record is None:
                continue
            if firing is None or item >= len(firing.shards) or firing.shards[item].attempt < number:
                self._world.violation(f"2: {key} is stored, and its shard knows no such attempt")
            elif firing.shards[item].state is ShardState.ACTIVE and firing.shards[item].attempt == number:
                self._world.violation(f"2: {key} is stored, and the attempt has not ended")
            elif (Kind.TASK, record.task_id) in entries:
                self._world.violation(f"2: {key} is stored, and so is its task")
        gone = {key for (kind, key), record in batch.items() if kind is Kind.FIRING and record is None}
        if gone and (left := [key for kind, key in entries if kind == Kind.ATTEMPT and place_of(key)[0] in gone]):
            self._world.violation(f"2: {left[:3]} are stored, and their firings are deleted")

    def _firing_of(self, firing_id: str) -> Firing | None:
        value = self._world.server.entries.get((Kind.FIRING, firing_id))
        record = records.decode(Kind.FIRING, firing_id, value) if value is not None else None
        assert record is None or isinstance(record, Firing)
        return record

    def _whole(self, firing_id: str) -> Firing | None:
        """A firing as it is stored, with the shards that have records of their own."""
        firing = self._firing_of(firing_id)
        if firing is None or not firing.wide:
            return firing
        shards = {}
        for item in range(len(firing.shards)):
            value = self._world.server.entries.get((Kind.SHARD, shard_key(firing_id, item)))
            record = records.decode(Kind.SHARD, firing_id, value) if value is not None else UNTRIED
            assert isinstance(record, Shard)
            shards[item] = record
        return changed(firing, shards=replaced(firing.shards, shards))

    def _tasks_written(self, before: Entries, batch: dict[Any, Any]) -> None:
        ended: dict[str, set[int]] = {}  # job → running items asked to end although they are wanted
        for task in [record for record in batch.values() if isinstance(record, Task)]:
            if task.overdue_ms:
                self._overdue_written(task)
            job = self._job(self._world.server.entries, task.job)
            if job is None or job.kind is not JobKind.DAEMON:
                continue
            old = _task(before, task.id)
            if old is None and job.independent_shards:
                self.free.add(task.id)
            asked = old is not None and old.state is TaskState.RUNNING and task.kill_ms and not old.kill_ms
            chosen = task.id in self._world.operators.by_hand or self._emptied(task.agent_id, before)
            if asked and task.item < job.shard_count and not chosen and task.id not in self.unwanted:
                ended.setdefault(task.job, set()).add(task.item)
        for name, items in ended.items():
            now = self._job(self._world.server.entries, name)
            assert now is not None
            then = self._job(before, name) or now
            # A shard that the batch adds was not down before. It may be added after the end of another was decided.
            down = self._down(before, then) & self._down(self._world.server.entries, now) | items
            if len(down) > max(now.max_unavailable, then.max_unavailable):
                self._world.violation(f"10: {items} of {name} are to be replaced, down are {down} of {now.shard_count}")

    def _emptied(self, agent_id: str, before: Entries) -> bool:
        """True if an agent is drained, or was just before."""
        drained = any((Kind.DRAIN, agent_id) in entries for entries in (before, self._world.server.entries))
        return drained or agent_id in self._world.truth.windows

    def _overdue_written(self, task: Task) -> None:
        """A task is killed for its limit only after it has run for that long. A clock jump counts as two seconds."""
        runs = self._world.truth.running.get((task.job, task.item), ())
        since = next((run.since for run in runs if run.task_id == task.id), 0)
        jumps = self._world.jumps
        if task.id not in self.overdue and since and self._world.now - since < LIMIT_MS - 2_000 * jumps:
            self._world.violation(f"2: {task.id} is ended for its limit after {self._world.now - since} ms")
        self.overdue.add(task.id)

    def _job(self, entries: Entries, name: str) -> Job | None:
        """A registered job, or that of an ad-hoc run."""
        kind = Kind.AD_HOC if is_ad_hoc(name) else Kind.JOB
        value = entries.get((kind, name))
        job = records.decode(kind, name, value) if value is not None else None
        assert job is None or isinstance(job, Job)
        return job

    def _job_state(self, entries: Entries, name: str) -> JobState | None:
        if is_ad_hoc(name):
            return AD_HOC_STATE if (Kind.AD_HOC, name) in entries else None
        value = entries.get((Kind.JOB_STATE, name))
        state = records.decode(Kind.JOB_STATE, name, value) if value is not None else None
        assert state is None or isinstance(state, JobState)
        return state

    def _ad_hoc_written(self, before: Entries, batch: dict[Any, Any]) -> None:
        """An ad-hoc job has its run. It is deleted before its run only if its app is removed."""
        entries = self._world.server.entries
        runs = [record for (kind, _), record in batch.items() if kind is Kind.FIRING and record is not None]
        keys = {key for kind, key in batch if kind is Kind.AD_HOC}
        for key in keys | {run.job for run in runs if is_ad_hoc(run.job)}:
            found = [name for kind, name in entries if kind == Kind.FIRING and name.startswith(f"{key}.")]
            if (Kind.AD_HOC, key) in entries and len(found) != 1:
                self._world.violation(f"19: {key} is stored, and its runs are {found}")
            new = [run.id for run in runs if run.job == key and run.id not in self.firings and not run.ended_ms]
            if (Kind.AD_HOC, key) not in entries and new and not self._world.extremes.given_up:
                self._world.violation(f"19: {new} is stored without its job")
            job = self._job(before, key)
            app = (Kind.APP, job.app_key) if job is not None else None
            if (Kind.AD_HOC, key) not in entries and found and app in entries and app not in batch:
                self._world.violation(f"19: {key} is deleted, and its runs are {found}")

    def _down(self, entries: Entries, job: Job) -> set[int]:
        """The items of a resident that, according to the store, do not run or are asked to end."""
        tasks = [_task(entries, key) for kind, key in entries if kind == Kind.TASK]
        up = {one.item for one in tasks if one and one.job == job.key and one.state is TaskState.RUNNING
              and not one.kill_ms}  # fmt: skip
        return set(range(job.shard_count)) - up

    def loaded(self, stored: StoredRecords) -> None:
        """A load returns exactly the records written, despite split batches, cleaning and lost answers."""
        found: Entries = {(kind, key): value for kind, each in stored.records.items() for key, value in each.items()}
        entries = self._world.server.entries
        if stored.faults:
            self._world.violation(f"7: intact records are reported as damaged: {stored.faults}")
        if found != entries:
            wrong = [place for place in found.keys() | entries.keys() if found.get(place) != entries.get(place)]
            self._world.violation(f"7: the records read differ from those written: {sorted(wrong)[:5]}")

    def _firing_written(self, key: str, record: Any, batch: dict[Any, Any]) -> None:
        if record is not None:
            old, retried = self.firings.get(key), key in self._world.operators.retried
            if key in self.forgotten and self._world.jumps:
                # The clock was set back, an operator revived the job, and the run was no longer in the history.
                old = None
                self.forgotten.discard(key)
                self._world.truth.forget_run(key)
            if old is not None and old.ended_ms and record != old and not retried:
                self._world.violation(f"2: {key} had ended and goes on")
            if old is None and record.terms.key:
                self._only_one(record)
            self._outcomes(record)
            if record.ended_ms and record.worst is ShardState.FINISHED and not record.terms.items:
                self._world.truth.successes.add((record.job, record.fire_ms))
            if self.alerting and record.ended_ms and (old is None or not old.ended_ms):
                self._alert_written(record, batch)
            self._not_charged(record)
            if not self._job_changed(record.job, batch) and key not in self._world.extremes.given_up:
                self._retried(record)
            self.firings[key] = record
            return
        old = self.firings.get(key)
        self.forgotten.add(key)
        if old is None or old.ended_ms:
            return
        gone = self._job(self._world.server.entries, old.job) is None
        if self._job_changed(old.job, batch) or gone or self._displaced(old):
            alive = [
                s.task_id for s in old.shards if s.state is ShardState.ACTIVE and self._stored(Kind.TASK, s.task_id)
            ]
            if not alive:
                return
        self._world.violation(f"2: {key} vanishes unfinished: {old}")

    def _job_changed(self, name: str, batch: dict[Any, Any]) -> bool:
        return (Kind.JOB, name) in batch or (Kind.AD_HOC, name) in batch

    def _after_run(self, firing: Firing, known: set[str], batch: dict[Any, Any]) -> None:
        """A run that only `@after` explains comes when all others have ended, and the delay after the last end."""
        job = self._job(self._world.server.entries, firing.job)
        by_time = firing.cause in (Cause.CRON, Cause.CATCH_UP) and not firing.terms.backfill
        jumped = self._world.jumps or self._world.extremes.misled or self._world.extremes.given_up
        if job is None or (Kind.JOB, job.key) in batch or not by_time or jumped:
            return
        if not job.delay_ms or (job.cron and job.schedule().next_after(firing.fire_ms - 1) == firing.fire_ms):
            return
        others = [
            one
            for one in self.firings.values()
            if one.job == job.key and one.id in known and self._stored(Kind.FIRING, one.id)
            and not (one.id in self._world.operators.retried and (Kind.FIRING, one.id) in batch)
        ]  # fmt: skip
        if running := [one.id for one in others if not one.ended_ms]:
            self._world.violation(f"33: {firing.id} is queued, and {running} have not ended")
        ended = max((one.ended_ms for one in others), default=0)
        if ended and firing.fire_ms < ended + job.delay_ms:
            self._world.violation(f"33: {firing.id} is {firing.fire_ms - ended} ms after the end of the run before it")

    def _only_one(self, firing: Firing) -> None:
        same = (one for one in self.firings.values() if one.job == firing.job and one.terms.key == firing.terms.key)
        if found := [one.id for one in same if one.id != firing.id and self._stored(Kind.FIRING, one.id)]:
            self._world.violation(f"17: {firing.id} and {found} have one key")

    def _displaced(self, old: Firing) -> bool:
        """True if a run that has just ended does not fit into the history of its job, beside newer ones."""
        kept = [one for one in self.firings.values() if one.job == old.job and self._stored(Kind.FIRING, one.id)]
        ended = [
            one for one in kept if one.ended_ms or not any(shard.state is ShardState.ACTIVE for shard in one.shards)
        ]
        return sum(len(one.shards) for one in (old, *ended)) > MAX_ENDED_SHARDS

    def _outcomes(self, firing: Firing) -> None:
        """The stored outcome of a shard agrees with its executor."""
        for item, shard in enumerate(firing.shards):
            how = self._world.truth.end_of(shard.task_id)
            if shard.state is ShardState.FINISHED and how != "TASK_FINISHED":
                self._world.violation(f"2: {firing.id}/{item} is FINISHED, yet its task {how}")
            given_up = shard.state in (ShardState.FAILED, ShardState.DEAD)
            if firing.id in self._world.extremes.given_up:
                continue
            if given_up and how != "TASK_FAILED" and self._comes_back(firing, item, how):
                self._world.violation(f"2: {firing.id}/{item} is given up, its task {how}: {shard}")

    def _not_charged(self, firing: Firing) -> None:
        """A launch call that was refused for its size is no failure of its shards, and no fault of the agent."""
        old = self.firings.get(firing.id)
        if old is None or not self._oversized:
            return
        for then, now in zip(old.shards, firing.shards, strict=False):
            if now.task_id not in self._oversized or then.task_id != now.task_id:
                continue
            if now.failures > then.failures:
                self._world.violation(f"14: the refused call of {now.task_id} is charged to its shard")
            if now.avoid_ms:
                self._world.violation(f"14: the refused call of {now.task_id} makes its shard avoid the agent")

    def _retried(self, firing: Firing) -> None:
        """A shard that its job failed is repeated as often as the job says."""
        job, old = self._job(self._world.server.entries, firing.job), self.firings.get(firing.id)
        before = old.shards[:] if old is not None else ()
        truth, operators = self._world.truth, self._world.operators
        for item, shard in enumerate(firing.shards):
            if job is None or shard.state is not ShardState.FAILED or shard.retries >= job.retry_count:
                continue
            task_id = shard.task_id
            failed = truth.reported.get(task_id) == {"TASK_FAILED"} and truth.end_of(task_id) == "TASK_FAILED"
            spared = task_id in operators.killed | operators.forgotten | self.unwanted
            # The leader heard that the task was lost with its framework, not that it failed.
            spared |= truth.framework_of.get(task_id) in truth.removed
            # In a pause, a shard that a resident job no longer has goes on.
            spared |= firing.cause is Cause.DAEMON and item >= job.shard_count
            if failed and not spared and shard not in before[item : item + 1]:
                self._world.violation(f"2: {firing.id}/{item} failed and is not repeated: {shard}")

    def _wanted(self, task: Task) -> bool:
        """True if no stored record is a reason to kill the task."""
        entries = self._world.server.entries
        state, firing = self._job_state(entries, task.job), self.firings.get(task.firing_id)
        if state is None or firing is None:
            return False
        return (
            not state.disabled
            and (Kind.DISABLED_APP, task.app) not in entries
            and (state.generation == firing.generation)
        )

    def _comes_back(self, firing: Firing, item: int, how: str) -> bool:
        """True if a shard whose attempt was lost without fault of its job must be tried again."""
        shard = firing.shards[item]
        entries = self._world.server.entries
        job, state = self._job(entries, firing.job), self._job_state(entries, firing.job)
        if job is None or state is None:
            return False
        if shard.failures >= job.failover_attempts or (firing.cause is Cause.DAEMON and item >= job.shard_count):
            return False
        if state.generation != firing.generation or state.disabled or (Kind.DISABLED_APP, job.app_key) in entries:
            return False
        # A task that was being killed when the job was enabled again ends all the same.
        killed = shard.task_id in self._world.operators.killed or shard.task_id in self.unwanted | self.overdue
        if how == "never ran" and shard.task_id not in self._world.truth.doubtful:
            return not killed
        return not killed and (job.failover or firing.step(item) is not None) and how in ("never ran", "died")

    def _stored(self, kind: Kind, key: str) -> bool:
        return (kind, key) in self._world.server.entries

    def _considered(self, name: str, state: JobState, before: Entries, batch: dict[Any, Any]) -> None:
        """No due instant is passed over in silence."""
        old_value, job_value = before.get((Kind.JOB_STATE, name)), before.get((Kind.JOB, name))
        if old_value is None or job_value is None:
            return
        old, job = records.decode(Kind.JOB_STATE, name, old_value), records.decode(Kind.JOB, name, job_value)
        assert isinstance(old, JobState)
        assert isinstance(job, Job)
        back = state.considered_ms < old.considered_ms and state.skipped >= old.skipped  # or it was registered anew
        # An operator may revive a job that was considered far ahead.
        if back and old.considered_ms - state.considered_ms <= AHEAD_MS:
            self._world.violation(f"2: {name} is considered until {state.considered_ms}, was {old.considered_ms}")
        if (Kind.JOB, name) in batch or job.kind is JobKind.DAEMON or state.disabled or old.disabled:
            return
        if state.considered_ms <= old.considered_ms:
            return
        if any(kind is Kind.DISABLED_APP for kind, _ in batch) or (Kind.DISABLED_APP, job.app_key) in before:
            return
        if any((Kind.CALENDAR, key) in batch for key in job.calendars):
            return  # either of the two calendars may have decided
        days = {key: _days(before, key) for key in job.calendars}
        schedule, span = job.times(days), (old.considered_ms, state.considered_ms)
        firings = [one for (kind, _), one in batch.items() if kind is Kind.FIRING and isinstance(one, Firing)]
        caught_up = sum(one.job == name and one.cause is Cause.CATCH_UP and not one.terms.backfill for one in firings)
        recorded = {one.fire_ms for one in self.firings.values() if one.job == name and one.cause is Cause.CRON}
        on_time = sum(span[0] < instant <= span[1] for instant in recorded)
        for one in firings:
            of_time = one.job == name and one.cause is Cause.CRON and span[0] < one.fire_ms <= span[1]
            if of_time and not (job.delay_ms or _is_due(job, one.fire_ms)):
                self._world.violation(f"30: {one.id} is queued, and no trigger of its job is due then")
            day = datetime.fromtimestamp(one.fire_ms / 1_000, UTC).date().isoformat()
            if of_time and any(day in found.texts() for found in days.values()):
                self._world.violation(f"30: {one.id} is queued, and a calendar of its job excludes the day")
        if isinstance(schedule, Timing) and schedule.count(*span) >= MAX_COUNTED:
            return  # the count of so many fire times is not exact if there are several triggers
        unexplained = schedule.count(*span) - on_time - caught_up - (state.skipped - old.skipped)
        if unexplained > 0:
            due = schedule.between(*span, 20)
            self._world.violation(f"2: {name} was due at {due}, and no record says why {unexplained} did not fire")

    # ---- decisions -------------------------------------------------------------------------------------------

    def launched(self, core: SimCore, before: Before, effects: Sequence[Effect], at: int) -> None:
        """After a scheduling cycle, no waiting shard that would fit was ahead of a launched one."""
        accepts = [effect for effect in effects if isinstance(effect, Accept)]
        tasks = [core.tasks[one.task_id] for accept in accepts for one in accept.launches]
        if held := [task.id for task in tasks if not task.placeholder and core.paused(task.job)]:
            self._world.violation(f"18: {held} are launched, and their jobs are paused")
        self._in_their_places(core, tasks, at)
        self._within_quotas(core, before, tasks)
        self._within_pools(core, tasks)
        self._together(core, before, tasks)
        for task in tasks:
            self._in_time(core, before, task, at)
        # The other shards for the agent of a call that is full wait for its next offer.
        full = any(_is_full(core, accept) for accept in accepts)
        waiting = list(_waiting(core, before.firings, at)) if core._cycle.cycles > before.cycles and not full else []
        waiting = [(firing, item) for firing, item in waiting if not self.flows.held(core, firing.id, item)]
        if before.gang_hold is not None or core._cycle._gangs.hold is not None:
            self._world.history.happened["cycle with room held back for a gang"] += 1
            waiting = []
        if waiting and not core._cycle._circuit_breakers.open and before.total == core.cluster._total:
            world = self._world
            shares.Cycle(world, core, before.tasks, before.executors, before.held, accepts, waiting, at).check()
        for task in tasks:
            for firing, item in waiting if not task.placeholder else ():
                job, shard = core.jobs[firing.job], firing.shards[item]
                fits = all(ours <= theirs for ours, theirs in zip(job.resources, task.resources, strict=True))
                fits = fits and not self._broken(core, job, task.agent_id) and not _counts(job)
                fits = fits and task.agent_id not in self.failures.get((core.epoch, job.key), {})
                if fits and job.app_key == task.app and _ahead(core, firing, shard, task):
                    if all(dict(task.slots).get(key, 0) >= number for key, number in slots_of(job)):
                        self._world.violation(f"13: {task.id} starts before shard {item} of {firing.id}: {shard}")
                    elif key := self._takes_kept_slots(core, before, job, task):
                        self._world.violation(f"28: {task.id} takes slots of {key} before shard {item} of {firing.id}")

    def _together(self, core: SimCore, before: Before, tasks: Sequence[Task]) -> None:
        """The first tasks of a run with gang start leave no shard of the run behind."""
        for firing_id in {task.firing_id for task in tasks if not task.placeholder}:
            firing, known = core.firings[firing_id], before.firings.get(firing_id)
            job = core.jobs.get(firing.job)
            if job is None or not job.gang_start or (known is not None and _has_started(known)):
                continue
            if _has_started(firing):
                self._world.history.happened["start of a gang"] += 1
                if left := [item for item, shard in enumerate(firing.work) if shard.state is ShardState.WAITING]:
                    self._world.violation(f"35: {firing_id} starts without its shards {left}: {_brief(firing.work)}")

    def _in_time(self, core: SimCore, before: Before, task: Task, at: int) -> None:
        """The first shard of a run starts within the deadline of its job."""
        job, firing = core.jobs.get(task.job), before.firings.get(task.firing_id, core.firings.get(task.firing_id))
        if job is None or firing is None or task.placeholder or firing.terms.backfill or firing.terms.retried:
            return
        begun = any(shard.attempt or shard.state is not ShardState.WAITING for shard in firing.chosen)
        if job.start_deadline_ms and not begun and at > firing.fire_ms + job.start_deadline_ms:
            late = at - firing.fire_ms
            self._world.violation(f"30: {task.id} starts {late} ms after its fire time, and its job allows less")

    def _in_their_places(self, core: SimCore, tasks: Sequence[Task], at: int) -> None:
        """The agent of a new task meets all constraints. The test knows the zone of a host without an offer."""
        for task in tasks:
            if not task.placeholder and EXCLUSIVE in core.jobs[task.job].constraints:
                self.exclusive.add(task.id)
            self._keeps_apart(core, task)
            self._keeps_near(core, task)
            self._keeps_away(core, task, at)
            if broken := self._broken(core, core.jobs.get(task.job) or core.apps[task.app], task.agent_id):
                self._world.violation(f"24: {task.id} starts on an agent that fails {broken}")

    def _keeps_apart(self, core: SimCore, task: Task) -> None:
        """With a new task, at most as many live tasks of its job are on one agent or in one zone as the job says."""
        job = core.jobs.get(task.job)
        zones = {host.agent.agent_id: host.zone for host in self._world.cluster.hosts}
        for text in job.constraints if job is not None and not task.placeholder else ():
            if not text.startswith("at most"):
                continue
            number, by_zone = int(text.split()[2]), text.endswith("zone")
            place = zones.get(task.agent_id) if by_zone else task.agent_id
            agents = [one.agent_id for one in core.tasks.values() if one.job == task.job]
            found = sum((zones.get(agent) if by_zone else agent) == place for agent in agents)
            self._world.history.happened["launch with a rule"] += 1
            if place is not None and found > number:
                self._world.violation(f"25: {task.id} is number {found} in {place}, allowed is {text}")

    def _keeps_near(self, core: SimCore, task: Task) -> None:
        """A new task starts in a zone in which a live task of the other job is."""
        target = _neighbour(core.jobs.get(task.job)) if not task.placeholder else ""
        if not target:
            return
        zones = {host.agent.agent_id: host.zone for host in self._world.cluster.hosts}
        found = {zones.get(one.agent_id) for one in core.tasks.values() if one.job == target}
        self._world.history.happened["launch near another job"] += 1
        if zones.get(task.agent_id) not in found | {None} and None not in found:
            self._world.violation(f"26: {task.id} starts in {zones[task.agent_id]}, {target} runs in {found}")

    def _keeps_away(self, core: SimCore, task: Task, at: int) -> None:
        """A job avoids an agent on which it has failed three times in a row, if a large agent is left for it.

        Only failures that the job itself reported count here. The leader may count further ones.
        """
        job, known = core.jobs.get(task.job), self.failures.get((core.epoch, task.job), {})
        times = known.get(task.agent_id, [])
        # A failure that is followed by none for long is forgotten.
        long = (n for n in range(len(times) - 1, 0, -1) if times[n] - times[n - 1] >= core.policy.avoid_ms)
        times = times[next(long, 0) :]
        if job is None or len(times) < job.avoid_after or at - times[-1] >= core.policy.avoid_ms or self._world.jumps:
            return
        hosts = {host.agent.agent_id for host in self._world.cluster.hosts if not host.dead and host.cpus >= 2}
        left = [
            agent.id for agent in core.cluster.agents.values()
            if agent.id in hosts - known.keys() - core.cluster.cordoned and agent.seen_ms and not agent.lost
            and core.cluster.whole(agent).cpus >= 1_000  # a new leader may have been offered only a part of it
            and not self._broken(core, job, agent.id)
        ]  # fmt: skip
        self._world.history.happened["launch after failures"] += 1
        # If a command of this turn has changed the job, the former failures do not count.
        if left and len(known) < _MANY_AGENTS and self._is_stored(job):
            self._world.violation(f"27: {task.id} starts, and its job has failed there at {times}, left are {left}")

    def _is_stored(self, job: Job) -> bool:
        value = self._world.server.entries.get((Kind.JOB, job.key))
        return value is not None and records.decode(Kind.JOB, job.key, value) == job

    def _note_failure(self, core: SimCore, task: Task, at: int) -> None:
        ends, job = self._world.truth.reported.get(task.id, set()), core.jobs.get(task.job)
        known = self.failures.setdefault((core.epoch, task.job), {})
        if ends == {"TASK_FINISHED"} or job is None:
            known.pop(task.agent_id, None)
        elif ends == {"TASK_FAILED"} and self._world.truth.end_of(task.id) == "TASK_FAILED" and not task.kill_ms:
            known.setdefault(task.agent_id, []).append(at)
        else:
            known.setdefault(task.agent_id, [])  # the leader may count it

    def _broken(self, core: SimCore, of: App | Job, agent_id: str) -> list[str]:
        """The constraints of a job and its app, or of an app alone, that an agent fails."""
        app = core.apps.get(of.app_key) if isinstance(of, Job) else None
        texts = (*of.constraints, *(app.constraints if app is not None else ()))
        texts = tuple(text for text in texts if not text.startswith(_RULES))
        host = next((one for one in self._world.cluster.hosts if one.agent.agent_id == agent_id), None)
        if host is None or not texts:
            return []
        self._world.history.happened["launch with constraints"] += 1
        return [text for text in texts if not _meets(host.agent.settings.hostname, host.zone, text)]

    def _within_quotas(self, core: SimCore, before: Before, tasks: Sequence[Task]) -> None:
        """A team uses at most its quota of everything that its new tasks and executors need."""
        new = [executor for key, executor in core.executors.items() if key not in before.executors]
        for team in {team_of_task(task) for task in tasks} & core._state.teams.keys():
            quota, found = core._state.teams[team].quota, [task for task in tasks if team_of_task(task) == team]
            used, needed = used_by(core.tasks.values(), core.executors.values(), team), used_by(found, new, team)
            rows = [
                (name, getattr(used, name), getattr(quota, name), getattr(needed, name)) for name in ("cpus", "mem")
            ]
            started = sum(not task.placeholder for task in found)
            rows.append(("shards", attempts_of(core.tasks.values(), team), quota.shards, started))
            over = [(name, amount, limit) for name, amount, limit, need in rows if need and amount > (limit or amount)]
            if over:
                self._world.violation(f"21: {[task.id for task in found]} start, and {team} uses {over}")
            self._world.history.happened["launch with a quota"] += 1

    def _within_pools(self, core: SimCore, tasks: Sequence[Task]) -> None:
        """The slots that all jobs named for their tasks when these started are no more than there are."""
        for task in tasks:
            self.slots[task.id] = slots_of(core.jobs[task.job]) if not task.placeholder else ()
        for key in {key for task in tasks for key, _ in self.slots[task.id]}:
            used = sum(dict(self.slots.get(task_id, ())).get(key, 0) for task_id in core.tasks)
            if used > core.pools[key].slots:
                names = [task.id for task in tasks if key in dict(self.slots[task.id])]
                self._world.violation(
                    f"28: {names} start, and {used} of {core.pools[key].slots} slots of {key} are taken"
                )
            self._world.history.happened["launch with slots of a pool"] += 1

    def _takes_kept_slots(self, core: SimCore, before: Before, job: Job, task: Task) -> str:
        """The pool of which a task takes slots, although it had too few for a shard of a job ahead of it; or ""."""
        wanted = slots_of(job)
        residents = [self.slots.get(task.id, ()) for task in before.tasks.values() if task.revision]
        if team_of(job.key) in core._state.teams or any(
            number > core.pools.get(key, Pool(0)).slots - sum(dict(slots).get(key, 0) for slots in residents)
            for key, number in wanted
        ):
            return ""  # the quota may hold the shard, or it may never get its slots
        used = {key: sum(dict(self.slots.get(one, ())).get(key, 0) for one in before.tasks) for key, _ in wanted}
        if any(number == 1 and used[key] >= core.pools[key].slots for key, number in wanted):
            return ""  # while one of its pools is full, it keeps no slots of the others
        for key, number in wanted:
            if key in dict(task.slots) and used[key] + number > core.pools[key].slots:
                return key
        return ""

    def task_ended(self, core: SimCore, task: Task, at: int) -> None:
        """A shard that ended without being asked to waits before it is tried again."""
        self._note_failure(core, task, at)
        job, firing = core.jobs.get(task.job), core.firings.get(task.firing_id)
        if job is None or firing is None or task.id in self._world.operators.killed:
            return
        shard = firing.shards[task.item]
        wait = shard.not_before_ms - at
        if shard.state is ShardState.WAITING and wait < min(job.failover_delay_ms, job.retry_delay_ms):
            self._world.violation(f"13: {task.id} has ended and starts again within {wait} ms")

    # ---- calls -----------------------------------------------------------------------------------------------

    def sent(self, process: Process, call: Call | Acknowledge) -> None:
        """A call is handed to the driver."""
        leads = process.leader.epoch == self._world.server.epoch
        if isinstance(call, Accept):
            for launched in call.launches:
                if leads and not self._stored(Kind.TASK, launched.task_id):
                    self._world.violation(f"8: {launched.task_id} is sent before its intent is stored")
            if leads and call.launches and call.agent_id in self.emptied and self._stored(Kind.DRAIN, call.agent_id):
                self._world.violation(f"12: {call.agent_id} is drained and gets {call.launches[0].task_id}")
            self._spends(call)
        elif isinstance(call, ShutdownExecutor) and leads:
            self._shuts_down(process, call)
        elif isinstance(call, Acknowledge) and leads:
            self._acknowledges(call)

    def _shuts_down(self, process: Process, call: ShutdownExecutor) -> None:
        there = (call.agent_id, call.executor_id)
        tasks = [task for task in process.core.tasks.values() if (task.agent_id, task.executor_id) == there]
        asked, now = self._world.truth.asked, self._world.now
        least = _TIME_TO_END_MS - 2_000 * self._world.jumps
        if tasks and not any(task.id in asked and now - asked[task.id] >= least for task in tasks):
            self._world.violation(f"11: {call.executor_id} on {call.agent_id} is shut down, asked to end were {asked}")

    def _spends(self, call: Accept) -> None:
        master = self._world.cluster.master.state
        if not all(offer_id in master.offers for offer_id in call.offer_ids):
            return
        offered = NOTHING
        for offer_id in call.offer_ids:
            offered = offered + master.offers[offer_id].resources
        spent = amounts(share for one in call.launches for share in one.shares)
        for name, amount in (("cpus", spent.cpus), ("mem", spent.mem), ("disk", spent.disk)):
            if amount > offered.amount(name):
                self._world.violation(f"4: an ACCEPT spends {amount} of {offered.amount(name)} {name}")

    def _acknowledges(self, call: Acknowledge) -> None:
        task_id, state = self._world.truth.state_of.get(call.uuid, (call.task_id, ""))
        value = self._world.server.entries.get((Kind.TASK, call.task_id))
        if task_id != call.task_id:
            self._world.violation(f"8: the update of {task_id} is acknowledged for {call.task_id}")
        if value is None:
            return
        task = records.decode(Kind.TASK, call.task_id, value)
        assert isinstance(task, Task)
        if state in _ENDS or (state == "TASK_RUNNING" and task.state in _NOT_YET):
            self._world.violation(f"8: {state} of {task_id} is acknowledged, stored is {task.state}")

    def refused(self, body: bytes) -> None:
        """A call was refused for its size. Only a proxy refuses calls within the scheduler's own limit."""
        self._world.note(f"a call of {len(body)} bytes is refused")
        self._world.history.happened["call_too_large"] += 1
        if len(body) > LARGEST_CALL:
            self._world.violation(f"14: a call of {len(body)} bytes: {body[:200]!r}")

    def refusal_heard(self, event: SendFailed, epoch: int) -> None:
        """The leader of an epoch learns that a call was refused for its size. A superseded one can store nothing."""
        if isinstance(event.call, Accept) and epoch == self._world.server.epoch:
            self._oversized |= {launch.task_id for launch in event.call.launches}

    # ---- processes -------------------------------------------------------------------------------------------

    def turned(self, process: Process) -> None:
        """After a turn of the loop the core's invariants hold, and its state is stored."""
        self._turns += 1
        try:
            process.core.validate(matcher=self._turns % _MATCHER_TURNS == 0)
        except AssertionError as error:
            self._world.violation(f"3: {error}")
        if process.core.faults:
            self._world.violation(f"2: a job has failed inside the scheduler: {process.core.faults}")
        if process.leader.faults:
            self._world.violation(f"14: a record cannot be stored: {process.leader.faults[0]}")

    def restored(self, process: Process) -> None:
        self._oversized.clear()  # this leader has not heard of the refusals: it takes the tasks for lost
        self.turned(process)
        if process.leader.epoch == self._world.server.epoch:  # a superseded leader need not know the latest records
            self.as_stored(process)
            self._world.operators.check(process)

    def as_stored(self, process: Process) -> None:
        """The leader has adopted every stored task, unless its next write deletes it."""
        core, entries = process.core, self._world.server.entries
        stored = {key for kind, key in entries if kind == Kind.TASK}
        if not stored <= core.tasks.keys() | _dirty(core):
            self._world.violation(f"2: stored tasks are not adopted: {stored - core.tasks.keys()}")

    def process_ended(self, process: Process) -> None:
        self._world.operators.process_ended(process)

    # ---- at the end ------------------------------------------------------------------------------------------

    def unsettled(self, process: Process, due_until: int) -> str:
        """The first thing that still has to end or to run, or ""."""
        core = process.core
        for firing in core.firings.values():
            if self.waits_for_other_jobs(core, firing.job):
                continue
            if firing.cause is not Cause.DAEMON and not firing.ended_ms and firing.fire_ms <= due_until:
                return f"{firing.id} has not ended: {_brief(firing.shards)}: {self._why(process, firing.job)}"
        if late := [key for key, since in self._untold.items() if self._world.now - since > _TOLD_WITHIN_MS]:
            return f"20: nobody was told of {late}"
        if waits := self._without_delay(core):
            return waits
        if stuck := [name for name in core.backfills if core._backfills._may_start(name)]:
            return f"the backfills of {stuck} do not go on"
        for job in core.jobs.values():
            if (
                job.kind is JobKind.DAEMON
                and not core.job_states[job.key].disabled
                and job.app_key not in core.disabled_apps
            ):
                for item in range(job.shard_count):
                    if len(self._world.truth.running.get((job.key, item), ())) != 1:
                        runs = self._world.truth.running.get((job.key, item), ())
                        return f"resident {job.key}/{item} does not run once: {[run.task_id for run in runs]}"
        for app in core.apps.values():
            wanted = app.executors if app.key not in core.disabled_apps else 0
            if wanted > core.warm_executors(app.key):
                return f"app {app.key} keeps {core.warm_executors(app.key)} executors, not {wanted}"
        if wrong := self._out_of_date(core):
            return wrong
        for place, runs in self._world.truth.running.items():
            if not 1 <= len(runs) <= AT_ONCE.get(place[0], 1):
                return f"{place} runs {len(runs)} times"
            resident = core.jobs.get(place[0])
            placeholder = core.tasks.get(runs[0].task_id)
            if placeholder is not None and placeholder.placeholder:
                if (
                    placeholder.app not in core.apps
                    or not core.apps[placeholder.app].executors
                    or placeholder.app in core.disabled_apps
                ):
                    return f"{runs[0].task_id} keeps an executor that is no longer wanted"
            elif runs[0].daemon and (
                resident is None or core.job_states[resident.key].disabled or resident.app_key in core.disabled_apps
            ):
                return f"resident {place} runs and is no longer wanted"
            if runs[0].task_id not in core.tasks:
                return f"{runs[0].task_id} runs and the scheduler does not know it"
            if to_end := [run.task_id for run in runs if run.task_id in self._world.operators.to_end]:
                return f"{to_end} run on, although their kill was answered as stored"
        return ""

    def waits_for_other_jobs(self, core: SimCore, job: str) -> bool:
        """Whether a job must run near another one that does not run, or the other jobs leave no agent to it."""
        target = _neighbour(core.jobs.get(job))
        if target and not any(task.job == target for task in core.tasks.values()):
            return True
        return not self._has_an_empty_agent(core, job)

    def _has_an_empty_agent(self, core: SimCore, job: str) -> bool:
        """Whether an exclusive job may have an agent without shards. True for other jobs."""
        found = core.jobs.get(job)
        if found is None or EXCLUSIVE not in found.constraints:
            return True
        busy = {task.agent_id for task in core.tasks.values() if not task.placeholder}
        return any(host.agent.agent_id not in busy for host in self._world.cluster.hosts if host.cpus >= 2)

    def _without_delay(self, core: SimCore) -> str:
        """The first job whose next run after the end of a run is not due within the delay, or "".

        A blackout or an excluded day may postpone this run.
        """
        now = self._world.clock()
        for job in core.jobs.values():
            if not job.delay_ms or job.pauses_by_itself or not core.enabled(job.key) or core.paused(job.key):
                continue
            due, waits = core.due.get(job.key), core.job_states[job.key].after_ms
            if waits and not core.queue.unfinished(job.key) and (due is None or due > now + job.delay_ms + 1_000):
                return f"33: {job.key} is due at {due}, its last run ended {job.delay_ms} ms before {waits}"
        return ""

    def silent(self, process: Process) -> list[str]:
        """The enabled jobs that do not fire for days. Only a scheduler that starts with a wrong clock makes them so."""
        core, latest = process.core, self._world.clock() + _LONGEST_SILENCE_MS
        found = [
            job.key
            for job in core.jobs.values()
            if job.kind is not JobKind.DAEMON and core.enabled(job.key)
            and core.job_states[job.key].considered_ms > latest
            and not (job.fires_after_runs_only and core.job_states[job.key].after_ms)
        ]  # fmt: skip
        if found and not self._world.extremes.misled:
            self._world.violation(f"6: {found} do not fire for days, because the clock was ahead for seconds")
        if found and not core.warnings:
            self._world.violation(f"6: {found} do not fire for days, and nobody is told")
        return found

    def _out_of_date(self, core: Any) -> str:
        """The first resident task that does not run the last configuration, or ""."""
        for (name, item), runs in self._world.truth.running.items():
            job = core.jobs.get(name)
            if not runs[0].daemon or job is None or job.app_key not in core.apps:
                continue
            for run in runs:
                known = run.parameter, run.package
                wanted = job.parameter, core.apps[job.app_key].package.sha256
                if item >= job.shard_count or known != wanted:
                    return f"{run.task_id} is {known}, configured are {job.shard_count} of {wanted}"
                if run.total != job.shard_count and not job.independent_shards:
                    return f"{run.task_id} is one of {run.total}, there are {job.shard_count}"
        return ""

    def _why(self, process: Process, job: str) -> str:
        if job not in process.core.jobs:
            return "its job was removed"
        return ", ".join(reason.text for reason in process.core.explain(job, self._world.clock()).reasons)

    def unrest(self, process: Process) -> str:
        """Anything left after all apps and jobs were removed and had time to end, or ""."""
        core, master = process.core, self._world.cluster.master.state
        if self._world.truth.running:
            return f"still running: {sorted(self._world.truth.running)}"
        if core.tasks or core.firings:
            return f"the scheduler has {list(core.tasks)}, {list(core.firings)}"
        waiting = [key for key, alert in core.alerts.items() if alert.untold]
        if untold := [*waiting, *core.alert_messages, *self._untold]:
            return f"20: nobody was told of {untold}"
        alive = [executor.id for host in self._world.cluster.hosts for executor in host.executors.values()]
        if alive:
            return f"executors still live: {alive}"
        return "".join(
            f"{agent.agent_id} still has {list(agent.tasks)}" for agent in master.agents.values() if agent.tasks
        )

    def leftovers(self, process: Process) -> str:
        """At rest all indexes of the scheduler are empty, and the store holds only lasting records."""
        core = process.core
        claims, holds = core.cluster.claim_count()
        indexes: dict[str, Any] = {
            "executors": list(core.executors), "claims": claims, "holds": holds,
            "matcher": core.cluster.matcher.claims(), "queue": len(core.queue), "states": core.job_states,
            "disabled": core.disabled_apps, **core.indexes(),
            "store": [key for key in self._world.server.entries if not _LASTING & {key, key[0]}],
        }  # fmt: skip
        return ", ".join(f"{name}: {left}" for name, left in indexes.items() if left)


def _counts(job: Job) -> bool:
    """Whether rules about other shards of a job decide where it runs."""
    return any(text.startswith(_RULES) for text in job.constraints)


def _neighbour(job: Job | None) -> str:
    """The key of the job near which a job must run, or ""."""
    texts = [text for text in job.constraints if text.startswith("near ")] if job is not None else []
    return key_of(job.team, texts[0].split()[1]) if job is not None and texts else ""


def _meets(hostname: str, zone: str, constraint: str) -> bool:
    """Whether a host meets a constraint of the operators. This is independent of the product's own parser."""
    attribute, operator, values = constraint.split(" ", 2)
    listed = {"zone": zone, "host": hostname}[attribute] in values.split(", ")
    return listed != (operator == "!=")


def _is_full(core: SimCore, accept: Accept) -> bool:
    many = len(accept.launches) >= core._cycle._accept_tasks
    return many or sum(one.size for one in accept.launches) >= core._state.policy.accept_bytes


def _waiting(core: SimCore, before: dict[str, Firing], at: int) -> Iterator[tuple[Firing, int]]:
    """The shards that could have started in a cycle and did not, of firings that certainly may run."""
    unended = [firing for firing in before.values() if not firing.ended_ms]
    firings = Counter(firing.job for firing in unended)
    for firing in unended:
        job = core.jobs.get(firing.job)
        if job is None or not core.enabled(job.key) or firing.generation != core.job_states[job.key].generation:
            continue
        if firing.stepped or firing.id not in core.firings or core.paused(job.key):
            continue
        if job.gang_start and not _has_started(firing):
            continue  # all of its shards need room; promise 35 is about these
        if firings[job.key] > 1 and not any(shard.state is ShardState.ACTIVE for shard in firing.shards):
            continue
        for item, shard in enumerate(firing.shards):
            waits = shard.state is ShardState.WAITING and core.firings[firing.id].shards[item] is shard
            if waits and max(shard.not_before_ms, shard.avoid_ms) <= at:
                yield firing, item


def _ahead(core: SimCore, firing: Firing, shard: Shard, task: Task) -> bool:
    """True if a waiting shard was ahead of a task in the queue."""
    ours = rank(core, firing, shard.execution)
    theirs = rank(core, core.firings[task.firing_id], task.execution)
    if ours != theirs or firing.id == task.firing_id:
        return ours < theirs
    # Loaded firings are older than all others; their own order is unknown.
    known = [name for name in core.firings if name not in core.loaded]
    again = core.process.world.operators.retried
    if task.firing_id not in known or {firing.id, task.firing_id} & again:
        return False
    return firing.id not in known or known.index(firing.id) < known.index(task.firing_id)


def _has_started(firing: Firing) -> bool:
    """Whether a shard of a run may have started, by any leader."""
    return any(shard.attempt or shard.execution is not Execution.READY for shard in firing.work)


def _brief(shards: Shards) -> str:
    return " ".join(f"{shard.state}{'' if not shard.task_id else ':' + shard.task_id}" for shard in shards)


def _task(entries: Entries, key: str) -> Task | None:
    value = entries.get((Kind.TASK, key))
    task = records.decode(Kind.TASK, key, value) if value is not None else None
    assert task is None or isinstance(task, Task)
    return task


def _days(entries: Entries, key: str) -> Days:
    """The days of a stored calendar."""
    found = records.decode(Kind.CALENDAR, key, entries[Kind.CALENDAR, key])
    assert isinstance(found, Calendar)
    return parse_days(found.days)


def _dirty(core: Any) -> set[str]:
    return {key for kind, key in core._state.write_set if kind is Kind.TASK}


def _is_due(job: Job, instant: int) -> bool:
    """Whether a job of the simulator has a fire time at an instant. Reads its texts without the product's parser."""

    def ms(text: str) -> int:
        return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000

    if any(ms(begin) <= instant < ms(end) for begin, _, end in (text.partition("/") for text in job.blackouts)):
        return False
    if job.schedule().next_after(instant - 1) == instant:
        return True
    every = [int(text[len("@every ") : -1]) * 1_000 for text in job.triggers if text.startswith("@every")]
    at = [ms(text.removeprefix("@at ")) for text in job.triggers if text.startswith("@at")]
    return instant in at or any(instant % period == 0 for period in every)
