"""From a seed to a plan: the size of the cluster, the faults, and the calls of operators.

Everything that goes wrong is in the plan, so that a failing history can be shrunk by leaving faults out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from jobcloud.messages import (
    Accept,
    AcceptInverseOffers,
    Acknowledge,
    Command,
    Decline,
    DeclineInverseOffers,
    Event,
    Kill,
    Kind,
    Reconcile,
    Resubscribe,
    Revive,
    ShutdownExecutor,
    Suppress,
)

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z

EVENT_NAMES = tuple(kind.__name__ for kind in Event.__args__)
COMMAND_NAMES = frozenset(kind.__name__ for kind in Command.__args__)
_SENT = (
    Resubscribe, Revive, Accept, Decline, AcceptInverseOffers, DeclineInverseOffers, Kill, ShutdownExecutor, Reconcile,
    Suppress, Acknowledge,
)  # fmt: skip
SENT_NAMES = tuple(kind.__name__ for kind in _SENT)

# Points at which a scheduler may crash or pause.
POINTS: tuple[str, ...] = (
    "before acquire", "after acquire", "before load", "after load", "before proof", "after proof",
    "after restore", "before start", "after start", "before stop", "after stop",
    "before write", "after write", "before Publish", "after Publish",
    *(f"stored {kind}" for kind in Kind if kind is not Kind.RESTORATION),
    *(f"decided {name}" for name in EVENT_NAMES),
    *(f"{when} {name}" for name in SENT_NAMES for when in ("before", "after")),
)  # fmt: skip

# Points in a write and in the election in ZooKeeper. Only histories with ZooKeeper or etcd have them.
ZOOKEEPER_POINTS: tuple[str, ...] = tuple(
    f"{when} {stage}" for stage in ("epoch", "part", "segment", "unfold", "candidate") for when in ("before", "after")
)
ALL_POINTS = POINTS + ZOOKEEPER_POINTS

# Faults that lead a scheduler to a point that it does not reach by itself.
_LEADS_TO: dict[str, str] = {
    "stop": "store_fails",
    "Disconnected": "stream_cut",
    "Subscribed": "stream_cut",
    "FrameworkRemoved": "teardown",
    "Resubscribe": "teardown",
    "framework": "teardown",
    "OfferRescinded": "rescind",
    "AgentLost": "agent_cut",
    "ExecutorLost": "executor_dies",
    "SendFailed": "call_lost",
    "PutApp": "put_app",
    "app": "put_app",
    "RemoveApp": "remove_app",
    "ShutdownExecutor": "remove_app",
    "SetAppEnabled": "app_mark",
    "disabled_app": "app_mark",
    "PutJob": "put_job",
    "Apply": "put_job",
    "RemoveJob": "remove_job",
    "SetJobEnabled": "job_mark",
    "SetPaused": "pause_mark",
    "pause": "pause_mark",
    "BackfillJob": "backfill",
    "CancelBackfill": "backfill",
    "backfill": "backfill",
    "Trigger": "trigger",
    "RunAdHoc": "ad_hoc",
    "ad_hoc": "ad_hoc",
    "PutSilence": "silence",
    "RemoveSilence": "silence",
    "silence": "silence",
    "ReportProblem": "silence",
    "PutPool": "pool",
    "RemovePool": "pool",
    "pool": "pool",
    "PutWorkflow": "workflow",
    "RemoveWorkflow": "workflow",
    "CancelWorkflowRun": "workflow",
    "RetryWorkflowRun": "workflow",
    "PauseWorkflowRun": "workflow",
    "AnswerNode": "workflow",
    "SendWorkflowEvent": "workflow",
    "workflow": "workflow",
    "workflow_run": "workflow",
    "node": "workflow",
    "KillTask": "kill_task",
    "Kill": "kill_task",
    "UseSecrets": "kill_task",
    "ForgetTask": "forget",
    "Retry": "retry",
    "attempt": "retry",
    "CancelRun": "cancel",
    "Suppress": "app_mark",
    "DrainAgent": "drain",
    "UndrainAgent": "drain",
    "ReconcileTasks": "drain",
    "drain": "drain",
    "InverseOffersReceived": "maintenance",
    "PutAccess": "access",
    "RemoveAccess": "access",
    "EndSessions": "access",
    "NoteSessions": "access",
    "RevokeToken": "access",
    "RevokeServerToken": "access",
    "RemoveService": "access",
    "role": "access",
    "user": "access",
    "access_token": "access",
    "session": "access",
    "team": "quota",
    "AcceptInverseOffers": "maintenance",
    "DeclineInverseOffers": "maintenance",
}
# In one of this many histories, a channel is told of alerts.
ALERTED, ALERTED_REST = 4, 3
_AT_A_START = {"acquire", "load", "proof", "restore", "start"}

# kind → relative frequency. The meaning of the numbers `a` and `b` of a fault depends on its kind.
_WEIGHTS = {
    "crash": 10, "pause": 5, "second_leader": 2, "store_fails": 3, "store_lies": 4, "store_down": 2,
    "stream_cut": 3, "partition": 2, "update_lost": 5, "update_doubled": 4, "update_late": 5, "call_lost": 4,
    "rescind": 3, "rescind_accepted": 3, "agent_cut": 4, "agent_dies": 2, "agent_gone": 1, "master_restart": 2,
    "master_forgets": 1, "teardown": 1, "executor_dies": 4, "executor_hangs": 2, "executor_cut": 3,
    "finish_twice": 3, "start_fails": 2, "clock": 3, "put_app": 2, "put_job": 5, "remove_job": 2, "remove_app": 1,
    "app_mark": 2, "job_mark": 4, "trigger": 8, "kill_task": 3, "forget": 2, "retry": 3, "cancel": 2,
    "drain": 3, "maintenance": 3, "mesos_drains": 2, "update": 8, "mass_loss": 2,
}  # fmt: skip
_ZOOKEEPER_WEIGHTS = {"session_cut": 4, "request_lost": 4, "request_late": 4, "answer_lost": 4, "crash": 6, "pause": 3}
_ZOOKEEPER_SHARE = 4  # one history in four
_ETCD_SHARE, _ETCD_REST = 8, 5  # one history in eight, none of those with ZooKeeper
_EXTREME_WEIGHTS = {
    "clock_far": 3, "all_again": 4, "wide": 6, "too_large": 5, "state_back": 3, "descriptors": 2, "gap": 3,
}  # fmt: skip
# The ended shards that a job keeps: less than two runs of the wide job.
MAX_ENDED_SHARDS = 40
# The master refuses larger calls. A launch of one task is smaller, one of several may be larger.
_CALL_BYTES = 6_000
# Above the largest call that the scheduler makes in an extreme history.
LARGEST_CALL = 200_000
EXTREME_KINDS = frozenset(_EXTREME_WEIGHTS)
_TEAMS_SHARE, _TEAMS_REST = 7, 3  # one history in seven, few of the seeds that failed before
_PLACES_SHARE, _PLACES_REST = 5, 4  # one history in five
_POOLS_SHARE, _POOLS_REST = 5, 2  # another one in five
# Five seeds of 13 make an extreme history. Few of the seeds that failed before are among them.
_EXTREME = frozenset((5, 8, 9, 10, 12))

#: Seeds from n times this number on aim at crash point n - 1, because few histories reach some points by themselves.
AIMED = 1_000_000_000
_AIMED_CRASHES = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` is in milliseconds from the start of the history."""

    at: int
    kind: str
    a: int
    b: int

    def __str__(self) -> str:
        what = f" {ALL_POINTS[self.a]!r}" if self.kind in ("crash", "pause") else f" {self.a}"
        return f"{self.at / 1000:8.3f}s {self.kind}{what} {self.b}"


