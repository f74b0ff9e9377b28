"""Deliberate bugs that the simulator must catch: `make simulate-mutations`.

Each is a patch, applied to a copy of the source tree. The simulator plays on the copy until a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


# The deterministic tests of the scheduler, its loop, stores and adapters: one scenario each, no real servers. Tests of
# random histories (scheduler_props, batch_faults) are small simulators and not among them.
UNIT_TESTS = (
    *(
        f"tests/scheduler/test_{name}.py"
        for name in ("scheduler", "rollouts", "operator_calls", "warm_executors", "partitions", "timeouts", "drains",
                     "firing_listener", "queue", "status", "cluster", "launch", "outcomes", "scheduler_policies",
                     "mass_loss", "retry", "call_sizes", "circuit_breakers", "scheduler_weaknesses", "record_sizes",
                     "restorations", "roles", "teams", "wide_firings", "wrong_clock", "triggers", "pauses", "backfills",
                     "attempts", "ad_hoc_runs", "alerts", "quotas", "turns", "scheduler_times", "team_roles", "places",
                     "spread", "near", "failing_agents", "pools", "previous_success", "gangs", "workflows",
                     "workflow_graph")
    ),
    *(f"tests/server/test_{name}.py"
      for name in ("clock", "epochs", "held_back", "loop", "loop_leadership", "records")),
    "tests/test_config.py",
    "tests/test_model.py",
    "tests/adapters/mesos/test_mesos_wire.py",
    "tests/adapters/test_journal.py",
    "tests/adapters/test_store_contract.py",
    "tests/adapters/test_sqlite.py",
)  # fmt: skip
# Only for bugs in the driver: these use a scripted master and take a minute more.
DRIVER_TESTS = ("tests/adapters/mesos/test_mesos_driver.py", "tests/adapters/mesos/test_mesos_pipelining.py")
_DRIVER = "adapters/mesos/"


@dataclass(frozen=True, slots=True)
class Mutation:
    """Replace `old` by `new` in `file`, where it must occur exactly once. `also`: further places of the same bug.

    `quiet`: the unit tests are expected to pass with it.
    """

    name: str
    file: str
    old: str
    new: str
    also: tuple[tuple[str, str, str], ...] = ()
    quiet: bool = False

    @property
    def places(self) -> tuple[tuple[str, str, str], ...]:
        return (self.file, self.old, self.new), *self.also


@dataclass(frozen=True, slots=True)
class Caught:
    """`broken` is the broken promise, or ""."""

    broken: str
    histories: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one bug. `test`: the first unit test that fails, "" if none does, None if none was run."""

    mutation: Mutation
    found: Caught
    test: str | None

    def __str__(self) -> str:
        found = f"caught after {self.found.histories}: {self.found.broken[:110]}" if self.found.broken else "SURVIVED"
        test = "" if self.test is None else f" | unit tests: {self.test or 'not noticed'}"
        return f"{self.mutation.file:24} {self.mutation.name:44} {found}{test}"

    def row(self) -> str:
        found = self.found.histories if self.found.broken else "never"
        promise = re.sub(r"^seed [0-9]+: ", "", self.found.broken).partition(":")[0]
        test = "not asked" if self.test is None else self.test.partition("::")[2] or "no"
        return f"| {self.mutation.file} | {self.mutation.name} | {found} | {promise} | {test} |"


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "a node starts after a failure of the one before", "scheduler/workflow_graph.py",
        "On.SUCCESS: state is NodeState.SUCCEEDED", "On.SUCCESS: state is not NodeState.SKIPPED",
    ),
    Mutation(
        "a node starts with the first of its conditions", "scheduler/workflow_graph.py",
        "Verdict.HOLDS if all(known) else Verdict.OPEN", "Verdict.HOLDS if any(known) or not known else Verdict.OPEN",
    ),
    Mutation(
        "the start of a node is not stored", "scheduler/workflows.py",
        "        self._state.put(Kind.NODE, place.key, NodeRun(NodeState.RUNNING, firing.id, at))\n",
        "        self._state.nodes[place.key] = NodeRun(NodeState.RUNNING, firing.id, at)\n",
    ),
    Mutation(
        "a new leader forgets the nodes that are ready", "scheduler/workflows.py",
        "            self._advance(run.id, self._graph(run.id).nodes, at)\n\n    def on_tick",
        "            self._finish(run.id, at)\n\n    def on_tick",
        also=(("scheduler/workflows.py", "assert not wrong, f", "assert not run.ended_ms, f"),),
    ),
    Mutation(
        "a cancelled run starts the nodes that were ready", "scheduler/workflows.py",
        "            self._unready(node.job, Place(run.id, node.name))\n            self._unexpect(",
        "            self._unexpect(",
    ),
    Mutation(
        "a workflow whose failure was handled succeeds", "scheduler/workflow_graph.py",
        "    if NodeState.FAILED in found:\n", "    if found == {NodeState.FAILED}:\n",
    ),
    Mutation(
        "some runs by time begin no run of a workflow", "scheduler/workflows.py",
        "firing.terms.items or firing.cause is Cause.DAEMON or",
        "firing.terms.items or firing.cause is not Cause.TRIGGER or",
    ),
    Mutation(
        "a retried node leaves the nodes behind it skipped", "scheduler/workflows.py",
        "found.state is NodeState.SKIPPED and not self._keeps", "found.state is NodeState.READY and not self._keeps",
    ),
    Mutation(
        "the shards of a joined node are not held", "scheduler/shard_joins.py",
        "            self._state.queue.hold(firing.id, hold)\n", "            pass\n",
    ),
    Mutation(
        "a new leader holds no shard of a joined node", "scheduler/workflows.py",
        "                    self._joins.decide(place, None, at)\n        if run.id",
        "                    pass\n        if run.id",
    ),
    Mutation(
        "a joined shard starts after any end of the shard before", "scheduler/shard_joins.py",
        "            holds = meets(after, end_of(shard.state), result_text(shard.outcome.result))\n",
        "            holds = True\n",
    ),
    Mutation(
        "a joined node does not count its skipped shards", "scheduler/shard_joins.py",
        "changed(record, skipped=record.skipped + more)", "record",
    ),
    Mutation(
        "an answer before its time is lost with a leader", "scheduler/workflows.py",
        "            self._state.put(Kind.NODE, place.key, NodeRun(NodeState.WAITING, answer=answer))\n",
        "            self._state.nodes[place.key] = NodeRun(NodeState.WAITING, answer=answer)\n",
    ),
    Mutation(
        "a paused run starts nodes", "scheduler/workflows.py",
        "node.wait is None and not run.paused:", "node.wait is None:",
        also=(("scheduler/workflows.py", "assert not wrong, f", "assert not run.ended_ms, f"),),
    ),
    Mutation(
        "deadlines of runs are lost with a leader", "scheduler/deadlines.py",
        "        for firing in self._state.firings.values():\n            self._watch(firing)\n",
        "        pass\n",
    ),
    Mutation(
        "new runs have no deadline", "scheduler/deadlines.py",
        "    def run_added(self, firing: Firing, at: int) -> None:\n        self._watch(firing)\n",
        "    def run_added(self, firing: Firing, at: int) -> None:\n        pass\n",
    ),
    Mutation(
        "a deadline counts from the end of the jitter", "scheduler/deadlines.py",
        "firing.fire_ms + job.start_deadline_ms + 1", "firing.fire_ms + job.jitter_ms + 2 * job.start_deadline_ms + 1",
    ),
    Mutation(
        "jobs fire in their blackouts", "triggers/timing.py",
        "            if not (end := self._blacked_out_until(found)):\n                return found\n",
        "            end = self._blacked_out_until(found)\n"
        "            if after_ms >= 0:\n                return found\n",
    ),
    Mutation(
        "jobs fire on the days of their calendars", "triggers/timing.py",
        "blackouts=(*self.blackouts, *more)", "blackouts=self.blackouts",
    ),
    Mutation(
        "a leader forgets the days of calendars", "scheduler/state.py",
        "parse_days(found.days) for key, found", "parse_days(()) for key, found",
    ),
    Mutation(
        "a run after a run comes at once", "scheduler/timetable.py",
        "            self._wait_until(job, at + job.delay_ms)\n            self.schedule(job",
        "            self._wait_until(job, at)\n            self.schedule(job",
    ),
    Mutation(
        "the end of a run sets no timer for the next one", "scheduler/timetable.py",
        "at + job.delay_ms)\n            self.schedule(job, self._state.job_states[job.key].considered_ms)\n",
        "at + job.delay_ms)\n",
    ),
    Mutation(
        "a success that is expected is given up in silence", "scheduler/alerts.py",
        "            if not idle:\n                text = f\"no run has succeeded on this day, and a",
        "            if idle:\n                text = f\"no run has succeeded on this day, and a",
    ),
    Mutation(
        "acknowledge before the write", "server/batch.py",
        "        try:\n            self._save(batch, ranks[0])\n",
        "        for effect in ranks[2]:\n            self._send(effect)\n"
        "        try:\n            self._save(batch, ranks[0])\n",
    ),
    Mutation(
        "a large batch is written in parts", "server/batch.py",
        "                self._store.write(self.epoch, encoded)\n",
        "                for start in range(0, max(1, len(encoded)), 8):\n"
        "                    self._store.write(self.epoch, encoded[start : start + 8])\n",
        quiet=True,
    ),
    Mutation(
        "reconciliation of an unconfirmed launch is ignored", "scheduler/tasks.py",
        "        if isinstance(step, End):\n            self._finish",
        '        told = task.state is TaskState.STORED and update.reason == "REASON_RECONCILIATION"\n'
        "        if told and isinstance(step, End):\n            return\n"
        "        if isinstance(step, End):\n            self._finish",
        quiet=True,
    ),
    Mutation("no fencing", "adapters/memory.py", "if epoch != self._server.epoch:", "if epoch > self._server.epoch:"),
    Mutation(
        "attempts stay when their firing is deleted", "scheduler/state.py",
        "        self.delete_attempts(firing_id)\n        self.write_set", "        self.write_set",
    ),
    Mutation(
        "waiting shards of a cancelled run start", "scheduler/commands.py",
        '        self._tasks.cancel_firing(firing, event.at, "an operator cancelled the run")\n',
        "        for shard in firing.shards:\n            if shard.task_id in self._state.tasks:\n"
        "                self._tasks.kill(self._state.tasks[shard.task_id], event.at)\n",
    ),
    Mutation(
        "a limit is forgotten by the next leader", "scheduler/timeouts.py",
        "    def restore(self, at: int) -> None:\n        for task in self._state.tasks.values():\n",
        "    def restore(self, at: int) -> None:\n        for task in ():\n",
    ),
    Mutation(
        "an end reported without its update is ignored", "scheduler/status.py",
        "    if (found is _FAIL or found is _KILLED) and status.reason in _NO_REASON:",
        "    if isinstance(found, End) and status.reason in _NO_REASON:",
        quiet=True,
    ),
    Mutation(
        "the end of a shard of a wide firing is not stored", "scheduler/state.py",
        "            self.write_set[_SHARD, shard_key(firing.id, item)] = shard\n",
        "            if not shard.state.ended:\n"
        "                self.write_set[_SHARD, shard_key(firing.id, item)] = shard\n",
    ),
    Mutation(
        "shards outlive their wide firing", "scheduler/state.py",
        "        for item in range(len(firing.shards)) if firing.wide else ():\n",
        "        for item in range(len(firing.shards) - 1) if firing.wide else ():\n",
    ),
    Mutation("forget the retry", "scheduler/retry.py", "if not never_ran and not failover and", "if not never_ran and"),
    Mutation(
        "adopt nothing", "scheduler/state.py",
        "        self.tasks = whole.tasks\n", "        self.tasks = {}\n",
    ),
    Mutation(
        "the clock is part of fence tokens", "scheduler/cycle.py",
        "return sharding.payload(job, firing, task, self._state.fence(), traceparent, results)\n",
        "return sharding.payload(job, firing, task, at * 1_000_000_000 + self._state.fence(), traceparent, results)\n",
        (("scheduler/cycle.py", "            return sharding.placeholder_payload(task, self._state.fence())\n",
          "            return sharding.placeholder_payload(task, at * 1_000_000_000 + self._state.fence())\n"),),
        quiet=True,
    ),
    Mutation(
        "a launch call that was too large is repeated as it was", "scheduler/cycle.py",
        "self._accept_tasks = min(self._accept_tasks, half) or self._state.policy.accept_tasks", "pass",
    ),
    Mutation(
        "a launch call that was too large stops all its jobs", "scheduler/tasks.py",
        "launch.size if len(launches) == 1 else 0", "launch.size",
    ),
    Mutation(
        "a launch call that was too large is charged to its shards", "scheduler/tasks.py",
        "dropped=True, charged=False, agent_at_fault=False)",
        "dropped=True, agent_at_fault=False)",
    ),
    Mutation(
        "teams share executors of apps with equal names", "scheduler/launch.py",
        'content = f"{app.key.replace(SEPARATOR, _SEPARATOR_IN_PATHS)}{DELIMITER}{version}"',
        'content = f"{app.name}{DELIMITER}{version}"',
    ),
    Mutation(
        "a removed app stays disabled", "scheduler/commands.py",
        "        self._state.set_app_disabled(event.app, disabled=False)\n",
        "",
    ),
    Mutation(
        "no proof of the epoch with a new session", "server/batch.py",
        "self.connected = batch.prove_epoch = True", "self.connected = True",
    ),
    Mutation(
        "the epoch is proven with a new framework id alone", "server/batch.py",
        "                self.connected = batch.prove_epoch = True\n",
        "                self.connected = True\n"
        "                batch.prove_epoch = event.framework_id != self._framework_id\n",
        quiet=True,
    ),
    Mutation(
        "an operator's kill is not stored", "scheduler/commands.py",
        "        self._tasks.kill(task, event.at)\n",
        "        self._tasks._reconciliation.send_kill(task, event.at)\n",
    ),
    Mutation(
        "a replacement of a lost attempt has no precedence", "scheduler/queue.py",
        "(is_first, -priority(entry.firing)", "(0, -priority(entry.firing)",
    ),
    Mutation(
        "a claim is not released", "scheduler/tasks.py",
        "        self._state.cluster.release(task.id)\n", "",
    ),
    Mutation(
        "an app without placeholder tasks stays in the index", "scheduler/warm_executors.py",
        "        if not placeholders:\n            del self.of_app[task.app]\n",
        "",
        quiet=True,
    ),
    Mutation(
        "a removed job leaves its refusal", "scheduler/cycle.py",
        "        self.refusals.pop(name, None)\n", "        pass\n",
        quiet=True,
    ),
    Mutation(
        # Each of the two alone is harmless, because the other covers it.
        "numbers start again in the same epoch", "scheduler/recovery.py",
        "for text in ids if (found", "for text in ids[:0] if (found",
        (("server/batch.py", "        if self._led:\n", "        if False:\n"),),
    ),
    Mutation(
        "a roll-out ends all shards at once", "scheduler/rollouts.py",
        "        return len(down | {task.item}) <= job.max_unavailable\n", "        return True\n",
    ),
    Mutation(
        "the version of a mark is not followed", "adapters/zookeeper/store.py",
        "            unfold.version += 1\n",
        "",
        quiet=True,
    ),
    Mutation(
        "half of a large batch is not unfolded", "adapters/zookeeper/store.py",
        "            image = image or self._read()[0]\n            self._unfold(epoch, image)\n",
        "            image = image or self._read()[0]\n",
        quiet=True,
    ),
    Mutation(
        "a lost answer counts as done", "adapters/zookeeper/store.py",
        "if witness is not None and self._took_effect(witness, deadline):", "if witness is not None:",
        quiet=True,
    ),
    Mutation(
        "a failed comparison counts as done", "adapters/etcd/store.py",
        "            if not found or found[0].value != value:\n", "            if not found:\n",
        quiet=True,
    ),
    Mutation(
        "a late request may change the journal", "adapters/etcd/store.py",
        "compare = [*self._guards(), was_changed_at(self._key(_HEAD), head.revision)]", "compare = self._guards()",
        quiet=True,
    ),
    Mutation(
        "a write of an old leader is not refused", "adapters/etcd/store.py",
        "return [has_value(self._key(_EPOCH), self._claim), *_still_candidate(self._candidacy())]", "return []",
        quiet=True,
    ),
    Mutation(
        "a paused job starts its shards", "scheduler/cycle.py",
        "if self._state.pauses and self._state.paused(job):", "if False:",
    ),
    Mutation(
        "a new leader forgets pauses", "scheduler/recovery.py", "pauses=dict(stored.pauses)", "pauses={}",
    ),
    Mutation(
        "the parameter of a trigger is lost", "scheduler/sharding.py",
        "return Payload(own, _of_all_shards(_alone(job) if alone else job, firing.terms.parameter), names)",
        "return Payload(own, _of_all_shards(_alone(job) if alone else job, None), names)",
    ),
    Mutation(
        "a trigger with a key makes a second run", "scheduler/commands.py",
        "if key and (known := self._firings.with_key(job.key, key)) is not None:",
        "if key and (known := None) is not None:",
    ),
    Mutation(
        "an ad-hoc run with a key runs twice", "scheduler/ad_hoc_runs.py",
        "if event.terms.key and (known := self._with_key(app, event.terms.key)) is not None:",
        "if event.terms.key and (known := None) is not None:",
    ),
    Mutation(
        "the job of an ad-hoc run is not stored", "scheduler/state.py",
        "self.jobs[job.key] = self.ad_hoc[job.key] = self.write_set[Kind.AD_HOC, job.key] = job",
        "self.jobs[job.key] = self.ad_hoc[job.key] = job",
    ),
    Mutation(
        "a new leader deletes the jobs of ad-hoc runs", "scheduler/recovery.py",
        "whole.ad_hoc = {key: job for key, job in stored.ad_hoc.items() if key in fired}", "whole.ad_hoc = {}",
    ),
    Mutation(
        "an updated job is considered by the clock alone", "scheduler/timetable.py",
        "self.go_on(job, at, ahead_ms=REVIVED_MS)", "self.go_on(job, at, ahead_ms=-(10**15))",
        quiet=True,
    ),
    Mutation(
        "an enabled job is considered by the clock alone", "scheduler/commands.py",
        "self._timetable.go_on(job, at, ahead_ms=REVIVED_MS)",
        "self._timetable.go_on(job, at, ahead_ms=-(10**15))",
        quiet=True,
    ),
    Mutation(
        "a new epoch ignores the file beside the data", "server/epochs.py",
        "max(floor, recorded.epoch + 1, of_clock_now)", "max(floor, of_clock_now)",
    ),
    Mutation(
        "an empty state is led although the file names its epoch", "server/epochs.py",
        "recorded.epoch and not self._store.epoch()", "False",
    ),
    Mutation(
        "the report of a sending is forgotten", "scheduler/alerts.py",
        "self._state.delete(Kind.ALERT_MESSAGE, event.message_id)", "del self._state.alert_messages[event.message_id]",
    ),
    Mutation(
        "fire times that were missed count as one", "scheduler/timetable.py",
        "times.count(first - 1, last), missed=True)", "1, missed=True)",
    ),
    Mutation(
        "a clock far ahead is followed at once", "server/clock.py",
        "        elif running - self._jump.seen >= _hold_ms(ahead):", "        else:",
    ),
    Mutation(
        "a silent job is not revived", "scheduler/timetable.py",
        "considered = at if considered > at + ahead_ms else max(at, considered)", "considered = max(at, considered)",
    ),
    Mutation(
        "one call takes the offers of all roles", "scheduler/cluster.py",
        "        return tuple(offer for offer in entry.offers.values() if offer.role == entry.role)\n",
        "        return tuple(entry.offers.values())\n",
    ),
    Mutation(
        "a restored shard is repeated without failover", "scheduler/restorations.py",
        "            if failover or firing.step(item) is not None:", "            if True:",
    ),
    Mutation(
        "the attempts of a team are not counted at their launch", "scheduler/quotas.py",
        "    found.add(task.resources, 1 if task.firing_id else 0)\n", "    found.add(task.resources, 0)\n",
        (("scheduler/quotas.py", "        used.subtract(task.resources, 1 if task.firing_id else 0)\n",
          "        used.subtract(task.resources, 0)\n"),),
    ),
    Mutation(
        "a new leader forgets what the tasks of a team use", "scheduler/quotas.py",
        "            self._used = self._count()\n", "            self._used = {}\n",
        (("scheduler/quotas.py", "        used = self._used[team]\n",
          "        used = self._used.setdefault(team, Use())\n"),
         ("scheduler/quotas.py", "    def validate(self) -> None:\n", "    def _validate(self) -> None:\n")),
    ),
    Mutation(
        "the end of an executor leaves its use", "scheduler/executors.py",
        "        self._state.delete(Kind.EXECUTOR, key)\n        self._quotas.executor_gone(executor)\n",
        "        self._state.delete(Kind.EXECUTOR, key)\n",
    ),
    Mutation(
        "the shards of one cycle exceed a quota together", "scheduler/turns.py",
        "        self._quotas.plan(group.team, resources, 1)\n", "",
        (("scheduler/turns.py", "            self._quotas.drop(group.team, request.resources, 1)\n", ""),),
    ),
    Mutation(
        "a further executor does not count before its launch", "scheduler/turns.py",
        "executor = NOTHING if joins else request.executor", "executor = NOTHING",
    ),
    Mutation(
        "warm executors have no quota", "scheduler/warm_executors.py",
        "if (lack := self._quotas.lack_for(app.team, need, 0)) is not None:", "if (lack := None) is not None:",
    ),
    Mutation(
        "teams have equal shares whatever they use", "scheduler/quotas.py",
        "        return self._dominant(used, planned) / weight, shards / weight\n", "        return 0.0, 0.0\n",
    ),
    Mutation(
        "the share of a team never falls", "scheduler/quotas.py",
        "        return self._dominant(used, planned) / weight, shards / weight\n",
        "        known = self.__dict__.setdefault('_highest', {})\n"
        "        known[team] = max(known.get(team, 0.0), self._dominant(used, planned) / weight)\n"
        "        return known[team], shards / weight\n",
    ),
    Mutation(
        "a new leader forgets the shares of teams", "scheduler/quotas.py",
        "        return self._dominant(used, planned) / weight, shards / weight\n",
        "        before = self.__dict__.setdefault('_before', {}).get(team, _NOTHING)\n"
        "        own = Use(*(max(0, amount - old) for amount, old in zip(used.resources, before.resources)))\n"
        "        return self._dominant(own, planned) / weight, shards / weight\n",
        (("scheduler/quotas.py", "    def restore(self, at: int) -> None:\n",
          "    def restore(self, at: int) -> None:\n        self._before = self._count()\n"),),
    ),
    Mutation(
        "shares that differ by a tenth of the cluster are equal", "scheduler/quotas.py",
        "        return self._dominant(used, planned) / weight, shards / weight\n",
        "        return round(self._dominant(used, planned) / weight, 1), shards / weight\n",
        quiet=True,
    ),
    Mutation(
        "the shares of teams do not grow during a cycle", "scheduler/turns.py",
        "                heapq.heapreplace(order, (self._quotas.share(team), team))\n",
        "                heapq.heapreplace(order, (order[0][0], team))\n",
    ),
    Mutation(
        "teams with a quota get what the others leave", "scheduler/turns.py",
        "        order = [(self._quotas.share(team), team) for team in self._waiting]\n",
        "        order = [((team in self._limited, *self._quotas.share(team)), team) for team in self._waiting]\n",
        (("scheduler/turns.py", "                heapq.heapreplace(order, (self._quotas.share(team), team))\n",
          "                heapq.heapreplace(order, ((team in self._limited, *self._quotas.share(team)), team))\n"),),
        quiet=True,
    ),
    Mutation(
        "a cycle counts what it plans twice", "scheduler/turns.py",
        "        self._plan(group, need.plus(executor))\n",
        "        self._plan(group, need.plus(executor))\n"
        "        self._quotas.plan(group.team, need.plus(executor), 1)\n",
    ),
    Mutation(
        "the quota of a team is not released", "scheduler/quotas.py",
        "        used.subtract(task.resources, 1 if task.firing_id else 0)\n", "",
        (("scheduler/quotas.py", "    def validate(self) -> None:\n", "    def _validate(self) -> None:\n"),),
    ),
    Mutation(
        "the shards of one cycle exceed a pool together", "scheduler/turns.py",
        "resources, 1)\n        self._pools.plan(group)\n", "resources, 1)\n",
        (("scheduler/turns.py", "            self._pools.drop(group)\n", ""),),
    ),
    Mutation(
        "a new leader forgets the slots of running shards", "scheduler/pools.py",
        "            self.task_launched(task, at)\n", "            pass\n",
        (("scheduler/pools.py", "    counts[key] -= number\n", "    counts[key] -= min(number, counts[key])\n"),
         ("scheduler/pools.py", "    def validate(self) -> None:\n", "    def _validate(self) -> None:\n")),
    ),
    Mutation(
        "the shards of a gang start one by one", "scheduler/gangs.py",
        "        return sum(shard.state", "        return 0 * sum(shard.state",
    ),
    Mutation(
        "a gang without room keeps its claims", "scheduler/cycle.py",
        "            return found\n        for placement in found:\n            cluster.rollback(placement)\n",
        "            return found\n",
    ),
    Mutation(
        "room held back for a gang is never free again", "scheduler/cluster.py",
        "        self._unlocked |= self._kept\n        self._kept = set()\n", "        pass\n",
    ),
    Mutation(
        "the listener of a gang waits for its gang", "scheduler/cycle.py",
        "gangs and firing.step(items[0]) is None and (shards", "gangs and (shards",
    ),
    Mutation(
        "a new leader forgets gang start", "scheduler/gangs.py",
        "            self.job_changed(job)\n", "            pass\n",
        (("scheduler/gangs.py", "    def validate(self) -> None:\n", "    def _validate(self) -> None:\n"),),
    ),
    Mutation(
        "a shard that needs several slots waits for ever", "scheduler/pools.py",
        "            self._claims[key] = group\n", "            pass\n",
    ),
    Mutation(
        "shards without room use up the turns of their team", "scheduler/turns.py",
        "        return len(self._waiting) > 1 and not self._has_room_for(entry, request)\n", "        return False\n",
    ),
    Mutation(
        "a wide run starts one shard in a cycle", "scheduler/cycle.py",
        "                    yield entry, own\n",
        "                    yield entry, own\n"
        "                if self._state.firings[firing_id].wide:\n                    break\n",
    ),
    Mutation(
        "a new leader does not know the size of the cluster", "scheduler/cluster.py",
        "        if abs(self._known - self._summed) * 10 > self._summed:\n",
        "        if abs(len(self.agents) - self._summed) * 10 > self._summed:\n",
        (("scheduler/cluster.py", "        self._total, self._summed = found, self._known\n",
          "        self._total, self._summed = found, len(self.agents)\n"),),
    ),
    Mutation(
        "a team gets offers of the roles of others", "scheduler/cycle.py",
        "        if not cluster.team_roles:\n            return held\n", "        if True:\n            return held\n",
    ),
    Mutation(
        "a firing without room in the queue vanishes", "scheduler/timetable.py",
        "            if why := self._quotas.queue_lack(job.team, shards_of_run(job, terms), leaving):\n"
        "                self._skip(job, fire_ms, at, why)\n",
        "            if self._quotas.queue_lack(job.team, shards_of_run(job, terms), leaving):\n",
    ),
    Mutation(
        "the use of a task's secrets is not stored", "scheduler/tasks.py",
        "        self._state.put(_TASK, task.id, changed(task, secrets_used=True))\n", "", quiet=True,
    ),
    Mutation(
        "a new leader does not count running shards", "scheduler/tasks.py",
        "        where = self._state.counted(self._state.jobs.get(task.job))\n", "        where = None\n",
    ),
    Mutation(
        "failures on an agent are not counted", "scheduler/failing_agents.py",
        "        if job.key not in self._failures:\n            return request\n", "        return request\n",
    ),
    Mutation(
        "a run forgets the last success before it", "scheduler/firings.py",
        "        self._state.put_firing(firing, {})\n        self._state.queue.renew(firing)\n", "",
    ),
    Mutation(
        "a failed run counts as the last success", "scheduler/firings.py",
        "    return firing.worst is _FINISHED and not firing.terms.items and",
        "    return not firing.terms.items and",
    ),
    Mutation(
        "the last success may be later than the run", "scheduler/firings.py",
        "        return max((at for at in (latest, *succeeded) if at < firing.fire_ms), default=0)\n",
        "        return max((latest, *succeeded))\n",
    ),
    Mutation(
        "the constraints of an app do not hold for its jobs", "scheduler/places.py",
        "return _where((*app.constraints, *job.constraints), job.preferences, job.key)",
        "return _where(job.constraints, job.preferences, job.key)",
    ),
    Mutation(
        "exclusive shards start next to others", "scheduler/cluster.py",
        "        empty[np.fromiter(self.shards_on, dtype=np.int64, count=len(self.shards_on))] = False\n", "",
    ),
    Mutation(
        "others start next to exclusive shards", "scheduler/cluster.py",
        "self.matcher.enable_host(slot, slot not in self._exclusive_on and", "self.matcher.enable_host(slot,",
    ),
    Mutation(
        "a new leader does not know exclusive shards", "scheduler/tasks.py",
        "Tenant.EXCLUSIVE if task.exclusive else Tenant.SHARD", "Tenant.SHARD",
    ),
    Mutation(
        "no agent is open again after an exclusive shard", "scheduler/cluster.py",
        "            self.matcher.enable_host(slot, slot not in self._exclusive_on and slot not in self._kept)\n",
        "            if slot in self._exclusive_on:\n                self.matcher.enable_host(slot, False)\n",
    ),
    Mutation(
        "a launch call has no limit in bytes", "scheduler/cycle.py",
        "or size >= self._state.policy.accept_bytes", "or size < 0",
    ),
    Mutation(
        "a repeat divides the present range of the job", "scheduler/sharding.py",
        "own = str(stored_range(firing.terms.range).part(item, len(firing.work)))",
        "own = str(stored_range(range_of(job, firing.fire_ms) or firing.terms.range).part(item, len(firing.work)))",
    ),
    Mutation(
        "a run that is put back gets a new range", "scheduler/firings.py",
        "divided = ended.terms.range or sharding.range_of(self._state.jobs[ended.job], ended.fire_ms)",
        "divided = sharding.range_of(self._state.jobs[ended.job], ended.fire_ms) or ended.terms.range",
    ),
    Mutation(
        "parts of a range overlap", "ranges/__init__.py",
        "last=first + least - (item >= larger)", "last=first + least",
    ),
    Mutation(
        "the rest of a range is in the first part", "ranges/__init__.py",
        "first = self.first + item * least + min(item, larger)\n"
        "        return self._replace(first=first, last=first + least - (item >= larger))",
        "first = self.first + item * least + (larger if item else 0)\n"
        "        return self._replace(first=first, last=first + least - 1 + (0 if item else larger))",
    ),
    Mutation(
        "a large record is refused by the store alone", "server/batch.py",
        "            records.check_size(command)\n", "",
    ),
)  # fmt: skip