@dataclass(frozen=True, slots=True)
class Plan:
    """`agents`: CPUs of each agent. `jobs`: their number at the start. `zookeeper`, `etcd`: the state is there.

    `extreme`: there are limits of sizes, and records and calls reach them. `roles`: those of the framework.
    `teams`: half of the apps and jobs have the names of the others, in another team. A third team has an app without
    jobs. The teams get quotas and weights, and contend for the cluster.
    `team_roles`: teams with a Mesos role of their own.
    `places`: agents have zones, and apps and jobs have constraints. Such a history has no teams.
    `pools`: most jobs and ad-hoc runs take slots of pools.
    `delays`: some jobs fire after the ends of their runs.
    `gangs`: the shards of most runs start together. Such a history has no places.
    `expected`: there are alerts, and jobs expect a success by a time of the day.
    `call_bytes`: the largest call that the way to the master lets through.
    """

    seed: int
    agents: tuple[int, ...]
    jobs: int
    length_ms: int
    faults: tuple[Fault, ...]
    zookeeper: bool = False
    extreme: bool = False
    roles: tuple[str, ...] = ("*",)
    call_bytes: int = _CALL_BYTES
    etcd: bool = False
    teams: bool = False
    places: bool = False
    pools: bool = False
    delays: bool = False
    expected: bool = False
    gangs: bool = False
    team_roles: tuple[tuple[str, str], ...] = ()

    @property
    def subscribed(self) -> tuple[str, ...]:
        """All roles of the framework."""
        return (*self.roles, *sorted({role for _, role in self.team_roles}))

    def may_use(self, team: str, role: str) -> bool:
        """Whether offers of a role are for a team."""
        own = dict(self.team_roles)
        return role == own[team] if team in own else role in self.roles

    @property
    def elects(self) -> bool:
        """Whether several schedulers share the state, of which one is elected."""
        return self.zookeeper or self.etcd


def make_plan(seed: int) -> Plan:
    """The same seed gives the same plan, on every platform and version."""
    dice = random.Random(f"plan {seed}")
    agents = tuple(dice.choice((2, 4, 6)) for _ in range(dice.randint(2, 4)))
    length = dice.randint(25_000, 50_000)
    faults: list[Fault] = []
    for number in range(dice.randint(8, 30)):
        kind = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        at = dice.randrange(500, length)
        fault = Fault(at, kind, dice.randrange(1_000_000), dice.randrange(1_000_000))
        if kind in ("crash", "pause"):
            # All points are covered evenly, for any number of histories.
            fault = Fault(at, kind, (seed * 7 + number * 11) % len(POINTS), fault.b)
            faults += _to_get_there(fault, dice)
        faults.append(fault)
    jobs = dice.randint(3, 6)
    if any(fault.kind == "mass_loss" for fault in faults):
        agents = (2,) * min(len(agents), 3)  # so that demand exceeds the room
    aim = seed // AIMED - 1
    zookeeper = aim >= len(POINTS) or (aim < 0 and seed % _ZOOKEEPER_SHARE == 0)
    etcd = aim < 0 and seed % _ETCD_SHARE == _ETCD_REST
    if zookeeper or etcd:
        faults += _of_zookeeper(seed, length)
    extreme = seed % 13 in _EXTREME
    if extreme:
        faults += _of_extremes(seed, length)
    faults += _of_pauses(seed, length)
    faults += _of_ad_hoc_runs(seed, length)
    if seed % _TEAMS_SHARE == _TEAMS_REST:
        faults += _of_quotas(seed, length) + _of_contests(seed, length)
    pools = seed % _POOLS_SHARE == _POOLS_REST
    if pools:
        faults += _of_pools(seed, length)
    if not any(fault.kind == "mass_loss" for fault in faults):  # such a cluster has no room for more work
        faults += _of_workflows(seed, length)
    if seed % ALERTED == ALERTED_REST:
        faults += _of_alerts(seed, length)
    expected = seed % ALERTED == ALERTED_REST and random.Random(f"expected {seed}").random() < 0.5
    if aim >= 0:
        faults = [fault for fault in faults if fault.kind != "crash"]
        for _ in range(_AIMED_CRASHES):
            crash = Fault(dice.randrange(500, length), "crash", aim, dice.randrange(1_000_000))
            faults += [crash, *_to_get_there(crash, dice)]
    plan = Plan(seed, agents, jobs, length, tuple(sorted(faults, key=lambda one: one.at)), zookeeper, etcd=etcd)
    plan = replace(plan, places=seed % _PLACES_SHARE == _PLACES_REST, pools=pools, delays=_has_delays(seed))
    plan = replace(plan, expected=expected, gangs=not plan.places and _has_gangs(seed))
    if seed % _TEAMS_SHARE == _TEAMS_REST:
        plan = replace(plan, teams=True, team_roles=() if extreme else _team_roles(seed), places=False)
    return replace(plan, extreme=True, **_limits(seed)) if extreme else plan


def _of_zookeeper(seed: int, length: int) -> list[Fault]:
    dice = random.Random(f"zookeeper {seed}")
    faults: list[Fault] = []
    for number in range(dice.randint(2, 8)):
        kind = dice.choices(list(_ZOOKEEPER_WEIGHTS), list(_ZOOKEEPER_WEIGHTS.values()))[0]
        fault = Fault(dice.randrange(500, length), kind, dice.randrange(1_000_000), dice.randrange(1_000_000))
        if kind in ("crash", "pause"):
            point = len(POINTS) + (seed // _ZOOKEEPER_SHARE * 3 + number * 7) % len(ZOOKEEPER_POINTS)
            fault = Fault(fault.at, kind, point, fault.b)
            faults += _to_get_there(fault, dice)
        faults.append(fault)
    return faults


def _of_pauses(seed: int, length: int) -> list[Fault]:
    """Pauses and backfills, in some histories. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"pauses {seed}")
    count = dice.choice((0, 0, 1, 2))
    return [
        Fault(
            dice.randrange(500, length),
            dice.choice(("pause_mark", "backfill")),
            dice.randrange(1_000_000),
            dice.randrange(1_000_000),
        )
        for _ in range(count)
    ]


def _of_ad_hoc_runs(seed: int, length: int) -> list[Fault]:
    """Ad-hoc runs, in most histories. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"ad hoc {seed}")
    count = dice.choice((0, 1, 2, 4))
    return [
        Fault(dice.randrange(500, length), "ad_hoc", dice.randrange(1_000_000), dice.randrange(1_000_000))
        for _ in range(count)
    ]