def patched(folder: Path, *mutations: Mutation) -> Path:
    """Copy the source tree to `folder` with the bugs. Raises ValueError if a place is not found once."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.c"))
    for mutation in mutations:
        for file, old, new in mutation.places:
            path = source / "jobcloud" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"{mutation.name}: its place occurs {text.count(old)} times in {file}")
            path.write_text(text.replace(old, new))
    return source


def caught(mutation: Mutation, folder: Path, max_histories: int = 2_000, processes: int = 2) -> Caught:
    """Play up to `max_histories` histories on the patched source, until one breaks a promise."""
    environment = _environment(patched(folder, mutation))
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--seeds",
        str(max_histories),
        "--stop",
        "--processes",
        str(processes),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    histories = re.search(r"^([0-9]+) histories", done.stdout, re.MULTILINE)
    if histories is None:
        raise RuntimeError(f"{mutation.name}: the simulator failed: {done.stderr[-2_000:]}")
    return Caught(done.stdout.splitlines()[-1] if done.returncode else "", int(histories[1]))


def noticed_by_unit_tests(folder: Path, *mutations: Mutation) -> str:
    """The first unit test that fails with all these bugs in the source, or ""."""
    environment = _environment(patched(folder, *mutations))
    driver = any(mutation.file.startswith(_DRIVER) for mutation in mutations)
    tests = (*UNIT_TESTS, *(DRIVER_TESTS if driver else ()))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--reruns=0",
        "-p",
        "no:cacheprovider",
        "-m",
        "not zookeeper and not etcd and not mesos",
    ]
    done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutations[0].name}: the unit tests cannot be run: {done.stdout[-2_000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed and done.returncode else ""


def who_notices(mutations: Sequence[Mutation]) -> dict[str, str]:
    """Name of each bug → the first unit test that notices it, or "".

    Bugs are tried together: if all tests pass, none of the bugs is noticed, which saves a run of all tests for each. If
    a test fails, or places overlap, each half is tried separately.
    """
    if not mutations:
        return {}
    with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
        try:
            test = noticed_by_unit_tests(Path(folder), *mutations)
        except ValueError:
            if len(mutations) == 1:
                raise
            test = "their places overlap"
    if len(mutations) == 1 or not test:
        return {mutation.name: test for mutation in mutations}
    half = len(mutations) // 2
    return who_notices(mutations[:half]) | who_notices(mutations[half:])


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("--only", default="", help="only bugs whose name contains this text")
    parser.add_argument("--max", type=int, default=2_000, help="histories to play with each bug")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--unit-tests", action="store_true", help="also find out which bugs the unit tests notice")
    parser.add_argument("--table", type=Path, help="write the results to this Markdown file")
    asked = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if asked.only in mutation.name]
    tests: dict[str, str] = {}
    verdicts: list[Verdict] = []
    if asked.unit_tests:
        tests |= who_notices([mutation for mutation in chosen if mutation.quiet])
        print("noticed of the quiet ones:", {name: test for name, test in tests.items() if test} or "none", flush=True)
    for mutation in chosen:
        with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
            found = caught(mutation, Path(folder), asked.max, asked.processes)
        if asked.unit_tests and mutation.name not in tests:
            tests |= who_notices([mutation])
        verdicts.append(Verdict(mutation, found, tests.get(mutation.name)))
        print(verdicts[-1], flush=True)
        if asked.table:  # after each, because the whole takes long
            asked.table.write_text(table(verdicts, asked.max))
    survivors = sum(not verdict.found.broken for verdict in verdicts)
    print(f"{survivors} of {len(verdicts)} survived")
    return 1 if survivors else 0


def table(verdicts: Sequence[Verdict], max_histories: int) -> str:
    """The results as Markdown."""
    files = {verdict.mutation.file for verdict in verdicts}
    held = sum(bool(verdict.found.broken) for verdict in verdicts)
    summary = (
        f"{len(verdicts)} bugs in {len(files)} files, tried at {_commit()}. "
        f"The simulator played up to {max_histories:,} histories with each and caught {held}."
    )
    asked = [verdict for verdict in verdicts if verdict.test is not None]
    if asked:
        survived = sum(verdict.test == "" for verdict in asked)
        summary += f" {survived} of {len(asked)} survive the unit tests.\n\n"
        summary += _UNIT.format(*(", ".join(map(_name, tests)) for tests in (UNIT_TESTS, DRIVER_TESTS)))
    head = ["# Deliberate bugs in the scheduler, and the tests that notice them", "", summary, "",
            "| file | bug | histories until caught | promise broken | noticed by a unit test |",
            "| --- | --- | --- | --- | --- |"]  # fmt: skip
    return "\n".join([*head, *(verdict.row() for verdict in verdicts)]) + "\n"


_UNIT = f"""\
Unit tests are the deterministic tests of the scheduler, its loop, stores and adapters, with one scenario each and no
real servers: {{0}}; for `{_DRIVER}…` also {{1}}. Tests of random histories (scheduler_props, batch_faults) are small
simulators and not among them, and neither are tests on a real ZooKeeper. "No" in the last column means that all unit
tests pass; the bugs expected to be quiet were tried together. Histories start at seed 0. Promises have the numbers of
`tests/simulation/promise.py`."""


def _name(test: str) -> str:
    return Path(test).stem.removeprefix("test_")


@cache
def _commit() -> str:
    """The commit of the source."""
    git = shutil.which("git") or "git"
    told = [
        subprocess.run([git, *asked], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for asked in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "src", "tests"])
    ]
    return f"{told[0]}{' with changes' if told[1] else ''}"


if __name__ == "__main__":
    raise SystemExit(main())