def _of_quotas(seed: int, length: int) -> list[Fault]:
    """Quotas, weights and bursts of teams, and other changes of rights. Dice of their own keep the other faults."""
    dice = random.Random(f"quotas {seed}")
    kinds = dice.choices(("quota", "burst", "access"), (4, 4, 1), k=dice.randint(4, 9))
    return [
        Fault(dice.randrange(500, length), kind, dice.randrange(1_000_000), dice.randrange(1_000_000)) for kind in kinds
    ]


def _of_pools(seed: int, length: int) -> list[Fault]:
    """Changes of pools, and bursts of work. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"pools {seed}")
    kinds = dice.choices(("pool", "burst"), (4, 1), k=dice.randint(4, 9))
    return [
        Fault(dice.randrange(500, length), kind, dice.randrange(1_000_000), dice.randrange(1_000_000)) for kind in kinds
    ]


def _of_workflows(seed: int, length: int) -> list[Fault]:
    """Workflows, in a third of the histories. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"workflows {seed}")
    count = dice.choice((0, 0, 0, 0, 3, 7))
    return [
        Fault(dice.randrange(500, length), "workflow", dice.randrange(1_000_000), dice.randrange(1_000_000))
        for _ in range(count)
    ]


def _has_delays(seed: int) -> bool:
    """Whether jobs fire after the ends of their runs: in a quarter of the histories."""
    return random.Random(f"delays {seed}").random() < 0.25


def _has_gangs(seed: int) -> bool:
    """Whether the shards of most runs start together: in a third of the histories."""
    return random.Random(f"gangs {seed}").random() < 1 / 3


def _of_contests(seed: int, length: int) -> list[Fault]:
    """Bursts of teams that fill the cluster while other teams have work. Dice of their own keep the other faults."""
    dice = random.Random(f"contests {seed}")
    return [
        Fault(dice.randrange(3_000, length - 8_000), "contest", dice.randrange(1_000_000), dice.randrange(1_000_000))
        for _ in range(dice.choice((1, 1, 2)))
    ]


def _team_roles(seed: int) -> tuple[tuple[str, str], ...]:
    """The Mesos roles of teams, in half of the histories with teams that are not extreme."""
    dice = random.Random(f"team roles {seed}")
    return dice.choice(((), (), (("billing", "finance"),), (("billing", "finance"), ("ops", "finance"))))


def _of_alerts(seed: int, length: int) -> list[Fault]:
    """Silences and reported problems. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"alerts {seed}")
    return [
        Fault(dice.randrange(500, length), "silence", dice.randrange(1_000_000), dice.randrange(1_000_000))
        for _ in range(dice.choice((0, 1, 2)))
    ]


def _of_extremes(seed: int, length: int) -> list[Fault]:
    """Further faults. Dice of their own keep the other faults as they are."""
    dice = random.Random(f"extremes {seed}")
    kinds = dice.choices(list(_EXTREME_WEIGHTS), list(_EXTREME_WEIGHTS.values()), k=dice.randint(2, 6))
    return [
        Fault(dice.randrange(3_000, length), kind, dice.randrange(1_000_000), dice.randrange(1_000_000))
        for kind in kinds
    ]


def _limits(seed: int) -> dict[str, Any]:
    """The roles, and the largest call: above the scheduler's own limit, or below it, as behind a proxy."""
    dice = random.Random(f"limits {seed}")
    roles = ("a", "b") if dice.random() < 0.5 else ("*",)
    return {"roles": roles, "call_bytes": dice.choice((LARGEST_CALL, LARGEST_CALL, 70_000, 35_000))}


def _to_get_there(fault: Fault, dice: random.Random) -> list[Fault]:
    what = ALL_POINTS[fault.a].split()[-1]
    if what in ("epoch", "candidate"):
        return [Fault(fault.at + 50, "second_leader", 0, 0), Fault(fault.at + 60, "session_cut", 0, 8_000)]
    if what == "unfold":
        return [Fault(fault.at + 50, "remove_app", fault.b, 0)]
    if what in _AT_A_START:
        return [Fault(fault.at + 50, "second_leader", 0, 0)]
    if what not in _LEADS_TO:
        return []
    return [Fault(fault.at + 50, _LEADS_TO[what], dice.randrange(1_000_000), dice.randrange(1_000_000))]
